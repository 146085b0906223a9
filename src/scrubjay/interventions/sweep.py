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
from scrubjay.circuit.node import Node
from scrubjay.claims.task import Task
from scrubjay.engine.array import Array
from scrubjay.engine.cache import Cache
from scrubjay.engine.memory import halving
from scrubjay.engine.progress import Progress, progress_after
from scrubjay.engine.tally import Work
from scrubjay.errors import InputError
from scrubjay.interventions.ablation import Ablation, Own, ablation_of
from scrubjay.interventions.causality import is_causal
from scrubjay.interventions.cells import Cell, Joint, Positions, Sites, cells_of, concrete, joints, positions_of
from scrubjay.interventions.effects import Effects
from scrubjay.interventions.fillings import Reference, Rows, filled, is_paired, many_draws, reference_of
from scrubjay.interventions.fitting import (
    TOKENS_AT_ONCE,
    Count,
    Fitted,
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
from scrubjay.interventions.identity import experiment
from scrubjay.interventions.inputs import padding, prepare
from scrubjay.interventions.kept import Kept
from scrubjay.interventions.masking import causal_on
from scrubjay.interventions.metric import Function, Metric, metric_of
from scrubjay.interventions.noise import noisy, part_of, scales
from scrubjay.interventions.optimal import Found, filling, loss_of, optimum
from scrubjay.interventions.variants import Hole, needed

__all__ = ["check_direction", "check_pairs", "concrete", "is_causal", "sweep", "swept"]


@dataclass(frozen=True, eq=False)
class _Variant:
    """One patch: a cell, the rows and positions it is made at, its first changed position, and its place in the table."""

    cell: Cell
    rows: torch.Tensor
    start: int
    place: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class _Sweep:
    """A sweep that is made out: its holes, the masks (row, query) of its positions, what is read and what is put in."""

    model: Model
    task: Task
    taker: Mapping[str, torch.Tensor]
    giver: Mapping[str, torch.Tensor]
    direction: str
    found: Sequence[Joint]
    cells: Sequence[Cell]
    places: Sequence[torch.Tensor]
    reference: Reference
    read: Callable[[Task, Mapping[str, torch.Tensor]], Metric]
    loss: Metric | None = None
    cache: Cache | None = None

    @property
    def how(self) -> Ablation:
        """What is put in."""
        return self.reference.how

    @property
    def shape(self) -> tuple[int, int, int]:
        """The table without its rows: draws, cells, positions."""
        return many_draws(self.reference), len(self.cells), len(self.places)


@torch.no_grad()
def sweep(
    model: Model,
    task: Task,
    sites: Sites,
    positions: Positions = None,
    direction: str = "denoise",
    metric: str | Function | None = None,
    *,
    at: str = "END",
    ablation: str | Own | Ablation = "resample",
    **resources: Unpack[Resources],
) -> Effects:
    """Return the metric under a patch of each site (and position) alone: activation patching.

    Args:
        model: the model; it is not changed.
        task: pairs of clean and counterfactual inputs, with answers: a `Task`, or what `sj.pair` makes of texts.
        sites: addresses, with wildcards: `"L*.resid_pre"`, `"L*.H*.z"`, `"L10.H7.q_in"`; or a mapping from names to addresses that are patched at once:
            `{"heads of L0": "L0.H*.z", "block 1": ["L1.attn.out", "L1.mlp.out"]}`.
        positions: `"each"`: every real position by itself (rows must be of one length and template); a position, or several, names of the task's or
            numbers; all positions together when not given.
        direction: `"denoise"` puts clean values into the corrupted run, `"noise"` corrupted values into the clean run.
        metric: see `metric_of`; the task's own when not given. A function gets the result of all rows and returns one number for each.
        at: the task's position at which it is read.
        ablation: what is put in: `"resample"`, the other input's value; `"zero"`; `"mean"`, over the other inputs' rows, position by position; `"noise"`;
            `"optimal"`, the constant that harms least; with options an `sj.Ablation`; or a function of the other run's value.
        resources: `budget=` memory in bytes or as `"2 GB"` (a share of what is free when not given): rows are computed in batches and variants in
            stacks so that it is never passed, and the numbers are the same; `stack=` the most variants at once; `progress=` a function of
            (variants done, variants in all); `cache=` a `Cache` that plain runs' values are looked up and kept in; `resume=` a folder in which
            what is finished is kept: the same call after an interruption goes on from there.

    Returns a table site x position x pair with both endpoints, and in `counts` what it cost, as `sj.plan` tells it before. Raises
    `AddressError` for sites the model lacks, `InputError` for a task or positions that do not fit, for a budget that is too small, and for a
    `resume` folder of another experiment; `CacheError` where that folder cannot be written.

    The patched run of a variant is exact: every later value is recomputed, norms included (Zhang and Nanda 2023; Heimersheim and
    Nanda 2024 for the directions). Values put in are those of runs without any patch; of sites patched at once, each is set to its own.
    """
    settings = settings_of("sweep", resources)
    return swept(model, task, sites, positions, direction, metric, at=at, ablation=ablation, settings=settings)


def swept(
    model: Model, task: Task, sites: Sites, positions: Positions = None, direction: str = "denoise", metric: str | Function | None = None,
    *, at: str = "END", ablation: str | Own | Ablation = "resample", settings: Settings,
) -> Effects:  # fmt: skip
    """Return what `sweep` does, or in a rehearsal what it would cost, with zeros for all numbers."""
    check_direction(direction)
    how = ablation_of(ablation)
    model.require("exact")
    cells = cells_of(model, sites)
    clean, corrupted = prepare(model, dict(task.clean)), prepare(model, dict(task.counterfactual))
    model = causal_on(model, clean, corrupted)
    check_pairs(task, clean, corrupted)
    taker, giver = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    read, causal = metric_of(model, task, taker, metric, at), is_causal(model)
    names, places = positions_of(task, taker, positions)
    found = joints(model, cells, read, causal, own=how.is_per_cell)
    reference = reference_of(model, how, task, giver, taker, direction)
    loss = loss_of(model, task, taker, at) if how.kind == "optimal" else None

    def read_of(some: Task, inputs: Mapping[str, torch.Tensor]) -> Metric:
        return read if len(some) == len(task) else metric_of(model, some, inputs, metric, at)

    work = _Sweep(model, task, taker, giver, direction, found, cells, places, reference, read_of, loss, settings.cache)
    labels: dict[str, tuple[Any, ...]] = {"site": tuple(cell.label for cell in cells)}
    if positions is not None:
        labels["position"] = tuple(names)
    kept = _kept(work, settings, read.name, at, labels)
    made = _made(work, settings, kept, metric)
    values = made.values.mean(0)
    facts = {"model": model.name, "task": task.digest, "sites": list(labels["site"]), "ablation": how.kind}
    if groups := {
        cell.label: [str(one) for one in cell.addresses] for cell in cells if cell.label != str(cell.addresses[0])
    }:
        facts["groups"] = groups
    if len(how.to_dict()) > 1:
        facts["ablation_options"] = how.to_dict()
    if reference.table is not None:
        facts["table"] = reference.table.tolist()
    values = values if positions is not None else values[:, 0]
    done = Effects(values, labels, *made.ends, direction, read.name, task.clusters, made.counts, facts)
    return (
        _with_constants(done, work, kept, positions is not None)
        if loss is not None and not settings.rehearsal
        else done
    )


def _made(work: _Sweep, settings: Settings, kept: Kept, metric: str | Function | None) -> Fitted:
    """Return the table draw x cell x position x row, within the budget."""
    model, how = work.model, work.how
    together, bound = why_together(model, how.function, metric), bound_bytes(model, work.taker, settings.stack)
    if work.loss is not None:
        together, bound = together or "an optimal constant is found on all rows", 2 * bound
    used = (
        replace(work, model=rehearsed(model), cache=None, reference=work.reference.afresh())
        if settings.rehearsal
        else work
    )
    with kept, progress_after(2.0, f"patching {model.name}") as bar:
        made = fitted(
            settings, model, len(work.task), together, bound, partial(_need, work),
            lambda rows, stacks, report: _part(used, kept, rows, stacks, settings.stack, report), settings.progress or bar,
        )  # fmt: skip
    return replace(made, counts={**made.counts, **kept.counts()})


def _kept(work: _Sweep, settings: Settings, metric: str, at: str, labels: Mapping[str, tuple[Any, ...]]) -> Kept:
    """Return where finished cells are kept."""
    shape = (*work.shape, len(work.task))
    if settings.resume is None or settings.rehearsal:
        return Kept(None, {}, shape)
    told = {
        "experiment": "sweep", **experiment(work.model, work.task, work.direction, metric, at),
        "cells": [[cell.label, [str(one) for one in cell.addresses]] for cell in work.cells],
        "positions": [str(one) for one in labels.get("position", ())], "ablation": work.how.to_dict(), "reference": work.reference.digest,
    }  # fmt: skip
    return Kept(settings.resume, told, shape, loose=work.how.function is not None)


def _with_constants(made: Effects, work: _Sweep, kept: Kept, apart: bool) -> Effects:
    """Return a table with the constants that were found, and where descent began and ended."""
    constants: dict[tuple[Any, ...], dict[str, np.ndarray]] = {}
    losses = np.zeros((len(work.cells), len(work.places), 2))
    names = made.labels.get("position", (None,))
    for cell in work.cells:
        for place, name in enumerate(names):
            key = f"{cell.number}.{place}."
            losses[cell.number, place] = kept.asides[f"{key}loss"].numpy()
            constants[(cell.label, name) if apart else (cell.label,)] = {
                str(one): kept.asides[f"{key}{one}"].numpy() for one in cell.addresses
            }
    shown = losses if apart else losses[:, 0]
    facts = {**made.facts, "loss": {"start": shown[..., 0].tolist(), "end": shown[..., 1].tolist()}}
    return replace(made, facts=facts, constants=constants)


def check_direction(direction: str) -> None:
    """Refuse a direction that is none."""
    if direction not in {"denoise", "noise"}:
        raise InputError(f"direction={direction!r} is not a direction of patching: use 'denoise' or 'noise'")


def check_pairs(task: Task, clean: Mapping[str, torch.Tensor], corrupted: Mapping[str, torch.Tensor]) -> None:
    """Refuse pairs that do not correspond token by token."""
    one, two = padding(clean), padding(corrupted)
    if one is not None and two is not None and not torch.equal(one, two):
        row = int((one != two).any(1).int().argmax())
        raise InputError(
            f"task {task.name!r}: row {row} has {int(one[row].sum())} real tokens clean and {int(two[row].sum())} counterfactual, or is padded otherwise; pairs correspond token by token"
        )


@dataclass(frozen=True, eq=False)
class _Base:
    """Some rows of a sweep, made ready: what variants stand on, and for optimal constants what their loss stands on."""

    ground: Ground
    numbers: Sequence[int]
    rows: Rows
    loss: Ground | None = None
    tuned: Mapping[Joint, Joint] = field(default_factory=dict[Joint, Joint])


def _ground(work: _Sweep, rows: list[int]) -> _Base:
    """Return the ground of some rows."""
    taker, giver = rows_of(work.taker, rows), rows_of(work.giver, rows)
    read = work.read(work.task if len(rows) == len(work.task) else work.task.select(rows), taker)
    nodes = needed([hole for joint in work.found for hole in joint.holes])
    given = (
        list(dict.fromkeys(hole.value for joint in work.found for hole in joint.holes))
        if is_paired(work.reference)
        else ()
    )
    ground = ground_of(work.model, nodes, read, taker, giver, work.direction, work.cache, given)
    here = Rows(rows, taker, giver)
    if work.loss is None:
        return _Base(ground, rows, here)
    tuned = {
        one: next(iter(joints(work.model, one.cells, work.loss, one.holes[0].plan.causal, own=True, fused=False)))
        for one in work.found
    }
    nodes = needed([hole for joint in tuned.values() for hole in joint.holes])
    loss = ground_of(work.model, nodes, work.loss, taker, taker, "noise", work.cache)
    return _Base(ground.and_held({}, loss.work), rows, here, loss, tuned)


def _fill(work: _Sweep, base: _Base, draw: int) -> tuple[dict[Node, Array], Work]:
    """Return what is put in at each node, and what that cost."""
    holes = [hole for joint in work.found for hole in joint.holes]
    nodes = list(dict.fromkeys(hole.value for hole in holes))
    found, cost = filled(work.model, work.reference, nodes, base.rows, draw, work.cache, base.ground.there)
    if work.how.kind == "noise":
        wanted: dict[Node, set[tuple[tuple[str, int], ...]]] = {}
        for hole in holes:
            wanted.setdefault(hole.value, set()).update(tuple(sorted(at.items())) for at in hole.at.values())
        cost = cost.then(scales(work.model, work.reference, wanted, base.rows, work.cache))
    return found, cost


def _need(work: _Sweep, rows: list[int]) -> Need:
    """Return the bytes that some rows need, found by a rehearsal of one variant of each hole at its first positions."""
    work = replace(work, model=rehearsed(work.model), cache=None, reference=work.reference.afresh())
    base = _ground(work, rows)
    values, cost = _fill(work, base, 0)
    ground = base.ground.and_held({}, cost)
    masks = {_first(at[rows]): at[rows] for at in reversed(work.places)}
    each: dict[Hashable, int] = {}
    for joint in work.found:
        for start in sorted(masks)[:2]:
            one = _Variant(joint.cells[0], masks[start], start, (0, 0, 0))
            _, cost, _ = _evaluated(work, replace(base, ground=ground), joint, values, [one])
            each[joint] = max(each.get(joint, 0), cost.peak_bytes)
    return Need(ground.work.peak_bytes, ground.work.kept_bytes, each)


def _part(
    work: _Sweep, kept: Kept, rows: list[int], stacks: Mapping[Hashable, int], stack: int | None, report: Progress
) -> Part:
    """Return the table of some rows: every variant of them evaluated that is not finished already."""
    base = _ground(work, rows)
    kept.check(rows, base.ground.ends)
    places = [at[rows] for at in work.places]
    length = places[0].numel() // len(rows)
    table, count, done = kept.table(rows), Count(base.ground.work.kept_bytes), 0
    total = table[..., 0].size
    for draw in range(work.shape[0]):
        values, cost = _fill(work, base, draw)
        cost = replace(cost, kept_bytes=0) if draw else cost  # what was put in before is let go
        base = replace(base, ground=base.ground.and_held({}, cost))
        count.held = base.ground.work.kept_bytes
        for joint in work.found:
            variants = [
                _Variant(cell, at, _first(at), (draw, cell.number, p))
                for cell in joint.cells
                for p, at in enumerate(places)
            ]
            variants.sort(key=lambda one: one.start)
            chunks = _chunks(variants, length, len(rows), (1 if joint.apart else stack, stacks.get(joint)))
            left = kept.left(chunks, lambda one: one.place, rows)
            done += len(variants) - sum(map(len, left))
            for chunk, (made, cost, asides) in halving(left, partial(_evaluated, work, base, joint, values)):
                numbers = made.expand(len(chunk), -1).numpy()
                for one, row in zip(chunk, numbers, strict=True):
                    table[one.place] = row
                kept.note([one.place for one in chunk], rows, numbers, asides)
                start = chunk[0].start if joint.holes[0].plan.causal else 0
                count.add(len(chunk), len(chunk) * len(rows) * (length - start), cost)
                report(done + count.variants, total)
    return Part(
        table, base.ground.ends, total, count.evaluations, count.tokens, count.stack, base.ground.work, count.work
    )


def _evaluated(
    work: _Sweep, base: _Base, joint: Joint, values: Mapping[Node, Array], chunk: Sequence[_Variant]
) -> tuple[torch.Tensor, Work, dict[str, torch.Tensor]]:
    """Return the metric of some variants, what it cost, and what else was found."""
    masks = [joint.masks(hole, [(one.cell, one.rows) for one in chunk]) for hole in joint.holes]
    start, cost, asides = chunk[0].start, Work(), dict[str, torch.Tensor]()
    given: dict[Node, Array] = {hole.given: values[hole.value] for hole in joint.holes}
    if work.how.kind == "noise":
        given = {hole.given: _noisy(work, base, joint, hole, values[hole.value], chunk) for hole in joint.holes}
    elif base.loss is not None:
        found = optimum(base.loss, base.tuned[joint], masks, values, start, work.how)
        given = {
            hole.given: filling(one, values[hole.value]) for hole, one in zip(joint.holes, found.constants, strict=True)
        }
        cost, asides = found.work, _asides(joint, found, chunk)
    given |= {hole.where: mask for hole, mask in zip(joint.holes, masks, strict=True)}
    made, last = base.ground.measured(joint.holes[0].plan, joint.holes[0].root, joint.filling(given), start)
    return made, cost.then(last), asides


def _asides(joint: Joint, found: Found, chunk: Sequence[_Variant]) -> dict[str, torch.Tensor]:
    """Return the constants of each variant by cell, position and address, and its losses."""
    made: dict[str, torch.Tensor] = {}
    if found.constants[0].as_tensor().is_meta:
        return made
    for number, one in enumerate(chunk):
        key = f"{one.place[1]}.{one.place[2]}."
        made[f"{key}loss"] = found.losses[number].detach().cpu()
        for hole, constant in zip(joint.holes, found.constants, strict=True):
            for address in joint.own(one.cell, hole):
                mine = part_of(Array(constant.as_tensor()[number], constant.names[1:]), tuple(hole.at[address].items()))
                made[f"{key}{address}"] = mine.as_tensor().detach().cpu().contiguous()
    return made


def _noisy(work: _Sweep, base: _Base, joint: Joint, hole: Hole, value: Array, chunk: Sequence[_Variant]) -> Array:
    """Return a value of the unpatched run with noise at the places of each variant, (variant, ...)."""
    names = ("variant", *value.names)
    tensor = value.as_tensor()
    if tensor.is_meta:
        return Array(tensor.new_zeros((len(chunk), *tensor.shape)), names)
    made = [
        noisy(work.reference, hole, joint.own(one.cell, hole), value, base.rows, one.place[0]).as_tensor()
        for one in chunk
    ]
    return Array(torch.stack(made), names)


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
