"""Whether a result depends on a value, against changing the value: `depends` may say yes too often, and never no in error."""

from __future__ import annotations

import random

import pytest
import torch

from scrubjay.circuit.address import Position
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.flow import depends
from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Along,
    Constant,
    Einsum,
    Gather,
    Index,
    Input,
    Iota,
    Map,
    Multiply,
    Relabel,
    Repeat,
)
from scrubjay.circuit.places import position_mask, raw, real_span, single_positions, span
from scrubjay.engine.evaluate import evaluate

SIZES = {"kv": 2, "group": 2, "model": 3}
AXES = {name: Axis(name, size) for name, size in SIZES.items()}
LEAVES = [Input(f"x{number}", (AXES["kv"], AXES["group"])) for number in range(3)]
LEAVES += [Input("y0", (AXES["kv"],)), Input("y1", (AXES["model"],)), Input("y2", ())]


def value(node: Node, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return evaluate([node], inputs, {})[node].as_tensor()


def mask(pick: random.Random) -> Node:
    """One place on one or two head axes."""
    names = pick.choice([["kv"], ["group"], ["kv", "group"]])
    parts = [Map("equal", (Iota(AXES[name]), Constant(pick.randrange(SIZES[name])))) for name in names]
    return parts[0] if len(parts) == 1 else Map("and", (parts[0], parts[1]))


def grown(pick: random.Random) -> list[Node]:
    """A random graph of choices, sums, products, sums along an axis and choices of one place."""
    nodes: list[Node] = list(LEAVES)
    for _ in range(12):
        a, b = (pick.choice(nodes[-6:]) for _ in range(2))
        made: Node
        match pick.randrange(7):
            case 0 | 1 | 2:
                made = Map("where", (mask(pick), a, b))
            case 3:
                made = Add((a, b))
            case 4 if a.axes:
                name = pick.choice(a.axes).name
                made = pick.choice([Along("sum", a, (name,)), Einsum((a, a), (name,)), Along("cumsum", a, (name,))])
            case 5 if a.axes:
                name = pick.choice(a.axes).name
                made = Index(a, name, pick.randrange(SIZES[name]))
            case _:
                lacking = [axis for axis in AXES.values() if axis.name not in a.axis_names]
                made = Repeat(a, (lacking[0],)) if lacking else Multiply((a, b))
        nodes.append(made)
    return nodes


def test_what_does_not_depend_does_not_change() -> None:
    said_no = reached = 0
    for seed in range(300):
        root = grown(random.Random(seed))[-1]
        inputs = {
            leaf.name: torch.randn([int(axis.size) for axis in leaf.dims], generator=torch.Generator().manual_seed(seed)).double()
            for leaf in LEAVES
        }  # fmt: skip
        below = set(topological([root]))
        for leaf in LEAVES:
            changed = {**inputs, leaf.name: inputs[leaf.name] + 1}
            same = leaf not in below or torch.equal(value(root, inputs), value(root, changed))
            found = depends([root], leaf)
            assert found or same, seed
            said_no += not found and leaf in below
            reached += found
    assert said_no > 30
    assert reached > 300


HEAD = {place: Map("equal", (Iota(AXES["kv"]), Constant(place))) for place in range(2)}
OLD, NEW = Input("old", (AXES["kv"], AXES["model"])), Input("new", ())


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (Map("where", (HEAD[0], NEW, Map("where", (HEAD[0], OLD, NEW)))), False),
        (Map("where", (HEAD[0], NEW, Map("where", (HEAD[1], OLD, NEW)))), True),
        (Map("where", (HEAD[0], NEW, Map("where", (HEAD[1], NEW, OLD)))), False),
        (Map("where", (HEAD[0], Map("where", (HEAD[0], NEW, OLD)), NEW)), False),
        (Map("where", (HEAD[0], Map("where", (HEAD[1], OLD, NEW)), NEW)), False),
        (Index(Map("where", (HEAD[1], OLD, NEW)), "kv", 0), False),
        (Index(Map("where", (HEAD[0], OLD, NEW)), "kv", 0), True),
        # what is summed over is read everywhere
        (Map("where", (HEAD[0], NEW, Repeat(Along("sum", OLD, ("kv",)), (AXES["kv"],)))), True),
        (Map("where", (HEAD[0], NEW, Relabel(Relabel(OLD, (("kv", "group"),)), (("group", "kv"),)))), True),
        (NEW, False),
    ],
)
def test_one_choice_behind_another(node: Node, expected: bool) -> None:
    assert depends([node], OLD) is expected


QUERY, BATCH = Axis("query", "query"), Axis("batch", "batch")
STREAM = Input("stream", (BATCH, QUERY, AXES["model"]))


def apart_by_length(*lengths: int):
    return lambda one, two: all(one % length != two % length for length in lengths)


@pytest.mark.parametrize("padded", [True, False])
def test_a_reader_at_one_position_reads_no_other(padded: bool) -> None:
    given = Input("attention_mask", (BATCH, QUERY), "int64")
    circuit = Circuit({"output": STREAM}, {"_in.attention_mask": given} if padded else {})
    ats = [0, 2, -1, -3]
    known = single_positions(circuit, ats)
    where = span(circuit)
    assert not padded or where.first is real_span(given).first
    for at in ats:
        put = Map("where", (position_mask(circuit, Position(at)), STREAM, Constant(0.0)))
        for read in ats:
            index = raw(where, read)
            node = Gather(put, "query", index if index.axes else Add((index, Constant(0))))
            for lengths in ((5,), (3,), (3, 5), (1,)):
                expected = any(at % length == read % length for length in lengths)
                assert depends([node], STREAM, known, apart_by_length(*lengths)) is expected
            assert depends([node], STREAM)
            mixed = Gather(Along("cumsum", put, ("query",)), "query", node.index)  # a reader of other positions
            assert depends([mixed], STREAM, known, apart_by_length(5))
