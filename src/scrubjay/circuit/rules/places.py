"""A contraction split by place of a summed axis: by head, by position; one term for each place, or for stretches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeGuard

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import need_circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Einsum, Index, Input, Multiply, Narrow, Weight
from scrubjay.circuit.rules.facts import NOT_FLOATING, contraction, floating, total, widened
from scrubjay.circuit.rules.joining import Sizes, by_stretches
from scrubjay.circuit.rules.rewriting import rewrite
from scrubjay.circuit.rules.rule import Rule, expected
from scrubjay.errors import CircuitError

_HEAD, _D_HEAD = Axis("head", 3), Axis("d_head", 2)
_Z = Input("z", (Axis("query", "query"), _HEAD, _D_HEAD))
_O = Weight("model", "O", ((_HEAD, _D_HEAD), (Axis("model", 4),)))


def _example() -> Node:
    return Einsum((_Z, _O), ("d_head", "head"))


def _at(node: Einsum, axis: str, place: int) -> Node:
    factors = tuple(Index(one, axis, place) if axis in one.axis_names else one for one in node.factors)
    return contraction(factors, [name for name in node.summed if name != axis])


def _sums(node: Node, axis: str) -> Einsum | str:
    if not isinstance(node, Einsum):
        return expected("a contraction", node)
    if axis not in node.summed:
        return f"it does not sum over {axis!r}, only over {', '.join(node.summed) or 'nothing'}"
    return node if floating(node.factors) else NOT_FLOATING


def split_places(axis: str) -> Rule:
    """Return the rule that a contraction over an axis is the sum of one term for each of its places: one for each head.

    >>> from scrubjay.circuit.rules.rule import applied
    >>> len(applied(split_places("head"), _example()).operands)
    3
    """

    def change(node: Node) -> Node | str:
        found = _sums(node, axis)
        if isinstance(found, str):
            return found
        size = _size(found, axis)
        if isinstance(size, str):
            return f"axis {axis!r} has {size} places, a number known only when run: split it by stretches"
        return widened(total([_at(found, axis, place) for place in range(size)]), node.axes)

    return Rule(
        "split_places",
        "places",
        f"a contraction over {axis} is a sum of one term for each place",
        "sum_h a[h] b[h] = a[0] b[0] + a[1] b[1] + ...",
        _example,
        change,
    )


def _size(node: Einsum, axis: str) -> int | str:
    return next(one.size(axis) for one in node.factors if axis in one.axis_names)


def split_place(axis: str, at: int) -> Rule:
    """Return the rule that a contraction over an axis is its term at one place and those before and behind it."""

    def change(node: Node) -> Node | str:
        found = _sums(node, axis)
        if isinstance(found, str):
            return found
        size = _size(found, axis)
        place = at if at >= 0 or isinstance(size, str) else at + size
        if place < 0 or (isinstance(size, int) and place >= size):
            return f"place {at} is outside axis {axis}={size}"
        behind = size - place - 1 if isinstance(size, int) else f"{size} - {place + 1}"
        terms = [_at(found, axis, place)]
        for start, count in ((0, place), (place + 1, behind)):
            if count:
                terms.append(_stretch(found, axis, start, Axis(axis, count)))
        return widened(total(terms), node.axes)

    return Rule(
        "split_place",
        "places",
        f"a contraction over {axis} is its term at {at} and the rest",
        "sum_h a[h] b[h] = a[i] b[i] + sum_(h < i) a[h] b[h] + sum_(h > i) a[h] b[h]",
        _example,
        change,
        repeats=False,
    )


def _stretch(node: Einsum, axis: str, start: int, to: Axis) -> Node:
    factors = tuple(Narrow(one, axis, start, to) if axis in one.axis_names else one for one in node.factors)
    return Einsum(factors, node.summed)


def split_stretches(axis: str, sizes: Sizes) -> Rule:
    """Return the rule that a contraction over an axis is the sum of those over stretches of it: by position, say.

    The last size may be a text for what is left (`"query - 3"`), where the axis has a size known only when run.
    """

    def change(node: Node) -> Node | str:
        found = _sums(node, axis)
        return found if isinstance(found, str) else by_stretches(found, axis, sizes)

    return Rule(
        "split_stretches",
        "places",
        f"a contraction over {axis} is the sum of those over stretches of {', '.join(map(str, sizes))} places",
        "sum_k a[k] b[k] = sum_(k < n) a[k] b[k] + sum_(k >= n) a[k] b[k]",
        _example,
        change,
        repeats=False,
    )


def _merge(node: Node) -> Node | str:
    if not isinstance(node, Add):
        return expected("a sum", node)
    for term in node.terms:
        for whole in _wholes(term):
            pieces = _pieces(whole, term, node.terms)
            if pieces is not None:
                kept = Counter(pieces)
                rest: list[Node] = []
                placed = False
                for one in node.terms:
                    if kept[one]:
                        kept[one] -= 1
                        rest += [] if placed else [whole]
                        placed = True
                    else:
                        rest.append(one)
                return widened(total(rest), node.axes)
    return "its terms are not a contraction at all places of an axis, or at neighbouring stretches"


def _factors(term: Node) -> tuple[tuple[Node, ...], tuple[str, ...]]:
    if isinstance(term, Einsum):
        return term.factors, term.summed
    return (term.factors if isinstance(term, Multiply) else (term,)), ()


def _wholes(term: Node) -> list[Einsum]:
    """Return the contractions that a term may be the first place of, or a stretch of."""
    factors, summed = _factors(term)
    found: list[Einsum] = []
    for axis in dict.fromkeys(one.axis for one in factors if isinstance(one, Index) and one.at == 0):
        whole = tuple(
            one.source if isinstance(one, Index) and one.axis == axis and one.at == 0 else one for one in factors
        )
        if not any(axis in one.axis_names for one in whole if one in factors):
            found.append(Einsum(whole, tuple(sorted({*summed, axis}))))
    return found


def _pieces(whole: Einsum, term: Node, terms: Sequence[Node]) -> list[Node] | None:
    """Return the terms that make up a contraction, if all of them are there."""
    factors, summed = _factors(term)
    (axis,) = set(whole.summed) - set(summed)
    size = _size(whole, axis)
    if isinstance(size, str) or not floating(factors):
        return None
    pieces = [_at(whole, axis, place) for place in range(size)]
    return pieces if not Counter(pieces) - Counter(terms) else None


def _merge_stretches(node: Node) -> Node | str:
    if not isinstance(node, Add):
        return expected("a sum", node)
    for place, one in enumerate(node.terms):
        for other, two in enumerate(node.terms):
            if other != place and isinstance(one, Einsum) and isinstance(two, Einsum):
                made = _together(one, two)
                if made is not None:
                    rest = [made if at == place else term for at, term in enumerate(node.terms) if at != other]
                    return widened(total(rest), node.axes)
    return "no two terms are one contraction over neighbouring stretches"


def _neighbours(one: Node, two: Node) -> TypeGuard[Narrow]:
    """Tell whether two nodes are stretches of one value, the second behind the first."""
    return (
        isinstance(one, Narrow)
        and isinstance(two, Narrow)
        and one.source is two.source
        and (one.axis, one.step, two.step, one.to.name) == (two.axis, 1, 1, two.to.name)
        and isinstance(one.to.size, int)
        and isinstance(two.to.size, int)
        and two.start == one.start + one.to.size
    )


def _together(one: Einsum, two: Einsum) -> Node | None:
    """Return the contraction over two neighbouring stretches as one, if that is what the two are."""
    if len(one.factors) != len(two.factors) or set(one.summed) != set(two.summed) or not floating(one.factors):
        return None
    pairs = list(zip(one.factors, two.factors, strict=True))
    ends = {(a.axis, a.start, a.to, b.to) for a, b in pairs if _neighbours(a, b) and isinstance(b, Narrow)}
    if len(ends) != 1:
        return None
    ((axis, start, first, second),) = ends
    if first.name not in one.summed:
        return None
    whole = Axis(first.name, int(first.size) + int(second.size))
    made: list[Node] = []
    for a, b in pairs:
        if a is b and first.name not in a.axis_names:
            made.append(a)
        elif _neighbours(a, b):
            made.append(Narrow(a.source, axis, start, whole))
        else:
            return None
    return Einsum(tuple(made), one.summed)


def split_heads(circuit: Circuit, head: Sequence[str] = ("head", "kv", "group")) -> Circuit:
    """Return the circuit with every contraction over heads split into one term for each head.

    Each head's term of what a layer's attention writes gets its address, `L3.H7.out`, so that it can be matched and changed.
    Raises `CircuitError` where nothing is contracted over heads.
    """
    need_circuit(circuit)
    names = set(head)
    over = [node for node in circuit.nodes if isinstance(node, Einsum) and names & set(node.summed)]
    if not over:
        raise CircuitError(
            f"nothing is contracted over {' or '.join(head)}: the circuit has no heads, or they are split already"
        )
    made = rewrite(circuit, tuple(split_places(name) for name in head), where=over)
    return made.with_table({**_heads(circuit, made, head), **made.table})


def _heads(before: Circuit, after: Circuit, head: Sequence[str]) -> dict[str, Node]:
    """Return each head's term by its address: places of the axes in the order they were split in, the last one fastest."""
    found: dict[str, Node] = {}
    for address, product in before.table.items():
        where, _, site = address.partition(".")
        if site != "attn._product" or not isinstance(product, Einsum):
            continue
        terms: list[Node] = [after.table[address]]
        for name in head:
            if name in product.summed and _size(product, name) != 1:
                terms = [one for term in terms for one in (term.terms if isinstance(term, Add) else ())]
        found |= {f"{where}.H{number}.out": term for number, term in enumerate(terms)}
    return found


SPLIT_PLACES = split_places("head")
SPLIT_PLACE = split_place("head", 1)
SPLIT_STRETCHES = split_stretches("head", (1, 2))
MERGE_PLACES = Rule(
    "merge_places", "places", "one term for each place of an axis is a contraction over it", "a[0] b[0] + a[1] b[1] + ... = sum_h a[h] b[h]",
    lambda: SPLIT_PLACES.apply(_example()) or _example(), _merge,
)  # fmt: skip
MERGE_STRETCHES = Rule(
    "merge_stretches", "places", "contractions over neighbouring stretches are one", "sum_(k < n) a b + sum_(k >= n) a b = sum_k a b",
    lambda: SPLIT_STRETCHES.apply(_example()) or _example(), _merge_stretches,
)  # fmt: skip

PLACES = (SPLIT_PLACES, SPLIT_PLACE, SPLIT_STRETCHES, MERGE_PLACES, MERGE_STRETCHES)
