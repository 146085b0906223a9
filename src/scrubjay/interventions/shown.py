"""How values are shown: the order of their axes, the one TransformerLens users expect, and several of them as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from scrubjay.circuit.address import Address, Expert, Head, KeyValueHead, Module, Neuron
from scrubjay.circuit.axes import as_shown
from scrubjay.circuit.node import Node
from scrubjay.engine.array import Array
from scrubjay.errors import AddressError


def shown_order(node: Node) -> tuple[str, ...]:
    """Return the axes of a node in the order they are shown in.

    (batch, head, query, key) where keys take part, else (batch, query, head, d_head) and (batch, query, model).
    """
    return as_shown(axis.name for axis in node.axes)


def shown(node: Node, value: Array) -> Array:
    """Return the value with its dimensions in the order they are shown in."""
    order = shown_order(node)
    return Array(value.dense(order), order)


_AXIS_OF_PART = {Head: "head", KeyValueHead: "kv", Neuron: "hidden", Expert: "expert"}


def stacked(asked: Address, wanted: Sequence[Address], found: Sequence[Array]) -> Array:
    """Return values stacked along `layer` and `head` (or what the part is), where the address leaves them open."""
    part = asked.part
    index = None if part is None or isinstance(part, Module) else part.index
    layers = [] if asked.layer is None or isinstance(asked.layer, int) else ["layer"]
    parts = [] if part is None or index is None or isinstance(index, int) else [_AXIS_OF_PART[type(part)]]
    if not layers and not parts:
        return found[0]
    counts = Counter(one.layer for one in wanted)
    if len({(item.names, tuple(item.as_tensor().shape)) for item in found}) > 1 or len(set(counts.values())) > 1:
        raise AddressError(
            f"{asked} names values of different shapes, or other numbers of them in each layer; ask for them layer by layer"
        )
    stack = torch.stack([item.as_tensor() for item in found])
    if layers and parts:
        stack = stack.unflatten(0, (len(counts), -1))
    return Array(stack, (*layers, *parts, *found[0].names))
