"""One place or a stretch of an axis, pushed down: f(x)[i] = f(x[i]) where f does not act along the axis."""

from __future__ import annotations

from collections.abc import Collection

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Concat,
    Constant,
    Index,
    Iota,
    Map,
    Merge,
    Multiply,
    Narrow,
    Opaque,
    Relabel,
    Repeat,
    Split,
)  # fmt: skip
from scrubjay.circuit.rules.algebra import MODEL, X, Y
from scrubjay.circuit.rules.facts import relabelled, widened
from scrubjay.circuit.rules.rule import Rule, expected

Take = Index | Narrow


def again(take: Take, source: Node, axis: str | None = None) -> Node:
    """Return the same places of another value, along `axis` (the same one when not given)."""
    along = take.axis if axis is None else axis
    if isinstance(take, Index):
        return Index(source, along, take.at)
    return Narrow(source, along, take.start, take.to, take.step)


def _push(node: Node, first: Collection[str] = ()) -> Node | str:
    """Return a choice of places made of the operands; choices along the axes `first` go below all others."""
    if not isinstance(node, Take):
        return expected("a choice of places (Index, Narrow)", node)
    special = _special(node)
    if special is not None:
        return special
    inner = node.source
    if not inner.operands or isinstance(inner, Opaque):
        return f"{type(inner).__name__} is not looked into"
    if isinstance(inner, Take) and _rank(inner) <= _rank(node) and not (node.axis in first and inner.axis not in first):
        return "a choice of places along another axis stands below, and of two the one with the lesser name goes deeper"
    acting = inner.acts_along & {node.axis, *((node.to.name,) if isinstance(node, Narrow) else ())}
    if acting:
        return f"{type(inner).__name__} acts along {', '.join(sorted(acting))}"
    return inner.with_operands([again(node, one) if node.axis in one.axis_names else one for one in inner.operands])


def push_index(axes: Collection[str] | None = None) -> Rule:
    """Return the rule that one place of an axis is taken as deep as may be: of these axes (a head), or of any."""

    def change(node: Node) -> Node | str:
        if not isinstance(node, Index):
            return expected("a choice of one place (Index)", node)
        if axes is not None and node.axis not in axes:
            return f"it takes a place of {node.axis!r}, and {', '.join(sorted(axes))} was asked for"
        return _push(node, axes or ())

    return Rule(
        "push_index",
        "taking",
        "one place of an axis is taken of the operands, where the node does not act along the axis; stretches stay",
        "f(a, b)[i] = f(a[i], b[i])",
        lambda: Index(Map("tanh", (Add((X, Y)),)), "query", 2),
        change,
    )


def _rank(node: Take) -> tuple[bool, str]:
    """Return what says which of two choices goes deeper, so that they do not change places for ever."""
    return isinstance(node, Narrow), node.axis


def _special(node: Take) -> Node | str | None:  # noqa: PLR0911 - one answer for each kind of node
    """Return the choice of places of something that moves that very axis, or `None` for what does not."""
    inner = node.source
    match inner:
        case Relabel() if node.axis in dict(inner.pairs).values():
            return _of_relabel(node, inner)
        case Relabel() if isinstance(node, Narrow) and node.to.name in {one for pair in inner.pairs for one in pair}:
            return f"the renaming below names {node.to.name!r}"
        case Narrow() if inner.to.name == node.axis:
            return _of_narrow(node, inner)
        case Repeat() if node.axis in {axis.name for axis in inner.along}:
            return _of_repeat(node, inner)
        case Concat() if inner.to.name == node.axis:
            return _one_of(node, inner) if isinstance(node, Index) else _some_of(node, inner)
        case Split() if isinstance(node, Index) and node.axis in {axis.name for axis in inner.into}:
            return _of_split(node, inner)
        case Merge() if isinstance(node, Index) and node.axis == inner.to.name:
            return _of_merge(node, inner)
        case Iota():
            return _of_iota(node, inner)
        case _:
            return None


def _of_repeat(node: Take, inner: Repeat) -> Node:
    along = [axis for axis in inner.along if axis.name != node.axis]
    along += [node.to] if isinstance(node, Narrow) else []
    return Repeat(inner.source, tuple(along)) if along else inner.source


def _from_front(at: int, size: int | str) -> int | None:
    """Return a place counted from the front, where that is known."""
    return at if at >= 0 else at + size if isinstance(size, int) else None


def _of_relabel(node: Take, inner: Relabel) -> Node | str:
    old = next(old for old, new in inner.pairs if new == node.axis)
    rest = [pair for pair in inner.pairs if pair[0] != old]
    if isinstance(node, Narrow) and (
        node.to.name in {one for pair in rest for one in pair} or node.to.name in inner.source.axis_names - {old}
    ):
        return f"the axis {node.to.name!r} is in the way of a renaming"
    return relabelled(again(node, inner.source, old), rest)


def _of_narrow(node: Take, inner: Narrow) -> Node | str:
    if isinstance(node, Narrow):
        return Narrow(inner.source, inner.axis, inner.start + node.start * inner.step, node.to, inner.step * node.step)
    at = _from_front(node.at, inner.to.size)
    return "a place counted from an end that is known only when run" if at is None else Index(inner.source, inner.axis, inner.start + at * inner.step)  # fmt: skip


def _one_of(node: Index, inner: Concat) -> Node | str:
    at = _from_front(node.at, inner.to.size)
    if at is None:
        return "a place counted from an end that is known only when run"
    for part, name in zip(inner.parts, inner.along, strict=True):
        size = part.size(name)
        if isinstance(size, str):
            return f"a part has {size} places, a number known only when run"
        if at < size:
            return widened(Index(part, name, at), node.axes)
        at -= size
    return f"place {node.at} is outside the parts"


def _some_of(node: Narrow, inner: Concat) -> Node | str:
    count = node.to.size
    sizes = [part.size(name) for part, name in zip(inner.parts, inner.along, strict=True)]
    if node.step != 1 or isinstance(count, str) or any(isinstance(size, str) for size in sizes):
        return "it takes every so many places, or a number of places known only when run"
    first, end, offset = node.start, node.start + count, 0
    parts: list[Node] = []
    for part, name, size in zip(inner.parts, inner.along, sizes, strict=True):
        low, high = max(first - offset, 0), min(end - offset, int(size))
        if low < high:
            whole = low == 0 and high == size
            to = Axis(node.to.name, high - low)
            if to.name in part.axis_names - {name}:
                return f"a part has an axis {to.name!r} already"
            parts.append(relabelled(part, [(name, to.name)]) if whole else Narrow(part, name, low, to))
        offset += int(size)
    if len(parts) == 1:
        return widened(parts[0], node.axes)
    made = Concat(tuple(parts), (node.to.name,) * len(parts), node.to)
    return widened(made, node.axes)


def _of_split(node: Index, inner: Split) -> Node | str:
    if len(inner.into) != 2:
        return "an axis that is split into more than two"
    outer, last = inner.into
    here, kept = (outer, last) if node.axis == outer.name else (last, outer)
    at = _from_front(node.at, here.size)
    if at is None or isinstance(last.size, str):
        return "sizes of the split are known only when run"
    if here is outer:
        return Narrow(inner.source, inner.axis, at * last.size, kept)
    return Narrow(inner.source, inner.axis, at, kept, last.size)


def _of_merge(node: Index, inner: Merge) -> Node | str:
    at = _from_front(node.at, inner.to.size)
    sizes = [inner.source.size(name) for name in inner.merged]
    if at is None or any(isinstance(size, str) for size in sizes[1:]):
        return "sizes of the merged axes are known only when run"
    source = inner.source
    for name, size in reversed(list(zip(inner.merged[1:], sizes[1:], strict=True))):
        at, place = divmod(at, int(size))
        source = Index(source, name, place)
    return Index(source, inner.merged[0], at)


def _of_iota(node: Take, inner: Iota) -> Node | str:
    if isinstance(node, Index):
        at = _from_front(node.at, inner.axis.size)
        return "a place counted from an end that is known only when run" if at is None else Constant(at, "int64")
    count: Node = Iota(node.to)
    count = Multiply((count, Constant(node.step))) if node.step != 1 else count
    return Add((count, Constant(node.start))) if node.start else count


def _whole(node: Node) -> Node | str:
    if not isinstance(node, Narrow):
        return expected("a stretch (Narrow)", node)
    if node.start or node.step != 1 or node.source.size(node.axis) != node.to.size:
        return "it takes some of the places, or it is not known that it takes all"
    return relabelled(node.source, [(node.axis, node.to.name)])


def _compose(node: Node) -> Node | str:
    if not isinstance(node, Take):
        return expected("a choice of places (Index, Narrow)", node)
    if not isinstance(node.source, Narrow | Repeat | Iota):
        return "it takes places of something else than a stretch, a repetition or a count"
    return _special(node) or "it takes places of another axis"


PUSH_TAKE = Rule(
    "push_take", "taking", "one place or a stretch of an axis is taken of the operands, where the node does not act along the axis",
    "f(a, b)[i] = f(a[i], b[i])", lambda: Index(Map("tanh", (Add((X, Y)),)), "query", 2), _push,
)  # fmt: skip
PUSH_INDEX = push_index()
COMPOSE_TAKES = Rule(
    "compose_takes", "taking", "places of a stretch, a repetition or a count are found at once", "x[a:][i] = x[a + i]",
    lambda: Index(Narrow(X, "model", 1, Axis("part", 3)), "part", 1), _compose,
)  # fmt: skip
WHOLE_STRETCH = Rule(
    "whole_stretch", "taking", "a stretch of all places is the value itself", "x[0:n] = x",
    lambda: Narrow(X, "model", 0, Axis("part", MODEL.size)), _whole,
)  # fmt: skip

TAKING = (PUSH_TAKE, PUSH_INDEX, COMPOSE_TAKES, WHOLE_STRETCH)
