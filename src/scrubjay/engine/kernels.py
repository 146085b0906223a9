"""One kernel for each kind of node: from operands' values to the node's value. `KERNELS` is the table of all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from math import prod
from typing import Any, cast

import torch

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Along,
    Concat,
    Constant,
    Cumulant,
    Custom,
    Einsum,
    Expectation,
    Experts,
    Gather,
    Index,
    Input,
    Iota,
    Map,
    Merge,
    Multiply,
    Narrow,
    Opaque,
    Order,
    Relabel,
    Repeat,
    Sample,
    Split,
    Weight,
)  # fmt: skip
from scrubjay.circuit.ops.aten import MADE, SEEDED, name_of
from scrubjay.engine import choosing, random
from scrubjay.engine.array import Array, spread, union
from scrubjay.engine.context import Context
from scrubjay.engine.contraction import contract
from scrubjay.engine.functions import ALONG, MAP
from scrubjay.errors import CircuitError, EvaluationError

Kernel = Callable[[Any, Sequence[Array], Context], Array]


def _input(node: Input, _: Sequence[Array], context: Context) -> Array:
    tensor = context.inputs[node.name]
    if node.dtype == "model" and tensor.is_floating_point():
        tensor = tensor.to(context.model_dtype())
    if context.device is not None:
        tensor = tensor.to(context.device)
    return Array(tensor, tuple(axis.name for axis in node.dims))


def _weight(node: Weight, _: Sequence[Array], context: Context) -> Array:
    tensor = context.weight(node.source, node.name, node.dtype)
    stored = tuple(prod(context.size(axis.size) for axis in dim) for dim in node.dims)
    if tuple(tensor.shape) != stored:
        raise EvaluationError(
            f"weight {node.name!r} has shape {tuple(tensor.shape)}; the circuit was captured with {stored}"
        )
    flat = tuple(axis for dim in node.dims for axis in dim)
    return Array(tensor.reshape([context.size(axis.size) for axis in flat]), tuple(axis.name for axis in flat))


def _constant(node: Constant, _: Sequence[Array], context: Context) -> Array:
    value: Any = node.value
    if isinstance(value, str):
        limits = torch.finfo(context.type_of(node.dtype or "model"))
        value = limits.min if value == "min" else limits.max
    if node.dtype is None:
        return Array(value, ())
    return Array(torch.tensor(value, dtype=context.type_of(node.dtype), device=context.device), ())


def _iota(node: Iota, _: Sequence[Array], context: Context) -> Array:
    return Array(torch.arange(context.size(node.axis.size), device=context.device), (node.axis.name,))


def _einsum(node: Einsum, operands: Sequence[Array], _: Context) -> Array:
    return contract(operands, node.summed)


def _add(node: Add, operands: Sequence[Array], _: Context) -> Array:
    tensors, order = spread(operands)
    total: Any = tensors[0]
    for item in tensors[1:]:
        total = total + item
    return Array(total, order)


def _multiply(node: Multiply, operands: Sequence[Array], _: Context) -> Array:
    tensors, order = spread(operands)
    total: Any = tensors[0]
    for item in tensors[1:]:
        total = total * item
    return Array(total, order)


def _index(node: Index, operands: Sequence[Array], _: Context) -> Array:
    (source,) = operands
    place = source.names.index(node.axis)
    size = source.as_tensor().shape[place]
    if not -size <= node.at < size:
        raise EvaluationError(f"place {node.at} is asked for along {node.axis!r}, which has {size} places in this run")
    return Array(source.as_tensor().select(place, node.at), (*source.names[:place], *source.names[place + 1 :]))


def _narrow(node: Narrow, operands: Sequence[Array], context: Context) -> Array:
    (source,) = operands
    place, count = source.names.index(node.axis), context.size(node.to.size)
    have = source.as_tensor().shape[place]
    if node.start + (count - 1) * node.step >= have:
        raise EvaluationError(
            f"{count} places from {node.start} on are asked for along {node.axis!r}, which has {have}: "
            "the input is longer than this model's position table, or shorter than the slice"
        )
    where = [slice(None)] * len(source.names)
    where[place] = slice(node.start, node.start + count * node.step, node.step)
    names = tuple(node.to.name if name == node.axis else name for name in source.names)
    return Array(source.as_tensor()[tuple(where)], names)


def _concat(node: Concat, operands: Sequence[Array], _: Context) -> Array:
    renamed = [
        Array(item.tensor, tuple(node.to.name if name == own else name for name in item.names))
        for item, own in zip(operands, node.along, strict=True)
    ]
    order = union(renamed)
    laid = [torch.as_tensor(item.laid(order)) for item in renamed]
    place = order.index(node.to.name)
    shape = [max(item.shape[d] for item in laid) for d in range(len(order))]
    full = [item.expand([item.shape[d] if d == place else shape[d] for d in range(len(order))]) for item in laid]
    return Array(torch.cat(full, place), order)


def _gather(node: Gather, operands: Sequence[Array], _: Context) -> Array:
    source, index = operands
    tensor = source.as_tensor()
    places = index.as_tensor(tensor.device)  # a bare number has no place of its own
    shared = [name for name in index.names if name in source.names]
    size = tensor.shape[source.names.index(node.axis)]
    # an export of a circuit's module has no numbers to look at (torch then checks them at run time, and counts from the end itself), nor has a rehearsal
    looked = places.numel() and not torch.compiler.is_exporting() and not places.is_meta
    low, high = (int(places.min()), int(places.max())) if looked else (0, -1)
    if low < -size or high >= size:
        raise EvaluationError(
            f"index {low if low < -size else high} is outside axis {node.axis!r}, which has {size} places"
        )
    places = torch.where(places < 0, places + size, places) if low < 0 else places
    rest = [name for name in source.names if name != node.axis and name not in shared]
    table = tensor.permute([source.names.index(name) for name in (*shared, node.axis, *rest)])
    if not shared and places.is_meta and not places.dim():  # torch would ask a single place for its number
        return Array(table.index_select(0, places.reshape(1)).squeeze(0), tuple(rest))
    if not shared:
        return Array(table[places], (*index.names, *rest))
    own = [name for name in index.names if name not in shared]
    places = places.permute([index.names.index(name) for name in (*shared, *own)])
    where = [
        torch.arange(table.shape[d], device=tensor.device).reshape([-1 if k == d else 1 for k in range(places.dim())])
        for d in range(len(shared))
    ]
    return Array(table[(*where, places)], (*shared, *own, *rest))


def _relabel(node: Relabel, operands: Sequence[Array], _: Context) -> Array:
    table = dict(node.pairs)
    return Array(operands[0].tensor, tuple(table.get(name, name) for name in operands[0].names))


def _split(node: Split, operands: Sequence[Array], context: Context) -> Array:
    (source,) = operands
    place = source.names.index(node.axis)
    tensor, sizes = source.as_tensor(), [context.size(axis.size) for axis in node.into]
    tensor = tensor.reshape([*tensor.shape[:place], *sizes, *tensor.shape[place + 1 :]])
    return Array(tensor, (*source.names[:place], *(axis.name for axis in node.into), *source.names[place + 1 :]))


def _merge(node: Merge, operands: Sequence[Array], _: Context) -> Array:
    (source,) = operands
    rest = [name for name in source.names if name not in node.merged]
    tensor = torch.as_tensor(source.laid((*rest, *node.merged)))
    return Array(tensor.reshape([*tensor.shape[: len(rest)], -1]), (*rest, node.to.name))


def _repeat(node: Repeat, operands: Sequence[Array], context: Context) -> Array:
    (source,) = operands
    tensor = source.as_tensor(context.device)
    sizes = [context.size(axis.size) for axis in node.along]
    new = tuple(axis.name for axis in node.along)
    return Array(tensor.expand(*sizes, *tensor.shape), (*new, *source.names))


def _map(node: Map, operands: Sequence[Array], context: Context) -> Array:
    tensors, order = spread(operands)
    parameters = [context.type_of(str(node.parameters[0]))] if node.op == "cast" else node.parameters
    return Array(MAP[node.op](*tensors, *parameters), order)


def _along(node: Along, operands: Sequence[Array], _: Context) -> Array:
    (source,) = operands
    return ALONG[node.op](source, node.over, node.parameters)


def _opaque(node: Opaque, operands: Sequence[Array], context: Context) -> Array:
    laid = [_in_layout(item, layout) for item, layout in zip(operands, node.layouts, strict=True)]

    def plain(item: Any) -> object:
        if isinstance(item, list):
            return [plain(one) for one in cast("list[Any]", item)]
        if isinstance(item, dict):
            ((kind, value),) = cast("dict[str, Any]", item).items()
            match kind:
                case "operand":
                    return laid[int(value)]
                case "size":
                    return context.size(value)
                case "dtype":
                    return context.type_of(str(value))
                case "float":
                    return float(str(value))
                case _:  # a device or memory layout, which is this run's own affair
                    return None
        return item

    args, kwargs = json.loads(node.arguments)
    made = _aten(node.op)(
        *[plain(item) for item in args],
        **{key: plain(item) for key, item in kwargs.items() if "ignored" not in str(item)},
    )
    if not isinstance(made, torch.Tensor) and node.result >= len(made):
        raise EvaluationError(f"{node.op} gives {len(made)} results, and result {node.result} was asked for")
    tensor: torch.Tensor = made if isinstance(made, torch.Tensor) else made[node.result]
    flat = [axis for dim in node.dims for axis in dim]
    return Array(tensor.reshape([context.size(axis.size) for axis in flat]), tuple(axis.name for axis in flat))


def _in_layout(item: Array, layout: tuple[tuple[Axis, ...], ...]) -> torch.Tensor:
    tensor = torch.as_tensor(item.laid([axis.name for dim in layout for axis in dim]))
    sizes = dict(zip([axis.name for dim in layout for axis in dim], tensor.shape, strict=True))
    return tensor.reshape([prod(sizes[axis.name] for axis in dim) for dim in layout])


def _custom(node: Custom, operands: Sequence[Array], context: Context) -> Array:
    given = torch.as_tensor(operands[0].dense(node.layout))
    if given.is_meta:
        return Array(torch.empty_like(given), node.layout)
    made: Any = context.function(node.source, node.name)(given)
    if not isinstance(made, torch.Tensor) or made.shape != given.shape:
        found = tuple(made.shape) if isinstance(made, torch.Tensor) else type(made).__name__
        raise EvaluationError(
            f"the function given to apply returned {found}; it must return a tensor of shape {tuple(given.shape)} ({', '.join(node.layout)})"
        )
    return Array(made, node.layout)


@cache
def _aten(op: str) -> Callable[..., Any]:
    """Return an ATen operator that `scrubjay.circuit.ops.aten` lists; its schema must agree that it is a function of tensors."""
    try:
        name = name_of(op)
        found = getattr(getattr(torch.ops.aten, name), op.rpartition(".")[2])
        schema = found._schema
    except (AttributeError, CircuitError) as error:
        raise EvaluationError(f"{op!r} is no ATen operation that may be evaluated: {error}") from error
    if schema.is_mutable:
        raise EvaluationError(f"{op!r} changes its arguments and cannot be evaluated as an expression")
    kinds = [(argument.name, str(argument.type)) for argument in schema.arguments]
    odd = [kind for name, kind in kinds if name not in IGNORED and not _TAKEN.fullmatch(kind)]
    if odd or not (name in MADE or any("Tensor" in kind for _, kind in kinds)):
        raise EvaluationError(
            f"{op!r} takes {', '.join(odd) or 'no tensor'}, and only tensors and plain values are given to one"
        )
    if any(str(result.type) not in ("Tensor", "List[Tensor]") for result in schema.returns):
        raise EvaluationError(f"{op!r} gives something else than tensors")
    if torch.Tag.nondeterministic_seeded not in found.tags:
        return found
    if name not in SEEDED:
        raise EvaluationError(f"{op!r} draws at random and cannot be evaluated as an expression")
    return partial(_without_dropping, found)


def _without_dropping(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """Call an operator that can drop values at random, if it is told not to."""
    given = {argument.name: value for argument, value in zip(operator._schema.arguments, args, strict=False)} | kwargs
    if given.get("dropout_p") or (given.get("dropout") and given.get("train")):
        raise EvaluationError(f"{operator} is told to drop values at random: capture the module in evaluation mode")
    return operator(*args, **kwargs)


IGNORED = frozenset({"dtype", "layout", "device", "memory_format", "pin_memory"})
"""Arguments whose kind is not looked at: a type is given by name, the others not at all."""
_TAKEN = re.compile(r"(Optional\[)?(List\[)?(Optional\[)?(Tensor|number|int|float|bool|str)\]{0,3}")


KERNELS: dict[type[Node], Kernel] = {
    Input: _input, Weight: _weight, Constant: _constant, Iota: _iota, Einsum: _einsum, Add: _add, Multiply: _multiply,
    Index: _index, Narrow: _narrow, Concat: _concat, Gather: _gather, Relabel: _relabel, Split: _split, Merge: _merge, Repeat: _repeat,
    Map: _map, Along: _along, Opaque: _opaque, Experts: choosing.experts, Order: choosing.order, Custom: _custom,
    Sample: random.sample, Expectation: random.expectation, Cumulant: random.cumulant,
}  # fmt: skip
