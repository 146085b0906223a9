"""A linear reader split by the sources of what it reads: the residual expansion, through norms whose scale stays shared.

What a reader reads is followed down through sums and through what is linear: centring, division by a scale, weights, casts,
renamings. A source is where that ends: a contraction (what a head or an MLP wrote), an embedding, a bias.
"""

from __future__ import annotations

from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Along, Einsum, Experts, Gather, Map, Multiply, Weight
from scrubjay.circuit.rules.algebra import MODEL, V, X, Y
from scrubjay.circuit.rules.distribution import spread_over
from scrubjay.circuit.rules.facts import Where, predicate, reads_input
from scrubjay.circuit.rules.linearity import image, linear_in
from scrubjay.circuit.rules.rewriting import rewrite
from scrubjay.circuit.rules.rule import Rule

MODEL_SCALE, MODEL_BIAS = Weight("model", "scale", ((MODEL,),)), Weight("model", "bias", ((MODEL,),))
"""Leaves of the examples."""


Known = dict[Node, tuple[Node, ...]]


def sources(node: Node, stop: Where = (), known: Known | None = None) -> tuple[Node, ...]:
    """Return terms whose sum is the node, one for each source; the node itself where it has only one.

    Args:
        node: the value.
        stop: values that are sources whatever they are made of: nodes, or a predicate.
        known: terms found before with the same `stop`, added to: several readers share what they read.

    >>> len(sources(Add((X, Add((Y, MODEL_BIAS))))))
    3
    """
    stops = predicate(stop)
    found: Known = {} if known is None else known
    stack = [node]
    while stack:
        one = stack[-1]
        if one in found:
            stack.pop()
            continue
        below = [] if stops(one) else _entered(one)
        waiting = [one.operands[place] for place in below if one.operands[place] not in found]
        if waiting:
            stack.extend(waiting)
            continue
        found[one] = _terms(one, below, found)
        stack.pop()
    return found[node]


def _entered(node: Node) -> list[int]:
    """Return the operands that are followed: the terms of a sum, what a linear function reads."""
    if isinstance(node, Add):
        return list(range(len(node.terms))) if reads_input(node) else []
    if isinstance(node, Einsum | Experts | Gather):
        return []
    return [place for place in linear_in(node) if reads_input(node.operands[place])]


def _terms(node: Node, below: list[int], found: dict[Node, tuple[Node, ...]]) -> tuple[Node, ...]:
    if isinstance(node, Add) and below:
        return tuple(term for place in below for term in found[node.operands[place]])
    several = [place for place in below if len(found[node.operands[place]]) > 1]
    if len(several) != 1:
        return (node,)
    made = spread_over(node, several[0], found[node.operands[several[0]]])
    return (node,) if isinstance(made, str) else made.operands


def by_source(operand: int | None = None, stop: Where = (), known: Known | None = None) -> Rule:
    """Return the rule that a contraction is the sum of what it reads from each source.

    Args:
        operand: which factor is followed; the first that reads an input and has several sources when not given.
        stop: values that count as sources (the stream before some layer, say): nodes, or a predicate.
        known: as for `sources`.

    The scale of a norm depends on all sources; it stays as it is, shared by every term, so this is an equality.
    """

    def change(node: Node) -> Node | str:
        if not isinstance(node, Einsum | Experts):
            return f"it is for a contraction, which reads linearly, and this is {type(node).__name__}"
        places = [place for place in linear_in(node) if operand is None or place == operand]
        for place in places:
            if not reads_input(node.operands[place]):
                continue
            terms = sources(node.operands[place], stop, known)
            if len(terms) > 1:
                return spread_over(node, place, terms)
        return "what it reads has one source only: no sum is reached through linear functions"

    return Rule(
        "by_source",
        "sources",
        "a contraction is the sum of what it reads from each source of its input",
        "W norm(a + b) = W centre(a) / scale(a + b) + W centre(b) / scale(a + b)",
        _example,
        change,
        repeats=False,
    )


def is_reader(node: Node) -> bool:
    """Tell whether a node is a linear map: a contraction of weights with one value that reads an input."""
    return isinstance(node, Einsum) and len(node.factors) > 1 and sum(map(reads_input, node.factors)) == 1


def expand_residual(circuit: Circuit, where: Where | None = None, stop: Where = ()) -> Circuit:
    """Return the circuit with what linear maps read from the residual stream split by source.

    Args:
        circuit: the circuit; with its heads split (`split_heads`) each head is a source.
        where: which linear maps; all when not given.
        stop: values that count as sources whatever they are made of.

    A map of layer n has about as many terms as components were written before it, so that all of them together have a
    number quadratic in the layers. Raises `CircuitError` where none reads a sum.
    """
    asked = predicate(where)
    return rewrite(circuit, by_source(stop=stop, known={}), where=lambda node: is_reader(node) and asked(node))


def normed(value: Node) -> Node:
    """Return layer norm of a value over `model`, without weights: the examples' own."""
    centred = Along("center", value, ("model",))
    return Map("divide", (centred, Along("rms", centred, ("model",), (1e-5,))))


def _example() -> Node:
    return Einsum((Add((Multiply((normed(Add((X, Y))), MODEL_SCALE)), MODEL_BIAS)), V), ("model",))


def parts(node: Node, position: int, stop: Where = ()) -> tuple[Node, ...]:
    """Return what a node, linear in the operand at `position`, makes of each source of that operand.

    >>> from scrubjay.circuit.ops import Relabel
    >>> turned = parts(Relabel(Add((X, Y)), (("query", "key"),)), 0)
    >>> turned == (Relabel(X, (("query", "key"),)), Relabel(Y, (("query", "key"),)))
    True
    """
    return tuple(image(node, position, term) for term in sources(node.operands[position], stop))


BY_SOURCE = by_source()

SOURCES = (BY_SOURCE,)
