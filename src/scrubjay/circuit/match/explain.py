"""Why a search finds what it finds: what each part matches by itself, how far a path comes, and near names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

from scrubjay.circuit.match.matcher import And, Counted, HasAxes, Kind, Matcher, Not, Or, Related, Scope, These, Where
from scrubjay.circuit.match.path import BothPaths, Chain, CountedPaths, EitherPaths, JoinedPaths, OtherPaths, Paths
from scrubjay.circuit.match.reach import reached
from scrubjay.circuit.node import Node
from scrubjay.errors import AddressError, CircuitError


@final
@dataclass(frozen=True)
class Part:
    """A line: how deep in the selector, how many nodes (`None`: not asked by itself), the part, what else there is to say.

    `instead`: no part, but what would be found without one.
    """

    depth: int
    count: int | None
    text: str
    hint: str = ""
    instead: bool = False

    def __str__(self) -> str:
        count = "-" if self.count is None else str(self.count)
        return f"{'  ' * self.depth}{count}  {self.text}{self.hint}"


@final
@dataclass(frozen=True)
class Explanation:
    """What each part of a selector matches, the whole first; print it."""

    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.parts))


def explained(what: Matcher | Paths, scope: Scope) -> Explanation:
    """Return what each part of a matcher or of paths matches in a scope's circuit."""
    parts = _paths(what, scope, 0) if isinstance(what, Paths) else _matcher(what, scope, 0)
    return Explanation(tuple(parts))


def _asks(matcher: Matcher) -> bool:
    """Tell whether a function takes part, which may be made for the nodes that earlier parts leave and no others."""
    match matcher:
        case Where():
            return True
        case And(parts) | Or(parts):
            return any(map(_asks, parts))
        case Not(part) | Counted(part) | Related(part=part):
            return _asks(part)
        case _:
            return False


def _count(matcher: Matcher, scope: Scope) -> tuple[int, str]:
    """Return how many nodes are matched; for none, why, as far as the part itself can say."""
    try:
        count = len(scope.all(matcher))
    except (AddressError, CircuitError) as error:
        return 0, f"; {error}"
    return count, "" if count else _hint(matcher, scope)


def _hint(matcher: Matcher, scope: Scope) -> str:
    """Return what the circuit has instead."""
    nodes = scope.circuit.nodes
    match matcher:
        case Kind():
            kinds = Counter(type(node).__name__ for node in nodes)
            return f"; it has {', '.join(f'{name} {count}' for name, count in kinds.most_common(8))}"
        case HasAxes(names, acts):
            known = {name for node in nodes for name in (node.acts_along if acts else node.axis_names)}
            if missing := sorted(names - known):
                verb = "acts along" if acts else "has"
                return f"; no node {verb} {', '.join(missing)}: the circuit's axes are {', '.join(sorted(known)) or 'none'}"
            return "; no node has all of them at once"
        case These():
            return "; no result depends on them"
        case _:
            return ""


def _matcher(matcher: Matcher, scope: Scope, depth: int, note: str = "") -> Iterator[Part]:
    """Give the lines of a matcher and its parts."""
    count, hint = _count(matcher, scope)
    yield Part(depth, count, repr(matcher), note + hint)
    match matcher:
        case And(parts):
            yield from _conjuncts(parts, scope, depth + 1)
        case Or(parts):
            for part in parts:
                yield from _matcher(part, scope, depth + 1)
        case Not(part) | Counted(part) | Related(part=part):
            yield from _matcher(part, scope, depth + 1)
        case _:
            pass


def _conjuncts(parts: tuple[Matcher, ...], scope: Scope, depth: int) -> Iterator[Part]:
    """Give, for each part of a conjunction, what it matches alone, what is left after it, and what would be without it."""
    left: set[Node] = set(scope.nodes)
    for number, part in enumerate(parts):
        try:
            left = set(part.among(left, scope))
        except (AddressError, CircuitError):
            left = set()
        note = f"  ({len(left)} left"
        if not any(map(_asks, parts[number + 1 :])):
            rest = parts[:number] + parts[number + 1 :]
            note += f"; without it {_count(And(rest), scope)[0]}"
        if _asks(part):
            yield Part(depth, None, repr(part), note + ")")
        else:
            yield from _matcher(part, scope, depth, note + ")")


def _ends(paths: Paths, scope: Scope) -> tuple[int, str]:
    """Return how many nodes are at the ends of paths, or why none is."""
    try:
        return len(reached(scope.circuit, paths.machine(scope)).ends), ""
    except (AddressError, CircuitError) as error:
        return 0, f"; {error}"


def _paths(paths: Paths, scope: Scope, depth: int) -> Iterator[Part]:
    """Give the lines of paths and their parts."""
    count, hint = _ends(paths, scope)
    match paths:
        case Chain():
            yield Part(depth, count, repr(paths), hint or ("" if count else _reversed(paths, scope)))
            yield from _chain(paths, scope, depth + 1, count)
        case BothPaths(one, two) | EitherPaths(one, two) | JoinedPaths(one, two):
            yield Part(depth, count, repr(paths), hint)
            yield from _paths(one, scope, depth + 1)
            yield from _paths(two, scope, depth + 1)
        case OtherPaths(part) | CountedPaths(part):
            yield Part(depth, count, repr(paths), hint)
            yield from _paths(part, scope, depth + 1)
        case _:
            yield Part(depth, count, repr(paths), hint)


def _reversed(chain: Chain, scope: Scope) -> str:
    """Say so where the steps were given in the wrong order."""
    steps = chain.steps[::-1]
    count, _ = _ends(Chain(steps), scope)
    way = " -> ".join(repr(step.matcher) for step in steps)
    return f"; the other way round there are paths: {way}" if count and len(steps) > 1 else ""


def _chain(chain: Chain, scope: Scope, depth: int, count: int) -> Iterator[Part]:
    """Give the steps from the receiver on, with how many nodes a path reaches, and the conditions, with what they keep out."""
    for number in range(len(chain.steps) - 1, -1, -1):
        partial = replace(chain, steps=chain.steps[number:], passed=(), within_=(0, chain.within_[1]))
        note = f"  ({_ends(partial, scope)[0]} reached)" if len(chain.steps) > 1 else ""
        yield from _matcher(chain.steps[number].matcher, scope, depth, note)
    for name, parts in (("avoiding", chain.avoided), ("through", chain.passed), ("inside", (chain.below,))):
        for part in parts:
            if part is not None:
                yield from _matcher(part, scope, depth, f"  ({name})")
    if count == 0:
        freer = {
            "avoiding": replace(chain, avoided=()),
            "through": replace(chain, passed=()),
            "within": replace(chain, within_=(0, None)),
            "inside": replace(chain, below=None),
            "direct_only": replace(chain, direct=False),
        }
        for name, paths in freer.items():
            if paths != chain:
                yield Part(depth, _ends(paths, scope)[0], f"found without {name}", instead=True)
