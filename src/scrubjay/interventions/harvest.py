"""Harvesting: activations of a large input streamed to disk, at the speed of the forward pass, to be resumed after a kill.

Only what the kept sites need is evaluated. A shard is written beside its place and then moved there, and then the manifest: what a
reader finds is whole. A second call with the same settings keeps every shard whose digest is right and goes on after them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain, islice
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from scrubjay.capture.model import Model
from scrubjay.capture.store import digest_of
from scrubjay.circuit.address import Address
from scrubjay.engine.array import Array
from scrubjay.engine.compute import compute
from scrubjay.engine.evaluate import input_sizes
from scrubjay.engine.progress import progress_after
from scrubjay.engine.tally import Work
from scrubjay.errors import AddressError, CacheError, InputError
from scrubjay.evidence.digest import digest_json
from scrubjay.interventions.apply import applied
from scrubjay.interventions.batches import batches
from scrubjay.interventions.change import Intervention
from scrubjay.interventions.harvested import (
    FORMAT,
    MANIFEST,
    POSITION,
    ROW,
    ROWS,
    TOKEN,
    VERSION,
    Harvest,
    damage,
    file_digest,
    manifest_of,
)
from scrubjay.interventions.identity import identity
from scrubjay.interventions.inputs import Given, padding
from scrubjay.interventions.run import check_positions
from scrubjay.interventions.shown import shown, shown_order

SHARD_BYTES = 256 * 2**20
Positions = str | int | Sequence[int]
NOTHING: Mapping[str, int] = dict.fromkeys(
    ("batches", "rows", "tokens", "nodes", "multiply_adds", "stored_bytes", "peak_bytes"), 0
)
"""The figures of a harvest before its first batch."""
_PER_ROW = frozenset({"patch", "resample"})
"""Changes that are made anew for the rows of each batch."""


@dataclass(frozen=True, eq=False)
class _Job:
    """What is to be harvested, where to."""

    model: Model
    changes: Sequence[Intervention]
    keep: tuple[str, ...]
    positions: Positions
    dtype: torch.dtype | None
    folder: Path
    shard: int
    fixed: Model | None

    @property
    def padded(self) -> bool:
        """Whether batches are kept as they were run."""
        return self.positions == "padded"


@torch.no_grad()
def harvest(
    model: Model,
    inputs: Given,
    keep: Sequence[str] | str,
    to: str | PathLike[str],
    *,
    batch: int = 16,
    positions: Positions = "real",
    shard: int = SHARD_BYTES,
    dtype: torch.dtype | None = None,
    interventions: Sequence[Intervention] | Intervention = (),
    progress: Callable[[int, int], None] | None = None,
) -> Harvest:
    """Return the values at the addresses in `keep` on a large input, written to a folder: a `Harvest`, read lazily.

    Args:
        model: the model; it is not changed.
        inputs: a data set, a list of texts, token ids (row, position), a mapping of named tensors, or an iterable of batches of these.
        keep: addresses, with wildcards and positions.
        to: the folder. One that holds an unfinished harvest with the same settings is gone on with: shards whose digest is right are kept.
        batch: how many rows are run at once; an iterable's batches are taken as they are.
        positions: `"real"`: every real token is a row (token, d) of its own; a number, or several: those positions of each row;
            `"padded"`: batches as they were run, padding and mask included.
        shard: a file is closed once it has so many bytes.
        dtype: the floating type to store; as computed when not given.
        interventions: changes, as for `sj.run`.
        progress: called with (batches done, batches in all, as far as known).

    Values are those of `sj.run(..., fused=True)`, to rounding: nothing after the kept sites is evaluated. Raises `AddressError` for an
    address the model lacks, `InputError` for inputs or options that do not fit, or a folder with a harvest of other settings or inputs,
    and `CacheError` where the folder cannot be written; then all that was finished stays, and a second call goes on.
    """
    job = _job(model, keep, to, batch, positions, shard, dtype, interventions)
    total, first, source = _begun(model, inputs, batch)
    changed = job.fixed or applied(model, job.changes, first)
    settings = _settings(job, changed, batch)
    manifest = _opened(job.folder, settings, _sites(job, changed))
    with progress_after(2.0, f"harvesting {model.name}") as bar:
        counts = _filled(job, manifest, source, lambda done: (progress or bar)(done, max(total, done)))
    manifest["complete"] = True
    _write_manifest(job.folder, manifest)
    return Harvest(job.folder, manifest, counts)


@torch.no_grad()
def harvest_counts(
    model: Model, inputs: Given, keep: Sequence[str] | str, to: str | PathLike[str] = "", *, batch: int = 16, positions: Positions = "real",
    shard: int = SHARD_BYTES, dtype: torch.dtype | None = None, interventions: Sequence[Intervention] | Intervention = (),
) -> dict[str, int]:  # fmt: skip
    """Return what a harvest into a new folder would cost, as its `counts` then say; nothing is computed or written."""
    job = _job(model, keep, to, batch, positions, shard, dtype, interventions)
    _, first, source = _begun(model, inputs, batch)
    _sites(job, job.fixed or applied(model, job.changes, first))
    counts, row = dict(NOTHING), 0
    for tensors in source:
        part, work = _values(job, tensors, row, rehearsal=True)
        counts, row = _counted(counts, part, work), row + len(part[ROWS])
    return counts


def _job(
    model: Model, keep: Sequence[str] | str, to: str | PathLike[str], batch: int, positions: Positions, shard: int, dtype: torch.dtype | None,
    interventions: Sequence[Intervention] | Intervention,
) -> _Job:  # fmt: skip
    keep = (keep,) if isinstance(keep, str) else tuple(keep)
    changes = (interventions,) if isinstance(interventions, Intervention) else tuple(interventions)
    _check(keep, batch, positions, shard, dtype)
    fixed = None if any(_is_per_row(change) for change in changes) else applied(model, changes, None)
    return _Job(model, changes, keep, positions, dtype, Path(to), shard, fixed)


def _begun(
    model: Model, inputs: Given, batch: int
) -> tuple[int, dict[str, torch.Tensor], Iterator[dict[str, torch.Tensor]]]:
    """Return how many batches there are, the first one, and all of them one after another."""
    total, source = batches(model, inputs, batch)
    first = next(source, None)
    if first is None:
        raise InputError("there is nothing to harvest: the input is empty")
    return total, first, chain([first], source)


def _is_per_row(change: Intervention) -> bool:
    return change.kind in _PER_ROW or (change.kind == "splice" and change.options["error"] == "freeze")


def _check(keep: tuple[str, ...], batch: int, positions: Positions, shard: int, dtype: torch.dtype | None) -> None:
    if not keep:
        raise InputError("nothing is to be kept: give addresses, as keep='L*.resid_post'")
    if isinstance(batch, bool) or batch < 1:
        raise InputError(f"batch={batch!r}: give at least one row")
    if isinstance(positions, str) and positions not in {"real", "padded"}:
        raise InputError(f"positions={positions!r}: use 'real', 'padded', a number or several")
    if not isinstance(positions, str | int) and not list(positions):
        raise InputError("positions=[] keeps nothing: give at least one, or 'real'")
    if isinstance(shard, bool) or shard < 1:
        raise InputError(f"shard={shard!r}: give a number of bytes")
    if dtype is not None and not dtype.is_floating_point:
        raise InputError(f"dtype={dtype}: values are stored in a floating type")


# --- the folder ---


def _opened(folder: Path, settings: dict[str, Any], sites: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the manifest to go on with: that of the folder where its settings are these, or a new one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".*.partial"):  # of a process that was killed while it wrote
            left.unlink()
        old = manifest_of(folder)
        if old is None and any(folder.iterdir()):
            raise InputError(f"{folder} holds other files and no harvest: give an empty or new folder")
    except OSError as error:
        raise CacheError(f"a harvest was to be written into {folder}, but: {error}; give another folder") from error
    if old is None:
        names = {name: list(axes) for name, axes in sites.items()}
        made: dict[str, Any] = {
            "format": FORMAT, "version": VERSION, "scrubjay": version("scrubjay"), "settings": settings, "sites": names, "shards": [],
            "complete": False,
        }  # fmt: skip
        _write_manifest(folder, made)
        return made
    there = old["settings"]
    for name in dict.fromkeys([*there, *settings]):
        if there.get(name) != settings.get(name):
            raise InputError(
                f"{folder} holds a harvest with {name}={str(there.get(name))[:200]}, and {str(settings.get(name))[:200]} was asked for: give "
                "another folder, or the same settings"
            )
    if settings["functions"]:
        raise InputError(
            f"{folder} holds a harvest under Python functions ({', '.join(settings['functions'])}), and whether these are the same cannot be told: "
            "give another folder"
        )
    return {**old, "complete": False}


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    text = json.dumps({**manifest, "digest": digest_json(manifest)}, indent=1)
    _placed(folder / MANIFEST, lambda file: file.write_text(text, encoding="utf-8"))


def _placed(file: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place and move it there; raise `CacheError` where that fails, with nothing left behind."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        try:
            write(partial)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise CacheError(
            f"{file} could not be written: {error}. What was finished before stays: make room and call sj.harvest again with the same settings"
        ) from error


# --- what is kept ---


def _settings(job: _Job, changed: Model, batch: int) -> dict[str, Any]:
    """Return what a harvest depends on beside its inputs, ready for JSON."""
    nodes = {str(one): changed.node(one) for one in _wanted(job, changed)}
    found = identity(changed, nodes)
    positions = job.positions if isinstance(job.positions, str | int) else list(job.positions)
    return {
        "model": job.model.name,
        "weights": job.model.digest,
        "keep": list(job.keep),
        "circuit": found["circuit"],
        "added": found["added"],
        "interventions": [repr(change) for change in job.changes],
        "functions": found["functions"],
        "positions": positions,
        "dtype": "as computed" if job.dtype is None else _name(job.dtype),
        "computed": _name(changed.dtype) if changed.dtype else "as stored",
        "batch": batch,
        "shard": job.shard,
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _wanted(job: _Job, changed: Model) -> list[Address]:
    return list(dict.fromkeys(address for text in job.keep for address in changed.addresses(text)))


def _sites(job: _Job, changed: Model) -> dict[str, tuple[str, ...]]:
    """Return the axes of what is stored for each site; raise where one cannot be stored so."""
    made: dict[str, tuple[str, ...]] = {}
    for address in _wanted(job, changed):
        names = changed.node(address).axis_names
        rest = tuple(name for name in shown_order(changed.node(address)) if name not in {"batch", "query"})
        if job.padded:
            made[str(address)] = tuple(shown_order(changed.node(address)))
        elif "key" in rest:
            raise AddressError(
                f"{address}: values between two positions are as wide as their batch, so tokens of several cannot stand together: harvest "
                "with positions='padded'"
            )
        else:
            made[str(address)] = ("token" if "query" in names else "row", *rest)
    return made


def _counted(counts: Mapping[str, int], part: Mapping[str, torch.Tensor], work: Work) -> dict[str, int]:
    """Return figures with those of one more batch."""
    tokens = part[ROW].numel() if ROW in part else 0
    more = (1, len(part[ROWS]), tokens, work.nodes, work.multiply_adds, sum(one.nbytes for one in part.values()))
    made = {name: counts[name] + one for name, one in zip(counts, more, strict=False)}
    return {**made, "peak_bytes": max(counts["peak_bytes"], work.peak_bytes)}


def _values(
    job: _Job, tensors: Mapping[str, torch.Tensor], first: int, *, rehearsal: bool = False
) -> tuple[dict[str, torch.Tensor], Work]:
    """Return what one batch gives to a shard, `first` being the number of its first row, and what that cost; zeros in a rehearsal."""
    job.model.require("exact", inputs=tensors)
    changed = job.fixed or applied(job.model, job.changes, tensors)
    addresses = _wanted(job, changed)
    check_positions([*addresses, *(a for change in job.changes for a in changed.addresses(change.at))], tensors)
    nodes = {str(one): changed.node(one) for one in addresses}
    done = compute(
        list(dict.fromkeys(nodes.values())), tensors, changed.stores, dtype=changed.dtype, device="meta" if rehearsal else changed.device,
        sizes=input_sizes(list(job.model.circuit.inputs.values()), tensors),
    )  # fmt: skip
    found = {node: _zeros(value) if rehearsal else value for node, value in done.values.items()}
    values = {name: shown(node, found[node]) for name, node in nodes.items()}
    return _part(job, tensors, values, first), done.work


def _zeros(value: Array) -> Array:
    """Return zeros in the shape of a value without numbers, which take no memory."""
    like = value.as_tensor()
    return Array(torch.zeros((), dtype=like.dtype).expand(like.shape), value.names)


def _part(
    job: _Job, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Array], first: int
) -> dict[str, torch.Tensor]:
    """Return the values of a batch as they are stored, and where each comes from."""
    count = len(next(iter(tensors.values())))
    numbers = torch.arange(first, first + count)
    if job.padded:
        own = {name: _stored(value.as_tensor(), job.dtype, name) for name, value in values.items()}
        return {**{name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, **own, ROWS: numbers}
    made: dict[str, torch.Tensor] = {ROWS: numbers}
    chosen = _chosen(job.positions, tensors)
    if chosen is not None:
        real = padding(tensors)
        assert real is not None
        made |= {
            ROW: numbers[:, None].expand(chosen.shape)[chosen],
            POSITION: (real.cpu().int().cumsum(1) - 1)[chosen].to(torch.int64),
        }
        if "input_ids" in tensors:
            made[TOKEN] = tensors["input_ids"].cpu()[chosen]
    for name, value in values.items():
        made[name] = _stored(_flat(name, value, chosen, count), job.dtype, name)
    return made


def _flat(name: str, value: Array, chosen: torch.Tensor | None, count: int) -> torch.Tensor:
    """Return a value as (token, ...) or, without positions, (row, ...)."""
    rest = tuple(axis for axis in value.names if axis not in {"batch", "query"})
    if "query" not in value.names:
        laid = torch.as_tensor(value.laid(("batch", *rest)))
        return laid.expand(count, *laid.shape[1:])
    if chosen is None:
        raise AddressError(
            f"{name} has positions, and the inputs of this model do not say which are real: use positions='padded'"
        )
    laid = torch.as_tensor(value.laid(("batch", "query", *rest)))
    return laid.expand(count, *laid.shape[1:])[chosen.to(laid.device)]


def _chosen(positions: Positions, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """Return the mask (batch, query) of the tokens that are kept; raise `InputError` where a row lacks a position."""
    real = padding(tensors)
    if real is None:
        return None
    real = real.cpu()
    if isinstance(positions, str):
        return real
    count, place = real.sum(1, keepdim=True), real.int().cumsum(1) - 1
    made = torch.zeros_like(real)
    for at in [positions] if isinstance(positions, int) else positions:
        if bool(((count <= at) | (count < -at)).any()):
            row = int(((count <= at) | (count < -at)).int().argmax())
            raise InputError(
                f"positions: row {row} of a batch has {int(count[row])} real tokens, so it has no position {at}"
            )
        made |= real & (place == (at if at >= 0 else count + at))
    return made


def _stored(value: torch.Tensor, dtype: torch.dtype | None, name: str) -> torch.Tensor:
    """Return a value in the type it is stored in, on the processor; raise `InputError` where it does not fit."""
    if dtype is None or not value.is_floating_point() or value.dtype == dtype:
        return value.detach().cpu().contiguous()
    made = value.detach().to(dtype)
    if bool((made.isinf() & value.isfinite()).any()):
        raise InputError(
            f"{name} has values up to {float(value[value.isfinite()].abs().max()):.3g}, which {_name(dtype)} cannot hold: store bfloat16 or float32"
        )
    return made.cpu().contiguous()


# --- shards ---


def _filled(
    job: _Job, manifest: dict[str, Any], source: Iterator[dict[str, torch.Tensor]], report: Callable[[int], None]
) -> dict[str, int]:  # fmt: skip
    """Go through the input, keeping the shards that are there and writing the others; return what was computed."""
    row = done = number = 0
    counts = dict(NOTHING)
    while True:
        known = manifest["shards"][number] if number < len(manifest["shards"]) else None
        given: list[str] = []
        if known is not None:
            group = list(islice(source, known["batches"]))
            given = [_digest(one) for one in group]
            if len(group) != known["batches"] or digest_json(given) != known["inputs"]:
                raise InputError(
                    f"shard {number} in {job.folder} was made from other inputs (rows {known['first_row']} to {known['first_row'] + known['rows'] - 1}): "
                    "give the same, or another folder"
                )
            done += len(group)
            report(done)
            if not damage(job.folder, known):
                row, number = row + known["rows"], number + 1
                continue
            coming: Iterator[dict[str, torch.Tensor]] = iter(group)
        else:
            coming = source
        parts: list[dict[str, torch.Tensor]] = []
        first, size, given = row, 0, []
        for tensors in coming:
            part, work = _values(job, tensors, row)
            counts = _counted(counts, part, work)
            parts.append(part)
            given.append(_digest(tensors))
            row += len(part[ROWS])
            size += sum(one.nbytes for one in part.values())
            if known is None:
                done += 1
                report(done)
                if size >= job.shard:
                    break
        if not parts:
            return counts
        entry = _write_shard(job, number, parts)
        entry |= {"first_row": first, "rows": row - first, "batches": len(parts), "inputs": digest_json(given)}
        manifest["shards"][number : number + 1] = [entry]
        _write_manifest(job.folder, manifest)
        number += 1


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    return digest_json({name: digest_of(tensor) for name, tensor in tensors.items()})


def _write_shard(job: _Job, number: int, parts: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, Any]:
    """Write the values of some batches as one file and return what the manifest says of it."""
    if job.padded:
        tensors = {f"{place}/{name}": tensor for place, part in enumerate(parts) for name, tensor in part.items()}
        tokens = sum(
            int(one["attention_mask"].sum()) if "attention_mask" in one else one[ROWS].numel() for one in parts
        )
    else:
        tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        tokens = tensors[ROW].numel() if ROW in tensors else 0
    file = job.folder / f"shard-{number:05d}.safetensors"
    apart = {
        name: tensor.clone() if tensor.untyped_storage().nbytes() != tensor.nbytes else tensor
        for name, tensor in tensors.items()
    }
    digests: list[str] = []

    def write(place: Path) -> None:
        save_file(apart, place)
        digests.append(file_digest(place))

    _placed(file, write)
    return {"file": file.name, "digest": digests[0], "bytes": file.stat().st_size, "tokens": tokens}
