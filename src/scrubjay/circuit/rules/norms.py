"""Norms written out and folded back, and their weights folded into the linear map that reads them."""

from __future__ import annotations

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import need_circuit, readers
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Along, Constant, Einsum, Input, Map, Multiply, Weight
from scrubjay.circuit.rules.algebra import QUERY, V, X
from scrubjay.circuit.rules.distribution import spread_over
from scrubjay.circuit.rules.facts import NOT_FLOATING, floating, product, reads_input, total, widened
from scrubjay.circuit.rules.rewriting import rewrite
from scrubjay.circuit.rules.rule import Rule, expected
from scrubjay.circuit.rules.sources import MODEL_BIAS, MODEL_SCALE, normed
from scrubjay.errors import CircuitError


def _expand_center(node: Node) -> Node | str:
    if not isinstance(node, Along) or node.op != "center":
        return "it is no centring (x - mean)"
    if not floating([node.source]):
        return NOT_FLOATING
    return Add((node.source, Multiply((Constant(-1), Along("mean", node.source, node.over)))))


def _fold_center(node: Node) -> Node | str:
    if not isinstance(node, Add):
        return expected("a sum", node)
    for place, term in enumerate(node.terms):
        if not isinstance(term, Multiply) or len(term.factors) != 2 or not floating(node.terms):
            continue
        mean = next((one for one in term.factors if isinstance(one, Along) and one.op == "mean"), None)
        if mean is None or not any(isinstance(one, Constant) and one.value == -1 for one in term.factors):
            continue
        other = next((at for at, one in enumerate(node.terms) if one is mean.source), None)
        if other is None:
            continue
        centred = Along("center", mean.source, mean.over)
        return total([centred if at == other else one for at, one in enumerate(node.terms) if at != place])
    return "no term is -1 times the mean of another"


def _sink_along(node: Node) -> Node | str:
    """Return a mean or centring of a product along an axis that one factor alone has, as the product with that factor's."""
    if not isinstance(node, Along) or node.op not in {"center", "mean", "sum"}:
        return "it is no centring, mean or sum"
    inner = node.source
    if not isinstance(inner, Einsum | Multiply):
        return expected("one of a product or contraction", inner)
    having = [at for at, one in enumerate(inner.factors) if one.axis_names & set(node.over)]
    if len(having) != 1 or len(inner.factors) < 2:
        return f"{len(having)} of its factors have {', '.join(node.over)}, and one is to have all of it"
    if not floating(inner.factors):
        return NOT_FLOATING
    factors = list(inner.factors)
    factors[having[0]] = Along(node.op, factors[having[0]], node.over)
    return inner.with_operands(factors)


def _expand_rms(node: Node) -> Node | str:
    if not isinstance(node, Along) or node.op != "rms":
        return "it is no root mean square"
    if not floating([node.source]):
        return NOT_FLOATING
    square = Along("mean", Multiply((node.source, node.source)), node.over)
    eps = node.parameters[0]
    return Map("sqrt", (Add((square, Constant(float(eps)))),))


def _fold_rms(node: Node) -> Node | str:
    if not isinstance(node, Map) or node.op != "sqrt":
        return "it is no square root"
    inside = node.inputs[0]
    if not isinstance(inside, Add) or len(inside.terms) != 2:
        return "it is no root of a mean and a number"
    mean = next((one for one in inside.terms if isinstance(one, Along) and one.op == "mean"), None)
    eps = next((one for one in inside.terms if isinstance(one, Constant) and isinstance(one.value, int | float)), None)
    if mean is None or eps is None or eps.dtype is not None:
        return "it is no root of a mean and a number"
    squared = _squared(mean.source)
    if squared is None or not floating([squared]):
        return "it is no mean of squares"
    return Along("rms", squared, mean.over, (float(eps.value),))


def _squared(node: Node) -> Node | None:
    if isinstance(node, Multiply) and len(node.factors) == 2 and node.factors[0] is node.factors[1]:
        return node.factors[0]
    if (
        isinstance(node, Map)
        and node.op == "power"
        and isinstance(node.inputs[1], Constant)
        and node.inputs[1].value == 2
    ):
        return node.inputs[0]
    return None


def _expand_divide(node: Node) -> Node | str:
    if not isinstance(node, Map) or node.op != "divide":
        return "it is no quotient"
    if not floating(node.inputs):
        return NOT_FLOATING
    return Multiply((node.inputs[0], Map("reciprocal", (node.inputs[1],))))


def _fold_divide(node: Node) -> Node | str:
    if not isinstance(node, Multiply) or len(node.factors) < 2:
        return expected("a product of several", node)
    if not floating(node.factors):
        return NOT_FLOATING
    under = next((one for one in node.factors if isinstance(one, Map) and one.op == "reciprocal"), None)
    if under is None:
        return "none of its factors is a reciprocal"
    left = list(node.factors)
    left.remove(under)
    return Map("divide", (product(left), under.inputs[0]))


def _rsqrt(node: Node) -> Node | str:
    if not isinstance(node, Map) or node.op != "rsqrt" or not floating(node.inputs):
        return "it is no reciprocal square root of floating values"
    return Map("reciprocal", (Map("sqrt", node.inputs),))


def _weight(node: Node) -> bool:
    return not reads_input(node) and bool(node.axes)


def _fold_scale(node: Node) -> Node | str:
    if not isinstance(node, Einsum):
        return expected("a contraction", node)
    if not floating([*node.factors, *(one for f in node.factors for one in _uncast(f).operands)]):
        return NOT_FLOATING
    into = next((at for at, one in enumerate(node.factors) if _weight(one)), None)
    if into is None:
        return "none of its factors is made of weights"
    for place, whole in enumerate(node.factors):
        factor = _uncast(whole)
        if not isinstance(factor, Multiply) or not reads_input(factor):
            continue
        scales = [one for one in factor.factors if _weight(one)]
        if not scales:
            continue
        kept = product([one for one in factor.factors if not _weight(one)])
        if factor is not whole:  # a norm that is found in another precision
            kept, scales = Map("cast", (kept,), ("model",)), [Map("cast", (one,), ("model",)) for one in scales]
        factors = list(node.factors)
        factors[place] = kept
        factors[into] = Multiply((*scales, node.factors[into]))
        return Einsum(tuple(factors), node.summed)
    return "none of its factors is a value times weights"


def _uncast(node: Node) -> Node:
    """Return what is cast to the model's own type, where a node is that."""
    return node.inputs[0] if isinstance(node, Map) and node.op == "cast" and node.parameters == ("model",) else node


def _fold_bias(node: Node) -> Node | str:
    if not isinstance(node, Einsum):
        return expected("a contraction", node)
    if not any(_weight(one) for one in node.factors):
        return "none of its factors is made of weights"
    for place, factor in enumerate(node.factors):
        if not isinstance(factor, Add) or not reads_input(factor):
            continue
        data = [one for one in factor.terms if reads_input(one)]
        rest = [one for one in factor.terms if not reads_input(one)]
        if rest:
            return spread_over(node, place, [total(data), total(rest)])
    return "none of its factors is a value plus weights"


def _collect_bias(node: Node) -> Node | str:
    if not isinstance(node, Add):
        return expected("a sum", node)
    flat = [one for term in node.terms for one in (term.terms if isinstance(term, Add) else (term,))]
    if not floating(flat):
        return NOT_FLOATING
    data: list[Node] = []
    biases: list[Node] = []
    for term in node.terms:
        inner = term.terms if isinstance(term, Add) else (term,)
        still = [one for one in inner if reads_input(one)]
        biases += [one for one in inner if not reads_input(one)]
        if still:
            data.append(term if len(still) == len(inner) else total(still))
    if not data or len(biases) < 2:
        return "it has not several terms made of weights beside one that reads an input"
    made = Add((*data, Add(tuple(biases))))
    return "its biases are together already" if made is node else widened(made, node.axes)


def fold_norms(circuit: Circuit) -> Circuit:
    """Return the circuit with the weights of every norm in the linear maps that read it: W' = scale W, b' = bias W + b.

    Linear maps that read a value times weights, plus weights. The new weights are expressions over the old ones. Raises
    `CircuitError` where there is nothing to fold.
    """
    need_circuit(circuit)
    maps = {
        node
        for node in circuit.nodes
        if not isinstance(_fold_bias(node), str) or not isinstance(_fold_scale(node), str)
    }
    if not maps:
        raise CircuitError(
            "no linear map reads a value times weights, or plus weights: no norm has weights to fold (they are folded already, perhaps), "
            "or what it gives is turned or gated before a linear map reads it"
        )
    reading = readers(circuit.roots.values())
    sums = {one for node in maps for one in reading[node] if isinstance(one, Add) and all(_weight(t) or t is node for t in one.terms)}  # fmt: skip
    return rewrite(circuit, (FOLD_BIAS, FOLD_SCALE, COLLECT_BIAS), where=maps | sums)


_AFFINE_SCALE = Multiply((normed(X), MODEL_SCALE))
_Z = Input("z", (QUERY, Axis("d_head", 2)))
_B = Weight("model", "b", ((Axis("d_head", 2),),))

EXPAND_CENTER = Rule(
    "expand_center", "norms", "centring is written out", "center(x) = x - mean(x)",
    lambda: Along("center", X, ("model",)), _expand_center,
)  # fmt: skip
FOLD_CENTER = Rule(
    "fold_center", "norms", "a value less its mean is centring", "x - mean(x) = center(x)",
    lambda: Add((X, Multiply((Constant(-1), Along("mean", X, ("model",)))))), _fold_center,
)  # fmt: skip
SINK_ALONG = Rule(
    "sink_along", "norms", "a centring (mean, sum) of a product, along an axis of one factor only, is that of the factor", "center(a W) = a center(W)",
    lambda: Along("center", Einsum((_Z, V), ("d_head",)), ("model",)), _sink_along,
)  # fmt: skip
EXPAND_RMS = Rule(
    "expand_rms", "norms", "the divisor of a norm is written out", "rms(x) = sqrt(mean(x x) + eps)",
    lambda: Along("rms", X, ("model",), (1e-5,)), _expand_rms,
)  # fmt: skip
FOLD_RMS = Rule(
    "fold_rms", "norms", "the root of a mean of squares and a number is the divisor of a norm", "sqrt(mean(x^2) + eps) = rms(x)",
    lambda: Map("sqrt", (Add((Along("mean", Map("power", (X, Constant(2))), ("model",)), Constant(1e-5))),)), _fold_rms,
)  # fmt: skip
EXPAND_DIVIDE = Rule(
    "expand_divide", "norms", "division is multiplication by the reciprocal", "x / d = x (1 / d)",
    lambda: normed(X), _expand_divide,
)  # fmt: skip
FOLD_DIVIDE = Rule(
    "fold_divide", "norms", "multiplication by a reciprocal is division", "x (1 / d) = x / d",
    lambda: Multiply((X, Map("reciprocal", (Along("rms", X, ("model",), (1e-5,)),)))), _fold_divide,
)  # fmt: skip
RSQRT = Rule(
    "rsqrt", "norms", "a reciprocal root is the reciprocal of a root", "rsqrt(a) = 1 / sqrt(a)",
    lambda: Map("rsqrt", (Add((Multiply((X, X)), Constant(1.0))),)), _rsqrt,
)  # fmt: skip
FOLD_SCALE = Rule(
    "fold_scale", "norms", "weights that multiply what a linear map reads go into the map's own", "(x g) W = x (g W)",
    lambda: Einsum((_AFFINE_SCALE, V), ("model",)), _fold_scale,
)  # fmt: skip
FOLD_BIAS = Rule(
    "fold_bias", "norms", "weights that are added to what a linear map reads give a term of their own", "(x + b) W = x W + b W",
    lambda: Einsum((Add((_AFFINE_SCALE, MODEL_BIAS)), V), ("model",)), _fold_bias,
)  # fmt: skip
COLLECT_BIAS = Rule(
    "collect_bias", "norms", "terms made of weights alone are one", "(x + a) + b = x + (a + b)",
    lambda: Add((Add((Einsum((X, V), ("model",)), _B)), Einsum((MODEL_BIAS, V), ("model",)))), _collect_bias,
)  # fmt: skip

NORMS = (
    EXPAND_CENTER,
    FOLD_CENTER,
    SINK_ALONG,
    EXPAND_RMS,
    FOLD_RMS,
    EXPAND_DIVIDE,
    FOLD_DIVIDE,
    RSQRT,
    FOLD_SCALE,
    FOLD_BIAS,
    COLLECT_BIAS,
)
EXPAND_NORM = (EXPAND_DIVIDE, EXPAND_RMS, EXPAND_CENTER)
FOLD_NORM = (RSQRT, FOLD_CENTER, FOLD_RMS, FOLD_DIVIDE)
