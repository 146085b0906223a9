"""Applying rules throughout a circuit, bottom-up and to the end, with a trace of what was applied.

Operands come before what reads them, and what a rule made is looked at again, so that in the end no rule holds anywhere
it was asked for. A rule that undoes another is found out: a node met again while it is being rewritten, or more steps than
a graph of this size can need, is an error that names the rules.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from scrubjay.circuit.circuit import Circuit, removed_by
from scrubjay.circuit.graph import need_circuit, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.rules.bypass import led_around
from scrubjay.circuit.rules.facts import Where, predicate
from scrubjay.circuit.rules.rule import Rule
from scrubjay.errors import CircuitError

STEPS_PER_NODE, STEPS_MORE = 60, 2000


@dataclass(frozen=True, eq=False)
class Settled:
    """What became of every node that was reached, how often each rule was applied, and how many places were asked for."""

    made: Mapping[Node, Node]
    applied: Mapping[str, int]
    places: int


def rewrite(
    circuit: Circuit | Mapping[str, Node] | Node,
    rules: Rule | Sequence[Rule],
    where: Where | str | Sequence[str] | None = None,
) -> Circuit:
    """Return the circuit with the rules applied, bottom-up, until none holds at any place asked for.

    Args:
        circuit: the circuit, or results by name, or one result (`output`).
        rules: the equalities; at a node the first that holds is taken.
        where: at which nodes of the circuit as it is: a predicate, the nodes themselves (what a matcher found), or an address
            of the circuit, or several. What a rule made at a place belongs to that place. Everywhere when not given.

    Its values are the circuit's, its addresses too; the rules and their counts go into the history (`explain`). Raises
    `CircuitError` where no place was found or no rule holds at those asked for (it says why not), and where the rules
    do not come to an end.

    >>> from scrubjay.circuit.ops import Add, Constant
    >>> from scrubjay.circuit.rules.algebra import FLATTEN_ADD
    >>> one = Constant(1.0)
    >>> print(explain(rewrite(Add((one, Add((one, Add((one, one)))))), FLATTEN_ADD)))
    1. equality: flatten_add x2
    """
    before = _as_circuit(circuit)
    chosen = tuple(rules) if isinstance(rules, Sequence) else (rules,)
    for rule in chosen:
        if not isinstance(rule, Rule):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise CircuitError(f"{rule!r} is no equality; rewrite takes rules that keep the value")
    everything = [*before.roots.values(), *before.table.values()]
    asked = _asked(before, where)
    found = settle(everything, chosen, asked)
    if asked is not None and not found.applied:
        raise CircuitError(_nothing(everything, chosen, asked, found.places))
    if not found.applied:
        return before
    words = ", ".join(f"{name} x{count}" for name, count in found.applied.items())
    after = replace(before.mapped(found.made), history=(*before.history, f"equality: {words}"))
    return replace(after, removed=removed_by(before, after, led_around(before, found.made, after)))


def _asked(circuit: Circuit, where: Where | str | Sequence[str] | None) -> Where | None:
    """Return the places asked for, addresses as their nodes."""
    if isinstance(where, str):
        return [circuit.node(where)]
    if where is None or callable(where):
        return where
    return [circuit.node(one) if isinstance(one, str) else one for one in where]


def explain(circuit: Circuit) -> str:
    """Return the history of a circuit as text: each rewrite, and for equalities the rules with their counts."""
    need_circuit(circuit)
    lines = [f"{place}. {entry}" for place, entry in enumerate(circuit.history, 1)]
    return "\n".join(lines) or "nothing was rewritten"


def rules_applied(circuit: Circuit) -> dict[str, int]:
    """Return how often each rule was applied in all of a circuit's history."""
    counts: Counter[str] = Counter()
    for entry in circuit.history:
        if entry.startswith("equality: "):
            for name, count in re.findall(r"(\S+) x(\d+)", entry):
                counts[name] += int(count)
    return dict(counts)


def _as_circuit(given: Circuit | Mapping[str, Node] | Node) -> Circuit:
    if isinstance(given, Circuit):
        return given
    if isinstance(given, Node):
        return Circuit({"output": given})
    if not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        need_circuit(given)
    return Circuit(dict(given))


def _nothing(roots: Sequence[Node], rules: Sequence[Rule], where: Where, places: int) -> str:
    names = ", ".join(rule.name for rule in rules)
    if not places:
        return f"{names}: no node of the circuit was asked for; look at what the predicate or matcher finds"
    chosen = predicate(where)
    first = next(node for node in topological(roots) if chosen(node))
    reasons = "; ".join(f"{rule.name}: {rule.why_not(first) or 'it holds'}" for rule in rules[:5])
    return f"{names}: no rule holds at any of the {places} places asked for. At the first, {first!r}: {reasons}"


def settle(roots: Sequence[Node], rules: Sequence[Rule], where: Where | None = None) -> Settled:
    """Return what becomes of every node below `roots`: the engine under `rewrite`, which see."""
    order = topological(roots)
    work = _Work(
        tuple(rule for rule in rules if rule.repeats),
        tuple(rule for rule in rules if not rule.repeats),
        STEPS_PER_NODE * len(order) + STEPS_MORE,
    )
    chosen, places = predicate(where), 0
    for node in order:
        here = node.with_operands([work.done[operand] for operand in node.operands])
        if not chosen(node):
            work.done.setdefault(here, here)
            work.done[node] = here
            continue
        places += 1
        made = work.once(work.finished(here))
        work.done.setdefault(made, made)  # what an expanding rule made is not entered
        work.done[node] = made
    return Settled(work.done, dict(work.counts), places)


@dataclass(eq=False)
class _Work:
    """One run of the engine: what is done, what is waiting, and how often each rule was applied."""

    rules: tuple[Rule, ...]
    expanding: tuple[Rule, ...]
    most: int
    done: dict[Node, Node] = field(default_factory=dict[Node, Node])
    counts: Counter[str] = field(default_factory=Counter[str])
    steps: int = 0

    def once(self, node: Node) -> Node:
        """Return what the first rule that is applied once makes of a node."""
        for rule in self.expanding:
            made = rule.apply(node)
            if made is not None:
                self.counts[rule.name] += 1
                return made
        return node

    def finished(self, start: Node) -> Node:
        """Return what a node becomes when the rules are applied to it and to what they make, without recursion."""
        settled: dict[Node, Node] = {}
        stack = [start]
        waiting: dict[Node, Node | None] = {start: None}
        while stack:
            node = stack[-1]
            ahead = waiting[node]
            if ahead is None:
                ahead = self._next(node, settled, stack, waiting)
                if ahead is None:
                    continue
            if ahead is not node and self._end(ahead, settled) is None:
                waiting[node] = ahead
                self._push(ahead, stack, waiting)
                continue
            settled[node] = node if ahead is node else self._known(ahead, settled)
            stack.pop()
            del waiting[node]
        for node, end in settled.items():
            self.done.setdefault(node, end)
        return settled.get(start, start)

    def _end(self, node: Node, settled: Mapping[Node, Node]) -> Node | None:
        return settled.get(node, self.done.get(node))

    def _known(self, node: Node, settled: Mapping[Node, Node]) -> Node:
        found = self._end(node, settled)
        return node if found is None else found

    def _next(
        self, node: Node, settled: Mapping[Node, Node], stack: list[Node], waiting: dict[Node, Node | None]
    ) -> Node | None:
        """Return the node one step on (itself at the end), or `None` after asking for operands first."""
        new = [operand for operand in dict.fromkeys(node.operands) if self._end(operand, settled) is None]
        if new:
            for operand in reversed(new):
                self._push(operand, stack, waiting)
            return None
        here = node.with_operands([self._known(operand, settled) for operand in node.operands])
        if here is not node:
            return here
        for rule in self.rules:
            made = rule.apply(node)
            if made is not None:
                self._count(rule)
                return made
        return node

    def _push(self, node: Node, stack: list[Node], waiting: dict[Node, Node | None]) -> None:
        if node in waiting and waiting[node] is not None:
            raise CircuitError(
                f"the rules {self._used()} go round in a circle: rewriting {node!r} leads back to it; apply them one after the other, not together"
            )
        if node in waiting:
            stack.remove(node)
        waiting[node] = None
        stack.append(node)

    def _count(self, rule: Rule) -> None:
        self.counts[rule.name] += 1
        self.steps += 1
        if self.steps > self.most:
            raise CircuitError(
                f"the rules {self._used()} were not at an end after {self.most} steps: they undo each other or make the circuit grow without end; use fewer of them together, or say where"
            )

    def _used(self) -> str:
        return ", ".join(f"{name} (x{count})" for name, count in self.counts.most_common())
