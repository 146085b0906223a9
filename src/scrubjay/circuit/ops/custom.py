"""Functions that the language does not know: named, and found at evaluation in the store that holds them."""

from __future__ import annotations

from typing import final

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.node import Node
from scrubjay.errors import CircuitError


@final
class Custom(Node):
    """The function `name` of `source` applied to a value laid out in the order `layout`; the shape stays.

    It acts along all of its axes: nothing is known about it.
    """

    source: str
    name: str
    operand: Node
    layout: tuple[str, ...]

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the operand's axes."""
        if frozenset(self.layout) != self.operand.axis_names:
            raise CircuitError(f"layout {self.layout} does not name the axes of {self.operand!r}")
        return self.operand.axes

    @property
    def acts_along(self) -> frozenset[str]:
        """All axes."""
        return self.operand.axis_names
