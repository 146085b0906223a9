"""Movement: taking, joining, looking up and renaming, with no arithmetic."""

from __future__ import annotations

from typing import final

from scrubjay.circuit.axes import Axis, in_order
from scrubjay.circuit.node import Node
from scrubjay.errors import CircuitError


def _without(node: Node, *gone: str) -> list[Axis]:
    for name in gone:
        node.size(name)
    return [axis for axis in node.axes if axis.name not in gone]


def _new(node: Node, rest: list[Axis], *made: Axis) -> None:
    """Refuse a new axis whose name one of those that stay has already: two axes would become one."""
    for place, axis in enumerate(made):
        if axis.name in {one.name for one in (*rest, *made[:place])}:
            raise CircuitError(
                f"the new axis {axis} has the name of one that {node!r} keeps ({', '.join(map(str, rest))}): rename one of them with Relabel first"
            )


def _product(sizes: list[int | str]) -> int | None:
    total = 1
    for size in sizes:
        if not isinstance(size, int):
            return None
        total *= size
    return total


@final
class Index(Node):
    """The value at one place of an axis, which goes: out[...] = source[..., axis=at]. Negative counts from the end."""

    source: Node
    axis: str
    at: int

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the source's axes without the indexed one."""
        size = self.source.size(self.axis)
        if isinstance(size, int) and not -size <= self.at < size:
            raise CircuitError(f"index {self.at} is outside axis {self.axis}={size} of {self.source!r}")
        return tuple(_without(self.source, self.axis))

    @property
    def acts_along(self) -> frozenset[str]:
        """The indexed axis."""
        return frozenset({self.axis})


@final
class Narrow(Node):
    """The values of an axis from `start` (a number) on, every `step`-th, as the axis `to`."""

    source: Node
    axis: str
    start: int
    to: Axis
    step: int = 1

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the source's axes with `to` in the place of `axis`."""
        size = self.source.size(self.axis)
        if self.start < 0 or self.step < 1:
            raise CircuitError(
                f"cannot take every {self.step}-th place from {self.start} on of axis {self.axis}={size}: the first place is a number from 0 on, "
                "and the step one from 1 on (the engine takes slices as they are written, without counting from the end)"
            )
        if (
            isinstance(size, int)
            and isinstance(self.to.size, int)
            and self.start + (self.to.size - 1) * self.step >= size
        ):
            raise CircuitError(f"cannot take {self.to.size} places from {self.start} on of axis {self.axis}={size}")
        rest = _without(self.source, self.axis)
        _new(self.source, rest, self.to)
        return in_order([*rest, self.to])

    @property
    def acts_along(self) -> frozenset[str]:
        """The axis it takes from."""
        return frozenset({self.axis, self.to.name})


@final
class Concat(Node):
    """The parts one after another: part i's own axis `along[i]` becomes a stretch of the axis `to`."""

    parts: tuple[Node, ...]
    along: tuple[str, ...]
    to: Axis

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the parts' other axes and `to`."""
        if len(self.parts) != len(self.along) or not self.parts:
            raise CircuitError("Concat needs one axis for each part, and at least one part")
        rest = [axis for part, name in zip(self.parts, self.along, strict=True) for axis in _without(part, name)]
        for part, name in zip(self.parts, self.along, strict=True):
            _new(part, _without(part, name), self.to)
        total = 0
        for part, name in zip(self.parts, self.along, strict=True):
            size = part.size(name)
            total = total + size if isinstance(size, int) and total >= 0 else -1
        if isinstance(self.to.size, int) and total >= 0 and total != self.to.size:
            raise CircuitError(f"the parts have {total} places together and axis {self.to} has {self.to.size}")
        return in_order([*rest, self.to])

    @property
    def acts_along(self) -> frozenset[str]:
        """The axes that are joined."""
        return frozenset({*self.along, self.to.name})


@final
class Gather(Node):
    """A look-up: the axis `axis` of the source is read at `index`, whose own axes take its place.

    out[i..., rest...] = source[axis=index[i...], rest...]. An axis that both have is walked together. With an embedding
    as source this reads token vectors; with a data set's `row` axis it is "reads row i", the base of causal scrubbing.
    Negative indices count from the end.
    """

    source: Node
    axis: str
    index: Node

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the source's other axes and the index's."""
        if self.axis in self.index.axis_names:
            raise CircuitError(f"the index of a Gather along {self.axis!r} has that axis itself: rename it first")
        return in_order([*_without(self.source, self.axis), *self.index.axes])

    @property
    def acts_along(self) -> frozenset[str]:
        """The axis that is looked up."""
        return frozenset({self.axis})


@final
class Relabel(Node):
    """The same value with axes renamed, all at once: pairs of (old, new) names. `query` read as `key` is this node."""

    source: Node
    pairs: tuple[tuple[str, str], ...]

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the renamed axes."""
        table = dict(self.pairs)
        for old in table:
            self.source.size(old)
        axes = [Axis(table.get(axis.name, axis.name), axis.size) for axis in self.source.axes]
        if len({axis.name for axis in axes}) != len(axes):
            raise CircuitError(f"renaming {dict(self.pairs)} gives one name to two axes of {self.source!r}")
        return in_order(axes)

    @property
    def acts_along(self) -> frozenset[str]:
        """The renamed axes, by both names."""
        return frozenset(name for pair in self.pairs for name in pair)


@final
class Split(Node):
    """One axis seen as several, outermost first."""

    source: Node
    axis: str
    into: tuple[Axis, ...]

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the source's axes with `into` in the place of `axis`."""
        size, total = self.source.size(self.axis), _product([axis.size for axis in self.into])
        if isinstance(size, int) and total is not None and total != size:
            raise CircuitError(f"axis {self.axis}={size} cannot be split into {', '.join(map(str, self.into))}")
        rest = _without(self.source, self.axis)
        _new(self.source, rest, *self.into)
        return in_order([*rest, *self.into])

    @property
    def acts_along(self) -> frozenset[str]:
        """The axis that is split, and its parts."""
        return frozenset({self.axis, *(axis.name for axis in self.into)})


@final
class Merge(Node):
    """Several axes seen as one, outermost first."""

    source: Node
    merged: tuple[str, ...]
    to: Axis

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the source's axes with `to` in the place of the merged ones."""
        total = _product([self.source.size(name) for name in self.merged])
        if isinstance(self.to.size, int) and total is not None and total != self.to.size:
            raise CircuitError(f"axes {', '.join(self.merged)} have {total} places together, and not {self.to}")
        rest = _without(self.source, *self.merged)
        _new(self.source, rest, self.to)
        return in_order([*rest, self.to])

    @property
    def acts_along(self) -> frozenset[str]:
        """The axes that are merged, and the whole."""
        return frozenset({*self.merged, self.to.name})


@final
class Repeat(Node):
    """The same value at every place of further axes, made real: what broadcasting does where a node needs the axis."""

    source: Node
    along: tuple[Axis, ...]

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the source's axes and the new ones."""
        if both := self.source.axis_names & {axis.name for axis in self.along}:
            raise CircuitError(f"{self.source!r} has the axes {', '.join(sorted(both))} already")
        return in_order([*self.source.axes, *self.along])

    @property
    def acts_along(self) -> frozenset[str]:
        """The new axes."""
        return frozenset(axis.name for axis in self.along)
