"""The residual stream, layers, MLPs and norms: what lies between attention layers and how it is added together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scrubjay.circuit.graph import above
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Gather, Index, Input, Iota, Multiply, Narrow
from scrubjay.circuit.recognisers.attention import Attention
from scrubjay.circuit.recognisers.facts import (
    Facts,
    Norm,
    linear_input,
    norm_below,
    projection,
    projections_below,
    stored,
    without_casts,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Mlp:
    """An MLP: what it reads from the stream, the input and output of its nonlinearity, and what it adds."""

    reads: Node
    pre: Node
    up: Node | None
    post: Node
    out: Node


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer: its stretch of the residual stream, its attention, its MLP and its norms (where it has them)."""

    attention: Attention
    attn_out: Node
    resid_pre: Node
    resid_mid: Node
    resid_post: Node
    mlp: Mlp | None
    ln1: Norm | None
    ln2: Norm | None


def find_layers(attentions: Sequence[Attention], known: Facts, roots: Sequence[Node]) -> list[Layer] | None:
    """Return the layers, or `None` where the residual stream around some attention is not understood."""
    additions = [_addition_above(one.o, known) for one in attentions]
    found: list[Layer] = []
    for place, one in enumerate(attentions):
        here = additions[place]
        if here is None:
            return None
        addition, attn_out, resid_pre = here
        later = additions[place + 1] if place + 1 < len(additions) else None
        mlp_found = _mlp(addition, later[0] if later else None, known, roots)
        resid_post, mlp, stream = mlp_found if mlp_found else (addition, None, addition)
        ln1 = norm_below(one.reads, known)
        if ln1 is not None and ln1.source is not resid_pre:
            ln1 = None
        ln2 = _ln2(mlp, stream, known)
        if stream is not addition:  # the norm follows the sum
            ln1 = norm_below(stream, known)
        found.append(Layer(one, attn_out, resid_pre, addition, resid_post, mlp, ln1, ln2))
    return [_closing_norm(layer, found, place, known) for place, layer in enumerate(found)]


def _ln2(mlp: Mlp | None, stream: Node, known: Facts) -> Norm | None:
    if mlp is None:
        return None
    first = projection(mlp.pre, known)
    norm = norm_below(linear_input(first, known), known) if first is not None else None
    return norm if norm is not None and norm.source is stream else None


def _closing_norm(layer: Layer, layers: Sequence[Layer], place: int, known: Facts) -> Layer:
    """Give a layer whose norm follows its last sum that norm as `ln2`."""
    if layer.ln2 is not None or layer.mlp is None or layer.mlp.reads is layer.resid_mid:
        return layer
    after = layers[place + 1].resid_pre if place + 1 < len(layers) else None
    candidates = [after] if after is not None else [node for node in known.nodes if norm_below(node, known) is not None]
    for node in candidates:
        norm = norm_below(node, known)
        if norm is not None and norm.source is layer.resid_post:
            return replace(layer, ln2=norm)
    return layer


def _is_addition(node: Node, known: Facts) -> bool:
    if not isinstance(node, Add) or "query" not in node.axis_names or "key" in node.axis_names:
        return False
    data = known.data_operands(node)
    return len(data) == 2 and all(
        "query" in item.axis_names and item.axis_names >= node.axis_names - {"batch"} for item in data
    )


def _addition_above(part: Node, known: Facts) -> tuple[Node, Node, Node] | None:
    """Return (sum, what the part adds, the stream before) for the nearest residual addition above a part."""
    reached = {part}
    queue = [part]
    while queue:
        node = queue.pop(0)
        for reader in known.readers.get(node, []):
            if reader in reached:
                continue
            reached.add(reader)
            if _is_addition(reader, known):
                one, two = known.data_operands(reader)
                if one in reached and two not in reached:
                    return reader, one, two
                if two in reached and one not in reached:
                    return reader, two, one
            queue.append(reader)
    return None


def _mlp(addition: Node, later: Node | None, known: Facts, roots: Sequence[Node]) -> tuple[Node, Mlp, Node] | None:
    """Return (sum, MLP, the stream it was added to) for the block between one attention's addition and the next one's."""
    depends = above(roots, [addition])
    beyond = above(roots, [later]) if later is not None else set[Node]()
    for node in known.nodes:
        if node not in depends or node is addition or node is later or node in beyond or not _is_addition(node, known):
            continue
        one, two = known.data_operands(node)
        for stream, out in ((one, two), (two, one)):
            if stream is addition or _is_norm_of(stream, addition, known):
                mlp = _inside_mlp(out, stream, known)
                if mlp is not None:
                    return node, mlp, stream
    return None


def _is_norm_of(node: Node, source: Node, known: Facts) -> bool:
    norm = norm_below(node, known)
    return norm is not None and norm.source is source


def _inside_mlp(out: Node, stream: Node, known: Facts) -> Mlp | None:
    down = projections_below(out, known)
    if len(down) != 1:
        return None
    last = projection(down[0], known)
    if last is None:
        return None
    post = linear_input(last, known)
    first = projections_below(post, known)
    if len(first) == 1:
        return Mlp(stream, first[0], None, post, out)
    if len(first) == 2 and isinstance(post, Multiply):
        straight = [
            node for node in first if node in [without_casts(item) for item in post.factors] or node in post.factors
        ]
        if len(straight) == 1:
            (gate,) = [node for node in first if node is not straight[0]]
            return Mlp(stream, gate, straight[0], post, out)
    return None


@dataclass(frozen=True, eq=False)
class Ends:
    """What stands before the first layer and after the last: embeddings, the final norm, and their table axes."""

    embed: Node | None
    pos_embed: Node | None
    ln_f: Norm | None
    tables: dict[str, str]


def find_ends(first: Node, last: Node, root: Node, known: Facts) -> Ends:
    """Return the embeddings below the first stream value and the norm between the last one and the result."""
    tables: dict[str, str] = {}
    embed = pos_embed = None
    norm = norm_below(first, known)
    for term in _terms(norm.source if norm else first):
        kind = _table_kind(term, tables)
        if kind == "token" and embed is None:
            embed = term
        elif kind == "position" and pos_embed is None:
            pos_embed = term
    if embed is None and pos_embed is None and norm is None:
        embed = first
    out = projection(root, known)
    ln_f = norm_below(linear_input(out, known), known) if out is not None else None
    return Ends(embed, pos_embed, ln_f if ln_f is not None and _below_indices(ln_f.source) is last else None, tables)


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
