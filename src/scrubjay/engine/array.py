"""A tensor with named dimensions: what a node evaluates to. The order of dimensions is free; names say what is what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from scrubjay.errors import EvaluationError


@dataclass(frozen=True, eq=False)
class Array:
    """A tensor (or a bare Python number) and the names of its dimensions, in order."""

    tensor: torch.Tensor | float
    names: tuple[str, ...]

    def __repr__(self) -> str:
        """Say the axes, shape and type in one line."""
        if not isinstance(self.tensor, torch.Tensor):
            return f"<Array {self.tensor}>"
        shape = ", ".join(f"{name}={size}" for name, size in zip(self.names, self.tensor.shape, strict=True))
        return f"<Array ({shape}) {str(self.tensor.dtype).removeprefix('torch.')}>"

    def laid(self, order: Sequence[str]) -> torch.Tensor | float:
        """Return the tensor with dimensions in `order`; a name it lacks becomes a dimension of size 1."""
        if not isinstance(self.tensor, torch.Tensor):
            return self.tensor
        if tuple(order) == self.names:
            return self.tensor
        have = [name for name in order if name in self.names]
        tensor = (
            self.tensor if tuple(have) == self.names else self.tensor.permute([self.names.index(name) for name in have])
        )
        for place, name in enumerate(order):
            if name not in self.names:
                tensor = tensor.unsqueeze(place)
        return tensor

    def dense(self, order: Sequence[str]) -> torch.Tensor:
        """Return the tensor with exactly its own dimensions, in `order`."""
        if set(order) != set(self.names):
            raise EvaluationError(f"a value with axes {self.names} was asked for in the order {tuple(order)}")
        found = self.laid(order)
        return found if isinstance(found, torch.Tensor) else torch.tensor(found)

    def in_dims(self, dims: Sequence[str | None]) -> torch.Tensor:
        """Return the tensor with one dimension for each of `dims`; `None` is a dimension of size 1."""
        found = self.laid([name if name is not None else f"{place}." for place, name in enumerate(dims)])
        return found if isinstance(found, torch.Tensor) else torch.tensor(found)

    def as_tensor(self, like: torch.device | None = None) -> torch.Tensor:
        """Return the tensor; a bare number becomes one."""
        return self.tensor if isinstance(self.tensor, torch.Tensor) else torch.tensor(self.tensor, device=like)


def copied(array: Array) -> Array:
    """Return an array with memory of its own."""
    return Array(array.tensor.clone(), array.names) if isinstance(array.tensor, torch.Tensor) else array


def union(arrays: Sequence[Array]) -> tuple[str, ...]:
    """Return the names of all arrays: the order of the one with most dimensions, then the others' new ones in front."""
    longest = max(arrays, key=lambda item: len(item.names))
    rest = dict.fromkeys(name for item in arrays for name in item.names if name not in longest.names)
    return (*rest, *longest.names)


def spread(arrays: Sequence[Array]) -> tuple[list[torch.Tensor | float], tuple[str, ...]]:
    """Return all tensors in one order of dimensions, ready to broadcast, and that order."""
    order = union(arrays)
    return [item.laid(order) for item in arrays], order
