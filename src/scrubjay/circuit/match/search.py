"""Searching a circuit: the nodes, edges and paths that a matcher or `Paths` value finds.

Every question but the listing of paths is answered by one pass over the pairs (node, state of the machine), of which there
are few for each node; nothing recurses. A search that finds nothing raises `MatchError` with the near misses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import need_circuit
from scrubjay.circuit.match.explain import Explanation, explained
from scrubjay.circuit.match.machine import State
from scrubjay.circuit.match.matcher import Matcher, Scope
from scrubjay.circuit.match.names import as_matcher
from scrubjay.circuit.match.path import Paths, Slot, Step, as_paths
from scrubjay.circuit.match.reach import Pair, Reached, reached
from scrubjay.circuit.node import Node
from scrubjay.circuit.recognisers import Anatomy
from scrubjay.errors import MatchError

Selector = Paths | Step
"""What can be searched for: paths, a matcher, or what stands for a matcher (an address, a node, a kind of node)."""


class Edge(NamedTuple):
    """One use of a node: operand number `slot` of `reader`."""

    reader: Node
    slot: int

    @property
    def operand(self) -> Node:
        """The node that is read."""
        return self.reader.operands[self.slot]


@dataclass(frozen=True)
class Route:
    """One path, from sender to receiver.

    Attributes:
        receiver: the node that the path leads to; with no edges it is the sender too.
        edges: the uses that it is made of, in the direction in which values flow.
    """

    receiver: Node
    edges: tuple[Edge, ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes from the sender to the receiver, both included."""
        return (*(edge.operand for edge in self.edges), self.receiver)

    @property
    def sender(self) -> Node:
        """The node that the path starts from."""
        return self.nodes[0]


def searched(circuit: Circuit, what: Selector, anatomy: Anatomy | None) -> Reached:
    """Return what lies on the walks that are meant; raise `MatchError` if there are none."""
    need_circuit(circuit)
    scope = Scope(circuit, anatomy)
    paths = as_paths(what)
    found = reached(circuit, paths.machine(scope))
    if not found.ends:
        raise MatchError(f"{paths!r} finds nothing in {circuit!r}:\n{explained(paths, scope)}")
    return found


def find(circuit: Circuit, what: Selector, *, anatomy: Anatomy | None = None) -> tuple[Node, ...]:
    """Return the nodes that are matched, or that stand at the ends of paths (the senders), operands before their readers.

    With the `anatomy` of the model, an address of a head or neuron finds it where the circuit reads it by index.

    Raises:
        MatchError: if nothing is found, or not as many as the matcher says; the message tells the near misses.
        AddressError: if an address names nothing in the circuit.

    >>> from scrubjay.circuit.axes import Axis
    >>> from scrubjay.circuit.ops import Add, Constant, Input, Map
    >>> x = Input("x", (Axis("model", 4),))
    >>> circuit = Circuit({"output": Add((Map("relu", (x,)), Map("exp", (x,))))})
    >>> [node.op for node in find(circuit, Map)]
    ['relu', 'exp']
    """
    return tuple(_found(circuit, what, anatomy))


def _found(circuit: Circuit, what: Selector, anatomy: Anatomy | None) -> list[Node]:
    if isinstance(what, Paths | Slot):
        ends = searched(circuit, what, anatomy).ends
    else:
        scope, matcher = Scope(circuit, anatomy), as_matcher(what)
        ends = scope.all(matcher)
        if not ends:
            raise MatchError(f"{matcher!r} finds nothing in {circuit!r}:\n{explained(matcher, scope)}")
    return [node for node in circuit.nodes if node in ends]


def one(circuit: Circuit, what: Selector, *, anatomy: Anatomy | None = None) -> Node:
    """Return the only node that is found; raise `MatchError` if there is none, or more than one."""
    counted = what if isinstance(what, Paths) else as_paths(what) if isinstance(what, Slot) else as_matcher(what)
    return find(circuit, counted.exactly(1), anatomy=anatomy)[0]


def first(circuit: Circuit, what: Selector, *, anatomy: Anatomy | None = None) -> Node:
    """Return the first node that is found, in the order in which operands come before readers."""
    return _found(circuit, what, anatomy)[0]


def is_found(circuit: Circuit, what: Selector, *, anatomy: Anatomy | None = None) -> bool:
    """Tell whether anything is found. A name that the circuit lacks, or a wrong number of matches, is an error here too."""
    if isinstance(what, Matcher):
        return bool(Scope(circuit, anatomy).all(what))
    return bool(reached(circuit, as_paths(what).machine(Scope(circuit, anatomy))).ends)


def edges(circuit: Circuit, what: Selector, *, anatomy: Anatomy | None = None) -> tuple[Edge, ...]:
    """Return the edges that lie on any of the paths, between sender and receiver, readers of operands first.

    Raises `MatchError` if no path is found; paths of a single node have no edges.
    """
    found = searched(circuit, what, anatomy)
    active = found.machine.active
    made = {Edge(node, slot) for (node, state), steps in found.steps.items() if active(state) for slot, _ in steps}
    place = {node: number for number, node in enumerate(circuit.nodes)}
    return tuple(sorted(made, key=lambda edge: (place[edge.reader], edge.slot)))


States = frozenset[State]


def _starts(found: Reached) -> dict[Node, States]:
    """Return where paths begin: the receivers, with the states in which a run has just become active.

    A walk that is accepted without a path of its own (that of `~`) is a path of one node, its end.
    """
    machine, made = found.machine, dict[Node, set[State]]()
    for pairs in found.begin.values():
        for node, state in pairs:
            if machine.active(state):
                made.setdefault(node, set()).add(state)
    for (node, state), steps in found.steps.items():
        if machine.active(state):
            continue
        if machine.accepts(state):
            made.setdefault(node, set()).add(state)
        for _, (operand, after) in steps:
            if machine.active(after):
                made.setdefault(operand, set()).add(after)
    return {node: frozenset(states) for node, states in made.items()}


def _follow(found: Reached, node: Node, states: States) -> dict[int, States]:
    """Return, for each operand by which any run of a path goes on, the states after it."""
    made: dict[int, set[State]] = {}
    for state in states:
        if found.machine.active(state):
            for slot, (_, after) in found.steps[node, state]:
                made.setdefault(slot, set()).add(after)
    return {slot: frozenset(after) for slot, after in sorted(made.items())}


Trail = tuple[Edge, "Trail"] | None
"""The edges of a path, the last one taken first: what two paths have in common is kept once."""


def _listed(found: Reached, circuit: Circuit) -> Iterator[Route]:
    starts = _starts(found)
    for receiver in reversed(circuit.nodes):
        if receiver not in starts:
            continue
        stack: list[tuple[Node, States, Trail]] = [(receiver, starts[receiver], None)]
        while stack:
            node, states, so_far = stack.pop()
            if any(found.machine.accepts(state) for state in states):
                yield Route(receiver, tuple(_edges(so_far)))
            for slot, after in reversed(_follow(found, node, states).items()):
                stack.append((node.operands[slot], after, (Edge(node, slot), so_far)))


def _edges(trail: Trail) -> Iterator[Edge]:
    while trail is not None:
        edge, trail = trail
        yield edge


def _number(found: Reached) -> int:
    """Return how many paths there are, by adding up from the ends."""
    counts: dict[tuple[Node, States], int] = {}
    starts = list(_starts(found).items())
    stack = list(starts)
    while stack:
        here = stack[-1]
        if here in counts:
            stack.pop()
            continue
        node, states = here
        below = [(node.operands[slot], after) for slot, after in _follow(found, node, states).items()]
        waiting = [one for one in below if one not in counts]
        if waiting:
            stack.extend(waiting)
            continue
        ends = int(any(found.machine.accepts(state) for state in states))
        counts[here] = ends + sum(counts[one] for one in below)
        stack.pop()
    return sum(counts[start] for start in starts)


def number_of_paths(circuit: Circuit, what: Selector, *, anatomy: Anatomy | None = None) -> int:
    """Return how many paths there are, without listing them; raise `MatchError` if there are none.

    >>> from scrubjay.circuit.axes import Axis
    >>> from scrubjay.circuit.match import path
    >>> from scrubjay.circuit.ops import Input, Multiply
    >>> x = top = Input("x", (Axis("model", 4),))
    >>> for _ in range(200):
    ...     top = Multiply((top, top))
    >>> number_of_paths(Circuit({"output": top}), path(x, top)) == 2**200
    True
    """
    return _number(searched(circuit, what, anatomy))


def paths(circuit: Circuit, what: Selector, *, limit: int = 1000, anatomy: Anatomy | None = None) -> Iterator[Route]:
    """Return the paths one by one, each once: by receiver, the results' side first, then by operand number from the receiver down.

    Two uses of one node by the same reader are two paths. No more than `limit` are given: if there are more, what follows the
    last of them is a `MatchError` that says how many there are in all. Raises `MatchError` at once if there are none.
    """
    found = searched(circuit, what, anatomy)
    return _limited(found, circuit, limit, as_paths(what))


def _limited(found: Reached, circuit: Circuit, limit: int, what: Paths) -> Iterator[Route]:
    routes = _listed(found, circuit)
    yield from islice(routes, limit)
    if next(routes, None) is not None:
        raise MatchError(
            f"{what!r} has {_number(found)} paths, more than the limit of {limit}: narrow it (direct_only, avoiding, within, "
            "exactly one receiver), take edges() or number_of_paths(), or raise the limit"
        )


def shortest(circuit: Circuit, what: Selector, *, anatomy: Anatomy | None = None) -> dict[Node, Route]:
    """Return one shortest path for every node found (the sender), operands before their readers."""
    found = searched(circuit, what, anatomy)
    layer: list[tuple[Node, States, Node]] = [(node, states, node) for node, states in _starts(found).items()]
    came: dict[Pair, tuple[Pair, int] | None] = {}
    ends: dict[Node, Route] = {}
    queue: list[tuple[Pair, Node]] = [((node, state), top) for node, states, top in layer for state in states]
    came.update((pair, None) for pair, _ in queue)
    for pair, top in queue:  # it grows while it is walked
        node, state = pair
        if found.machine.accepts(state) and node not in ends:
            ends[node] = Route(top, _back(came, pair))
        for slot, after in found.steps[pair] if found.machine.active(state) else ():
            if after not in came:
                came[after] = (pair, slot)
                queue.append((after, top))
    return {node: ends[node] for node in circuit.nodes if node in ends}


def _back(came: dict[Pair, tuple[Pair, int] | None], pair: Pair) -> tuple[Edge, ...]:
    """Return the edges from a pair back to where its path began."""
    made: list[Edge] = []
    while (step := came[pair]) is not None:
        made.append(Edge(step[0][0], step[1]))
        pair = step[0]
    return tuple(made)


def validate(circuit: Circuit, what: Selector, *, anatomy: Anatomy | None = None) -> None:
    """Check that something is found, and that every part (conjunct, step, what is avoided) matches something by itself.

    Raises `MatchError` or `AddressError` otherwise: a part that matches nothing is most often a mistake.
    """
    meant = as_paths(what)
    searched(circuit, meant, anatomy)
    if empty := [
        part for part in explain(circuit, what, anatomy=anatomy).parts if part.count == 0 and not part.instead
    ]:
        told = "\n".join(f"  {part.text}{part.hint}" for part in empty)
        raise MatchError(f"{meant!r}: these parts match nothing in {circuit!r}:\n{told}")


def explain(circuit: Circuit, what: Selector, *, anatomy: Anatomy | None = None) -> Explanation:
    """Return what each part matches by itself and how far paths come, with near misses: print it.

    It raises nothing for what finds nothing: that is what it is for.

    >>> from scrubjay.circuit.axes import Axis
    >>> from scrubjay.circuit.match import has_axes, kind
    >>> from scrubjay.circuit.ops import Add, Input, Map
    >>> x = Input("x", (Axis("model", 4),))
    >>> print(explain(Circuit({"output": Map("relu", (x,))}), kind(Map) & has_axes("query")))
    0  kind(Map) & has_axes('query')
      1  kind(Map)  (1 left; without it 0)
      0  has_axes('query')  (0 left; without it 1); no node has query: the circuit's axes are model
    """
    return explained(
        what if isinstance(what, Paths) else as_paths(what) if isinstance(what, Slot) else as_matcher(what),
        Scope(circuit, anatomy),
    )
