"""Values followed down to their sources: through sums and linear functions, and through heads, whose patterns stay as they are.

A value is the sum of one term for each route. A route begins at a source (an embedding, a bias, what an MLP wrote) and goes
through some heads: a head's pattern is the run's own, so what it writes is linear in what its values read. The scales of norms
stay the run's own in the same way. Terms of one route are one term: a rotary embedding reads each source twice and has one
term for it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product as pairs_of
from math import prod

from scrubjay.circuit.graph import above, substitute, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Along, Concat, Custom, Einsum, Experts, Index, Input, Map, Opaque
from scrubjay.circuit.rules.attention import below_of, mixed_of, projected_of
from scrubjay.circuit.rules.distribution import spread_over
from scrubjay.circuit.rules.facts import contraction, floating, reads_input, total, widened
from scrubjay.circuit.rules.linearity import image, linear_in
from scrubjay.circuit.rules.rewriting import settle
from scrubjay.circuit.rules.rule import Rule
from scrubjay.circuit.rules.taking import push_index
from scrubjay.circuit.rules.turning import cores, is_projection
from scrubjay.errors import CircuitError

Place = tuple[tuple[str, int], ...]
"""One place on each of some axes."""


@dataclass(frozen=True)
class Passed:
    """A head that a route goes through: the mixture of values, and the place on its head axes."""

    mixture: Node
    place: Place


@dataclass(frozen=True)
class Route:
    """Where a term comes from: its source (a node, or what `label` made of one) and the heads from there on."""

    source: Hashable
    heads: tuple[Passed, ...] = ()


Terms = Mapping["Route | tuple[Route, ...]", Node]
State = tuple[Node, int, str]
"""A node, how many heads may still be entered, and where it stands: in the `stream`, in a `mixture`, among `values`."""


@dataclass(frozen=True, eq=False)
class _Step:
    """How a node's terms come from those of nodes below it, each at its position among the operands."""

    kind: str
    below: tuple[tuple[int, State], ...] = ()
    passed: Passed | None = None


def _itself(node: Node) -> Hashable:
    return node


@dataclass(eq=False)
class Following:
    """The terms of values, found once each.

    Attributes:
        stop: which values are sources whatever they are made of.
        label: what a source is called; sources with one name make one term.
        enters: which heads are gone through, where their number allows it.
        by_head: whether heads that are not gone through are sources one by one.
        apart: which mixtures of values have heads that are told apart; what the others write is a source.
        most: more terms than this are refused.
        opened: the values that were looked through.
    """

    stop: Callable[[Node], bool] = lambda _: False
    label: Callable[[Node], Hashable] = _itself
    enters: Callable[[Passed], bool] = lambda _: True
    by_head: bool = False
    apart: Callable[[Node], bool] = lambda _: True
    most: int = 50_000
    known: dict[State, Terms] = field(default_factory=dict["State", "Terms"])
    heads: dict[Node, Passed] = field(default_factory=dict[Node, Passed])
    pairs: set[Node] = field(default_factory=set[Node])
    found: dict[Hashable, list[Node]] = field(default_factory=dict[Hashable, list[Node]])
    opened: set[Node] = field(default_factory=set[Node])

    def terms(self, node: Node, depth: int = 0, among: str = "stream") -> Terms:
        """Return terms whose sum is the node, by route; the heads on a route are `depth` at most."""
        if depth < 0:
            raise CircuitError(f"depth={depth}: how many heads a route may go through is a number from 0 on")
        start = (node, depth, among)
        stack, steps = [start], dict[State, _Step]()
        while stack:
            state = stack[-1]
            if state in self.known:
                stack.pop()
                continue
            if state not in steps:
                steps[state] = self._step(*state)
            waiting = [one for _, one in steps[state].below if one not in self.known]
            if waiting:
                stack.extend(waiting)
                continue
            self.known[state] = self._together(state[0], steps[state])
            self._check(state[0], len(self.known[state]))
            stack.pop()
        return self.known[start]

    def _check(self, node: Node, count: int) -> None:
        if count > self.most:
            raise CircuitError(
                f"{node!r} has {count} terms to this depth, more than {self.most}: go through fewer heads, or say which"
            )

    def _step(self, node: Node, left: int, among: str) -> _Step:
        if (among == "stream" and self.stop(node)) or not reads_input(node):
            return _Step("source")
        if isinstance(node, Add | Concat):
            return _Step(type(node).__name__, tuple((at, (one, left, among)) for at, one in enumerate(node.operands)))
        if isinstance(node, Einsum):
            return self._through(node, left, among)
        if isinstance(node, Experts | Opaque | Custom):
            return _Step("source")
        places = [at for at in linear_in(node) if reads_input(node.operands[at])]
        return _Step("linear", tuple((at, (node.operands[at], left, among)) for at in places))

    def _through(self, node: Einsum, left: int, among: str) -> _Step:
        """Return the step at a contraction: a projection among values is gone through, a head's output where it may be."""
        data = [at for at, one in enumerate(node.factors) if reads_input(one)]
        if node in self.pairs:
            return _Step("pair", tuple((at, (node.factors[at], left, "values")) for at in data))
        if among == "values" and is_projection(node):
            return _Step("linear", ((data[0], (node.factors[data[0]], left, "stream")),))
        if among == "mixture" and len(data) > 1:
            values = [at for at in data if isinstance(projected_of(node.factors[at]), Node)]
            return _Step("linear", tuple((at, (node.factors[at], left, "values")) for at in values))
        if among != "stream" or not (left or self.by_head):
            return _Step("source")
        if left > 0 and node in self.heads and self.enters(self.heads[node]):
            inside: State = (node.factors[data[0]], left - 1, "mixture")
            return _Step("linear", ((data[0], inside),), self.heads[node])
        return self._split(node, left)

    def _split(self, node: Einsum, left: int) -> _Step:
        """Return the step at what a layer's heads, or one of them, write: into one term for each head."""
        found = mixture_of(node)
        if found is None or not self.apart(found[0]):
            return _Step("source")
        mixture, held, place, axes = found
        below: list[tuple[int, State]] = []
        for at in _places(mixture, axes):
            passed = Passed(mixture, tuple(sorted((*place, *at))))
            own = _at(node, at)
            if left and self.enters(passed):
                self.opened.update(topological([node], stop=frozenset(held)))
                self.opened.difference_update(held)
                own = _pushed(own, held, passed.place)
                self.heads[own] = passed
                if own is node:
                    return self._through(node, left, "stream")
                below.append((0, (own, left, "stream")))
            else:
                self.heads[own] = passed
                self.known[own, -1, "stream"] = self._source(own)
                below.append((0, (own, -1, "stream")))
        return _Step("Add", tuple(below))

    def _together(self, node: Node, step: _Step) -> Terms:
        found = [(at, self.known[state]) for at, state in step.below]
        if step.kind == "Add":
            self.opened.add(node)
            return _summed([terms for _, terms in found])
        if step.kind == "Concat" and isinstance(node, Concat):
            made = _joined(node, [terms for _, terms in found])
        elif step.kind == "pair":
            self._check(node, prod(len(terms) for _, terms in found))
            made = _paired(node, found)
        else:
            made = self._mapped(node, found)
        if made is None:
            return self._source(node)
        self.opened.add(node)
        if step.passed is None:
            return made
        return {
            Route(key.source, (*key.heads, step.passed)): one for key, one in made.items() if isinstance(key, Route)
        }

    def _source(self, node: Node) -> Terms:
        name = self.label(node)
        self.found.setdefault(name, []).append(node)
        return {Route(name): node}

    def _mapped(self, node: Node, found: Sequence[tuple[int, Terms]]) -> Terms | None:
        """Return the terms of a node that is linear in an operand with terms; `None` where it is a source itself.

        Of a product of values one may have sources, and the others are factors that are held: the cosine of a position, the scale
        of a norm. A gate, as wide as the value it multiplies and made of the same, is none: the product is a source.
        """
        carrying = [(at, terms) for at, terms in found if any(not self._is_factor(key) for key in terms)]
        if not carrying:  # nothing but functions: the one that has all axes of the others and more
            axes = [node.operands[at].axis_names for at, _ in found]
            carrying = [one for one, own in zip(found, axes, strict=True) if all(own > other for other in axes if other is not own)]  # fmt: skip
        if len(carrying) > 1:  # queries times a looked-up cosine: the one that is a projection
            carrying = [one for one in carrying if node.operands[one[0]] in cores(node.operands[one[0]])]
        if len(carrying) != 1:
            return None
        ((at, terms),) = carrying
        value = node.operands[at]
        gates = [one for place, one in enumerate(node.operands) if place != at and reads_input(one) and value.axis_names <= one.axis_names]  # fmt: skip
        if gates and above(gates, self._begins(terms)).intersection(gates):
            return None
        if len(terms) == 1:
            return dict.fromkeys(terms, node)
        made = spread_over(node, at, list(terms.values()))
        return None if isinstance(made, str) else dict(zip(terms, made.operands, strict=True))

    def _is_factor(self, key: Route | tuple[Route, ...]) -> bool:
        """Tell whether a route begins at a value that is no source of anything: a cosine, a scale, a number."""
        if not isinstance(key, Route) or key.heads:
            return False
        return all(isinstance(one, Map | Along) or not reads_input(one) for one in self._nodes(key.source))

    def _begins(self, terms: Terms) -> list[Node]:
        keys = [one for key in terms for one in ((key,) if isinstance(key, Route) else key)]
        return [one for key in keys for one in self._nodes(key.source) if reads_input(one)]

    def _nodes(self, source: Hashable) -> list[Node]:
        """Return the nodes that have a source's name."""
        return self.found.get(source) or ([source] if isinstance(source, Node) else [])


def mixture_of(node: Einsum) -> tuple[Einsum, list[Node], Place, list[str]] | None:
    """Return the mixture of values that heads write; what to hold still in it; one head's place; the head axes that are summed.

    `None` where a contraction is something else.
    """
    data = [one for one in node.factors if reads_input(one)]
    mixture = mixed_of(data[0]) if len(data) == 1 and len(node.factors) > 1 else "no projection"
    if isinstance(mixture, str):
        return None
    factors = [one for one in mixture.factors if reads_input(one)]
    reads = {one: projected_of(one) for one in factors}
    values = [one for one, read in reads.items() if isinstance(read, Node)]
    if len(values) != 1:
        return None
    read = reads[values[0]]
    patterns = [one for one in factors if one is not values[0]]
    names = {name for one in patterns for name in one.axis_names}
    axes = [axis.name for axis in mixture.axes if axis.name in names and axis.name in node.summed]
    place: list[tuple[str, int]] = []
    way = data[0]
    while way is not mixture:
        if isinstance(way, Index):
            place.append((way.axis, way.at))
        below = below_of(way)
        if isinstance(below, str):
            return None
        way = below
    return mixture, [*patterns, *([read] if isinstance(read, Node) else [])], tuple(place), axes


def _places(mixture: Node, axes: Sequence[str]) -> list[Place]:
    sizes = [mixture.size(name) for name in axes]
    if any(isinstance(size, str) for size in sizes):
        return [()]
    numbers = [[(name, at) for at in range(int(size))] for name, size in zip(axes, sizes, strict=True)]
    return list(pairs_of(*numbers))


def _at(node: Einsum, place: Place) -> Einsum:
    """Return a contraction at one place of some of the axes that it sums over."""
    factors = list(node.factors)
    for name, at in place:
        factors = [Index(one, name, at) if name in one.axis_names else one for one in factors]
    made = contraction(factors, [name for name in node.summed if name not in dict(place)])
    return made if isinstance(made, Einsum) else Einsum((made,), ())


def held_still(node: Node, held: Sequence[Node], rules: Sequence[Rule]) -> Node:
    """Return the node with rules applied to the end, down to the nodes in `held`, which stay as they are."""
    stand = {one: Input(f"held {at}", one.axes) for at, one in enumerate(dict.fromkeys(held))}
    still = substitute([node], dict(stand))[node]
    made = settle([still], tuple(rules)).made[still]
    return substitute([made], {leaf: one for one, leaf in stand.items()})[made]


def _pushed(node: Einsum, held: Sequence[Node], place: Place) -> Einsum:
    made = held_still(node, held, [push_index(tuple(dict(place)))])
    return made if isinstance(made, Einsum) else node


def _summed(found: Sequence[Terms]) -> Terms:
    together: dict[Route | tuple[Route, ...], list[Node]] = {}
    for terms in found:
        for key, one in terms.items():
            together.setdefault(key, []).append(one)
    return {key: total(several) for key, several in together.items()}


def _joined(node: Concat, found: Sequence[Terms]) -> Terms | None:
    """Return the terms of a join whose parts have terms of the same routes."""
    if any(set(terms) != set(found[0]) for terms in found) or not floating(node.parts):
        return None
    made: dict[Route | tuple[Route, ...], Node] = {}
    for key in found[0]:
        parts = [
            widened(terms[key], [axis for axis in part.axes if axis.name == along])
            for terms, part, along in zip(found, node.parts, node.along, strict=True)
        ]
        made[key] = Concat(tuple(parts), node.along, node.to)
    return made


def _paired(node: Node, found: Sequence[tuple[int, Terms]]) -> Terms | None:
    if not floating(node.operands):
        return None
    made: dict[Route | tuple[Route, ...], Node] = {}
    for chosen in pairs_of(*(terms.items() for _, terms in found)):
        term = node
        for (at, _), (_, one) in zip(found, chosen, strict=True):
            term = image(term, at, one)
        made[tuple(key for key, _ in chosen if isinstance(key, Route))] = term
    return made
