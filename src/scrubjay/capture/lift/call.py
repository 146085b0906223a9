"""One operator call of a captured program, read through its schema so that no argument can be dropped.

A handler takes the arguments it understands. Whatever it left untaken must stand at its default or be one of the few that
cannot change a value (device, layout, memory format); otherwise the operation is kept whole, as `Opaque`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node as FxNode

from scrubjay.capture.lift.layout import Size
from scrubjay.capture.lift.proto import Value
from scrubjay.errors import CaptureError

IRRELEVANT = frozenset(
    {"device", "layout", "pin_memory", "memory_format", "non_blocking", "copy", "implicit", "generator"}
)

MODEL_DTYPE = torch.bfloat16
"""A module is captured with its floating weights in this type: where it occurs, the program means "the model's own"."""


def dtype_name(dtype: torch.dtype) -> str:
    """Return `"model"` for the type that stands for the model's own, else the type's name."""
    return "model" if dtype == MODEL_DTYPE else str(dtype).removeprefix("torch.")


@dataclass
class Call:
    """A call being lifted: arguments by name, what is already lifted, and the result's sizes and type."""

    fx: FxNode
    values: Mapping[FxNode, Any]
    size: Any
    taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Bind arguments to the schema's names."""
        schema = self.fx.target._schema  # type: ignore[union-attr]
        self.given: dict[str, Any] = {}
        self.defaults: dict[str, Any] = {}
        for place, argument in enumerate(schema.arguments):
            if place < len(self.fx.args) and not argument.kwarg_only:
                self.given[argument.name] = self.fx.args[place]
            elif argument.name in self.fx.kwargs:
                self.given[argument.name] = self.fx.kwargs[argument.name]
            if argument.has_default_value():
                self.defaults[argument.name] = argument.default_value

    def raw(self, name: str) -> Any:
        """Take the argument as the program has it (or its default)."""
        self.taken.add(name)
        return self.given[name] if name in self.given else self.defaults.get(name)

    def tensor(self, name: str) -> Value:
        """Take a tensor argument."""
        return self.lifted(self.raw(name))

    def maybe(self, name: str) -> Value | None:
        """Take an optional tensor argument."""
        found = self.raw(name)
        return None if found is None else self.lifted(found)

    def tensors(self, name: str) -> list[Value]:
        """Take a list of tensors."""
        return [self.lifted(item) for item in self.raw(name)]

    def lifted(self, item: Any) -> Value:
        """Return the lifted value of a tensor of the program."""
        if isinstance(item, FxNode) and isinstance(self.values.get(item), Value):
            return self.values[item]
        raise CaptureError(f"{self.fx.name}: {item!r} is not a tensor of the captured program")

    def number(self, name: str) -> Any:
        """Take a number, list or flag; a size that depends on the input comes as its text."""
        return self._plain(self.raw(name))

    def _plain(self, item: Any) -> Any:
        if isinstance(item, FxNode):
            found = item.meta["val"]
            return self.size(found) if isinstance(found, torch.SymInt | int) else found
        if isinstance(item, list | tuple):
            return [self._plain(one) for one in item]
        return item

    def dims(self, name: str, rank: int) -> list[int]:
        """Take a dimension or list of dimensions, counted from the front; none given means all."""
        found = self.number(name)
        if found is None or found == []:
            return list(range(rank))
        return [d % rank for d in (found if isinstance(found, list) else [found])]

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The sizes of the result."""
        return tuple(self.size(one) for one in self.fx.meta["val"].shape)

    def dtype_of(self, name: str) -> torch.dtype:
        """Return the type of a tensor argument, without taking it."""
        return self.given[name].meta["val"].dtype

    def untaken(self) -> list[str]:
        """Return arguments that were given, differ from their default, can matter, and were not taken."""
        left: list[str] = []
        for name, item in self.given.items():
            if name in self.taken or name in IRRELEVANT:
                continue
            plain = self._plain(item)
            if name in self.defaults and plain == self.defaults[name]:
                continue
            left.append(name)
        return left
