"""Expectations without sampling: every combination of rows that a scrub could draw, each with its probability.

Rows that no look-up, feature or label tells apart are one (bit for bit), so a finite data set often leaves few combinations. They
are counted before any is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import torch

from scrubjay.circuit.node import Node
from scrubjay.errors import HypothesisError
from scrubjay.scrubbing.lookups import Lookups, axes_of, name_of
from scrubjay.scrubbing.sample import Classes
from scrubjay.scrubbing.sources import Source

MOST = 2**20
"""The most combinations that are computed."""


@dataclass(frozen=True, eq=False)
class Combinations:
    """Combinations of rows: an index table with one line for each, the probability of each, and the class of reference rows it is of.

    `of_row` is the class of each row of the data as a reference.
    """

    table: Mapping[str, np.ndarray]
    weights: np.ndarray
    reference: np.ndarray
    of_row: np.ndarray

    def __len__(self) -> int:
        """Return the number of combinations."""
        return len(self.weights)

    def by_reference(self, values: np.ndarray) -> np.ndarray:
        """Return the expectation of one number for each combination, (combination,), given each row of the data as reference, (row,)."""
        whole = np.bincount(self.reference, self.weights)
        return (np.bincount(self.reference, self.weights * values) / whole)[self.of_row]

    def tensor_by_reference(self, values: torch.Tensor) -> torch.Tensor:
        """Return the same of a tensor, (combination, ...) to (row, ...)."""
        place = torch.from_numpy(self.reference)
        weights = torch.from_numpy(self.weights).to(torch.float64)
        whole = torch.zeros(int(place.max()) + 1, dtype=torch.float64).index_add_(0, place, weights)
        shaped = weights.reshape(-1, *[1] * (values.dim() - 1)) * values.to(torch.float64)
        total = torch.zeros((len(whole), *values.shape[1:]), dtype=torch.float64).index_add_(0, place, shaped)
        made = total / whole.reshape(-1, *[1] * (values.dim() - 1))
        return made[torch.from_numpy(self.of_row)]


@dataclass(frozen=True, eq=False)
class _Variable:
    """One datum (at one place of a row, where it is drawn for each): what rows are told apart by, and where they may come from."""

    name: str
    place: int | None
    parent: tuple[str, int | None] | None
    classes: np.ndarray | None
    row: int | None
    marks: list[np.ndarray] = field(default_factory=list[np.ndarray])

    @property
    def key(self) -> tuple[str, int | None]:
        """What tells it from other data."""
        return self.name, self.place


def combinations(
    plan: Lookups,
    sources: Sequence[Source],
    classes: Mapping[str, tuple[Classes, ...]],
    values: Mapping[Node, np.ndarray],
    marks: Sequence[np.ndarray],
    places: int = 1,
) -> Combinations:
    """Return every combination of rows that some results could read, and its probability.

    Args:
        plan: what the results look up.
        sources: the data, each after the one it agrees with; the first is the reference.
        classes: for each source with a feature, the rows that agree.
        values: what is looked up, (row, ...) each for every row of the data, rows first and then the place, where there is one.
        marks: further values of each row that matter of a reference: its label.
        places: how many places a row has.

    Raises `HypothesisError` where there are more than `MOST`.
    """
    count = len(marks[0])
    variables = _variables(plan, sources, classes, places)
    variables[0].marks.extend(marks)
    by_key = {one.key: one for one in variables}
    for lookup in plan.lookups:
        value = values[lookup.source]
        for one in variables:
            if one.name == name_of(lookup):
                own = value if one.place is None or "query" not in axes_of(lookup) else value[:, one.place]
                one.marks.append(own)
    for one in variables:
        if one.parent is not None and one.classes is not None:
            by_key[one.parent].marks.append(one.classes)
    return _joined(variables, count)


def _variables(
    plan: Lookups, sources: Sequence[Source], classes: Mapping[str, tuple[Classes, ...]], places: int
) -> list[_Variable]:
    """Return the data that matter: those that are read, those that they agree with, and the reference."""
    wanted, by_name = {sources[0].name, *plan.names}, {source.name: source for source in sources}
    for name in (sources[0].name, *plan.names):
        here = by_name[name]
        while here.parent is not None and here.feature is not None:
            wanted.add(here.parent)
            here = by_name[here.parent]
    made: list[_Variable] = []
    for source in sources:
        if source.name not in wanted:
            continue
        bound = source.parent is not None and source.feature is not None and source.row is None
        for place in range(places) if source.each else (None,):
            parent = None
            if bound and source.parent is not None:
                parent = source.parent, place if by_name[source.parent].each else None
            own = classes[source.name] if bound else ()
            found = own[place if place is not None and len(own) > 1 else 0].of if bound else None
            made.append(_Variable(source.name, place, parent, found, source.row))
    return made


@dataclass(frozen=True, eq=False)
class _Groups:
    """Rows of one datum that nothing tells apart: the group of each row, one row of each, and how they lie in the classes."""

    of: np.ndarray
    first: np.ndarray
    chances: list[tuple[np.ndarray, np.ndarray]]
    """For each class of what it agrees with: its groups, and the chance of each."""


def _grouped(variable: _Variable, count: int) -> _Groups:
    if variable.row is not None:
        return _Groups(np.zeros(count, np.int64), np.array([variable.row]), [(np.zeros(1, np.int64), np.ones(1))])
    parts = [np.ascontiguousarray(mark).reshape(count, -1).view(np.uint8) for mark in variable.marks]
    joined = np.ascontiguousarray(np.concatenate(parts, 1)) if parts else np.zeros((count, 1), np.uint8)
    _, first, of = np.unique(joined, axis=0, return_index=True, return_inverse=True)
    of = of.reshape(-1)
    mine = np.zeros(count, np.int64) if variable.classes is None else variable.classes
    chances: list[tuple[np.ndarray, np.ndarray]] = []
    for one in range(int(mine.max()) + 1):
        groups, many = np.unique(of[mine == one], return_counts=True)
        chances.append((groups, many / many.sum()))
    return _Groups(of, first, chances)


def _joined(variables: Sequence[_Variable], count: int) -> Combinations:
    """Return all combinations of groups with a chance, from the reference down."""
    groups = {one.key: _grouped(one, count) for one in variables}
    total = _number(variables, groups)
    if total > MOST:
        raise HypothesisError(
            f"there are {total:,} combinations of unlike rows, and at most {MOST:,} are computed: sample them (samples=2000), take fewer "
            "rows, or coarser features"
        )
    chosen: dict[tuple[str, int | None], np.ndarray] = {}
    weights = np.ones(1)
    for one in variables:
        own = groups[one.key]
        here = np.zeros(len(weights), np.int64)
        if one.parent is not None and one.classes is not None:
            here = one.classes[groups[one.parent].first[chosen[one.parent]]]
        options = np.array([len(found) for found, _ in own.chances])[here]
        repeated = np.repeat(np.arange(len(weights)), options)
        within = np.arange(len(repeated)) - np.repeat(np.cumsum(options) - options, options)
        starts = np.concatenate([[0], np.cumsum([len(found) for found, _ in own.chances])[:-1]])
        at = starts[here[repeated]] + within
        chosen = {key: value[repeated] for key, value in chosen.items()}
        chosen[one.key] = np.concatenate([found for found, _ in own.chances])[at]
        weights = weights[repeated] * np.concatenate([chance for _, chance in own.chances])[at]
    table: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(one.name for one in variables):
        columns = [groups[key].first[value] for key, value in chosen.items() if key[0] == name]
        table[name] = columns[0] if (name, None) in chosen else np.stack(columns, 1)
    reference = variables[0].key
    return Combinations(table, weights, chosen[reference], groups[reference].of)


def _number(variables: Sequence[_Variable], groups: Mapping[tuple[str, int | None], _Groups]) -> int:
    """Return how many combinations there are, without listing them."""
    below: dict[tuple[str, int | None], list[int]] = {}
    children: dict[tuple[str, int | None], list[_Variable]] = {one.key: [] for one in variables}
    for one in variables:
        if one.parent is not None and one.classes is not None:
            children[one.parent].append(one)
    for one in reversed(variables):
        own = groups[one.key]
        each = [1] * len(own.first)
        for child in children[one.key]:
            assert child.classes is not None
            for group, row in enumerate(own.first):
                each[group] *= below[child.key][child.classes[row]]
        below[one.key] = [sum(each[group] for group in found.tolist()) for found, _ in own.chances]
    return prod(below[one.key][0] for one in variables if one.parent is None or one.classes is None)
