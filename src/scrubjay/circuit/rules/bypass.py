"""Addresses that an equality leads readers around: the value stays, and a change of it would no longer change what it did.

A rule looks through the values between the node that it rewrites and what it keeps. Where an address names one of them, the
node there may still be read (by a norm's scale, say), and a change of it would reach those readers alone. Where a rule makes
one node of two, a change at the one would reach the readers of the other. Such an address is in a circuit's `removed`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import readers, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.rules.facts import reads_input


def led_around(before: Circuit, made: Mapping[Node, Node], after: Circuit) -> set[str]:
    """Return the addresses, notes included, that readers no longer go through, of those that results still depend on.

    Args:
        before: the circuit.
        made: what became of every node below its results and addresses, found operands first.
        after: the circuit that this gave.
    """
    known: dict[Node, None] = {}
    through: set[Node] = set()
    for node in topological([*before.roots.values(), *before.table.values()]):
        here = node.with_operands([made[operand] for operand in node.operands])
        if made[node] is not here:
            through |= looked_through(here, made[node], known)
        known[made[node]] = None
    joined, now = _joined(before, made), set(after.nodes)
    return {
        address
        for address, node in before.table.items()
        if made[node] in now and (made[node] in through or node in joined)
    }


def looked_through(old: Node, new: Node, known: Mapping[Node, None]) -> set[Node]:
    """Return the values between a node and what is kept of it where it is replaced by `new`; `known` are nodes from before."""
    stops = {**known, old: None} if old not in known else known
    kept = {one for one in topological([new], stop=stops) if one in stops and reads_input(one)}
    if old in kept:
        return set()
    found: set[Node] = set()
    for one in topological([old], stop=frozenset(kept)):
        if one not in kept and any(operand in kept or operand in found for operand in one.operands):
            found.add(one)
    return found - {old}


def around_replaced(
    before: Circuit, changes: Mapping[Node, Node], after: Circuit, opened: Collection[Node] = ()
) -> set[str]:
    """Return what `led_around` does where nodes were replaced by values made of nodes of the old circuit, looking through `opened`."""
    known = dict.fromkeys(before.nodes)
    through = {one for old, new in changes.items() for one in looked_through(old, new, known)}.union(opened)
    now = set(after.nodes)
    return {
        address
        for address, node in before.table.items()
        if after.table[address] in now and (node in through or (node in now and after.table[address] is not node))
    }


def _joined(before: Circuit, made: Mapping[Node, Node]) -> set[Node]:
    """Return the nodes that became one with another, whose own readers a change would reach as well."""
    groups: dict[Node, list[Node]] = {}
    order = topological([*before.roots.values(), *before.table.values()])
    for node in order:
        if reads_input(node):
            groups.setdefault(made[node], []).append(node)
    named, results = set(before.table.values()), set(before.roots.values())
    several = [group for group in groups.values() if len(group) > 1]
    reading = readers(before.roots.values()) if several else {}
    found: set[Node] = set()
    for group in several:
        inner = {one for one in group if one not in results and all(reader in group for reader in reading.get(one, ()))}
        found |= {one for one in group if one in named and not _reached(one, group) | inner >= set(group)}
    return found


def _reached(start: Node, group: Iterable[Node]) -> set[Node]:
    """Return the members of a group, operands first, that depend on one of them through others."""
    found = {start}
    for one in group:
        if any(operand in found for operand in one.operands):
            found.add(one)
    return found
