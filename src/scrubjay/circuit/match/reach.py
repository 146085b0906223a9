"""One pass over the pairs (node, state of a machine): which of them lie on a walk that the machine accepts."""

from __future__ import annotations

from dataclasses import dataclass

from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.match.machine import Machine, State
from scrubjay.circuit.match.matcher import Scope, check_count
from scrubjay.circuit.node import Node

Pair = tuple[Node, State]


@dataclass(frozen=True, eq=False)
class Reached:
    """The pairs on accepted walks of a machine: what each pair is followed by, and the pairs that walks start from."""

    machine: Machine
    steps: dict[Pair, list[tuple[int, Pair]]]
    begin: dict[str, list[Pair]]
    ends: frozenset[Node]


def reached(circuit: Circuit, machine: Machine) -> Reached:
    """Return the pairs of node and state that lie on a walk from a result to an end that the machine accepts."""
    begin = {name: [(root, state) for state in machine.begin(root)] for name, root in circuit.roots.items()}
    steps: dict[Pair, list[tuple[int, Pair]]] = {}
    above: dict[Pair, list[Pair]] = {}
    stack = [pair for pairs in begin.values() for pair in pairs]
    while stack:
        pair = stack.pop()
        if pair in steps:
            continue
        node, state = pair
        after = [
            (slot, (operand, new))
            for slot, operand in enumerate(node.operands)
            for new in machine.step(state, slot, operand)
        ]
        steps[pair] = after
        for _, new in after:
            above.setdefault(new, []).append(pair)
            if new not in steps:
                stack.append(new)
    accepted = [pair for pair in steps if machine.accepts(pair[1])]
    alive: set[Pair] = set()
    stack = list(accepted)
    while stack:
        pair = stack.pop()
        if pair not in alive:
            alive.add(pair)
            stack.extend(above.get(pair, ()))
    kept = {pair: [step for step in after if step[1] in alive] for pair, after in steps.items() if pair in alive}
    starts = {name: [pair for pair in pairs if pair in alive] for name, pairs in begin.items()}
    return Reached(machine, kept, starts, frozenset(node for node, _ in accepted))


def check_ends(scope: Scope, selector: object, machine: Machine, least: int, most: int | None) -> None:
    """Raise `MatchError` unless a machine accepts walks to as many nodes as were asked for."""
    check_count(scope, selector, reached(scope.circuit, machine).ends, least, most)
