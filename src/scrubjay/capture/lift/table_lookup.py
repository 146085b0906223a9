"""Operators that look values up: embeddings, gathers, indexing by tensors. An index that only counts makes no look-up."""

from __future__ import annotations

from scrubjay.capture.lift.call import Call
from scrubjay.capture.lift.layout import CannotLift, Dim, Var, atoms, root, size_of
from scrubjay.capture.lift.proto import Names, Proto, Value, broadcast, distinct, looked_up, matched, relabel, whole
from scrubjay.capture.lift.table_layout import Handler, one_axis
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Gather, Iota
from scrubjay.errors import CaptureError


def embedding(call: Call) -> Value:
    """Lift a table look-up (the padding index only matters for gradients of the table)."""
    call.taken.update(("padding_idx", "scale_grad_by_freq", "sparse"))
    return looked_up(call.tensor("weight"), 0, call.tensor("indices"))


def index_select(call: Call) -> Value:
    """Lift reading along a dimension at the places of a list."""
    what, places = call.tensor("self"), call.tensor("index")
    (dim,) = call.dims("dim", len(what.dims))
    counted = _counted(what, [dim], [places])
    return _placed(what, [dim], counted) if counted else looked_up(what, dim, distinct_index(what, places, [dim]))


def distinct_index(source: Value, index: Value, dims: list[int]) -> Value:
    """Return the index with the axes renamed that the source keeps."""
    kept = Value(source.proto, tuple(d for i, d in enumerate(source.dims) if i not in dims))
    return distinct(index, kept, index.dims)


def gather(call: Call) -> Value:
    """Lift a look-up along one dimension with all others walked together."""
    what, index = call.tensor("self"), call.tensor("index")
    call.taken.add("sparse_grad")
    (dim,) = call.dims("dim", len(what.dims))
    pairs = [(a, b) for place, (a, b) in enumerate(zip(what.dims, index.dims, strict=True)) if place != dim and a and b]
    if any(size_of(a) != size_of(b) for a, b in pairs):
        raise CannotLift(f"{call.fx.name}: a gather whose index is smaller than its source is not supported")
    what, index = matched(what, index, pairs)
    made = looked_up(what, dim, Value(index.proto, ()))
    dims = [*made.dims]
    dims.insert(dim, index.dims[dim])
    full_dims = tuple(old or new for old, new in zip(dims, index.dims, strict=True))
    return Value(made.proto, full_dims)


def index(call: Call) -> Value:
    """Lift indexing by tensors; an index that only counts along a whole axis is a renaming and makes no look-up."""
    what = call.tensor("self")
    raw = call.raw("indices")
    places = [place for place, item in enumerate(raw) if item is not None]
    if any(
        raw[place].meta["val"].dtype.is_floating_point or str(raw[place].meta["val"].dtype) == "torch.bool"
        for place in places
    ):
        raise CaptureError(
            f"{call.fx.name}: the result's shape depends on the data (a boolean index); use torch.where instead"
        )
    counted = _counted(what, places, [call.lifted(raw[place]) for place in places])
    if counted is not None:
        return _placed(what, places, counted)
    for place in places:
        what = whole(what, place)
    indices = [distinct_index(what, call.lifted(raw[place]), places) for place in places]
    indices, dims = broadcast(indices)
    proto = what.proto
    for place, item in zip(places, indices, strict=True):
        (axis,) = what.dims[place]
        if axis in proto.axes:
            proto = _look(proto, axis, item.proto)
    return _placed(Value(proto, what.dims), places, dims)


def _placed(what: Value, places: list[int], dims: list[Dim]) -> Value:
    """Put the dimensions of an index where torch puts them: in place of the indexed ones, or first if those lie apart."""
    kept_before = [d for i, d in enumerate(what.dims) if i < places[0]]
    kept_after = [d for i, d in enumerate(what.dims) if i > places[0] and i not in places]
    adjacent = places == list(range(places[0], places[-1] + 1))
    return Value(what.proto, (*kept_before, *dims, *kept_after) if adjacent else (*dims, *kept_before, *kept_after))


def _counted(what: Value, places: list[int], indices: list[Value]) -> list[Dim] | None:
    """Return the dimensions of an index that only counts along whole dimensions: theirs, in its layout (else `None`).

    `x[torch.arange(n)]` is x, and `x[torch.arange(n).repeat_interleave(k)]` is x with a broadcast axis: no look-up at all.
    """
    counts = [item.proto.count for item in indices]
    known = [root(count) for count in counts if count is not None]
    if len(known) < len(counts) or len(set(known)) < len(known):
        return None
    if any(count.size != size_of(what.dims[place]) for place, count in zip(places, known, strict=True)):
        return None
    table = {count: atoms(what.dims[place]) for place, count in zip(places, known, strict=True)}
    dims: list[Dim] = [()] * max(len(item.dims) for item in indices)
    for item in indices:
        for place in range(1, len(item.dims) + 1):
            here = tuple(part for var in atoms(item.dims[-place]) for part in table.get(var, (var,)))
            if here and dims[-place]:
                return None  # walked together: a diagonal
            dims[-place] = dims[-place] or here
    return dims


def _look(source: Proto, axis: Var, at: Proto) -> Proto:
    def make(names: Names, nodes: tuple[Node, ...]) -> Node:
        name = one_axis(names, axis).name
        if isinstance(nodes[1], Iota) and nodes[1].axis.size == nodes[0].size(name):
            return relabel(nodes[0], ((name, nodes[1].axis.name),))
        node = nodes[0]
        if name in nodes[1].axis_names:
            node, name = relabel(node, ((name, f"{name}'"),)), f"{name}'"
        return Gather(node, name, nodes[1])

    present = [*(var for var in source.axes if var is not axis), *at.axes]
    return Proto((source, at), tuple(dict.fromkeys(present)), make)


LOOKUP: dict[str, Handler] = {"embedding": embedding, "index_select": index_select, "gather": gather, "index": index}
