"""Random variables: a value at a random row of a data set, its mean, and joint cumulants.

A random variable is a value with an axis `random.<source>`, one place for every outcome of that source, all equally likely. Two
values drawn by one source have that axis in common and vary together; two sources are independent: their axes span the product.
So all that is pointwise along such an axis is a function of random variables as it stands. Only `Sample` makes an axis of this
kind (`Repeat` may, for what is the same at every outcome, and an input may have one), and only `Expectation` and `Cumulant` end it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from scrubjay.circuit.axes import RANDOM, Axis, in_order, is_random, joined
from scrubjay.circuit.node import Node
from scrubjay.circuit.partitions import check_order
from scrubjay.errors import CircuitError, near


@final
class Sample(Node):
    """The value at a random place of `axis`: the random variable that `source` draws, uniformly.

    >>> from scrubjay.circuit.ops import Input
    >>> x = Sample(Input("x", (Axis("row", 5), Axis("model", 4))), "row", "datum")
    >>> print(*x.axes)
    model=4 random.datum=5
    """

    value: Node
    axis: str
    by: str

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the value's axes with `random.<source>` in the place of `axis`."""
        size = self.value.size(self.axis)
        if is_random(self.axis) or not self.by:
            raise CircuitError(
                f"a Sample draws a place of an axis of data and names what draws it; given axis {self.axis!r}, by {self.by!r}"
            )
        if size == 0:
            raise CircuitError(f"{self.value!r} has no place along {self.axis!r} to draw")
        made = Axis(RANDOM + self.by, size)
        if made.name in self.value.axis_names:
            raise CircuitError(
                f"{self.value!r} is drawn by {self.by!r} already: one source draws one place, so draw by another"
            )
        return in_order([*(axis for axis in self.value.axes if axis.name != self.axis), made])

    @property
    def acts_along(self) -> frozenset[str]:
        """The axis a place is drawn of, and the random one."""
        return frozenset({self.axis, RANDOM + self.by})


@final
class Expectation(Node):
    """The mean of a value over the draws of some sources; it stays random in the others."""

    value: Node
    over: tuple[str, ...]

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the value's axes without those of the sources."""
        return _averaged(self.value.axes, self.over, "Expectation")

    @property
    def acts_along(self) -> frozenset[str]:
        """The random axes of the sources."""
        return frozenset(RANDOM + name for name in self.over)


@final
class Cumulant(Node):
    """The joint cumulant of values over the draws of some sources, place by place of all other axes.

    Of one value it is the mean, of two the covariance, of three the mean product of what each is away from its mean. It is
    linear in every value and 0 where the values fall into two independent groups. Orders from 1 to 6. Over the population as it
    stands; with `unbiased` the draws of the one source are taken for a sample, and it is the k-statistic: the estimate whose mean
    over all samples is the cumulant.
    """

    values: tuple[Node, ...]
    over: tuple[str, ...]
    unbiased: bool = False

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the values' axes without those of the sources."""
        check_order(len(self.values), "the cumulant")
        if self.unbiased and len(self.over) != 1:
            raise CircuitError(
                f"an unbiased Cumulant is over one source, whose draws are the sample, and not over {len(self.over)}: "
                "draw all sources together first (rules.sampled)"
            )
        return _averaged(joined(tuple([value.axes for value in self.values])), self.over, "Cumulant")

    @property
    def acts_along(self) -> frozenset[str]:
        """The random axes of the sources."""
        return frozenset(RANDOM + name for name in self.over)


def _averaged(axes: tuple[Axis, ...], over: Sequence[str], kind: str) -> tuple[Axis, ...]:
    """Return the axes without those of some sources; refuse sources that nothing was drawn by."""
    sources = [axis.name.removeprefix(RANDOM) for axis in axes if is_random(axis.name)]
    if not over or list(over) != sorted(set(over)):
        raise CircuitError(f"{kind} is over one source or several, each once and in order, and not over {over!r}")
    for name in over:
        if name not in sources:
            drawn = f"only by {', '.join(sources)}" if sources else "by no source"
            raise CircuitError(
                f"{kind} over {name!r} was asked for, and its value is drawn {drawn}{near(name, sources)}: it would be constant"
            )
    gone = {RANDOM + name for name in over}
    return tuple(axis for axis in axes if axis.name not in gone)
