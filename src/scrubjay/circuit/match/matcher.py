"""Matchers: which nodes of a circuit are meant, as values that combine with `&`, `|` and `~`.

A matcher is a condition on nodes. In a circuit it stands for a set: those nodes below the results that meet it. A node that
no result depends on is never matched. A conjunction asks its parts from left to right and each only about what the earlier
ones left, so `kind(Einsum) & where(lambda node: len(node.factors) == 2)` never shows another kind to the function.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

from scrubjay.circuit.circuit import Circuit, is_note
from scrubjay.circuit.graph import readers
from scrubjay.circuit.node import Node
from scrubjay.circuit.recognisers import Anatomy
from scrubjay.errors import MatchError


@dataclass(frozen=True, eq=False)
class Scope:
    """The circuit that is searched, and what each matcher was found to match in it."""

    circuit: Circuit
    anatomy: Anatomy | None = None
    known: dict[Matcher, frozenset[Node]] = field(default_factory=dict["Matcher", frozenset[Node]])

    @cached_property
    def nodes(self) -> frozenset[Node]:
        """Every node below the results."""
        return frozenset(self.circuit.nodes)

    @cached_property
    def addresses(self) -> dict[Node, str]:
        """One name for every node that has any, results and recognisers' notes last."""
        table = self.circuit.table
        plain = [(name, node) for name, node in table.items() if not is_note(name)]
        others = [*self.circuit.roots.items(), *((name, node) for name, node in table.items() if is_note(name))]
        return {node: name for name, node in reversed([*plain, *others])}

    def above(self, targets: Collection[Node]) -> frozenset[Node]:
        """Return every node of the circuit that reads one of the targets, directly or through others."""
        found: set[Node] = set()
        for node in self.circuit.nodes:
            for operand in node.operands:
                if operand in found or operand in targets:
                    found.add(node)
                    break
        return frozenset(found)

    def label(self, node: Node) -> str:
        """Return what to call a node in a message: its address, or its kind and axes."""
        return self.addresses.get(node) or repr(node)

    def all(self, matcher: Matcher) -> frozenset[Node]:
        """Return every node of the circuit that a matcher matches."""
        if matcher not in self.known:
            self.known[matcher] = frozenset(matcher.among(self.nodes, self))
        return self.known[matcher]


class Matcher(ABC):
    """A condition on the nodes of a circuit. Frozen, hashable, equal by value."""

    @abstractmethod
    def among(self, nodes: Collection[Node], scope: Scope) -> Collection[Node]:
        """Return those of `nodes` (all of them nodes of the scope's circuit) that are matched."""

    def __and__(self, other: object) -> Matcher:
        """Match what both match."""
        return And(_parts(And, self, other)) if isinstance(other, Matcher) else NotImplemented

    def __or__(self, other: object) -> Matcher:
        """Match what either matches."""
        return Or(_parts(Or, self, other)) if isinstance(other, Matcher) else NotImplemented

    def __invert__(self) -> Matcher:
        """Match every node below the results that this does not match."""
        return self.part if isinstance(self, Not) else Not(self)

    def exactly(self, count: int) -> Matcher:
        """Return the same matcher, for which it is an error to match more or fewer than `count` nodes of a circuit."""
        return Counted(self, count, count)

    def at_least(self, count: int) -> Matcher:
        """Return the same matcher, for which it is an error to match fewer than `count` nodes of a circuit."""
        return Counted(self, count, None)


def _parts(kind: type[And] | type[Or], *matchers: Matcher) -> tuple[Matcher, ...]:
    """Return the parts of a combination, each once, those of a combination of the same kind in its place."""
    flat: list[Matcher] = []
    for one in matchers:
        flat += one.parts if isinstance(one, kind) else (one,)
    return tuple(dict.fromkeys(flat))


def shown(matcher: Matcher) -> str:
    """Return a matcher as a part of a combination is printed."""
    return f"({matcher!r})" if isinstance(matcher, And | Or) else repr(matcher)


@final
@dataclass(frozen=True, repr=False)
class And(Matcher):
    """What all parts match: written `a & b`."""

    parts: tuple[Matcher, ...]

    def among(self, nodes: Collection[Node], scope: Scope) -> Collection[Node]:
        """Ask one part after another, each about what is left."""
        for part in self.parts:
            nodes = part.among(nodes, scope)
        return nodes

    def __repr__(self) -> str:
        return " & ".join(map(shown, self.parts))


@final
@dataclass(frozen=True, repr=False)
class Or(Matcher):
    """What any part matches: written `a | b`."""

    parts: tuple[Matcher, ...]

    def among(self, nodes: Collection[Node], scope: Scope) -> Collection[Node]:
        """Ask one part after another, each about what no earlier one matched."""
        found: set[Node] = set()
        for part in self.parts:
            found.update(part.among([node for node in nodes if node not in found], scope))
        return found

    def __repr__(self) -> str:
        return " | ".join(map(shown, self.parts))


@final
@dataclass(frozen=True, repr=False)
class Not(Matcher):
    """What its part does not match: written `~a`."""

    part: Matcher

    def among(self, nodes: Collection[Node], scope: Scope) -> Collection[Node]:
        """Leave out what the part matches."""
        out = set(self.part.among(nodes, scope))
        return [node for node in nodes if node not in out]

    def __repr__(self) -> str:
        return f"~{shown(self.part)}"


@final
@dataclass(frozen=True, repr=False)
class Counted(Matcher):
    """A matcher that says how many nodes of the circuit it matches, at least and (if given) at most."""

    part: Matcher
    least: int
    most: int | None

    def among(self, nodes: Collection[Node], scope: Scope) -> Collection[Node]:
        """Match what the part does; raise `MatchError` when it matches too many nodes of the circuit, or too few."""
        check_count(scope, self.part, scope.all(self.part), self.least, self.most)
        found = scope.all(self.part)
        return [node for node in nodes if node in found]

    def __repr__(self) -> str:
        return f"{shown(self.part)}.{said(self.least, self.most)}"


def said(least: int, most: int | None) -> str:
    """Return the words for a number of nodes that is asked for."""
    return f"exactly({least})" if most == least else f"at_least({least})"


def check_count(scope: Scope, selector: object, found: Collection[Node], least: int, most: int | None) -> None:
    """Raise `MatchError` unless as many nodes were found as were asked for."""
    if least <= len(found) and (most is None or len(found) <= most):
        return
    names = [scope.label(node) for node in scope.circuit.nodes if node in found]
    listed = f": {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else ""
    raise MatchError(f"{selector!r}: {said(least, most)} was asked for, and {len(found)} match{listed}")


@final
@dataclass(frozen=True, repr=False)
class Anything(Matcher):
    """Every node below the results."""

    def among(self, nodes: Collection[Node], scope: Scope) -> Collection[Node]:
        """Return all."""
        del scope
        return nodes

    def __repr__(self) -> str:
        return "anything"


anything = Anything()
"""The matcher of every node below the results."""


@final
@dataclass(frozen=True, repr=False)
class Kind(Matcher):
    """Nodes of any of some kinds."""

    kinds: tuple[type[Node], ...]

    def among(self, nodes: Collection[Node], scope: Scope) -> Collection[Node]:
        """Return the nodes of these kinds."""
        del scope
        return [node for node in nodes if isinstance(node, self.kinds)]

    def __repr__(self) -> str:
        return f"kind({', '.join(one.__name__ for one in self.kinds)})"


def kind(*kinds: type[Node]) -> Kind:
    """Return the matcher of nodes of any of these kinds.

    >>> from scrubjay.circuit.ops import Add, Einsum
    >>> kind(Einsum, Add)
    kind(Einsum, Add)
    """
    if not kinds:
        raise MatchError("kind() matches no node: name at least one kind, as in kind(Einsum)")
    return Kind(kinds)


@final
@dataclass(frozen=True, repr=False)
class Where(Matcher):
    """Nodes for which a function says so; equal to another by the function's identity."""

    predicate: Callable[[Any], bool]
    says: str

    def among(self, nodes: Collection[Node], scope: Scope) -> Collection[Node]:
        """Ask the function about each node."""
        del scope
        return [node for node in nodes if self.predicate(node)]

    def __repr__(self) -> str:
        return f"where({self.says})"


def where(predicate: Callable[[Any], bool], says: str = "") -> Where:
    """Return the matcher of nodes for which `predicate` is true; `says` is what it prints as.

    The predicate must depend on the node alone: it is asked about each node once a search, in no order.

    >>> where(lambda node: not node.axes, "a number")
    where(a number)
    """
    return Where(predicate, says or getattr(predicate, "__name__", repr(predicate)))


@final
@dataclass(frozen=True, repr=False)
class HasAxes(Matcher):
    """Nodes whose value has all of some axes, or (`acts`) that act along all of them."""

    names: frozenset[str]
    acts: bool = False

    def among(self, nodes: Collection[Node], scope: Scope) -> Collection[Node]:
        """Return the nodes with these axes."""
        del scope
        return [node for node in nodes if self.names <= (node.acts_along if self.acts else node.axis_names)]

    def __repr__(self) -> str:
        return f"{'acts_along' if self.acts else 'has_axes'}({', '.join(map(repr, sorted(self.names)))})"


def has_axes(*names: str) -> HasAxes:
    """Return the matcher of nodes whose value has all of these axes (and perhaps others).

    >>> has_axes("query", "key")
    has_axes('key', 'query')
    """
    return HasAxes(frozenset(names))


def acts_along(*names: str) -> HasAxes:
    """Return the matcher of nodes that act along all of these axes: along any other axis a node is pointwise."""
    return HasAxes(frozenset(names), acts=True)


@final
@dataclass(frozen=True, repr=False)
class These(Matcher):
    """Nodes that are at hand."""

    nodes: frozenset[Node]

    def among(self, nodes: Collection[Node], scope: Scope) -> Collection[Node]:
        """Return those of the nodes that are these."""
        del scope
        return [node for node in nodes if node in self.nodes]

    def __repr__(self) -> str:
        return f"these({', '.join(sorted(map(repr, self.nodes)))})"


def these(*nodes: Node) -> These:
    """Return the matcher of these very nodes (equal structure is the same node)."""
    return These(frozenset(nodes))


@final
@dataclass(frozen=True, repr=False)
class Related(Matcher):
    """Nodes that stand in a relation (`reads`, `read_by`, `depends_on`, `feeds`) to any node that another matcher matches."""

    relation: str
    part: Matcher

    def among(self, nodes: Collection[Node], scope: Scope) -> Collection[Node]:
        """Return the nodes that are so related."""
        targets = scope.all(self.part)
        found = (
            scope.above(targets) if self.relation == "depends_on" else _related(self.relation, targets, scope.circuit)
        )
        return [node for node in nodes if node in found]

    def __repr__(self) -> str:
        return f"{self.relation}({self.part!r})"


def _related(relation: str, targets: Collection[Node], circuit: Circuit) -> set[Node]:
    """Return the nodes of a circuit that stand in a relation to any of the targets, in one walk."""
    if relation == "read_by":
        return {operand for node in targets for operand in node.operands}
    if relation == "reads":
        table = readers(circuit.roots.values())
        return {reader for node in targets for reader in table.get(node, ())}
    found: set[Node] = set()
    for node in reversed(circuit.nodes):
        if node in found or node in targets:
            found.update(node.operands)
    return found
