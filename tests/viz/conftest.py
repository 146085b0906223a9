"""Every public figure and document, drawn with one given string in every place that takes text."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from scrubjay.viz import (
    Branch,
    Detail,
    Figure,
    Markup,
    ScrubRow,
    Section,
    attention,
    bars,
    heatmap,
    notebook,
    page,
    recovered,
    table,
    tag,
    text,
    tokens,
    tree,
)

VALUES = np.array([[0.0, -1.25, math.nan], [0.5, math.inf, 2.0]])
PATTERN = np.array([[[1.0, 0.0], [0.25, 0.75]]])


def _row(words: str) -> ScrubRow:
    return ScrubRow(words, 0.9, 0.01, 0.88, 0.92, 0.1, 4.0, 0.5, 0.7, words)


def _page(words: str) -> Markup:
    body = (words, Figure(text(words), words), Detail(words, (words, Figure(tree(Branch(words)), words))), text(words))
    section = Section(words, words, body)
    return page(words, [section, section], words, {words: words}, kind=words)


GALLERY: dict[str, Callable[[str], Markup]] = {
    "attention": lambda words: attention(PATTERN, [words, words], [words], words),
    "bars": lambda words: bars(
        [words, words, words], VALUES[0], np.abs(VALUES[0]), words, words, reference_lines={words: 1.0}
    ),
    "heatmap": lambda words: heatmap(VALUES, [words] * 2, [words] * 3, words, unit=words),
    "heatmap, unsigned": lambda words: heatmap(np.abs(VALUES), [words] * 2, [words] * 3, words, False, words),
    "notebook": lambda words: notebook(Figure(text(words), words)),
    "page": _page,
    "recovered": lambda words: recovered([_row(words)], words, words),
    "table": lambda words: table([words, words], [[words, 1.0], [words, None]], caption=words),
    "tag": lambda words: tag("p", words, title=words),
    "text": lambda words: tag("p", text(words)),
    "tokens": lambda words: tokens([words] * 3, VALUES[0], words, unit=words),
    "tree": lambda words: tree(Branch(words, words, (Branch(words, words),)), words),
}


@pytest.fixture(params=sorted(GALLERY), scope="session")
def drawn(request: pytest.FixtureRequest) -> Callable[[str], Markup]:
    """Give each public function in turn, as a function of the one string it is to show everywhere."""
    return GALLERY[request.param]


@pytest.fixture(scope="session")
def gallery() -> dict[str, Callable[[str], Markup]]:
    """Give all of them by name."""
    return GALLERY
