"""A cache of values that the user holds on to: what was computed once is taken, as long as nothing that it was made from has changed.

A value is found by a key made of the expression and of what it reads: the contents of inputs and weights, types, sizes. So it is
found again under any name, in another process where a folder is given, and not after a weight was changed in place.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.utils.weak import WeakIdKeyDictionary

from scrubjay.circuit.fingerprint import digest_node
from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Custom, Input, Opaque, Weight
from scrubjay.engine.array import Array
from scrubjay.engine.compute import compute
from scrubjay.engine.context import Context, Store
from scrubjay.engine.evaluate import Evaluated, home, input_sizes
from scrubjay.engine.fusing import is_stored
from scrubjay.engine.memory import budget_bytes, in_words
from scrubjay.errors import CacheError
from scrubjay.evidence.digest import digest_bytes, digest_json
from scrubjay.evidence.files import write_whole

VERSION = 1


@dataclass(frozen=True, eq=False)
class _Entry:
    """A value and its version: one that was written into since is no longer what was computed."""

    value: Array
    version: int
    size: int


class Cache:
    """Values by what they are made of, up to a budget; the one used longest ago goes first.

    Attributes:
        budget: the bytes that are held in memory at most.
        folder: where every value is also kept as a safetensors file, so that a later process finds it; none when not given.
        hits: how many values were found so far, and `misses` how many were not.
        damaged: how many files were found damaged; their values are computed again, and the files replaced.

    Weights are told apart by their contents, read again when their storage or version counter changes; a write past the
    counter (`weight.data`, numpy) is not seen: call `clear`. The budget is in bytes or as `"2 GB"`; raises `InputError` for what is neither.

    >>> Cache(budget="2 GB")
    <Cache: 0 values, 0 bytes of 2 GB; 0 hits, 0 misses>
    """

    def __init__(self, budget: int | str = "1 GB", folder: str | Path | None = None) -> None:
        self.budget = budget_bytes(budget)
        self.folder = None if folder is None else Path(folder)
        self.hits, self.misses, self.damaged, self.held = 0, 0, 0, 0
        self._values: OrderedDict[str, _Entry] = OrderedDict()
        self._digests: Any = WeakIdKeyDictionary()

    def __len__(self) -> int:
        """Return how many values are held in memory."""
        return len(self._values)

    def __repr__(self) -> str:
        """Say how full it is, and how often it was of use."""
        return f"<Cache: {len(self)} values, {in_words(self.held)} of {in_words(self.budget)}; {self.hits} hits, {self.misses} misses>"

    def clear(self) -> None:
        """Forget all values in memory, and what is known of weights; files stay."""
        self._values.clear()
        self._digests = WeakIdKeyDictionary()
        self.held = 0

    def find(self, key: str, device: torch.device | None = None) -> Array | None:
        """Return the value of a key, or None; it counts as used just now."""
        entry = self._values.get(key)
        if entry is not None and entry.value.as_tensor()._version != entry.version:  # pyright: ignore[reportPrivateUsage]
            self._drop(key)
            entry = None
        if entry is not None:
            self._values.move_to_end(key)
            self.hits += 1
            return entry.value
        value = self._read(key, device)
        if value is None:
            self.misses += 1
            return None
        self._hold(key, value)
        self.hits += 1
        return value

    def keep(self, key: str, value: Array) -> None:
        """Keep a value; raises `CacheError` where the folder cannot be written to."""
        tensor = value.tensor
        if not isinstance(tensor, torch.Tensor) or tensor.is_inference() or tensor.requires_grad:
            return
        if tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size():  # part of a larger one
            value = Array(tensor.clone(), value.names)
        if self.folder is not None:
            self._write(key, value)
        self._hold(key, value)

    def digest(self, tensor: torch.Tensor) -> str:
        """Return the fingerprint of a tensor, remembered for its storage and version."""
        seen = None if tensor.is_inference() else (tensor.data_ptr(), tensor._version)  # pyright: ignore[reportPrivateUsage]
        known: tuple[object, str] | None = self._digests.get(tensor)
        if seen is None or known is None or known[0] != seen:
            known = (seen, _digest(tensor))
            self._digests[tensor] = known
        return known[1]

    def _hold(self, key: str, value: Array) -> None:
        tensor = value.as_tensor()
        size = tensor.untyped_storage().nbytes()
        if key in self._values:
            self._drop(key)
        if size > self.budget:
            return
        while self.held + size > self.budget:
            self._drop(next(iter(self._values)))
        self._values[key] = _Entry(value, tensor._version, size)  # pyright: ignore[reportPrivateUsage]
        self.held += size

    def _drop(self, key: str) -> None:
        self.held -= self._values.pop(key).size

    def _place(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key.removeprefix('sha256:')}.safetensors"

    def _read(self, key: str, device: torch.device | None) -> Array | None:
        """Return the value that a file holds; None where there is no file, or it is damaged."""
        if self.folder is None or not (place := self._place(key)).is_file():
            return None
        try:
            with cast("Any", safe_open)(place, framework="pt") as file:
                about: dict[str, str] = file.metadata() or {}
                tensor: torch.Tensor = file.get_tensor("value")
            if about.get("digest") != _digest(tensor):
                self.damaged += 1
                return None
            return Array(tensor.to(device or "cpu"), tuple(json.loads(about["names"])))
        except (
            SafetensorError,
            KeyError,
            ValueError,
        ):  # the caller computes it again, and the new file takes this one's place
            self.damaged += 1
            return None

    def _write(self, key: str, value: Array) -> None:
        """Write a file at once: a reader finds the whole of it, or nothing."""
        place, tensor = self._place(key), value.as_tensor().detach().cpu().contiguous()
        content = save({"value": tensor}, {"names": json.dumps(value.names), "digest": _digest(tensor)})
        try:
            write_whole(place, content)
        except OSError as error:
            raise CacheError(
                f"a value was to be kept in {place.parent}, but: {error}; give another folder, or none: sj.Cache(folder=...)"
            ) from error


def _digest(tensor: torch.Tensor) -> str:
    """Return the fingerprint of a tensor's type, shape and bytes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    content = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return digest_json([str(tensor.dtype), list(tensor.shape), digest_bytes(content)])


def compute_with(
    cache: Cache | None, nodes: Sequence[Node], inputs: Mapping[str, torch.Tensor], stores: Mapping[str, Store], *,
    dtype: torch.dtype | None = None, device: torch.device | str | None = None, sizes: Mapping[str, int] | None = None,
    across: bool = True, **options: Any,
) -> Evaluated:  # fmt: skip
    """Return what `compute` does, with the values that a cache holds taken from it and the others put there."""
    if cache is None:
        return compute(nodes, inputs, stores, dtype=dtype, device=device, sizes=sizes, across=across, **options)
    order = topological(nodes)
    place = torch.device(device) if device is not None else home(order, stores, {})
    context = Context(stores, dtype, place, {**(sizes or {}), **input_sizes(order, inputs)}, inputs)
    keys = {node: key for node, key in _keys(cache, order, context, across).items() if node in set(nodes)}
    known = {node: found for node, key in keys.items() if (found := cache.find(key, place)) is not None}
    missing = [node for node in dict.fromkeys(nodes) if node not in known]
    made = Evaluated({}, 0)
    if missing:
        made = compute(
            missing, inputs, stores, dtype=dtype, device=device, sizes=sizes, across=across, known=known, **options
        )
    for node in missing:
        if node in keys:
            cache.keep(keys[node], made[node])
    return replace(made, values={node: known[node] if node in known else made[node] for node in nodes}, hits=len(known))


def _keys(cache: Cache, order: Sequence[Node], context: Context, across: bool) -> dict[Node, str]:
    """Return the key of every value that has one: all but leaves and parts of weights, and what a function of the user's own is part of."""
    frame = [VERSION, torch.__version__, str(context.dtype), str(context.device), across]
    digests: dict[Node, str] = {}
    for node in order:
        if isinstance(node, Custom) or any(operand not in digests for operand in node.operands):
            continue
        if isinstance(node, Input):
            own: list[object] = [node.dtype, _digest(context.inputs[node.name])]
        elif isinstance(node, Weight):
            own = [node.dtype, cache.digest(context.stores[node.source].tensor(node.name))]
        else:
            own = [_plain(getattr(node, item.name), digests) for item in fields(cast("Any", node))]
        sizes = [(axis.name, context.size(axis.size)) for axis in node.axes]
        digests[node] = digest_node(type(node), [own, sizes, dict(context.sizes) if isinstance(node, Opaque) else None])
    made = {node: digest for node, digest in digests.items() if node.operands and not is_stored(node)}
    return {node: digest_json([*frame, digest]) for node, digest in made.items()}


def _plain(value: object, digests: Mapping[Node, str]) -> object:
    if isinstance(value, Node):
        return digests[value]
    if isinstance(value, tuple):
        return [_plain(item, digests) for item in cast("tuple[object, ...]", value)]
    return value
