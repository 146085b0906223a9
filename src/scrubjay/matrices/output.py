"""What attention writes: its output projection, where heads stand apart too, and the norm between it and the stream."""

from __future__ import annotations

from dataclasses import dataclass, replace

from scrubjay.capture.model import Model
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Constant, Einsum, Index, Map, Multiply
from scrubjay.circuit.places import selection
from scrubjay.circuit.recognisers.facts import norm_at, without_casts
from scrubjay.circuit.rules.facts import product, reads_input, relabelled, total
from scrubjay.matrices.linear import PLACES, READ, Linear, carried, linear


@dataclass(frozen=True, eq=False)
class After:
    """What stands between the output projection and the stream: a norm, if `normed`, and its own weights over the model's axis.

    Bare numbers, such as a multiplier of what a layer adds, are left out.
    """

    scale: Node | None
    centered: bool
    normed: bool


def after(model: Model, layer: int) -> After | str:
    """Return what is done to what the output projection gives before it is added to the stream, or what stands there that is unknown."""
    table = model.circuit.table
    out, projected = table.get(f"L{layer}.attn.out"), table.get(f"L{layer}.attn.o")
    scales = list[Node]()
    normed = centered = False
    if out is None or projected is None:
        return After(None, centered, normed)
    node, end = without_casts(out), without_casts(projected)
    while node is not end:
        norm = norm_at(node)
        if norm is not None and not normed:
            normed, centered = True, norm.centered
            node = norm.source
            continue
        place = carried(node)
        if isinstance(place, str):
            return place
        others = [one for at, one in enumerate(node.operands) if at != place]
        if isinstance(node, Multiply):
            scales += [one for one in others if one.axes]
        if not isinstance(node, Add) and any(one.axes for one in others) and (normed or not isinstance(node, Multiply)):
            return f"{type(node).__name__} by a weight"
        node = without_casts(node.operands[place])
    return After(product(scales) if scales else None, centered, normed)


def projection(model: Model, layer: int, written: Node) -> Linear | str:
    """Return the output projection of a layer, whose value is `written`, as a map of `attn.z`: also where heads were split, or some of them changed.

    What the circuit holds of a head whose output was changed is the weight that it had.
    """
    table = model.circuit.table
    whole = linear(written)
    if isinstance(whole, Linear):
        return whole
    terms = _heads(model, layer)
    inner = table.get(f"L{layer}.attn._product")
    bias = _bias(written, {*terms, *([] if inner is None else [inner])})
    if isinstance(bias, str):
        return bias
    if isinstance(inner, Einsum):
        found = linear(inner)
        if isinstance(found, str):
            return found
        return replace(found, source=without_casts(_unmasked(found.source)), bias=bias)
    apart = _apart(model, layer)
    gone = [head for head, one in apart.items() if one is None]
    if gone or not apart:
        names = ", ".join(f"L{layer}.H{head}.out" for head in gone)
        return f"{names} was replaced where heads stand apart, and its weights with it" if gone else whole
    return replace(_joined(model, layer, {head: one for head, one in apart.items() if one is not None}), bias=bias)


def changed(model: Model, layer: int) -> tuple[int, ...]:
    """Return the heads whose output is no product of weights with what attention mixed any more: an intervention put another there."""
    table = model.circuit.table
    if not any(f"L{layer}.H{head}.out" in table for head in range(model.anatomy.layers[layer].heads)):
        return ()
    return tuple(head for head, one in _apart(model, layer).items() if one is None and f"L{layer}.H{head}.out" in table)


def _heads(model: Model, layer: int) -> list[Node]:
    table = model.circuit.table
    names = (f"L{layer}.H{head}.out" for head in range(model.anatomy.layers[layer].heads))
    return [table[name] for name in names if name in table]


def _apart(model: Model, layer: int) -> dict[int, Linear | None]:
    """Return each head's own map of its part of `attn.z`; `None` where the head's term is no such map."""
    anatomy, table = model.anatomy.layers[layer], model.circuit.table
    z = without_casts(table[f"L{layer}.attn.z"]) if f"L{layer}.attn.z" in table else None
    found: dict[int, Linear | None] = {}
    for head in range(anatomy.heads):
        term = table.get(f"L{layer}.H{head}.out")
        made = linear(term) if term is not None else "it does not stand apart"
        mine = isinstance(made, Linear) and _part_of(made.source) == (z, frozenset(anatomy.head_index(head).items()))
        found[head] = made if isinstance(made, Linear) and mine else None
    return found


def _part_of(node: Node) -> tuple[Node, frozenset[tuple[str, int]]]:
    """Return what a value is a place of, and which."""
    at: dict[str, int] = {}
    while isinstance(node, Index) or without_casts(node) is not node:
        if isinstance(node, Index):
            at[node.axis] = node.at
            node = node.source
        else:
            node = without_casts(node)
    return node, frozenset(at.items())


def _joined(model: Model, layer: int, apart: dict[int, Linear]) -> Linear:
    """Return one map of all heads from a map for each."""
    anatomy = model.anatomy.layers[layer]
    sizes = dict(anatomy.head_axes)
    matrix: Node | None = None
    for head, one in apart.items():
        mine = selection(anatomy.head_index(head), sizes)
        if mine is None:
            matrix = one.matrix
            continue
        chosen = relabelled(mine, [(name, name + READ) for name in sizes])
        matrix = Map("where", (chosen, one.matrix, Constant(0.0) if matrix is None else matrix))
    assert matrix is not None
    first = apart[0]
    return Linear(model.circuit.table[f"L{layer}.attn.z"], matrix, None, (*first.reads, *sizes))


def _bias(written: Node, parts: set[Node]) -> Node | str | None:
    """Return what a sum adds to the heads' terms."""
    biases = list[Node]()
    stack = [written]
    while stack:
        node = without_casts(stack.pop())
        if node in parts:
            continue
        if isinstance(node, Add):
            stack += reversed(node.terms)
        elif reads_input(node) or PLACES & node.axis_names:
            return f"beside the heads, {type(node).__name__} is added"
        else:
            biases.append(node)
    return total(biases) if biases else None


def _unmasked(node: Node) -> Node:
    """Return the value below zeros that stand at some heads, as a change of those heads leaves it."""
    while isinstance(node, Map) and node.op == "where" and not reads_input(node.inputs[0]):
        mask, zero, value = node.inputs
        if not (isinstance(zero, Constant) and not zero.value) or PLACES & mask.axis_names:
            break
        node = without_casts(value)
    return node
