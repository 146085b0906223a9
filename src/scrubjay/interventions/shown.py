"""How values are shown: the order of their axes, the one TransformerLens users expect."""

from __future__ import annotations

from scrubjay.circuit.axes import GLOSSARY
from scrubjay.circuit.node import Node
from scrubjay.engine.array import Array

_FIRST = ("row", "sample", "batch")
_HEADS = ("kv", "group", "head")


def shown_order(node: Node) -> tuple[str, ...]:
    """Return the axes of a node in the order they are shown in.

    (batch, head, query, key) where keys take part, else (batch, query, head, d_head) and (batch, query, model).
    """
    return ordered(axis.name for axis in node.axes)


def ordered(names: object) -> tuple[str, ...]:
    """Return axis names in the order they are shown in."""
    found = set(names)  # type: ignore[call-overload]
    heads = [name for name in _HEADS if name in found]
    places = [name for name in ("position", "query", "key") if name in found]
    middle = [*heads, *places] if "key" in found else [*places, *heads]
    first = [name for name in _FIRST if name in found]
    rest = [name for name in GLOSSARY if name in found and name not in (*first, *middle)]
    return (*first, *middle, *rest, *sorted(found - {*first, *middle, *rest}))


def shown(node: Node, value: Array) -> Array:
    """Return the value with its dimensions in the order they are shown in."""
    order = shown_order(node)
    return Array(value.dense(order), order)
