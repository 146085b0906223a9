"""The ends of the stream: embeddings before the first layer, the final norm after the last."""

from __future__ import annotations

from dataclasses import dataclass

from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Along, Einsum, Gather, Index, Input, Iota, Narrow
from scrubjay.circuit.recognisers.facts import (
    Facts,
    Norm,
    linear_input,
    norm_at,
    norm_below,
    projection,
    stored,
    without_casts,
)


@dataclass(frozen=True, eq=False)
class Ends:
    """What stands before the first layer and after the last: embeddings, the final norm, and their table axes."""

    embed: Node | None
    pos_embed: Node | None
    ln_f: Norm | None
    tables: dict[str, str]


def find_ends(first: Node, last: Node, root: Node, known: Facts, *, normed: bool = False) -> Ends:
    """Return the embeddings below the first stream value and the norm between the last one and the result.

    Where layers are `normed` after their sums, the norm of the last value is the last layer's own.
    """
    tables: dict[str, str] = {}
    embed = pos_embed = None
    terms = _embedded(first, known)
    for term in terms:
        kind = _table_kind(term, tables)
        if kind == "token" and embed is None:
            embed = first if len(terms) == 1 else term
        elif kind == "position" and pos_embed is None:
            pos_embed = term
    if embed is None and pos_embed is None and norm_below(first, known) is None:
        embed = first
    return Ends(embed, pos_embed, None if normed else _final_norm(last, root, known), tables)


def _embedded(first: Node, known: Facts) -> list[Node]:
    """Return the terms of the first stream value, or of what its norm reads where it is a norm's output."""
    terms = _terms(first)
    places = [term for term in terms if "query" in term.axis_names and known.weight_only(term)]
    norm = norm_below(first, known)
    return terms if norm is None or places else _terms(norm.source)


def _final_norm(last: Node, root: Node, known: Facts) -> Norm | None:
    """Return the norm that the last linear map reads, or else the only norm of the last stream value."""
    out = _unembedding(root, known)
    norm = norm_below(linear_input(out, known), known) if out is not None else None
    if norm is not None and _below_indices(norm.source) is last:
        return norm
    found = [norm for node in known.nodes if (norm := norm_at(node)) is not None and norm.source is without_casts(last)]
    return found[0] if len(found) == 1 else None


def _unembedding(root: Node, known: Facts) -> Einsum | None:
    """Return the last linear map, below what is done to its output element by element (a soft cap, a scale)."""
    while True:
        found = projection(root, known)
        data = known.data_operands(root)
        if found is not None or len(data) != 1 or isinstance(root, Einsum | Along):
            return found
        (root,) = data


def _below_indices(node: Node) -> Node:
    while isinstance(node, Index | Narrow):
        (node,) = node.operands
    return node


def _terms(node: Node) -> list[Node]:
    found: list[Node] = []
    stack = [node]
    while stack:
        here = without_casts(stack.pop())
        if isinstance(here, Add):
            stack.extend(reversed(here.terms))
        else:
            found.append(here)
    return found


def _table_kind(term: Node, tables: dict[str, str]) -> str | None:
    """Tell whether a term looks up tokens or positions, by what indexes its table."""
    stack = [term]
    while stack:
        node = stack.pop()
        if isinstance(node, Gather) and stored(node.source) is not None:
            kind = _index_kind(node.index)
            tables.setdefault(node.axis, "vocab" if kind == "token" else "context" if kind == "position" else node.axis)
            return kind
        stack.extend(node.operands)
    return "position" if stored(term) is not None else None


def _index_kind(index: Node) -> str | None:
    stack = [index]
    kinds: set[str] = set()
    while stack:
        node = stack.pop()
        if isinstance(node, Input):
            kinds.add(
                "position"
                if node.name in {"position_ids", "attention_mask"}
                else "token"
                if node.name != "token_type_ids"
                else "type"
            )
        elif isinstance(node, Iota):
            kinds.add("position")
        elif isinstance(node, Gather) and stored(node.source) is not None:
            return None  # a table indexed through another table, such as token types
        stack.extend(node.operands)
    return "token" if "token" in kinds else "position" if "position" in kinds else None
