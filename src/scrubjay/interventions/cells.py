"""The cells of a sweep: sites that are patched together, and the changed circuits in which several holes are filled at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.address import Address
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.graph import substitute, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Constant, Custom, Input, Map, Multiply, Opaque
from scrubjay.circuit.places import Place, place, refuse_bypassed
from scrubjay.claims.task import Task
from scrubjay.engine.array import Array
from scrubjay.engine.resume import resumption
from scrubjay.errors import AddressError, InputError, near
from scrubjay.interventions.inputs import lengths, padding
from scrubjay.interventions.metric import Metric, raw_places
from scrubjay.interventions.variants import VALUE, VARIANT, WHERE, Hole, holes, mask_of

Sites = str | Sequence[str] | Mapping[str, str | Sequence[str]]
Positions = str | int | Sequence[int | str] | None


@dataclass(frozen=True, eq=False)
class Cell:
    """Sites that are patched at once, under one label; `number` is its place in the table."""

    label: str
    addresses: tuple[Address, ...]
    number: int


@dataclass(frozen=True, eq=False)
class Joint:
    """A changed circuit: its holes, filled at once, and the cells that are variants of it.

    `apart`: what comes after the holes takes no further axis (a function of the user's own), so that each variant is computed by itself.
    """

    holes: tuple[Hole, ...]
    cells: tuple[Cell, ...]
    apart: bool = False

    def filling(self, given: Mapping[Node, Array]) -> dict[Node, Array]:
        """Return what is given for some variants as the circuit takes it: without the axis of variants where it has none."""
        return {node: _without_variant(value) if self.apart else value for node, value in given.items()}

    def own(self, cell: Cell, hole: Hole) -> tuple[Address, ...]:
        """Return the addresses of a cell that are places of one of the holes."""
        return tuple(one for one in cell.addresses if one in hole.at)

    def masks(self, hole: Hole, chosen: Sequence[tuple[Cell, torch.Tensor]]) -> Array:
        """Return where each variant takes values: (cell, rows) for each of them, as for `mask_of`."""
        mine = [(self.own(cell, hole), rows_of(hole, rows)) for cell, rows in chosen]
        where = (
            hole.where if VARIANT in hole.where.dims else Input(hole.where.name, (VARIANT, *hole.where.dims), "bool")
        )
        flat = mask_of(
            replace(hole, where=where), [(address, rows) for addresses, rows in mine for address in addresses]
        )
        if all(len(addresses) == 1 for addresses, _ in mine):
            return flat
        parts = torch.as_tensor(flat.tensor).split([len(addresses) for addresses, _ in mine])
        return Array(torch.stack([part.any(0) for part in parts]), flat.names)


def _without_variant(value: Array) -> Array:
    if "variant" not in value.names:
        return value
    place = value.names.index("variant")
    return Array(value.as_tensor().select(place, 0), tuple(name for name in value.names if name != "variant"))


def rows_of(hole: Hole, rows: torch.Tensor) -> torch.Tensor:
    """Return which rows (and positions, where the hole's value has them) take values."""
    return rows if "query" in hole.value.axis_names or rows.dim() == 1 else rows.any(1)


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


def cells_of(model: Model, sites: Sites) -> tuple[Cell, ...]:
    """Return the cells of a table: each address by itself, or the groups that a mapping names."""
    if not isinstance(sites, Mapping):
        return tuple(Cell(str(one), (one,), place) for place, one in enumerate(concrete(model, sites)))
    if not sites:
        raise AddressError("a sweep needs at least one group of sites; none was given")
    made: list[Cell] = []
    for number, (name, texts) in enumerate(sites.items()):
        try:
            made.append(Cell(str(name), concrete(model, texts), number))
        except AddressError as error:
            raise AddressError(f"group {name!r}: {error}") from error
    return tuple(made)


# --- holes filled at once ---


def joints(
    model: Model, cells: Sequence[Cell], metric: Metric, causal: bool, *, own: bool = False, fused: bool = True
) -> list[Joint]:
    """Return the changed circuits that cells are variants of: those with the same holes together.

    `own`: what is put in differs from variant to variant. Without `fused` gradients can be taken through their plans.
    """
    keys: dict[Address, Any] = {}
    places: dict[Address, Place] = {}
    for address in dict.fromkeys(one for cell in cells for one in cell.addresses):
        refuse_bypassed(model.circuit, model.anatomy, address)
        found = places[address] = place(model.circuit, model.anatomy, address)
        keys[address] = address if found.at is None else found.target
    groups: dict[frozenset[Any], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(frozenset(keys[one] for one in cell.addresses), []).append(cell)
    closed = _closed(model.circuit.roots[model.anatomy.result], {one: found.target for one, found in places.items()})
    apart = {key: any(one in closed for cell in mine for one in cell.addresses) for key, mine in groups.items()}
    simple = [key for key in groups if len(key) == 1 and not apart[key] and not own and fused]
    alone = _alone(model, [groups[key] for key in simple], metric, causal)
    return [
        Joint((alone[mine[0].addresses[0]],), tuple(mine))
        if key in simple
        else Joint(
            _together(model, mine, places, metric, _How(causal, own, fused, apart[key])), tuple(mine), apart[key]
        )
        for key, mine in groups.items()
    ]


def _closed(root: Node, targets: Mapping[Address, Node]) -> set[Address]:
    """Return the addresses above which a node takes no further axis: a function of the user's own, an operation that is not known."""
    stops = [node for node in topological([root]) if isinstance(node, Custom | Opaque)]
    below = set(topological(stops))
    return {address for address, target in targets.items() if target in below}


@dataclass(frozen=True)
class _How:
    """How holes are made: positions causal, values differing from variant to variant, operations fused, variants apart."""

    causal: bool
    own: bool
    fused: bool
    apart: bool

    @property
    def variant(self) -> tuple[Axis, ...]:
        """The axis of variants, where there is one."""
        return () if self.apart else (VARIANT,)


def _alone(model: Model, groups: Sequence[Sequence[Cell]], metric: Metric, causal: bool) -> dict[Address, Hole]:
    """Return the hole of each address that is, or whose group is, one hole."""
    wanted = list(dict.fromkeys(one for cells in groups for cell in cells for one in cell.addresses))
    return {address: hole for hole in holes(model, wanted, metric, causal) for address in hole.at}


def _together(
    model: Model, cells: Sequence[Cell], places: Mapping[Address, Place], metric: Metric, how: _How
) -> tuple[Hole, ...]:
    """Return holes at several places of one circuit, each changed as the others leave it."""
    addresses = list(dict.fromkeys(one for cell in cells for one in cell.addresses))
    slots: dict[Any, list[Address]] = {}
    for one in addresses:
        slots.setdefault(one if places[one].at is None else places[one].target, []).append(one)
    made = [_slot(model, mine, places, number, how) for number, mine in enumerate(slots.values())]
    root = model.circuit.roots[model.anatomy.result]
    images = {node: node for node in topological([root])}
    pending = [(slot.target, slot.new) for slot in made]
    while pending:
        (target, new), pending = pending[0], pending[1:]
        ends = [images[root], *(node for pair in pending for node in pair)]
        step = substitute(ends, {target: new})
        images = {early: step.get(late, late) for early, late in images.items()}
        pending = [(step[one], step[two]) for one, two in pending]
    read = metric.read(images[root])
    before = {late: early for early, late in images.items() if late is not early}
    plan = resumption(
        [read], [leaf for slot in made for leaf in (slot.given, slot.where)], before, how.causal, how.fused
    )
    return tuple(Hole(slot.value, slot.given, slot.where, read, plan, slot.at) for slot in made)


@dataclass(frozen=True, eq=False)
class _Slot:
    """A hole before it is put into the circuit: `target` becomes `new`."""

    value: Node
    given: Input
    where: Input
    target: Node
    new: Node
    at: Mapping[Address, Mapping[str, int]]


def _slot(model: Model, addresses: Sequence[Address], places: Mapping[Address, Place], number: int, how: _How) -> _Slot:
    """Return the hole at places of one node, or at a place that is no node of its own."""
    found = places[addresses[0]]
    value = found.value if found.at is None else found.target
    rows = tuple(axis for axis in value.axes if axis.name in {"batch", "query"})
    named: dict[str, Axis] = {}
    if found.at is not None:
        sizes = {axis.name: axis.size for axis in value.axes if isinstance(axis.size, int)}
        for one in addresses:
            heads = dict(model.anatomy.layers[one.layer].head_axes) if isinstance(one.layer, int) else {}
            named |= {name: Axis(name, sizes.get(name, heads.get(name, 0))) for name in places[one].at or {}}
    given = Input(f"{VALUE}.{number}", (*how.variant, *value.axes) if how.own else value.axes)
    where = Input(f"{WHERE}.{number}", (*how.variant, *rows, *named.values()), "bool")
    at = {one: places[one].at or {} for one in addresses}
    if found.at is not None:
        return _Slot(value, given, where, value, Map("where", (where, given, value)), at)
    if found.terms is None:
        return _Slot(value, given, where, found.target, found.put(given, where), at)
    moved = Add((given, Multiply((value, Constant(-1.0)))))  # one term of a sum: the sum moves by as much as the term
    return _Slot(
        value, given, where, found.target, Add((found.target, Map("where", (where, moved, Constant(0.0))))), at
    )


# --- positions ---


def positions_of(
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
    count = lengths(inputs)
    assert count is not None
    count = count.cpu()
    if isinstance(asked, str) and asked == "each":
        _refuse_apart(task, count, "each")
        names: list[Any] = list(range(int(count[0])))
    else:
        names = [asked] if isinstance(asked, str | int) else list(asked)
        if not names:
            raise InputError(
                "positions=[] leaves nothing to patch: give at least one, or leave positions out for all of them together"
            )
    masks: list[torch.Tensor] = []
    for name in names:
        if isinstance(name, str) and name not in task.positions:
            known = ["each", *task.positions]
            raise InputError(
                f"position {name!r}: task {task.name!r} names {', '.join(task.positions)}{near(name, known)}"
            )
        at = torch.tensor(task.positions[name]) if isinstance(name, str) else torch.full((len(task),), int(name))
        raw = raw_places(inputs, at, f"position {name!r}")
        if isinstance(name, int):
            _refuse_apart(task, count, name)
        masks.append(torch.arange(real.shape[1]) == raw[:, None])
    return names, masks


def _refuse_apart(task: Task, count: torch.Tensor, asked: str | int) -> None:
    """Refuse a position by number where it is not the same place in all rows: rows of other lengths, or of other templates.

    The first and the last token are the same place in every row, and so is a number that the task has a name for in every row.
    """
    places = {
        name: torch.where(torch.tensor(at) < 0, torch.tensor(at) + count, torch.tensor(at))
        for name, at in task.positions.items()
    }
    if isinstance(asked, int):
        here = torch.full_like(count, asked) if asked >= 0 else count + asked
        if asked in {0, -1} or any(torch.equal(one, here) for one in places.values()):
            return
    named = [name for name in places if name != "END"]
    use = (
        f"positions={[*named, 'END']}"
        if named
        else "names for what corresponds, as sj.pair(..., positions={'subject': [...]})"
    )
    what = f"positions={asked!r} compares rows place by place"
    if int(count.min()) != int(count.max()):
        raise InputError(
            f"{what}, and rows have {int(count.min())} to {int(count.max())} real tokens: give rows of one length, or labelled positions: {use}"
        )
    for name in named:
        at = places[name]
        if int(at.min()) != int(at.max()):
            raise InputError(
                f"{what}, and rows are of different templates: {name!r} is at position {int(at[0])} in row 0 and at {int(at[at != at[0]][0])} in row "
                f"{int((at != at[0]).int().argmax())}: select rows of one template, or use labelled positions: {use}"
            )
