"""Queries, keys and values whose one space is held as several axes (halves that a rotary embedding turns) made whole.

Such a value is merged to one axis in its stored order, and split again for what reads it: an equality, and a place to name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import rebuild
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Merge, Split
from scrubjay.circuit.recognisers.attention import Attention
from scrubjay.circuit.recognisers.facts import Facts, projection, stored


def split_heads(attentions: Iterable[Attention], known: Facts) -> dict[Node, tuple[Axis, ...]]:
    """Return the axes of one head's space, outermost first, of every query, key and value that has several."""
    found: dict[Node, tuple[Axis, ...]] = {}
    for one in attentions:
        for node in (one.q, one.k, one.v):
            order = () if node is None else _order(node, one.heads, known)
            if node is not None and len(order) > 1:
                found[node] = order
    return found


def with_whole_heads(circuit: Circuit, split: Mapping[Node, tuple[Axis, ...]]) -> Circuit:
    """Return the circuit with these axes of these nodes merged, and split again for what reads them."""

    def change(node: Node, operands: tuple[Node, ...]) -> Node:
        made = node.with_operands(operands)
        if node not in split:
            return made
        order = split[node]
        name = "+".join(axis.name for axis in order)
        whole = Axis(name, prod(int(axis.size) for axis in order))
        return Split(Merge(made, tuple(axis.name for axis in order), whole), name, order)

    return circuit.mapped(rebuild([*circuit.roots.values(), *circuit.table.values()], change))


def _order(node: Node, heads: tuple[str, ...], known: Facts) -> tuple[Axis, ...]:
    """Return the axes of one head's space, outermost first as its weight is stored; none if that does not say."""
    rest = {axis.name: axis for axis in node.axes if axis.name not in {"batch", "query", *heads}}
    linear = projection(node, known)
    for factor in linear.factors if linear is not None else ():
        weight = stored(factor)
        if weight is not None and known.weight_only(factor):
            found = [axis.name for dim in weight.dims for axis in dim if axis.name in rest]
            if len(found) == len(rest):
                return tuple(rest[name] for name in found)
    return ()
