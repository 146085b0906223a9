"""Attention, found by shape: a softmax over keys of a (query, key) score, and what lies before and after it."""

from __future__ import annotations

from dataclasses import dataclass

from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Along, Einsum, Relabel
from scrubjay.circuit.recognisers.facts import Facts, linear_input, one_projection_below, projection, without_casts


@dataclass(frozen=True, eq=False)
class Attention:
    """The nodes of one attention layer (design 2.4 gives their meanings) and its head axes, key-value heads first."""

    q: Node
    k: Node
    v: Node
    q_rot: Node
    k_rot: Node
    scores: Node
    pattern: Node
    z: Node
    o_product: Einsum
    o: Node
    reads: Node
    heads: tuple[str, ...]
    kv_heads: tuple[str, ...]


def find_attention(known: Facts) -> list[Attention]:
    """Return every attention layer, in the order of computation; a softmax that is none is passed over."""
    found: list[Attention] = []
    for node in known.nodes:
        if (
            isinstance(node, Along)
            and node.op in {"softmax", "safe_softmax"}
            and node.over == ("key",)
            and "query" in node.axis_names
        ):
            one = _attention(node, known)
            if one is not None:
                found.append(one)
    return found


def _attention(softmax: Along, known: Facts) -> Attention | None:
    weighted = _weighted_sum(softmax, known)
    scores = without_casts(softmax.source)
    product = _score_product(scores)
    if weighted is None or product is None:
        return None
    z, pattern, values = weighted
    asks = next(item for item in product.factors if "query" in item.axis_names and "key" not in item.axis_names)
    answers = next(item for item in product.factors if "key" in item.axis_names and "query" not in item.axis_names)
    outputs = _output(z, known)
    q, k, v = (one_projection_below(item, known) for item in (asks, answers, values))
    if outputs is None or q is None or k is None or v is None:
        return None
    reads = projection(q, known)
    if reads is None:
        return None
    heads = tuple(axis.name for axis in softmax.axes if axis.name not in {"batch", "query", "key"})
    kv_heads = tuple(name for name in heads if name in k.axis_names)
    heads = (*kv_heads, *(name for name in heads if name not in kv_heads))
    return Attention(
        q, k, v, _renamed_from(asks), _renamed_from(answers), scores, pattern, z, *outputs, linear_input(reads, known), heads, kv_heads
    )  # fmt: skip


def _renamed_from(node: Node) -> Node:
    while isinstance(node, Relabel):
        node = node.source
    return node


def _weighted_sum(softmax: Node, known: Facts) -> tuple[Node, Node, Node] | None:
    """Return (z, pattern, values): the contraction over keys that reads the softmax, and its two operands."""
    here = softmax
    while True:
        reading = known.readers.get(here, [])
        for reader in reading:
            if isinstance(reader, Einsum) and "key" in reader.summed and len(reader.factors) == 2:
                values = reader.factors[1] if reader.factors[0] is here else reader.factors[0]
                return reader, here, values
        if len(reading) != 1 or reading[0].axis_names != softmax.axis_names:
            return None
        (here,) = reading


def _score_product(scores: Node) -> Einsum | None:
    """Return the contraction of queries with keys below the scores."""
    stack, seen = [scores], set[Node]()
    while stack:
        node = stack.pop()
        if node in seen or not {"query", "key"} <= node.axis_names:
            continue
        seen.add(node)
        if isinstance(node, Einsum) and node.summed and len(node.factors) == 2:
            sides = [{"query", "key"} & item.axis_names for item in node.factors]
            if sorted(map(sorted, sides)) == [["key"], ["query"]]:
                return node
        stack.extend(reversed(node.operands))
    return None


def _output(z: Node, known: Facts) -> tuple[Einsum, Node] | None:
    """Return the output projection: its product, and its value with the bias."""
    stack = list(known.readers.get(z, []))
    while stack:
        node = stack.pop(0)
        if isinstance(node, Einsum) and projection(node, known) is node:
            biased = [
                reader
                for reader in known.readers.get(node, [])
                if isinstance(reader, Add) and all(term is node or known.weight_only(term) for term in reader.terms)
            ]
            return node, biased[0] if biased else node
        if without_casts(node) is z:
            stack.extend(known.readers.get(node, []))
    return None
