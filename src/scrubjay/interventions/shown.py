"""How values are shown: the order of their axes, the one TransformerLens users expect."""

from __future__ import annotations

from scrubjay.circuit.axes import as_shown
from scrubjay.circuit.node import Node
from scrubjay.engine.array import Array


def shown_order(node: Node) -> tuple[str, ...]:
    """Return the axes of a node in the order they are shown in.

    (batch, head, query, key) where keys take part, else (batch, query, head, d_head) and (batch, query, model).
    """
    return as_shown(axis.name for axis in node.axes)


def shown(node: Node, value: Array) -> Array:
    """Return the value with its dimensions in the order they are shown in."""
    order = shown_order(node)
    return Array(value.dense(order), order)
