"""A mean of a product of sums, taken apart: which terms carry it, each on its own or by varying together with which others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod

from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Einsum, Expectation, Multiply
from scrubjay.circuit.partitions import check_order
from scrubjay.circuit.rules.linearity import image
from scrubjay.circuit.rules.random import expansion, sources_of
from scrubjay.errors import CircuitError

MOST_TERMS = 4096


@dataclass(frozen=True, eq=False)
class CumulantTerm:
    """One term of an expansion: the product of the cumulants of `blocks`, names of what stands in each.

    `order` is the size of the largest block: 1 is a product of means, 2 has a covariance.
    """

    blocks: tuple[tuple[str, ...], ...]
    node: Node

    @property
    def order(self) -> int:
        """The size of the largest block."""
        return max(map(len, self.blocks), default=0)

    @property
    def name(self) -> str:
        """The term as it is written: E[...] for a block of one, kappa(...) for a larger one."""
        return " ".join(f"E[{one[0]}]" if len(one) == 1 else f"kappa({', '.join(one)})" for one in self.blocks) or "1"


def cumulant_terms(
    mean: Node, order: int, names: Mapping[Node, str] | Callable[[Node], str] | None = None
) -> list[CumulantTerm]:
    """Return the terms of a mean of a product of sums, in cumulants of at most `order` factors.

    Args:
        mean: an `Expectation` of a product (`Multiply`, `Einsum`). Every factor that is a sum is taken apart.
        order: the largest number of factors of a cumulant that is kept; with as many as there are factors the sum of all terms is the mean.
        names: what terms and factors are called; their place where not given (`0.2`: the third term of the first factor).

    Cumulants that are 0 because values are independent or constant are left out. Raises `CircuitError` for what is no mean of a
    product, more than 6 random factors, and more than 4096 choices of terms.
    """
    if not isinstance(mean, Expectation) or not isinstance(mean.value, Multiply | Einsum):
        raise CircuitError(f"{mean!r} is no mean of a product: rewrite it first (flatten_einsum, distribute)")
    check_order(order, "an expansion by cumulants")
    value = mean.value
    choices: list[list[tuple[Node, str]]] = []
    for place, factor in enumerate(value.factors):
        terms = factor.terms if isinstance(factor, Add) else (factor,)
        choices.append([(term, _name(names, term, f"{place}.{at}" if len(terms) > 1 else f"{place}")) for at, term in enumerate(terms)])  # fmt: skip
    if (count := prod(map(len, choices))) > MOST_TERMS:
        raise CircuitError(f"the product has {count:,} choices of terms, more than {MOST_TERMS:,}: leave sums together (give fewer terms)")  # fmt: skip
    found: list[CumulantTerm] = []
    for chosen in product(*choices):
        node: Node = value
        for place, (term, _) in enumerate(chosen):
            node = image(node, place, term) if isinstance(value.factors[place], Add) else node
        found += _expanded(node, mean.over, order, [name for _, name in chosen])
    return found


def _expanded(node: Node, over: tuple[str, ...], order: int, names: list[str]) -> list[CumulantTerm]:
    assert isinstance(node, Multiply | Einsum)
    random = [place for place, one in enumerate(node.factors) if sources_of(one, over)]
    fixed = [(names[place],) for place in range(len(node.factors)) if place not in random]
    if not random:
        return [CumulantTerm(tuple(fixed), node)]
    terms = expansion(node, over, order)
    if isinstance(terms, str):
        raise CircuitError(f"{node!r} cannot be expanded: {terms}")
    return [
        CumulantTerm((*(tuple(names[random[at]] for at in block) for block in blocks), *fixed), made)
        for blocks, made in terms
    ]


def _name(names: Mapping[Node, str] | Callable[[Node], str] | None, node: Node, otherwise: str) -> str:
    if names is None:
        return otherwise
    return names(node) if callable(names) else names.get(node, otherwise)
