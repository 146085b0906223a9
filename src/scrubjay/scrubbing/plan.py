"""Plans of scrubs: what one would cost, told before it runs, by the same code that then counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from scrubjay.capture.model import Model
from scrubjay.claims.data import Dataset
from scrubjay.claims.hypothesis import Hypothesis
from scrubjay.claims.task import Task
from scrubjay.engine.memory import budget_bytes
from scrubjay.errors import InputError
from scrubjay.interventions.plan import Plan
from scrubjay.interventions.plan import plan as experiment_plan
from scrubjay.scrubbing.compute import compute
from scrubjay.scrubbing.options import Options, way_of
from scrubjay.scrubbing.scrub import drawn_by, roots_of, scrub, setting_of, treed
from scrubjay.scrubbing.tree import with_columns


def plan(call: Callable[..., Any], model: Model, *arguments: Any, **options: Any) -> Plan:
    """Return what `call(model, *arguments, **options)` would cost, without computing it.

    Args:
        call: `sj.scrub`, or what `scrubjay.interventions.plan` knows: `sj.sweep`, `sj.path_patch`, `sj.edge_patch`, `sj.run`, `sj.harvest`.
        model: the model.
        arguments: what the experiment is called with: `sj.plan(sj.scrub, model, hypothesis, data, samples=4000)`.
        options: the rest by name.

    The counts of a scrub are those that `result.facts["counts"]` has afterwards: unlike `rows` that values are computed for, `tokens` (rows times
    positions, padding that is cut off aside), `row_nodes` and `sample_nodes` evaluated for rows and for samples, `samples`,
    `multiply_adds`, values `held` by a cache, `peak_bytes`. Drawing the rows is part of it, so the data are read. Raises `InputError` for
    another function, and all that the experiment itself refuses.
    """
    return (
        _of_scrub(model, *arguments, **options)
        if call is scrub
        else experiment_plan(call, model, *arguments, **options)
    )


def _of_scrub(
    model: Model,
    hypothesis: Hypothesis,
    data: Dataset | Task,
    samples: int | str = 2000,
    seeds: int | Sequence[int] = 3,
    loss: Any = None,
    *,
    floor: str | Sequence[str] = "all",
    table: Mapping[str, np.ndarray] | None = None,
    **options: Any,
) -> Plan:
    """Return the plan of a scrub; one of other rules for ties, which scrubs again, is not among its counts."""
    if isinstance(samples, str):
        raise InputError(f"samples={samples!r}: the plan of a scrub is that of sampling: give a number of samples")
    way = way_of(cast("Options", {name: one for name, one in options.items() if name not in {"criterion", "explored"}}))
    setting = setting_of(model, data, loss, floor, way=way)
    sealed, rows = hypothesis.sealed(), setting.data
    tree = treed(model, sealed, rows)
    which = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    drawn = drawn_by(tree, sealed, rows, samples, which, way.draws) if table is None else table
    roots = list(roots_of(setting, sealed, tree).values())
    told = compute(tree.model, roots, with_columns(rows, sealed, tree.columns), drawn, cache=way.cache, rehearsal=True)
    return Plan("scrub", model.name, {"sample": told.counts["samples"]}, told.counts, budget_bytes(None, model.device))
