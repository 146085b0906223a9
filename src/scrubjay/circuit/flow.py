"""Flow: whether a result still depends on a value, past the choices that changes at one head or position put in its way.

A change at one head, neuron or position is `where(mask, new, old)`, with a mask made by `places`: a conjunction of
conditions on axes. Going down from a result, what is known to hold of the places that are asked for says which side of
each such choice is read at all. Along an axis that a node acts along everything may be asked for, so what was known of it
is forgotten. The answer errs on the side of "depends".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Constant, Gather, Index, Iota, Map

MOST_STATES = 16
"""Beyond so many different things known of one node, nothing is taken as known."""

Apart = Callable[[int, int], bool]


@dataclass(frozen=True)
class _Known:
    """What holds of the places asked for: all of `true`, and of each of `false` not all together."""

    true: frozenset[Node] = frozenset()
    false: frozenset[frozenset[Node]] = frozenset()

    def weaker(self, other: _Known) -> bool:
        """Tell whether every place that fits the other fits this."""
        return self.true <= other.true and self.false <= other.false


def depends(
    results: Iterable[Node], value: Node, positions: Mapping[Node, int] | None = None, apart: Apart | None = None
) -> bool:
    """Tell whether any result depends on a value.

    Args:
        results: the nodes that are read.
        value: the node in question.
        positions: the real position (negative from the end) that a node for a raw place stands for, where known.
        apart: tells whether two real positions are never one place.

    >>> from scrubjay.circuit.ops import Input
    >>> old, new, head = Input("old", (Axis("head", 2),)), Input("new", ()), Iota(Axis("head", 2))
    >>> first, second = (Map("equal", (head, Constant(place))) for place in (0, 1))
    >>> depends([Map("where", (first, new, Map("where", (first, old, head))))], old)
    False
    >>> depends([Map("where", (first, new, Map("where", (second, old, head))))], old)
    True
    """
    ends = list(results)
    order = topological(ends)
    reading = {value}
    for node in order:
        if any(operand in reading for operand in node.operands):
            reading.add(node)
    seen: dict[Node, set[_Known]] = {end: {_Known()} for end in ends if end in reading}
    for node in reversed(order):
        states = seen.pop(node, set[_Known]())
        if node is value and states:
            return True
        for slot, operand in enumerate(node.operands):
            if operand in reading:
                for known in states:
                    side = _side(node, slot, known)
                    if _possible(side, positions or {}, apart):
                        _add(seen.setdefault(operand, set()), _below(node, slot, operand, side, positions or {}))
    return False


def _add(states: set[_Known], new: _Known) -> None:
    """Keep what is known in fewest words: a state that another one includes says nothing."""
    if any(old.weaker(new) for old in states):
        return
    states -= {old for old in states if new.weaker(old)}
    states.add(new)
    if len(states) > MOST_STATES:
        states.clear()
        states.add(_Known())


def _side(node: Node, slot: int, known: _Known) -> _Known:
    """Return what holds of the places for which a choice takes one of its two sides; of any other node, what is known."""
    if not isinstance(node, Map) or node.op != "where" or slot == 0:
        return known
    mask = frozenset(_parts(node.inputs[0]))
    return _Known(known.true | mask, known.false) if slot == 1 else _Known(known.true, known.false | {mask})


def _below(node: Node, slot: int, operand: Node, known: _Known, positions: Mapping[Node, int]) -> _Known:
    """Return what holds of the places of an operand that a node asks for."""
    true, false = known.true, known.false
    forgotten = node.acts_along | ({axis for one in true for axis in one.axis_names} - operand.axis_names)
    forgotten |= {axis for several in false for one in several for axis in one.axis_names} - operand.axis_names
    true = frozenset(one for one in true if not one.axis_names & forgotten)
    false = frozenset(several for several in false if not any(one.axis_names & forgotten for one in several))
    return _Known(true | _chosen(node, slot, positions), false)


def _parts(mask: Node) -> Iterator[Node]:
    """Give the conditions that a mask is the conjunction of."""
    stack = [mask]
    while stack:
        one = stack.pop()
        if isinstance(one, Map) and one.op == "and":
            stack.extend(one.inputs)
        else:
            yield one


def _chosen(node: Node, slot: int, positions: Mapping[Node, int]) -> frozenset[Node]:
    """Return the conditions that a choice of one place makes on what it chooses from."""
    if isinstance(node, Index) and node.at >= 0:
        return frozenset({Map("equal", (Iota(Axis(node.axis, node.source.size(node.axis))), Constant(node.at)))})
    if isinstance(node, Gather) and slot == 0 and node.axis == "query" and node.index in positions:
        count = Iota(Axis("query", node.source.size("query")))
        return frozenset(Map(op, (count, node.index)) for op in ("greater_equal", "less_equal"))
    return frozenset()


def _possible(known: _Known, positions: Mapping[Node, int], apart: Apart | None) -> bool:
    """Tell whether what is known can hold of any place."""
    if any(several <= known.true for several in known.false):
        return False
    places: dict[Axis, int] = {}
    for one in known.true:
        if (at := _place(one)) is not None and places.setdefault(at[0], at[1]) != at[1]:
            return False
    if apart is not None:
        here = {positions[end] for end in map(_end, known.true) if end is not None and end in positions}
        if any(apart(one, two) for one in here for two in here if one != two):
            return False
    return not _all_taken(known, places)


def _place(condition: Node) -> tuple[Axis, int] | None:
    """Return the axis and place of a condition that holds at one place only."""
    if isinstance(condition, Map) and condition.op == "equal":
        axis, at = condition.inputs
        if isinstance(axis, Iota) and isinstance(at, Constant) and isinstance(at.value, int):
            return axis.axis, at.value
    return None


def _end(condition: Node) -> Node | None:
    """Return the raw place that a condition on positions compares with."""
    if isinstance(condition, Map) and condition.op in {"greater_equal", "less_equal"}:
        return condition.inputs[1]
    return None


def _all_taken(known: _Known, places: Mapping[Axis, int]) -> bool:
    """Tell whether the places that are ruled out, one by one, are all there are."""
    ruled: list[dict[Axis, int]] = []
    for several in known.false:
        found = [_place(one) for one in several]
        if None not in found:
            ruled.append(dict(one for one in found if one is not None))
    axes = sorted({axis for one in ruled for axis in one})
    if not axes or not all(isinstance(axis.size, int) for axis in axes):
        return False
    ranges = [[places[axis]] if axis in places else list(range(int(axis.size))) for axis in axes]
    most = max(prod(int(axis.size) for axis in axes if axis not in one) for one in ruled)
    if prod(map(len, ranges)) > len(ruled) * most:
        return False
    return all(
        any(all(spot[axis] == at for axis, at in one.items()) for one in ruled)
        for spot in (dict(zip(axes, some, strict=True)) for some in product(*ranges))
    )
