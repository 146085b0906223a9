"""Renamings of axes: two become one, and a renaming sinks through what does not act along the renamed axes."""

from __future__ import annotations

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Concat, Einsum, Index, Iota, Map, Narrow, Order, Relabel, Repeat
from scrubjay.circuit.rules.algebra import QUERY, V, X
from scrubjay.circuit.rules.facts import relabelled
from scrubjay.circuit.rules.rule import Rule, expected


def _compose(node: Node) -> Node | str:
    if not isinstance(node, Relabel):
        return expected("a renaming", node)
    inner = node.source
    if isinstance(inner, Relabel):
        first, then = dict(inner.pairs), dict(node.pairs)
        pairs = {axis.name: first.get(axis.name, axis.name) for axis in inner.source.axes}
        return relabelled(inner.source, [(old, then.get(new, new)) for old, new in pairs.items()])
    kept = relabelled(inner, node.pairs)
    return "it renames no renaming, and every axis it names gets another name" if kept is node else kept


def _sink(node: Node) -> Node | str:
    if not isinstance(node, Relabel):
        return expected("a renaming", node)
    inner, table = node.source, dict(node.pairs)
    match inner:
        case Iota():
            return Iota(Axis(table[inner.axis.name], inner.axis.size))
        case Concat() if inner.to.name in table:
            to = Axis(table[inner.to.name], inner.to.size)
            rest = {old: new for old, new in table.items() if old != inner.to.name}
            return _joined(inner, rest, to)
        case Repeat() if set(table) & {axis.name for axis in inner.along}:
            along = tuple(Axis(table.get(axis.name, axis.name), axis.size) for axis in inner.along)
            return Repeat(relabelled(inner.source, node.pairs), along)
        case _:
            return _through(inner, table)


def _joined(inner: Concat, rest: dict[str, str], to: Axis) -> Node | str:
    if set(inner.along) & (set(rest) | set(rest.values())):
        return "an axis that is joined has the name of a renamed one"
    return Concat(tuple(relabelled(part, rest.items()) for part in inner.parts), inner.along, to)


def _through(inner: Node, table: dict[str, str]) -> Node | str:
    if not inner.operands:
        return "a leaf names its own axes"
    if isinstance(inner, Index | Narrow):
        return "a choice of places stands below: push that down first (push_take), it passes renamings"
    if isinstance(inner, Order | Relabel):
        return "it stands over a node that names axes itself: compose renamings, or leave an ordering as it is"
    if acting := inner.acts_along & (set(table) | set(table.values())):
        return f"{type(inner).__name__} acts along {', '.join(sorted(acting))}"
    return inner.with_operands([relabelled(one, table.items()) for one in inner.operands])


_KEY = (("query", "key"),)

COMPOSE_RELABELS = Rule(
    "compose_relabels", "relabels", "two renamings become one; one that changes no name goes", "rename_p(rename_q(x)) = rename_pq(x)",
    lambda: Relabel(Relabel(X, _KEY), (("key", "position"),)), _compose,
)  # fmt: skip
SINK_RELABEL = Rule(
    "sink_relabel", "relabels", "a renaming sinks to the operands of what does not act along the renamed axes", "rename(f(a, b)) = f(rename(a), rename(b))",
    lambda: Relabel(Einsum((Map("tanh", (X,)), V), ("model",)), _KEY), _sink,
)  # fmt: skip
COUNT_RELABELLED = Rule(
    "count_relabelled", "relabels", "a count along a renamed axis is a count along the other", "rename(iota_query) = iota_key",
    lambda: Relabel(Iota(QUERY), _KEY),
    lambda node: _sink(node) if isinstance(node, Relabel) and isinstance(node.source, Iota) else "it is no renamed count",
)  # fmt: skip

RELABELS = (COMPOSE_RELABELS, SINK_RELABEL, COUNT_RELABELLED)
