"""What an evaluation costs, counted while it happens: nodes, multiply-adds, bytes of the values that live at once.

The same count is taken of a rehearsal, an evaluation on the device `meta`, where values have shapes and no numbers. So what a
plan says and what happened are found by one piece of code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import torch

from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Along,
    Custom,
    Einsum,
    Experts,
    Gather,
    Input,
    Map,
    Multiply,
    Opaque,
    Order,
    Weight,
)
from scrubjay.engine.array import Array
from scrubjay.engine.context import Context
from scrubjay.engine.contraction import multiply_adds, sizes_of
from scrubjay.engine.fused import Fused

_LAID_ANEW = (Einsum, Fused, Experts, Along, Map, Opaque, Custom, Gather, Order)
"""Kinds of nodes whose kernels may write their operands out in another order."""


@dataclass(frozen=True)
class Work:
    """What evaluations cost.

    Attributes:
        nodes: how many nodes were evaluated.
        multiply_adds: of contractions (products of matrices, attention, experts); an opaque operation counts none.
        kept_bytes: what the values hold that were asked for; neither weights nor inputs count, which are there anyway.
        peak_bytes: the most that was held at once on the way, with room for operands that are written out anew.
    """

    nodes: int = 0
    multiply_adds: int = 0
    kept_bytes: int = 0
    peak_bytes: int = 0

    def then(self, other: Work, held: int = 0) -> Work:
        """Return this work followed by other work, done while `held` bytes more are held."""
        return Work(
            self.nodes + other.nodes,
            self.multiply_adds + other.multiply_adds,
            self.kept_bytes + other.kept_bytes,
            max(self.peak_bytes, held + other.peak_bytes),
        )

    def to_dict(self) -> dict[str, int]:
        """Return the figures by name, values that were asked for as `held_bytes`."""
        return {
            "nodes": self.nodes,
            "multiply_adds": self.multiply_adds,
            "held_bytes": self.kept_bytes,
            "peak_bytes": self.peak_bytes,
        }


class Tally:
    """The count of one evaluation, while it goes on. Values that were there before it are told at the start, and cost nothing."""

    def __init__(self, known: Iterable[Array] = ()) -> None:
        self._off = torch.compiler.is_compiling()  # values have no memory then
        self._known = set[int]() if self._off else {_storage(value)[0] for value in known}
        self._sizes: dict[int, int] = {}  # of what lives, by its memory; nothing for weights and inputs
        self._users: dict[int, int] = {}
        self._live = 0
        self._nodes = 0
        self._multiply_adds = 0
        self._peak = 0

    def step(self, node: Node, operands: Sequence[Array], made: Array, context: Context) -> None:
        """Count a node and what it reads, just after it was evaluated."""
        if self._off:
            return
        key, size = _storage(made)
        if isinstance(node, Input) or (isinstance(node, Weight) and not _is_cast(node, made, context)):
            size = 0
        if key not in self._known:
            if key not in self._users:
                self._sizes[key], self._users[key] = size, 0
                self._live += size
            self._users[key] += 1
        self._nodes += 1
        self._multiply_adds += _multiply_adds(node, operands, made)
        fresh = {k: size for k, size in map(_storage, operands) if k not in self._users and k not in self._known}
        self._peak = max(self._peak, self._live + sum(fresh.values()) + _room(node, operands, made))

    def drop(self, value: Array) -> None:
        """Count a value as no longer held."""
        if self._off or (key := _storage(value)[0]) not in self._users:
            return
        self._users[key] -= 1
        if not self._users[key]:
            self._live -= self._sizes.pop(key)
            del self._users[key]

    def work(self) -> Work:
        """Return what was counted; what is held now was asked for."""
        return Work(self._nodes, self._multiply_adds, self._live, self._peak)


def bytes_of(value: Array) -> int:
    """Return the bytes of a value, were it written out."""
    return value.tensor.numel() * value.tensor.element_size() if isinstance(value.tensor, torch.Tensor) else 0


def _storage(value: Array) -> tuple[int, int]:
    """Return what tells the memory of a value from others', and its bytes: views share memory."""
    if not isinstance(value.tensor, torch.Tensor):
        return 0, 0
    storage = value.tensor.untyped_storage()
    return storage._cdata, storage.nbytes()  # pyright: ignore[reportPrivateUsage]


def _is_cast(node: Weight, made: Array, context: Context) -> bool:
    """Tell whether a weight is a copy in another type than it is stored in."""
    return context.stores[node.source].tensor(node.name).dtype != made.as_tensor().dtype


def _room(node: Node, operands: Sequence[Array], made: Array) -> int:
    """Return the bytes that a kernel may use on the way."""
    if isinstance(node, Add | Multiply):
        return bytes_of(made) if len(operands) > 2 else 0
    if not isinstance(node, _LAID_ANEW):
        return 0
    weights = [isinstance(one, Weight) for one in node.operands]
    laid = sum(bytes_of(value) for value, stored in zip(operands, weights, strict=True) if not stored)
    return laid + (bytes_of(made) if isinstance(node, Experts) else 0)


def _multiply_adds(node: Node, operands: Sequence[Array], made: Array) -> int:
    """Return the multiply-adds of a node, from the sizes of what it read."""
    if isinstance(node, Einsum):
        return multiply_adds([sizes_of(one) for one in operands], node.summed)
    if isinstance(node, Experts):
        weights = sizes_of(operands[1])
        return made.as_tensor().numel() * prod(weights[name] for name in node.summed)
    if not isinstance(node, Fused) or node.op == "layer_norm":
        return 0
    if node.op == "linear":
        weights = sizes_of(operands[1])
        return made.as_tensor().numel() * prod(weights[name] for name in node.over)
    key, inner, _, space = node.over
    scores = made.as_tensor().numel() // sizes_of(made)[space] * sizes_of(operands[1])[key]
    return scores * (sizes_of(operands[0])[inner] + sizes_of(made)[space])
