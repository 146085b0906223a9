"""Attention, found by shape: a softmax over keys of a (query, key) score, and what lies before and after it."""

from __future__ import annotations

from dataclasses import dataclass

from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Along, Concat, Einsum, Gather, Index, Map, Narrow, Relabel, Split
from scrubjay.circuit.recognisers.facts import (
    Facts,
    norm_below,
    one_projection_below,
    projection,
    projections_below,
    region,
    stored,
    without_casts,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Attention:
    """The nodes of one attention layer (design 2.4 gives their meanings) and its head axes, key-value heads first.

    `q`, `k`, `v` are `None` where no linear map makes one. `o_product` is the output projection without its bias, and
    `o_reads` what it reads: `z`, or what a gate or norm makes of it. `keys` is the axis of keys; `sinks` tells of a column
    that takes part in the softmax and is no key.
    """

    q: Node | None
    k: Node | None
    v: Node | None
    q_rot: Node
    k_rot: Node
    scores: Node
    pattern: Node
    z: Node
    o_product: Einsum
    o_reads: Node
    o: Node
    heads: tuple[str, ...]
    kv_heads: tuple[str, ...]
    keys: str
    sinks: bool
    soft_cap: bool
    qk_norm: bool


def is_attention(node: Node, *, of_queries: bool = True) -> bool:
    """Tell whether a node is a softmax over positions (of every query, or of another sequence), and no router's over experts."""
    if not isinstance(node, Along) or node.op not in {"softmax", "safe_softmax"} or len(node.over) != 1:
        return False
    (over,) = node.over
    positions = isinstance(node.source.size(over), str) or "key" in over  # of a length that is fixed, by its name
    return over != "query" and ("query" in node.axis_names) == of_queries and positions


def read_attention(softmax: Along, write: Node, known: Facts) -> Attention | str:
    """Return the attention layer around a softmax whose output is in `write`, or why it is none that we know."""
    scores, keys, sinks = _scores(softmax)
    found = _weighted_sum(softmax, keys, known)
    if isinstance(found, str):
        return found
    z, pattern, values = found
    product = _score_product(scores, keys)
    if product is None:
        return "its scores are no product of queries and keys"
    one, two = product.factors
    asks, answers = (one, two) if "query" in one.axis_names else (two, one)
    output = _output(z, write, known)
    if output is None:
        return "its output projection was not found"
    o_product, o = output
    heads = tuple(axis.name for axis in pattern.axes if axis.name not in {"batch", "query", keys})
    q, k, v = (one_projection_below(item, known, frozenset(heads)) for item in (asks, answers, values))
    kv = (_without_labels(answers) if k is None else k).axis_names
    kv_heads = tuple(name for name in heads if name in kv)
    between = region(scores, {product}, known)
    above_q = set[Node]() if q is None else region(asks, {q}, known)
    return Attention(
        q, k, v, _without_labels(asks), _without_labels(answers), scores, pattern, z, o_product,
        known.data_operands(o_product)[0], o,
        heads=(*kv_heads, *(name for name in heads if name not in kv_heads)),
        kv_heads=kv_heads,
        keys=keys,
        sinks=sinks,
        soft_cap=any(isinstance(node, Map) and node.op == "tanh" for node in between),
        qk_norm=any(norm_below(node, known) is not None for node in above_q),
    )  # fmt: skip


def _without_labels(node: Node) -> Node:
    while isinstance(node, Relabel):
        node = node.source
    return node


def _scores(softmax: Along) -> tuple[Node, str, bool]:
    """Return what enters the softmax for the keys, the axis of keys, and whether a sink was joined to them."""
    (over,) = softmax.over
    node = without_casts(softmax.source)
    joined = node
    if isinstance(node, Add) and len(node.terms) == 2:  # less the greatest, for precision
        joined = next((term for term in node.terms if isinstance(term, Concat)), node)
    if isinstance(joined, Concat) and joined.to.name == over:
        for part, along in zip(joined.parts, joined.along, strict=True):
            if isinstance(part.size(along), str):
                return without_casts(part), along, True
    return node, over, False


def _weighted_sum(softmax: Along, keys: str, known: Facts) -> tuple[Node, Node, Node] | str:
    """Return (z, pattern, values): the contraction over keys that reads the softmax, and its two operands."""
    here: Node = softmax
    while True:
        reading = known.readers.get(here, [])
        sums = [node for node in reading if isinstance(node, Einsum) and keys in node.summed and len(node.factors) == 2]
        if len(sums) > 1:
            return "its pattern weighs more than one set of values"
        if sums:
            one, two = sums[0].factors
            return sums[0], here, two if one is here else one
        following = [node for node in reading if _is_same_pattern(node, softmax, keys)]
        if len(following) != 1:
            return "no sum of values by its pattern was found"
        (here,) = following


def _is_same_pattern(node: Node, softmax: Along, keys: str) -> bool:
    (over,) = softmax.over
    if isinstance(node, Narrow):
        return node.axis == over and node.to.name == keys
    return node.axis_names == softmax.axis_names or node.axis_names == softmax.axis_names - {over} | {keys}


def _score_product(scores: Node, keys: str) -> Einsum | None:
    """Return the contraction of queries with keys below the scores."""
    stack, seen = [scores], set[Node]()
    while stack:
        node = stack.pop()
        if node in seen or not {"query", keys} <= node.axis_names:
            continue
        seen.add(node)
        if isinstance(node, Einsum) and node.summed and len(node.factors) == 2:
            sides = [{"query", keys} & item.axis_names for item in node.factors]
            if sides in ([{"query"}, {keys}], [{keys}, {"query"}]):
                return node
        stack.extend(reversed(node.operands))
    return None


def _output(z: Node, write: Node, known: Facts) -> tuple[Einsum, Node] | None:
    """Return the output projection, the outermost linear map of z in `write`: its product, and its value with the bias."""
    outer = [node for node in projections_below(write, known) if _depends(node, z, known)]
    if len(outer) != 1:
        return None
    o = without_casts(outer[0])
    product = projection(o, known)
    if product is None or not isinstance(o, Einsum | Add):
        return None
    between = region(known.data_operands(product)[0], {z}, known)
    again = [node for node in between if isinstance(node, Einsum) and _depends(node, z, known)]
    return None if again else (product, o)


def _depends(node: Node, source: Node, known: Facts) -> bool:
    return node is source or any(source in inner.operands for inner in region(node, {source}, known))


def positions(one: Attention, known: Facts) -> str:
    """Return how positions enter the scores: `rotary`, `alibi`, `relative` (a table of distances) or `none` that is known."""
    if one.q is not None and any(
        isinstance(node, Concat | Narrow | Index | Split) for node in region(one.q_rot, {one.q}, known)
    ):
        return "rotary"
    product = _score_product(one.scores, one.keys)
    for node in region(one.scores, set() if product is None else {product}, known):
        for term in node.terms if isinstance(node, Add) else ():
            if not (set(one.heads) & term.axis_names and one.keys in term.axis_names):
                continue
            below = topological([term])
            if product not in below:
                looked = any(isinstance(inner, Gather) and stored(inner.source) is not None for inner in below)
                return "relative" if looked else "alibi"
    return "none"
