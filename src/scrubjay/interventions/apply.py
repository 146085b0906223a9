"""Interventions become rewrites: each change is a new circuit and, where it brings numbers or functions, a store for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import torch

from scrubjay.capture.model import Model, Stored
from scrubjay.circuit.address import Address, Range
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Constant, Einsum, Gather, Iota, Map, Multiply, Relabel, Repeat
from scrubjay.circuit.places import query_axis, raw, real_mask, span, write
from scrubjay.engine.array import Array
from scrubjay.engine.context import Payload
from scrubjay.errors import InputError
from scrubjay.interventions.change import Intervention
from scrubjay.interventions.inputs import lengths
from scrubjay.interventions.reference import patched, position_means, referred, resampled
from scrubjay.interventions.shelf import Shelf
from scrubjay.interventions.shown import shown_order
from scrubjay.interventions.splicing import spliced

_TOKENS = count(1)


def edit(model: Model, *interventions: Intervention) -> Model:
    """Return the model with interventions made part of it; the given model stays as it is.

    Raises `AddressError` for an address the model lacks, and `InputError` for an intervention that only makes sense for the
    rows of one run (`resample`, or `patch` from several rows).
    """
    return applied(model, interventions, None)


def applied(model: Model, interventions: Sequence[Intervention], inputs: Mapping[str, torch.Tensor] | None) -> Model:
    """Return the model under interventions, for the rows of `inputs` (`None`: for any).

    Values of other inputs (`mean`, `resample`, `patch`) are those of the model as given, before any of the interventions.
    """
    source = f"interventions-{next(_TOKENS)}"
    tensors: dict[str, torch.Tensor] = {}
    functions: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {}
    given = model
    for change in interventions:
        if not isinstance(change, Intervention):
            raise InputError(f"an intervention is made by sj.zero, sj.patch and the like; got {type(change).__name__}")
        addresses = model.addresses(change.at)
        known = _with_reference(given, change, addresses)
        for address in addresses:
            shelf = Shelf(source, tensors, functions)
            stores: dict[str, Stored] = {**model.stores, source: Payload(tensors, functions)}
            if change.kind == "splice":
                model = replace(spliced(given, model, change, address, inputs, shelf), stores=stores)
                continue
            make = _maker(model, known, address, inputs, shelf)
            circuit = write(model.circuit, model.anatomy, address, make, repr(change))
            model = replace(model, circuit=circuit, stores=stores)
    return model


def _with_reference(model: Model, change: Intervention, addresses: Sequence[Address]) -> Intervention:
    """Return an intervention that takes values from other inputs with those inputs run, once for all addresses."""
    place = {"mean": "over", "resample": "over", "patch": "from"}.get(change.kind)
    if place is None:
        return change
    made = referred(model, change.options[place], addresses, whole=change.kind != "patch")
    return replace(change, options={**change.options, place: made})


def _maker(
    model: Model, change: Intervention, address: Address, inputs: Mapping[str, torch.Tensor] | None, shelf: Shelf
) -> Callable[[Node], Node]:
    """Return the function from the old value's node to the new one's."""
    options = change.options
    bare = replace(address, position=None)
    if change.kind == "zero":
        return lambda old: _spread(_number(0.0, address), old)
    if change.kind == "replace":
        return lambda old: _spread(_given(options["value"], old, shelf, change, address), old)
    if change.kind == "add":
        scale = Constant(float(options["scale"]))
        return lambda old: Add((old, Multiply((scale, _given(options["value"], old, shelf, change, address)))))
    if change.kind == "project_out":
        return lambda old: _projected_out(old, options["directions"], shelf, change)
    if change.kind == "apply":
        return lambda old: shelf.function(options["function"], old)
    if change.kind == "mean":
        table = position_means(options["over"], bare, options["by"])
        _check_length(change, table, inputs)
        return lambda old: _spread(_by_position(model, table, old, shelf, change), old)
    if change.kind == "resample":
        if inputs is None:
            raise InputError(
                f"{change!r}: resample draws one row for each row of a run; use it in sj.run, not in sj.edit"
            )
        table = resampled(options["over"], bare, options["seed"], inputs)
        return lambda old: _spread(_by_position(model, table, old, shelf, change), old)
    value, start = patched(options["from"], address, inputs)

    def put(old: Node) -> Node:
        by_position = "position" in value.names
        made = (
            _by_position(model, value, old, shelf, change, start)
            if by_position
            else _fitting(value, old, shelf, change)
        )
        return _spread(made, old)

    return put


def _check_length(change: Intervention, table: Array, inputs: Mapping[str, torch.Tensor] | None) -> None:
    """Refuse a run with a row that is longer than every row a mean by position was taken over."""
    rows = None if inputs is None else lengths(inputs)
    if rows is None or "position" not in table.names:
        return
    longest, have = int(rows.max()), table.as_tensor().shape[table.names.index("position")]
    if longest > have:
        raise InputError(
            f"{change!r}: the run has a row of {longest} real tokens and the longest row to take the mean over has {have}: give longer ones, or by='all'"
        )


def _spread(new: Node, old: Node) -> Node:
    """Return `new` with all axes of `old`."""
    lacking = tuple(axis for axis in old.axes if axis.name not in new.axis_names)
    return Repeat(new, lacking) if lacking else new


def _number(value: float, address: Address) -> Node:
    """Return a number of one address's own: two places set to 0 must not be one node, which a later change would not tell apart."""
    return Map("cast", (Constant(value, "model"),), ("model", str(address)))


def _given(value: Any, old: Node, shelf: Shelf, change: Intervention, address: Address) -> Node:
    if isinstance(value, bool | int | float):
        return _number(float(value), address)
    if not isinstance(value, torch.Tensor):
        raise InputError(f"{change!r}: a value is a number or a tensor, not {type(value).__name__}")
    one_place = address.position is not None and not isinstance(address.position.at, Range)
    order = tuple(name for name in shown_order(old) if not (one_place and name == "query"))
    sizes = {axis.name: axis.size for axis in old.axes}
    if value.dim() > len(order):
        raise InputError(
            f"{change!r}: the tensor has shape {tuple(value.shape)}; the value has the axes {', '.join(order)}"
        )
    mine = order[len(order) - value.dim() :]
    for name, size in zip(mine, value.shape, strict=True):
        if isinstance(sizes[name], int) and size not in (1, sizes[name]):
            raise InputError(
                f"{change!r}: the tensor has {size} places along {name!r}, the value {sizes[name]} (its axes, in order: {', '.join(order)})"
            )
    return shelf.tensor(value, [Axis(name, sizes[name]) for name in mine])


def _projected_out(old: Node, directions: torch.Tensor, shelf: Shelf, change: Intervention) -> Node:
    """Return old - (old Q) Q^T with Q an orthonormal basis of the directions."""
    order = shown_order(old)
    axis = order[-1]
    size = old.size(axis)
    rows = directions.reshape(1, -1) if directions.dim() == 1 else directions
    if rows.dim() != 2 or rows.shape[1] != size:
        raise InputError(
            f"{change!r}: directions have shape {tuple(directions.shape)}; the value's last axis is {axis}={size}"
        )
    left, strength, basis = torch.linalg.svd(rows.detach().to(torch.float64), full_matrices=False)
    del left
    basis = basis[strength > strength.max() * 1e-10] if float(strength.max()) > 0 else basis[:0]
    if not len(basis):
        raise InputError(f"{change!r}: all directions are zero")
    projector = shelf.tensor(basis.T @ basis, [Axis(axis, size), Axis(f"{axis}'", size)])
    along = Relabel(Einsum((old, projector), (axis,)), ((f"{axis}'", axis),))
    return Add((old, Multiply((along, Constant(-1)))))


def _by_position(
    model: Model, table: Array, old: Node, shelf: Shelf, change: Intervention, start: int | None = None
) -> Node:
    """Read a table with the axis `position` at each place of the rows.

    The table has all positions, counted from the first real token (one beyond it is an error at run time), or some, from
    `start` on.
    """
    sizes = {axis.name: axis.size for axis in old.axes}
    table = _for_each_head(table, old)
    _check_axes(table.names, {"batch", "position"}, old, change)
    if "position" not in table.names:
        return shelf.array(table, {**sizes, "batch": "batch"})
    if "query" not in old.axis_names:
        raise InputError(f"{change!r}: this value has no positions")
    node = shelf.array(table, {**sizes, "batch": "batch"})
    query = Iota(query_axis(model.circuit))
    where = span(model.circuit)
    place_in_row = Add((query, Multiply((Constant(-1), where.first if start is None else raw(where, start)))))
    last = Constant(table.as_tensor().shape[table.names.index("position")] - 1)
    mask = real_mask(model.circuit)
    safe = Map("maximum", (place_in_row, Constant(0)))
    if start is not None:
        safe = Map("minimum", (safe, last))
    elif mask is not None:  # padding reads the nearest real place
        safe = Map("where", (Map("not_equal", (mask, Constant(0))), safe, Map("minimum", (safe, last))))
    return Gather(node, "position", safe)


def _fitting(value: Array, old: Node, shelf: Shelf, change: Intervention) -> Node:
    value = _for_each_head(value, old)
    _check_axes(value.names, set(), old, change)
    return shelf.array(value, {axis.name: axis.size for axis in old.axes})


def _for_each_head(value: Array, old: Node) -> Array:
    """Return a value of key-value heads as one for each head, where an earlier change gave each head a copy of its own."""
    if "kv" not in value.names or "kv" in old.axis_names or "head" not in old.axis_names:
        return value
    place = value.names.index("kv")
    copies, left = divmod(int(old.size("head")), value.as_tensor().shape[place])
    if left:
        return value
    names = tuple("head" if name == "kv" else name for name in value.names)
    return Array(value.as_tensor().repeat_interleave(copies, place), names)


def _check_axes(names: Sequence[str], beside: set[str], old: Node, change: Intervention) -> None:
    """Refuse a value of other inputs that has axes which the value it replaces lacks."""
    if extra := set(names) - old.axis_names - beside:
        raise InputError(
            f"{change!r}: the new value has the axes {tuple(names)}; the old one lacks {', '.join(sorted(extra))}"
        )
