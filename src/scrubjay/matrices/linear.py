"""Linear maps, read off a circuit: the matrix, the bias and what it reads, as expressions over weights alone.

A value such as queries is a contraction of something with weights, and then moved, cut and shifted (one weight that makes
queries, keys and values is cut in three). What is done to the value is done to the matrix instead: every such operation is
pointwise along the axes that the contraction summed, so the matrix takes the value's place, its own reading axes beside.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Along,
    Constant,
    Einsum,
    Experts,
    Gather,
    Index,
    Map,
    Merge,
    Multiply,
    Narrow,
    Relabel,
    Repeat,
    Split,
)  # fmt: skip
from scrubjay.circuit.recognisers.facts import norm_at, without_casts
from scrubjay.circuit.rules.facts import contraction, product, reads_input, relabelled, total, widened
from scrubjay.circuit.rules.linearity import image

PLACES = frozenset({"row", "sample", "batch", "query", "key", "chosen", "position"})
"""Axes of data: no weight has them."""

READ = ".read"
"""Ends the name of an axis that a matrix reads, so that it is never one that it writes."""


@dataclass(frozen=True, eq=False)
class Linear:
    """The map value = source . matrix + bias: `reads` are the source's axes that are summed, named `model.read` in the matrix.

    `matrix` and `bias` read no input. `experts` is the axis that experts are chosen along, in a mixture.
    """

    source: Node
    matrix: Node
    bias: Node | None
    reads: tuple[str, ...]
    experts: str | None = None


@dataclass(frozen=True, eq=False)
class Affine:
    """What a norm's own weights do after it: value = normalized * scale + bias."""

    normalized: Node
    scale: Node | None
    bias: Node | None
    centered: bool


def linear(value: Node) -> Linear | str:
    """Return the linear map that gives a value, or why it is given by none: the outermost contraction with weights below it.

    >>> from scrubjay.circuit.axes import Axis
    >>> from scrubjay.circuit.ops import Input, Weight
    >>> x, w = Input("x", (Axis("model", 2),)), Weight("model", "w", ((Axis("model", 2),), (Axis("hidden", 3),)))
    >>> found = linear(Einsum((x, w), ("model",)))
    >>> found.source is x, [str(axis) for axis in found.matrix.axes]
    (True, ['hidden=3', 'model.read=2'])
    """
    steps: list[tuple[Node, int]] = []
    node = value
    while True:
        found = _product(node)
        if found is not None:
            return found if isinstance(found, str) else _moved(found, steps)
        place = carried(node)
        if isinstance(place, str):
            return place
        steps.append((node, place))
        node = node.operands[place]


def _product(node: Node) -> Linear | str | None:
    """Return the map of a contraction with weights; `None` of a node that is no contraction, and in words why it is not linear."""
    if isinstance(node, Experts):
        if reads_input(node.weights):
            return "the matrices of its experts depend on an input"
        matrix = relabelled(node.weights, [(name, name + READ) for name in node.summed])
        return Linear(without_casts(node.source), matrix, None, node.summed, node.axis)
    if not isinstance(node, Einsum):
        return None
    data = [one for one in node.factors if reads_input(one)]
    own = [one for one in node.factors if not reads_input(one)]
    reads = tuple(name for name in node.summed if len(data) == 1 and name in data[0].axis_names)
    if len(data) != 1 or not own or not reads:
        return f"{len(data)} values that depend on inputs are multiplied with each other"
    if PLACES & (set(reads) | {name for one in own for name in one.axis_names}):
        return "it mixes positions"
    matrix = contraction(own, [name for name in node.summed if name not in reads])
    matrix = widened(matrix, [axis for axis in data[0].axes if axis.name in reads])
    return Linear(without_casts(data[0]), relabelled(matrix, [(name, name + READ) for name in reads]), None, reads)


def carried(node: Node, *, row: bool = False) -> int | str:
    """Return which operand holds the value that a linear step carries on, or why the step is not linear.

    A row of a table that an input chooses is the bias of experts; it is the value itself where `row` says so.
    """
    name = f"{node.op} " if isinstance(node, Map | Along) else f"{type(node).__name__} "
    if isinstance(node, Index | Narrow | Split | Merge | Relabel | Repeat):
        return 0 if not PLACES & node.acts_along else f"it moves positions ({name.strip()})"
    if isinstance(node, Map) and node.op == "cast":
        return 0
    data = [place for place, one in enumerate(node.operands) if reads_input(one) and (row or not _is_chosen_bias(one))]
    others = {axis for place, one in enumerate(node.operands) if place not in data for axis in one.axis_names}
    free = not PLACES & others or (not row and any(map(_is_chosen_bias, node.operands)))
    match node:
        case Add() | Multiply() if len(data) == 1 and free:
            return data[0]
        case Map(op="divide") if data == [0] and free:
            return 0
        case Gather() if data == [0] and free:
            return 0
        case Along(op="sum" | "mean") if not PLACES & set(node.over):
            return 0
        case _:
            return f"{name}of {len(data)} value{'' if len(data) == 1 else 's'} that depend on inputs stands there"


def _is_chosen_bias(node: Node) -> bool:
    """Tell whether a node is the bias of the experts that were chosen."""
    return isinstance(node, Gather) and not reads_input(node.source) and reads_input(node.index)


def _moved(found: Linear, steps: Sequence[tuple[Node, int]]) -> Linear | str:
    """Return the map after the steps that its value passes, the last of them first."""
    matrix, bias = found.matrix, found.bias
    for node, place in reversed(steps):
        if isinstance(node, Map) and node.op == "cast":
            continue
        if isinstance(node, Add):
            others = [_bias_of(one, found) for at, one in enumerate(node.terms) if at != place]
            if any(one is None for one in others):
                return "its bias is chosen by another index than its matrix"
            bias = total([*([] if bias is None else [bias]), *(one for one in others if one is not None)])
        else:
            matrix = image(node, place, matrix)
            bias = None if bias is None else image(node, place, bias)
        wide = [axis for axis in node.axes if axis.name not in PLACES]
        matrix = widened(matrix, wide)
    return replace(found, matrix=matrix, bias=bias)


def _bias_of(term: Node, found: Linear) -> Node | None:
    if not _is_chosen_bias(term):
        return term
    assert isinstance(term, Gather)
    return None if found.experts is None else relabelled(term.source, [(term.axis, found.experts)])


def affine(source: Node, stop: Collection[Node] = ()) -> Affine | None:
    """Return the norm that a value is, up to the norm's own weights; `None` where it is none, or a node of `stop` comes first."""
    scales, shifts = list[Node](), list[Node]()
    node = source
    while True:
        node = without_casts(node)
        if node in stop:
            return None
        norm = norm_at(node)
        if norm is not None:
            centered = norm.centered
            return Affine(norm.normalized, product(scales) if scales else None, total(shifts) if shifts else None, centered)  # fmt: skip
        place = carried(node) if isinstance(node, Add | Multiply) else ""
        if isinstance(place, str):
            return None
        others = [one for at, one in enumerate(node.operands) if at != place]
        if isinstance(node, Add):
            shifts += [product([*scales, one]) for one in others]
        else:
            scales += others
        node = node.operands[place]


def with_norm(found: Linear, norm: Affine) -> Linear:
    """Return the map as one of the value before the norm's own weights: W' = scale W, less its mean where the norm centres.

    The bias becomes b' = b + shift W. Value and map agree as before: a centred value does not see a matrix's mean.
    """
    pairs = [(name, name + READ) for name in found.reads]
    matrix, bias = found.matrix, found.bias
    if norm.bias is not None:
        shift = widened(
            relabelled(norm.bias, pairs), [axis for axis in matrix.axes if axis.name in dict(pairs).values()]
        )
        more = contraction([shift, matrix], dict(pairs).values())
        bias = more if bias is None else Add((bias, more))
    if norm.scale is not None:
        matrix = Multiply((relabelled(norm.scale, pairs), matrix))
    if norm.centered:
        matrix = Along("center", matrix, tuple(dict(pairs).values()))
    return replace(found, source=norm.normalized, matrix=matrix, bias=bias)


def looked_up(value: Node) -> Linear | str:
    """Return the table that a value is looked up in, as a linear map of which row is read: `reads` is the table's axis.

    What is done to the row after (a scale, a projection) is in the matrix; a norm after it is not, and what it reads is meant.
    """
    steps: list[tuple[Node, int]] = []
    node = value
    while not _is_chosen_bias(node):
        if (
            isinstance(node, Narrow) and node.to.name == "query" and not reads_input(node)
        ):  # the first rows, one for each place
            matrix = relabelled(_from_row(node.source, node.axis, node.start), [(node.axis, node.axis + READ)])
            return _moved(Linear(node, matrix, None, (node.axis,)), steps)
        norm = norm_at(without_casts(node))
        if norm is not None:
            node, steps = norm.source, []
            continue
        place = _row(node)
        if isinstance(place, str):
            return place
        steps.append((node, place))
        node = node.operands[place]
    assert isinstance(node, Gather)
    matrix = relabelled(_from_offset(node), [(node.axis, node.axis + READ)])
    return _moved(Linear(node.index, matrix, None, (node.axis,)), steps)


def _row(node: Node) -> int | str:
    """Return which operand of a step holds the row that was looked up, or why there is none."""
    if isinstance(node, Einsum):
        data = [place for place, one in enumerate(node.factors) if reads_input(one)]
        return data[0] if len(data) == 1 and not PLACES & set(node.summed) else "it is no row of a table"
    return carried(node, row=True)


def _from_offset(node: Gather) -> Node:
    """Return the table from the row of position 0 on, where a fixed number is added to the position."""
    index = without_casts(node.index)
    if isinstance(index, Add) and len(index.terms) == 2:
        fixed = next((one.value for one in index.terms if isinstance(one, Constant)), None)
        if isinstance(fixed, int) and fixed > 0:
            return _from_row(node.source, node.axis, fixed)
    return node.source


def _from_row(table: Node, axis: str, start: int) -> Node:
    size = table.size(axis)
    if not isinstance(size, int) or not 0 < start < size:
        return table
    whole = next(one for one in table.axes if one.name == axis)
    return Narrow(table, axis, start, whole._replace(size=size - start))
