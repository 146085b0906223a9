"""A linear reader split by the sources of what it reads: the residual expansion, through norms whose scale stays shared.

What a reader reads is followed down through sums and through what is linear: centring, division by a scale, weights, casts,
renamings. A source is where that ends: a contraction (what a head or an MLP wrote), an embedding, a bias.
"""

from __future__ import annotations

from collections.abc import Iterable

from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import need_circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Along, Einsum, Experts, Map, Multiply, Weight
from scrubjay.circuit.rules.algebra import MODEL, V, X, Y
from scrubjay.circuit.rules.distribution import spread_over
from scrubjay.circuit.rules.facts import Where, floating, predicate, reads_input
from scrubjay.circuit.rules.following import Following, State, Terms
from scrubjay.circuit.rules.linearity import image, linear_in
from scrubjay.circuit.rules.rewriting import rewrite
from scrubjay.circuit.rules.rule import Rule
from scrubjay.circuit.rules.turning import is_projection
from scrubjay.errors import CircuitError

MODEL_SCALE, MODEL_BIAS = Weight("model", "scale", ((MODEL,),)), Weight("model", "bias", ((MODEL,),))
"""Leaves of the examples."""


Known = dict[State, Terms]
"""Terms found before, with the same `stop`."""


def sources(node: Node, stop: Where = (), known: Known | None = None) -> tuple[Node, ...]:
    """Return terms whose sum is the node, one for each source; the node itself where it has only one.

    Args:
        node: the value.
        stop: values that are sources whatever they are made of: nodes, or a predicate.
        known: terms found before with the same `stop`, added to: several readers share what they read.

    >>> len(sources(Add((X, Add((Y, MODEL_BIAS))))))
    3
    """
    following = Following(predicate(stop), known={} if known is None else known)
    return tuple(following.terms(node).values())


def by_source(operand: int | None = None, stop: Where = (), known: Known | None = None) -> Rule:
    """Return the rule that a contraction is the sum of what it reads from each source.

    Args:
        operand: which factor is followed: of queries with keys, say. Not given, it is a rule for linear maps (weights and one
            value that reads an input), so that applied everywhere it splits what reads the stream and not what that makes.
        stop: values that count as sources (the stream before some layer, say): nodes, or a predicate.
        known: as for `sources`.

    The scale of a norm depends on all sources; it stays as it is, shared by every term, so this is an equality.
    """

    def change(node: Node) -> Node | str:
        if not isinstance(node, Einsum | Experts):
            return f"it is for a contraction, which reads linearly, and this is {type(node).__name__}"
        if operand is None and isinstance(node, Einsum) and not is_projection(node):
            return "it is no linear map of one value by weights; say which operand is to be followed"
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


def expand_residual(circuit: Circuit, where: Where | None = None, stop: Where = ()) -> Circuit:
    """Return the circuit with what linear maps read from the residual stream split by source.

    Args:
        circuit: the circuit; with its heads split (`split_heads`) each head is a source.
        where: which linear maps; all when not given.
        stop: values that count as sources whatever they are made of.

    A map of layer n has about as many terms as components were written before it, so that all of them together have a
    number quadratic in the layers. Raises `CircuitError` where none reads a sum.
    """
    need_circuit(circuit)
    asked = predicate(where)
    maps = [node for node in circuit.nodes if is_projection(node) and asked(node)]
    if not maps:
        raise CircuitError(
            "there is no linear map (one value that reads an input, by weights) among the nodes asked for"
        )
    rounded = rounding(circuit.nodes)
    try:
        return rewrite(circuit, by_source(stop=stop, known={}), where=maps)
    except CircuitError as error:
        if rounded is None:
            raise
        raise CircuitError(f"{error}. {ROUNDED.format(to=rounded)}") from error


ROUNDED = "This circuit rounds to {to} on the way, which is not linear; use its exact form, model.exact().circuit"


def rounding(nodes: Iterable[Node]) -> str | None:
    """Return the type that values made of inputs are rounded to among some nodes, if any are."""
    for one in nodes:
        cast = isinstance(one, Map) and one.op == "cast" and one.parameters[0] != "model"
        if cast and floating([one, *one.operands]) and reads_input(one):
            return str(one.parameters[0]) if isinstance(one, Map) else None
    return None


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
