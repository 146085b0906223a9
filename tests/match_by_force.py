"""What a path selector means, said by listing every walk of a small circuit, and random selectors to compare it on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from hypothesis import strategies as st

from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.match import Matcher, Paths, anything, below, has_axes, join, kind, path, slot, these, where
from scrubjay.circuit.match.matcher import And, Anything, HasAxes, Kind, Not, Or, These, Where
from scrubjay.circuit.match.path import BothPaths, Chain, EitherPaths, JoinedPaths, OtherPaths
from scrubjay.circuit.node import Node

MOST_WALKS = 300


@dataclass(frozen=True)
class Walk:
    """A way down from a result: the nodes, and the operand numbers between them."""

    nodes: tuple[Node, ...]
    slots: tuple[int, ...]

    def after(self, start: int) -> Walk:
        return Walk(self.nodes[start:], self.slots[start:])

    def before(self, end: int) -> Walk:
        return Walk(self.nodes[: end + 1], self.slots[:end])


def walks(circuit: Circuit) -> list[Walk] | None:
    """Every walk from a result; `None` if there are too many."""
    todo = [Walk((root,), ()) for root in circuit.roots.values()]
    done: list[Walk] = []
    while todo:
        walk = todo.pop()
        done.append(walk)
        todo += [Walk((*walk.nodes, node), (*walk.slots, i)) for i, node in enumerate(walk.nodes[-1].operands)]
        if len(done) + len(todo) > MOST_WALKS:
            return None
    return done


def meets(matcher: Matcher, node: Node) -> bool:
    match matcher:
        case And(parts):
            return all(meets(part, node) for part in parts)
        case Or(parts):
            return any(meets(part, node) for part in parts)
        case Not(part):
            return not meets(part, node)
        case Kind(kinds):
            return isinstance(node, kinds)
        case HasAxes(names):
            return names <= node.axis_names
        case These(nodes):
            return node in nodes
        case Where(predicate):
            return predicate(node)
        case Anything():
            return True
    raise TypeError(matcher)


def starts(chain: Chain, walk: Walk) -> set[int]:
    """Where on a walk the receivers of its paths stand, for the paths that end where it ends."""
    last, found = len(walk.nodes) - 1, set[int]()
    steps = chain.steps[::-1]
    for some in combinations(range(last + 1), len(steps)):
        if some[-1] != last or not all(meets(step.matcher, walk.nodes[i]) for step, i in zip(steps, some, strict=True)):
            continue
        if any(step.numbers and walk.slots[i] not in step.numbers for step, i in zip(steps[:-1], some, strict=False)):
            continue
        start, least, most = some[0], chain.within_[0], chain.within_[1]
        between = range(start + 1, last)
        if any(meets(matcher, walk.nodes[i]) for matcher in chain.avoided for i in between if i not in some):
            continue
        if not all(any(meets(matcher, walk.nodes[i]) for i in between) for matcher in chain.passed):
            continue
        if last - start < least or (most is not None and last - start > most):
            continue
        if chain.below is not None and not any(meets(chain.below, node) for node in walk.nodes[: start + 1]):
            continue
        found.add(start)
    return found


def accepts(paths: Paths, walk: Walk, *, at_once: bool = False) -> bool:
    """Whether a walk is one of those meant; `at_once`: with its path beginning at its first node."""
    match paths:
        case Chain():
            found = starts(paths, walk)
            return 0 in found if at_once else bool(found)
        case BothPaths(one, two):
            both = accepts(one, walk) and accepts(two, walk)
            return both and (not at_once or accepts(one, walk, at_once=True) or accepts(two, walk, at_once=True))
        case EitherPaths(one, two):
            return accepts(one, walk, at_once=at_once) or accepts(two, walk, at_once=at_once)
        case OtherPaths(part):
            return not at_once and not accepts(part, walk)
        case JoinedPaths(sender, receiver):
            return any(
                accepts(receiver, walk.before(i), at_once=at_once) and accepts(sender, walk.after(i), at_once=True)
                for i in range(len(walk.nodes))
            )
    raise TypeError(paths)


def copied(circuit: Circuit, paths: Paths, change: Callable[[Node], Node]) -> dict[str, Node]:
    """The results with the graph copied out into a tree, and the copies that are meant replaced."""

    def copy(walk: Walk) -> Node:
        node = walk.nodes[-1]
        new = node.with_operands(
            [copy(Walk((*walk.nodes, below), (*walk.slots, i))) for i, below in enumerate(node.operands)]
        )
        return change(new) if accepts(paths, walk) else new

    return {name: copy(Walk((root,), ())) for name, root in circuit.roots.items()}


Draw = Callable[[st.SearchStrategy[Any]], Any]


def matchers(draw: Draw, nodes: Sequence[Node]) -> Matcher:
    """Draw a matcher that matches something among the nodes, most often."""
    some = draw(st.lists(st.sampled_from(list(nodes)), min_size=1, max_size=4))
    made: list[Matcher] = [
        these(*some),
        kind(*(type(node) for node in some)),
        has_axes(*sorted(some[0].axis_names)[:1]),
        where(lambda node: len(node.operands) > 1),
        anything,
    ]
    one = draw(st.sampled_from(made))
    two = draw(st.sampled_from(made))
    return draw(st.sampled_from([one, these(*some), one & two, one | two, ~one, ~(one & two)]))


def chains(draw: Draw, nodes: Sequence[Node]) -> Chain:
    """Draw a chain of one to three steps with conditions."""
    steps: list[Any] = [matchers(draw, nodes) for _ in range(draw(st.integers(1, 3)))]
    if draw(st.booleans()):
        steps[-1] = slot(steps[-1], draw(st.integers(0, 1)))
    made = path(*steps)
    for name in draw(st.sets(st.sampled_from(["avoiding", "through", "within", "inside"]), max_size=2)):
        if name == "within":
            least = draw(st.integers(0, 2))
            made = made.within(draw(st.sampled_from([None, least, least + 2])), least)
        else:
            some = [matchers(draw, nodes) for _ in range(1 if name == "inside" else draw(st.integers(1, 2)))]
            made = getattr(made, name)(*some)
    return made


def selectors(draw: Draw, nodes: Sequence[Node]) -> Paths:
    """Draw a chain or a combination of chains."""
    one, two = chains(draw, nodes), chains(draw, nodes)
    combine: list[Callable[[], Paths]] = [
        lambda: one,
        lambda: one & two,
        lambda: one | two,
        lambda: one & ~two,
        lambda: ~one,
        lambda: join(one, two),
        lambda: below(matchers(draw, nodes), one | two),
        lambda: join(one | two, two),
    ]
    return draw(st.sampled_from(combine))()
