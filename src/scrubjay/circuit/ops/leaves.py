"""Leaves: what a circuit is computed from. A leaf says where a value is found and never holds a tensor."""

from __future__ import annotations

from typing import final

from scrubjay.circuit.axes import Axis, in_order
from scrubjay.circuit.node import Node
from scrubjay.errors import CircuitError


@final
class Input(Node):
    """A value given when the circuit is run.

    >>> Input("input_ids", (Axis("batch", "batch"), Axis("query", "query")), "int64").dtype
    'int64'
    """

    name: str
    dims: tuple[Axis, ...]
    dtype: str = "model"

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the axes of the dimensions."""
        axes = in_order(self.dims)
        if len(axes) != len(self.dims):
            raise CircuitError(f"input {self.name!r} names an axis twice: {', '.join(map(str, self.dims))}")
        return axes


@final
class Weight(Node):
    """A stored tensor `name` of `source`. Each stored dimension is a product of axes, outermost first (none: size 1).

    `dtype` is `"model"` for a weight that follows the circuit's floating type, else the type's own name.
    """

    source: str
    name: str
    dims: tuple[tuple[Axis, ...], ...]
    dtype: str = "model"

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the axes of all stored dimensions."""
        flat = [axis for dim in self.dims for axis in dim]
        axes = in_order(flat)
        if len(axes) != len(flat):
            raise CircuitError(f"weight {self.name!r} names an axis twice: {', '.join(map(str, flat))}")
        return axes


@final
class Constant(Node):
    """A number, without axes.

    Without a `dtype` it takes part in arithmetic as a Python number does. The values `"min"` and `"max"` mean the least and
    the greatest finite number of `dtype`.
    """

    value: bool | int | float | str
    dtype: str | None = None

    def find_axes(self) -> tuple[Axis, ...]:
        """Return no axes."""
        if not isinstance(self.value, bool | int | float | str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise CircuitError(f"a constant is a real number, 'min' or 'max', and not {self.value!r}")
        if isinstance(self.value, str) and self.value not in {"min", "max"}:
            raise CircuitError(f"a constant is a number, 'min' or 'max', and not {self.value!r}")
        return ()


@final
class Iota(Node):
    """0, 1, 2, ... along one axis, as 64-bit integers."""

    axis: Axis

    def find_axes(self) -> tuple[Axis, ...]:
        """Return its one axis."""
        return in_order((self.axis,))

    @property
    def acts_along(self) -> frozenset[str]:
        """Its axis: an iota of rows tells rows apart."""
        return frozenset({self.axis.name})
