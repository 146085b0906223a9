"""Ill-formed nodes and circuits are refused where they are made or read, not where they are run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.ops import Add, Constant, Input, Iota, Merge, Narrow, Order, Repeat, Split, Weight
from scrubjay.circuit.printing import parse, write
from scrubjay.circuit.serial import from_text, to_text
from scrubjay.engine import evaluate
from scrubjay.errors import CircuitError

X = Input("x", (Axis("model", 4),))
ANY: Any = X
ODD: list[Any] = [-1, 1.5, None, (4,)]


@pytest.mark.parametrize("size", ODD)
def test_a_size_is_an_integer_from_0_on_or_a_text(size: Any):
    axis = Axis("v", size)
    for make in (
        lambda: Input("a", (axis,)),
        lambda: Weight("s", "a", ((axis,),)),
        lambda: Iota(axis),
        lambda: Narrow(X, "model", 0, axis),
        lambda: Split(X, "model", (axis,)),
        lambda: Merge(X, ("model",), axis),
        lambda: Repeat(X, (axis,)),
        lambda: Order(X, "model", axis, "values"),
    ):
        with pytest.raises(CircuitError, match=r"size|a \w+ holds|cannot be split|places together"):
            make()


@pytest.mark.parametrize(("start", "step"), [(-1, 1), (-4, 1), (0, 0), (3, -1)])
def test_a_slice_is_not_counted_from_the_end(start: int, step: int):
    with pytest.raises(CircuitError, match="from 0 on"):
        Narrow(X, "model", start, Axis("m", 2), step)
    with pytest.raises(CircuitError, match="from 0 on"):
        Narrow(Input("x", (Axis("q", "query"),)), "q", start, Axis("m", 2), step)


def test_a_value_in_the_wrong_field_is_told():
    with pytest.raises(CircuitError, match=r"a Narrow holds .*to: Axis.* was given .*to: int"):
        Narrow(ANY, "model", 2, 5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(CircuitError, match=r"an? Add holds"):
        Add(("x", X))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("value", [1 + 2j, None, (1,)])
def test_a_constant_is_a_real_number(value: Any):
    with pytest.raises(CircuitError, match="real number"):
        Constant(value)


@pytest.mark.parametrize(
    "other", [Input("a", (Axis("y", 4),)), Input("a", (Axis("y", 3),)), Input("a", (Axis("x", 3),), "int64")]
)
def test_two_inputs_of_one_name_are_refused(other: Input):
    circuit = Circuit({"output": Add((Input("a", (Axis("x", 3),)), other))})
    with pytest.raises(CircuitError, match="two inputs are called 'a'"):
        _ = circuit.inputs
    with pytest.raises(CircuitError, match="two inputs are called 'a'"):
        evaluate([circuit.roots["output"]], {"a": torch.arange(3)}, {})
    with pytest.raises(CircuitError, match="two inputs are called 'a'"):
        from_text(to_text(circuit), {})
    with pytest.raises(CircuitError, match="two inputs are called 'a'"):
        parse(write(circuit))


def test_one_stored_tensor_may_be_seen_under_two_names():
    tied = [Weight("s", "w", ((Axis(name, 3),),)) for name in ("a", "b")]
    circuit = Circuit({"output": Add(tuple(tied))})
    assert from_text(to_text(circuit), {"s": "s"}).roots == circuit.roots
