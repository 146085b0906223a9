"""Laws of the equalities: on its example, on nodes made for it, and all over random circuits a rule keeps value and axes.

Nodes made for a rule are the shapes it is for, with parts drawn from a random circuit; the rule must hold there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scrubjay.circuit.axes import Axis, is_random
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Along,
    Concat,
    Constant,
    Cumulant,
    Einsum,
    Expectation,
    Gather,
    Index,
    Input,
    Iota,
    Map,
    Merge,
    Multiply,
    Narrow,
    Relabel,
    Repeat,
    Sample,
    Split,
    Weight,
)  # fmt: skip
from scrubjay.circuit.rules.facts import agree, kind
from scrubjay.circuit.rules.places import split_place, split_places, split_stretches
from scrubjay.circuit.rules.projection import onto
from scrubjay.circuit.rules.rewriting import rewrite, rules_applied
from scrubjay.circuit.rules.rule import Rule, applied
from scrubjay.circuit.rules.selecting import scatter
from scrubjay.circuit.rules.simplify import simplify
from scrubjay.circuit.rules.themes import EQUALITIES
from scrubjay.engine import evaluate
from scrubjay.testing.circuits import LEAVES, MODEL, PLACES, SOURCE, Example, circuits

TABLE = {rule.name: rule for rule in EQUALITIES}
fewer = settings(max_examples=max(10, settings().max_examples // 4))  # for each of some sixty rules
SIZES = {"batch": 2, "query": 5}
MORE_WEIGHTS = {
    "U": np.linspace(-1, 2, 8).reshape(4, 2),
    "mean": np.linspace(1, 2, 4),
    "joined": np.linspace(-2, 1, 8),
}
"""Weights of rules' parameters, and of shapes made for them."""


class Stored(dict[str, torch.Tensor]):
    dtype = torch.float64

    def tensor(self, name: str) -> torch.Tensor:
        return self[name]


def laid(node: Node, inputs: Mapping[str, Any], weights: Mapping[str, Any], sizes: Mapping[str, int]) -> torch.Tensor:
    given = {name: torch.as_tensor(array) for name, array in inputs.items()}
    store = Stored({name: torch.as_tensor(array) for name, array in weights.items()})
    made = evaluate([node], given, dict.fromkeys((SOURCE, "model"), store), dtype=torch.float64, sizes=sizes)[node]
    found = torch.as_tensor(made.laid([axis.name for axis in node.axes]))
    return found.to(torch.float64)


def drawn(*nodes: Node, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Values for every input and weight below some nodes."""
    random = np.random.default_rng(seed)
    inputs: dict[str, np.ndarray] = {}
    weights: dict[str, np.ndarray] = {}
    for leaf in topological(nodes):
        if isinstance(leaf, Input):
            shape = [axis.size if isinstance(axis.size, int) else SIZES[axis.size] for axis in leaf.dims]
            inputs[leaf.name] = random.normal(size=shape)
        elif isinstance(leaf, Weight):
            weights[leaf.name] = random.normal(size=[int(np.prod([int(a.size) for a in dim])) for dim in leaf.dims])
    return inputs, weights


def same(one: Node, two: Node, values: tuple[Mapping[str, Any], Mapping[str, Any]], sizes: Mapping[str, int]) -> None:
    assert one.axes == two.axes
    old, new = laid(one, *values, sizes), laid(two, *values, sizes)
    scale = max(1.0, float(old.abs().max())) if old.numel() else 1.0
    torch.testing.assert_close(new / scale, old / scale, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", TABLE)
def test_a_rule_keeps_the_value_of_its_example(name: str) -> None:
    node = TABLE[name].example()
    made = applied(TABLE[name], node)
    assert made is not node
    assert TABLE[name].why_not(node) == ""
    same(node, made, drawn(node, made), SIZES)


@pytest.mark.parametrize("name", TABLE)
@fewer
@given(example=circuits(steps=8))
def test_a_rule_keeps_values_all_over_a_random_circuit(name: str, example: Example) -> None:
    root = example.circuit.roots["output"]
    made = rewrite(example.circuit, TABLE[name])
    weights = {**example.weights, **MORE_WEIGHTS}
    same(root, made.roots["output"], (example.inputs, weights), example.sizes)


@given(example=circuits(steps=14), flat=st.booleans())
def test_the_normal_form_keeps_values_and_is_its_own(example: Example, flat: bool) -> None:
    made = simplify(example.circuit, flat=flat)
    root = example.circuit.roots["output"]
    same(root, made.roots["output"], (example.inputs, example.weights), example.sizes)
    again = simplify(made, flat=flat)
    assert again.roots == made.roots
    assert again.history == made.history


@dataclass
class Pool:
    """Floating values of a random circuit, drawn so that they fit together."""

    draw: Callable[[Any], Any]
    nodes: Sequence[Node]

    def value(self, *beside: Node, axis: str | None = None, without: str = "") -> Node:
        fits = [
            node
            for node in self.nodes
            if kind(node) == "model"
            and agree([node, *beside])
            and (axis is None or axis in node.axis_names)
            and without not in node.axis_names
        ]
        return self.draw(st.sampled_from(fits))

    def values(self, count: int, *beside: Node) -> list[Node]:
        found: list[Node] = []
        for _ in range(count):
            found.append(self.value(*found, *beside))
        return found

    def vector(self, *beside: Node) -> Node:
        """A value with the axis `model`."""
        return self.value(*beside, axis="model")

    def summed(self, *nodes: Node) -> tuple[str, ...]:
        names = sorted({axis.name for node in nodes for axis in node.axes if not is_random(axis.name)})
        return tuple(name for name in names if self.draw(st.booleans()))

    def einsum(self, *nodes: Node) -> Node:
        return Einsum(nodes, self.summed(*nodes))

    def data(self, *beside: Node) -> Node:
        """A value that reads an input: what the pattern mixes."""
        return Add((X, self.value(X, *beside)))

    def joined(self) -> Node:
        """Two values with `model`, one after the other along `joined`."""
        one = self.vector()
        two = self.vector(one)
        return Concat((one, two), ("model", "model"), Axis("joined", 8))


def square(node: Node) -> Node:
    return Multiply((node, node))


def scores(read: Node) -> Node:
    """Scores of queries and keys, both projected from one value (by the same weights)."""
    q = Add((Einsum((read, HEADS), ("model",)), Index(HEADS, "model", 0)))
    return Einsum((q, Relabel(q, KEY)), ("d_head",))


def values(read: Node) -> Node:
    return Relabel(Add((Einsum((read, HEADS), ("model",)), Index(HEADS, "model", 1))), KEY)


def written(pool: Pool) -> Node:
    """What one head writes: a pattern, and values projected from a random value."""
    own = Index(values(pool.data(HEADS)), "head", 0)
    z = Einsum((Along("softmax", Index(scores(X), "head", 0), ("key",)), own), ("key",))
    return Einsum((z, Index(HEADS, "head", 1)), ("d_head",))


def turned_by(q: Node) -> Node:
    """Queries turned by an angle of their own, and one half of them left alone: a partial rotary embedding."""
    one, two = (Narrow(q, "d_head", at, Axis(f"part.{at}", 1)) for at in (0, 1))
    angle = Along("mean", X, ("model",))
    first = Concat((Multiply((two, Map("cos", (angle,)))), one), ("part.1", "part.0"), Axis("d_head", 2))
    return Add((first, Multiply((Constant(0.5), q))))


def replaced(value: Node, at: int) -> Node:
    """A value with one place of `model` replaced."""
    parts = (
        Narrow(value, "model", 0, Axis("part", at)),
        Narrow(X, "model", 0, Axis("part", 1)),
        Narrow(value, "model", at + 1, Axis("part", 3 - at)),
    )
    return Concat(parts, ("part",) * 3, MODEL)


def rotated_sum(pool: Pool) -> Node:
    """Keys of two sources, turned."""
    reads = (pool.data(HEADS), Map("sin", (X,)))
    return turned_by(Add(tuple(Einsum((read, HEADS), ("model",)) for read in reads)))


def identity(one: Axis, two: Axis) -> Node:
    return Map("cast", (Map("equal", (Iota(one), Iota(two))),), ("model",))


HALF = Axis("half", 2)
W = Weight(SOURCE, "matrix", ((MODEL,), (Axis("hidden", 3),)))
ROW = Index(W, "hidden", 1)
FRESH = Axis("fresh", 3)
TWO = (Axis("model.a", 2), Axis("model.b", 2))
X = next(leaf for leaf in LEAVES if isinstance(leaf, Input) and leaf.name == "x")
HEADS = next(leaf for leaf in LEAVES if isinstance(leaf, Weight) and leaf.name == "heads")
KEY = (("query", "key"),)
DRAWN, APART = (Sample(LEAVES[1], "row", name) for name in ("datum", "other"))
BOTH = ("datum", "other")


def random(pool: Pool, by: Node = DRAWN) -> Node:
    """A value that a source draws: some values of a random circuit times what is drawn."""
    return Map("sin", (Multiply((pool.vector(DRAWN), by)),))


def over(count: int, *beside: Node, make: Callable[..., Node]) -> Callable[[Pool], Node]:
    """A shape over so many values that fit together and with the nodes beside."""
    return lambda pool: make(pool, *pool.values(count, *beside))


MADE: dict[str, Callable[[Pool], Node]] = {
    "flatten_add": over(3, make=lambda p, a, b, c: Add((a, Add((b, c)), c))),
    "flatten_multiply": over(3, make=lambda p, a, b, c: Multiply((a, Multiply((b, c))))),
    "flatten_einsum": over(3, make=lambda p, a, b, c: p.einsum(p.einsum(a, b), c, p.einsum(a, c))),
    "nest_einsum": over(3, make=lambda p, a, b, c: p.einsum(a, b, c)),
    "nest_sum": over(3, make=lambda _, a, b, c: Add((a, b, c))),
    "weights_first": lambda p: Einsum((W, Add((X, p.value(X))), W), ("model",)),
    "scalar_out": over(2, make=lambda p, a, b: p.einsum(Multiply((Constant(1.5), a)), Constant(2), b)),
    "scalar_in": over(2, make=lambda p, a, b: Multiply((Constant(1.5), p.einsum(a, b)))),
    "distribute": over(3, make=lambda p, a, b, c: p.einsum(a, Add((b, c)))),
    "factor": over(4, make=lambda p, a, b, c, d: Add((d, Multiply((a, b)), Multiply((a, c))))),
    "compose_relabels": lambda p: Relabel(Relabel(p.vector(), (("model", "fresh"),)), (("fresh", "other"),)),
    "sink_relabel": over(2, X, make=lambda p, a, b: Relabel(Einsum((a, b, X), ()), (("model", "fresh"),))),
    "count_relabelled": lambda p: Relabel(Iota(MODEL), (("model", "fresh"),)),
    "push_take": lambda p: Index(square(Map("tanh", (p.vector(),))), "model", -1),
    "push_index": lambda p: Index(square(Map("tanh", (p.vector(),))), "model", 1),
    "compose_takes": lambda p: Narrow(Narrow(p.vector(), "model", 0, Axis("part", 2), 2), "part", 1, Axis("fresh", 1)),
    "whole_stretch": lambda p: Narrow(p.vector(), "model", 0, Axis("part", 4)),
    "split_to_concat": lambda p: p.vector(),
    "pull_concat": lambda p: Map("maximum", ((j := p.joined()), Map("sin", (j,)))),
    "contract_concat": lambda p: Einsum(((j := p.joined()), Map("sin", (j,))), ("joined",)),
    "rejoin": lambda p: Concat(
        (Narrow((a := p.vector()), "model", 1, Axis("part", 1)), Narrow(a, "model", 2, Axis("part", 2))),
        ("part", "part"),
        Axis("fresh", 3),
    ),
    "single_concat": lambda p: Concat((p.vector(),), ("model",), Axis("fresh", 4)),
    "merge_of_split": lambda p: Merge(Split(p.vector(), "model", TWO), ("model.a", "model.b"), Axis("fresh", 4)),
    "split_of_merge": lambda p: Split(
        Merge(Split(p.vector(), "model", TWO), ("model.b", "model.a"), Axis("fresh", 4)), "fresh", (Axis("o", 2), Axis("i", 2))
    ),
    "single_split": lambda p: Split(p.vector(), "model", (Axis("fresh", 4),)),
    "repeat_once": lambda p: Repeat(Repeat(p.value(), (FRESH,)), (Axis("other", 2),)),
    "sink_repeat": lambda p: Repeat(Map("tanh", (p.value(),)), (FRESH,)),
    "raise_repeat": over(2, make=lambda p, a, b: Add((Repeat(a, (FRESH,)), b))),
    "sum_of_repeat": over(2, make=lambda p, a, b: Einsum((Repeat(a, (FRESH,)), b), (*p.summed(a, b), "fresh"))),
    "single_term": lambda p: Add((p.value(),)),
    "add_zero": lambda p: Add((Constant(0.0), p.value())),
    "multiply_one": lambda p: Multiply((p.value(), Constant(1))),
    "einsum_ones": lambda p: Einsum((p.vector(), Repeat(Constant(1, "model"), (MODEL, FRESH))), ("fresh", "model")),
    "einsum_as_sum": lambda p: p.einsum(p.value()),
    "fold_numbers": lambda p: Add((Constant(1.5), p.value(), Constant(2))),
    "cancel_terms": over(2, make=lambda p, a, b: Add((b, a, Multiply((Constant(-1), a))))),
    "double_cast": lambda p: Map("cast", (p.value(),), ("model",)),
    "by_source": over(1, X, W, make=lambda p, a: Einsum((Map("divide", (Add((Map("sin", (a,)), X)), Constant(2.0))), W), p.summed(X))),
    "virtual_heads": lambda p: Einsum((Add((X, written(p))), W), ("model",)),
    "linear_as_matrix": lambda p: turned_by(Einsum((p.data(HEADS), HEADS), ("model",))),
    "estimate": lambda p: p.vector(),
    "sink_along": over(2, make=lambda p, a, b: Along("center", Multiply((Repeat(a, (FRESH,)), square(b))), ("fresh",))),
    "gather_up": lambda p: Map("maximum", (Gather(rows := LEAVES[1], "row", PLACES[5]), Gather(Map("sin", (rows,)), "row", PLACES[5]))),
    "einsum_identity": lambda p: scatter(p.vector(), "model", Axis("fresh", 4)),
    "scatter_to_concat": lambda p: scatter(p.vector(), "model", Axis("fresh", 6), 1),
    "concat_to_scatter": lambda p: p.joined(),
    "choice_to_concat": over(2, X, make=lambda p, a, b: Map("where", (Map("equal", (Iota(MODEL), Constant(2))), Add((a, X)), Add((b, X))))),
    "concat_to_choice": lambda p: replaced(p.data(), 2),
    "project": lambda p: p.vector(),
    "expand_center": lambda p: Along("center", p.vector(), ("model",)),
    "fold_center": lambda p: Add(((a := p.vector()), Multiply((Constant(-1), Along("mean", a, ("model",)))))),
    "expand_rms": lambda p: Along("rms", p.vector(), ("model",), (1e-5,)),
    "fold_rms": lambda p: Map("sqrt", (Add((Along("mean", square(p.vector()), ("model",)), Constant(1e-5))),)),
    "expand_divide": lambda p: Map("divide", (p.value(), Constant(3.0))),
    "fold_divide": lambda p: Multiply((p.value(), Map("reciprocal", (Along("rms", p.vector(), ("model",), (1.0,)),)))),
    "rsqrt": lambda p: Map("rsqrt", (Add((Constant(1.0), square(p.value()))),)),
    "fold_scale": lambda p: Einsum((Multiply((Add((X, p.value(X))), ROW)), W), ("model",)),
    "fold_bias": lambda p: Einsum((Add((X, p.value(X), ROW)), W), p.summed(X)),
    "collect_bias": lambda p: Add((Add((X, p.value(X), ROW)), ROW)),
    "factor_qk": lambda p: scores(Add((X, p.value(X, HEADS, without="key")))),
    "factor_ov": lambda p: Einsum((Einsum((Along("softmax", scores(X), ("key",)), values(p.data(X, HEADS))), ("key",)), HEADS), ("d_head", "head")),
    "merge_places": lambda p: applied(split_places("model"), Einsum((p.vector(W), W), ("model",))),
    "merge_stretches": lambda p: Add((*applied(split_stretches("model", (1, 3)), Einsum((p.vector(W), W), ("model",))).operands, W)),
    "expectation_in": lambda p: Expectation(Relabel(Repeat(random(p), (FRESH,)), (("model", "other"),)), ("datum",)),
    "independent_means": lambda p: Expectation(p.einsum(random(p), random(p, APART), X, W, random(p)), BOTH),
    "to_cumulants": lambda p: Expectation(p.einsum(random(p), random(p, Multiply((DRAWN, APART))), X, random(p, APART)), BOTH),
    "to_moments": lambda p: Cumulant((random(p), random(p, Multiply((DRAWN, APART))), random(p, APART)), BOTH),
    "cumulant_in": lambda p: Cumulant((X, p.einsum(random(p), X, W, DRAWN), random(p), APART), BOTH),
    "cumulant_of_product": lambda p: Cumulant((random(p, APART), p.einsum(random(p), X, DRAWN), random(p)), BOTH),
    "independent_cumulant": lambda p: Cumulant((random(p), p.value(X), random(p, APART)), BOTH),
}  # fmt: skip
"""For each rule a shape that it holds at, over values of a random circuit."""


MORE: dict[str, Sequence[Callable[[Pool], Node]]] = {
    "distribute": [
        *(over(2, X, make=lambda p, a, b, op=op: Along(op, Add((a, b, X)), ("model",))) for op in ("center", "mean", "sum", "cumsum")),
        over(2, X, make=lambda p, a, b: Einsum((Add((a, b, X)),), ("model",))),
        over(2, X, make=lambda p, a, b: Map("divide", (Add((a, Constant(2.0), b)), Along("rms", X, ("model",), (1.0,))))),
        over(2, X, make=lambda p, a, b: Index(Add((a, b, X)), "model", 1)),
        over(2, X, make=lambda p, a, b: Narrow(Add((a, b, X)), "model", 1, HALF, 2)),
        over(2, X, make=lambda p, a, b: Gather(Add((a, b, X)), "model", PLACES[4])),
        over(2, X, make=lambda p, a, b: Relabel(Add((a, b, X)), (("model", "query"), ("query", "model")))),
        over(2, X, make=lambda p, a, b: Split(Add((a, b, X)), "model", TWO)),
        over(1, X, make=lambda p, a: Merge(Add((Split(Add((a, X)), "model", TWO), Index(Split(X, "model", TWO), "model.a", 1))), ("model.b", "model.a"), Axis("fresh", 4))),
        over(2, X, make=lambda p, a, b: Repeat(Add((a, Constant(0.5), b)), (FRESH,))),
        over(2, X, make=lambda p, a, b: Map("cast", (Add((a, Constant(0.5), b)),), ("model",))),
        lambda p: Expectation(Add((random(p), Constant(0.5), random(p, APART), X)), BOTH),
        lambda p: Cumulant((Add((random(p), Constant(0.5), random(p, APART))), random(p)), BOTH),
        lambda p: Cumulant((Add((random(p), X)), X), ("datum",)),
    ],
    "factor": [
        over(2, X, make=lambda p, a, b: Add((Einsum((X, a, b), ("model",)), b, Einsum((X, b), ("model",))))),
        over(3, X, make=lambda p, a, b, c: Add((Multiply((a, b)), Multiply((a, a, c)), Multiply((b, a, c))))),
        over(2, X, make=lambda p, a, b: Add((Map("divide", (a, Constant(3.0))), X, Map("divide", (b, Constant(3.0)))))),
        over(1, X, make=lambda p, a: Add((Along("center", Add((X, a)), ("model",)), Along("center", X, ("model",))))),
        over(1, X, make=lambda p, a: Add((Index(Add((X, a)), "model", 1), Index(X, "model", 1)))),
    ],
    "by_source": [
        lambda p: Einsum((rotated_sum(p), Index(HEADS, "model", 2)), ("d_head",)),
        over(1, X, W, make=lambda p, a: Einsum((Concat(((b := Add((Map("sin", (a,)), X))), b), ("model", "model"), Axis("joined", 8)), Weight(SOURCE, "joined", ((Axis("joined", 8),),))), ("joined",))),
    ],
    "virtual_heads": [
        lambda p: scores(Add((X, written(p)))),
        lambda p: Einsum((Map("divide", (Along("center", Add((X, written(p))), ("model",)), Along("rms", X, ("model",), (1.0,)))), W), ("model",)),
    ],
    "linear_as_matrix": [
        lambda p: turned_by(Add((Einsum((p.data(HEADS), HEADS), ("model",)), Index(HEADS, "model", 1)))),
        lambda p: Along("center", Multiply((Einsum((p.data(HEADS), HEADS), ("model",)), Constant(2.0))), ("d_head",))],
    "gather_up": [lambda p: Along("softmax", Gather(LEAVES[1], "row", PLACES[5]), ("model",)), lambda p: Add((Gather(LEAVES[1], "row", PLACES[5]), ROW))],
    "expectation_in": [
        lambda p: Expectation(Expectation(Multiply((random(p), random(p, APART))), ("other",)), ("datum",)),
        lambda p: Expectation(Repeat(random(p, APART), (next(one for one in DRAWN.axes if one.name == "random.datum"), FRESH)), BOTH),
        lambda p: Expectation(Concat((random(p), X), ("model", "model"), Axis("fresh", 8)), ("datum",)),
        lambda p: Expectation(Map("divide", (random(p), Along("rms", X, ("model",), (1.0,)))), ("datum",)),
    ],
    "independent_means": [lambda p: Expectation(Einsum((random(p),), ("model",)), ("datum",))],
    "to_moments": [lambda p: Cumulant((random(p),), ("datum",)), lambda p: Cumulant((random(p),) * 5, ("datum",))],
    "cumulant_in": [
        lambda p: Cumulant((random(p), Along("center", Relabel(random(p), (("model", "other"),)), ("other",))), ("datum",)),
        lambda p: Cumulant((Along("mean", random(p), ("model",)), Index(DRAWN, "model", 1), Index(DRAWN, "model", 2)), ("datum",)),
        lambda p: Cumulant((Multiply((DRAWN, Constant(2.0))), random(p), random(p)), ("datum",), True),
    ],
    "cumulant_of_product": [lambda p: Cumulant((p.einsum(random(p), X, DRAWN),), ("datum",)), lambda p: Cumulant((Multiply((random(p), random(p))),) * 3, ("datum",))],
    "independent_cumulant": [lambda p: Cumulant((random(p), p.value(X)), ("datum",), True)],
    "sink_along": [over(1, X, make=lambda p, a: Along("mean", Einsum((square(a), Repeat(W, (FRESH,))), ()), ("fresh",)))],
    "einsum_identity": [
        lambda p: Einsum((Repeat(p.vector(), (Axis("fresh", 4),)), identity(MODEL, Axis("fresh", 4))), ("fresh",)),
        lambda p: Einsum((identity(MODEL, Axis("fresh", 4)), Multiply((p.vector(), Relabel(X, (("model", "fresh"),))))), ("fresh", "model")),
    ],
    "scatter_to_concat": [lambda p: scatter(p.data(), "model", MODEL), lambda p: scatter(p.vector(), "model", Axis("fresh", 5), 1)],
    "choice_to_concat": [
        over(2, X, make=lambda p, a, b: Map("where", (Map("and", (Map("greater_equal", (Iota(MODEL), Constant(1))), Map("less_equal", (Iota(MODEL), Constant(2))))), Add((a, X)), Add((b, X))))),
        over(1, X, make=lambda p, a: Map("where", (Map("equal", (Iota(Axis("query", "query")), Constant(0))), Index(Add((a, X)), "query", 0), X))),
    ],
    "concat_to_choice": [
        lambda p: Concat((Narrow(X, "model", 3, Axis("part", 1)), Narrow(p.data(), "model", 1, Axis("part", 3))), ("part", "part"), MODEL),
    ],
    "compose_relabels": [lambda p: Relabel(Relabel(p.vector(X), (("model", "fresh"),)), (("fresh", "model"),))],
    "sink_relabel": [
        lambda p: Relabel(p.joined(), (("joined", "fresh"),)),
        lambda p: Relabel(Repeat(p.value(), (FRESH,)), (("fresh", "other"),)),
        lambda p: Relabel(Along("softmax", p.data(), ("model",)), (("query", "key"),)),
    ],
    "push_take": [
        lambda p: Index(Relabel(p.vector(), (("model", "fresh"),)), "fresh", -2),
        lambda p: Narrow(Relabel(p.vector(), (("model", "fresh"),)), "fresh", 1, HALF),
        lambda p: Index(Narrow(p.vector(), "model", 1, HALF, 2), "half", -1),
        lambda p: Narrow(Narrow(p.vector(), "model", 0, HALF, 3), "half", 1, Axis("part", 1)),
        lambda p: Index(Repeat(p.value(), (FRESH,)), "fresh", 1),
        lambda p: Narrow(Repeat(p.value(), (FRESH,)), "fresh", 1, HALF),
        lambda p: Index(p.joined(), "joined", -3),
        lambda p: Index(p.joined(), "joined", 2),
        lambda p: Narrow(p.joined(), "joined", 2, FRESH),
        lambda p: Narrow(p.joined(), "joined", 5, FRESH),
        lambda p: Index(Split(p.vector(), "model", TWO), "model.a", -1),
        lambda p: Index(Split(p.vector(), "model", TWO), "model.b", 1),
        lambda p: Index(Merge(Split(p.vector(), "model", TWO), ("model.b", "model.a"), Axis("fresh", 4)), "fresh", 2),
        lambda p: Index(Iota(MODEL), "model", -1),
        lambda p: Narrow(Iota(MODEL), "model", 1, HALF, 2),
        lambda p: Index(Index(p.data(), "query", 0), "model", 2),
        over(1, X, make=lambda p, a: Narrow(Einsum((X, W, a), ("model",)), "hidden", 1, HALF)),
        over(1, X, make=lambda p, a: Index(Gather(Add((X, a)), "model", PLACES[4]), "query", 0)),
    ],
    "compose_takes": [
        lambda p: Index(Narrow(p.vector(), "model", 1, HALF, 2), "half", 1),
        lambda p: Index(Iota(MODEL), "model", 2),
    ],
    "pull_concat": [
        over(1, X, make=lambda p, a: Einsum((Concat((X, W), ("model", "model"), Axis("joined", 8)), Repeat(a, (Axis("joined", 8),))), ())),
        lambda p: Along("softmax", Concat((X, Index(X, "query", 0)), ("model", "model"), Axis("joined", 8)), ("query",)),
        lambda p: Add((Concat((p.data(), X), ("model", "model"), Axis("joined", 8)), Map("cast", (Iota(Axis("joined", 8)),), ("model",)))),
    ],
    "rejoin": [
        lambda p: Concat((Narrow((a := p.vector()), "model", 0, Axis("part", 1)), Narrow(a, "model", 1, Axis("part", 3))), ("part", "part"), MODEL),
    ],
    "raise_repeat": [lambda p: Along("softmax", Repeat(p.vector(), (FRESH,)), ("model",)), lambda p: Einsum((Repeat(p.vector(), (FRESH,)), W), ("model",))],
    "sink_repeat": [over(2, make=lambda p, a, b: Repeat(Multiply((Constant(2.0), a, b)), (FRESH,)))],
    "add_zero": [lambda p: Add((Repeat(Constant(0, "model"), (FRESH,)), p.value()))],
    "multiply_one": [lambda p: Multiply((Repeat(Constant(1, "model"), (FRESH,)), p.value())), lambda p: Map("divide", (p.value(), Constant(1)))],
    "einsum_ones": [lambda p: Einsum((p.vector(), Repeat(Constant(1.0, "model"), (FRESH,))), ("model",))],
    "cancel_terms": [over(1, make=lambda p, a: Add((Repeat(a, (FRESH,)), a, Multiply((Repeat(a, (FRESH,)), Constant(-1))))))],
    "fold_numbers": [lambda p: Multiply((p.value(), Constant(1.5), Constant(-2))), lambda p: Add((Constant(1), Constant(2)))],
}  # fmt: skip
"""Further shapes, one for each case that a rule tells apart."""

PLACED = {
    "split_places": split_places("model"),
    "split_place": split_place("model", -2),
    "split_stretches": split_stretches("model", (1, 3)),
}


SHAPES = [
    *((name, 0) for name in PLACED),
    *((name, number) for name in MADE for number in range(1 + len(MORE.get(name, ())))),
]


@pytest.mark.parametrize(("name", "number"), SHAPES)
@fewer
@given(data=st.data(), example=circuits(steps=6))
def test_a_rule_holds_at_what_is_made_for_it_and_keeps_its_value(
    name: str, number: int, data: st.DataObject, example: Example
) -> None:
    pool = Pool(data.draw, [*example.circuit.nodes, *LEAVES])
    if name in PLACED:
        rule: Rule = PLACED[name]
        node: Node = Einsum((pool.vector(W), W), ("model", *data.draw(st.sampled_from([(), ("hidden",)]))))
    else:
        rule, node = TABLE[name], (MADE[name], *MORE.get(name, ()))[number](pool)
    made = rewrite(node, rule, where=[node])
    assert rules_applied(made)[rule.name] >= 1
    values = (example.inputs, {**example.weights, **MORE_WEIGHTS})
    same(node, applied(rule, node), values, example.sizes)
    same(node, made.roots["output"], values, example.sizes)


def test_every_rule_has_a_shape_made_for_it() -> None:
    assert set(TABLE) == {*MADE, *PLACED}
    assert len(TABLE) == len(EQUALITIES)


def test_an_equality_says_what_it_did_and_keeps_the_table() -> None:
    node = Add((X, Add((X, Add((X, X))))))
    circuit = Circuit({"output": node}, {"inner": node.terms[1], "leaf": X})
    made = rewrite(circuit, TABLE["flatten_add"])
    assert made.history == ("equality: flatten_add x2",)
    assert made.table["inner"] is Add((X, X, X))
    assert made.removed == {"inner": "equality: flatten_add x2"}


def test_a_projection_is_the_orthogonal_one() -> None:
    basis = Weight("model", "U", ((MODEL,), (Axis("direction", 2),)))
    part = onto(X, basis)
    inputs, _ = drawn(part)
    columns = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 2)))[0]
    values = (inputs, {"U": columns})
    expected = inputs["x"] @ columns @ columns.T
    torch.testing.assert_close(laid(part, *values, SIZES), torch.as_tensor(expected), rtol=0, atol=1e-12)
    same(part, onto(part, basis), values, SIZES)
