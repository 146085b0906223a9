"""A bias that a module adds after the residual addition, (stream + x W) + b, moved to what it belongs to: stream + (x W + b).

So written in one line of code, the bias would else be no one's: not in what the part writes, and between two streams. The
sum is the same number but for its rounding.
"""

from __future__ import annotations

from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import rebuild
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add
from scrubjay.circuit.recognisers.facts import Facts, facts, projection


def with_biases_inside(circuit: Circuit) -> Circuit:
    """Return the circuit with every such bias moved into the linear map it follows (the same circuit if there is none)."""
    known = facts(circuit.nodes, circuit.roots.values())
    if not any(_parts(node, known) for node in known.nodes):
        return circuit

    def change(node: Node, operands: tuple[Node, ...]) -> Node:
        parts = _parts(node, known)
        if parts is None:
            return node.with_operands(operands)
        inner, written = parts
        outer = list(operands)
        terms = list(outer.pop(node.operands.index(inner)).operands)
        place = inner.operands.index(written)
        terms[place] = Add((terms[place], *outer))
        return Add(tuple(terms))

    made = rebuild([*circuit.roots.values(), *circuit.table.values()], change)
    roots = {name: made[node] for name, node in circuit.roots.items()}
    return Circuit(
        roots, {address: made[node] for address, node in circuit.table.items()}, circuit.removed, circuit.history
    )


def _parts(node: Node, known: Facts) -> tuple[Node, Node] | None:
    """Return, of a bias added to a sum, that sum and the one of its two terms that is a linear map's output."""
    if not isinstance(node, Add) or len(node.terms) != 2 or len(known.data_operands(node)) != 1:
        return None
    (inner,) = known.data_operands(node)
    if (
        not isinstance(inner, Add)
        or len(known.data_operands(inner)) != 2
        or len(inner.terms) != 2
        or known.readers[inner] != [node]
    ):
        return None
    written = [term for term in inner.terms if projection(term, known) is not None]
    return (inner, written[0]) if len(written) == 1 else None
