"""What an exploration starts with draws itself: decompositions, weights, models, differences, and the answers of a lens."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from functools import cache
from typing import Any

import pytest

import scrubjay as sj
import small_models as small
from scrubjay.circuit.printing import diff
from scrubjay.matrices import copying, product
from scrubjay.reporting.notebook import DRAWN, drawn


@cache
def shown() -> dict[str, Any]:
    _, model = small.captured("gpt2")
    inputs = small.batch()
    return {
        "L0.H3.out": sj.decompose(model, inputs, "L1.H2.q@-1"),
        "K-composition: what keys read": sj.composition(model, samples=2),
        "Copying score": copying(model),
        "Norms of L*.H*.OV": product(model, "L*.H*.OV"),
        "Singular values of L1.H3.QK": product(model, "L1.H3.QK"),
        "L0..1.attn.pattern": model,
        "rewritten": diff(model.circuit, sj.edit(model, sj.zero("L1.mlp.out")).circuit),
        "The rank of the answer": sj.logit_lens(model, inputs, answers=[3, 14, 15]),
    }


@pytest.mark.parametrize("said", list(shown()))
def test_values_draw_themselves(said: str) -> None:
    value = shown()[said]
    assert isinstance(value, DRAWN)
    page = drawn(value)
    assert said in page
    ET.fromstring(f"<p>{page}</p>")


def test_a_lens_shows_the_rank_of_the_answer() -> None:
    found = shown()["The rank of the answer"]
    page = drawn(found)
    assert f"#{int(found.rank[-1, 0, -1, 0]) + 1}<" in page


def test_many_heads_are_shown_by_layers() -> None:
    from scrubjay.reporting.sections import weights  # noqa: PLC0415 - its limit is lowered here

    before, weights._MOST_HEADS = weights._MOST_HEADS, 4  # pyright: ignore[reportPrivateUsage]
    try:
        page = drawn(shown()["K-composition: what keys read"])
    finally:
        weights._MOST_HEADS = before  # pyright: ignore[reportPrivateUsage]
    assert "the greatest of each pair of layers" in page
