"""Activation patching, exactly: the metric under a patch of every site, at every position, each alone.

The unpatched run is computed once. A variant computes what lies after its patch, from its first patched position on, down to
what the metric reads.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Unpack

import numpy as np
import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.address import Address
from scrubjay.circuit.node import Node
from scrubjay.claims.task import Task
from scrubjay.engine.array import Array
from scrubjay.engine.cache import Cache, compute_with
from scrubjay.engine.compute import compute
from scrubjay.engine.memory import halving
from scrubjay.engine.progress import Progress, progress_after
from scrubjay.engine.tally import Work, bytes_of
from scrubjay.errors import AddressError, InputError, near
from scrubjay.interventions.effects import Effects
from scrubjay.interventions.fitting import (
    TOKENS_AT_ONCE,
    Count,
    Need,
    Part,
    Resources,
    Settings,
    bound_bytes,
    fitted,
    rehearsed,
    rows_of,
    settings_of,
    why_together,
)
from scrubjay.interventions.ground import Ground, ground_of
from scrubjay.interventions.inputs import lengths, padding, prepare
from scrubjay.interventions.metric import Function, Metric, metric_of, raw_places
from scrubjay.interventions.variants import Hole, holes, mask_of, needed

Positions = str | int | Sequence[int | str] | None


@dataclass(frozen=True, eq=False)
class _Variant:
    """One patch: where, as a place of a hole and rows; its first changed position; and its place in the table."""

    address: Address
    rows: torch.Tensor
    start: int
    cell: tuple[int, int]


@dataclass(frozen=True, eq=False)
class _Sweep:
    """A sweep that is made out: its holes, the masks (row, query) of its positions, what is read and what is put in."""

    model: Model
    task: Task
    taker: Mapping[str, torch.Tensor]
    giver: Mapping[str, torch.Tensor]
    direction: str
    found: Sequence[Hole]
    addresses: Sequence[Address]
    places: Sequence[torch.Tensor]
    ablation: str | Callable[[Array], torch.Tensor]
    read: Callable[[Task, Mapping[str, torch.Tensor]], Metric]
    cache: Cache | None = None
    means: dict[Node, Array] = field(default_factory=dict[Node, Array])


@torch.no_grad()
def sweep(
    model: Model,
    task: Task,
    sites: str | Sequence[str],
    positions: Positions = None,
    direction: str = "denoise",
    metric: str | Function | None = None,
    *,
    at: str = "END",
    ablation: str | Callable[[Array], torch.Tensor] = "resample",
    **resources: Unpack[Resources],
) -> Effects:
    """Return the metric under a patch of each site (and position) alone: activation patching.

    Args:
        model: the model; it is not changed.
        task: pairs of clean and counterfactual inputs, with answers: a `Task`, or what `sj.pair` makes of texts.
        sites: addresses, with wildcards: `"L*.resid_pre"`, `"L*.H*.z"`, `"L10.H7.q_in"`.
        positions: `"each"`: every real position by itself (rows must have equally many); a position, or several, numbers or names of the task's; all
            positions together when not given.
        direction: `"denoise"` puts clean values into the corrupted run, `"noise"` corrupted values into the clean run.
        metric: see `metric_of`; the task's own when not given.
        at: the task's position at which it is read.
        ablation: what is put in: `"resample"`, the other input's value; `"zero"`; `"mean"`, over the other inputs' rows, position by position.
        resources: `budget=` memory in bytes or as `"2 GB"` (a share of what is free when not given): rows are computed in batches and variants in
            stacks so that it is never passed, and the numbers are the same; `stack=` the most variants at once; `progress=` a function of
            (variants done, variants in all); `cache=` a `Cache` that plain runs' values are looked up and kept in.

    Returns a table site x position x pair with both endpoints, and in `counts` what it cost, as `sj.plan` tells it before. Raises
    `AddressError` for sites the model lacks, `InputError` for a task or positions that do not fit, and for a budget that is too small.

    The patched run of a variant is exact: every later value is recomputed, norms included (Zhang and Nanda 2023; Heimersheim and
    Nanda 2024 for the directions).
    """
    settings = settings_of("sweep", resources)
    return swept(model, task, sites, positions, direction, metric, at=at, ablation=ablation, settings=settings)


def swept(
    model: Model, task: Task, sites: str | Sequence[str], positions: Positions = None, direction: str = "denoise", metric: str | Function | None = None,
    *, at: str = "END", ablation: str | Callable[[Array], torch.Tensor] = "resample", settings: Settings,
) -> Effects:  # fmt: skip
    """Return what `sweep` does, or in a rehearsal what it would cost, with zeros for all numbers."""
    if direction not in {"denoise", "noise"}:
        raise InputError(f"direction={direction!r} is not a direction of patching: use 'denoise' or 'noise'")
    if isinstance(ablation, str) and ablation not in {"resample", "zero", "mean"}:
        raise InputError(
            f"ablation={ablation!r} is not known: use 'resample', 'zero', 'mean', or a function of the other run's value"
        )
    model.require("exact")
    addresses = concrete(model, sites)
    clean, corrupted = prepare(model, dict(task.clean)), prepare(model, dict(task.counterfactual))
    check_pairs(task, clean, corrupted)
    taker, giver = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    read = metric_of(model, task, taker, metric, at)
    found = holes(model, addresses, read, causal=is_causal(model))
    names, places = _positions(task, taker, positions)
    if ablation == "mean":
        _check_mean(giver)

    def read_of(some: Task, inputs: Mapping[str, torch.Tensor]) -> Metric:
        return read if len(some) == len(task) else metric_of(model, some, inputs, metric, at)

    work = _Sweep(model, task, taker, giver, direction, found, addresses, places, ablation, read_of, settings.cache)
    together, bound = why_together(model, ablation, metric), bound_bytes(model, taker, settings.stack)
    used = replace(work, model=rehearsed(model), cache=None) if settings.rehearsal else work
    with progress_after(2.0, f"patching {model.name}") as bar:
        made = fitted(
            settings, model, len(task), together, bound, partial(_need, work),
            lambda rows, stacks, report: _part(used, rows, stacks, settings.stack, report), settings.progress or bar,
        )  # fmt: skip
    labels: dict[str, tuple[Any, ...]] = {"site": tuple(map(str, addresses))}
    if positions is not None:
        labels["position"] = tuple(names)
    how = ablation if isinstance(ablation, str) else "own"
    facts = {"model": model.name, "task": task.digest, "sites": list(labels["site"]), "ablation": how}
    values = made.values if positions is not None else made.values[:, 0]
    return Effects(values, labels, *made.ends, direction, read.name, task.clusters, made.counts, facts)


def is_causal(model: Model) -> bool:
    """Tell whether no position of the model reads a later one: found at load, and not since lost to an edit."""
    return model.verdict is not None and model.verdict.causal is True and not model.circuit.history


def concrete(model: Model, sites: str | Sequence[str]) -> tuple[Address, ...]:
    """Return the addresses of texts, each once; raise `AddressError` for none, and for one with a position."""
    texts = [sites] if isinstance(sites, str) else list(sites)
    found = tuple(dict.fromkeys(one for text in texts for one in model.addresses(text)))
    if not found:
        raise AddressError("a sweep needs at least one site; none was given")
    for one in found:
        if one.position is not None:
            raise AddressError(f"{one}: give positions by positions=..., and sites without")
    return found


def check_pairs(task: Task, clean: Mapping[str, torch.Tensor], corrupted: Mapping[str, torch.Tensor]) -> None:
    """Refuse pairs that do not correspond token by token."""
    one, two = padding(clean), padding(corrupted)
    if one is not None and two is not None and not torch.equal(one, two):
        row = int((one != two).any(1).int().argmax())
        raise InputError(
            f"task {task.name!r}: row {row} has {int(one[row].sum())} real tokens clean and {int(two[row].sum())} counterfactual, or is padded otherwise; pairs correspond token by token"
        )


def _positions(
    task: Task, inputs: Mapping[str, torch.Tensor], asked: Positions
) -> tuple[list[Any], list[torch.Tensor]]:
    """Return the labels of positions and, for each, the mask (batch, query) of where it is."""
    real = padding(inputs)
    if real is None:
        if asked is not None:
            raise InputError(f"positions={asked!r}: the inputs of this model have no positions")
        return [None], [torch.ones(len(task), dtype=torch.bool)]
    real = real.cpu()
    if asked is None:
        return [None], [real]
    if isinstance(asked, str) and asked == "each":
        count = lengths(inputs)
        assert count is not None
        if int(count.min()) != int(count.max()):
            raise InputError(
                f"positions='each' compares rows place by place, and rows have {int(count.min())} to {int(count.max())} real tokens: give rows of one length, or name positions"
            )
        names: list[Any] = list(range(int(count[0])))
    else:
        names = [asked] if isinstance(asked, str | int) else list(asked)
    masks: list[torch.Tensor] = []
    for name in names:
        if isinstance(name, str) and name not in task.positions:
            raise InputError(
                f"position {name!r}: task {task.name!r} names {', '.join(task.positions)}{near(name, task.positions)}"
            )
        at = torch.tensor(task.positions[name]) if isinstance(name, str) else torch.full((len(task),), int(name))
        raw = raw_places(inputs, at, f"position {name!r}")
        masks.append(torch.arange(real.shape[1]) == raw[:, None])
    return names, masks


def _check_mean(giver: Mapping[str, torch.Tensor]) -> None:
    """Refuse rows that have no mean position by position."""
    count = lengths(giver)
    if count is not None and int(count.min()) != int(count.max()):
        raise InputError(
            "ablation='mean' averages position by position, and the rows have different lengths: give rows of one length"
        )
    real = padding(giver)
    if real is not None and not bool(real.all()) and bool((real != real[:1]).any()):
        raise InputError("ablation='mean' needs rows that are padded alike")


def _fillings(work: _Sweep, rows: list[int]) -> tuple[dict[Node, Array], Work]:
    """Return what is put into each hole, by the node it is at, and what that cost."""
    nodes = list(dict.fromkeys(hole.value for hole in work.found))
    if work.ablation == "mean" and len(rows) < len(work.task):
        return _means(work, nodes, rows)
    model, giver = work.model, rows_of(work.giver, rows)
    made = compute_with(work.cache, nodes, giver, model.stores, dtype=model.dtype, device=model.device)
    put = {node: _put(made[node], work.ablation) for node in nodes}
    return put, made.work


def _means(work: _Sweep, nodes: Sequence[Node], rows: list[int]) -> tuple[dict[Node, Array], Work]:
    """Return means over all rows, found in batches of as many rows as are asked for."""
    cost, count, model = Work(), len(work.task), work.model
    if not work.means:
        for first in range(0, count, len(rows)):
            some = rows_of(work.giver, list(range(first, min(first + len(rows), count))))
            made = compute(nodes, some, model.stores, dtype=model.dtype, device=model.device)
            for node in nodes:
                value = made[node]
                if "batch" in value.names:
                    place = value.names.index("batch")
                    part = value.as_tensor().sum(place, keepdim=True) / count
                    earlier = work.means.get(node)
                    value = Array(
                        part if earlier is None else torch.as_tensor(earlier.laid(value.names)) + part, value.names
                    )
                work.means[node] = value
            cost = cost.then(replace(made.work, kept_bytes=0))
        cost = replace(cost, kept_bytes=sum(map(bytes_of, work.means.values())))
    shown: dict[Node, Array] = {}
    for node, mean in work.means.items():
        shape = [
            len(rows) if name == "batch" else size
            for name, size in zip(mean.names, mean.as_tensor().shape, strict=True)
        ]
        shown[node] = Array(mean.as_tensor().expand(shape), mean.names)
    return shown, cost


def _put(value: Array, ablation: str | Callable[[Array], torch.Tensor]) -> Array:
    tensor = value.as_tensor()
    if callable(ablation):
        made = tensor if tensor.is_meta else ablation(value)
        if not isinstance(made, torch.Tensor) or made.shape != tensor.shape:
            raise InputError(
                f"the ablation must return a tensor of shape {tuple(tensor.shape)} ({', '.join(value.names)})"
            )
        return Array(made, value.names)
    if ablation == "zero":
        return Array(tensor.new_zeros(()).expand(tensor.shape), value.names)
    if ablation == "mean" and "batch" in value.names:
        return Array(tensor.mean(value.names.index("batch"), keepdim=True).expand_as(tensor), value.names)
    return value


def _ground(work: _Sweep, rows: list[int]) -> tuple[Ground, dict[Node, Array]]:
    """Return the ground of some rows and what is put into the holes."""
    taker, giver = rows_of(work.taker, rows), rows_of(work.giver, rows)
    read = work.read(_rows_of_task(work.task, rows), taker)
    ground = ground_of(work.model, needed(work.found), read, taker, giver, work.direction, work.cache)
    filled, cost = _fillings(work, rows)
    return ground.and_held({}, cost), filled


def _rows_of_task(task: Task, rows: list[int]) -> Task:
    return task if len(rows) == len(task) else task.select(rows)


def _need(work: _Sweep, rows: list[int]) -> Need:
    """Return the bytes that some rows need, found by a rehearsal of one variant of each hole at its first positions."""
    work = replace(work, model=rehearsed(work.model), cache=None, means={})
    ground, filled = _ground(work, rows)
    masks = {_first(at[rows]): at[rows] for at in reversed(work.places)}
    each: dict[Hashable, int] = {}
    for hole in work.found:
        address = next(iter(hole.at))
        for start in sorted(masks)[:2]:
            given: dict[Node, Array] = {
                hole.given: filled[hole.value],
                hole.where: mask_of(hole, [(address, _rows_of(hole, masks[start]))]),
            }
            _, cost = ground.measured(hole.plan, hole.root, given, start)
            each[hole] = max(each.get(hole, 0), cost.peak_bytes)
    return Need(ground.work.peak_bytes, ground.work.kept_bytes, each)


def _part(work: _Sweep, rows: list[int], stacks: Mapping[Hashable, int], stack: int | None, report: Progress) -> Part:
    """Return the table of some rows: every variant of them evaluated."""
    ground, filled = _ground(work, rows)
    number = {address: place for place, address in enumerate(work.addresses)}
    places = [at[rows] for at in work.places]
    length = places[0].numel() // len(rows)
    table = np.full((len(number), len(places), len(rows)), np.nan)
    total, count = len(number) * len(places), Count(ground.work.kept_bytes)
    for hole in work.found:
        variants = [
            _Variant(address, _rows_of(hole, at), _first(at), (number[address], p))
            for address in hole.at
            for p, at in enumerate(places)
        ]
        variants.sort(key=lambda one: one.start)
        chunks = _chunks(variants, length, len(rows), (stack, stacks.get(hole)))
        evaluate = partial(_evaluated, ground, hole, filled[hole.value])
        for chunk, (made, cost) in halving(chunks, evaluate):
            for one, row in zip(chunk, made.expand(len(chunk), -1), strict=True):
                table[one.cell] = row.numpy()
            start = chunk[0].start if hole.plan.causal else 0
            count.add(len(chunk), len(chunk) * len(rows) * (length - start), cost)
            report(count.variants, total)
    return Part(table, ground.ends, total, count.evaluations, count.tokens, count.stack, ground.work, count.work)


def _evaluated(ground: Ground, hole: Hole, value: Array, chunk: Sequence[_Variant]) -> tuple[torch.Tensor, Work]:
    mask = mask_of(hole, [(one.address, one.rows) for one in chunk])
    return ground.measured(hole.plan, hole.root, {hole.given: value, hole.where: mask}, chunk[0].start)


def _rows_of(hole: Hole, rows: torch.Tensor) -> torch.Tensor:
    return rows if "query" in hole.value.axis_names or rows.dim() == 1 else rows.any(1)


def _first(rows: torch.Tensor) -> int:
    return int(rows.any(0).int().argmax()) if rows.dim() == 2 else 0


def _chunks(
    variants: Sequence[_Variant], length: int, rows: int, most: tuple[int | None, int | None]
) -> list[list[_Variant]]:
    """Return variants to be evaluated together, neighbours in their first position; `most` is what was asked for and what fits."""
    chunks: list[list[_Variant]] = []
    asked, fits = most
    for one in variants:
        start = chunks[-1][0].start if chunks else one.start
        wanted = asked or max(1, TOKENS_AT_ONCE // max(1, rows * (length - start)))
        if chunks and len(chunks[-1]) < min(wanted, fits or wanted):
            chunks[-1].append(one)
        else:
            chunks.append([one])
    return chunks
