"""Where a model is evaluated: where its weights are, inputs and counts included."""

from __future__ import annotations

import torch

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Constant, Input, Iota, Map, Multiply, Weight
from scrubjay.engine.array import Array
from scrubjay.engine.context import Payload
from scrubjay.engine.evaluate import evaluate, home

MODEL = Axis("model", 3)
WEIGHT = Weight("model", "w", ((MODEL,),), "model")
BROUGHT = Weight("interventions-1", "t0", ((MODEL,),), "model")
GIVEN = Input("x", (Axis("batch", "batch"), MODEL))
META, CPU = torch.device("meta"), torch.device("cpu")


class Store:
    """Tensors on the meta device, which hold no numbers: an operation with one on the processor raises."""

    def tensor(self, name: str) -> torch.Tensor:
        del name
        return torch.empty(3, device="meta")


STORES = {"interventions-1": Payload({"t0": torch.ones(3)}, {}), "model": Store()}


def test_inputs_counts_constants_and_what_interventions_brought_go_to_the_weights() -> None:
    count = Map("cast", (Iota(MODEL),), ("model",))
    nodes = [
        GIVEN,
        count,
        BROUGHT,
        Constant(2.0, "model"),
        Add((Multiply((GIVEN, WEIGHT, count)), BROUGHT, Constant(2.0, "model"))),
    ]
    made = evaluate(nodes, {"x": torch.ones(2, 3)}, STORES)
    assert [made[node].as_tensor().device for node in nodes] == [META] * len(nodes)
    assert made[nodes[-1]].as_tensor().shape == (2, 3)


def test_a_device_that_is_given_is_the_one() -> None:
    found = evaluate([GIVEN, BROUGHT], {"x": torch.ones(2, 3)}, STORES, device="meta")
    assert {found[node].as_tensor().device for node in (GIVEN, BROUGHT)} == {META}


def test_home_is_where_the_models_own_weights_are_then_known_values() -> None:
    known: dict[Node, Array] = {GIVEN: Array(torch.ones(2, 3), ("batch", "model"))}
    assert home([BROUGHT, GIVEN, WEIGHT], STORES, known) == META
    assert home([BROUGHT, GIVEN], STORES, known) == CPU
    assert home([BROUGHT, GIVEN], STORES, {GIVEN: Array(torch.empty(2, 3, device="meta"), ("batch", "model"))}) == META
    assert home([BROUGHT, GIVEN], STORES, {}) is None
    assert home([Constant(1)], {}, {GIVEN: Array(1.0, ())}) is None
    assert home([GIVEN], {}, {}, {"x": torch.empty(2, 3, device="meta")}) == META


def test_counts_go_where_the_inputs_are_if_there_is_no_weight() -> None:
    count = Map("cast", (Iota(MODEL),), ("model",))
    found = evaluate([Multiply((GIVEN, count))], {"x": torch.empty(2, 3, device="meta")}, {})
    assert [one.as_tensor().device for one in found.values.values()] == [META]
