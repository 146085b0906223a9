"""What a scrubbed circuit looks up by row: the border between what is computed once for each row and what for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Gather, Input, Relabel
from scrubjay.circuit.rules import gathers_up, positions_down
from scrubjay.engine.fusing import fuse
from scrubjay.errors import EvaluationError
from scrubjay.scrubbing.sources import COLUMN, INDEX

ROUNDS = 4
"""Two rounds settle every circuit met so far; more do no harm."""


@dataclass(frozen=True, eq=False)
class Lookups:
    """Results with look-ups raised and choices of a position pushed down; both keep the value.

    Attributes:
        roots: the results, settled.
        order: every node below them, operands first.
        lookups: the look-ups by row; what they look up depends on one row alone.
        columns: the features of the data that are read, by name.
    """

    roots: tuple[Node, ...]
    order: tuple[Node, ...]
    lookups: tuple[Gather, ...]
    columns: tuple[str, ...]

    @property
    def sources(self) -> tuple[Node, ...]:
        """What is looked up, each once."""
        return tuple(dict.fromkeys(node.source for node in self.lookups))

    @property
    def names(self) -> tuple[str, ...]:
        """The data that are read, as the index table calls them."""
        return tuple(sorted({name_of(node) for node in self.lookups}))


def name_of(lookup: Gather) -> str:
    """Return what the index table calls the datum that a look-up reads."""
    index = lookup.index
    while isinstance(index, Relabel):
        index = index.source
    if not isinstance(index, Input) or not index.name.startswith(INDEX):
        raise EvaluationError(f"{lookup!r} is looked up by something computed, and not by a datum that was drawn")
    return index.name.removeprefix(INDEX)


def axes_of(lookup: Gather) -> tuple[str, ...]:
    """Return the axes of a look-up's datum, in the order of the index table: the sample's, and perhaps that of places."""
    names, index = dict[str, str](), lookup.index
    while isinstance(index, Relabel):
        names = {one: names.get(other, other) for one, other in index.pairs} | {
            k: v for k, v in names.items() if k not in dict(index.pairs)
        }
        index = index.source
    return tuple(names.get(axis.name, axis.name) for axis in index.axes)


@lru_cache(maxsize=32)
def lookups_of(roots: tuple[Node, ...]) -> Lookups:
    """Return the look-ups of some results of a treeified circuit, remembered for the last few."""
    settled = _settled(roots)
    order = topological(settled)
    found = tuple(node for node in order if isinstance(node, Gather) and node.axis == "row")
    columns = tuple(
        node.name.removeprefix(COLUMN) for node in order if isinstance(node, Input) and node.name.startswith(COLUMN)
    )
    return Lookups(tuple(settled), tuple(order), found, columns)


@lru_cache(maxsize=32)
def fused_above(plan: Lookups) -> tuple[Node, ...]:
    """Return the results with what lies above the look-ups in its fast form, remembered for the last few."""
    made = fuse(plan.roots, stop=frozenset(plan.lookups))
    return tuple(made[node] for node in plan.roots)


def _settled(roots: Sequence[Node]) -> list[Node]:
    """Apply both rules until nothing moves."""
    settled = list(roots)
    for _ in range(ROUNDS):
        down = positions_down(settled)
        up = gathers_up([down[node] for node in settled])
        made = [up[down[node]] for node in settled]
        if all(new is old for new, old in zip(made, settled, strict=True)):
            break
        settled = made
    return settled
