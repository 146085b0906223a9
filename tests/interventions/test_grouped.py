"""Shared keys and values after one head has a copy of its own: a change of all of them reaches every head's copy."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import scrubjay as sj
from small_models import batch, captured

OTHER = batch(rows=5, seed=3, padding="none")


@pytest.mark.parametrize("site", ["L0.attn.k", "L0.attn.v"])
@pytest.mark.parametrize(
    "change",
    [
        lambda site: sj.mean(site, OTHER),
        lambda site: sj.mean(site, OTHER, by="all"),
        lambda site: sj.resample(site, OTHER),
        lambda site: sj.patch(site, {key: value[:1] for key, value in OTHER.items()}),
        sj.zero,
    ],
)
def test_a_change_of_all_covers_what_was_changed_for_one(site: str, change: Any) -> None:
    _, model = captured("llama")
    inputs = batch(padding="none")
    one = sj.apply(site.replace("attn", "H1"), lambda value: value * 2 + 1)
    expected = sj.run(model, inputs, interventions=[change(site)]).logits
    found = sj.run(model, inputs, interventions=[one, change(site)]).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert float((found - sj.run(model, inputs).logits).abs().max()) > 1e-3


def test_a_tensor_for_shared_heads_no_longer_fits() -> None:
    _, model = captured("llama")
    inputs = batch(padding="none")
    shape = sj.run(model, inputs, keep="L0.attn.k")["L0.attn.k"].as_tensor().shape
    with pytest.raises(sj.errors.InputError, match="2 places along 'head', the value 4"):
        sj.run(model, inputs, interventions=[sj.zero("L0.H1.k"), sj.replace("L0.attn.k", torch.zeros(shape))])
