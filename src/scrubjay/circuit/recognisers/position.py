"""Positions of a model that does not name them: the axes of its attention's queries and keys, found by shape.

A vision transformer makes its positions of patches, and a module in hand may be captured for one length: no input then has an
axis `query`. Where every softmax over scores of two positions agrees on which axis asks, that one is `query`, the other `key`.
"""

from __future__ import annotations

from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Along, Einsum
from scrubjay.circuit.recognisers.facts import Facts, facts
from scrubjay.circuit.renaming import rename_axes


def with_positions(circuit: Circuit) -> Circuit:
    """Return the circuit with its axes of positions named `query` and `key`; as it is where they have names, or cannot be told."""
    nodes = topological([*circuit.roots.values(), *circuit.table.values()])
    if any("query" in node.axis_names for node in nodes):
        return circuit
    known = facts(tuple(nodes), circuit.roots.values())
    pairs = [pair for node in nodes if isinstance(node, Along) and (pair := _positions(node, known)) is not None]
    asking = {query for query, _ in pairs}
    if len(asking) != 1:
        return circuit
    names = {**{key: "key" for _, key in pairs}, **dict.fromkeys(asking, "query")}
    return circuit.mapped(rename_axes([*circuit.roots.values(), *circuit.table.values()], names))


def _positions(softmax: Along, known: Facts) -> tuple[str, str] | None:
    """Return the axes (query, key) of a softmax over scores, or None where it is another kind of softmax."""
    if softmax.op not in {"softmax", "safe_softmax"} or len(softmax.over) != 1 or softmax not in known.data:
        return None
    (key,) = softmax.over
    stack, seen = [softmax.source], set[Node]()
    while stack:
        node = stack.pop()
        if node in seen or key not in node.axis_names:
            continue
        seen.add(node)
        if isinstance(node, Einsum) and node.summed and len(known.data_operands(node)) == len(node.factors) == 2:
            one, two = node.factors
            asks, answers = (two, one) if key in one.axis_names else (one, two)
            size = softmax.source.size(key)
            only = [name for name in asks.axis_names - answers.axis_names if name in softmax.axis_names]
            only = [name for name in only if name != "batch" and asks.size(name) == size]
            if key not in asks.axis_names and len(only) == 1:
                return only[0], key
        stack.extend(reversed(node.operands))
    return None
