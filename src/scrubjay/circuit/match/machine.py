"""Machines that read walks: a walk starts at a result and goes to an operand at each step; its states say what was seen.

A machine may be in several states at once (it guesses which node is meant by a step); a walk is accepted when any run ends
in a state that accepts. A state is *active* once the run has met the receiver of the path: from there on the walk is the
path itself. A state that is active stays so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, final

from scrubjay.circuit.node import Node

State = Any
"""Any hashable value: what it is, only its machine knows."""

Nodes = frozenset[Node]


class Machine(ABC):
    """Reads walks. Two equal states at one node have the same future."""

    @abstractmethod
    def begin(self, node: Node) -> Iterable[State]:
        """Return the states of a walk that starts at a node."""

    @abstractmethod
    def step(self, state: State, slot: int, node: Node) -> Iterable[State]:
        """Return the states after a step through operand number `slot`, to `node`."""

    @abstractmethod
    def accepts(self, state: State) -> bool:
        """Tell whether a walk that ends in this state is one of those meant."""

    @abstractmethod
    def active(self, state: State) -> bool:
        """Tell whether the path has begun."""


class Leg(NamedTuple):
    """A step of a chain: its nodes, what depends on any, and the operands by which the walk may go on from it (`None`: any)."""

    nodes: Nodes
    above: Nodes
    slots: frozenset[int] | None


class _At(NamedTuple):
    """How far a run of a chain has come.

    `met` steps; `edges` since the first of them (as far as the chain asks); the nodes to pass that were met, as bits;
    whether the last step was met just now; the components that it belongs to. `met` is -1 above the sub-expression searched.
    """

    met: int
    edges: int = 0
    passed: int = 0
    fresh: bool = False
    own: frozenset[str] = frozenset()


_NONE: frozenset[str] = frozenset()


@final
@dataclass(frozen=True, eq=False)
class Chained(Machine):
    """Reads chains: `legs` from the receiver down, what is avoided and passed in between, how many edges, below what."""

    legs: tuple[Leg, ...]
    avoided: Nodes
    passed: tuple[Nodes, ...]
    within: tuple[int, int | None]
    below: Nodes | None
    marks: Mapping[Node, frozenset[str]]
    owners: Mapping[Node, frozenset[str]]

    def begin(self, node: Node) -> Iterable[State]:
        """Start above the first step, and perhaps above the sub-expression."""
        return list(self._enter(_At(0 if self.below is None else -1), node))

    def step(self, state: State, slot: int, node: Node) -> Iterable[State]:
        """Go on from a state, unless the operand is not one to go through or the path has ended."""
        here: _At = state
        if here.met == len(self.legs):
            return ()
        if here.fresh and here.met > 0:
            slots = self.legs[here.met - 1].slots
            if slots is not None and slot not in slots:
                return ()
        return list(self._enter(here, node))

    def _enter(self, here: _At, node: Node) -> Iterator[_At]:
        """Give the states at a node that is reached in the state `here`."""
        if here.met < 0:
            yield here
            if self.below is not None and node in self.below:
                yield from self._enter(_At(0), node)
            return
        least, most = self.within
        leg = self.legs[here.met]
        if here.met == 0:
            if node in leg.above:
                yield here
            if node in leg.nodes:
                yield from self._met(_At(0), node, 0)
            return
        edges = here.edges + 1
        if most is not None and edges > most:
            return
        edges = min(edges, least) if most is None else edges
        if node in leg.nodes:
            yield from self._met(here, node, edges)
        if node in leg.above and node not in self.avoided and self.marks.get(node, _NONE) <= here.own:
            yield _At(here.met, edges, self._bits(here, node), fresh=False, own=here.own)

    def _met(self, here: _At, node: Node, edges: int) -> Iterator[_At]:
        """Give the state after one more step, if the path may end there or need not."""
        met, last = here.met + 1, here.met + 1 == len(self.legs)
        if last:
            if edges >= self.within[0] and here.passed == (1 << len(self.passed)) - 1:
                yield _At(met)
            return
        if node not in self.legs[met].above:
            return
        passed = self._bits(here, node) if here.met else 0
        own = self.owners.get(node, _NONE) if self.marks else _NONE
        yield _At(met, edges, passed, fresh=self.legs[here.met].slots is not None, own=own)

    def _bits(self, here: _At, node: Node) -> int:
        """Return which nodes to pass have been met, this one included."""
        bits = here.passed
        for number, nodes in enumerate(self.passed):
            if node in nodes:
                bits |= 1 << number
        return bits

    def accepts(self, state: State) -> bool:
        """Accept when the last step was met."""
        return state.met == len(self.legs)

    def active(self, state: State) -> bool:
        """The path begins at the first step met."""
        return state.met > 0


@final
@dataclass(frozen=True, eq=False)
class Both(Machine):
    """Reads what two machines read, side by side."""

    one: Machine
    two: Machine

    def begin(self, node: Node) -> Iterable[State]:
        """Pair the states."""
        return [(a, b) for a in self.one.begin(node) for b in self.two.begin(node)]

    def step(self, state: State, slot: int, node: Node) -> Iterable[State]:
        """Pair the states."""
        rest = list(self.two.step(state[1], slot, node))
        return [(a, b) for a in self.one.step(state[0], slot, node) for b in rest] if rest else ()

    def accepts(self, state: State) -> bool:
        """Accept what both accept."""
        return self.one.accepts(state[0]) and self.two.accepts(state[1])

    def active(self, state: State) -> bool:
        """Begin where either begins."""
        return self.one.active(state[0]) or self.two.active(state[1])


@final
@dataclass(frozen=True, eq=False)
class Either(Machine):
    """Reads what either of two machines reads."""

    one: Machine
    two: Machine

    def begin(self, node: Node) -> Iterable[State]:
        """Begin both, each by itself."""
        return [*((self.one, a) for a in self.one.begin(node)), *((self.two, b) for b in self.two.begin(node))]

    def step(self, state: State, slot: int, node: Node) -> Iterable[State]:
        """Go on with the machine that this state is of."""
        return [(state[0], after) for after in state[0].step(state[1], slot, node)]

    def accepts(self, state: State) -> bool:
        """Accept what the state's own machine accepts."""
        return state[0].accepts(state[1])

    def active(self, state: State) -> bool:
        """Begin where the state's own machine begins."""
        return state[0].active(state[1])


@final
@dataclass(frozen=True, eq=False)
class Outside(Machine):
    """Reads what a machine does not: its one state is the set of all states that the machine may be in."""

    part: Machine

    def begin(self, node: Node) -> Iterable[State]:
        """Begin with all states."""
        return (frozenset(self.part.begin(node)),)

    def step(self, state: State, slot: int, node: Node) -> Iterable[State]:
        """Move all states."""
        return (frozenset(after for one in state for after in self.part.step(one, slot, node)),)

    def accepts(self, state: State) -> bool:
        """Accept where no run does."""
        return not any(self.part.accepts(one) for one in state)

    def active(self, state: State) -> bool:
        """It has no path of its own."""
        del state
        return False


@final
@dataclass(frozen=True, eq=False)
class Joint(Machine):
    """Reads a path of `receiver` and, from its end on, one of `sender` that begins at that very node."""

    sender: Machine
    receiver: Machine

    def _all(self, states: Iterable[State], node: Node) -> Iterable[State]:
        """Return the receiver's states, and those of the sender where the receiver's path ends."""
        made: list[State] = []
        for state in states:
            made.append((True, state))
            if self.receiver.accepts(state):
                made += [(False, one) for one in self.sender.begin(node) if self.sender.active(one)]
        return dict.fromkeys(made)

    def begin(self, node: Node) -> Iterable[State]:
        """Begin with the receiver."""
        return self._all(self.receiver.begin(node), node)

    def step(self, state: State, slot: int, node: Node) -> Iterable[State]:
        """Go on with the machine that this state is of."""
        above, one = state
        if above:
            return self._all(self.receiver.step(one, slot, node), node)
        return [(False, after) for after in self.sender.step(one, slot, node)]

    def accepts(self, state: State) -> bool:
        """Accept what the sender accepts."""
        return not state[0] and self.sender.accepts(state[1])

    def active(self, state: State) -> bool:
        """Begin where the receiver begins."""
        return not state[0] or self.receiver.active(state[1])
