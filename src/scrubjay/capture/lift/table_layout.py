"""Operators that only move values: views, permutations, slices, look-ups, joins. Most of them make no node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from scrubjay.capture.lift.call import MODEL_DTYPE, Call, dtype_name
from scrubjay.capture.lift.layout import (
    CannotLift,
    Dim,
    Size,
    Var,
    atoms,
    beginnings,
    equal_ends,
    joined_part,
    keep_apart,
    reshape,
    size_of,
)  # fmt: skip
from scrubjay.capture.lift.proto import (
    Names,
    Proto,
    Value,
    broadcast,
    constant,
    end_split,
    iota,
    mapped,
    materialised,
    named_constant,
    pointwise,
    whole,
)  # fmt: skip
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Concat, Index, Multiply, Narrow, Split
from scrubjay.errors import CaptureError

Handler = Callable[[Call], Any]


def same(call: Call) -> Value:
    """Lift an operator that copies its input."""
    return call.tensor("self" if "self" in call.given else "input")


def dropout(call: Call) -> Value:
    """Lift dropout that is switched off; one that is on would make the circuit random."""
    what = call.tensor("input")
    if call.number("train") and call.number("p"):
        raise CaptureError(f"{call.fx.name}: dropout is active; capture the module in evaluation mode (module.eval())")
    call.taken.add("p")
    return what


def view(call: Call) -> Value:
    """Lift a view: dimensions regrouped, axes split where they are cut."""
    what = call.tensor("self")
    for name in ("size", "shape", "dim", "start_dim", "end_dim", "sizes"):
        call.taken.add(name)
    return viewed(what, call.sizes, call.fx.name)


def viewed(what: Value, sizes: tuple[Size, ...], origin: str) -> Value:
    """Return the value in other dimensions; where axes do not divide, merge those between equal ends and split anew."""
    dims = reshape(what.dims, sizes)
    if dims is None:
        what = end_split(what, sizes[-1], origin)
        dims = reshape(what.dims, sizes)
    if dims is not None:
        made = Value(what.proto, tuple(dims))
        for place, dim in enumerate(made.dims):
            if len(parts := atoms(dim)) > 1 and all(var.place for var in parts):
                made = whole(made, place)
        return made
    first, last = equal_ends(what.sizes, sizes)
    before, after = what.dims[:first], what.dims[len(what.dims) - last :]
    middle = tuple(var for dim in what.dims[first : len(what.dims) - last] for var in dim)
    flat = whole(Value(what.proto, (*before, middle, *after)), first)
    axis = flat.dims[first][0]
    wanted = sizes[first : len(sizes) - last]
    into = tuple(Var(size, f"{origin}.{first + place}") for place, size in enumerate(wanted) if size != 1)

    def make(names: Names, nodes: tuple[Node, ...]) -> Node:
        return Split(nodes[0], names((axis,))[0].name, names(into))

    rest, new = iter(into), [var for var in flat.proto.axes if var is not axis]
    split_up = tuple(() if size == 1 else (next(rest),) for size in wanted)
    return Value(Proto((flat.proto,), (*new, *into), make), (*before, *split_up, *after))


def permute(call: Call) -> Value:
    """Lift a permutation of dimensions."""
    what = call.tensor("self")
    return Value(what.proto, tuple(what.dims[d] for d in call.dims("dims", len(what.dims))))


def transpose(call: Call) -> Value:
    """Lift the exchange of two dimensions."""
    what = call.tensor("self")
    rank = len(what.dims)
    order = list(range(rank))
    a, b = call.number("dim0") % rank, call.number("dim1") % rank
    order[a], order[b] = order[b], order[a]
    return Value(what.proto, tuple(what.dims[d] for d in order))


def all_reversed(call: Call) -> Value:
    """Lift the transpose of a matrix, `.T` of any tensor."""
    what = call.tensor("self")
    return Value(what.proto, tuple(reversed(what.dims)))


def last_exchanged(call: Call) -> Value:
    """Lift the transpose of each matrix of a stack, `.mT`."""
    what = call.tensor("self")
    return Value(what.proto, (*what.dims[:-2], what.dims[-1], what.dims[-2]))


def unsqueeze(call: Call) -> Value:
    """Lift a new dimension of size 1."""
    what = call.tensor("self")
    place = call.number("dim") % (len(what.dims) + 1)
    return Value(what.proto, (*what.dims[:place], (), *what.dims[place:]))


def expand(call: Call) -> Value:
    """Lift a broadcast: new axes exist in the layout only."""
    what = call.tensor("self")
    call.taken.update(("size", "implicit"))
    sizes = call.sizes
    lead = len(sizes) - len(what.dims)
    dims: list[Dim] = []
    for place, size in enumerate(sizes):
        old = what.dims[place - lead] if place >= lead else ()
        dims.append((Var(size, f"{call.fx.name}.{place}"),) if not old and size != 1 else old)
    return Value(what.proto, tuple(dims))


def repeat(call: Call) -> Value:
    """Lift the whole value several times over: a broadcast axis outside each dimension."""
    what = call.tensor("self")
    times = call.number("repeats")
    lead = len(times) - len(what.dims)
    dims = [*((),) * lead, *what.dims]
    return Value(
        what.proto,
        tuple(
            _repeated(call, place, many, ()) + dim for place, (many, dim) in enumerate(zip(times, dims, strict=True))
        ),
    )


def repeat_each(call: Call) -> Value:
    """Lift each place several times over: a broadcast axis inside a dimension.

    The last dimension, where rotary embeddings repeat their angles, becomes one axis again: what it is multiplied with is
    one head's own space and must not be split. (Heads, repeated for grouped queries, are to be split.)
    """
    what, many = call.tensor("self"), call.number("repeats")
    call.taken.add("output_size")
    if call.raw("dim") is None:
        what = Value(what.proto, (tuple(var for dim in what.dims for var in dim),))
    (dim,) = call.dims("dim", len(what.dims)) if call.raw("dim") is not None else (0,)
    made = Value(what.proto, (*what.dims[:dim], _repeated(call, dim, many, what.dims[dim]), *what.dims[dim + 1 :]))
    return whole(made, dim) if dim == len(what.dims) - 1 and what.dims[dim] and many != 1 else made


def _repeated(call: Call, place: int, many: Size, dim: Dim) -> Dim:
    return dim if many == 1 else (*dim, Var(many, f"{call.fx.name}.{place}"))


def full(call: Call) -> Value:
    """Lift a tensor of one number (zeros, ones, full and their likes)."""
    for name in ("self", "size", "dtype"):
        call.taken.add(name)
    op = call.fx.target.__name__.split(".")[0]  # type: ignore[union-attr]
    number = (
        0
        if "zeros" in op
        or "empty" in op  # what an empty tensor holds is no one's to say: every place is written before it is read
        else 1
        if "ones" in op
        else call.number("fill_value" if "fill_value" in call.given else "value")
    )
    dtype = call.fx.meta["val"].dtype
    fill = scalar(number, dtype)
    if op.endswith("_like"):  # its axes are those of what it is like, which are then walked together
        return Value(fill.proto, call.tensor("self").dims)
    dims = tuple(() if size == 1 else (Var(size, f"{call.fx.name}.{place}"),) for place, size in enumerate(call.sizes))
    return Value(fill.proto, dims)


def scalar(number: Any, dtype: Any = None) -> Value:
    """Return a number; the least or greatest of the model's type stays that, in whatever type the circuit runs."""
    name = None if dtype is None else dtype_name(dtype)
    if isinstance(number, float):
        limits = torch.finfo(MODEL_DTYPE)
        if number in (limits.min, limits.max):
            value = named_constant("min" if number == limits.min else "max", "model")
            return value if name in (None, "model") else mapped("cast", [value], (name,))
    if isinstance(number, str):
        raise CannotLift(f"a size that depends on the input ({number}) is used as a value; please report the model")
    return constant(number, name)


def arange(call: Call) -> Value:
    """Lift a count."""
    call.taken.add("dtype")
    start = call.number("start") if "start" in call.given else 0
    step = call.number("step") if "step" in call.given else 1
    call.taken.add("end")
    made = iota(call.sizes[0], call.fx.name) if call.sizes[0] != 1 else Value(constant(0, "int64").proto, ((),))
    if step != 1:
        made = mapped_multiply(made, step)
    if start != 0:
        made = mapped_add(made, start)
    dtype = call.fx.meta["val"].dtype

    return made if dtype_name(dtype) == "int64" else mapped("cast", [made], (dtype_name(dtype),))


def mapped_multiply(what: Value, number: Any) -> Value:
    """Return the value times a number."""
    return pointwise(Multiply, [what, scalar(number)])


def mapped_add(what: Value, number: Any) -> Value:
    """Return the value plus a number."""
    return pointwise(Add, [what, scalar(number)])


def select(call: Call) -> Value:
    """Lift taking one place of a dimension."""
    what = call.tensor("self")
    (dim,) = call.dims("dim", len(what.dims))
    at = call.number("index")
    return indexed(what, dim, at)


def indexed(what: Value, dim: int, at: int) -> Value:
    """Return the value at one place of a dimension."""
    rest = (*what.dims[:dim], *what.dims[dim + 1 :])
    here = atoms(what.dims[dim])
    if not any(var in what.proto.axes for var in here):
        return Value(what.proto, rest)
    if len(here) > 1:
        what = whole(what, dim)
    var = atoms(what.dims[dim])[0]
    var.solid = True

    def make(names: Names, nodes: tuple[Node, ...]) -> Node:
        return Index(nodes[0], names((var,))[0].name, at)

    return Value(Proto((what.proto,), tuple(v for v in what.proto.axes if v is not var), make), rest)


def slice_(call: Call) -> Value:
    """Lift a slice; one that takes everything makes no node."""
    what = call.tensor("self")
    (dim,) = call.dims("dim", len(what.dims))
    start, step = call.number("start") or 0, call.number("step")
    call.taken.add("end")
    old, new = size_of(what.dims[dim]), call.sizes[dim]
    if old == new and step == 1:
        return what
    if isinstance(start, str):
        raise CannotLift(f"{call.fx.name}: a slice that starts at {start} is not supported; please report the model")
    if start < 0:
        if not isinstance(old, int):
            return indexed_last(what, dim, start, new, call.fx.name)
        start += old
    return narrowed(what, dim, start, new, step)


def indexed_last(what: Value, dim: int, start: int, size: Size, origin: str) -> Value:
    """Return the last places of a dimension of unknown size, read one by one."""
    if size != -start or not isinstance(size, int):
        raise CannotLift(f"{origin}: a slice from {start} of size {size} is not supported; please report the model")
    parts = [indexed(what, dim, start + place) for place in range(size)]
    return stacked(parts, dim, origin) if size > 1 else with_one(parts[0], dim)


def with_one(what: Value, dim: int) -> Value:
    """Return the value with a dimension of size 1 at `dim`."""
    return Value(what.proto, (*what.dims[:dim], (), *what.dims[dim:]))


def narrowed(what: Value, dim: int, start: int, size: Size, step: int = 1) -> Value:
    """Return a stretch of a dimension, as an axis of its own."""
    what = whole(what, dim)
    (var,) = what.dims[dim]
    if size == 1:
        return with_one(indexed(what, dim, start), dim)
    if var not in what.proto.axes:
        to = Var(size, f"{var.origin}[{start}:]")
        return Value(what.proto, (*what.dims[:dim], (to,), *what.dims[dim + 1 :]))
    end = f"{start + size * step}" if isinstance(size, int) else str(size)
    to = joined_part(what.dims, var, start, size) if step == 1 else None
    to = to or Var(size, f"{var.fixed or var.origin}[{start}:{end}{'' if step == 1 else f':{step}'}]")

    def make(names: Names, nodes: tuple[Node, ...]) -> Node:
        return Narrow(nodes[0], names((var,))[0].name, start, one_axis(names, to), step)

    to.solid = True
    rest = tuple(to if v is var else v for v in what.proto.axes)
    return Value(Proto((what.proto,), rest, make), (*what.dims[:dim], (to,), *what.dims[dim + 1 :]))


def one_axis(names: Names, var: Var) -> Axis:
    """Return the axis of a variable that is used whole."""
    (axis,) = names((var,))
    return axis


def split(call: Call) -> list[Value]:
    """Lift a cut into equal stretches: an axis that has not been used whole becomes (stretch, place) and is indexed."""
    what = call.tensor("self")
    (dim,) = call.dims("dim", len(what.dims))
    for name in ("split_size", "split_sizes", "chunks"):
        call.taken.add(name)
    sizes = [call.size(item.shape[dim]) for item in call.fx.meta["val"]]
    total = size_of(what.dims[dim])
    if isinstance(total, int) and len(set(sizes)) == 1 and len(sizes) > 1:
        wanted = (
            *(size_of(d) for d in what.dims[:dim]),
            len(sizes),
            sizes[0],
            *(size_of(d) for d in what.dims[dim + 1 :]),
        )
        dims = reshape(what.dims, wanted)
        if dims is not None:
            factored = Value(what.proto, tuple(dims))
            return [indexed(factored, dim, place) for place in range(len(sizes))]
    made, start = [], 0
    for size in sizes:
        if not isinstance(size, int):
            raise CannotLift(f"{call.fx.name}: a cut into stretches whose sizes depend on the data is kept whole")
        made.append(narrowed(what, dim, start, size))
        start += size
    return made


def unbind(call: Call) -> list[Value]:
    """Lift the places of a dimension, one by one."""
    what = call.tensor("self")
    (dim,) = call.dims("dim", len(what.dims))
    return [indexed(what, dim, place) for place in range(len(call.fx.meta["val"]))]


def concat(call: Call) -> Value:
    """Lift a join along a dimension."""
    parts = call.tensors("tensors")
    (dim,) = call.dims("dim", len(parts[0].dims))
    return joined(parts, dim, call.sizes[dim], call.fx.name)


def stack(call: Call) -> Value:
    """Lift a join along a new dimension."""
    parts = call.tensors("tensors")
    (dim,) = call.dims("dim", len(parts[0].dims) + 1)
    return stacked(parts, dim, call.fx.name)


def stacked(parts: list[Value], dim: int, origin: str) -> Value:
    """Return parts joined along a new dimension."""
    return joined([with_one(part, dim) for part in parts], dim, len(parts), origin)


def joined(parts: list[Value], dim: int, size: Size, origin: str) -> Value:
    """Return the parts one after another along a dimension."""
    parts = [whole(part, dim) for part in parts]
    ends = [part.dims[dim][0] for part in parts]
    parts = [materialised(part, [end]) for part, end in zip(parts, ends, strict=True)]
    bare = [Value(part.proto, (*part.dims[:dim], (), *part.dims[dim + 1 :])) for part in parts]
    _, dims = broadcast(bare)
    aligned, dims = broadcast([Value(b.proto, b.dims) for b in bare])
    to = Var(size, origin)
    keep_apart([to, *(var for d in dims for var in d)])
    protos = tuple(item.proto for item in aligned)
    own = set(ends)
    present = tuple(dict.fromkeys([*(v for proto in protos for v in proto.axes if v not in own), to]))
    to.solid = True
    to.joined = beginnings(ends)

    def make(names: Names, nodes: tuple[Node, ...]) -> Node:
        return Concat(nodes, tuple(one_axis(names, end).name for end in ends), one_axis(names, to))

    return Value(Proto(protos, present, make), (*dims[:dim], (to,), *dims[dim + 1 :]))


LAYOUT: dict[str, Handler] = {
    **dict.fromkeys(("clone", "alias", "detach", "contiguous", "lift_fresh_copy", "lift_fresh"), same),
    "dropout": dropout,
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "_reshape_alias"), view),
    "permute": permute, "transpose": transpose, "t": all_reversed, "numpy_T": all_reversed, "mT": last_exchanged,
    "unsqueeze": unsqueeze, "expand": expand, "repeat": repeat, "repeat_interleave": repeat_each,
    **dict.fromkeys(("zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like", "scalar_tensor", "empty", "new_empty", "empty_like"), full),
    "arange": arange, "select": select, "slice": slice_, "split": split, "split_with_sizes": split, "chunk": split, "unbind": unbind,
    **dict.fromkeys(("cat", "concat", "concatenate"), concat), "stack": stack,
}  # fmt: skip
