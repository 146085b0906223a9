"""Small mistakes of a lifter, made on purpose in any circuit: each must make a comparison with the module fail.

A mutation returns the changed circuit, or `None` where the circuit has nothing of the kind to get wrong.
"""

from __future__ import annotations

from collections.abc import Callable

from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import rebuild, substitute, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Along, Constant, Einsum, Input, Iota, Map, Multiply

Change = Callable[[Node, tuple[Node, ...]], Node]
OTHER = {"gelu": "gelu_tanh", "gelu_tanh": "gelu", "silu": "quick_gelu", "quick_gelu": "silu", "relu": "gelu_tanh"}
"""For each activation, one that is easily taken for it."""


def everywhere(circuit: Circuit, change: Change) -> Circuit | None:
    """Return the circuit with every node changed, or `None` where that changes nothing."""
    made = circuit.mapped(rebuild([*circuit.roots.values(), *circuit.table.values()], change))
    return None if made.roots == circuit.roots else made


def wrong_activation(circuit: Circuit) -> Circuit | None:
    """Another activation than the module's; the constant of one that is written out changed by a fiftieth."""

    def change(node: Node, operands: tuple[Node, ...]) -> Node:
        if isinstance(node, Map) and node.op in OTHER:
            return Map(OTHER[node.op], operands)
        if isinstance(node, Constant) and node.value in (0.044715, 0.7978845608028654):
            return Constant(float(node.value) * 1.02, node.dtype)
        return node.with_operands(operands)

    return everywhere(circuit, change)


def tenfold_epsilon(circuit: Circuit) -> Circuit | None:
    """Ten times the epsilon of every norm (one as small as 1e-12 changes nothing that shows in 32 bits)."""

    def change(node: Node, operands: tuple[Node, ...]) -> Node:
        if isinstance(node, Along) and node.op == "rms" and node.parameters and float(node.parameters[0]) > 1e-8:
            return Along("rms", operands[0], node.over, (float(node.parameters[0]) * 10,))
        squared = isinstance(node, Map) and node.op in ("rsqrt", "sqrt", "power")
        if squared and isinstance(operands[0], Add):
            inside: Node = operands[0]
            for term in inside.operands:
                if isinstance(term, Constant) and isinstance(term.value, float) and abs(term.value) > 1e-8:
                    larger = substitute([inside], {term: Constant(term.value * 10, term.dtype)})[inside]
                    return node.with_operands([larger, *operands[1:]])
        return node.with_operands(operands)

    return everywhere(circuit, change)


def mask_dropped(circuit: Circuit) -> Circuit | None:
    """Padding taken for real tokens."""
    mask = circuit.inputs.get("attention_mask")
    if mask is None:
        return None
    real = Map("where", (Constant(value=True), Constant(1, "int64"), mask))
    return everywhere(circuit, lambda node, operands: real if node is mask else node.with_operands(operands))


def order_dropped(circuit: Circuit) -> Circuit | None:
    """Every comparison of a query's place with a key's taken to hold: a model that reads the past reads the future too."""

    def change(node: Node, operands: tuple[Node, ...]) -> Node:
        if isinstance(node, Map) and node.op in ("less_equal", "greater_equal") and _compares_places(node):
            return Map("or", (node.with_operands(operands), Map("equal", (Constant(0), Constant(0)))))
        return node.with_operands(operands)

    return everywhere(circuit, change)


def rotary_off_by_one(circuit: Circuit) -> Circuit | None:
    """Queries turned by one place too many (one that turns queries and keys together changes nothing)."""
    changes: dict[Node, Node] = {}
    for layer in _layers(circuit):
        q, turned = circuit.table[f"L{layer}.attn.q"], circuit.table[f"L{layer}.attn.q_rot"]
        if turned is not q:
            below = topological([turned], stop=frozenset({q}))
            places = [one for one in below if isinstance(one, Iota) and one.axis.name == "query"]
            places += [one for one in below if isinstance(one, Input) and one.name == "position_ids"]
            moved = {q: q, **{one: Add((one, Constant(1))) for one in places}}
            changes[turned] = substitute([turned], moved)[turned]
    changes = {old: new for old, new in changes.items() if old is not new}
    return circuit.rewrite(changes, "rotary off by one") if changes else None


def softmax_scale(circuit: Circuit) -> Circuit | None:
    """What enters each softmax one part in fifty too large."""

    def change(node: Node, operands: tuple[Node, ...]) -> Node:
        if isinstance(node, Along) and "softmax" in node.op:
            return Along(node.op, Multiply((operands[0], Constant(1.02))), node.over, node.parameters)
        return node.with_operands(operands)

    return everywhere(circuit, change)


def lost_term(circuit: Circuit) -> Circuit | None:
    """The first layer's products with a bias left without it."""

    def change(node: Node, operands: tuple[Node, ...]) -> Node:
        if (
            isinstance(node, Add)
            and len(operands) == 2
            and isinstance(node.operands[0], Einsum)
            and not node.operands[1].operands
        ):
            return operands[0]
        return node.with_operands(operands)

    return everywhere(circuit, change)


def _compares_places(node: Node) -> bool:
    """Tell whether a comparison is between two counts of positions, one perhaps moved by a number."""
    below = topological(node.operands)
    plain = all(isinstance(one, Iota | Constant | Add) for one in below)
    return plain and len({one.axis.name for one in below if isinstance(one, Iota)}) == 2


def _layers(circuit: Circuit) -> list[int]:
    return [int(name[1:-7]) for name in circuit.table if name.endswith(".attn.q") and name[1:-7].isdigit()]


MUTATIONS: dict[str, Callable[[Circuit], Circuit | None]] = {
    change.__name__.replace("_", " "): change
    for change in (
        wrong_activation,
        tenfold_epsilon,
        mask_dropped,
        order_dropped,
        rotary_off_by_one,
        softmax_scale,
        lost_term,
    )
}
