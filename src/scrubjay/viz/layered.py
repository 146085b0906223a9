"""Places for the boxes of a graph without cycles: layers from top to bottom, few crossings, straight long lines.

The usual three steps (Sugiyama et al., 1981): a layer for each box, the longest way from the top; an order within each layer, by
the mean place of the neighbours, the best of several sweeps; then places, each as near to the mean of its neighbours as the order
and the gaps allow, which is a monotone least-squares fit. A line that passes layers is led through an invisible point in each.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

SWEEPS = 12
GAP, POINT, STRAIGHT = 18.0, 8.0, 8.0
"""The least room between boxes; the width that a passing line takes, and how much more than others it keeps straight."""

Neighbours = list[list[int]]


class Place(NamedTuple):
    """The middle of a box, and its layer."""

    x: float
    layer: int


@dataclass(frozen=True)
class Layout:
    """Where boxes are (their middles, by number), how wide all is, and the points that each line passes.

    `lines[(above, below)]` are the middles from the upper box to the lower one, both included.
    """

    places: tuple[Place, ...]
    width: float
    layers: int
    lines: dict[tuple[int, int], tuple[Place, ...]]


def layered(widths: Sequence[float], edges: Sequence[tuple[int, int]], margin: float = 0.0) -> Layout:
    """Return places for boxes of these widths, `margin` left free at both sides; an edge goes from a box to one below it.

    Boxes are given so that each comes before those above it. Two edges down from different boxes to one share a line where
    both pass the same layers.

    >>> made = layered([10, 10, 10], [(1, 0), (2, 1), (2, 0)])
    >>> [place.layer for place in made.places], len(made.lines[2, 0])
    ([2, 1, 0], 3)
    """
    layer = [0] * len(widths)
    downward: dict[int, list[int]] = {}
    for upper, lower in edges:
        downward.setdefault(upper, []).append(lower)
    for upper in reversed(range(len(widths))):
        for lower in downward.get(upper, ()):
            layer[lower] = max(layer[lower], layer[upper] + 1)
    sizes, paths = [*widths], dict[tuple[int, int], list[int]]()
    points: dict[tuple[int, int], int] = {}  # what passes a layer on the way to a lower box
    for upper, lower in edges:
        way = [upper]
        for level in range(layer[upper] + 1, layer[lower]):
            if (lower, level) not in points:
                points[lower, level] = len(sizes)
                sizes.append(POINT)
                layer.append(level)
            way.append(points[lower, level])
        paths[upper, lower] = [*way, lower]
    up: Neighbours = [[] for _ in sizes]
    down: Neighbours = [[] for _ in sizes]
    for above, below in dict.fromkeys(pair for way in paths.values() for pair in pairwise(way)):
        down[above].append(below)
        up[below].append(above)
    rows = _ordered(
        [[one for one in range(len(sizes)) if layer[one] == level] for level in range(max(layer, default=-1) + 1)],
        up,
        down,
    )
    xs = _placed(rows, sizes, up, down)
    least = min((x - size / 2 for x, size in zip(xs, sizes, strict=True)), default=0.0) - margin
    places = [Place(x - least, level) for x, level in zip(xs, layer, strict=True)]
    width = max((place.x + size / 2 for place, size in zip(places, sizes, strict=True)), default=0.0) + margin
    lines = {ends: tuple(places[one] for one in way) for ends, way in paths.items()}
    return Layout(tuple(places[: len(widths)]), width, len(rows), lines)


def _ordered(rows: list[list[int]], up: Neighbours, down: Neighbours) -> list[list[int]]:
    """Return the layers, each in the order of the least crossings that was met."""
    best, least = [row[:] for row in rows], _crossings(rows, down)
    for sweep in range(SWEEPS):
        beside, course = (up, range(1, len(rows))) if sweep % 2 == 0 else (down, range(len(rows) - 2, -1, -1))
        for level in course:
            near = rows[level - 1] if beside is up else rows[level + 1]
            spot = {one: place / max(len(near) - 1, 1) for place, one in enumerate(near)}
            now = {one: place / max(len(rows[level]) - 1, 1) for place, one in enumerate(rows[level])}
            wish = {
                one: sum(spot[it] for it in beside[one]) / len(beside[one]) if beside[one] else now[one] for one in now
            }
            rows[level].sort(key=lambda one: (wish[one], now[one]))
        if (found := _crossings(rows, down)) < least:
            best, least = [row[:] for row in rows], found
    return best


def _crossings(rows: list[list[int]], down: Neighbours) -> int:
    """Return how many pairs of lines cross."""
    total = 0
    for upper, lower in pairwise(rows):
        spot = {one: place for place, one in enumerate(lower)}
        seen: list[int] = []
        for one in upper:
            ends = sorted(spot[below] for below in down[one])
            total += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total


def _placed(rows: list[list[int]], sizes: Sequence[float], up: Neighbours, down: Neighbours) -> list[float]:
    """Return the middle of each box: near its neighbours, in the order of its layer, without overlap."""
    xs = [0.0] * len(sizes)
    for row in rows:
        _settle(row, [0.0] * len(row), sizes, xs)
    for sweep in range(2 * SWEEPS):
        beside = (up, down)[sweep % 2] if sweep < 2 * SWEEPS - 4 else None
        for row in rows if beside is up else rows[::-1]:
            wishes = []
            for one in row:
                near = [*up[one], *down[one]] if beside is None else beside[one]
                pull = [STRAIGHT if sizes[it] == sizes[one] == POINT else 1.0 for it in near]
                total = sum(pull)
                wishes.append(
                    sum(xs[it] * much for it, much in zip(near, pull, strict=True)) / total if near else xs[one]
                )
            _settle(row, wishes, sizes, xs)
    return xs


def _settle(row: list[int], wishes: Sequence[float], sizes: Sequence[float], xs: list[float]) -> None:
    """Put a layer as near to its wishes as its order and gaps allow: pool neighbours that would come too near."""
    offsets, at = list[float](), 0.0
    for place, one in enumerate(row):
        at += (sizes[row[place - 1]] + sizes[one]) / 2 + GAP if place else 0.0
        offsets.append(at)
    blocks: list[tuple[float, int]] = []
    for wish, offset in zip(wishes, offsets, strict=True):
        mean, count = wish - offset, 1
        while blocks and blocks[-1][0] > mean:
            other, many = blocks.pop()
            mean, count = (mean * count + other * many) / (count + many), count + many
        blocks.append((mean, count))
    settled = [mean for mean, count in blocks for _ in range(count)]
    for one, mean, offset in zip(row, settled, offsets, strict=True):
        xs[one] = mean + offset
