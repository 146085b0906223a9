"""Changing a node along some paths only: every other use of it, and of what reads it elsewhere, stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from scrubjay.circuit.circuit import Circuit, is_note
from scrubjay.circuit.graph import topological
from scrubjay.circuit.match.machine import State
from scrubjay.circuit.match.reach import Reached
from scrubjay.circuit.match.search import Selector, searched
from scrubjay.circuit.node import Node
from scrubjay.circuit.recognisers import Anatomy

Key = tuple[Node, frozenset[State]]


def update(
    circuit: Circuit,
    what: Selector,
    change: Node | Callable[[Node], Node],
    name: str = "update",
    *,
    anatomy: Anatomy | None = None,
) -> Circuit:
    """Return the circuit with the node at the end of each walk replaced, there and nowhere else.

    It gives what one would get by copying the graph out into a tree, in which each use of a node is a copy of its own, and
    replacing the copies that the walks end at, the lowest first. Nodes on no such walk stay shared, so that the new circuit
    has few nodes more than the old one. For a matcher, all uses are replaced.

    Args:
        circuit: the circuit, which stays as it is.
        what: the paths (from sender to receiver; it is the sender that is replaced), or a matcher.
        change: the replacement, or a function from the node to its replacement. Where a walk goes on below an end to
            another end, the function is given the node with that one already replaced.
        name: what the history calls the rewrite.
        anatomy: the model's anatomy, as for `find`.

    An address stays with its node as long as any use of that node stays as it was; else it goes with what the node became.
    Where that is several different nodes, the address is gone: the circuit's `removed` says so.

    Raises `MatchError` if nothing is found, and `CircuitError` where a replacement's axes do not fit its readers.

    >>> from scrubjay.circuit.axes import Axis
    >>> from scrubjay.circuit.match import path
    >>> from scrubjay.circuit.ops import Add, Constant, Input, Map
    >>> x = Input("x", (Axis("model", 4),))
    >>> one, two = Map("relu", (x,)), Map("exp", (x,))
    >>> made = update(Circuit({"output": Add((one, two))}), path(x, two), Constant(0.0))
    >>> made.roots["output"] is Add((one, Map("exp", (Constant(0.0),))))
    True
    """
    found = searched(circuit, what, anatomy)
    made: dict[Key, Node] = {}
    begin = {result: frozenset(state for _, state in found.begin[result]) for result in circuit.roots}
    for result, root in circuit.roots.items():
        _rebuild(found, (root, begin[result]), change, made)
    roots = {result: made[root, begin[result]] for result, root in circuit.roots.items()}
    return _carried(circuit, roots, made, name)


def _below(found: Reached, key: Key) -> list[Key]:
    """Return the operands of a node, each with the states of the walks that go on to it."""
    node, states = key
    after: list[set[State]] = [set() for _ in node.operands]
    for state in states:
        for slot, (_, new) in found.steps[node, state]:
            after[slot].add(new)
    return [(operand, frozenset(new)) for operand, new in zip(node.operands, after, strict=True)]


def _rebuild(found: Reached, start: Key, change: Node | Callable[[Node], Node], made: dict[Key, Node]) -> None:
    """Fill in what a node becomes on the walks that reach it in some states, and all that lies below on them."""
    stack: list[tuple[Key, list[Key] | None]] = [(start, None)]
    while stack:
        key, below = stack.pop()
        if key in made:
            continue
        node, states = key
        if not states:
            made[key] = node
        elif below is None:
            below = _below(found, key)
            stack.append((key, below))
            stack.extend((one, None) for one in below if one not in made)
        else:
            new = node.with_operands([made[one] for one in below])
            if any(found.machine.accepts(state) for state in states):
                new = change if isinstance(change, Node) else change(new)
            made[key] = new


def _carried(circuit: Circuit, roots: dict[str, Node], made: dict[Key, Node], name: str) -> Circuit:
    """Return the circuit of new results, its addresses with the nodes that they now name."""
    variants: dict[Node, dict[Node, None]] = {}
    for (node, _), new in made.items():
        variants.setdefault(node, {})[new] = None
    after = set(topological(roots.values()))
    unchanged = set(topological(node for (node, _), new in made.items() if new is node))
    becomes: dict[Node, Node] = {}
    for node in topological([*circuit.roots.values(), *circuit.table.values()]):
        became = variants.get(node, {})
        if node in unchanged:
            becomes[node] = node
        elif len(became) == 1:
            (becomes[node],) = became
        elif not became and all(operand in becomes for operand in node.operands):
            becomes[node] = node.with_operands([becomes[operand] for operand in node.operands])
    before = set(circuit.nodes)
    table = {address: becomes[node] for address, node in circuit.table.items() if node in becomes}
    gone = {
        address: circuit.removed.get(address, name)
        for address, node in circuit.table.items()
        if circuit.is_bypassed(address)
        or (
            not is_note(address)
            and (address not in table or table[address] not in after)
            and (address in circuit.removed or node in before)
        )
    }
    kept = {address: by for address, by in circuit.removed.items() if address not in circuit.table}
    return replace(circuit, roots=roots, table=table, removed={**kept, **gone}, history=(*circuit.history, name))
