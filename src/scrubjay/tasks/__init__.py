"""Tasks: labelled data with the features that hypotheses about it need.

A task is a module with `dataset_of(n, seed, **options)`; `TASKS` lists them all. Members do not import each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from scrubjay.claims.data import Dataset
from scrubjay.errors import AddressError, near
from scrubjay.tasks import brackets, induction

__all__ = ["TASKS", "brackets", "induction", "task"]

TASKS: Mapping[str, Callable[..., Dataset]] = MappingProxyType({"brackets": brackets.draw, "induction": induction.draw})
"""Every task by name: a function `(n, seed, **options) -> Dataset`."""


def task(name: str, n: int, seed: int, **options: object) -> Dataset:
    """Return `n` rows of the task called `name`, the same for the same seed.

    Options are the task's own; see its module.

    Raises:
        AddressError: if there is no such task; the message lists near names.

    >>> task("brackets", 4, seed=0)
    Dataset('brackets', 4 rows, inputs: input_ids, attention_mask; features: is_balanced, count, horizon, start, \
count_open, p1_open, proportion, length, horizon_at)
    """
    if name not in TASKS:
        raise AddressError(f"task {name!r} was asked for; the tasks are {', '.join(TASKS)}{near(name, TASKS)}")
    return TASKS[name](n, seed, **options)
