"""Path patching and edge patching: a change of what one part writes, seen by chosen readers alone.

The receivers' input is computed with the sender changed and everything between held as it is in the unpatched run: other heads
always, MLPs where asked. It is an expression of the same circuit, so all senders of one receiver are variants of one evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Unpack

import numpy as np
import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.address import Address, Head
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import substitute, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Input
from scrubjay.circuit.places import place, refuse_bypassed
from scrubjay.claims.task import Task
from scrubjay.engine.array import Array
from scrubjay.engine.cache import Cache, compute_with
from scrubjay.engine.compute import compute
from scrubjay.engine.memory import halving
from scrubjay.engine.progress import Progress, progress_after
from scrubjay.engine.resume import Resumption, resumption
from scrubjay.engine.tally import Work, bytes_of
from scrubjay.errors import AddressError, InputError
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
from scrubjay.interventions.inputs import prepare
from scrubjay.interventions.metric import Function, Metric, metric_of
from scrubjay.interventions.sweep import check_pairs, concrete, is_causal
from scrubjay.interventions.variants import VARIANT

WAYS = ("recompute", "freeze")


@dataclass(frozen=True, eq=False)
class _Sender:
    """What a sender writes: its value, the node that moves with it, and the site of the stream which that node is part of.

    `plain`: the stream moves by as much as the value does, with no norm or factor between.
    """

    address: Address
    value: Node
    target: Node
    site: Node
    plain: bool


@dataclass(frozen=True, eq=False)
class _Route:
    """Senders into the same node, to some receivers: the changed circuit's read-out, and how it is computed."""

    senders: tuple[_Sender, ...]
    moved: Input
    root: Node
    plan: Resumption


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
        resources: `budget=`, `stack=`, `cache=`, `progress=` as for `sweep`; progress counts receivers.

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
    writers: Sequence[_Sender]
    groups: Sequence[Sequence[Address]]
    read: Callable[[Task, Mapping[str, torch.Tensor]], Metric]
    cache: Cache | None = None


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
    check_pairs(task, clean, corrupted)
    taker, giver = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    read = metric_of(model, task, taker, metric, at)

    def read_of(some: Task, inputs: Mapping[str, torch.Tensor]) -> Metric:
        return read if len(some) == len(task) else metric_of(model, some, inputs, metric, at)

    writers = [_sender(model, address) for address in senders]
    work = _Paths(model, task, taker, giver, direction, mlps, writers, groups, read_of, settings.cache)
    together, bound = why_together(model, metric), bound_bytes(model, taker, settings.stack)
    used = replace(work, model=rehearsed(model), cache=None) if settings.rehearsal else work
    with progress_after(2.0, f"patching paths of {model.name}") as bar:
        made = fitted(
            settings, model, len(task), together, bound, partial(_need, work),
            lambda rows, stacks, report: _part(used, rows, stacks, settings.stack, report), settings.progress or bar,
        )  # fmt: skip
    if np.isnan(made.values).all():
        raise InputError(
            f"{senders[0]} is not upstream of {groups[0][0]}, nor any other sender of any receiver: nothing that it writes is read there"
        )
    facts = {"model": model.name, "task": task.digest, "mlps": mlps}
    return Effects(made.values, {}, *made.ends, direction, read.name, task.clusters, made.counts, facts)


def _ground(work: _Paths, rows: list[int]) -> tuple[Ground, dict[_Sender, Array]]:
    """Return the ground of some rows, and by how much each sender's value differs between the two inputs."""
    taker, giver = rows_of(work.taker, rows), rows_of(work.giver, rows)
    read = work.read(work.task if len(rows) == len(work.task) else work.task.select(rows), taker)
    root = read.read(work.model.circuit.roots[work.model.anatomy.result])
    ground = ground_of(
        work.model, _all_held(work.model, root, work.writers), read, taker, giver, work.direction, work.cache
    )
    moved, cost = _moved(work, ground, giver)
    return ground.and_held({}, cost), moved


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
    table = np.full((len(work.writers), len(work.groups), len(rows)), np.nan)
    number = {one: place for place, one in enumerate(work.writers)}
    count = Count(0)
    for column, group in enumerate(work.groups):
        for turn, route in enumerate(_routes(work.model, work.writers, group, work.mlps, ground.read)):
            ground = _completed(ground, route.plan, route.moved)
            count.held = ground.work.kept_bytes
            chunks = _chunks(route, moved, (stack, stacks.get((column, turn))))[: None if note is None else 1]
            for chunk, (made, cost) in halving(chunks, partial(_evaluated, ground, route, moved, start)):
                for one, row in zip(chunk, made.expand(len(chunk), -1), strict=True):
                    table[number[one], column] = row.numpy()
                count.add(len(chunk), len(chunk) * _tokens(moved[chunk[0]], start if route.plan.causal else 0), cost)
                if note is not None:
                    note((column, turn), cost)
        report(column + 1, len(work.groups))
    return Part(
        table, ground.ends, count.variants, count.evaluations, count.tokens, count.stack, ground.work, count.work
    )


def _evaluated(
    ground: Ground, route: _Route, moved: Mapping[_Sender, Array], start: int, chunk: Sequence[_Sender]
) -> tuple[torch.Tensor, Work]:
    return ground.measured(route.plan, route.root, {route.moved: _stacked(chunk, moved)}, start)


def _tokens(moved: Array, start: int) -> int:
    """Return how many rows and positions are computed for a sender."""
    sizes = dict(zip(moved.names, moved.as_tensor().shape, strict=True))
    return sizes.get("batch", 1) * (sizes.get("query", start + 1) - start)


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


def _sender(model: Model, address: Address) -> _Sender:
    """Return how a sender takes part in the stream; raise `AddressError` for a site that does not write to it."""
    refuse_bypassed(model.circuit, model.anatomy, address)
    found = place(model.circuit, model.anatomy, address)
    whole = "out" if isinstance(address.part, Head) else address.site
    if isinstance(address.part, Head) and address.site == "out":
        site = model.circuit.node(f"L{address.layer}.attn.out")
        return _Sender(address, found.value, found.target, site, _is_added(found.target, site))
    if (
        found.at is not None
        and address.part is None
        and whole in {"attn.out", "mlp.out", "embed", "pos_embed", "resid_pre"}
    ):
        return _Sender(address, found.target, found.target, found.target, plain=True)
    raise AddressError(
        f"{address}: a sender writes to the residual stream: a head's out, attn.out, mlp.out, embed or pos_embed"
    )


def _is_added(term: Node, whole: Node) -> bool:
    """Tell whether a node is a term of a sum, or of a sum in it."""
    return term is whole or (isinstance(whole, Add) and any(_is_added(term, one) for one in whole.terms))


def _all_held(model: Model, root: Node, writers: Sequence[_Sender]) -> list[Node]:
    """Return the nodes that routes may start from: what layers read and write, keys and values, and what does not depend on the sender."""
    table = model.circuit.table
    sites = [
        f"L{n}.{site}"
        for n in range(model.layers)
        for site in ("resid_pre", "resid_mid", "resid_post", "attn.out", "mlp.out", "mlp.in")
    ]
    return list(
        dict.fromkeys([*(table[site] for site in sites if site in table), *(one.value for one in writers), root])
    )


def _completed(ground: Ground, plan: Resumption, moved: Input) -> Ground:
    """Return the ground with all values that a plan holds; what it lacked is computed from what it has."""
    missing = [node for node in plan.needs if node not in ground.held and node is not moved]
    if not missing:
        return ground
    model = ground.model
    made = compute(missing, ground.inputs, model.stores, dtype=model.dtype, device=model.device, known=ground.held)
    return ground.and_held(made.values, made.work)


def _moved(work: _Paths, ground: Ground, giver: Mapping[str, torch.Tensor]) -> tuple[dict[_Sender, Array], Work]:
    """Return by how much each sender's value differs between the two inputs, and what that cost."""
    model, writers = work.model, work.writers
    nodes = list(dict.fromkeys(one.value for one in writers))
    there = compute_with(work.cache, nodes, giver, model.stores, dtype=model.dtype, device=model.device)
    made: dict[_Sender, Array] = {}
    for one in writers:
        order = tuple(axis.name for axis in one.value.axes)
        made[one] = Array(there[one.value].dense(order) - ground.held[one.value].dense(order), order)
    own = sum(bytes_of(one) for one in made.values())
    return made, replace(there.work, kept_bytes=own, peak_bytes=there.work.peak_bytes + own)


def _routes(
    model: Model, writers: Sequence[_Sender], group: Sequence[Address], mlps: str, read: Metric
) -> list[_Route]:
    """Return the ways from senders to a group of receivers, senders that move one node together."""
    made: list[_Route] = []
    rest = list(writers)
    if mlps == "freeze" and len(group) == 1:  # the stream moves by what is sent, whoever sends it
        below = _terms(model, _stream(model, group[0]))
        direct = [one for one in writers if one.plain and one.site in below]
        rest = [one for one in writers if not one.plain]
        made += [_direct(model, direct, group[0], read)] if direct else []
    by_target: dict[Node, list[_Sender]] = {}
    for one in rest:
        by_target.setdefault(one.target, []).append(one)
    for senders in by_target.values():
        route = _route(model, tuple(senders), group, mlps, read)
        if route is not None:
            made.append(route)
    return made


def _stream(model: Model, receiver: Address) -> Node:
    """Return the node of the stream that a receiver reads."""
    refuse_bypassed(model.circuit, model.anatomy, receiver)
    found = place(model.circuit, model.anatomy, receiver)
    reads = (
        {"q_in", "k_in", "v_in"}
        if isinstance(receiver.part, Head)
        else {"mlp.in", "resid_pre", "resid_mid", "resid_post"}
    )
    if receiver.site not in reads:
        raise AddressError(
            f"{receiver}: a receiver reads the residual stream: a head's q_in, k_in or v_in, mlp.in, or resid_pre, resid_mid, resid_post"
        )
    return found.value


def _terms(model: Model, stream: Node) -> set[Node]:
    """Return the stream's nodes and what was written to it, as far as the stream itself goes."""
    table = model.circuit.table
    stops = {
        table[f"L{n}.{site}"]
        for n in range(model.layers)
        for site in ("attn.out", "mlp.out")
        if f"L{n}.{site}" in table
    }
    return set(topological([stream], stop=frozenset(stops)))


def _direct(model: Model, senders: Sequence[_Sender], receiver: Address, read: Metric) -> _Route:
    """Return the route on which a receiver's input moves by what is sent, and nothing else does."""
    stream = _stream(model, receiver)
    moved = Input("variant.moved", (VARIANT, *stream.axes))
    return _finished(
        model, senders, moved, _Changed(model.circuit).reading(model, receiver, Add((stream, moved))), read
    )


@dataclass(frozen=True, eq=False)
class _Changed:
    """A changed circuit, and what stands in it for each node of the unchanged one that is no more."""

    circuit: Circuit
    images: Mapping[Node, Node] = field(default_factory=dict[Node, Node])

    def reading(self, model: Model, receiver: Address, new: Node) -> _Changed:
        """Return the circuit in which a receiver reads `new`."""
        found = place(self.circuit, model.anatomy, receiver)
        ends = [*self.circuit.roots.values(), *self.circuit.table.values()]
        made = substitute(ends, {found.target: found.put(new, None)})
        moved = {node: made[one] for node, one in self.images.items() if one in made}
        fresh = {node: one for node, one in made.items() if one is not node and node not in self.images.values()}
        return _Changed(self.circuit.mapped(made), {**fresh, **moved})


def _finished(model: Model, senders: Sequence[_Sender], moved: Input, changed: _Changed, read: Metric) -> _Route:
    root = read.read(changed.circuit.roots[model.anatomy.result])
    before = {late: early for early, late in changed.images.items()}
    return _Route(tuple(senders), moved, root, resumption([root], [moved], before, is_causal(model)))


def _route(
    model: Model, senders: tuple[_Sender, ...], group: Sequence[Address], mlps: str, read: Metric
) -> _Route | None:
    """Return the route from senders into one node to receivers through the MLPs between; `None` where no receiver is downstream."""
    first = senders[0]
    moved = Input("variant.moved", (VARIANT, *first.target.axes))
    table = model.circuit.table
    frozen = {
        table[f"L{n}.attn.out"]: table[f"L{n}.attn.out"] for n in range(model.layers) if f"L{n}.attn.out" in table
    }
    if mlps == "freeze":
        frozen |= {
            table[f"L{n}.mlp.out"]: table[f"L{n}.mlp.out"] for n in range(model.layers) if f"L{n}.mlp.out" in table
        }
    new = substitute([first.site], {first.target: Add((first.target, moved))})[first.site]
    changed = _Changed(model.circuit)
    for receiver in group:
        stream = _stream(model, receiver)
        sent = substitute([stream], {**frozen, first.site: new})[stream]
        if sent is not stream:
            changed = changed.reading(model, receiver, sent)
    return _finished(model, senders, moved, changed, read) if changed.images else None


def _chunks(route: _Route, moved: Mapping[_Sender, Array], most: tuple[int | None, int | None]) -> list[list[_Sender]]:
    """Return senders to be evaluated together; `most` is what was asked for and what fits."""
    asked, fits = most
    wanted = asked or max(1, TOKENS_AT_ONCE // max(1, _tokens(moved[route.senders[0]], 0)))
    many = min(wanted, fits or wanted)
    return [list(route.senders[start : start + many]) for start in range(0, len(route.senders), many)]


def _stacked(chunk: Sequence[_Sender], moved: Mapping[_Sender, Array]) -> Array:
    """Return what is sent by some senders, one variant each."""
    names = max((moved[one].names for one in chunk), key=len)
    tensors = [torch.as_tensor(moved[one].laid(names)) for one in chunk]
    shape = torch.broadcast_shapes(*(one.shape for one in tensors))
    return Array(torch.stack([one.expand(shape) for one in tensors]), ("variant", *names))
