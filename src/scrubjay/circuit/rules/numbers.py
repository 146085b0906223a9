"""Numbers: zeros that are added, ones that multiply, terms that cancel, casts one after another."""

from __future__ import annotations

from math import prod

from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Along, Constant, Einsum, Map, Multiply, Repeat
from scrubjay.circuit.rules.algebra import MODEL, V, X, Y
from scrubjay.circuit.rules.facts import NOT_FLOATING, contraction, floating, kind, product, total, widened
from scrubjay.circuit.rules.rule import Rule, expected

_DECIDES = "that number has a type of its own, which decides the type of the result"


def _is(node: Node, value: int) -> bool:
    """Tell whether a node is that number, and no truth value."""
    if isinstance(node, Repeat):
        return _is(node.source, value)
    return isinstance(node, Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool) and node.value == value  # fmt: skip


def _bare(node: Node) -> bool:
    return kind(node) == "number" and isinstance(node, Constant) and isinstance(node.value, int | float)


def _strongest(nodes: list[Node], without: Node) -> bool:
    """Tell whether leaving a node out leaves the others' kind of number as it was."""
    kinds = {kind(node) for node in nodes if node is not without} - {"number"}
    return bool(kinds) and (kind(without) == "number" or kinds == {kind(without)})


def _single(node: Node) -> Node | str:
    if isinstance(node, Add | Multiply):
        return node.operands[0] if len(node.operands) == 1 else f"it has {len(node.operands)} operands"
    return expected("a sum or product", node)


def _add_zero(node: Node) -> Node | str:
    if not isinstance(node, Add):
        return expected("a sum", node)
    zero = next((term for term in node.terms if _is(term, 0)), None)
    if zero is None or len(node.terms) < 2:
        return "none of its terms is 0"
    rest = [term for term in node.terms if term is not zero]
    if not rest or not floating(rest):
        return NOT_FLOATING
    if not _strongest(list(node.terms), zero):
        return _DECIDES
    return widened(total(rest), zero.axes)


def _multiply_one(node: Node) -> Node | str:
    if isinstance(node, Map) and node.op == "divide" and _is(node.inputs[1], 1):
        rest, one = [node.inputs[0]], node.inputs[1]
    elif isinstance(node, Multiply):
        one = next((factor for factor in node.factors if _is(factor, 1)), None)
        if one is None or len(node.factors) < 2:
            return "none of its factors is 1"
        rest = [factor for factor in node.factors if factor is not one]
    else:
        return expected("a product, or a quotient", node)
    if not rest or not floating(rest):
        return NOT_FLOATING
    if not _strongest([*rest, one], one):
        return _DECIDES
    return widened(product(rest), one.axes)


def _ones(node: Node) -> Node | str:
    if not isinstance(node, Einsum):
        return expected("a contraction", node)
    one = next((factor for factor in node.factors if _is(factor, 1)), None)
    rest = [factor for factor in node.factors if factor is not one]
    if one is None or not rest:
        return "none of its factors is 1, or there is no other"
    if not floating(rest):
        return NOT_FLOATING
    if not _strongest(list(node.factors), one):
        return _DECIDES
    have = {name for factor in rest for name in factor.axis_names}
    alone = [axis for axis in one.axes if axis.name in node.summed and axis.name not in have]
    if any(isinstance(axis.size, str) for axis in alone):
        return "it sums ones over an axis whose size is known only when run"
    times = prod(int(axis.size) for axis in alone)
    factors = rest if times == 1 else [Multiply((Constant(times), rest[0])), *rest[1:]]
    summed = [name for name in node.summed if name in have]
    return widened(contraction(factors, summed), [axis for axis in one.axes if axis.name not in node.summed])


def _as_sum(node: Node) -> Node | str:
    if not isinstance(node, Einsum):
        return expected("a contraction", node)
    if not floating(node.factors):
        return NOT_FLOATING
    if not node.summed:
        return product(node.factors)
    first, *others = node.factors
    if others:
        return "it multiplies before it sums"
    return Along("sum", first, tuple(sorted(node.summed)))


def _fold(node: Node) -> Node | str:
    if not isinstance(node, Add | Multiply):
        return expected("a sum or product", node)
    numbers = [one for one in node.operands if isinstance(one, Constant) and _bare(one)]
    if len(numbers) < 2:
        return "it has fewer than two bare numbers"
    if not floating(node.operands):
        return NOT_FLOATING
    values = [one.value for one in numbers if isinstance(one.value, int | float)]
    made = Constant(sum(values) if isinstance(node, Add) else prod(values))
    if len(numbers) == len(node.operands):
        return made
    rest = [one for one in node.operands if one not in numbers]
    at = node.operands.index(numbers[0])
    return type(node)((*rest[:at], made, *rest[at:]))


def _negated(node: Node) -> Node | None:
    """Return what a node is -1 times of."""
    if not isinstance(node, Multiply):
        return None
    minus = next((one for one in node.factors if _is(one, -1) and not one.axes), None)
    if minus is None:
        return None
    left = list(node.factors)
    left.remove(minus)
    return product(left)


def _cancel(node: Node) -> Node | str:
    if not isinstance(node, Add):
        return expected("a sum", node)
    for place, term in enumerate(node.terms):
        whole = _negated(term)
        if whole is None:
            continue
        other = next((at for at, one in enumerate(node.terms) if one is whole and at != place), None)
        if other is None:
            continue
        rest = [one for at, one in enumerate(node.terms) if at not in (place, other)]
        if not floating(node.terms):
            return NOT_FLOATING
        if not rest or kind(total(rest)) != kind(node):
            return "nothing else of its kind is left of it"
        return widened(total(rest), node.axes)
    return "no term is -1 times another"


def _double_cast(node: Node) -> Node | str:
    if not isinstance(node, Map) or node.op != "cast":
        return expected("a cast", node)
    (inner,) = node.inputs
    if node.parameters == ("model",) and kind(inner) == "model":
        return inner
    if not isinstance(inner, Map) or inner.op != "cast":
        return "it casts no cast, nor what is of that type already"
    first, then = inner.parameters[0], node.parameters[0]
    if first == then:
        return inner
    if first == "float64" and floating(inner.inputs) and "float" in str(then):
        return Map("cast", inner.inputs, node.parameters)
    return f"a cast to {first} may lose what a cast to {then} keeps"


SINGLE_TERM = Rule(
    "single_term", "numbers", "a sum or product of one is that one", "sum(x) = x", lambda: Add((X,)), _single,
)  # fmt: skip
ADD_ZERO = Rule(
    "add_zero", "numbers", "0 is not added", "x + 0 = x", lambda: Add((X, Constant(0))), _add_zero,
)  # fmt: skip
MULTIPLY_ONE = Rule(
    "multiply_one", "numbers", "1 neither multiplies nor divides", "1 x = x", lambda: Multiply((Constant(1.0), X)), _multiply_one,
)  # fmt: skip
EINSUM_ONES = Rule(
    "einsum_ones", "numbers", "ones are no factor of a contraction", "sum_s 1 x = sum_s x",
    lambda: Einsum((Repeat(Constant(1, "model"), (MODEL,)), X), ("model",)), _ones,
)  # fmt: skip
EINSUM_AS_SUM = Rule(
    "einsum_as_sum", "numbers", "a contraction of one factor is a sum, one over no axis a product", "einsum_s(x) = sum_s x",
    lambda: Einsum((X,), ("model",)), _as_sum,
)  # fmt: skip
FOLD_NUMBERS = Rule(
    "fold_numbers", "numbers", "bare numbers are added or multiplied", "2 + 3 + x = 5 + x",
    lambda: Add((Constant(2.0), X, Constant(3.0))), _fold,
)  # fmt: skip
CANCEL_TERMS = Rule(
    "cancel_terms", "numbers", "a term and -1 times it are nothing together", "x + y - x = y",
    lambda: Add((X, Y, Multiply((Constant(-1), X)))), _cancel,
)  # fmt: skip
DOUBLE_CAST = Rule(
    "double_cast", "numbers", "a cast to a type that a value has already is none", "cast(cast(x)) = cast(x)",
    lambda: Map("cast", (Einsum((X, V), ("model",)),), ("model",)), _double_cast,
)  # fmt: skip

NUMBERS = (SINGLE_TERM, ADD_ZERO, MULTIPLY_ONE, EINSUM_ONES, EINSUM_AS_SUM, FOLD_NUMBERS, CANCEL_TERMS, DOUBLE_CAST)
