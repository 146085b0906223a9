"""Parts one after another: an axis cut into stretches and joined again, and joins that rise."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence

from scrubjay.circuit.axes import GLOSSARY, Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import need_circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Concat, Custom, Einsum, Input, Map, Narrow, Opaque
from scrubjay.circuit.rules.algebra import MODEL, V, X, Y
from scrubjay.circuit.rules.facts import NOT_FLOATING, floating, kind, relabelled, total, widened
from scrubjay.circuit.rules.rewriting import rewrite
from scrubjay.circuit.rules.rule import Rule, expected
from scrubjay.errors import CircuitError

Sizes = Sequence[int | str]
"""How many places each stretch has; the last may be a text, a number known only when run (`"query - 3"`)."""


def cut(node: Node, axis: str, sizes: Sizes, name: str | None = None) -> list[Node] | str:
    """Return the stretches of a value along an axis, or why they are not its stretches."""
    whole, start = node.size(axis), 0
    if misfit := _misfit(axis, whole, sizes):
        return misfit
    made: list[Node] = []
    for size in sizes:
        made.append(Narrow(node, axis, start, Axis(name or axis, size)))
        start += size if isinstance(size, int) else 0
    return made


def _misfit(axis: str, whole: int | str, sizes: Sizes) -> str | None:
    """Return why some sizes are not those of the stretches of an axis, which they add up to."""
    if any(isinstance(size, str) for size in sizes[:-1]):
        return "only the last stretch may have a size that is known only when run"
    forms = [_linear(size) for size in (whole, *sizes)]
    for size, form in zip(sizes, forms[1:], strict=True):
        if form is None:
            return f"{size!r} is no size: give a number, or a text such as 'query - 2'"
        if not set(form) - {""} and form.get("", 0) < 0:
            return f"a stretch cannot have {size} places"
    left = Counter(forms[0] or {str(whole): 1})
    for form in forms[1:]:
        left.subtract(form or {})
    if any(left.values()):
        known = sum(size for size in sizes[:-1] if isinstance(size, int))
        rest = whole - known if isinstance(whole, int) else f"{whole} - {known}" if known else whole
        return (
            f"axis {axis!r} has {whole} places, and the stretches have {' + '.join(map(str, sizes))}, which is not as many: "
            f"the last of them would be {rest!r}"
        )
    return None


def _linear(size: int | str) -> dict[str, int] | None:
    """Return a size as numbers of symbols, that of ones under the empty name; `None` for a text that is no size.

    >>> _linear("2 * query - (batch + 1)")
    {'query': 2, 'batch': -1, '': -1}
    """
    try:
        found = _terms(ast.parse(str(size).strip(), mode="eval").body, 1)
    except SyntaxError:
        return None
    counts: Counter[str] = Counter()
    for name, count in found:
        counts[name] += count
    return {name: count for name, count in counts.items() if count}


def _terms(part: ast.expr, times: int) -> list[tuple[str, int]]:
    match part:
        case ast.BinOp(left, ast.Add(), right):
            return [*_terms(left, times), *_terms(right, times)]
        case ast.BinOp(left, ast.Sub(), right):
            return [*_terms(left, times), *_terms(right, -times)]
        case ast.UnaryOp(ast.USub(), operand):
            return _terms(operand, -times)
        case ast.BinOp(ast.Constant(int(count)), ast.Mult(), other) | ast.BinOp(
            other, ast.Mult(), ast.Constant(int(count))
        ):
            return _terms(other, times * count)
        case ast.Constant(int(count)):
            return [("", times * count)]
        case _:  # a symbol, or something of it that is no sum, taken whole
            return [(ast.unparse(part), times)]


def split_to_concat(axis: str, sizes: Sizes) -> Rule:
    """Return the rule that writes a value as its stretches along an axis, one after another.

    The last size may be a text (`"query - 2"`); together they must be the axis's own, or the rule does not hold.
    """

    def change(node: Node) -> Node | str:
        if axis not in node.axis_names:
            return f"it has no axis {axis!r}"
        if not sizes:
            return "no stretches were given"
        if isinstance(node, Concat) and node.to.name == axis:
            return "it is in parts along this axis already"
        parts = cut(node, axis, sizes)
        if isinstance(parts, str):
            return parts
        return Concat(tuple(parts), (axis,) * len(parts), Axis(axis, node.size(axis)))

    return Rule(
        "split_to_concat",
        "joining",
        f"a value is its stretches along {axis}, one after another",
        "x = concat(x[0:a], x[a:n])",
        lambda: Map("tanh", (X,)),
        change,
        repeats=False,
    )


def _rank(name: str) -> tuple[int, str]:
    """Return what says which of two joins rises through the other: the one first in the glossary."""
    words = list(GLOSSARY)
    return (words.index(name) if name in GLOSSARY else len(words)), name


def _pull(node: Node) -> Node | str:
    if isinstance(node, Opaque | Custom) or not node.operands:
        return f"{type(node).__name__} is not looked into"
    for one in node.operands:
        if isinstance(one, Concat) and one.to.name not in node.acts_along:
            if one.to.name not in node.axis_names:
                continue
            if isinstance(node, Concat) and _rank(one.to.name) >= _rank(node.to.name):
                continue
            return _raised(node, one)
    return "none of its operands is a join, along an axis that it does not act along; of two joins the one first in the glossary of axes rises"


def _raised(node: Node, join: Concat) -> Node | str:
    axis = join.to.name
    sizes = [part.size(name) for part, name in zip(join.parts, join.along, strict=True)]
    parts = [relabelled(part, [(name, axis)]) for part, name in zip(join.parts, join.along, strict=True)]
    if len({kind(part) for part in join.parts}) > 1:
        return "its parts are of different kinds of numbers"
    acting = [one for one in join.axes if one.name in node.acts_along]
    pieces: dict[Node, list[Node]] = {join: [widened(part, acting) for part in parts]}
    for one in node.operands:
        if one is join or axis not in one.axis_names:
            continue
        if isinstance(one, Concat) and one.to == join.to and [part.size(name) for part, name in zip(one.parts, one.along, strict=True)] == sizes:  # fmt: skip
            own = [relabelled(part, [(name, axis)]) for part, name in zip(one.parts, one.along, strict=True)]
            pieces[one] = [widened(part, [a for a in one.axes if a.name in node.acts_along]) for part in own]
            continue
        if any(isinstance(size, str) for size in sizes[:-1]):
            return "another operand would be cut at a place that is known only when run"
        found = cut(one, axis, sizes)
        if isinstance(found, str):
            return found
        pieces[one] = found
    made: list[Node] = []
    for place in range(len(parts)):
        operands = [pieces[one][place] if one in pieces else one for one in node.operands]
        made.append(node.with_operands(operands))
    return widened(Concat(tuple(made), (axis,) * len(made), join.to), node.axes)


def _contract(node: Node) -> Node | str:
    if not isinstance(node, Einsum):
        return expected("a contraction", node)
    join = next((one for one in node.factors if isinstance(one, Concat) and one.to.name in node.summed), None)
    if join is None:
        return "none of its factors is a join along a summed axis"
    return by_stretches(
        node, join.to.name, [part.size(name) for part, name in zip(join.parts, join.along, strict=True)]
    )


def by_stretches(node: Einsum, axis: str, sizes: Sizes) -> Node | str:
    """Return a contraction over an axis as the sum of its contractions over stretches of the axis."""
    if not floating(node.factors):
        return NOT_FLOATING
    pieces: dict[Node, list[Node]] = {}
    for one in dict.fromkeys(node.factors):
        if axis not in one.axis_names:
            continue
        if isinstance(one, Concat) and one.to.name == axis and [part.size(name) for part, name in zip(one.parts, one.along, strict=True)] == list(sizes):  # fmt: skip
            own = [relabelled(part, [(name, axis)]) for part, name in zip(one.parts, one.along, strict=True)]
            pieces[one] = [widened(part, [a for a in one.axes if a.name in node.acts_along and a.name != axis]) for part in own]  # fmt: skip
            continue
        if any(isinstance(size, str) for size in sizes[:-1]):
            return "another factor would be cut at a place that is known only when run"
        found = cut(one, axis, sizes)
        if isinstance(found, str):
            return found
        pieces[one] = found
    terms = [
        Einsum(tuple(pieces[one][place] if one in pieces else one for one in node.factors), node.summed)
        for place in range(len(sizes))
    ]
    return widened(total(terms), node.axes)


def _rejoin(node: Node) -> Node | str:
    if not isinstance(node, Concat):
        return expected("a join", node)
    for place in range(len(node.parts) - 1):
        one, two = node.parts[place : place + 2]
        names = node.along[place : place + 2]
        if not (isinstance(one, Narrow) and isinstance(two, Narrow) and one.source is two.source):
            continue
        ours = (one.axis, 1, 1, names[0], names[1]) == (two.axis, one.step, two.step, one.to.name, two.to.name)
        if not ours or isinstance(one.to.size, str) or two.start != one.start + one.to.size:
            continue
        if isinstance(two.to.size, int):
            merged: Node = Narrow(one.source, one.axis, one.start, Axis(one.to.name, one.to.size + two.to.size))
        elif one.start == 0 and len(node.parts) == 2 and node.to.size == one.source.size(one.axis):
            merged = relabelled(one.source, [(one.axis, one.to.name)]) if one.to.name not in one.source.axis_names - {one.axis} else one  # fmt: skip
            if merged is one:
                continue
        else:
            continue
        parts = (*node.parts[:place], merged, *node.parts[place + 2 :])
        return Concat(parts, (*node.along[: place + 1], *node.along[place + 2 :]), node.to)
    return "no two neighbouring parts are neighbouring stretches of one value"


def _single(node: Node) -> Node | str:
    if not isinstance(node, Concat):
        return expected("a join", node)
    first, *others = node.parts
    if others:
        return f"it joins {len(node.parts)} parts"
    return relabelled(first, [(node.along[0], node.to.name)])


def in_chunks(circuit: Circuit, axis: str, sizes: Sizes, inputs: Sequence[str] | None = None) -> Circuit:
    """Return the circuit computed in chunks of an axis of its inputs, one after another (batch to concat).

    Args:
        circuit: the circuit.
        axis: the axis, as `batch`.
        sizes: places of each chunk; the last may be a text for the rest (`"batch - 8"`).
        inputs: which inputs are cut; all that have the axis when not given.

    What acts along the axis keeps it whole, and what reads that is computed whole. Raises `CircuitError` where no input
    has the axis.
    """
    need_circuit(circuit)
    chosen = [
        node for node in circuit.nodes
        if isinstance(node, Input) and axis in node.axis_names and (inputs is None or node.name in inputs)
    ]  # fmt: skip
    if not chosen:
        raise CircuitError(f"no input that is to be cut has an axis {axis!r}; inputs: {', '.join(circuit.inputs)}")
    made = rewrite(rewrite(circuit, split_to_concat(axis, sizes), where=chosen), PULL_CONCAT)
    notes = {address: node for address, node in circuit.table.items() if isinstance(node, Input)}
    return made.with_table({**made.table, **notes})


_PARTS = (Narrow(X, "model", 0, Axis("part", 1)), Narrow(X, "model", 1, Axis("part", 3)))

SPLIT_TO_CONCAT = split_to_concat("model", (1, 3))
PULL_CONCAT = Rule(
    "pull_concat", "joining", "a join rises through what does not act along it", "f(concat(a, b), c) = concat(f(a, c), f(b, c))",
    lambda: Map("tanh", (Add((Concat(_PARTS, ("part", "part"), MODEL), Y)),)).inputs[0], _pull,
)  # fmt: skip
CONTRACT_CONCAT = Rule(
    "contract_concat", "joining", "a contraction over a join is the sum of those over its parts", "sum concat(a, b) c = sum a c[0:n] + sum b c[n:]",
    lambda: Einsum((Concat(_PARTS, ("part", "part"), MODEL), V), ("model",)), _contract,
)  # fmt: skip
REJOIN = Rule(
    "rejoin", "joining", "neighbouring stretches of one value are one stretch", "concat(x[0:a], x[a:b]) = x[0:b]",
    lambda: Concat(_PARTS, ("part", "part"), MODEL), _rejoin,
)  # fmt: skip
SINGLE_CONCAT = Rule(
    "single_concat", "joining", "a join of one part is the part", "concat(x) = x",
    lambda: Concat((X,), ("model",), Axis("part", 4)), _single,
)  # fmt: skip

JOINING = (SPLIT_TO_CONCAT, PULL_CONCAT, CONTRACT_CONCAT, REJOIN, SINGLE_CONCAT)
