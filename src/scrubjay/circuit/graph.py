"""Walking and rebuilding expression graphs, without recursion: a chain of 50,000 nodes is as good as one of five."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

from scrubjay.circuit.node import Node
from scrubjay.errors import CircuitError


def need_circuit(given: object) -> None:
    """Raise `CircuitError` where something else is given for a circuit: a model, say, which has one."""
    if hasattr(given, "roots"):
        return
    kind = type(given).__name__
    if hasattr(given, "circuit"):
        raise CircuitError(f"this is a {kind}, and a circuit was asked for: give its own, model.circuit")
    raise CircuitError(f"this is a {kind}, and a circuit was asked for: give one, such as sj.load(module).circuit")


def topological(roots: Iterable[Node], stop: frozenset[Node] | Mapping[Node, object] = frozenset()) -> list[Node]:
    """Return every node below `roots` once, operands before what reads them; nodes in `stop` are listed, not entered.

    >>> from scrubjay.circuit.ops import Add, Constant
    >>> one = Constant(1)
    >>> [type(node).__name__ for node in topological([Add((one, one))])]
    ['Constant', 'Add']
    """
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[Node | None] = list(reversed(list(roots)))
    while stack:
        node = stack.pop()
        if node is None:  # what lies below it has been listed
            order.append(cast("Node", stack.pop()))
            continue
        if node in seen:
            continue
        seen.add(node)
        operands = node.operands
        if not operands or node in stop:
            order.append(node)
            continue
        stack += (node, None)
        stack += [operand for operand in reversed(operands) if operand not in seen]
    return order


def rebuild(roots: Sequence[Node], change: Callable[[Node, tuple[Node, ...]], Node]) -> dict[Node, Node]:
    """Return what every node below `roots` becomes, where `change(node, new_operands)` says it for one."""
    made: dict[Node, Node] = {}
    for node in topological(roots):
        made[node] = change(node, tuple([made[operand] for operand in node.operands]))
    return made


def substitute(roots: Sequence[Node], table: Mapping[Node, Node]) -> dict[Node, Node]:
    """Return what every node reached becomes when each key of `table` is replaced by its value, in all places at once.

    Replacements are taken as they are: a value that contains its own key is not entered again.
    """
    made: dict[Node, Node] = {}
    for node in topological(roots, stop=table):
        made[node] = table[node] if node in table else node.with_operands([made[operand] for operand in node.operands])
    return made


def readers(roots: Iterable[Node]) -> dict[Node, list[Node]]:
    """Return, for every node below `roots`, the nodes that read it (once each), in topological order."""
    table: defaultdict[Node, list[Node]] = defaultdict(list)
    for node in topological(roots):
        for operand in dict.fromkeys(node.operands):
            table[operand].append(node)
    return table


def above(roots: Iterable[Node], targets: Iterable[Node]) -> set[Node]:
    """Return the nodes below `roots` that depend on any of `targets` (the targets themselves included)."""
    found = set(targets)
    for node in topological(roots):
        if any(operand in found for operand in node.operands):
            found.add(node)
    return found


def mapped_roots(made: Mapping[Node, Node], roots: Iterable[Node]) -> tuple[Node, ...]:
    """Return what the roots became; raise `CircuitError` for one that was not reached."""
    try:
        return tuple(made[root] for root in roots)
    except KeyError as error:
        raise CircuitError(f"{error.args[0]!r} is not below the roots that were rewritten") from error
