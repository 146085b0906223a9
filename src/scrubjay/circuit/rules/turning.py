"""A linear function along one axis, as a contraction with its matrix: rotary embeddings, and q/k norms with their scale held.

The matrix is the function of the identity: f(x) = sum_j x[j] f(e_j). For a rotary embedding that is the rotation of each
position, so that scores read x W_Q R(pos_q) R(pos_k)' W_K' y. What multiplies by a value that is no projection itself (a cosine,
the scale of a norm) is part of the matrix, and stays the run's own.
"""

from __future__ import annotations

from dataclasses import dataclass

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Concat, Constant, Einsum, Input, Iota, Map, Multiply, Narrow, Relabel, Weight
from scrubjay.circuit.rules.facts import NOT_FLOATING, floating, fresh, reads_input, relabelled
from scrubjay.circuit.rules.linearity import linear_in
from scrubjay.circuit.rules.rule import Rule

MOST = 200
"""Nodes between a value and the projection it is linear in; more are no embedding of positions."""


@dataclass(frozen=True, eq=False)
class Turned:
    """A value written as the contraction of what it is linear in (`core`) with a matrix."""

    core: Node
    matrix: Node
    whole: Node


def is_projection(node: Node) -> bool:
    """Tell whether a node is a linear map: a contraction of weights with one value that reads an input."""
    return isinstance(node, Einsum) and len(node.factors) > 1 and sum(map(reads_input, node.factors)) == 1


def cores(node: Node) -> dict[Node, Node]:
    """Return, for the nodes from `node` down that are linear in one projection (or one with a bias), that projection.

    >>> from scrubjay.circuit.rules.algebra import V, X
    >>> q = Einsum((X, V), ("model",))
    >>> cores(Add((Multiply((q, q)), q)))[q] is q
    True
    """
    found: dict[Node, Node | None] = {}
    stack = [node]
    while stack:
        one = stack[-1]
        if one in found:
            stack.pop()
            continue
        below = () if isinstance(one, Einsum) else _linear_operands(one)
        waiting = [operand for operand in below if operand not in found]
        if waiting and len(found) + len(stack) < MOST:
            stack.extend(waiting)
            continue
        found[one] = one if is_projection(one) else _core(one, [found.get(operand) for operand in below])
        stack.pop()
    return {one: core for one, core in found.items() if core is not None}


def _linear_operands(node: Node) -> tuple[Node, ...]:
    if not reads_input(node):
        return ()
    if isinstance(node, Add | Concat):
        return node.operands
    return tuple(node.operands[place] for place in linear_in(node))


def _core(node: Node, below: list[Node | None]) -> Node | None:
    """Return what a node is linear in, by what its operands are; a sum of that and something else is a core of its own."""
    different = dict.fromkeys(one for one in below if one is not None)
    if len(different) != 1:
        return None
    (core,) = different
    if isinstance(node, Add):
        return core if None not in below else node
    if isinstance(node, Concat):
        return core if None not in below else None
    return core if len([one for one in below if one is not None]) == 1 else None


def turned(node: Node) -> Turned | str:
    """Return a value that is linear in one projection, along one axis of it, as a contraction with a matrix; or why not."""
    found = cores(node)
    core = found.get(node)
    if core is None:
        return "it is not linear in one projection"
    if core is node:
        return "it is a projection itself, or one with a bias"
    if not floating([core, node]):
        return NOT_FLOATING
    between = {one for one, its in found.items() if its is core and one is not core}
    if all(isinstance(one, Relabel) for one in between):
        return "it is the projection with axes renamed"
    acting = {name for one in between for name in one.acts_along} & core.axis_names
    while (
        len(acting) != 1
    ):  # what one node alone reads is not what is turned: queries taken out of queries, keys and values, say
        reading = [one for one in between if core in _linear_operands(one)]
        if len(reading) != 1 or reading[0] is node:
            return f"between it and the projection something acts along {', '.join(sorted(acting)) or 'no axis'}, and one axis is needed"
        core = reading[0]
        between.remove(core)
        acting = {name for one in between for name in one.acts_along} & core.axis_names
    (name,) = acting
    return _written(node, core, Axis(name, core.size(name)), dict.fromkeys((*between, core), core))


def _written(node: Node, core: Node, axis: Axis, found: dict[Node, Node]) -> Turned | str:
    taken = {one for inner in found for operand in (inner, *inner.operands) for one in operand.axis_names}
    other = Axis(fresh(axis.name, taken), axis.size)
    unit = Map("cast", (Map("equal", (Iota(axis), Iota(other))),), ("model",))
    made: dict[Node, Node] = {core: unit}
    stack = [node]
    while stack:
        one = stack[-1]
        linear = [operand for operand in _linear_operands(one) if found.get(operand) is core]
        waiting = [operand for operand in linear if operand not in made]
        if one not in made and waiting:
            stack.extend(waiting)
            continue
        if one not in made:
            made[one] = one.with_operands([_image(one, place, made, linear) for place in range(len(one.operands))])
        stack.pop()
    matrix = made[node]
    whole = Einsum((relabelled(core, [(axis.name, other.name)]), matrix), (other.name,))
    if whole.axes != node.axes:
        return "its matrix lacks an axis that it has"
    return Turned(core, matrix, whole)


def _image(node: Node, place: int, made: dict[Node, Node], linear: list[Node]) -> Node:
    """Return the operand at a place, with the identity in it where the node is linear in that place."""
    operand = node.operands[place]
    here = isinstance(node, Add | Concat) or place in linear_in(node)
    return made[operand] if here and operand in linear else operand


_QUERY, _MODEL, _D_HEAD = Axis("query", "query"), Axis("model", 4), Axis("d_head", 2)
_ANGLE = Input("angle", (_QUERY, _D_HEAD))


def rotated(q: Node) -> Node:
    """Return queries (or keys) turned by an angle of each position, as rotary embeddings do: the examples' own."""
    first, last = (Narrow(q, "d_head", at, Axis(f"d_head[{at}]", 1)) for at in (0, 1))
    half = Concat((Multiply((Constant(-1), last)), first), ("d_head[1]", "d_head[0]"), _D_HEAD)
    return Add((Multiply((q, Map("cos", (_ANGLE,)))), Multiply((half, Map("sin", (_ANGLE,))))))


def _example() -> Node:
    read = Input("x", (_QUERY, _MODEL))
    return rotated(Einsum((read, Weight("model", "W_Q", ((_MODEL,), (_D_HEAD,)))), ("model",)))


def _change(node: Node) -> Node | str:
    found = turned(node)
    return found if isinstance(found, str) else found.whole


LINEAR_AS_MATRIX = Rule(
    "linear_as_matrix", "attention", "a linear function along one axis of a projection (a rotary embedding) is a contraction with its matrix",
    "f(x) = sum_j x[j] f(e_j)", _example, _change,
)  # fmt: skip
