"""Linear algebra: contraction, sum and product of named-axis values."""

from __future__ import annotations

from typing import final

from scrubjay.circuit.axes import Axis, in_order, joined, names, without
from scrubjay.circuit.node import Node
from scrubjay.errors import CircuitError


def _union(operands: tuple[Node, ...], kind: str) -> tuple[Axis, ...]:
    if not operands:
        raise CircuitError(f"{kind} needs at least one operand")
    return joined(tuple([operand.axes for operand in operands]))


@final
class Einsum(Node):
    """The product of the operands, summed over the axes `summed`: out[...] = sum over s of prod_i operand_i[..., s]."""

    factors: tuple[Node, ...]
    summed: tuple[str, ...]

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the operands' axes without the summed ones."""
        axes, summed = _union(self.factors, "Einsum"), self.summed
        kept = without(axes, summed)
        if len(kept) + len(set(summed)) != len(axes):
            missing = sorted(set(summed) - names(axes))
            raise CircuitError(
                f"Einsum sums over {missing}, which no operand has; they have {', '.join(map(str, axes))}"
            )
        return kept

    @property
    def acts_along(self) -> frozenset[str]:
        """The summed axes."""
        return frozenset(self.summed)


@final
class Experts(Node):
    """A linear map chosen for every value: the matrix of expert `index` out of a stack, applied to the source.

    It is Einsum((source, Gather(weights, axis, index)), summed), and is evaluated expert by expert, so that no matrix is
    copied for every token. Along all axes of the index it is pointwise: what one token chooses is nothing to another.
    """

    source: Node
    weights: Node
    axis: str
    index: Node
    summed: tuple[str, ...]

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the axes of the source, the index and the chosen matrix, without the summed ones."""
        self.weights.size(self.axis)
        if self.axis in self.index.axis_names | self.source.axis_names:
            raise CircuitError(
                f"Experts chooses along {self.axis!r}, which its source or its index has itself: rename it"
            )
        if both := self.weights.axis_names & self.index.axis_names:
            raise CircuitError(f"the weights and the index of Experts both have {', '.join(sorted(both))}: rename them")
        rest = [axis for axis in self.weights.axes if axis.name != self.axis]
        axes = in_order([*self.source.axes, *self.index.axes, *rest])
        if missing := set(self.summed) - (self.source.axis_names & names(rest)):
            raise CircuitError(
                f"Experts sums over {sorted(missing)}, which its source and its weights do not both have"
            )
        if both := self.source.axis_names & names(rest) - set(self.summed):
            raise CircuitError(
                f"the source and the weights of Experts share {', '.join(sorted(both))}, which it does not sum over"
            )
        return tuple(axis for axis in axes if axis.name not in self.summed)

    @property
    def acts_along(self) -> frozenset[str]:
        """The axis of experts, and the summed ones."""
        return frozenset({self.axis, *self.summed})


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
