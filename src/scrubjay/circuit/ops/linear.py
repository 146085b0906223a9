"""Linear algebra: contraction, sum and product of named-axis values."""

from __future__ import annotations

from typing import final

from scrubjay.circuit.axes import Axis, in_order, names
from scrubjay.circuit.node import Node
from scrubjay.errors import CircuitError


def _union(operands: tuple[Node, ...], kind: str) -> tuple[Axis, ...]:
    if not operands:
        raise CircuitError(f"{kind} needs at least one operand")
    return in_order(axis for operand in operands for axis in operand.axes)


@final
class Einsum(Node):
    """The product of the operands, summed over the axes `summed`: out[...] = sum over s of prod_i operand_i[..., s]."""

    factors: tuple[Node, ...]
    summed: tuple[str, ...]

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the operands' axes without the summed ones."""
        axes = _union(self.factors, "Einsum")
        if missing := set(self.summed) - names(axes):
            raise CircuitError(
                f"Einsum sums over {sorted(missing)}, which no operand has; they have {', '.join(map(str, axes))}"
            )
        return tuple(axis for axis in axes if axis.name not in self.summed)

    @property
    def acts_along(self) -> frozenset[str]:
        """The summed axes."""
        return frozenset(self.summed)


@final
class Add(Node):
    """The sum of the terms, each broadcast over the axes it lacks."""

    terms: tuple[Node, ...]

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the union of the terms' axes."""
        return _union(self.terms, "Add")


@final
class Multiply(Node):
    """The product of the factors, each broadcast over the axes it lacks."""

    factors: tuple[Node, ...]

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the union of the factors' axes."""
        return _union(self.factors, "Multiply")
