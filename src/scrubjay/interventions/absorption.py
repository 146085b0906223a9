"""Reading a sum over keys, or queries times keys, without the keys and values themselves, where one query reads them.

q (x W + b) is (q W) x + q b, and p (x W + b) is (p x) W + p b. With a query at every position that is more work, with a single one it
is much less: keys and values are then never computed. The contraction chooses the order.
"""

from __future__ import annotations

from dataclasses import dataclass

from scrubjay.circuit.graph import rebuild
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Einsum, Index, Relabel, Weight
from scrubjay.engine.resume import POSITIONS


@dataclass(frozen=True, eq=False)
class _Affine:
    """x W + b, with x under other names and W and b a part of what is stored."""

    x: Node
    weight: Node
    bias: Node | None
    summed: tuple[str, ...]


def absorbed(root: Node) -> Node:
    """Return the same value with linear maps of all positions taken into the contraction with a value of one position.

    >>> from scrubjay.circuit.axes import Axis
    >>> from scrubjay.circuit.ops import Input
    >>> x = Input("x", (Axis("query", "query"), Axis("model", 8)))
    >>> weight = Weight("m", "w", ((Axis("model", 8),), (Axis("d_head", 4),)))
    >>> keys = Relabel(Einsum((x, weight), ("model",)), (("query", "key"),))
    >>> made = absorbed(Einsum((Input("q", (Axis("d_head", 4),)), keys), ("d_head",)))
    >>> len(made.factors), made.summed
    (3, ('d_head', 'model'))
    """
    return rebuild([root], lambda node, operands: _joined(node.with_operands(operands)))[root]


def _joined(node: Node) -> Node:
    if not isinstance(node, Einsum) or len(node.factors) != 2:
        return node
    for one, many in (node.factors, node.factors[::-1]):
        found = _affine(many)
        if found is None or POSITIONS in one.axis_names or one.axis_names & set(found.summed):
            continue
        made: Node = Einsum((one, found.weight, found.x), (*node.summed, *found.summed))
        if found.bias is None:
            return made
        rest = tuple(name for name in node.summed if name in one.axis_names | found.bias.axis_names)
        if set(rest) != set(node.summed):
            continue
        return Add((made, Einsum((one, found.bias), rest)))
    return node


def _affine(node: Node) -> _Affine | None:
    """Return keys or values as a linear map of what every position reads; `None` for anything else."""
    if not isinstance(node, Relabel) or all(old != POSITIONS for old, _ in node.pairs):
        return None
    names, inner, chosen = node.pairs, node.source, list[tuple[str, int]]()
    while isinstance(inner, Index) and not isinstance(inner.source, Weight):
        chosen.append((inner.axis, inner.at))
        inner = inner.source
    bias: Node | None = None
    if isinstance(inner, Add) and len(inner.terms) == 2 and _is_stored(inner.terms[1]):
        inner, bias = inner.terms
    if not isinstance(inner, Einsum) or len(inner.factors) != 2:
        return None
    x, weight = inner.factors if _is_stored(inner.factors[1]) else inner.factors[::-1]
    renamed = {old for old, _ in names}
    if (
        not _is_stored(weight)
        or POSITIONS not in x.axis_names
        or renamed & weight.axis_names
        or not renamed <= x.axis_names
    ):
        return None
    for axis, at in chosen:
        if axis in x.axis_names:
            return None
        weight = Index(weight, axis, at)
        bias = Index(bias, axis, at) if bias is not None and axis in bias.axis_names else bias
    return _Affine(Relabel(x, names), weight, bias, inner.summed)


def _is_stored(node: Node) -> bool:
    while isinstance(node, Index):
        node = node.source
    return isinstance(node, Weight)
