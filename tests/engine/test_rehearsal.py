"""Shapes are found once for all nodes that are alike, and fused forms once for a model."""

from __future__ import annotations

import gc
from importlib import import_module
from typing import Any

import pytest
import torch

import scrubjay as sj
import small_models
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.ops import Add, Constant, Einsum, Input, Map, Weight
from scrubjay.engine.array import Array
from scrubjay.engine.evaluate import evaluate

rehearsal = import_module("scrubjay.engine.rehearsal")
forms: Any = import_module("scrubjay.engine.compute")
X = Input("x", (Axis("batch", "batch"), Axis("model", 4)))


def value(shape: tuple[int, ...], names: tuple[str, ...]) -> Array:
    return Array(torch.empty(shape, device="meta"), names)


def test_a_shape_is_found_once_for_nodes_that_are_alike() -> None:
    found: list[int] = []
    names = ("variant", "batch", "own")

    def compute() -> Array:
        found.append(1)
        return value((7, 3, 4), names)

    operands = [value((7, 3, 4), names)]
    nodes = [Map("tanh", (Input(f"test.{place}", X.dims),)) for place in range(3)]
    made = [rehearsal.shaped(node, operands, compute) for node in nodes]
    assert len(found) == 1
    assert all(one.names == names and one.tensor.shape == (7, 3, 4) for one in made)
    assert len({one.tensor.untyped_storage()._cdata for one in made}) == 3  # each is a value of its own
    rehearsal.shaped(nodes[0], [value((8, 3, 4), names)], compute)
    assert len(found) == 2
    rehearsal.shaped(Map("sin", nodes[0].operands), operands, compute)
    assert len(found) == 3


def test_what_shares_memory_is_found_each_time() -> None:
    x = value((5, 11), ("batch", "model"))
    one = Map("cast", (X,), ("model",))
    for _ in range(3):
        made = rehearsal.shaped(one, [x], lambda: Array(x.tensor, x.names))
        assert made.tensor is x.tensor
    real = Array(torch.ones(5, 11), ("batch", "model"))
    assert rehearsal.shaped(one, [real], lambda: real) is real


def test_no_more_shapes_are_remembered_than_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "MOST", len(rehearsal._KNOWN) + 2)
    for size in range(100, 110):
        one = value((size, 13), ("batch", "model"))
        rehearsal.shaped(Map("tanh", (X,)), [one], lambda one=one: value(tuple(one.as_tensor().shape), one.names))
    assert len(rehearsal._KNOWN) <= rehearsal.MOST


def test_shapes_remembered_are_those_of_numbers() -> None:
    w = Weight("w", "w", ((Axis("model", 4),), (Axis("hidden", 6),)))
    b = Weight("w", "b", ((Axis("hidden", 6),),))
    node = Add((Map("tanh", (Einsum((X, w), ("model",)),)), b, Constant(1.0)))
    held = {"w": torch.randn(4, 6), "b": torch.randn(6)}
    stores = {"w": import_module("scrubjay.engine.context").Payload(held, {})}
    real = evaluate([node], {"x": torch.randn(3, 4)}, stores)
    for _ in range(2):
        made = evaluate([node], {"x": torch.randn(3, 4)}, stores, device="meta")
        assert made[node].names == real[node].names
        assert made[node].as_tensor().shape == real[node].as_tensor().shape
        assert made.work == real.work


def test_fused_forms_are_found_once_and_forgotten_with_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    module, _ = small_models.captured("gpt2")
    model = small_models.load(module)
    called: list[int] = []
    fuse = forms.fuse
    monkeypatch.setattr(forms, "fuse", lambda *given, **options: called.append(1) or fuse(*given, **options))
    inputs = small_models.batch(2, 6)
    first = sj.run(model, inputs, keep="L0.H*.z")
    again = sj.run(model, inputs, keep="L0.H*.z")
    assert len(called) == 1
    assert torch.equal(first.logits, again.logits)
    sj.run(model, inputs, keep="L0.H*.z", fused=True)
    assert len(called) == 2
    store = next(iter(model.stores.values()))
    for layer in range(2):
        for head in range(4):
            for site in ("q", "k"):
                sj.run(model, inputs, keep=f"L{layer}.H{head}.{site}")
    assert len(forms._FORMS[store]) == forms.MOST
    before = len(forms._FORMS)
    del store, first, again, model
    gc.collect()
    assert len(forms._FORMS) < before
