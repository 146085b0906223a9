"""The shelf: where interventions put the tensors and functions they bring, and get nodes for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Custom, Weight
from scrubjay.engine.array import Array
from scrubjay.interventions.shown import shown_order


class Shelf:
    """Where an intervention puts tensors and functions, and gets nodes for them."""

    def __init__(self, source: str, tensors: dict[str, torch.Tensor], functions: dict[str, Any]) -> None:
        self.source, self.tensors, self.functions = source, tensors, functions

    def tensor(self, value: torch.Tensor, axes: Sequence[Axis]) -> Node:
        """Return the node of a tensor with these axes, in order (size-1 dimensions broadcast)."""
        name = f"t{len(self.tensors)}"
        self.tensors[name] = value
        dims = tuple(() if size == 1 else (axis,) for axis, size in zip(axes, value.shape, strict=True))
        dtype = "model" if value.is_floating_point() else str(value.dtype).removeprefix("torch.")
        return Weight(self.source, name, dims, dtype)

    def array(self, value: Array, axes: Mapping[str, int | str]) -> Node:
        """Return the node of a named array; `axes` give the sizes as the circuit has them."""
        tensor = value.as_tensor()
        return self.tensor(
            tensor, [Axis(name, axes.get(name, size)) for name, size in zip(value.names, tensor.shape, strict=True)]
        )

    def function(self, value: Callable[[torch.Tensor], torch.Tensor], operand: Node) -> Node:
        """Return the node of a function of a value."""
        name = f"f{len(self.functions)}"
        self.functions[name] = value
        return Custom(self.source, name, operand, shown_order(operand))
