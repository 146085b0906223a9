"""A value as its projection onto a direction or subspace, and what remains."""

from __future__ import annotations

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Constant, Einsum, Map, Multiply, Weight
from scrubjay.circuit.rules.algebra import MODEL, X
from scrubjay.circuit.rules.facts import NOT_FLOATING, floating, fresh, reads_input, relabelled
from scrubjay.circuit.rules.rule import Rule
from scrubjay.errors import CircuitError


def onto(value: Node, basis: Node, axis: str = "model") -> Node:
    """Return U U^T x, the projection of a value onto the span of orthonormal columns `basis`.

    `basis` has the axis `axis` and, for more than one direction, one more axis that counts them. Raises `CircuitError`
    where the two do not fit.
    """
    reason = _misfit(value, basis, axis)
    if reason:
        raise CircuitError(f"no projection of {value!r} onto {basis!r}: {reason}")
    other = fresh(axis, value.axis_names | basis.axis_names)
    pairs = [(axis, other)]
    counting = [name for name in basis.axis_names if name != axis]
    factors = (relabelled(value, pairs), relabelled(basis, pairs), basis)
    return Einsum(factors, tuple(sorted([other, *counting])))


def _misfit(value: Node, basis: Node, axis: str) -> str:
    if axis not in value.axis_names:
        return f"the value has no axis {axis!r}, it has {', '.join(map(str, value.axes)) or 'none'}"
    if axis not in basis.axis_names or basis.size(axis) != value.size(axis):
        return f"the basis needs the axis {axis}={value.size(axis)}, it has {', '.join(map(str, basis.axes)) or 'none'}"
    rest = [one for one in basis.axes if one.name != axis]
    if len(rest) > 1:
        return f"the basis has more than one axis beside {axis!r}: {', '.join(map(str, rest))}"
    if rest and rest[0].name in value.axis_names:
        return f"the axis {rest[0].name!r} that counts directions is one of the value's too: rename it with Relabel"
    if not floating([value, basis]):
        return NOT_FLOATING
    return "the basis reads an input" if reads_input(basis) else ""


def project(basis: Node, axis: str = "model") -> Rule:
    """Return the rule x = P x + (x - P x), with P = U U^T and U the node `basis` (a weight, say).

    It keeps the value whatever the basis; P is a projection where its columns are orthonormal, which is the caller's affair.
    """

    def change(node: Node) -> Node | str:
        reason = _misfit(node, basis, axis)
        if reason:
            return reason
        part = onto(node, basis, axis)
        return Add((part, Add((node, Multiply((Constant(-1), part))))))

    return Rule(
        "project",
        "projection",
        "a value is its projection onto a subspace and what remains",
        "x = P x + (x - P x), P = U U^T",
        lambda: Map("tanh", (X,)),
        change,
        repeats=False,
    )


def estimate(by: Node) -> Rule:
    """Return the rule x = e + (x - e), with `by` as the estimate e: a mean, what another run gives, a simpler circuit.

    It keeps the value whatever the estimate. The two parts can be changed, or followed, apart.
    """

    def change(node: Node) -> Node | str:
        if wrong := [axis for axis in by.axes if axis not in node.axes]:
            return f"the estimate has the axes {', '.join(map(str, wrong))}, which the value lacks"
        if not floating([node, by]):
            return NOT_FLOATING
        if by is node:
            return "the estimate is the value itself"
        return Add((by, Add((node, Multiply((Constant(-1), by))))))

    return Rule(
        "estimate",
        "projection",
        "a value is an estimate of it and what the estimate misses",
        "x = e + (x - e)",
        lambda: Map("tanh", (X,)),
        change,
        repeats=False,
    )


ESTIMATE = estimate(Weight("model", "mean", ((MODEL,),)))
PROJECT = project(Weight("model", "U", ((MODEL,), (Axis("direction", 2),))))

PROJECTION = (PROJECT, ESTIMATE)
