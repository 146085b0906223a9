"""Operators that put values in order or write them at chosen places: top-k, sorting, scatter, one-hot."""

from __future__ import annotations

import operator
from typing import Any

import torch

from scrubjay.capture.lift.call import Call
from scrubjay.capture.lift.layout import CannotLift, Dim, Var, size_of
from scrubjay.capture.lift.proto import Names, Proto, Value, constant, iota, mapped, materialised, pointwise, whole
from scrubjay.capture.lift.table_arithmetic import cast_to, operand, run_along
from scrubjay.capture.lift.table_layout import Handler, indexed, joined, narrowed, one_axis, scalar, with_one
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Multiply, Order


def ordered(what: Value, dim: int, size: int | str, greatest: bool, how: str, origin: str) -> list[Value]:
    """Return the first values along a dimension in order, and where they stood."""
    if not what.dims[dim]:  # one place only: it is the first
        return [what, Value(constant(0, "int64").proto, what.dims)]
    what = whole(materialised(what, what.dims[dim]), dim)
    (var,) = what.dims[dim]
    to = Var(size, origin, solid=True)
    rest = tuple(to if one is var else one for one in what.proto.axes)
    dims = (*what.dims[:dim], (to,), *what.dims[dim + 1 :])

    def maker(result: str):
        def make(names: Names, nodes: tuple[Node, ...]) -> Node:
            return Order(nodes[0], one_axis(names, var).name, one_axis(names, to), result, greatest, how)

        return make

    made = [Value(Proto((what.proto,), rest, maker(result)), dims) for result in ("values", "places")]
    return made if size != 1 else [with_one(indexed(one, dim, 0), dim) for one in made]


def topk(call: Call) -> list[Value]:
    """Lift the k greatest (or least) values of a dimension and their places."""
    what = call.tensor("self")
    (dim,) = call.dims("dim", len(what.dims))
    how = "topk" if call.number("sorted") else "topk_unsorted"
    call.taken.add("k")
    size = call.size(call.fx.meta["val"][0].shape[dim])
    return ordered(what, dim, size, bool(call.number("largest")), how, call.fx.name)


def sort(call: Call) -> list[Value]:
    """Lift sorting along a dimension, equal values in their old order."""
    what = call.tensor("self")
    call.taken.add("stable")  # one that keeps the order of equal values is a right answer to both questions
    (dim,) = call.dims("dim", len(what.dims))
    size = size_of(what.dims[dim])
    return ordered(what, dim, size, bool(call.number("descending")), "sort", call.fx.name)


def argsort(call: Call) -> Value:
    """Lift the places of the values in order."""
    call.taken.add("stable")
    what = call.tensor("self")
    (dim,) = call.dims("dim", len(what.dims))
    return ordered(what, dim, size_of(what.dims[dim]), bool(call.number("descending")), "sort", call.fx.name)[1]


def scatter(*, adds: bool = False) -> Handler:
    """Return a handler for values written at places along a dimension: distinct places, or values that add up."""

    def handler(call: Call) -> Value:
        what, index = call.tensor("self"), call.tensor("index")
        (dim,) = call.dims("dim", len(what.dims))
        source = operand(call, "src" if "src" in call.given else "value")
        kept = [(a, b) for place, (a, b) in enumerate(zip(what.sizes, index.sizes, strict=True)) if place != dim]
        if any(a != b for a, b in kept) or (source.dims and source.sizes != index.sizes):
            raise CannotLift("a scatter into a part of its rows, or of a part of its source, is kept whole")
        if adds and not source.dims:
            raise CannotLift("scatter_add of a number is kept whole")
        if source.dims and not adds and not _distinct(call, dim, len(what.dims)):
            raise CannotLift(
                "a scatter of values to places that may repeat is kept whole: which one stays is for torch to say"
            )
        return _written(call, what, index, source, dim, adds=adds)

    return handler


def _distinct(call: Call, dim: int, rank: int) -> bool:
    """Tell whether the places that a scatter writes to are some of an order along the same dimension, which never repeat."""
    node = call.given["index"]
    if node.target is operator.getitem and node.args[1] == 1:
        node = node.args[0]
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    name = node.target._schema.name.split("::")[1]
    return name in ("topk", "sort", "argsort") and Call(node, call.values, call.size).dims("dim", rank) == [dim]


def _written(call: Call, what: Value, index: Value, source: Value, dim: int, *, adds: bool) -> Value:
    """Return `what` with values written where a count along the dimension equals the index."""
    dtype, last = call.fx.meta["val"].dtype, len(what.dims) - 1
    places = _moved(index, dim, last)
    count = iota(size_of(what.dims[dim]), f"{call.fx.name}.to")
    found = mapped("equal", [Value(places.proto, (*places.dims, ())), count])
    hit = run_along("any", found, [last], keeps=False)
    value = cast_to(source, torch.int64, dtype)
    if source.dims:
        turned = _moved(source, dim, last)
        parts = mapped(
            "where", [found, Value(turned.proto, (*turned.dims, ())), cast_to(scalar(0), torch.int64, dtype)]
        )
        value = run_along("any" if dtype == torch.bool else "sum", parts, [last], keeps=False)
    base = _moved(what, dim, last)
    made = pointwise(Add, [base, value]) if adds else mapped("where", [hit, value, base])
    return _moved(made, last, dim)


def _moved(what: Value, old: int, new: int) -> Value:
    """Return the value with one dimension moved to another place."""
    rest = [*what.dims[:old], *what.dims[old + 1 :]]
    return Value(what.proto, (*rest[:new], what.dims[old], *rest[new:]))


def one_hot(call: Call) -> Value:
    """Lift a count of classes compared with each value, along a new last dimension."""
    what = call.tensor("self")
    call.taken.add("num_classes")
    size = call.sizes[-1]
    if not isinstance(size, int):
        raise CannotLift("one-hot over as many classes as the data have is kept whole")
    found = mapped("equal", [Value(what.proto, (*what.dims, ())), iota(size, call.fx.name)])
    return cast_to(found, torch.bool, torch.int64)


def copied(call: Call) -> Value:
    """Lift a copy of a value into the shape and type of another."""
    call.taken.add("self")
    what = cast_to(call.tensor("src"), call.dtype_of("src"), call.fx.meta["val"].dtype)
    lead = len(call.sizes) - len(what.dims)
    dims: list[Dim] = [*((),) * lead, *what.dims]
    for place, size in enumerate(call.sizes):
        if not dims[place] and size != 1:
            dims[place] = (Var(size, f"{call.fx.name}.{place}"),)
    return Value(what.proto, tuple(dims))


def slice_scatter(call: Call) -> Value:
    """Lift a value whose stretch along one dimension is replaced: what is before it, the new stretch, what is after it."""
    what, source = call.tensor("self"), call.tensor("src")
    (dim,) = call.dims("dim", len(what.dims))
    start, step, total, count = call.number("start") or 0, call.number("step"), what.sizes[dim], source.sizes[dim]
    call.taken.add("end")
    if start == 0 and step == 1 and total == count:
        return source
    return _replaced(call, what, source, dim, start, step, total, count)


def select_scatter(call: Call) -> Value:
    """Lift a value one place of which, along one dimension, is replaced."""
    what, source = call.tensor("self"), call.tensor("src")
    (dim,) = call.dims("dim", len(what.dims))
    return _replaced(call, what, with_one(source, dim), dim, call.number("index"), 1, what.sizes[dim], 1)


def _replaced(
    call: Call, what: Value, source: Value, dim: int, start: Any, step: Any, total: int | str, count: int | str
) -> Value:
    if step != 1 or not all(isinstance(number, int) for number in (start, total, count)):
        raise CannotLift("a stretch of unknown place or size, or with steps, is kept whole when it is replaced")
    total, count = int(total), int(count)
    start = start + total if start < 0 else start
    parts = [source]
    if start > 0:
        parts.insert(0, narrowed(what, dim, 0, start))
    if start + count < total:
        parts.append(narrowed(what, dim, start + count, total - start - count))
    return joined(parts, dim, total, call.fx.name)


def square(call: Call) -> Value:
    """Lift a square."""
    what = call.tensor("self")
    return pointwise(Multiply, [what, what])


ORDER: dict[str, Handler] = {
    "topk": topk, "sort": sort, "argsort": argsort, "scatter": scatter(), "scatter_add": scatter(adds=True), "square": square,
    "one_hot": one_hot, "copy": copied, "slice_scatter": slice_scatter, "select_scatter": select_scatter,
}  # fmt: skip
