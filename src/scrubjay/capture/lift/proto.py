"""Nodes in the making: expressions whose axes are still variables.

A proto is an operand list, the variables it has, and a function that makes the real node once every variable has its name.
The functions here are the whole vocabulary the operator tables use; alignment, broadcasting and renaming happen here alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scrubjay.capture.lift.layout import (
    CannotLift,
    Dim,
    Size,
    Var,
    align,
    atoms,
    can_unify,
    divides,
    keep_apart,
    root,
    size_of,
    unify,
)
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Constant, Einsum, Gather, Iota, Map, Merge, Relabel, Repeat, Split

Names = Callable[[Sequence[Var]], tuple[Axis, ...]]
Make = Callable[[Names, tuple[Node, ...]], Node]

KEY = "key"


@dataclass(eq=False)
class Proto:
    """A node in the making: its operands, its axis variables, and how to make it; `count` is set for 0, 1, 2, ... along one."""

    operands: tuple[Proto, ...]
    vars: Dim
    make: Make
    count: Var | None = None

    @property
    def axes(self) -> Dim:
        """The unsplit variables it has."""
        return atoms(self.vars)


@dataclass(eq=False)
class Value:
    """A captured tensor: the proto that computes it, and the layout of its dimensions."""

    proto: Proto
    dims: tuple[Dim, ...]

    def __post_init__(self) -> None:
        """Variables in one layout may never become one."""
        keep_apart(var for dim in self.dims for var in dim)

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The size of each dimension."""
        return tuple(size_of(dim) for dim in self.dims)


def value(operands: Sequence[Proto], dims: Sequence[Dim], make: Make, lacking: Sequence[Var] = ()) -> Value:
    """Return a new value whose proto has every variable of `dims` but those in `lacking` (broadcast ones)."""
    flat = [var for dim in dims for var in dim]
    absent = set(atoms(lacking))
    return Value(Proto(tuple(operands), tuple(v for v in atoms(flat) if v not in absent), make), tuple(dims))


def constant(number: bool | float, dtype: str | None = None) -> Value:
    """Return a number without dimensions."""
    node = Constant(number, dtype)
    return Value(Proto((), (), lambda _names, _nodes: node), ())


def named_constant(which: str, dtype: str) -> Value:
    """Return the least (`"min"`) or greatest (`"max"`) number of a type."""
    node = Constant(which, dtype)
    return Value(Proto((), (), lambda _names, _nodes: node), ())


def iota(size: Size, origin: str) -> Value:
    """Return 0, 1, 2, ... along a new variable."""
    var = Var(size, origin, solid=True)
    return Value(Proto((), (var,), lambda names, _nodes: Iota(names((var,))[0]), var), ((var,),))


def renamed(what: Value, table: dict[Var, Var]) -> Value:
    """Return the value with variables exchanged for others of the same size, all at once (a `Relabel`, if names differ)."""
    table = {root(old): root(new) for old, new in table.items() if root(old) is not root(new)}
    if not table:
        return what
    dims = tuple(tuple(table.get(var, var) for var in atoms(dim)) for dim in what.dims)
    used = {old: new for old, new in table.items() if old in what.proto.axes}
    if not used:
        return Value(what.proto, dims)

    def make(names: Names, nodes: tuple[Node, ...]) -> Node:
        pairs = tuple(
            (old.name, new.name)
            for a, b in used.items()
            for old, new in zip(names((a,)), names((b,)), strict=True)
            if old.name != new.name
        )
        return relabel(nodes[0], pairs)

    proto = Proto((what.proto,), tuple(table.get(var, var) for var in what.proto.axes), make)
    return Value(proto, dims)


def relabel(node: Node, pairs: tuple[tuple[str, str], ...]) -> Node:
    """Return the node with axes renamed; an iota is simply counted along the new name."""
    pairs = tuple(sorted(pair for pair in pairs if pair[0] != pair[1] and pair[0] in node.axis_names))
    if not pairs:
        return node
    if isinstance(node, Iota):
        return Iota(Axis(pairs[0][1], node.axis.size))
    return Relabel(node, pairs)


def _conflict(one: Var, two: Var) -> bool:
    """Tell whether, of two variables that must be walked together, the *first* value's should be renamed."""
    return two.fixed == KEY or (two.fixed is not None and one.fixed is None)


def matched(one: Value, two: Value, pairs: Sequence[tuple[Dim, Dim]]) -> tuple[Value, Value]:
    """Return both values with the paired dimensions on the same variables: unified where possible, else renamed."""
    first: dict[Var, Var] = {}
    second: dict[Var, Var] = {}
    for left, right in pairs:
        cut = align(left, right)
        if cut is None:
            raise CannotLift(f"dimensions of {size_of(left)} and {size_of(right)} places cannot be walked together")
        for a, b in cut:
            a_, b_ = root(a), root(b)
            if can_unify(a_, b_):
                unify(a_, b_)
            elif _conflict(a_, b_):
                first[a_] = b_
            else:
                second[b_] = a_
    for old, new in list(first.items()):  # (query, key) against (key, query): one side alone is renamed
        if new in second.values():
            del first[old]
            second[new] = old
    return _freed(one, first), _freed(two, second)


def _freed(what: Value, table: dict[Var, Var]) -> Value:
    """Rename, moving out of the way any other dimension that already has a new name."""
    here = {var for dim in what.dims for var in atoms(dim)}
    full = dict(table)
    for new in table.values():
        if new in here and new not in full:
            full[new] = fresh(new, here | set(table.values()))
    return renamed(what, full)


def fresh(var: Var, avoid: set[Var]) -> Var:
    """Return a variable like `var` that is not among `avoid`; a second `query` is called `key`."""
    if var.fixed == "query" and (key := _new_key(var)) not in avoid:
        return key
    return Var(var.size, f"{var.origin}'")


def _new_key(query: Var) -> Var:
    known = next((found for var in query.apart if (found := root(var)).fixed == KEY), None)
    if known is not None:
        return known
    key = Var(query.size, KEY, fixed=KEY)
    query.apart.add(key)
    key.apart.add(query)
    return key


def distinct(what: Value, other: Value, dims: Sequence[Dim]) -> Value:
    """Return `what` with those variables of `dims` renamed that also occur in `other` (whose dimensions lie elsewhere)."""
    taken = {var for dim in other.dims for var in atoms(dim)}
    here = {var for dim in what.dims for var in atoms(dim)}
    clash: dict[Var, Var] = {}
    for var in (var for dim in dims for var in atoms(dim) if var in taken):
        clash[var] = fresh(var, taken | (here - {var}) | set(clash.values()))
    return _freed(what, clash)


def broadcast(values: Sequence[Value]) -> tuple[list[Value], list[Dim]]:
    """Return values walked together by torch's broadcasting rule, and the dimensions of what they make."""
    rank = max(len(item.dims) for item in values)
    aligned = list(values)
    for this in range(1, len(aligned)):
        for other in range(this):
            aligned[other], aligned[this] = _aligned(aligned[other], aligned[this])
    for this in range(1, len(aligned)):
        for other in range(this):
            aligned[this] = _clear(aligned[other], aligned[this])
    dims: list[Dim] = [()] * rank
    for item in aligned:
        for place in range(1, len(item.dims) + 1):
            if not dims[-place]:
                dims[-place] = item.dims[-place]
    return aligned, dims


def _whole_where_needed(one: Value, two: Value, places: Sequence[tuple[int, int]]) -> tuple[Value, Value]:
    """Return both values, those paired dimensions of equal size merged whose products do not divide alike: (3 x 2), (2 x 3)."""
    for a, b in places:
        left, right = one.dims[a], two.dims[b]
        if left and right and size_of(left) == size_of(right) and not divides(left, right):
            one, two = whole(one, a % len(one.dims)), whole(two, b % len(two.dims))
    return one, two


def _aligned(one: Value, two: Value) -> tuple[Value, Value]:
    both = min(len(one.dims), len(two.dims))
    one, two = _whole_where_needed(one, two, [(-i, -i) for i in range(1, both + 1)])
    pairs = [(one.dims[-i], two.dims[-i]) for i in range(1, both + 1) if one.dims[-i] and two.dims[-i]]
    return matched(one, two, pairs)


def _clear(one: Value, two: Value) -> Value:
    """Rename variables of `two` that `one` has at another dimension."""
    clash: list[Dim] = []
    for place, dim in enumerate(reversed(two.dims), start=1):
        mine = set(atoms(one.dims[-place])) if place <= len(one.dims) else set()
        elsewhere = {v for i, d in enumerate(reversed(one.dims), start=1) if i != place for v in atoms(d)}
        clash.extend((var,) for var in atoms(dim) if var in elsewhere and var not in mine)
    return distinct(two, one, clash) if clash else two


def pointwise(make: Callable[[tuple[Node, ...]], Node], values: Sequence[Value]) -> Value:
    """Return an element-by-element function of values, broadcast as torch does."""
    aligned, dims = broadcast(values)
    protos = tuple(item.proto for item in aligned)
    present = atoms(var for proto in protos for var in proto.vars)
    once = tuple(dict.fromkeys(present))
    return Value(Proto(protos, once, lambda _names, nodes: make(nodes)), tuple(dims))


def mapped(op: str, values: Sequence[Value], parameters: tuple[bool | int | float | str, ...] = ()) -> Value:
    """Return a `Map` of values."""
    return pointwise(lambda nodes: Map(op, nodes, parameters), values)


def contract(
    one: Value, two: Value, together: Sequence[tuple[int, int]], summed: Sequence[tuple[int, int]]
) -> tuple[Value, Value, Proto]:
    """Return both operands and their contraction: `together` pairs of dimensions walked along, `summed` pairs summed over.

    All other dimensions stay free; a free axis that both have is renamed in the second (`query` becomes `key`).
    """
    free = [i for i in range(len(two.dims)) if i not in {b for _, b in (*together, *summed)}]
    two = distinct(two, one, [two.dims[i] for i in free])
    one, two = _whole_where_needed(one, two, [*together, *summed])
    pairs = [(one.dims[a], two.dims[b]) for a, b in (*together, *summed) if one.dims[a] and two.dims[b]]
    one, two = matched(one, two, pairs)
    gone = tuple(dict.fromkeys(var for a, b in summed for var in (*atoms(one.dims[a]), *atoms(two.dims[b]))))
    both = dict.fromkeys([*one.proto.axes, *two.proto.axes])
    lost = [var for var in gone if var not in both]
    scale = 1
    for var in lost:
        if not isinstance(var.size, int):
            raise CannotLift("a sum over a broadcast axis of unknown size is not supported; please report the model")
        scale *= var.size

    def make(names: Names, nodes: tuple[Node, ...]) -> Node:
        have = nodes[0].axis_names | nodes[1].axis_names
        over = tuple(sorted(axis.name for axis in names(gone) if axis.name in have))
        factors = nodes if scale == 1 else (*nodes, Constant(scale))
        return Einsum(factors, over)

    return one, two, Proto((one.proto, two.proto), tuple(var for var in both if var not in gone), make)


def looked_up(source: Value, dim: int, index: Value) -> Value:
    """Return `source` read along `dim` at `index`, whose dimensions take the place of that dimension."""
    source = whole(source, dim)
    axis = source.dims[dim][0]
    dims = [*source.dims[:dim], *index.dims, *source.dims[dim + 1 :]]
    present = [*(var for var in source.proto.axes if var is not axis), *index.proto.axes]
    if axis not in source.proto.axes:
        return Value(source.proto, tuple(dims))

    def make(names: Names, nodes: tuple[Node, ...]) -> Node:
        name = names((axis,))[0].name
        if isinstance(nodes[1], Iota) and nodes[1].axis.size == nodes[0].size(name):
            return relabel(nodes[0], ((name, nodes[1].axis.name),))
        if name in nodes[1].axis_names:
            other = Axis(f"{name}'", nodes[0].size(name))
            return Gather(relabel(nodes[0], ((name, other.name),)), other.name, nodes[1])
        return Gather(nodes[0], name, nodes[1])

    return Value(Proto((source.proto, index.proto), tuple(dict.fromkeys(present)), make), tuple(dims))


def whole(what: Value, dim: int) -> Value:
    """Return the value with one unsplit, unsplittable variable at `dim` (a `Merge` where it is a product)."""
    here = atoms(what.dims[dim])
    if len(here) == 1:
        here[0].solid = True
        return Value(what.proto, (*what.dims[:dim], here, *what.dims[dim + 1 :]))
    if not here:
        var = Var(1, f"{what.proto.vars[0].origin if what.proto.vars else 'one'}+1", solid=True)
        return Value(what.proto, (*what.dims[:dim], (var,), *what.dims[dim + 1 :]))
    if any(var not in what.proto.axes for var in here):
        what = materialised(what, here)
    to = Var(size_of(here), "+".join(var.origin for var in here), solid=True)
    rest = [var for var in what.proto.axes if var not in here]

    def make(names: Names, nodes: tuple[Node, ...]) -> Node:
        return Merge(nodes[0], tuple(axis.name for axis in names(here)), names((to,))[0])

    return Value(Proto((what.proto,), (*rest, to), make), (*what.dims[:dim], (to,), *what.dims[dim + 1 :]))


def materialised(what: Value, needed: Sequence[Var]) -> Value:
    """Return the value with the broadcast variables among `needed` made real."""
    lacking = [var for var in atoms(needed) if var not in what.proto.axes]
    if not lacking:
        return what

    def make(names: Names, nodes: tuple[Node, ...]) -> Node:
        return Repeat(nodes[0], names(lacking))

    return Value(Proto((what.proto,), (*what.proto.axes, *lacking), make), what.dims)


def end_split(what: Value, size: Size, origin: str) -> Value:
    """Return the value with its last axis split (a `Split`), where it is used whole and is to end in `size` places."""
    last = atoms(what.dims[-1])
    var = last[-1] if last else None
    if var is None or not isinstance(var.size, int) or not isinstance(size, int) or var not in what.proto.axes:
        return what
    if not var.solid or var.fixed is not None or not 1 < size < var.size or var.size % size:
        return what
    into = (Var(var.size // size, f"{origin}.outer"), Var(size, f"{origin}.inner"))
    keep_apart([*into, *(one for dim in what.dims for one in dim if root(one) is not var)])

    def make(names: Names, nodes: tuple[Node, ...]) -> Node:
        return Split(nodes[0], names((var,))[0].name, names(into))

    rest = tuple(one for axis in what.proto.axes for one in (into if axis is var else (axis,)))
    return Value(Proto((what.proto,), rest, make), (*what.dims[:-1], (*last[:-1], *into)))
