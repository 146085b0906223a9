"""Places chosen by comparing counts: the identity matrix, values written at some places (scatter), and joins of those.

A scatter is a contraction with a one-hot matrix, [p = i + start], and so a linear map like any other: x stands at `start`
and behind, and 0 elsewhere. A value written over another is a choice, where(p = i, new, old).
"""

from __future__ import annotations

from typing import NamedTuple

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Concat,
    Constant,
    Einsum,
    Gather,
    Index,
    Input,
    Iota,
    Map,
    Narrow,
    Repeat,
)  # fmt: skip
from scrubjay.circuit.rules.algebra import MODEL, X, Y
from scrubjay.circuit.rules.facts import NOT_FLOATING, contraction, floating, fresh, kind, relabelled, total, widened
from scrubjay.circuit.rules.rule import Rule, expected
from scrubjay.errors import CircuitError


class _Hot(NamedTuple):
    """The matrix [to = source + start]."""

    to: Axis
    source: Axis
    start: int


def scatter(value: Node, axis: str, to: Axis, start: int = 0) -> Node:
    """Return the value written along `to` from the place `start` on, and 0 elsewhere: out[start + i] = value[i].

    Raises `CircuitError` where it does not fit.

    >>> scatter(X, "model", Axis("place", 9), 5).axes
    (Axis(name='query', size='query'), Axis(name='place', size=9))
    """
    size = value.size(axis)
    if start < 0 or (isinstance(size, int) and isinstance(to.size, int) and start + size > to.size):
        raise CircuitError(f"{size} places from {start} on do not fit on the axis {to}")
    if to.name in value.axis_names - {axis}:
        raise CircuitError(f"{value!r} has an axis {to.name!r} already: rename it with Relabel first")
    inner = Axis(fresh(axis, value.axis_names | {to.name}) if axis == to.name else axis, size)
    count: Node = Add((Iota(inner), Constant(start))) if start else Iota(inner)
    hot = Map("cast", (Map("equal", (Iota(to), count)),), ("model",))
    return Einsum((relabelled(value, [(axis, inner.name)]), hot), (inner.name,))


def _hot(node: Node) -> list[_Hot]:
    """Return what a one-hot matrix says, both ways where it is the identity."""
    if not isinstance(node, Map) or node.op != "cast" or node.parameters != ("model",):
        return []
    same = node.inputs[0]
    if not isinstance(same, Map) or same.op != "equal":
        return []
    found: list[_Hot] = []
    for one, other in (same.inputs, same.inputs[::-1]):
        start, two = 0, other
        if isinstance(two, Add) and len(two.terms) == 2 and isinstance(two.terms[1], Constant):
            number = two.terms[1].value
            two = two.terms[0]
            if not isinstance(number, int) or isinstance(number, bool):
                continue
            start = number
        if isinstance(one, Iota) and isinstance(two, Iota) and one.axis.name != two.axis.name and start >= 0:
            found.append(_Hot(one.axis, two.axis, start))
    return found


def _identity(node: Node) -> Node | str:
    if not isinstance(node, Einsum):
        return expected("a contraction", node)
    if not floating(node.factors):
        return NOT_FLOATING
    for place, factor in enumerate(node.factors):
        for hot in _hot(factor):
            (to, axis, start), others = hot, [one for at, one in enumerate(node.factors) if at != place]
            if start or to.size != axis.size or axis.name not in node.summed:
                continue
            if not any(axis.name in one.axis_names for one in others):
                continue
            made = [_walked(one, axis, to) for one in others]
            return widened(contraction(made, [name for name in node.summed if name != axis.name]), node.axes)
    return "none of its factors is an identity matrix along a summed axis that another factor has"


def _walked(node: Node, axis: Axis, to: Axis) -> Node:
    """Return a value with one axis read as another; where it has both, its diagonal."""
    if {axis.name, to.name} <= node.axis_names:
        return Gather(node, axis.name, Iota(to))
    return relabelled(node, [(axis.name, to.name)])


def _scatter_to_concat(node: Node) -> Node | str:
    if not isinstance(node, Einsum) or len(node.factors) != 2 or len(node.summed) != 1:
        return expected("a scatter: a contraction of a value with a one-hot matrix over one axis", node)
    for value, factor in (node.factors, node.factors[::-1]):
        for to, axis, start in _hot(factor):
            if (axis.name,) != node.summed or axis.name not in value.axis_names or to.name in value.axis_names:
                continue
            if not isinstance(axis.size, int) or not floating(node.factors):
                return "its length is known only when run, or " + NOT_FLOATING
            end = to.size - start - axis.size if isinstance(to.size, int) else f"{to.size} - {start + axis.size}"
            if isinstance(end, int) and end < 0:
                return f"{axis.size} places from {start} on do not fit on the axis {to}: some are lost"
            before, behind = (_zeros(axis.name, size) for size in (start, end))
            parts = (*before, value, *behind)
            return Concat(parts, (axis.name,) * len(parts), to)
    return "none of its factors is a one-hot matrix"


def _zeros(axis: str, size: int | str) -> tuple[Node, ...]:
    return (Repeat(Constant(0, "model"), (Axis(axis, size),)),) if size else ()


def _concat_to_scatter(node: Node) -> Node | str:
    if not isinstance(node, Concat):
        return expected("a join", node)
    if not floating(node.parts) or any(kind(part) == "number" for part in node.parts):
        return NOT_FLOATING
    start = 0
    terms: list[Node] = []
    for part, name in zip(node.parts, node.along, strict=True):
        size = part.size(name)
        if isinstance(size, str):
            return "a part has a length known only when run"
        terms.append(scatter(part, name, node.to, start))
        start += size
    return widened(total(terms), node.axes)


def _choice_to_concat(node: Node) -> Node | str:
    if not isinstance(node, Map) or node.op != "where":
        return expected("a choice, where(condition, new, old)", node)
    condition, new, old = node.inputs
    found = _stretch(condition)
    if found is None:
        return "its condition is no comparison of one count with a number (==, or >= and <=)"
    axis, start, count = found
    if kind(new) != kind(old) or "number" in (kind(new), kind(old)):
        return "the two values are of different kinds of numbers, or bare numbers"
    new, old = widened(new, (axis,)), widened(old, (axis,))
    if isinstance(axis.size, int) and start + count > axis.size:
        return f"place {start + count - 1} is outside axis {axis}"
    end = axis.size - start - count if isinstance(axis.size, int) else f"{axis.size} - {start + count}"
    sizes = ((old, 0, start), (new, start, count), (old, start + count, end))
    parts = tuple(Narrow(one, axis.name, at, Axis(axis.name, size)) for one, at, size in sizes if size)
    return widened(Concat(parts, (axis.name,) * len(parts), axis), node.axes)


def _stretch(condition: Node) -> tuple[Axis, int, int] | None:
    """Return the axis, first place and number of places that a comparison of a count with numbers is true at."""
    if not isinstance(condition, Map):
        return None
    if condition.op == "and":
        ends = [_compared(one) for one in condition.inputs]
        if len(ends) == 2 and ends[0] and ends[1] and ends[0][0] == ends[1][0]:
            by = {op: number for _, op, number in (ends[0], ends[1])}
            if set(by) == {"greater_equal", "less_equal"} and by["less_equal"] >= by["greater_equal"]:
                return ends[0][0], by["greater_equal"], by["less_equal"] - by["greater_equal"] + 1
        return None
    one = _compared(condition)
    return (one[0], one[2], 1) if one is not None and one[1] == "equal" else None


def _compared(node: Node) -> tuple[Axis, str, int] | None:
    if not isinstance(node, Map) or len(node.inputs) != 2:
        return None
    count, number = node.inputs
    if not isinstance(count, Iota) or not isinstance(number, Constant) or type(number.value) is not int:
        return None
    return (count.axis, node.op, number.value) if number.value >= 0 else None


def _concat_to_choice(node: Node) -> Node | str:
    if not isinstance(node, Concat):
        return expected("a join", node)
    wrong = "it is no value with one place of it replaced: x[0:i], a part of one place, x[i+1:]"
    start = 0
    for place, (part, name) in enumerate(zip(node.parts, node.along, strict=True)):
        size = part.size(name)
        if isinstance(size, str):
            return wrong
        around = [one for at, one in enumerate(node.parts) if at != place]
        if size == 1 and _is_around(around, node, start):
            whole = next(one.source for one in around if isinstance(one, Narrow))
            if kind(part) != kind(whole):
                return "the two values are of different kinds of numbers"
            there = Map("equal", (Iota(node.to), Constant(start)))
            return widened(Map("where", (there, Index(part, name, 0), whole)), node.axes)
        start += size
    return wrong


def _is_around(parts: list[Node], node: Concat, at: int) -> bool:
    """Tell whether parts are all of one value but the place `at`."""
    first = next((one for one in parts if isinstance(one, Narrow)), None)
    if first is None or first.axis != node.to.name or first.source.size(first.axis) != node.to.size:
        return False
    expected_at = [0, at + 1] if at else [1]
    starts = [one.start for one in parts if isinstance(one, Narrow) and one.source is first.source and one.step == 1 and one.axis == first.axis]  # fmt: skip
    return len(starts) == len(parts) and starts == [start for start in expected_at if start != node.to.size]


_PLACE = Axis("place", 6)

EINSUM_IDENTITY = Rule(
    "einsum_identity", "selecting", "the identity matrix is no factor: an axis is read as another, and where a value has both, its diagonal is taken",
    "sum_j x[j] [i = j] = x[i]", lambda: scatter(X, "model", Axis("place", 4)), _identity,
)  # fmt: skip
SCATTER_TO_CONCAT = Rule(
    "scatter_to_concat", "selecting", "a value written at some places is that value between zeros", "sum_i x[i] [p = i + a] = concat(0, x, 0)",
    lambda: scatter(X, "model", _PLACE, 1), _scatter_to_concat,
)  # fmt: skip
CONCAT_TO_SCATTER = Rule(
    "concat_to_scatter", "selecting", "a join is the sum of its parts, each written at its places", "concat(x, y) = scatter_0(x) + scatter_a(y)",
    lambda: Concat((X, Y), ("model", "model"), Axis("place", 8)), _concat_to_scatter, repeats=False,
)  # fmt: skip
CHOICE_TO_CONCAT = Rule(
    "choice_to_concat", "selecting", "a value written over another at one place, or a stretch, is a join", "where(p = i, x, y) = concat(y[0:i], x[i], y[i+1:])",
    lambda: Map("where", (Map("equal", (Iota(MODEL), Constant(2))), X, Y)), _choice_to_concat,
)  # fmt: skip
CONCAT_TO_CHOICE = Rule(
    "concat_to_choice", "selecting", "a join that replaces one place of a value is a choice", "concat(y[0:i], x, y[i+1:]) = where(p = i, x, y)",
    lambda: Concat((Narrow(X, "model", 0, Axis("part", 1)), Input("new", (Axis("part", 1),)), Narrow(X, "model", 2, Axis("part", 2))), ("part",) * 3, MODEL),
    _concat_to_choice,
)  # fmt: skip

SELECTING = (EINSUM_IDENTITY, SCATTER_TO_CONCAT, CONCAT_TO_SCATTER, CHOICE_TO_CONCAT, CONCAT_TO_CHOICE)
