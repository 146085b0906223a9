"""Sums and products: flattening, nesting, and numbers taken out of contractions."""

from __future__ import annotations

from collections.abc import Sequence

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Constant, Einsum, Input, Multiply, Weight
from scrubjay.circuit.rules.facts import (
    NOT_FLOATING,
    contraction,
    floating,
    fresh,
    product,
    reads_input,
    relabelled,
)
from scrubjay.circuit.rules.rule import Rule, expected

QUERY, MODEL, HIDDEN, D_HEAD = Axis("query", "query"), Axis("model", 4), Axis("hidden", 3), Axis("d_head", 2)
X, Y = Input("x", (QUERY, MODEL)), Input("y", (QUERY, MODEL))
V, W = Weight("model", "V", ((MODEL,), (D_HEAD,))), Weight("model", "W", ((D_HEAD,), (HIDDEN,)))
"""Leaves of the examples."""


def _flatten_add(node: Node) -> Node | str:
    if not isinstance(node, Add):
        return expected("a sum", node)
    if not any(isinstance(term, Add) for term in node.terms):
        return "none of its terms is a sum"
    if not floating([*node.terms, *(one for term in node.terms if isinstance(term, Add) for one in term.terms)]):
        return NOT_FLOATING
    return Add(tuple(one for term in node.terms for one in (term.terms if isinstance(term, Add) else (term,))))


def _flatten_multiply(node: Node) -> Node | str:
    if not isinstance(node, Multiply):
        return expected("a product", node)
    inner = [factor for factor in node.factors if isinstance(factor, Multiply)]
    if not inner:
        return "none of its factors is a product"
    if not floating([*node.factors, *(one for factor in inner for one in factor.factors)]):
        return NOT_FLOATING
    return Multiply(tuple(one for f in node.factors for one in (f.factors if isinstance(f, Multiply) else (f,))))


def _flatten_einsum(node: Node) -> Node | str:
    if not isinstance(node, Einsum | Multiply):
        return expected("a contraction or product", node)
    inner = [factor for factor in node.factors if isinstance(factor, Einsum | Multiply)]
    if not any(isinstance(factor, Einsum) for factor in (node, *inner)) or not inner:
        return "none of its factors is a contraction"
    if not floating([*node.factors, *(one for factor in inner for one in factor.factors)]):
        return NOT_FLOATING
    return contraction(*opened(node))


def opened(node: Einsum | Multiply) -> tuple[list[Node], list[str]]:
    """Return the factors and summed axes of a contraction with those of the contractions among its factors put in.

    An axis that an inner one sums over gets another name (`model.2`) where the name is taken.
    """
    taken = {name for factor in node.factors for name in factor.axis_names}
    factors: list[Node] = []
    summed = list(node.summed) if isinstance(node, Einsum) else []
    for factor in node.factors:
        if not isinstance(factor, Einsum | Multiply):
            factors.append(factor)
            continue
        bound = factor.summed if isinstance(factor, Einsum) else ()
        own = {name for one in factor.factors for name in one.axis_names}
        pairs: list[tuple[str, str]] = []
        for name in bound:
            new = fresh(name, taken | own) if name in taken else name
            taken.add(new)
            summed.append(new)
            pairs.append((name, new))
        factors.extend(relabelled(one, pairs) for one in factor.factors)
    return factors, summed


def nest(first: Sequence[int] = (0, 1)) -> Rule:
    """Return the rule that contracts some factors (by place) first: sum a b c = sum (sum a b) c.

    >>> from scrubjay.circuit.rules.rule import applied
    >>> inner = applied(nest((1, 2)), Einsum((X, V, W), ("d_head", "model"))).operands[1]
    >>> inner is Einsum((V, W), ("d_head",))
    True
    """
    places = tuple(first)

    def change(node: Node) -> Node | str:
        if not isinstance(node, Einsum):
            return expected("a contraction", node)
        if not all(0 <= place < len(node.factors) for place in places) or len(set(places)) >= len(node.factors):
            return f"it has {len(node.factors)} factors, and those at {places} are to be some of them, not all"
        return nested(node, [node.factors[place] for place in dict.fromkeys(places)], places)

    return Rule(
        "nest_einsum",
        "algebra",
        f"contract the factors {', '.join(map(str, places))} first",
        "sum_st a b c = sum_t (sum_s a b) c",
        lambda: Einsum((X, V, W), ("d_head", "model")),
        change,
        repeats=False,
    )


def nested(node: Einsum, chosen: Sequence[Node], places: Sequence[int]) -> Node | str:
    """Return the contraction with the chosen factors, which stand at `places`, contracted first."""
    rest = [factor for place, factor in enumerate(node.factors) if place not in places]
    if not floating(node.factors):
        return NOT_FLOATING
    elsewhere = {name for factor in rest for name in factor.axis_names}
    here = {name for factor in chosen for name in factor.axis_names}
    early = [name for name in node.summed if name in here and name not in elsewhere]
    late = [name for name in node.summed if name not in early]
    inner = contraction(chosen, early)
    factors = [inner if place == min(places) else factor for place, factor in enumerate(node.factors) if place == min(places) or place not in places]  # fmt: skip
    return Einsum(tuple(factors), tuple(sorted(late))) if late else product(factors)


def nest_sum(first: Sequence[int] = (0, 1)) -> Rule:
    """Return the rule that adds some terms (by place) first, as one node: a + b + c = (a + b) + c. `FLATTEN_ADD` undoes it.

    >>> from scrubjay.circuit.rules.rule import applied
    >>> applied(nest_sum((0, 2)), Add((X, Y, Constant(1.0)))) is Add((Add((X, Constant(1.0))), Y))
    True
    """
    places = tuple(dict.fromkeys(first))

    def change(node: Node) -> Node | str:
        if not isinstance(node, Add):
            return expected("a sum", node)
        if not all(0 <= place < len(node.terms) for place in places) or not 1 < len(places) < len(node.terms):
            return f"it has {len(node.terms)} terms, and those at {places} are to be several of them, not all"
        if not floating(node.terms):
            return NOT_FLOATING
        inner = Add(tuple(node.terms[place] for place in places))
        return Add(
            tuple(
                inner if place == min(places) else term
                for place, term in enumerate(node.terms)
                if place == min(places) or place not in places
            )
        )

    return Rule(
        "nest_sum",
        "algebra",
        f"add the terms {', '.join(map(str, places))} first",
        "a + b + c = (a + b) + c",
        lambda: Add((X, Y, Multiply((X, Y)))),
        change,
        repeats=False,
    )


def _weights_first(node: Node) -> Node | str:
    if not isinstance(node, Einsum):
        return expected("a contraction", node)
    places = [place for place, factor in enumerate(node.factors) if not reads_input(factor) and factor.axes]
    if len(places) < 2 or len(places) == len(node.factors):
        return "it has not several factors made of weights beside one that reads an input"
    return nested(node, [node.factors[place] for place in places], places)


def _scalar_out(node: Node) -> Node | str:
    if not isinstance(node, Einsum):
        return expected("a contraction", node)
    numbers: list[Node] = []
    rest: list[Node] = []
    for factor in node.factors:
        inside = factor.factors if isinstance(factor, Multiply) else (factor,)
        numbers.extend(one for one in inside if isinstance(one, Constant))
        if kept := [one for one in inside if not isinstance(one, Constant)]:
            rest.append(product(kept))
    if not numbers:
        return "none of its factors is a number, or a product with one"
    if not rest:
        return "all of its factors are numbers"
    if not floating([*numbers, *rest]):
        return NOT_FLOATING
    return Multiply((*numbers, Einsum(tuple(rest), node.summed)))


def _scalar_in(node: Node) -> Node | str:
    if not isinstance(node, Multiply):
        return expected("a product", node)
    numbers = [factor for factor in node.factors if isinstance(factor, Constant)]
    rest = [factor for factor in node.factors if not isinstance(factor, Constant)]
    if not numbers or len(rest) != 1 or not isinstance(rest[0], Einsum):
        return "it is no product of numbers and one contraction"
    first, *others = rest[0].factors
    if not floating([*numbers, first, *others]):
        return NOT_FLOATING
    return Einsum((Multiply((*numbers, first)), *others), rest[0].summed)


FLATTEN_ADD = Rule(
    "flatten_add", "algebra", "a sum among the terms of a sum is put in its place", "a + (b + c) = a + b + c",
    lambda: Add((X, Add((Y, X)))), _flatten_add,
)  # fmt: skip
FLATTEN_MULTIPLY = Rule(
    "flatten_multiply", "algebra", "a product among the factors of a product is put in its place", "a (b c) = a b c",
    lambda: Multiply((X, Multiply((Y, X)))), _flatten_multiply,
)  # fmt: skip
FLATTEN_EINSUM = Rule(
    "flatten_einsum", "algebra", "contractions among the factors of a contraction become one", "sum_t (sum_s a b) c = sum_st a b c",
    lambda: Einsum((Einsum((X, V), ("model",)), W), ("d_head",)), _flatten_einsum,
)  # fmt: skip
NEST_EINSUM = nest()
NEST_SUM = nest_sum()
WEIGHTS_FIRST = Rule(
    "weights_first", "algebra", "the weights of a contraction are multiplied with each other first", "sum_st x V W = sum_s x (sum_t V W)",
    lambda: Einsum((X, V, W), ("d_head", "model")), _weights_first,
)  # fmt: skip
SCALAR_OUT = Rule(
    "scalar_out", "algebra", "numbers come out of a contraction", "sum_s (c a) b = c sum_s a b",
    lambda: Einsum((Multiply((Constant(2.0), X)), V), ("model",)), _scalar_out,
)  # fmt: skip
SCALAR_IN = Rule(
    "scalar_in", "algebra", "numbers go into the first factor of a contraction", "c sum_s a b = sum_s (c a) b",
    lambda: Multiply((Constant(2.0), Einsum((X, V), ("model",)))), _scalar_in,
)  # fmt: skip

ALGEBRA = (FLATTEN_ADD, FLATTEN_MULTIPLY, FLATTEN_EINSUM, NEST_EINSUM, NEST_SUM, WEIGHTS_FIRST, SCALAR_OUT, SCALAR_IN)
FLATTEN = (FLATTEN_ADD, FLATTEN_MULTIPLY, FLATTEN_EINSUM)
"""What makes sums and products as flat as they can be; values that several read are computed for each of them anew."""
