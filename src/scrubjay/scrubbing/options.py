"""How a scrub draws and computes: what no result depends on, or what says how its rows are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from scrubjay.engine.cache import Cache
from scrubjay.errors import InputError

REPLACEMENT, PERMUTATION = "with replacement", "permutation"
DRAWS = (REPLACEMENT, PERMUTATION)
"""How rows are drawn: each independently, or each at most once in a seed and class."""

ALL = "all"
"""In place of a number of samples: every combination of rows there is, each with its probability."""


class Options(TypedDict, total=False):
    """How a scrub draws and computes, by keyword.

    `cache`: a `Cache` in which the values of every unlike row of the data are looked up, and kept: the first scrub computes them all,
    later ones (of any hypothesis that reads the same values) look rows up. `draws`: `"with replacement"`, or `"permutation"`: no row
    is drawn twice by one source in a seed, a legal reduction of variance that keeps each draw's distribution.
    """

    cache: Cache | None
    draws: str


@dataclass(frozen=True, eq=False)
class Way:
    """Options, checked."""

    cache: Cache | None = None
    draws: str = REPLACEMENT


def way_of(options: Options) -> Way:
    """Return options as a value; raise `TypeError` for one that is not known, as Python does, `InputError` for an unknown way to draw."""
    if unknown := sorted(set(options) - set(Options.__annotations__)):
        known = ", ".join(Options.__annotations__)
        raise TypeError(f"scrub() got an unexpected keyword argument {unknown[0]!r}; further ones are {known}")
    way = Way(**options)
    if way.draws not in DRAWS:
        raise InputError(f"draws={way.draws!r} is no way to draw rows: give one of {', '.join(map(repr, DRAWS))}")
    return way
