"""Results that draw themselves in a notebook: static HTML and SVG, after `%load_ext scrubjay`."""

from __future__ import annotations

from typing import Any, get_args

from scrubjay.circuit.circuit import Circuit
from scrubjay.claims.hypothesis import Hypothesis
from scrubjay.interventions import Run
from scrubjay.reporting.document import Drawn, Shown, sections_of
from scrubjay.scrubbing import ScrubResult
from scrubjay.viz import Figure, Markup, notebook, tag, text

DRAWN: tuple[type, ...] = (Run, ScrubResult, Hypothesis, Circuit, Figure, *get_args(Drawn))
"""The kinds of value that draw themselves."""


def drawn(value: Shown) -> Markup:
    """Return a value as the HTML that a notebook shows: what `sj.report` would write of it, with its style sheet.

    >>> drawn(Hypothesis("nothing claimed")).startswith('<div class="sj">')
    True
    """
    if isinstance(value, Hypothesis) and not any(True for _ in value.claims()):
        return notebook(tag("p", text(repr(value))))
    blocks: list[Markup] = []
    for section in sections_of((value,)):
        blocks.extend(
            notebook(item if isinstance(item, Figure | Markup) else tag("p", text(str(item)))) for item in section.body
        )
    return tag("div", *blocks, class_="sj")


def register(shell: Any) -> None:
    """Tell a running IPython to draw Scrubjay's values."""
    formatter = shell.display_formatter.formatters["text/html"]
    for kind in DRAWN:
        formatter.for_type(kind, drawn)
