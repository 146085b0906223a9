"""Activation patching, exactly: the metric under a patch of every site, at every position, each alone.

The unpatched run is computed once. A variant computes what lies after its patch, from its first patched position on, down to
what the metric reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.address import Address
from scrubjay.claims.task import Task
from scrubjay.engine.array import Array
from scrubjay.engine.compute import compute
from scrubjay.engine.progress import Progress, progress_after
from scrubjay.errors import AddressError, InputError, near
from scrubjay.interventions.effects import Effects
from scrubjay.interventions.ground import Ground, ground_of
from scrubjay.interventions.inputs import lengths, padding, prepare
from scrubjay.interventions.metric import Function, metric_of, raw_places
from scrubjay.interventions.variants import Hole, holes, mask_of, needed

Positions = str | int | Sequence[int | str] | None
TOKENS_AT_ONCE = 768
"""Variants are stacked up to so many positions in all: on a processor more outgrow its caches."""


@dataclass(frozen=True, eq=False)
class _Variant:
    """One patch: where, as a place of a hole and rows; its first changed position; and its place in the table."""

    address: Address
    rows: torch.Tensor
    start: int
    cell: tuple[int, int]


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
    stack: int | None = None,
    progress: Progress | None = None,
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
        stack: how many variants are evaluated at once; chosen when not given.
        progress: called with (variants done, variants in all).

    Returns a table site x position x pair with both endpoints. Raises `AddressError` for sites the model lacks, `InputError` for a task or
    positions that do not fit.

    The patched run of a variant is exact: every later value is recomputed, norms included (Zhang and Nanda 2023; Heimersheim and
    Nanda 2024 for the directions).
    """
    if direction not in {"denoise", "noise"}:
        raise InputError(f"direction={direction!r} is not a direction of patching: use 'denoise' or 'noise'")
    model.require("exact")
    addresses = concrete(model, sites)
    clean, corrupted = prepare(model, dict(task.clean)), prepare(model, dict(task.counterfactual))
    check_pairs(task, clean, corrupted)
    taker, giver = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    read = metric_of(model, task, taker, metric, at)
    found = holes(model, addresses, read, causal=is_causal(model))
    names, places = _positions(task, taker, positions)
    ground = ground_of(model, needed(found), read, taker, giver, direction)
    filled = _fillings(model, found, giver, ablation)
    table = np.full((len(addresses), len(names), len(task)), np.nan)
    with progress_after(2.0, f"patching {model.name}") as bar:
        counts = _fill(
            ground, list(zip(found, filled, strict=True)), (addresses, places), table, stack, progress or bar
        )
    labels: dict[str, tuple[Any, ...]] = {"site": tuple(map(str, addresses))}
    if positions is not None:
        labels["position"] = tuple(names)
    how = ablation if isinstance(ablation, str) else "own"
    facts = {"model": model.name, "task": task.digest, "sites": list(labels["site"]), "ablation": how}
    values = table if positions is not None else table[:, 0]
    return Effects(values, labels, *ground.ends, direction, read.name, task.clusters, counts, facts)


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


def _fillings(
    model: Model,
    found: Sequence[Hole],
    giver: Mapping[str, torch.Tensor],
    ablation: str | Callable[[Array], torch.Tensor],
) -> list[Array]:
    """Return what is put into each hole."""
    if isinstance(ablation, str) and ablation not in {"resample", "zero", "mean"}:
        raise InputError(
            f"ablation={ablation!r} is not known: use 'resample', 'zero', 'mean', or a function of the other run's value"
        )
    nodes = [hole.value for hole in found]
    made = compute(list(dict.fromkeys(nodes)), giver, model.stores, dtype=model.dtype, device=model.device)
    return [_put(made[node], ablation, giver) for node in nodes]


def _put(value: Array, ablation: str | Callable[[Array], torch.Tensor], giver: Mapping[str, torch.Tensor]) -> Array:
    tensor = value.as_tensor()
    if callable(ablation):
        made = ablation(value)
        if not isinstance(made, torch.Tensor) or made.shape != tensor.shape:
            raise InputError(
                f"the ablation must return a tensor of shape {tuple(tensor.shape)} ({', '.join(value.names)})"
            )
        return Array(made, value.names)
    if ablation == "zero":
        return Array(torch.zeros_like(tensor), value.names)
    if ablation == "mean" and "batch" in value.names:
        count = lengths(giver)
        if count is not None and int(count.min()) != int(count.max()):
            raise InputError(
                "ablation='mean' averages position by position, and the rows have different lengths: give rows of one length"
            )
        real = padding(giver)
        if real is not None and "query" in value.names and not bool(real.all()) and bool((real != real[:1]).any()):
            raise InputError("ablation='mean' needs rows that are padded alike")
        return Array(tensor.mean(value.names.index("batch"), keepdim=True).expand_as(tensor), value.names)
    return value


def _fill(
    ground: Ground, work: Sequence[tuple[Hole, Array]], grid: tuple[Sequence[Address], Sequence[torch.Tensor]], table: np.ndarray,
    stack: int | None, report: Progress,
) -> dict[str, int]:  # fmt: skip
    """Evaluate every variant, into the table; return what was computed."""
    addresses, places = grid
    number = {address: place for place, address in enumerate(addresses)}
    rows, length = places[0].shape[0], places[0].numel() // max(places[0].shape[0], 1)
    total, done, calls, nodes = len(addresses) * len(places), 0, 0, 0
    for hole, value in work:
        variants = [
            _Variant(address, _rows_of(hole, at), _first(at), (number[address], p))
            for address in hole.at
            for p, at in enumerate(places)
        ]
        variants.sort(key=lambda one: one.start)
        for chunk in _chunks(variants, length, rows, stack):
            mask = mask_of(hole, [(one.address, one.rows) for one in chunk])
            made = ground.measured(hole.plan, hole.root, {hole.given: value, hole.where: mask}, chunk[0].start)
            for one, row in zip(chunk, made.expand(len(chunk), -1), strict=True):
                table[one.cell] = row.numpy()
            done, calls, nodes = done + len(chunk), calls + 1, nodes + hole.plan.evaluated
            report(done, total)
    return {"variants": total, "evaluations": calls, "nodes": nodes}


def _rows_of(hole: Hole, rows: torch.Tensor) -> torch.Tensor:
    return rows if "query" in hole.value.axis_names or rows.dim() == 1 else rows.any(1)


def _first(rows: torch.Tensor) -> int:
    return int(rows.any(0).int().argmax()) if rows.dim() == 2 else 0


def _chunks(variants: Sequence[_Variant], length: int, rows: int, stack: int | None) -> list[list[_Variant]]:
    """Return variants to be evaluated together, neighbours in their first position."""
    chunks: list[list[_Variant]] = []
    for one in variants:
        most = stack or max(
            1, TOKENS_AT_ONCE // max(1, rows * (length - (chunks[-1][0].start if chunks else one.start)))
        )
        if chunks and len(chunks[-1]) < most:
            chunks[-1].append(one)
        else:
            chunks.append([one])
    return chunks
