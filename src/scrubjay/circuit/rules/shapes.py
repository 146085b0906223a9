"""Axes split and merged, and values repeated along axes: pairs that undo each other, repetitions moved."""

from __future__ import annotations

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Along,
    Constant,
    Custom,
    Einsum,
    Input,
    Map,
    Merge,
    Multiply,
    Opaque,
    Order,
    Repeat,
    Split,
)
from scrubjay.circuit.rules.algebra import MODEL, QUERY, V, X
from scrubjay.circuit.rules.facts import NOT_FLOATING, floating, kind, relabelled
from scrubjay.circuit.rules.rule import Rule, expected

_PARTS = (Axis("outer", 2), Axis("inner", 2))
_KEY = Axis("key", 3)


def _merge_of_split(node: Node) -> Node | str:
    if not isinstance(node, Merge):
        return expected("a merged axis", node)
    inner = node.source
    if not isinstance(inner, Split) or tuple(axis.name for axis in inner.into) != node.merged:
        return "it does not merge all parts of a split axis, in their order"
    if inner.source.size(inner.axis) != node.to.size:
        return "it is not known that the merged axis has the size of the one that was split"
    return relabelled(inner.source, [(inner.axis, node.to.name)])


def _split_of_merge(node: Node) -> Node | str:
    if not isinstance(node, Split):
        return expected("a split axis", node)
    inner = node.source
    if not isinstance(inner, Merge) or inner.to.name != node.axis:
        return "it splits no merged axis"
    before = tuple(inner.source.size(name) for name in inner.merged)
    if before != tuple(axis.size for axis in node.into):
        return f"sizes {', '.join(map(str, before))} were merged, and it splits into {', '.join(map(str, node.into))}"
    return relabelled(inner.source, zip(inner.merged, (axis.name for axis in node.into), strict=True))


def _single_split(node: Node) -> Node | str:
    if isinstance(node, Split) and len(node.into) == 1 and node.into[0].size == node.source.size(node.axis):
        return relabelled(node.source, [(node.axis, node.into[0].name)])
    if isinstance(node, Merge) and len(node.merged) == 1 and node.to.size == node.source.size(node.merged[0]):
        return relabelled(node.source, [(node.merged[0], node.to.name)])
    return "it is no split into one axis, nor a merge of one"


def _repeat_once(node: Node) -> Node | str:
    if not isinstance(node, Repeat):
        return expected("a repetition", node)
    if not node.along:
        return node.source if kind(node.source) != "number" else "a bare number repeated is a value"
    if not isinstance(node.source, Repeat):
        return "it repeats no repetition"
    return Repeat(node.source.source, (*node.source.along, *node.along))


def _sink(node: Node) -> Node | str:
    if not isinstance(node, Repeat):
        return expected("a repetition", node)
    inner, names = node.source, {axis.name for axis in node.along}
    if isinstance(inner, Opaque | Custom | Order) or not inner.operands:
        return f"{type(inner).__name__} is not looked into"
    if names & inner.acts_along or any(names & one.axis_names for one in inner.operands):
        return f"{type(inner).__name__} acts along {', '.join(sorted(names))}, or has that axis below"
    place = next((at for at, one in enumerate(inner.operands) if kind(one) != "number"), None)
    if place is None:
        return "it repeats a function of bare numbers"
    operands = list(inner.operands)
    operands[place] = Repeat(operands[place], node.along)
    return inner.with_operands(operands)


def _raise(node: Node) -> Node | str:
    if isinstance(node, Opaque | Custom | Repeat | Order) or not node.operands:
        return f"{type(node).__name__} is not looked into"
    for place, one in enumerate(node.operands):
        if isinstance(one, Repeat) and kind(one.source) == kind(one):
            names = {axis.name for axis in one.along}
            if names & node.acts_along:
                continue
            operands = list(node.operands)
            operands[place] = one.source
            inner = node.with_operands(operands)
            missing = tuple(axis for axis in one.along if axis.name not in inner.axis_names)
            return Repeat(inner, missing) if missing else inner
    return "none of its operands is a repetition along axes that it does not act along"


def _sum_of_repeat(node: Node) -> Node | str:
    if not isinstance(node, Einsum):
        return expected("a contraction", node)
    for place, one in enumerate(node.factors):
        if not isinstance(one, Repeat) or not floating(node.factors):
            continue
        others = {name for at, other in enumerate(node.factors) if at != place for name in other.axis_names}
        alone = [axis for axis in one.along if axis.name in node.summed and axis.name not in others]
        if not alone or any(isinstance(axis.size, str) for axis in alone):
            continue
        times = 1
        for axis in alone:
            times *= int(axis.size)
        kept = tuple(axis for axis in one.along if axis not in alone)
        inner = Repeat(one.source, kept) if kept else one.source
        factors = (Multiply((Constant(times), inner)), *(other for at, other in enumerate(node.factors) if at != place))
        summed = tuple(name for name in node.summed if name not in {axis.name for axis in alone})
        return Einsum(factors, summed)
    return (
        "none of its factors is a repetition along a summed axis of known size that no other factor has, or "
        + NOT_FLOATING
    )


MERGE_OF_SPLIT = Rule(
    "merge_of_split", "shapes", "an axis split and merged again is the axis", "merge(split(x)) = x",
    lambda: Merge(Split(X, "model", _PARTS), ("outer", "inner"), MODEL), _merge_of_split,
)  # fmt: skip
SPLIT_OF_MERGE = Rule(
    "split_of_merge", "shapes", "axes merged and split again are the axes", "split(merge(x)) = x",
    lambda: Split(Merge(Input("z", (QUERY, *_PARTS)), ("outer", "inner"), MODEL), "model", _PARTS), _split_of_merge,
)  # fmt: skip
SINGLE_SPLIT = Rule(
    "single_split", "shapes", "an axis split into one, or one axis merged, is that axis renamed", "split(x) = x",
    lambda: Split(X, "model", (Axis("outer", 4),)), _single_split,
)  # fmt: skip
REPEAT_ONCE = Rule(
    "repeat_once", "shapes", "a repetition repeated is repeated once, along the axes of both", "repeat_k(repeat_j(x)) = repeat_jk(x)",
    lambda: Repeat(Repeat(X, (_KEY,)), (Axis("head", 2),)), _repeat_once,
)  # fmt: skip
SINK_REPEAT = Rule(
    "sink_repeat", "shapes", "a repetition sinks to the first operand of what does not act along it", "repeat(f(a, b)) = f(repeat(a), b)",
    lambda: Repeat(Map("tanh", (X,)), (_KEY,)), _sink,
)  # fmt: skip
RAISE_REPEAT = Rule(
    "raise_repeat", "shapes", "a repetition rises through what does not act along it, and goes where another operand has the axis", "f(repeat(a), b) = repeat(f(a, b))",
    lambda: Along("softmax", Add((Repeat(X, (_KEY,)), Constant(1.0))).terms[0], ("model",)), _raise,
)  # fmt: skip
SUM_OF_REPEAT = Rule(
    "sum_of_repeat", "shapes", "the sum over an axis along which a value is repeated is the value times its size", "sum_k repeat_k(x) = n x",
    lambda: Einsum((Repeat(X, (_KEY,)), V), ("key", "model")), _sum_of_repeat,
)  # fmt: skip

SHAPES = (MERGE_OF_SPLIT, SPLIT_OF_MERGE, SINGLE_SPLIT, REPEAT_ONCE, SINK_REPEAT, RAISE_REPEAT, SUM_OF_REPEAT)
