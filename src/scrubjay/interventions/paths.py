"""Path patching and edge patching: a change of what one part writes, seen by chosen readers alone.

The receivers' input is computed with the sender changed and everything between held as it is in the unpatched run: other heads
always, MLPs where asked. It is an expression of the same circuit, so all senders of one receiver are variants of one evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Unpack

import numpy as np
import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.address import Address, Head
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Index
from scrubjay.claims.task import Task
from scrubjay.engine.array import Array
from scrubjay.engine.cache import Cache
from scrubjay.engine.compute import compute
from scrubjay.engine.evaluate import input_sizes
from scrubjay.engine.memory import halving
from scrubjay.engine.progress import Progress, progress_after
from scrubjay.engine.tally import Work, bytes_of
from scrubjay.errors import InputError
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
from scrubjay.interventions.identity import experiment
from scrubjay.interventions.inputs import prepare
from scrubjay.interventions.kept import Kept
from scrubjay.interventions.masking import causal_on
from scrubjay.interventions.metric import Function, Metric, metric_of
from scrubjay.interventions.routes import Route, Sender, Tail, Variant, routes, sender_of, variant_of
from scrubjay.interventions.sweep import check_pairs, concrete
from scrubjay.interventions.variants import VARIANT

WAYS = ("recompute", "freeze")


@torch.no_grad()
def path_patch(
    model: Model,
    task: Task,
    sender: str | Sequence[str],
    receivers: str | Sequence[str],
    direction: str,
    mlps: str,
    metric: str | Function | None = None,
    *,
    jointly: bool = False,
    at: str = "END",
    **resources: Unpack[Resources],
) -> Effects:
    """Return the metric where receivers alone see a sender's value on the other input: path patching.

    Args:
        model: the model; it is not changed.
        task: pairs of clean and counterfactual inputs, with answers.
        sender: what writes: heads' `out`, `mlp.out`, `attn.out`, `embed`; with wildcards.
        receivers: what reads: heads' `q_in`, `k_in`, `v_in`, `mlp.in`, or the stream itself at `L11.resid_post` (the final norm is recomputed).
        direction: `"noise"` sends the counterfactual value into the clean run, `"denoise"` the clean value into the counterfactual run.
        mlps: `"recompute"`: the change passes through the MLPs between; `"freeze"`: MLPs between keep the unpatched run's values, so that the path is
            the direct edge. Other heads between are always held (Wang et al. 2022 recompute MLPs).
        metric: see `metric_of`; the task's own when not given.
        jointly: patch all receivers at once, and not one by one.
        at: the task's position at which the metric is read.
        resources: `budget=`, `stack=`, `cache=`, `progress=`, `resume=` as for `sweep`; progress counts receivers.

    Returns a table sender x receiver x pair (without the receivers where they are patched jointly); a pair of which the sender is not upstream is
    NaN. Raises `InputError` where that holds of every pair, and for a task that does not fit; `AddressError` for addresses the model lacks.
    """
    settings = settings_of("path_patch", resources)
    return path_patched(
        model, task, sender, receivers, direction, mlps, metric, jointly=jointly, at=at, settings=settings
    )


def path_patched(
    model: Model, task: Task, sender: str | Sequence[str], receivers: str | Sequence[str], direction: str, mlps: str, metric: str | Function | None = None,
    *, jointly: bool = False, at: str = "END", settings: Settings,
) -> Effects:  # fmt: skip
    """Return what `path_patch` does, or in a rehearsal what it would cost, with zeros for all numbers."""
    if mlps not in WAYS:
        raise InputError(f"mlps={mlps!r} is not known: use 'recompute' or 'freeze'")
    senders, readers = concrete(model, sender), concrete(model, receivers)
    groups = [readers] if jointly else [(one,) for one in readers]
    made = _patched(model, task, (senders, groups), direction, mlps, metric, at, settings)
    labels: dict[str, tuple[Any, ...]] = {"sender": tuple(map(str, senders))}
    if jointly:
        return replace(made, values=made.values[:, 0], labels=labels)
    return replace(made, labels={**labels, "receiver": tuple(map(str, readers))})


@torch.no_grad()
def edge_patch(
    model: Model, task: Task, direction: str, metric: str | Function | None = None, *, at: str = "END", **resources: Unpack[Resources]
) -> Effects:  # fmt: skip
    """Return the metric under a patch of each edge of the residual graph alone, exactly.

    Senders are the embeddings together (one source), every head and every MLP; receivers are the query, key and value input of every
    head, the input of every MLP and the stream that is unembedded. Biases are no sources: they are equal in both runs. An edge goes from a
    sender to a receiver that reads the stream after it was written; GPT-2 small has 32,491.

    Arguments are those of `path_patch`. Returns a table edge x pair, edges labelled (sender, receiver). Raises
    `InputError` where the stream of the model is not the sum of what is written to it (post-norm models): an edge is then no term of a sum.
    """
    return edge_patched(model, task, direction, metric, at=at, settings=settings_of("edge_patch", resources))


def edge_patched(
    model: Model, task: Task, direction: str, metric: str | Function | None = None, *, at: str = "END", settings: Settings
) -> Effects:  # fmt: skip
    """Return what `edge_patch` does, or in a rehearsal what it would cost, with zeros for all numbers."""
    if not model.anatomy.additive:
        raise InputError(
            f"{model.name}: its residual stream is not a sum of what is written to it, so it has no edges to patch; use path_patch"
        )
    senders, readers = _edges(model)
    groups = [(one,) for one in readers]
    made = _patched(model, task, (senders, groups), direction, "freeze", metric, at, settings)
    there = ~np.isnan(made.values).any(-1)
    names = [
        ("embed" if str(senders[s]) == "L0.resid_pre" else str(senders[s]), str(readers[r]))
        for s, r in np.argwhere(there)
    ]
    return replace(made, values=made.values[there], labels={"edge": tuple(names)})


def _edges(model: Model) -> tuple[tuple[Address, ...], tuple[Address, ...]]:
    """Return what writes to the stream and what reads it."""
    senders, readers = ["L0.resid_pre"], list[str]()
    for number, layer in enumerate(model.anatomy.layers):
        here = f"L{number}."
        if layer.heads:
            senders += [f"{here}H{head}.out" for head in range(layer.heads)]
            readers += [f"{here}H{head}.{part}_in" for head in range(layer.heads) for part in "qkv"]
        if here + "mlp.out" in model.circuit.table:
            senders.append(here + "mlp.out")
            readers.append(here + "mlp.in")
    readers.append(f"L{model.layers - 1}.resid_post")
    return concrete(model, senders), concrete(model, readers)


@dataclass(frozen=True, eq=False)
class _Paths:
    """An experiment on paths that is made out: who writes, who reads, what is measured."""

    model: Model
    task: Task
    taker: Mapping[str, torch.Tensor]
    giver: Mapping[str, torch.Tensor]
    direction: str
    mlps: str
    writers: Sequence[Sender]
    groups: Sequence[Sequence[Address]]
    read: Callable[[Task, Mapping[str, torch.Tensor]], Metric]
    cache: Cache | None = None
    kept: Kept | None = None
    found: dict[int, list[Route]] = field(default_factory=dict[int, list[Route]])
    tails: dict[Node, Tail] = field(default_factory=dict[Node, Tail])
    variant: Variant = (VARIANT,)

    def routes(self, column: int, read: Metric) -> Iterable[Route]:
        """Return the routes to a group of receivers; where it is the only one they are made once, whatever the rows."""
        made = routes(self.model, self.writers, self.groups[column], self.mlps, read, self.tails, self.variant)
        if len(self.groups) > 1:
            return made
        return self.found[column] if column in self.found else self.found.setdefault(column, list(made))


def _patched(
    model: Model, task: Task, ends: tuple[Sequence[Address], Sequence[Sequence[Address]]], direction: str, mlps: str,
    metric: str | Function | None, at: str, settings: Settings,
) -> Effects:  # fmt: skip
    """Return the table sender x group of receivers x pair."""
    if direction not in {"denoise", "noise"}:
        raise InputError(f"direction={direction!r} is not a direction of patching: use 'denoise' or 'noise'")
    model.require("exact")
    senders, groups = ends
    clean, corrupted = prepare(model, dict(task.clean)), prepare(model, dict(task.counterfactual))
    model = causal_on(model, clean, corrupted)
    check_pairs(task, clean, corrupted)
    taker, giver = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    read = metric_of(model, task, taker, metric, at)

    def read_of(some: Task, inputs: Mapping[str, torch.Tensor]) -> Metric:
        return read if len(some) == len(task) else metric_of(model, some, inputs, metric, at)

    writers = [sender_of(model, address) for address in senders]
    work = _Paths(
        model,
        task,
        taker,
        giver,
        direction,
        mlps,
        writers,
        groups,
        read_of,
        settings.cache,
        variant=variant_of(model, writers),
    )
    together = why_together(model, metric)
    bound = bound_bytes(model, taker, settings.stack or _many(taker, _first_change(taker, giver)))
    used = replace(work, model=rehearsed(model), cache=None) if settings.rehearsal else work
    with (
        _kept(work, settings, ends, (read.name, at)) as kept,
        progress_after(2.0, f"patching paths of {model.name}") as bar,
    ):
        made = fitted(
            settings, model, len(task), together, bound, partial(_need, work),
            lambda rows, stacks, report: _part(replace(used, kept=kept), rows, stacks, settings.stack, report), settings.progress or bar,
        )  # fmt: skip
    if np.isnan(made.values).all():
        raise InputError(
            f"{senders[0]} is not upstream of {groups[0][0]}, nor any other sender of any receiver: nothing that it writes is read there"
        )
    facts = {"model": model.name, "task": task.digest, "mlps": mlps}
    counts = {**made.counts, **kept.counts()}
    return Effects(made.values, {}, *made.ends, direction, read.name, task.clusters, counts, facts)


def _kept(
    work: _Paths,
    settings: Settings,
    ends: tuple[Sequence[Address], Sequence[Sequence[Address]]],
    measured: tuple[str, str],
) -> Kept:
    """Return where finished cells are kept."""
    shape = (len(work.writers), len(work.groups), len(work.task))
    if settings.resume is None or settings.rehearsal:
        return Kept(None, {}, shape)
    told = {
        "experiment": "paths", **experiment(work.model, work.task, work.direction, *measured), "mlps": work.mlps,
        "senders": [str(one) for one in ends[0]], "receivers": [[str(one) for one in group] for group in ends[1]],
    }  # fmt: skip
    return Kept(settings.resume, told, shape)


def _ground(work: _Paths, rows: list[int]) -> tuple[Ground, dict[Node, Array]]:
    """Return the ground of some rows, and by how much what the senders' values come from differs between the two inputs."""
    taker, giver = rows_of(work.taker, rows), rows_of(work.giver, rows)
    read = work.read(work.task if len(rows) == len(work.task) else work.task.select(rows), taker)
    sources = list(dict.fromkeys(one.source for one in work.writers))
    held = [*_all_held(work, read), *sources]
    ground = ground_of(work.model, held, read, taker, giver, work.direction, work.cache, sources)
    moved = {node: _minus(ground.there[node], ground.held[node]) for node in sources}
    own = sum(map(bytes_of, moved.values()))
    spent = replace(ground.work, peak_bytes=max(ground.work.peak_bytes, ground.work.kept_bytes + own))
    return replace(ground, there={}, work=spent), moved


def _minus(one: Array, two: Array) -> Array:
    return Array(one.as_tensor() - torch.as_tensor(two.laid(one.names)), one.names)


def _need(work: _Paths, rows: list[int]) -> Need:
    """Return the bytes that some rows need, found by a rehearsal of one variant of each route."""
    each: dict[Hashable, int] = {}

    def note(key: Hashable, cost: Work) -> None:
        each[key] = max(each.get(key, 0), cost.peak_bytes)

    work = replace(work, model=rehearsed(work.model), cache=None)
    made = _part(work, rows, {}, 1, lambda _done, _total: None, note)
    return Need(made.plain.peak_bytes, made.plain.kept_bytes, each)


def _part(
    work: _Paths, rows: list[int], stacks: Mapping[Hashable, int], stack: int | None, report: Progress,
    note: Callable[[Hashable, Work], None] | None = None,
) -> Part:  # fmt: skip
    """Return the table of some rows; or where `note` is given, of the first variants of each route, and it is told what they cost."""
    ground, moved = _ground(work, rows)
    start = _first_change(rows_of(work.taker, rows), rows_of(work.giver, rows))
    kept = work.kept or Kept(None, {}, (len(work.writers), len(work.groups), len(work.task)))
    kept.check(rows, ground.ends)
    table = kept.table(rows)
    number = {one: place for place, one in enumerate(work.writers)}
    count = Count(0)
    for column in range(len(work.groups)):
        for turn, route in enumerate(work.routes(column, ground.read)):
            ground = _completed(ground, route)
            count.held = ground.work.kept_bytes
            own = start if route.causal else 0
            tokens = _tokens(ground, route, own)
            chunks = _chunks(route, tokens, (1 if route.apart else stack, stacks.get((column, turn))))[
                : None if note is None else 1
            ]
            chunks = kept.left(chunks, lambda one, column=column: (number[one], column), rows)
            for chunk, (made, cost) in halving(chunks, partial(_evaluated, ground, route, moved, own)):
                numbers = made.expand(len(chunk), -1).numpy()
                for one, row in zip(chunk, numbers, strict=True):
                    table[number[one], column] = row
                kept.note([(number[one], column) for one in chunk], rows, numbers)
                count.add(len(chunk), len(chunk) * tokens, cost)
                if note is not None:
                    note((column, turn), cost)
        report(column + 1, len(work.groups))
    return Part(
        table, ground.ends, count.variants, count.evaluations, count.tokens, count.stack, ground.work, count.work
    )


def _evaluated(
    ground: Ground, route: Route, moved: Mapping[Node, Array], start: int, chunk: Sequence[Sender]
) -> tuple[torch.Tensor, Work]:
    value, cost = _sent(ground, [route.sent[one] for one in chunk], moved)
    if route.apart:
        value = Array(value.as_tensor()[0], value.names[1:])
    *early, last = route.steps
    late: dict[Node, Array] = {}
    for step in early:
        made, work = ground.computed(step.plan, step.wanted, {step.given: value}, start)
        value, cost = made, cost.then(work)
        late = {last.given: made}
    given: dict[Node, Array] = {} if early else {last.given: value}
    made, work = ground.measured(last.plan, last.wanted, given, start, late)
    return made, cost.then(work)


def _sent(ground: Ground, nodes: Sequence[Node], moved: Mapping[Node, Array]) -> tuple[Array, Work]:
    """Return what is sent, (variant, ...): values are linear in what they come from, so that is the value of its difference."""
    made, work = _computed(ground, nodes, moved)
    names = tuple(axis.name for axis in nodes[0].axes)
    sent = Array(torch.stack([made[node].dense(names) for node in nodes]), (VARIANT.name, *names))
    return sent, replace(work, kept_bytes=0, peak_bytes=work.peak_bytes + bytes_of(sent))


def _many(inputs: Mapping[str, torch.Tensor], start: int) -> int:
    """Return how many variants are computed at once at most, where memory does not matter."""
    first = next(iter(inputs.values()))
    rows, length = len(first), first.shape[1] if first.dim() > 1 else 1
    return max(1, TOKENS_AT_ONCE // max(1, rows * (length - start)))


def _tokens(ground: Ground, route: Route, start: int) -> int:
    """Return how many rows and positions are computed for a sender."""
    sizes = input_sizes(list(ground.model.circuit.inputs.values()), ground.inputs)
    named = {
        axis.name: axis.size if isinstance(axis.size, int) else sizes[axis.size]
        for axis in route.steps[0].given.axes
        if axis.name in {"batch", "query"}
    }
    return named.get("batch", 1) * (named.get("query", start + 1) - start)


def _first_change(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> int:
    """Return the first place at which two inputs differ; the last one where none does."""
    starts: list[int] = []
    last = 0
    for name, value in one.items():
        differs = value.ne(other[name].to(value.device))
        if value.dim() < 2:
            starts += [0] if bool(differs.any()) else []
            continue
        last = max(last, value.shape[1] - 1)
        if bool(differs.any()):
            starts.append(
                int(
                    differs.flatten(2).any(2).any(0).int().argmax()
                    if value.dim() > 2
                    else differs.any(0).int().argmax()
                )
            )
    return min(starts, default=last)


def _all_held(work: _Paths, read: Metric) -> list[Node]:
    """Return the nodes whose values the routes start from: those of a single group of receivers, or what any may need.

    That is what layers read and write, and in the layers of heads that receive, what heads read and mix.
    """
    model = work.model
    if len(work.groups) == 1:
        return list(dict.fromkeys(node for route in work.routes(0, read) for node in route.needs))
    sites = ("resid_pre", "resid_mid", "resid_post", "attn.out", "mlp.out", "mlp.in")
    inner = ("attn._product", "attn.z", "attn.q", "attn.k", "attn.v", "attn.q_rot", "attn.k_rot")
    heads = {one.layer for group in work.groups for one in group if isinstance(one.part, Head)}
    names = [f"L{n}.{site}" for n in range(model.layers) for site in (*sites, *(inner if n in heads else ()))]
    return list(dict.fromkeys(model.circuit.table[name] for name in names if name in model.circuit.table))


def _completed(ground: Ground, route: Route) -> Ground:
    """Return the ground with all values that a route holds; what it lacked is computed from what it has."""
    missing = [node for node in route.needs if node not in ground.held]
    whole = list(dict.fromkeys(map(_without_index, missing)))  # what is one head's is a view of all heads'
    for nodes in (whole, missing):
        new = [node for node in nodes if node not in ground.held]
        if new:
            ground = ground.and_held(*_computed(ground, new, ground.held))
    return ground


def _computed(ground: Ground, nodes: Sequence[Node], known: Mapping[Node, Array]) -> tuple[Mapping[Node, Array], Work]:
    """Return values of the unchanged circuit, from known ones, and what that cost."""
    model = ground.model
    sizes = input_sizes(list(model.circuit.inputs.values()), ground.inputs)
    made = compute(nodes, ground.inputs, model.stores, dtype=model.dtype, device=model.device, known=known, sizes=sizes)
    return made.values, made.work


def _without_index(node: Node) -> Node:
    while isinstance(node, Index) and node.source.operands:
        node = node.source
    return node


def _chunks(route: Route, tokens: int, most: tuple[int | None, int | None]) -> list[list[Sender]]:
    """Return senders to be evaluated together; `most` is what was asked for and what fits."""
    asked, fits = most
    wanted = asked or max(1, TOKENS_AT_ONCE // max(1, tokens))
    many = min(wanted, fits or wanted)
    return [list(route.senders[start : start + many]) for start in range(0, len(route.senders), many)]
