"""Paths: which ways through the expression graph are meant, as values that combine with `&`, `|` and `~`.

A node that is used in several places is one node, and yet each use of it is a place of its own: the graph stands for the
tree in which every use has its own copy. A *walk* goes from a result down to a node, operand by operand: it is a place in that tree.
A `Paths` value stands for a set of walks. `path(A, B)` means the walks that pass a node B and end, further down, at a
node A: what B reads of A, as `A -> B` in an address. The stretch from A to B is the path.

A walk is read by a small machine that goes from state to state with each operand, so that questions about all walks are
answered by one pass over (node, state) and never by listing them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cache
from typing import final

from scrubjay.circuit.match.machine import Both, Chained, Either, Joint, Leg, Machine, Outside
from scrubjay.circuit.match.matcher import Matcher, Scope, anything, said
from scrubjay.circuit.match.names import Like, address_of, as_matcher
from scrubjay.circuit.match.reach import check_ends
from scrubjay.circuit.node import Node
from scrubjay.errors import MatchError

INSIDE_ATTENTION = ("q", "k", "v", "q_rot", "k_rot", "scores", "pattern", "z")
INSIDE_MLP = ("pre", "gate", "up", "post", "router.logits", "router.weights", "router.chosen")


@final
@dataclass(frozen=True, repr=False)
class Slot:
    """A step of a path that is left through some operands only."""

    matcher: Matcher
    numbers: frozenset[int]

    def __repr__(self) -> str:
        return f"slot({self.matcher!r}, {', '.join(map(str, sorted(self.numbers)))})"


def slot(what: Like, *numbers: int) -> Slot:
    """Return a step of a path at which it goes on through the operands of these numbers (from 0) and no others.

    >>> slot("L1.attn.scores", 0)
    slot(at('L1.attn.scores'), 0)
    """
    return Slot(as_matcher(what), frozenset(numbers))


Step = Like | Slot


class Paths(ABC):
    """A set of walks from a result down to a node. Frozen, hashable, equal by value.

    The nodes it finds are the ends of its walks. A matcher stands for all walks to the nodes that it matches.
    """

    @abstractmethod
    def machine(self, scope: Scope) -> Machine:
        """Return the machine that accepts these walks in the scope's circuit."""

    def __and__(self, other: Paths | Matcher) -> Paths:
        """Return the walks of both."""
        return BothPaths(self, as_paths(other))

    def __rand__(self, other: Matcher) -> Paths:
        """Return the walks of both."""
        return BothPaths(as_paths(other), self)

    def __or__(self, other: Paths | Matcher) -> Paths:
        """Return the walks of either."""
        return EitherPaths(self, as_paths(other))

    def __ror__(self, other: Matcher) -> Paths:
        """Return the walks of either."""
        return EitherPaths(as_paths(other), self)

    def __invert__(self) -> Paths:
        """Return every other walk from a result."""
        return self.part if isinstance(self, OtherPaths) else OtherPaths(self)

    def exactly(self, count: int) -> Paths:
        """Return the same paths, for which it is an error to find more or fewer than `count` nodes at their ends."""
        return CountedPaths(self, count, count)

    def at_least(self, count: int) -> Paths:
        """Return the same paths, for which it is an error to find fewer than `count` nodes at their ends."""
        return CountedPaths(self, count, None)


@final
@dataclass(frozen=True, repr=False)
class Chain(Paths):
    """Walks that pass a node of each step, the last step first, and end at one of the first step.

    *In between* means strictly between the ends of the path and, for `avoiding` and `direct_only`, not one of the nodes taken for a step.
    """

    steps: tuple[Slot, ...]
    avoided: tuple[Matcher, ...] = ()
    passed: tuple[Matcher, ...] = ()
    within_: tuple[int, int | None] = (0, None)
    below: Matcher | None = None
    direct: bool = False

    def avoiding(self, *what: Like) -> Chain:
        """Return the paths with nothing in between that any of `what` matches.

        Avoiding the sender itself gives the paths to its nearest occurrences: nothing is searched below one.
        """
        return replace(self, avoided=(*self.avoided, *map(as_matcher, what)))

    def through(self, *what: Like) -> Chain:
        """Return the paths with, for each of `what`, a node between the ends that it matches."""
        return replace(self, passed=(*self.passed, *map(as_matcher, what)))

    def within(self, most: int | None, least: int = 0) -> Chain:
        """Return the paths of at most `most` and at least `least` edges; `within(1)` means read directly."""
        if least < 0 or (most is not None and most < least):
            raise MatchError(f"within({most}, {least}): no path has so many edges; give 0 <= least <= most")
        return replace(self, within_=(least, most))

    def inside(self, what: Like) -> Chain:
        """Return the paths within a sub-expression: as the walk comes down, it meets `what` at the receiver or before it."""
        return replace(self, below=as_matcher(what))

    def direct_only(self, components: Like | None = None) -> Chain:
        """Return the paths with no component in between: along the residual stream, its norms and projections.

        Without `components`, a path goes through a component where it goes through a value inside an attention (`q`, `k`,
        `v`, `scores`, `pattern`, `z`, any value of a head) or an MLP (`pre`, `post`, ...) other than the one that the step above
        it belongs to, as the circuit's table names them; `MatchError` where it names none of a component that results read. From a value inside a component, only that same component reads directly.
        """
        return replace(self, direct=True) if components is None else self.avoiding(components)

    def machine(self, scope: Scope) -> Machine:
        """Return the machine of a chain, its matchers found in the circuit."""
        found = [scope.all(step.matcher) for step in self.steps]
        legs = tuple(
            Leg(nodes, scope.above(nodes), step.numbers or None)
            for step, nodes in zip(self.steps[::-1], found[::-1], strict=True)
        )
        avoided = frozenset(node for matcher in self.avoided for node in scope.all(matcher))
        passed = tuple(scope.all(matcher) for matcher in self.passed)
        marks, owners = _components(scope) if self.direct else ({}, {})
        below = None if self.below is None else scope.all(self.below)
        return Chained(legs, avoided, passed, self.within_, below, marks, owners)

    def __repr__(self) -> str:
        text = f"path({', '.join(_text(step) for step in self.steps)})"
        text += f".avoiding({', '.join(map(repr, self.avoided))})" if self.avoided else ""
        text += f".through({', '.join(map(repr, self.passed))})" if self.passed else ""
        least, most = self.within_
        text += f".within({most}{f', {least}' if least else ''})" if self.within_ != (0, None) else ""
        text += f".inside({self.below!r})" if self.below is not None else ""
        return text + (".direct_only()" if self.direct else "")


def _text(step: Slot) -> str:
    return repr(step) if step.numbers else repr(step.matcher)


def path(*steps: Step) -> Chain:
    """Return the paths through these steps, from sender to receiver: `path(A, B)` is where B reads A, directly or not.

    A single text may hold the whole path. One step alone stands for every walk to it.

    >>> path("L0.H1.out -> L1.attn.q")
    path(at('L0.H1.out'), at('L1.attn.q'))
    >>> path("L0.attn.out", "L1.attn.k").avoiding("L0.mlp.out").within(12)
    path(at('L0.attn.out'), at('L1.attn.k')).avoiding(at('L0.mlp.out')).within(12)
    """
    given: list[Step] = []
    for step in steps:
        given += [part.strip() for part in step.split("->")] if isinstance(step, str) else [step]
    if not given:
        raise MatchError('a path has at least one step: path("A", "B"), or path("A -> B")')
    return Chain(tuple(step if isinstance(step, Slot) else Slot(as_matcher(step), frozenset()) for step in given))


def as_paths(what: Paths | Step) -> Paths:
    """Return paths as they are, and for a matcher (or what stands for one) all walks to what it matches."""
    return what if isinstance(what, Paths) else path(what)


@final
@dataclass(frozen=True, repr=False)
class BothPaths(Paths):
    """The walks of both."""

    one: Paths
    two: Paths

    def machine(self, scope: Scope) -> Machine:
        """Run both machines side by side."""
        return Both(self.one.machine(scope), self.two.machine(scope))

    def __repr__(self) -> str:
        return f"{_inner(self.one)} & {_inner(self.two)}"


@final
@dataclass(frozen=True, repr=False)
class EitherPaths(Paths):
    """The walks of either."""

    one: Paths
    two: Paths

    def machine(self, scope: Scope) -> Machine:
        """Run either machine."""
        return Either(self.one.machine(scope), self.two.machine(scope))

    def __repr__(self) -> str:
        return f"{_inner(self.one)} | {_inner(self.two)}"


@final
@dataclass(frozen=True, repr=False)
class OtherPaths(Paths):
    """Every walk from a result that is not one of its part's."""

    part: Paths

    def machine(self, scope: Scope) -> Machine:
        """Run all runs of the machine at once, and accept where none does."""
        return Outside(self.part.machine(scope))

    def __repr__(self) -> str:
        return f"~{_inner(self.part)}"


@final
@dataclass(frozen=True, repr=False)
class JoinedPaths(Paths):
    """Paths of `sender` whose receiver is the end of a path of `receiver`."""

    sender: Paths
    receiver: Paths

    def machine(self, scope: Scope) -> Machine:
        """Begin the sender's machine where the receiver's accepts."""
        return Joint(self.sender.machine(scope), self.receiver.machine(scope))

    def __repr__(self) -> str:
        return f"join({self.sender!r}, {self.receiver!r})"


def join(*legs: Paths) -> Paths:
    """Return paths made of others, from sender to receiver: each leg's last node is the next leg's first.

    `join(path(A, B).avoiding(D), path(B, C))` avoids D between A and B only; `join(path(A, anything), found)` is what is found
    anywhere below the ends of any paths.
    """
    if not legs:
        raise MatchError("join() joins at least one leg: join(path(A, B), path(B, C))")
    made = legs[-1]
    for leg in reversed(legs[:-1]):
        made = JoinedPaths(leg, made)
    return made


def below(sender: Like, found: Paths | Step) -> Paths:
    """Return the walks that come past an end of `found` and end, further down, at a node of `sender`."""
    return join(path(sender, anything), as_paths(found))


@final
@dataclass(frozen=True, repr=False)
class CountedPaths(Paths):
    """Paths that say how many nodes are at their ends, at least and (if given) at most; a search checks it."""

    part: Paths
    least: int
    most: int | None

    def machine(self, scope: Scope) -> Machine:
        """Return the part's machine, once the count has been found right."""
        made = self.part.machine(scope)
        check_ends(scope, self.part, made, self.least, self.most)
        return made

    def __repr__(self) -> str:
        return f"{_inner(self.part)}.{said(self.least, self.most)}"


def _inner(part: Paths) -> str:
    return f"({part!r})" if isinstance(part, BothPaths | EitherPaths) else repr(part)


@cache
def _component(name: str) -> tuple[str, bool] | None:
    """Return the component that a name of a table belongs to, and whether it is a value inside it; `None` for no component."""
    address = address_of(name)
    if address is None or not isinstance(address.layer, int):
        return None
    block, _, site = address.site.partition(".")
    kind = address.kind
    if kind.startswith(("H.", "KV.")):
        return f"L{address.layer}.attn", True
    if block == "attn":
        return f"L{address.layer}.attn", site in INSIDE_ATTENTION
    if kind == "N" or kind.startswith("mlp.E"):
        return f"L{address.layer}.mlp", True
    if block == "mlp" and site != "in":
        return f"L{address.layer}.mlp", site in INSIDE_MLP
    return (f"L{address.layer}.{block}", True) if block in {"mixer", "cross"} else None


Marks = dict[Node, frozenset[str]]


def _components(scope: Scope) -> tuple[Marks, Marks]:
    """Return the components that nodes lie inside, and those that they belong to; raise `MatchError` if there are none."""
    marks, owners = dict[Node, frozenset[str]](), dict[Node, frozenset[str]]()
    for name, node in scope.circuit.table.items():
        if (found := _component(name)) is not None:
            owners[node] = owners.get(node, frozenset()) | {found[0]}
            if found[1]:
                marks[node] = marks.get(node, frozenset()) | {found[0]}
    computed = {one for node, some in owners.items() if node.operands and node in scope.nodes for one in some}
    seen = {one for node, some in marks.items() if node in scope.nodes for one in some}
    if not marks or computed - seen:
        which = f"no value inside {', '.join(sorted(computed - seen))}" if marks else "no attention or MLP"
        raise MatchError(
            f"{which} is named in this circuit's table: say what must not lie in between, as in direct_only(matcher)"
        )
    return marks, owners
