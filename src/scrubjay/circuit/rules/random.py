"""Means and cumulants of random values: what comes out of them, what splits, and how each is written by the other.

`over` are the sources that a mean is taken over; a value that none of them draws is a constant to it. Linear maps of sums go by
`distribute`, as for every linear node. What drops cumulants is an approximation, for it changes values (`cumulants_up_to`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial

from scrubjay.circuit.axes import RANDOM, Axis, is_random
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Concat,
    Constant,
    Cumulant,
    Einsum,
    Expectation,
    Input,
    Multiply,
    Repeat,
    Sample,
    Weight,
)
from scrubjay.circuit.partitions import MOST, Partition, check_order, moebius, partitions
from scrubjay.circuit.rules.approximation import Approximation
from scrubjay.circuit.rules.facts import NOT_FLOATING, contraction, floating, fresh, product, relabelled, total, widened
from scrubjay.circuit.rules.linearity import counts_for, linear_in
from scrubjay.circuit.rules.rule import Rule, expected

MODEL, HIDDEN = Axis("model", 4), Axis("hidden", 3)
DRAWN = Sample(Input("rows", (Axis("row", 5), MODEL)), "row", "datum")
BESIDE = Sample(Input("labels", (Axis("row", 5),)), "row", "datum")
APART = Sample(Input("rows", (Axis("row", 5), MODEL)), "row", "other")
W = Weight("model", "W", ((MODEL,), (HIDDEN,)))
"""Leaves of the examples: two values drawn together, one drawn apart, and a weight."""


def sources_of(node: Node, among: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return the sources that a value is drawn by (of those `among`), in order.

    >>> sources_of(Multiply((DRAWN, APART))), sources_of(W)
    (('datum', 'other'), ())
    """
    found = {axis.name.removeprefix(RANDOM) for axis in node.axes if is_random(axis.name)}
    return tuple(sorted(found if among is None else found & set(among)))


def mean(value: Node, over: Iterable[str]) -> Node:
    """Return the mean over those of the sources that the value is drawn by: itself where it is drawn by none."""
    here = sources_of(value, over)
    return Expectation(value, here) if here else value


def groups(values: Sequence[Node], over: Collection[str]) -> list[list[int]]:
    """Return the places of values in groups that are independent of each other: values of two groups share no source of `over`."""
    found: list[tuple[set[str], list[int]]] = []
    for place, value in enumerate(values):
        mine, members = set(sources_of(value, over)), [place]
        for other in [one for one in found if one[0] & mine]:
            found.remove(other)
            mine, members = mine | other[0], other[1] + members
        found.append((mine, members))
    return sorted(sorted(members) for _, members in found)


def joint(values: Sequence[Node], over: Collection[str]) -> Node | None:
    """Return the joint cumulant of values, `None` where it is 0 because they are not all dependent; of one value its mean."""
    if len(values) == 1:
        return mean(values[0], over)
    if len(groups(values, over)) > 1:
        return None
    return Cumulant(tuple(values), tuple(sorted({name for value in values for name in sources_of(value, over)})))


def by_blocks(values: Sequence[Node], over: Collection[str], blocks: Partition) -> list[Node] | None:
    """Return the cumulant of each block of values; `None` where one of them is 0."""
    found: list[Node] = []
    for block in blocks:
        made = joint([values[place] for place in block], over)
        if made is None:
            return None
        found.append(made)
    return found


def zero(axes: Sequence[Axis]) -> Node:
    """Return 0 at every place of some axes."""
    return widened(Constant(0, "model"), axes)


# --- means ------------------------------------------------------------------------------------------------------------


def _through(node: Node) -> Node | str:
    if not isinstance(node, Expectation):
        return expected("a mean", node)
    value = node.value
    if isinstance(value, Expectation):
        return Expectation(value.value, tuple(sorted((*node.over, *value.over))))
    if isinstance(value, Repeat) and (same := [axis for axis in value.along if axis.name in node.acts_along]):
        rest = tuple(axis for axis in value.along if axis not in same)
        return mean(Repeat(value.source, rest) if rest else value.source, node.over) if floating([value]) else NOT_FLOATING  # fmt: skip
    if isinstance(value, Concat):
        made = Concat(tuple(mean(part, node.over) for part in value.parts), value.along, value.to)
        return made if floating(value.parts) else NOT_FLOATING
    if isinstance(value, Cumulant | Multiply | Einsum):
        return "what it is the mean of is a cumulant or a product: other rules are for these"
    return _inside(value, node.over, lambda inner: mean(inner, node.over))


def _inside(value: Node, over: Collection[str], change: Callable[[Node], Node]) -> Node | str:
    """Return a linear node with the one operand that is random changed."""
    random = [place for place, operand in enumerate(value.operands) if sources_of(operand, over)]
    if len(random) != 1 or random[0] not in linear_in(value):
        return f"{type(value).__name__} is not linear in the one operand that is random"
    if not floating(counts_for(value)):
        return NOT_FLOATING
    operands = list(value.operands)
    operands[random[0]] = change(operands[random[0]])
    return value.with_operands(operands)


def _factors(value: Node) -> tuple[tuple[Node, ...], tuple[str, ...]] | None:
    """Return the factors of a product and the axes it is summed over."""
    if isinstance(value, Einsum):
        return value.factors, value.summed
    return (value.factors, ()) if isinstance(value, Multiply) else None


def _independent(node: Node) -> Node | str:
    if not isinstance(node, Expectation):
        return expected("a mean", node)
    found = _factors(node.value)
    if found is None:
        return "what it is the mean of is no product"
    factors, summed = found
    if not floating(factors):
        return NOT_FLOATING
    parts = groups(factors, node.over)
    if len(parts) < 2 and (len(factors) > 1 or not summed):
        return "all of its factors are drawn together"
    made: list[Node] = []
    late = set(summed)
    for members in parts:
        elsewhere = {name for place, one in enumerate(factors) if place not in members for name in one.axis_names}
        early = [name for name in summed if name not in elsewhere]
        here = {name for place in members for name in factors[place].axis_names}
        early = [name for name in early if name in here] if len(members) > 1 else []
        late -= set(early)
        made.append(mean(contraction([factors[place] for place in members], early), node.over))
    return contraction(made, late)


def expansion(value: Node, over: Collection[str], most: int = MOST) -> list[tuple[Partition, Node]] | str:
    """Return the mean of a product as a sum over partitions of its random factors: each with its product of cumulants.

    Partitions with a cumulant that is 0 for independence are left out, and those with a block of more than `most` factors.
    """
    factors, summed = _factors(value) or ((value,), ())
    if not floating(factors):
        return NOT_FLOATING
    random = [factor for factor in factors if sources_of(factor, over)]
    constant = [factor for factor in factors if not sources_of(factor, over)]
    check_order(max(len(random), 1), "an expansion in cumulants of a product")
    kept = [blocks for blocks in partitions(len(random)) if max(map(len, blocks)) <= most] if random else []
    made = [(blocks, by_blocks(random, over, blocks)) for blocks in kept]
    return [(blocks, contraction([*parts, *constant], summed)) for blocks, parts in made if parts is not None]


def _to_cumulants(node: Node, most: int = MOST) -> Node | str:
    if not isinstance(node, Expectation):
        return expected("a mean", node)
    found = _factors(node.value)
    if found is None or sum(bool(sources_of(one, node.over)) for one in found[0]) < 2:
        return "what it is the mean of is no product of several random factors"
    terms = expansion(node.value, node.over, most)
    return terms if isinstance(terms, str) else total([term for _, term in terms])


# --- cumulants --------------------------------------------------------------------------------------------------------

_ESTIMATE = "it is an estimate from a sample, and the law is one of the population"


def _moments(node: Node) -> Node | str:
    if not isinstance(node, Cumulant):
        return expected("a cumulant", node)
    if not floating(node.values):
        return NOT_FLOATING
    if len(node.values) == 1:
        return mean(node.values[0], node.over)
    if node.unbiased:
        return _ESTIMATE
    terms: list[Node] = []
    for blocks in partitions(len(node.values)):
        parts = [mean(product([node.values[place] for place in block]), node.over) for block in blocks]
        weight = moebius(len(blocks))
        terms.append(product(parts if weight == 1 else [Constant(weight), *parts]))
    return total(terms)


def _vanishes(node: Node) -> Node | str:
    if not isinstance(node, Cumulant):
        return expected("a cumulant", node)
    if not floating(node.values):
        return NOT_FLOATING
    if len(node.values) > 1 and not all(sources_of(one, node.over) for one in node.values):
        return zero(node.axes)
    if node.unbiased:
        return _ESTIMATE
    return zero(node.axes) if len(groups(node.values, node.over)) > 1 else "its values are all drawn together"


def _constants_out(node: Node) -> Node | str:
    """Take the first of a cumulant's values apart that is a linear map of something random."""
    if not isinstance(node, Cumulant):
        return expected("a cumulant", node)
    for place, value in enumerate(node.values):
        others = {name for at, one in enumerate(node.values) if at != place for name in one.axis_names}
        made = _constant_factors(node, place, others)
        if made is None and not (value.acts_along & others) and not isinstance(value, Multiply | Einsum | Add):
            found = _inside(value, node.over, partial(_with, node, place))
            made = None if isinstance(found, str) else found
        if made is not None:
            return made
    return "none of its values is a linear map of something random along axes of its own"


def _with(node: Cumulant, place: int, value: Node) -> Node:
    values = list(node.values)
    values[place] = value
    return Cumulant(tuple(values), node.over, node.unbiased)


def _constant_factors(node: Cumulant, place: int, others: Collection[str]) -> Node | None:
    """Return the cumulant with the constant factors of a value outside, `None` where it has none."""
    found = _apart(node.values[place], others)
    if found is None or not floating(found[0]):
        return None
    factors, summed = found
    random = [one for one in factors if sources_of(one, node.over)]
    constant = [one for one in factors if one not in random]
    if not random or not constant:
        return None
    outside = {name for one in constant for name in one.axis_names}
    early = [name for name in summed if name not in outside]
    inner = contraction(random, early)
    return contraction([_with(node, place, inner), *constant], set(summed) - set(early))


def _apart(value: Node, others: Collection[str]) -> tuple[list[Node], list[str]] | None:
    """Return a product's factors and summed axes, with names that nothing beside it has."""
    found = _factors(value)
    if found is None:
        return None
    factors, summed = list(found[0]), list(found[1])
    taken = {*others, *(name for one in factors for name in one.axis_names)}
    for at, name in enumerate(summed):
        if name in others:
            summed[at] = fresh(name, taken)
            taken.add(summed[at])
            factors = [relabelled(one, [(name, summed[at])]) for one in factors]
    return factors, summed


def _product(node: Node) -> Node | str:
    if not isinstance(node, Cumulant):
        return expected("a cumulant", node)
    if node.unbiased:
        return _ESTIMATE
    place = next((at for at, one in enumerate(node.values) if len((_factors(one) or ((),))[0]) > 1), None)
    if place is None:
        return "none of its values is a product"
    if len(node.values) == MOST:
        return f"it has order {MOST}, and one of order {MOST + 1} would be made"
    rest = [*node.values[:place], *node.values[place + 1 :]]
    found = _apart(node.values[place], {name for one in rest for name in one.axis_names})
    assert found is not None
    (first, *others), summed = found
    if not floating([first, *others, *rest]):
        return NOT_FLOATING
    second = product(others)
    parts = [[whole] if (whole := joint([first, second, *rest], node.over)) is not None else None]
    for chosen in range(2 ** len(rest)):
        one = [value for at, value in enumerate(rest) if chosen >> at & 1]
        two = [value for at, value in enumerate(rest) if not chosen >> at & 1]
        made = [joint([first, *one], node.over), joint([second, *two], node.over)]
        parts.append([part for part in made if part is not None] if None not in made else None)
    terms = [contraction(part, summed) for part in parts if part is not None]
    return total(terms) if terms else zero(node.axes)


# --- approximations, and values made of cumulants ---------------------------------------------------------------------


def cumulants_up_to(order: int = 2) -> Approximation:
    """Return the approximation that joint cumulants of more than `order` factors are 0; of order 2 it is Wick's pairing.

    For factors of mean 0 and order 2 it leaves the sum over pairings of products of covariances: E[abcd] = E[ab] E[cd] + E[ac]
    E[bd] + E[ad] E[bc] (Isserlis 1918). Of order 1 it makes all factors independent.
    """
    check_order(order, "cumulants up to that")
    return Approximation(
        f"cumulants_up_to_{order}",
        f"a mean of products is written in cumulants of order {order} at most",
        f"E[X1..Xn] ~ sum over partitions with blocks of at most {order}, prod kappa(block)",
        f"all joint cumulants of more than {order} factors are 0" + (" (they are Gaussian)" if order == 2 else ""),
        lambda: Expectation(Multiply((DRAWN, BESIDE, DRAWN)), ("datum",)),
        lambda node: _to_cumulants(node, order),
    )


def wick_product(values: Sequence[Node], over: Collection[str]) -> Node:
    """Return the Wick (Appell) product :X1..Xn:, the product less all that its parts vary together by; its mean is 0.

    A sum over partitions: a block of one gives X - E[X], any other block -kappa(block) (rust_circuit's cumulant attribution).

    >>> wick_product([DRAWN], ["datum"]) is Add((DRAWN, Multiply((Constant(-1), Expectation(DRAWN, ("datum",))))))
    True
    """
    check_order(len(values), "the Wick product")
    terms: list[Node] = []
    for blocks in partitions(len(values)):
        whole = by_blocks(values, over, tuple(block for block in blocks if len(block) > 1))
        if whole is None:
            continue
        single = [values[block[0]] for block in blocks if len(block) == 1]
        away = [Add((one, Multiply((Constant(-1), mean(one, over))))) for one in single]
        parts = [*away, *whole]
        terms.append(product(parts if len(whole) % 2 == 0 else [Constant(-1), *parts]))
    return total(terms)


EXPECTATION_IN = Rule(
    "expectation_in", "random", "a mean goes into what is linear in the one random thing it reads", "E[f(x)] = f(E[x])",
    lambda: Expectation(Repeat(DRAWN, (HIDDEN,)), ("datum",)), _through,
)  # fmt: skip
INDEPENDENT_MEANS = Rule(
    "independent_means", "random", "the mean of a product is the product of the means of factors that are independent, or constant",
    "E[sum_s c x y] = sum_s c E[x] E[y] for x, y independent",
    lambda: Expectation(Einsum((DRAWN, W, APART), ("model",)), ("datum", "other")), _independent,
)  # fmt: skip
TO_CUMULANTS = Rule(
    "to_cumulants", "random", "the mean of a product by the cumulants of its factors", "E[xy] = kappa(x, y) + kappa(x) kappa(y)",
    lambda: Expectation(Einsum((DRAWN, W, BESIDE, DRAWN), ("model",)), ("datum",)), _to_cumulants, repeats=False,
)  # fmt: skip
TO_MOMENTS = Rule(
    "to_moments", "random", "a cumulant by the means of products", "kappa(x, y) = E[xy] - E[x] E[y]",
    lambda: Cumulant((DRAWN, BESIDE, DRAWN), ("datum",)), _moments,
)  # fmt: skip
CUMULANT_IN = Rule(
    "cumulant_in", "random", "a cumulant goes into what is linear in the one random thing it reads; constants come out",
    "kappa(f(x), y) = f(kappa(x, y))",
    lambda: Cumulant((Einsum((DRAWN, W), ("model",)), BESIDE, DRAWN), ("datum",)), _constants_out,
)  # fmt: skip
CUMULANT_OF_PRODUCT = Rule(
    "cumulant_of_product", "random", "a cumulant of a product, by the cumulants of its factors",
    "kappa(xy, w) = kappa(x, y, w) + kappa(x, w) kappa(y) + kappa(x) kappa(y, w)",
    lambda: Cumulant((Einsum((DRAWN, DRAWN), ("model",)), BESIDE, DRAWN), ("datum",)), _product, repeats=False,
)  # fmt: skip
INDEPENDENT_CUMULANT = Rule(
    "independent_cumulant", "random", "a cumulant of values that are not all drawn together is 0", "kappa(x, y) = 0 for x, y independent",
    lambda: Cumulant((DRAWN, APART), ("datum", "other")), _vanishes,
)  # fmt: skip

RANDOM_RULES = (
    EXPECTATION_IN, INDEPENDENT_MEANS, TO_CUMULANTS, TO_MOMENTS, CUMULANT_IN, CUMULANT_OF_PRODUCT, INDEPENDENT_CUMULANT,
)  # fmt: skip
