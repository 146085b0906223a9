"""Keys and values that one query reads are never computed; the value stays."""

from __future__ import annotations

import pytest
import torch

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Einsum, Index, Input, Relabel, Weight
from scrubjay.engine.context import Payload
from scrubjay.engine.evaluate import evaluate
from scrubjay.interventions.absorption import absorbed

BATCH, QUERY, MODEL, HEAD, SPACE = (
    Axis("batch", "batch"), Axis("query", "query"), Axis("model", 64), Axis("head", 3), Axis("d_head", 16),
)  # fmt: skip
X = Input("x", (BATCH, QUERY, MODEL))
W = Weight("w", "w", ((MODEL,), (Axis("qkv", 2), HEAD, SPACE)))
B = Weight("w", "b", ((Axis("qkv", 2), HEAD, SPACE),))
READING = {"d_head": Input("q", (BATCH, HEAD, SPACE)), "key": Input("pattern", (BATCH, HEAD, Axis("key", "query")))}


def linear(bias: bool) -> Node:
    made: Node = Einsum((X, W), ("model",))
    return Relabel(Index(Add((made, B)) if bias else made, "qkv", 1), (("query", "key"),))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("summed", READING)
@pytest.mark.parametrize("turned", [True, False])
def test_the_value_stays_and_costs_less(bias: bool, summed: str, turned: bool) -> None:
    factors = (linear(bias), READING[summed])
    node = Einsum(factors[::-1] if turned else factors, (summed,))
    made = absorbed(node)
    assert not any(one is linear(bias) for one in topological([made]))
    draw = torch.Generator().manual_seed(0)
    inputs = {
        name: torch.randn(shape, generator=draw, dtype=torch.float64)
        for name, shape in {"x": (2, 20, 64), "q": (2, 3, 16), "pattern": (2, 3, 20)}.items()
    }
    given = {"w": torch.randn(64, 96, generator=draw), "b": torch.randn(96, generator=draw)}
    stores = {"w": Payload(given, {})}
    old, new = (evaluate([one], inputs, stores, dtype=torch.float64) for one in (node, made))
    order = tuple(axis.name for axis in node.axes)
    assert (old[node].dense(order) - new[made].dense(order)).abs().max() < 1e-10
    assert new.work.multiply_adds < old.work.multiply_adds / 4


def test_where_every_position_reads_nothing_changes() -> None:
    every = Einsum((Input("q", (BATCH, QUERY, HEAD, SPACE)), linear(True)), ("d_head",))
    assert absorbed(every) is every
    for x in (X, Input("x", (BATCH, QUERY, HEAD, MODEL))):  # what is renamed is the weight's own, too
        turned = Relabel(Einsum((x, W), ("model",)), (("head", "other"), ("query", "key")))
        kept = Einsum((READING["d_head"], turned), ("d_head",))
        assert absorbed(kept) is kept
