"""What is linear goes over a sum, and what all terms have in common comes out of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, cast

from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Einsum, Multiply
from scrubjay.circuit.rules.algebra import V, X, Y
from scrubjay.circuit.rules.facts import (
    NOT_FLOATING,
    agree,
    contraction,
    floating,
    product,
    reads_input,
    total,
)
from scrubjay.circuit.rules.linearity import counts_for, image, linear_in
from scrubjay.circuit.rules.rule import Rule, expected
from scrubjay.errors import CircuitError


def spread_over(node: Node, position: int, terms: Sequence[Node]) -> Node | str:
    """Return a node, linear in the operand at `position`, as the sum of its images of that operand's terms."""
    others = [one for one in counts_for(node) if one is not node.operands[position]]
    if not floating([*terms, *others]):
        return NOT_FLOATING
    return Add(tuple(image(node, position, term) for term in terms))


def distribute(operand: int | None = None, *, data_only: bool = False) -> Rule:
    """Return the rule that a linear node goes over a sum that it reads: f(a + b) = f(a) + f(b).

    Args:
        operand: which operand is to be the sum; the first that is one when not given.
        data_only: leave sums of weights alone.
    """

    def change(node: Node) -> Node | str:
        positions = [place for place in linear_in(node) if operand is None or place == operand]
        if not positions:
            return f"{type(node).__name__} is linear in none of its operands" if operand is None else f"it is not linear in an operand {operand}"  # fmt: skip
        for place in positions:
            read = node.operands[place]
            if isinstance(read, Add) and len(read.terms) > 1 and (reads_input(read) or not data_only):
                return spread_over(node, place, read.terms)
        return "what it is linear in is no sum"

    return Rule(
        "distribute",
        "distribution",
        "a linear node over a sum is the sum of that node over each term",
        "f(a + b) = f(a) + f(b)",
        lambda: Einsum((Add((X, Y)), V), ("model",)),
        change,
    )


def _factor(node: Node) -> Node | str:
    """Return the sum with the first terms that have something in common made one."""
    if not isinstance(node, Add):
        return expected("a sum", node)
    found = _products(node.terms) or _shells(node.terms)
    if found is None:
        return "no two of its terms are products with a common factor, or the same linear function of two values"
    places, made = found
    if not floating([*node.terms, *(one for place in places for one in counts_for(node.terms[place]))]):
        return NOT_FLOATING
    return total([made if place == places[0] else term for place, term in enumerate(node.terms) if place == places[0] or place not in places])  # fmt: skip


def _products(terms: Sequence[Node]) -> tuple[list[int], Node] | None:
    """Return the places of the first products that share a factor, and their sum with it taken out."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, term in enumerate(terms):
        if isinstance(term, Einsum | Multiply):
            over = tuple(sorted(term.summed)) if isinstance(term, Einsum) else ()
            for factor in dict.fromkeys(term.factors):
                groups.setdefault((over, factor), []).append(place)
    for (over, _), places in groups.items():
        if len(places) < 2:
            continue
        all_factors = [Counter(cast("Einsum | Multiply", terms[place]).factors) for place in places]
        common = all_factors[0]
        for one in all_factors[1:]:
            common &= one
        shared = list(common.elements())
        rests = [product(_left(cast("Einsum | Multiply", terms[place]).factors, shared)) for place in places]
        if agree([*shared, *rests]):
            return places, contraction([*shared, total(rests)], cast("tuple[str, ...]", over))
    return None


def _left(factors: Sequence[Node], gone: Sequence[Node]) -> list[Node]:
    left = list(factors)
    for one in gone:
        left.remove(one)
    return left


def _shells(terms: Sequence[Node]) -> tuple[list[int], Node] | None:
    """Return the places of the first terms that are the same linear function of different values, and that function of their sum."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, term in enumerate(terms):
        if linear_in(term) and not isinstance(term, Einsum | Multiply):
            groups.setdefault(_shell(term), []).append(place)
    for places in groups.values():
        inner = [terms[place].operands[0] for place in places]
        if len(places) < 2 or not agree(inner) or not floating(inner):
            continue
        first = terms[places[0]]
        try:
            return places, first.with_operands([Add(tuple(inner)), *first.operands[1:]])
        except CircuitError:  # an axis that one term has is in the way of the others': the sum would be ill-formed
            continue
    return None


def _shell(node: Node) -> tuple[object, ...]:
    """Return what a node is apart from its first operand."""
    own: list[object] = [type(node)]
    for field in fields(cast("Any", node)):
        value: Any = getattr(node, field.name)
        nodes = isinstance(value, Node) or (isinstance(value, tuple) and any(isinstance(one, Node) for one in cast("tuple[object, ...]", value)))  # fmt: skip
        own.append(None if nodes else repr(cast("object", value)))
    return (*own, *node.operands[1:])


DISTRIBUTE = distribute()
FACTOR = Rule(
    "factor", "distribution", "what terms of a sum have in common is done once, to their sum", "f(a) + f(b) + c = f(a + b) + c",
    lambda: Add((Einsum((X, V), ("model",)), Einsum((Y, V), ("model",)))), _factor,
)  # fmt: skip

DISTRIBUTION = (DISTRIBUTE, FACTOR)
