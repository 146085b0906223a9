"""Fitting a table of variants into memory: rows in batches, variants in stacks, smaller ones where memory runs out.

What a batch needs is found by a rehearsal, the same evaluation on values that have shapes and no numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from os import PathLike
from typing import TypedDict

import numpy as np
import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.ops import Weight
from scrubjay.engine.cache import Cache
from scrubjay.engine.context import Context
from scrubjay.engine.evaluate import input_sizes
from scrubjay.engine.memory import budget_bytes, halving, in_words, is_out_of_memory
from scrubjay.engine.progress import Progress
from scrubjay.engine.tally import Work
from scrubjay.errors import InputError

TOKENS_AT_ONCE = 768
"""Variants are stacked up to so many positions in all: on a processor more outgrow its caches."""


class Resources(TypedDict, total=False):
    """What an experiment may use, by keyword.

    `budget`: memory in bytes, or a text such as `"2 GB"`; a share of what is free when not given. `stack`: the most variants that are
    evaluated at once. `progress`: a function of (done, of how many). `cache`: a `Cache` in which the values of plain runs are looked up and kept.
    `resume`: a folder in which what is finished is kept; the same call goes on from there.
    """

    budget: int | str | None
    stack: int | None
    progress: Progress | None
    cache: Cache | None
    resume: str | PathLike[str] | None


@dataclass(frozen=True, eq=False)
class Settings:
    """Resources, checked; `rehearsal` says that nothing is computed but what the computation would cost."""

    budget: int | str | None = None
    stack: int | None = None
    progress: Progress | None = None
    cache: Cache | None = None
    resume: str | PathLike[str] | None = None
    rehearsal: bool = False


def settings_of(name: str, resources: Resources) -> Settings:
    """Return resources as settings; raise `TypeError` for one that is not known, as Python does."""
    if unknown := sorted(set(resources) - set(Resources.__annotations__)):
        raise TypeError(
            f"{name}() got an unexpected keyword argument {unknown[0]!r}; the resources are {', '.join(Resources.__annotations__)}"
        )
    stack = resources.get("stack")
    if stack is not None and stack < 1:
        raise InputError(f"stack={stack}: at least one variant is evaluated at once")
    return Settings(**resources)


@dataclass(frozen=True, eq=False)
class Need:
    """The bytes that a batch of rows needs: in the plain runs, held for all variants, and for one variant of each group of them."""

    plain: int
    held: int
    each: Mapping[Hashable, int]

    @property
    def least(self) -> int:
        """The bytes needed to go on at all, one variant at a time."""
        return max(self.plain, self.held + max(self.each.values(), default=0))

    def stacks(self, budget: int) -> dict[Hashable, int]:
        """Return how many variants of each group a budget holds at once."""
        return {key: max(1, (budget - self.held) // max(1, size)) for key, size in self.each.items()}


@dataclass(frozen=True, eq=False)
class Part:
    """What some rows gave: the table (..., row), both plain runs' metrics, and what it cost."""

    values: np.ndarray
    ends: tuple[np.ndarray, np.ndarray]
    variants: int
    evaluations: int
    tokens: int
    stack: int
    plain: Work
    work: Work

    def counts(self) -> dict[str, int]:
        """Return the figures."""
        return {
            "variants": self.variants,
            "evaluations": self.evaluations,
            "nodes": self.work.nodes,
            "tokens": self.tokens,
            "multiply_adds": self.work.multiply_adds,
            "plain_nodes": self.plain.nodes,
            "plain_multiply_adds": self.plain.multiply_adds,
            "held_bytes": self.plain.kept_bytes,
            "peak_bytes": max(self.plain.peak_bytes, self.work.peak_bytes),
            "stack": self.stack,
        }


@dataclass
class Count:
    """What the variants of some rows cost, added up while they are computed."""

    held: int
    variants: int = 0
    evaluations: int = 0
    tokens: int = 0
    stack: int = 0
    work: Work = field(default_factory=Work)

    def add(self, variants: int, tokens: int, work: Work) -> None:
        """Add an evaluation of so many variants."""
        self.variants += variants
        self.evaluations += 1
        self.tokens += tokens
        self.stack = max(self.stack, variants)
        self.work = self.work.then(work, self.held)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A whole table: values (..., row), both ends, and all figures."""

    values: np.ndarray
    ends: tuple[np.ndarray, np.ndarray]
    counts: Mapping[str, int]


Compute = Callable[[list[int], Mapping[Hashable, int], Progress], Part]


def fitted(
    settings: Settings, model: Model, rows: int, together: str, bound: int, need: Callable[[list[int]], Need], compute: Compute, report: Progress
) -> Fitted:  # fmt: skip
    """Return a table computed within a budget.

    Args:
        settings: the budget, if any.
        model: where it is computed.
        rows: how many there are.
        together: why rows may not be computed apart from each other; empty if they may.
        bound: bytes that are enough in any case.
        need: what a batch of rows needs.
        compute: the table of some rows, with at most so many variants of each group at once.
        report: the progress of all rows.

    Raises `InputError` where the budget, or the memory, is too small for one row and one variant.
    """
    budget = budget_bytes(settings.budget, model.device)
    many, stacks = rows, dict[Hashable, int]()
    if bound > budget:
        many, stacks = _most(budget, settings, rows, together, need)
    parts: list[Part] = []
    done, cache = 0, settings.cache
    before = (0, 0) if cache is None else (cache.hits, cache.misses)

    def one(batch: list[int]) -> Part:
        return compute(batch, stacks, _scaled(report, done, len(batch), rows))

    batches = [list(range(rows))[at : at + many] for at in range(0, rows, many)]
    try:
        for batch, part in halving(batches, one, splits=not together):
            parts.append(part)
            done += len(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        what = f"all {rows} rows ({together})" if together else "one row"
        raise InputError(
            f"memory ran out with {what} and one variant at a time: give shorter inputs, fewer sites, or a device with more memory"
        ) from error
    made = _joined(parts)
    if cache is None or settings.rehearsal:
        return made
    found = {"cache_hits": cache.hits - before[0], "cache_misses": cache.misses - before[1]}
    return replace(made, counts={**made.counts, **found})


def _most(
    budget: int, settings: Settings, rows: int, together: str, need: Callable[[list[int]], Need]
) -> tuple[int, dict[Hashable, int]]:
    """Return how many rows fit at once, and how many variants of each group."""
    many = rows
    while True:
        found = need(list(range(many)))
        if found.least <= budget:
            return many, found.stacks(budget)
        if many == 1 or together:
            given = f"budget={settings.budget!r}" if settings.budget is not None else "the memory that is free"
            what = f"{rows} rows, which cannot be computed apart ({together})," if together else "one row"
            raise InputError(
                f"{given} is {in_words(budget)}, and {what} with one variant at a time needs {in_words(found.least)} ({found.least} bytes): give at least that"
            )
        many = ceil(many / 2)


def _joined(parts: list[Part]) -> Fitted:
    """Return the tables of all rows as one; figures are added, and of bytes the greatest is taken."""
    counts: dict[str, int] = {"variants": parts[0].variants}
    for part in parts:
        for name, figure in part.counts().items():
            if name.endswith("_bytes") or name == "stack":
                counts[name] = max(counts.get(name, 0), figure)
            elif name != "variants":
                counts[name] = counts.get(name, 0) + figure
    counts["batches"] = len(parts)
    ends = tuple(np.concatenate([part.ends[place] for part in parts]) for place in (0, 1))
    return Fitted(np.concatenate([part.values for part in parts], -1), (ends[0], ends[1]), counts)


def _scaled(report: Progress, before: int, here: int, rows: int) -> Progress:
    """Return a report of some rows as a report of all of them."""
    return lambda done, total: report(total * before // rows + done * here // rows, total)


def why_together(model: Model, *functions: object) -> str:
    """Return why the rows of an experiment may not be computed apart, or nothing.

    Rows may where the check at load found that they leave each other alone, the model was not edited since, and no function of the
    user's own sees several rows at once.
    """
    if model.verdict is None or not model.verdict.rows_independent:
        return "rows of this model are not known to be independent"
    if model.circuit.history:
        return "the model was edited, and what was put in may belong to certain rows"
    if any(callable(one) for one in functions):
        return "a function of one's own may look at all rows at once"
    if any(not node.dims or node.dims[0].name != "batch" for node in model.circuit.inputs.values()):
        return "an input of this model has no rows"
    return ""


def rows_of(inputs: Mapping[str, torch.Tensor], rows: list[int]) -> dict[str, torch.Tensor]:
    """Return the inputs of some rows; the tensors themselves where these are all rows."""
    return {name: one if len(rows) == len(one) else one[rows[0] : rows[-1] + 1] for name, one in inputs.items()}


def rehearsed(model: Model) -> Model:
    """Return the model on the device where values have shapes and no numbers."""
    return replace(model, device="meta")


def bound_bytes(model: Model, inputs: Mapping[str, torch.Tensor], stack: int | None) -> int:
    """Return bytes that are enough for any variants of a model: every value of it at once, three times for each variant."""
    sizes = input_sizes(list(model.circuit.inputs.values()), inputs)
    context = Context(model.stores, model.dtype, None, sizes, inputs)
    total = 0
    for node in model.circuit.nodes:
        if not isinstance(node, Weight):
            size = 8
            for axis in node.axes:
                size *= context.size(axis.size)
            total += size
    return total * (2 + 3 * (stack or TOKENS_AT_ONCE))
