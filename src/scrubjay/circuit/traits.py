"""What is particular about a model's anatomy, in words, each read off the graph: no family is known by its name.

A trait has a topic (`heads`, `positions`, `scores`, `norms`, `mlp`, ...), what is the case, and the layers it holds for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from scrubjay.circuit.graph import above, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Along,
    Concat,
    Constant,
    Einsum,
    Gather,
    Input,
    Iota,
    Map,
    Multiply,
    Narrow,
    Weight,
)
from scrubjay.circuit.origin import Origins
from scrubjay.circuit.recognisers import Anatomy
from scrubjay.circuit.recognisers.facts import norm_below, projection

_ACTIVATIONS = (
    "gelu_tanh",
    "quick_gelu",
    "gelu",
    "silu",
    "relu",
    "leaky_relu",
    "elu",
    "softplus",
    "tanh",
    "sigmoid",
    "erf",
)
_PLACES = ("batch", "query", "key", "head", "kv", "group")
_COMPARISONS = ("greater", "greater_equal", "less", "less_equal")


@dataclass(frozen=True)
class Trait:
    """One particular of a model's anatomy.

    Attributes:
        topic: what it is about: `heads`, `positions`, `scores`, `mask`, `norms`, `stream`, `mlp`, `biases`, `ends`.
        words: what is the case.
        usual: whether it is what most models have; `explain` tells the others.
        sites: the kinds of sites it matters to (`attn.k`, `H.k`; empty: all of the layer's).
    """

    topic: str
    words: str
    usual: bool = True
    sites: tuple[str, ...] = ()


def layer_traits(origins: Origins, anatomy: Anatomy, number: int) -> list[Trait]:
    """Return the traits of a layer that was recognised, topic by topic."""
    layer = _Layer(origins, anatomy, number)
    return [
        *_heads(layer),
        *_positions(layer),
        *_scores(layer),
        *_mask(layer),
        *_norms(layer),
        *_stream(layer),
        *_mlp(layer),
        *_biases(layer),
    ]


class _Layer:
    """A layer's named nodes, and how to look between them."""

    def __init__(self, origins: Origins, anatomy: Anatomy, number: int) -> None:
        self.origins, self.known = origins, origins.known
        self.anatomy, self.number = anatomy.layers[number], number
        self.sites = anatomy.shape.layers[number].sites
        self.table = origins.circuit.table

    def node(self, site: str) -> Node | None:
        return self.table.get(f"L{self.number}.{site}")

    def between(self, top: str, bottom: str) -> list[Node]:
        """Return the nodes on the way from one site down to another, the lower one left out."""
        first, last = self.node(top), self.node(bottom)
        if first is None or last is None or first is last:
            return []
        return _between(first, last)


def _between(top: Node, bottom: Node) -> list[Node]:
    order = topological([top], stop=frozenset({bottom}))
    depends = above([top], [bottom]) if bottom in order else set[Node]()
    return [node for node in order if node in depends and node is not bottom]


def _heads(layer: _Layer) -> list[Trait]:
    one = layer.anatomy
    if not one.heads:
        return [_odd("heads", "no attention was found in this layer")]
    if one.kv_heads == one.heads:
        return [Trait("heads", f"{one.heads} heads, each with keys and values of its own")]
    group = one.heads // one.kv_heads
    words = f"{one.heads} query heads share {one.kv_heads} key-value head{'s' if one.kv_heads > 1 else ''}: KV{{n}} is read by the {group} heads H{{{group}n}}..H{{{group}n+{group - 1}}}"
    return [Trait("heads", words, usual=False, sites=("k", "v", "k_rot"))]


def _positions(layer: _Layer) -> list[Trait]:
    found: list[Trait] = []
    turned = layer.between("attn.q_rot", "attn.q")
    q = layer.node("attn.q")
    if any(_is_norm_part(node) for node in turned):
        found.append(
            Trait(
                "positions",
                "queries and keys are normalised before they meet: q and k are before that, q_rot and k_rot after",
                False,
                ("q", "k", "q_rot", "k_rot", "scores"),
            )
        )
    rotations = [
        node for node in turned if isinstance(node, Multiply) and len(layer.known.data_operands(node)) > 1
        and any(_by_position(operand) for operand in layer.known.data_operands(node))
    ]  # fmt: skip
    if rotations and q is not None:
        size = q.size("d_head") if "d_head" in q.axis_names else None
        sizes = [[axis.size for axis in node.axes if axis.name not in _PLACES] for node in rotations]
        whole = [prod(item for item in some if isinstance(item, int)) for some in sizes]
        paired = any(isinstance(node, Narrow) and node.step == 2 for node in turned)
        part = (
            f"the first {max(whole)} of {size} places"
            if whole and isinstance(size, int) and max(whole) < size
            else "all places"
        )
        pairs = "neighbouring places turn together" if paired else "the two halves turn against each other"
        found.append(
            Trait(
                "positions",
                f"rotary embedding of {part} of each head ({pairs}): q and k are before it, q_rot and k_rot after",
                False,
                ("q", "k", "q_rot", "k_rot", "scores"),
            )
        )
    elif layer.origins.circuit.table.get("pos_embed") is not None:
        found.append(Trait("positions", "positions enter once, as pos_embed in the first stream"))
    return found


def _is_norm_part(node: Node) -> bool:
    return (isinstance(node, Along) and node.op in {"rms", "center"}) or (isinstance(node, Map) and node.op == "rsqrt")


def _by_position(node: Node) -> bool:
    """Tell whether a value is computed from positions alone: no token ids, no stream."""
    leaves = [leaf for leaf in topological([node]) if isinstance(leaf, Input | Iota)]
    tokens = [
        leaf for leaf in leaves if isinstance(leaf, Input) and leaf.name not in {"position_ids", "attention_mask"}
    ]
    return bool(leaves) and not tokens


def _scores(layer: _Layer) -> list[Trait]:
    scores, found = layer.node("attn.scores"), list[Trait]()
    if scores is None:
        return []
    product = _product(scores)
    way = [] if product is None else _between(scores, product)
    if factor := _factor(way):
        found.append(Trait("scores", f"scores are the product of queries and keys times {factor:.4g}"))
    found += _cap(way)
    for term in _side_terms(way):
        if {"head", "kv"} & term.axis_names and "d_head" not in term.axis_names:
            words = (
                "a learned bias for each head and distance is added to the scores"
                if _weights_in([term])
                else "each head adds its own slope times the key's position to the scores (alibi): there is no position embedding"
            )
            found.append(_odd("positions", words, "scores", "pattern"))
            break
    pattern = layer.node("attn.pattern")
    joined = [] if pattern is None else [node for node in _between(pattern, scores) if isinstance(node, Concat)]
    if any(_weights_in(part for part in node.parts if layer.known.weight_only(part)) for node in joined):
        words = "an attention sink takes part in the softmax: a learned score that reads no key, so rows of the pattern sum to less than one"
        found.append(_odd("scores", words, "scores", "pattern", "z"))
    return found


def _odd(topic: str, words: str, *sites: str) -> Trait:
    """Return a trait that most models do not have."""
    return Trait(topic, words, False, sites)


def _weights_in(nodes: Iterable[Node]) -> set[str]:
    """Return the names of the weights below some nodes."""
    return {leaf.name for leaf in topological(nodes) if isinstance(leaf, Weight)}


def _product(scores: Node) -> Node | None:
    """Return the contraction of queries with keys that scores are computed from."""
    return next(
        (
            node
            for node in reversed(topological([scores]))
            if isinstance(node, Einsum) and {"query", "key"} <= node.axis_names and "d_head" in node.summed
        ),
        None,
    )


def _cap(way: Iterable[Node]) -> list[Trait]:
    """Return the soft cap of scores, if they have one: tanh of a quotient or product with a number."""
    for node in way:
        if isinstance(node, Map) and node.op == "tanh":
            below = node.inputs[0]
            number = next((number for item in below.operands if (number := _number(item))), None)
            cap = None if number is None else 1 / number if isinstance(below, Multiply) else number
            bound = "a bound" if cap is None else f"{cap:g}"
            words = f"scores are capped softly at {bound} (cap * tanh(x / cap)), before the mask"
            return [_odd("scores", words, "scores", "pattern")]
    return []


def _side_terms(way: Iterable[Node]) -> list[Node]:
    on = set(way)
    return [
        term
        for node in on
        if isinstance(node, Add)
        for term in node.terms
        if term not in on and {"key"} <= term.axis_names
    ]


def _factor(way: Iterable[Node]) -> float | None:
    """Return the product of the numbers that a value is multiplied by on a way."""
    on = list(way)
    capped = {node.inputs[0] for node in on if isinstance(node, Map) and node.op == "tanh"}
    total = 1.0
    for node in on:
        if isinstance(node, Map) and node.op == "tanh":
            break
        number = next((number for item in node.operands if (number := _number(item)) is not None), None)
        if number is None or node in capped:
            continue
        if isinstance(node, Multiply):
            total *= number
        elif isinstance(node, Map) and node.op == "divide" and number:
            total /= number
    return None if total == 1.0 else total


def _mask(layer: _Layer) -> list[Trait]:
    scores = layer.node("attn.scores")
    product = None if scores is None else _product(scores)
    if scores is None or product is None:
        return []
    compared = [
        node
        for node in topological([scores], stop=frozenset({product}))
        if isinstance(node, Map)
        and node.op in _COMPARISONS
        and len([leaf for leaf in topological([node]) if isinstance(leaf, Iota)]) > 1
    ]
    windows = {abs(number) for node in compared for number in _shifts(node) if abs(number) > 1}
    found = (
        [Trait("mask", "each position reads itself and earlier ones")]
        if compared
        else [Trait("mask", "each position reads all others", False, ("scores", "pattern", "z"))]
    )
    if windows:
        found = [
            Trait(
                "mask",
                f"a sliding window: each position reads itself and at most {min(windows) - 1} before it",
                False,
                ("scores", "pattern", "z"),
            )
        ]
    return found


def _shifts(node: Node) -> list[int]:
    """Return the whole numbers that are added to positions below a comparison."""
    found = [_number(item) for one in topological([node]) if isinstance(one, Add) for item in one.terms]
    return [int(number) for number in found if number is not None]


def _number(node: Node) -> float | None:
    """Return the number that a node always is, if it is made of constants alone."""
    if isinstance(node, Constant):
        return float(node.value) if isinstance(node.value, int | float) else None
    if isinstance(node, Map) and node.op == "cast":
        return _number(node.inputs[0])
    if isinstance(node, Multiply | Add):
        numbers = [_number(item) for item in node.operands]
        known = [number for number in numbers if number is not None]
        if len(known) == len(numbers):
            return prod(known) if isinstance(node, Multiply) else sum(known)
    return None


def _norms(layer: _Layer) -> list[Trait]:
    found: list[Trait] = []
    kinds = {norm_kind(node) for site in ("ln1.normalized", "ln2.normalized") if (node := layer.node(site)) is not None}
    before = [site for site in ("ln1", "ln2") if f"{site}.scale" in layer.sites]
    wrapped = [
        site for site in ("attn.out", "mlp.out") if (node := layer.node(site)) is not None and _normed(node, layer)
    ]
    if kinds:
        kind = " and ".join(sorted(kinds))
        where = (
            "after each sum of the stream"
            if layer.anatomy.post_norm
            else "before attention and MLP"
            if len(before) > 1
            else "before attention"
        )
        unusual = layer.anatomy.post_norm
        more = ": resid_mid and resid_post are the sums, what reads them is normalised" if unusual else ""
        found.append(
            Trait(
                "norms",
                f"{kind}, {where}{more}",
                not unusual,
                ("resid_pre", "resid_mid", "resid_post", "attn.out", "mlp.out", "mlp.in"),
            )
        )
    if wrapped:
        words = "on both sides: what " if before else "behind each part: what "
        which = " and ".join("attention" if site == "attn.out" else "the MLP" for site in wrapped)
        verb = "write" if len(wrapped) > 1 else "writes"
        found.append(
            Trait(
                "norms",
                f"norms stand {words}{which} {verb} is normalised before it is added, so attn.out is not attn.o and a head's share of the stream needs that norm's scale",
                False,
                ("attn.out", "mlp.out", "attn.o", "out", "resid_mid", "resid_post"),
            )
        )
    return found


def norm_kind(normalized: Node) -> str:
    """Return `LayerNorm` for a norm that takes the mean away first, `RMSNorm` for one that does not."""
    near = [normalized, *normalized.operands, *(below for item in normalized.operands for below in item.operands)]
    return "LayerNorm" if any(isinstance(node, Along) and node.op == "center" for node in near) else "RMSNorm"


def _normed(node: Node, layer: _Layer) -> bool:
    norm = norm_below(node, layer.known)
    return norm is not None and projection(norm.source, layer.known) is not None


def _stream(layer: _Layer) -> list[Trait]:
    found: list[Trait] = []
    if layer.node("mlp.out") is not None and (
        layer.node("resid_mid") is None or layer.node("mlp.in") is layer.node("resid_pre")
    ):
        found.append(
            Trait("stream", "attention and MLP read the same stream side by side: there is no resid_mid", False)
        )
    for site, below in (("attn.out", "attn.o"),):
        if factor := _factor(layer.between(site, below)):
            found.append(Trait("stream", f"{site} is {below} times {factor:g}", False, (site, below, "out")))
    return found


def _mlp(layer: _Layer) -> list[Trait]:
    if layer.node("mlp.out") is None:
        return []
    if "mlp.router.logits" in layer.sites or "mlp.E.out" in layer.sites:
        return [
            Trait(
                "mlp",
                "a mixture of experts: a router sends each token to some of them, and their outputs are added by its weights",
                False,
            )
        ]
    acts = [
        node.op for node in layer.between("mlp.post", "mlp.pre") if isinstance(node, Map) and node.op in _ACTIVATIONS
    ]
    kind = acts[0] if acts else "an activation"
    if kind == "erf":
        kind = "gelu"
    elif kind == "tanh" and len(layer.between("mlp.post", "mlp.pre")) > 3:
        kind = "gelu_tanh"
    elif kind == "sigmoid":
        kind = "silu"
    size = f", {layer.anatomy.neurons} neurons" if layer.anatomy.neurons else ""
    if layer.anatomy.gated:
        return [
            Trait(
                "mlp",
                f"gated: mlp.post is {kind}(mlp.gate) * mlp.up{size}",
                False,
                ("mlp.pre", "mlp.gate", "mlp.up", "mlp.post", "N"),
            )
        ]
    return [Trait("mlp", f"plain: mlp.post is {kind}(mlp.pre){size}")]


def _biases(layer: _Layer) -> list[Trait]:
    having: list[str] = []
    for site in ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.pre", "mlp.up", "mlp.out"):
        node = layer.node(site)
        made = None if node is None else projection(node, layer.known)
        if node is not None and made is not None and any(isinstance(one, Add) for one in _between(node, made)):
            having.append(site.rpartition(".")[2] if site.startswith("attn") else site)
    return [Trait("biases", f"biases in {', '.join(having)}" if having else "no biases", sites=())]


def end_traits(origins: Origins, anatomy: Anatomy) -> list[Trait]:
    """Return the traits of what stands before the first layer and after the last."""
    table, known = origins.circuit.table, origins.known
    embed, root = table.get("embed"), origins.circuit.roots[anatomy.result]
    below = [] if embed is None else topological([embed])
    looked = next((node for node in below if isinstance(node, Gather)), None)
    found = [] if embed is None or looked is None else _embedding(_between(embed, looked))
    linear = (projection(node, known) for node in reversed(topological([root])))
    out = next((node for node in linear if node is not None), None)
    if out is None:
        return found
    way, result = _between(root, out), anatomy.result
    if any(isinstance(node, Map) and node.op == "tanh" for node in way):
        found.append(_odd("ends", f"{result} are capped softly (cap * tanh(x / cap))", result))
    elif (factor := _factor(way)) is not None:
        found.append(_odd("ends", f"{result} are multiplied by {factor:g}", result))
    rows = set[str]() if looked is None else _weights_in([looked.source])
    if result == "logits" and rows:
        columns = _weights_in(item for item in out.operands if known.weight_only(item))
        tied = bool(rows & columns)
        words = (
            "the unembedding is the embedding's own table (tied)" if tied else "the unembedding is a matrix of its own"
        )
        found.append(Trait("ends", words, not tied, ("embed", "logits")))
    return found


def _embedding(way: list[Node]) -> list[Trait]:
    """Return what is done to a looked-up embedding before it enters the first layer."""
    if any(_is_norm_part(node) for node in way):
        return [_odd("ends", "embeddings are normalised before the first layer; embed is after that", "embed")]
    by = None if (factor := _factor(way)) is None else f"{factor:g}"
    scalars = [leaf.name for leaf in topological(way) if isinstance(leaf, Weight) and not leaf.axes]
    if by is None and any(isinstance(node, Multiply) for node in way) and scalars:
        by = scalars[0]
    return [] if by is None else [_odd("ends", f"embeddings are multiplied by {by}; embed is after that", "embed")]
