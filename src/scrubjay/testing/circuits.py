"""Random well-formed circuits with matching inputs, as hypothesis strategies: the data of every law test.

A circuit is grown node by node. Each step draws a kind and operands, and gives a node or, where the kind does not fit the
operands, nothing. Values stay finite: a bound on each node's magnitude is carried along, and what would pass it is not made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from hypothesis import strategies as st

from scrubjay.circuit.axes import RANDOM, Axis, is_random
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Along,
    Concat,
    Constant,
    Cumulant,
    Einsum,
    Expectation,
    Experts,
    Gather,
    Index,
    Input,
    Iota,
    Map,
    Merge,
    Multiply,
    Narrow,
    Order,
    Relabel,
    Sample,
    Split,
    Weight,
)  # fmt: skip

SOURCE = "random"
"""The source that the weights of a random circuit are found in."""

LARGEST = 1e4
BATCH, QUERY, MODEL, ROW = Axis("batch", "batch"), Axis("query", "query"), Axis("model", 4), Axis("row", 5)


@dataclass(frozen=True, eq=False)
class Example:
    """A circuit, and what it needs to be run.

    Attributes:
        circuit: its result is `output`; some of its nodes are in the table, as `node 3`.
        inputs: an array for each input, dimensions in the input's order.
        weights: an array for each weight, under its name in the store `SOURCE`.
        sizes: the number behind each size that is a symbol.
    """

    circuit: Circuit
    inputs: Mapping[str, np.ndarray]
    weights: Mapping[str, np.ndarray]
    sizes: Mapping[str, int]


@dataclass
class _Growing:
    """A circuit being grown: its float-valued nodes, each with a bound on its magnitude."""

    draw: Callable[[Any], Any]
    sizes: Mapping[str, int]
    bounds: dict[Node, float] = field(default_factory=dict)

    def one(self, items: Sequence[Any]) -> Any:
        """Draw one of the items."""
        return self.draw(st.sampled_from(list(items)))

    def node(self) -> Node:
        """Draw a node made so far, most often the last one, so that circuits grow deep."""
        made = [*self.bounds]
        return made[-1] if self.draw(st.integers(0, 3)) else self.one(made)

    def nodes(self, most: int) -> list[Node]:
        """Draw a node as `node` does and up to `most - 1` of any."""
        return [self.node(), *(self.one([*self.bounds]) for _ in range(self.draw(st.integers(0, most - 1))))]

    def axis(self, node: Node) -> Axis | None:
        """Draw an axis of the node that nodes may act along."""
        axes = [axis for axis in node.axes if not is_random(axis.name)]
        return self.one(axes) if axes else None

    def numbered(self, node: Node) -> tuple[str, int] | None:
        """Draw the name and size of an axis that has a number for size."""
        axes = [(one.name, one.size) for one in node.axes if isinstance(one.size, int) and not is_random(one.name)]
        return self.one(axes) if axes else None

    def some(self, names: Sequence[str]) -> tuple[str, ...]:
        """Draw some of the names, in order."""
        chosen = self.draw(st.sets(st.sampled_from(list(names)))) if names else set()
        return tuple(name for name in names if name in chosen)

    def number(self, size: int | str) -> int:
        """Return the size as a number."""
        return size if isinstance(size, int) else self.sizes[size]


Grown = tuple[Node, float] | None


@st.composite
def circuits(draw, steps: int = 10) -> Example:
    """Give a circuit of at most `steps` nodes over its leaves, with inputs and weights that fit it.

    >>> from hypothesis import find
    >>> find(circuits(), lambda example: "output" in example.circuit.roots).circuit.roots["output"].axis_names >= set()
    True
    """
    sizes = {"batch": draw(st.integers(1, 3)), "query": draw(st.integers(1, 4))}
    growing = _Growing(draw, sizes)
    growing.bounds.update(dict.fromkeys(LEAVES, 2.0))
    for _ in range(draw(st.integers(min(4, steps), steps))):
        made = draw(st.sampled_from(STEPS))(growing)
        if made is not None and made[1] <= LARGEST:
            growing.bounds[made[0]] = made[1]
    nodes = list(growing.bounds)
    table = {f"node {place}": nodes[place] for place in draw(st.sets(st.integers(0, len(nodes) - 1), max_size=3))}
    circuit = Circuit({"output": nodes[-1]}, table, {"gone": "drop"}, ("drop",))
    return _filled(circuit, sizes, np.random.default_rng(draw(st.integers(0, 2**32 - 1))))


def _filled(circuit: Circuit, sizes: Mapping[str, int], random: np.random.Generator) -> Example:
    """Draw arrays for the leaves of the roots and of the table."""
    inputs: dict[str, np.ndarray] = {}
    weights: dict[str, np.ndarray] = {}
    for leaf in (*LEAVES, *EXPERTS.values(), *PLACES.values()):
        if isinstance(leaf, Input):
            shape = [axis.size if isinstance(axis.size, int) else sizes[axis.size] for axis in leaf.dims]
            if leaf.dtype == "int64":
                size = int(leaf.name.removeprefix("place of "))
                inputs[leaf.name] = random.integers(-size, size, shape)
            else:
                inputs[leaf.name] = random.uniform(-2, 2, shape)
        elif isinstance(leaf, Weight):
            weights[leaf.name] = random.uniform(-2, 2, [prod(int(axis.size) for axis in dim) for dim in leaf.dims])
    return Example(circuit, inputs, weights, sizes)


LEAVES: tuple[Node, ...] = (
    Input("y", (QUERY, BATCH)),
    Input("rows", (ROW, MODEL)),
    Weight(SOURCE, "matrix", ((MODEL,), (Axis("hidden", 3),))),
    Weight(SOURCE, "heads", ((Axis("head", 2), Axis("d_head", 2)), (), (MODEL,))),
    Constant(-1.5),
    Constant(2),
    Input("x", (BATCH, QUERY, MODEL)),
)
EXPERTS = {
    size: Weight(SOURCE, f"{size} experts", ((Axis("expert", size),), (MODEL,), (Axis("made", 2),))) for size in (2, 3)
}
"""Stacks of matrices that `place of 2` and `place of 3` choose from."""

PLACES = {size: Input(f"place of {size}", (BATCH, QUERY), "int64") for size in (2, 3, 4, 5)}
"""For each size of an axis, an input of places along it."""


def _agree(nodes: Sequence[Node]) -> bool:
    """Tell whether no axis has two sizes among the nodes."""
    sizes: dict[str, int | str] = {}
    return all(sizes.setdefault(axis.name, axis.size) == axis.size for node in nodes for axis in node.axes)


def _agree_but(nodes: Sequence[Node], left_out: Sequence[str]) -> bool:
    """Tell whether no axis has two sizes among the nodes, each without one axis of its own."""
    sizes: dict[str, int | str] = {}
    pairs = [
        (axis.name, axis.size)
        for node, out in zip(nodes, left_out, strict=True)
        for axis in node.axes
        if axis.name != out
    ]
    return all(sizes.setdefault(name, size) == size for name, size in pairs)


def _add(growing: _Growing) -> Grown:
    terms = growing.nodes(3)
    return (Add(tuple(terms)), sum(growing.bounds[term] for term in terms)) if _agree(terms) else None


def _multiply(growing: _Growing) -> Grown:
    factors = growing.nodes(3)
    return (Multiply(tuple(factors)), prod(growing.bounds[one] for one in factors)) if _agree(factors) else None


def _einsum(growing: _Growing) -> Grown:
    factors = growing.nodes(3)
    if not _agree(factors):
        return None
    axes = {axis.name: axis.size for factor in factors for axis in factor.axes if not is_random(axis.name)}
    summed = growing.some(sorted(axes))
    times = prod(growing.number(axes[name]) for name in summed)
    return Einsum(tuple(factors), summed), times * prod(growing.bounds[one] for one in factors)


def _map(growing: _Growing) -> Grown:
    source = growing.node()
    bound = growing.bounds[source]
    op = str(growing.one(("sin", "tanh", "sigmoid", "relu", "abs", "gelu", "silu", "leaky_relu")))
    if not source.axes and op in ("gelu", "silu", "leaky_relu"):
        return None  # the number may be whole, for which these are not defined
    made = Map(op, (source,), (0.25,) if op == "leaky_relu" else ())
    return made, 1.0 if op in ("sin", "tanh", "sigmoid") else bound


def _choice(growing: _Growing) -> Grown:
    one, other = growing.node(), growing.node()
    if not _agree([one, other]):
        return None
    bound = max(growing.bounds[one], growing.bounds[other])
    if growing.draw(st.booleans()):
        return Map("where", (Map("greater", (one, other)), one, other)), bound
    return Map("maximum", (one, other)), bound


def _count(growing: _Growing) -> Grown:
    source = growing.node()
    axis = growing.axis(source)
    if axis is None:
        return None
    return Add((source, Map("cast", (Iota(axis),), ("model",)))), growing.bounds[source] + growing.number(axis.size)


def _along(growing: _Growing) -> Grown:
    source = growing.node()
    over = growing.some([axis.name for axis in source.axes if not is_random(axis.name)])
    if not over:
        return None
    bound = growing.bounds[source]
    op = str(growing.one(("softmax", "center", "mean", "sum", "max", "rms", "logsumexp", "cumsum")))
    over = over[:1] if op == "cumsum" else over
    places = prod(growing.number(source.size(name)) for name in over)
    parameters = (1e-5,) if op == "rms" else ()
    return Along(op, source, over, parameters), bound * places if op in ("sum", "cumsum") else 2 * bound + places


def _index(growing: _Growing) -> Grown:
    source = growing.node()
    axis = growing.axis(source)
    if axis is None:
        return None
    size = axis.size if isinstance(axis.size, int) else 1
    return Index(source, axis.name, growing.draw(st.integers(-size, size - 1))), growing.bounds[source]


def _narrow(growing: _Growing) -> Grown:
    source = growing.node()
    axis = growing.numbered(source)
    if axis is None:
        return None
    name, size = axis
    start, step = growing.draw(st.integers(0, size - 1)), growing.draw(st.integers(1, 2))
    count = growing.draw(st.integers(1, (size - 1 - start) // step + 1))
    to = Axis(f"{name}[{start}:{start + count * step}:{step}]", count)
    return (Narrow(source, name, start, to, step), growing.bounds[source]) if to.name not in source.axis_names else None


def _concat(growing: _Growing) -> Grown:
    parts = growing.nodes(3)
    along = [axis for axis in map(growing.numbered, parts) if axis is not None]
    total = sum(size for _, size in along)
    to = Axis(f"joined.{total}", total)
    if len(along) < len(parts) or any(to.name in part.axis_names for part in parts):
        return None
    if not _agree_but(parts, [name for name, _ in along]):
        return None
    return Concat(tuple(parts), tuple(name for name, _ in along), to), max(growing.bounds[part] for part in parts)


def _gather(growing: _Growing) -> Grown:
    source = growing.node()
    axis = growing.numbered(source)
    if (
        axis is None
        or axis[1] not in PLACES
        or axis[0] in PLACES[axis[1]].axis_names
        or not _agree([source, PLACES[axis[1]]])
    ):
        return None
    return Gather(source, axis[0], PLACES[axis[1]]), growing.bounds[source]


def _experts(growing: _Growing) -> Grown:
    source, (name, size) = growing.node(), growing.one([*PLACES.items()])
    if name not in (2, 3) or "model" not in source.axis_names or not _agree([source, size, EXPERTS[name]]):
        return None
    if source.axis_names & (EXPERTS[name].axis_names - {"model"}):
        return None
    return Experts(source, EXPERTS[name], "expert", size, ("model",)), 4 * 2 * growing.bounds[source]


def _order(growing: _Growing) -> Grown:
    source = growing.node()
    axis = growing.numbered(source)
    if axis is None or "ranked" in source.axis_names:
        return None
    to = Axis("ranked", growing.draw(st.integers(1, axis[1])))
    how = str(growing.one(("topk", "topk_unsorted", "sort")))
    return Order(source, axis[0], to, "values", growing.draw(st.booleans()), how), growing.bounds[source]


def _relabel(growing: _Growing) -> Grown:
    source = growing.node()
    old = growing.axis(source)
    new = {"query": "key", "key": "query", "model": "vocab", "vocab": "model"}.get(old.name if old else "", "group")
    if old is None:
        return None
    pairs = ((old.name, new), (new, old.name)) if new in source.axis_names else ((old.name, new),)
    return Relabel(source, pairs), growing.bounds[source]


def _split(growing: _Growing) -> Grown:
    source = growing.node()
    axis = growing.numbered(source)
    if axis is None:
        return None
    name, size = axis
    first = growing.one([number for number in range(1, size + 1) if size % number == 0])
    into = (Axis(f"{name}.0", first), Axis(f"{name}.1", size // first))
    if {part.name for part in into} & source.axis_names:
        return None
    return Split(source, name, into), growing.bounds[source]


def _merge(growing: _Growing) -> Grown:
    source = growing.node()
    numbered = {one.name: one.size for one in source.axes if isinstance(one.size, int) and not is_random(one.name)}
    merged = growing.draw(st.permutations(sorted(numbered)))[:2]
    total = prod(numbered[name] for name in merged)
    to = Axis("*".join(merged), total)
    if len(merged) < 2 or total > 64 or to.name in source.axis_names:
        return None
    return Merge(source, tuple(merged), to), growing.bounds[source]


def _sample(growing: _Growing) -> Grown:
    source = growing.node()
    axis = growing.axis(source)
    name = f"of {axis.size}{growing.one(('', ' more'))}" if axis else ""
    if axis is None or RANDOM + name in source.axis_names:
        return None
    return Sample(source, axis.name, name), growing.bounds[source]


def _random(growing: _Growing, nodes: Sequence[Node]) -> tuple[str, ...]:
    """Draw some of the sources that the nodes are drawn by."""
    names = sorted({axis.name.removeprefix(RANDOM) for node in nodes for axis in node.axes if is_random(axis.name)})
    return growing.some(names)


def _expectation(growing: _Growing) -> Grown:
    source = growing.node()
    over = _random(growing, [source])
    return (Expectation(source, over), growing.bounds[source]) if over else None


def _cumulant(growing: _Growing) -> Grown:
    values = growing.nodes(3)
    over = _random(growing, values) if _agree(values) else ()
    return (Cumulant(tuple(values), over), 12 * prod(growing.bounds[one] for one in values)) if over else None


STEPS: tuple[Callable[[_Growing], Grown], ...] = (
    _add, _multiply, _einsum, _map, _choice, _count, _along, _index, _narrow, _concat, _gather, _relabel, _split, _merge, _experts, _order,
    _sample, _expectation, _cumulant,
)  # fmt: skip
