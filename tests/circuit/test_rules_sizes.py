"""Stretches of an axis are refused unless they add up to it."""

from __future__ import annotations

import pytest

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Einsum, Input, Map
from scrubjay.circuit.rules.joining import in_chunks, split_to_concat
from scrubjay.circuit.rules.places import split_stretches
from scrubjay.circuit.rules.rewriting import rewrite
from scrubjay.circuit.rules.rule import applied
from scrubjay.errors import CircuitError

KEY, HEAD = Axis("key", "query"), Axis("head", 4)


def contraction() -> Node:
    return Einsum((Input("pattern", (HEAD, KEY)), Input("value", (HEAD, KEY))), ("key",))


@pytest.mark.parametrize(
    "sizes", [(1, "query - 2"), (-1, "query + 1"), (2, "query - 3"), (1, "batch - 1"), (1, "query -"), (1, 2, "query"), (3, -2, "query - 1"), (0, "query - 0", "query - query")]
)  # fmt: skip
def test_sizes_that_do_not_cover_the_axis_are_refused(sizes: tuple[int | str, ...]) -> None:
    for rule in (split_stretches("key", sizes), split_to_concat("key", sizes)):
        with pytest.raises(CircuitError, match=r"places|no size|only"):
            applied(rule, contraction() if rule.name == "split_stretches" else contraction().operands[0])


@pytest.mark.parametrize(
    "sizes", [(1, "query - 1"), (1, 2, "query - 3"), (1, 2, "query - 1 - 2"), (2, "(query - 1) - 1"), ("query",)]
)
def test_sizes_that_cover_the_axis_are_taken(sizes: tuple[int | str, ...]) -> None:
    assert applied(split_to_concat("key", sizes), contraction().operands[0]).axis_names == {"head", "key"}
    applied(split_stretches("key", sizes), contraction())


def test_chunks_of_a_batch_that_do_not_cover_it_are_refused() -> None:
    circuit = Circuit({"output": Map("tanh", (Input("x", (Axis("batch", "batch"),)),))})
    with pytest.raises(CircuitError, match="'batch - 1'"):
        in_chunks(circuit, "batch", (1, "batch - 2"))
    assert rewrite(in_chunks(circuit, "batch", (1, "batch - 1")), ()).roots
