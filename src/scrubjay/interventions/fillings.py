"""What ablations put in: values of a reference set, their means, noise of their scale, brought to the places of a run's rows.

Places correspond as counted from a row's first real token. Everything here is the same in whatever batches the rows are computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from scrubjay.capture.model import Model
from scrubjay.capture.store import digest_of
from scrubjay.circuit.node import Node
from scrubjay.claims.data import Dataset
from scrubjay.claims.task import Task
from scrubjay.engine.array import Array
from scrubjay.engine.cache import Cache, compute_with
from scrubjay.engine.tally import Work, bytes_of
from scrubjay.errors import InputError, near
from scrubjay.evidence.digest import digest_json
from scrubjay.interventions.ablation import Ablation
from scrubjay.interventions.inputs import lengths, padding, prepare

Inputs = Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Reference:
    """The rows that an ablation takes values from.

    Attributes:
        how: the ablation.
        inputs: the reference set's inputs; `count` its rows.
        labels: the label of each of its rows, (row,), as numbers; `here` those of the task's rows. All 0 where they do not matter.
        table: (draw, row): the row of it that each row of the task takes values from, where they are drawn.
        known: what has been found of it, kept for further batches of rows.
    """

    how: Ablation
    inputs: Inputs
    count: int
    labels: np.ndarray
    here: np.ndarray
    table: np.ndarray | None = None
    known: dict[Any, Any] = field(default_factory=dict[Any, Any])

    @property
    def digest(self) -> str:
        """The fingerprint of the rows, their labels and the table."""
        inputs = {name: digest_of(one) for name, one in self.inputs.items()}
        table = None if self.table is None else self.table.tolist()
        return digest_json([inputs, self.labels.tolist(), self.here.tolist(), table])

    def afresh(self) -> Reference:
        """Return the same rows with nothing known of them: for a rehearsal."""
        return replace(self, known={})


def reference_of(model: Model, how: Ablation, task: Task, giver: Inputs, taker: Inputs, direction: str) -> Reference:
    """Return the reference set of an ablation of a task's rows; raise `InputError` where it does not serve them."""
    over = how.over
    if over is None:
        inputs = giver
    elif isinstance(over, Task):
        inputs = prepare(model, dict(over.clean if direction == "denoise" else over.counterfactual))
    else:
        inputs = prepare(model, over)
    count = len(next(iter(inputs.values())))
    labels, here = _labels(how, task, count)
    made = Reference(how, inputs, count, labels, here)
    if how.kind == "mean":
        _check_mean(made, taker)
    if how.kind == "resample" and not how.is_paired:
        return replace(made, table=_drawn(made, task, taker))
    return made


def _labels(how: Ablation, task: Task, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of the reference rows and of the task's rows, as numbers that correspond."""
    by = how.option("by") if how.kind in {"mean", "resample"} else None
    if by in {None, "position", "all", "row"}:
        return np.zeros(count, np.int64), np.zeros(len(task), np.int64)
    here = _column(task, str(by), "the task")
    if how.labels is not None:
        there = np.asarray(how.labels)
    elif how.over is None:
        there = here
    elif isinstance(how.over, Task | Dataset):
        there = _column(how.over, str(by), "the reference set")
    else:
        raise InputError(
            f"by={by!r}: the rows of over= have no labels: give them, labels=[...], or a task or data set that has that feature"
        )
    if len(there) != count:
        raise InputError(f"labels= has {len(there)} labels and the reference set {count} rows: give one for each row")
    names, numbers = np.unique(np.concatenate([there, here]), return_inverse=True)
    there, here = numbers[:count], numbers[count:]
    if missing := sorted(set(here.tolist()) - set(there.tolist())):
        row = int((here == missing[0]).argmax())
        raise InputError(
            f"by={by!r}: row {row} has {by} {names[missing[0]]!s}, and no row of the reference set has: give some that have"
        )
    return there, here


def _column(data: Task | Dataset, by: str, what: str) -> np.ndarray:
    if by == "template" and len(data.clusters):
        return data.clusters
    if by not in data.features:
        known = [*(["template"] if len(data.clusters) else []), *data.features]
        raise InputError(
            f"by={by!r}: {what} ({data.name!r}) has no such feature; it has {', '.join(known) or 'none'}{near(by, known)}"
        )
    return np.asarray(data.features[by].values)


def _check_mean(reference: Reference, taker: Inputs) -> None:
    """Refuse a row that is longer than every row of the reference set with its label."""
    have, need = lengths(reference.inputs), lengths(taker)
    if have is None or need is None or reference.how.option("by") == "all":
        return
    for label in np.unique(reference.here):
        longest = int(have.cpu()[torch.from_numpy(reference.labels == label)].max())
        mine = need.cpu().numpy() * (reference.here == label)
        if int(mine.max()) > longest:
            raise InputError(
                f"ablation='mean': row {int(mine.argmax())} has {int(mine.max())} real tokens, and the longest row to take its mean over has {longest}: "
                "give a reference set with longer rows, over=..., or by='all'"
            )


def _drawn(reference: Reference, task: Task, taker: Inputs) -> np.ndarray:
    """Return the table (draw, row) of reference rows: as given, or drawn among those with as many tokens and the same label."""
    how, rows = reference.how, len(task)
    have, need = lengths(reference.inputs), lengths(taker)
    long = np.full(reference.count, 1) if have is None else have.cpu().numpy()
    short = np.full(rows, 1) if need is None else need.cpu().numpy()
    if how.table is not None:
        return _given_table(how, reference.count, long, short)
    draw = np.random.default_rng(int(how.seed or 0))
    table = np.zeros((how.many, rows), np.int64)
    for row in range(rows):
        able = np.flatnonzero((long >= short[row]) & (reference.labels == reference.here[row]))
        if not len(able):
            raise InputError(
                f"ablation='resample': row {row} has {short[row]} real tokens, and no row that it may take values from has as many: give a reference set "
                "with longer rows, over=..."
            )
        table[:, row] = draw.choice(able, how.many)
    return table


def _given_table(how: Ablation, count: int, long: np.ndarray, short: np.ndarray) -> np.ndarray:
    table = np.atleast_2d(np.asarray(how.table))
    wanted = (how.many if how.option_is_set("draws") else len(table), len(short))
    if table.dtype.kind not in "iu" or table.shape != wanted:
        raise InputError(
            f"table= has shape {np.asarray(how.table).shape} of {table.dtype}: give the number of a reference row for each of {len(short)} rows, "
            f"({len(short)},), or for each draw too"
        )
    if table.min() < 0 or table.max() >= count:
        bad = int(table[(table < 0) | (table >= count)][0])
        raise InputError(f"table= names row {bad}, and the reference set has rows 0..{count - 1}")
    if bool((long[table] < short).any()):
        row = int((long[table] < short).any(0).argmax())
        worst = int(long[table[:, row]].min())
        raise InputError(
            f"table= gives row {row}, of {short[row]} real tokens, a row of {worst}: give one that is as long"
        )
    return table.astype(np.int64)


def many_draws(reference: Reference) -> int:
    """Return how many times is drawn."""
    return reference.how.many if reference.table is None else len(reference.table)


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a sweep: their numbers in the task, and both inputs of them."""

    numbers: Sequence[int]
    taker: Inputs
    giver: Inputs


def is_paired(reference: Reference) -> bool:
    """Tell whether what is put in comes from the run on the other input of each pair."""
    return reference.how.kind != "mean" and reference.table is None and not reference.how.is_per_cell


def filled(
    model: Model, reference: Reference, nodes: Sequence[Node], rows: Rows, draw: int, cache: Cache | None, there: Mapping[Node, Array]
) -> tuple[dict[Node, Array], Work]:  # fmt: skip
    """Return what is put in at each node for some rows, and what that cost: of noise and constants, the unpatched run's own values.

    `there` has the values of the run on the other inputs, where rows are paired.
    """
    how = reference.how
    if how.kind == "mean":
        return _means(model, reference, nodes, rows, cache)
    if reference.table is not None:
        return _resampled(model, reference, nodes, rows, draw, cache)
    if is_paired(reference):
        return {node: _put(there[node], how) for node in nodes}, Work()
    made = compute_with(cache, nodes, rows.taker, model.stores, dtype=model.dtype, device=model.device)
    return {node: _put(made[node], how) for node in nodes}, made.work


def _put(value: Array, how: Ablation) -> Array:
    tensor = value.as_tensor()
    if how.function is not None:
        made = tensor if tensor.is_meta else how.function(value)
        if not isinstance(made, torch.Tensor) or made.shape != tensor.shape:
            what = f"shape {tuple(made.shape)}" if isinstance(made, torch.Tensor) else type(made).__name__
            raise InputError(
                f"the ablation returned {what}: it must return a tensor of shape {tuple(tensor.shape)} ({', '.join(value.names)})"
            )
        return Array(made, value.names)
    if how.kind == "zero":
        return Array(tensor.new_zeros(()).expand(tensor.shape), value.names)
    return value


# --- places that correspond ---


def _alike(one: Inputs, two: Inputs) -> bool:
    """Tell whether all rows of both inputs have their real tokens at the same places."""
    here, there = padding(one), padding(two)
    if here is None or there is None:
        return True
    both = torch.cat([here.cpu(), there.cpu()]) if here.shape[1] == there.shape[1] else None
    return both is not None and bool((both == both[:1]).all())


def _between(node: Node, what: str) -> InputError:
    return InputError(
        f"ablation={what!r}: {node!r} is a value between two positions, and rows differ in their real tokens or padding: give rows that are padded alike, "
        "or ablate z, or q and k, instead"
    )


def _from_first(value: Array, inputs: Inputs, rest: Sequence[str]) -> torch.Tensor:
    """Return a value as (batch, position, rest), counted from each row's first real token."""
    real = padding(inputs)
    laid = torch.as_tensor(value.laid(("batch", "query", *rest)))
    rows = len(next(iter(inputs.values())))
    laid = laid.expand(rows, *laid.shape[1:])
    if real is None:
        return laid
    first = real.int().argmax(1).cpu()
    places = (first[:, None] + torch.arange(int(real.sum(1).max()))).clamp(max=laid.shape[1] - 1)
    return laid[torch.arange(rows, device=laid.device)[:, None], places.to(laid.device)]


def _at_places(table: torch.Tensor, inputs: Inputs, which: torch.Tensor) -> torch.Tensor:
    """Return a table (choice, position, rest) read at the places of some rows, of which `which` (row,) is the choice: (batch, query, rest)."""
    real = padding(inputs)
    if len(which) > 1 and bool((which == which[0]).all()) and (real is None or bool((real == real[:1]).all())):
        one = {name: value[:1] for name, value in inputs.items()}
        return _at_places(table, one, which[:1]).expand(len(which), *[-1] * (table.dim() - 1))
    if real is None:
        return table[which.to(table.device)]
    first = real.int().argmax(1).cpu()
    places = (torch.arange(real.shape[1]) - first[:, None]).clamp(0, table.shape[1] - 1)
    return table[which[:, None].to(table.device), places.to(table.device)]


def _rest(node: Node, beside: set[str]) -> tuple[str, ...]:
    return tuple(axis.name for axis in node.axes if axis.name not in beside)


# --- rows drawn ---


def _resampled(
    model: Model, reference: Reference, nodes: Sequence[Node], rows: Rows, draw: int, cache: Cache | None
) -> tuple[dict[Node, Array], Work]:
    assert reference.table is not None
    chosen = torch.from_numpy(reference.table[draw][list(rows.numbers)])
    inputs = {name: one[chosen.to(one.device)] for name, one in reference.inputs.items()}
    made = compute_with(cache, nodes, inputs, model.stores, dtype=model.dtype, device=model.device)
    alike, found = _same_places(inputs, rows.taker), dict[Node, Array]()
    for node in nodes:
        value = made[node]
        if alike or not {"query", "key"} & set(value.names):
            found[node] = value
            continue
        if "key" in value.names:
            raise _between(node, "resample")
        rest = _rest(node, {"batch", "query"})
        laid = _at_places(_from_first(value, inputs, rest), rows.taker, torch.arange(len(rows.numbers)))
        found[node] = Array(laid, ("batch", "query", *rest))
    more = 0 if alike else 2 * sum(map(bytes_of, found.values()))
    return found, replace(made.work, kept_bytes=made.work.kept_bytes + more, peak_bytes=made.work.peak_bytes + more)


def _same_places(one: Inputs, two: Inputs) -> bool:
    """Tell whether rows have their real tokens at the same places, row by row."""
    here, there = padding(one), padding(two)
    return here is None or there is None or torch.equal(here.cpu(), there.cpu())


# --- means ---


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums of a value over reference rows, (label, position, rest) or (label, rest), and how many there were, (label, position) or (label,)."""

    total: torch.Tensor
    count: torch.Tensor
    names: tuple[str, ...]
    dtype: torch.dtype

    def plus(self, other: _Sums) -> _Sums:
        """Return the sums over both; the longer of two tables of positions is taken."""
        if "position" not in self.names or self.total.shape[1] == other.total.shape[1]:
            return _Sums(self.total + other.total, self.count + other.count, self.names, self.dtype)
        longest = max(self.total.shape[1], other.total.shape[1])
        one, two = (_longer(item, longest) for item in (self, other))
        return one.plus(two)

    def mean(self) -> torch.Tensor:
        """Return the means."""
        count = self.count.clamp(min=1).to(self.total.dtype)
        return self.total / count.reshape(*count.shape, *[1] * (self.total.dim() - count.dim()))


def _longer(sums: _Sums, longest: int) -> _Sums:
    more = longest - sums.total.shape[1]
    wide = [0, 0] * (sums.total.dim() - 2)
    total = torch.nn.functional.pad(sums.total, [*wide, 0, more])
    return replace(sums, total=total, count=torch.nn.functional.pad(sums.count, [0, more]))


def _means(
    model: Model, reference: Reference, nodes: Sequence[Node], rows: Rows, cache: Cache | None
) -> tuple[dict[Node, Array], Work]:
    """Return means over the reference set at the places of some rows."""
    varying = [node for node in nodes if "batch" in node.axis_names]
    cost = _add_up(model, reference, varying, rows, cache)
    which = torch.from_numpy(reference.here[list(rows.numbers)])
    found: dict[Node, Array] = {}
    for node in varying:
        mean: Array = reference.known[node]
        table = mean.as_tensor()
        if "position" in mean.names:
            found[node] = Array(_at_places(table, rows.taker, which), ("batch", "query", *mean.names[2:]))
            continue
        laid, rest = table[which.to(table.device)], mean.names[1:]
        if "query" in node.axis_names and "query" not in rest:
            real = padding(rows.taker)
            assert real is not None
            laid = laid.unsqueeze(1).expand(laid.shape[0], real.shape[1], *laid.shape[1:])
            rest = ("query", *rest)
        found[node] = Array(laid, ("batch", *rest))
    if len(varying) < len(nodes):  # what is the same for every row is its own mean
        fixed = [node for node in nodes if node not in found]
        made = compute_with(cache, fixed, rows.taker, model.stores, dtype=model.dtype, device=model.device)
        found |= {node: made[node] for node in fixed}
        cost = cost.then(made.work)
    tables = sum(bytes_of(one) for one in reference.known.values() if isinstance(one, Array))
    held = tables + sum(map(bytes_of, found.values()))
    # while sums are added up, two of each are there
    return found, replace(cost, kept_bytes=held, peak_bytes=max(cost.peak_bytes + 2 * tables, held))


def _add_up(model: Model, reference: Reference, nodes: Sequence[Node], rows: Rows, cache: Cache | None) -> Work:
    """Find the sums of all nodes over the reference set, in batches no wider than the rows; what is known is not found again."""
    missing = [node for node in nodes if node not in reference.known]
    cost = Work()
    if not missing:
        return cost
    alike, sums = _alike(reference.inputs, rows.taker), dict[Node, _Sums]()
    for first, last in batches_of(reference, rows):
        some = {name: one[first:last] for name, one in reference.inputs.items()}
        made = compute_with(cache, missing, some, model.stores, dtype=model.dtype, device=model.device)
        for node in missing:
            mine = _sums(node, made[node], some, reference, (first, last), alike)
            sums[node] = sums[node].plus(mine) if node in sums else mine
        largest = max((bytes_of(made[node]) for node in missing), default=0)
        cost = cost.then(replace(made.work, kept_bytes=0, peak_bytes=made.work.peak_bytes + 2 * largest))
    reference.known.update({node: Array(one.mean().to(one.dtype), one.names) for node, one in sums.items()})
    return cost


def batches_of(reference: Reference, rows: Rows) -> list[tuple[int, int]]:
    """Return the first and last row of batches of the reference set that are no larger than the rows of a task that are computed at once."""
    widths = [one.shape[1] for one in (padding(rows.taker), padding(reference.inputs)) if one is not None]
    wider = widths[1] / max(1, widths[0]) if len(widths) == 2 else 1.0
    many = max(1, int(len(rows.numbers) / max(1.0, wider)))
    return [(first, min(first + many, reference.count)) for first in range(0, reference.count, many)]


def _sums(node: Node, value: Array, inputs: Inputs, reference: Reference, part: tuple[int, int], alike: bool) -> _Sums:
    """Return the sums of one node's value over some reference rows."""
    labels = torch.from_numpy(reference.labels[part[0] : part[1]])
    groups = int(max(reference.labels.max(), reference.here.max())) + 1
    whole = reference.how.option("by") == "all"
    chosen = torch.nn.functional.one_hot(labels, groups).T  # (label, row)
    if "query" not in value.names or ("key" in value.names and alike and not whole):
        rest = tuple(name for name in value.names if name != "batch")
        laid = torch.as_tensor(value.laid(("batch", *rest))).expand(len(labels), *[-1] * len(rest))
        return _Sums(_total(chosen, laid), chosen.sum(1).to(laid.device), ("label", *rest), laid.dtype)
    if "key" in value.names:
        raise _between(node, "mean")
    rest = _rest(node, {"batch", "query"})
    laid, real = _from_first(value, inputs, rest), padding(inputs)
    count = torch.full((len(laid),), laid.shape[1]) if real is None else real.sum(1).cpu()
    there = torch.arange(laid.shape[1]) < count[:, None]  # (row, position)
    laid = torch.where(
        there.to(laid.device).reshape(*there.shape, *[1] * len(rest)),
        laid,
        torch.zeros((), dtype=laid.dtype, device=laid.device),
    )
    if whole:
        return _Sums(_total(chosen, laid.sum(1)), (chosen * count).sum(1).to(laid.device), ("label", *rest), laid.dtype)
    return _Sums(
        _total(chosen, laid), (chosen @ there.long()).to(laid.device), ("label", "position", *rest), laid.dtype
    )


def _total(chosen: torch.Tensor, laid: torch.Tensor) -> torch.Tensor:
    """Return the sum of rows (row, ...) over those chosen for each label, (label, row)."""
    wide = laid.to(torch.float32) if laid.dtype in {torch.float16, torch.bfloat16} else laid
    return torch.tensordot(chosen.to(wide.device, wide.dtype), wide, 1)
