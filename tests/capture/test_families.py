"""Every family of transformers: captured with no code of its own, exact, and told apart from small mistakes.

    make models     # all of them, and docs/models.md written anew

Each family is one test, on a small random model whose weights have unit scale. The quick ones run always; the rest are slow.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import families
import scrubjay as sj
from models_page import cells, documented
from mutations import MUTATIONS
from scrubjay.capture.model import Model
from scrubjay.circuit.ops import Opaque

TOLERANCE = 1e-5
"""The greatest difference of a logit, in units of the logits' standard deviation."""

WIDER = {"squeezebert": 2e-5}
"""Families whose rounding in 32 bits is more than that (in 64 bits its difference is 4e-14)."""

CASES = {
    "other sizes": (5, 23, "none"),
    "length one": (3, 1, "none"),
    "one row": (1, 9, "none"),
    "left padding": (3, 17, "left"),
    "right padding": (3, 17, "right"),
}
QUICK = set(families.QUICK)

EQUIVALENT = {
    "gpt_neo": ["order dropped"],  # a triangular buffer of its own masks the same places once more
    "cpmant": ["order dropped"],  # all of its input is context, which every place reads
    "kolibri1": ["lost term"],  # the only such term is a router's correction, a buffer of zeros
}
"""Mutations that change nothing in a family, and must not."""


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def apart(module: Any, model: Model, case: tuple[int, int, str]) -> float:
    """Return the greatest difference of a result on real tokens, in units of its standard deviation."""
    given = families.batch(module, *sized(model, case))
    expected = families.logits_of(module, given)
    got = sj.run(model.unchecked(), {name: given[name] for name in model.circuit.inputs}).output
    assert got.shape == expected.shape
    here = torch.isfinite(expected).all(-1)
    mask = given.get("decoder_attention_mask" if "decoder_input_ids" in given else "attention_mask")
    here &= mask.bool() if mask is not None and mask.shape == here.shape else True
    assert here.any()
    far = torch.where(torch.isfinite(got), (got - expected).abs(), float("inf"))
    return float(far[here].max() / expected[here].std())


def sized(model: Model, case: tuple[int, int, str]) -> tuple[int, int, str]:
    """Return the case at the one length of a model that has a step for each position."""
    size = {axis.name: axis.size for axis in model.circuit.inputs["input_ids"].axes}.get("query", case[1])
    return (case[0], size, case[2]) if isinstance(size, int) else case


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in families.FAMILIES]
)
def test_the_circuit_is_the_module(kind):
    module = families.build(kind)
    model = sj.load(module, cache=None)
    errors = {name: apart(module, model, case) for name, case in CASES.items()}
    most = WIDER.get(kind, TOLERANCE)
    assert max(errors.values()) <= most, errors
    unnoticed = [name for name, far in mistakes(module, model).items() if far <= most]
    assert unnoticed == EQUIVALENT.get(kind, [])
    row = {"family": kind, "error": max(errors.values()), **found(model)}
    if folder := os.environ.get("SCRUBJAY_MODELS"):
        Path(folder, f"{kind}.json").write_text(json.dumps(row))
    else:
        assert documented(kind) == cells(row), "docs/models.md tells otherwise: run `make models`"


def mistakes(module: Any, model: Model) -> dict[str, float]:
    """Return how far off each mutation of the circuit is that applies to it, on a padded batch."""
    found: dict[str, float] = {}
    for name, change in MUTATIONS.items():
        mutant = change(model.circuit)
        if mutant is not None:
            wrong = replace(model, circuit=mutant)
            found[name] = max(apart(module, wrong, CASES[case]) for case in ("left padding", "right padding"))
    return found


def found(model: Model) -> dict[str, Any]:
    """Return what was recognised of a model, and what stays opaque, as plain values."""
    shapes = model.anatomy.shape.layers
    return {
        "layers": model.layers,
        "heads": sorted(set(model.heads)),
        "mlp": sum("mlp.out" in shape.sites for shape in shapes),
        "attention": sum("attn.pattern" in shape.sites for shape in shapes),
        "experts": max((shape.experts for shape in shapes), default=0),
        "opaque": dict(Counter(node.op.split(".")[1] for node in model.circuit.nodes if isinstance(node, Opaque))),
        "notes": list(model.anatomy.notes),
    }


@pytest.mark.parametrize(("kind", "without"), [("llama", {"lost term"}), ("gpt2", {"rotary off by one"})])
def test_the_mistakes_are_there_to_be_made(kind, without):
    """Llama has no biases and gpt2 no rotary embedding; every other mutation changes their circuits."""
    circuit = sj.load(families.build(kind), cache=None).circuit
    assert {name for name, change in MUTATIONS.items() if change(circuit) is None} == without


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neo", "llama", "qwen3", "gemma2", "bert"])
def test_nothing_inside_a_block_stays_opaque(kind):
    model = sj.load(families.build(kind), cache=None)
    assert not [node for node in model.circuit.nodes if isinstance(node, Opaque)]
    assert not model.anatomy.notes
