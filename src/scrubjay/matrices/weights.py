"""Weights by name, as values with named axes: each the very matrix that the model's own computation multiplies with.

They are found from what was recognised in the circuit (which contraction makes the queries, and how the axes of the weight it
reads are laid out), and not from the names of modules, so that one name means one thing in every family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Einsum, Map, Multiply, Relabel
from scrubjay.circuit.recognisers import LayerAnatomy
from scrubjay.circuit.recognisers.facts import without_casts
from scrubjay.engine.array import Array
from scrubjay.engine.evaluate import evaluate
from scrubjay.errors import AddressError, CircuitError, InputError
from scrubjay.matrices.factored import Factored
from scrubjay.matrices.linear import READ, Linear
from scrubjay.matrices.name import LEAVES, PRODUCTS, Wanted, wanted
from scrubjay.matrices.output import after, changed
from scrubjay.matrices.rotation import between
from scrubjay.matrices.site import Places, map_of, norm_of


def weights(model: Model, name: str, *, fold: bool = False, offset: int = 0) -> Array | Factored:
    """Return a weight of a model by name: an `Array` with named axes, or a `Factored` for OV and QK.

    Vectors are rows and maps act from the right, as in TransformerLens: q = x @ W_Q + b_Q with W_Q (model, d_head), W_O (d_head,
    model), W_in (model, hidden), W_E (vocab, model), W_pos (context, model), W_U (model, vocab). A head's OV = W_V W_O is (model_in,
    model_out), its QK = W_Q W_K^T is (model_query, model_key); full_OV = W_E OV W_U and full_QK = W_E QK W_E^T are from token to
    token.

    Names: `W_E`, `b_U`, `ln_f.w`; `L3.H7.W_Q` of a head, `L3.KV2.W_K` of a key-value head (`L3.H7.W_K` is the one that head 7 uses),
    `L3.attn.W_Q` (head, model, d_head) and `L3.attn.b_O` of a layer; `L3.mlp.W_in`, `W_gate`, `W_out`; `L3.mlp.E5.W_in` of an expert,
    `L3.mlp.router.W`; `L3.ln1.w`. A `*` or range is stacked: `L*.H*.OV` is (layer, head, model_in, model_out), `L0..1.attn.W_Q` (layer, head, ...). TransformerLens's
    `W_Q[3, 7]`, `W_Q`, `blocks.3.attn.W_Q` are read too. `W_in` of a gated MLP is what is not bent, `W_gate` what is.

    Args:
        model: the model.
        name: which weight.
        fold: weights that read a norm take the norm's own weights in, W' = w W and b' = b + b_norm W, and lose their mean over the
            axis they read where the norm centres: maps of `ln1.normalized` instead of what the norm's affine gives. (The `fold_ln`
            of TransformerLens. Weights that read no norm, such as W_O, are as they were.) A head's OV and full_OV take in the
            weights of a norm after attention too (gemma2, olmo2, glm4), W_O' = W_O w, as if its scale were fixed.
        offset: how many places the key stands before the query, for QK where a rotary embedding turns them: with R_d turning a
            vector by d places, QK = W_Q R_offset W_K^T. 0 is no turn. The weights of a q/k norm are in QK, its scale is not.

    A bias that the model lacks is zeros. Norms' weights are as they act (gemma's `w` is 1 + what it stores), and `W_E` is with a
    fixed scale of the embedding. W_U is without what follows it (a scale, a soft cap); W_O gives `attn.o`, before a multiplier or
    norm of what attention adds. Tensors share the model's memory where they can: do not write into them.

    Raises `AddressError` for a name that is none, or that the model lacks; `InputError` for an offset that is none; `CircuitError` where the value is no linear map of what
    it reads, and says what stands there.
    """
    asked = wanted(name, model.anatomy)
    places = Places(model)
    if offset and not asked.leaf.endswith("QK"):
        raise InputError(f"offset={offset}: {name} does not depend on how far the key stands from the query; QK does")
    if asked.leaf in PRODUCTS:
        return _product(places, asked, fold, offset)
    if asked.layers is None:
        return _whole(places, None, "", asked.leaf, fold=fold)
    each = [_chosen(places, layer, asked, fold) for layer in asked.layers]
    if "layer" not in asked.stacked:
        return each[0]
    return _stack(each, asked)


def product(model: Model, name: str, *, fold: bool = False, offset: int = 0) -> Factored:
    """Return OV, QK, full_OV or full_QK of a head or of several, as `weights` does; raise `AddressError` for any other name."""
    asked = wanted(name, model.anatomy)
    if asked.leaf not in PRODUCTS:
        raise AddressError(f"{name!r} is one weight and no product: products are {', '.join(PRODUCTS)}, as in L0.H0.OV")
    found = weights(model, name, fold=fold, offset=offset)
    assert isinstance(found, Factored)
    return found


def of_heads(model: Model, layer: int, leaf: str, heads: Sequence[int], *, fold: bool, offset: int = 0) -> Factored:
    """Return OV or QK of some heads of one layer, as `weights` does: axes (head, ...)."""
    asked = wanted(f"L{layer}.H*.{leaf}", model.anatomy)
    return _product(Places(model), replace(asked, items=tuple(heads)), fold, offset if leaf.endswith("QK") else 0)


def names(model: Model) -> tuple[str, ...]:
    """Return the names of the weights of a model: those that are found, all heads of a layer as `H*`; biases it lacks left out."""
    places = Places(model)
    found = [leaf for leaf in LEAVES[""] if _has(places, None, leaf.rpartition(".")[0], leaf.rpartition(".")[2])]
    for number, layer in enumerate(model.anatomy.layers):
        for part, leaves in LEAVES.items():
            many = {"H": layer.heads, "KV": layer.kv_heads, "E": layer.experts}.get(part, 1)
            if not part or not many or (part == "KV" and layer.kv_heads == layer.heads):
                continue
            path = {"H": "H*", "KV": "KV*", "E": "mlp.E*", "router": "mlp.router"}.get(part, part)
            found += [f"L{number}.{path}.{leaf}" for leaf in leaves if _has(places, number, part, leaf)]
    return tuple(found)


def _has(places: Places, layer: int | None, part: str, leaf: str) -> bool:
    """Tell whether a weight is found."""
    try:
        if leaf in PRODUCTS:
            assert layer is not None
            return _can_multiply(places, layer, leaf)
        if part.startswith("ln"):
            norm = norm_of(places, layer, part)
            return (norm.scale if leaf == "w" else norm.bias) is not None
        made = map_of(places, layer, "attn" if part in {"H", "KV"} else part, leaf, fold=False)
    except (AddressError, CircuitError):
        return False
    return made.bias is not None or not leaf.startswith("b")


def _can_multiply(places: Places, layer: int, leaf: str) -> bool:
    """Tell whether a product is one of weights alone, without reading any weight."""
    kind = leaf.removeprefix("full_")
    _whole_heads(places, layer, kind)
    if kind == "QK":
        between(places.model, layer, 0)
    own = [map_of(places, layer, "attn", name, fold=False) for name in _FACTORS[kind]]
    ends = [map_of(places, None, "", name, fold=False).matrix for name in _ENDS[leaf]]
    reads = own if kind == "QK" else own[:1]
    return all(one.reads == ("model",) for one in reads) and all(
        "model" in {n.removesuffix(READ) for n in end.axis_names} for end in ends
    )


def _stack(each: Sequence[Array], asked: Wanted) -> Array:
    shapes = {tuple(one.as_tensor().shape) for one in each}
    if len(shapes) > 1:
        raise AddressError(
            f"{asked.text!r}: layers have weights of different shapes, {sorted(shapes)}, and cannot be stacked: name one layer"
        )
    return Array(torch.stack([one.as_tensor() for one in each]), ("layer", *each[0].names))


def _chosen(places: Places, number: int, asked: Wanted, fold: bool) -> Array:
    """Return one layer's weight: the heads (key-value heads, experts) that are asked for."""
    if asked.items is None:
        return _whole(places, number, asked.part, asked.leaf, fold=fold)
    whole = _whole(
        places, number, "mlp" if asked.part == "E" else "attn", asked.leaf, fold=fold, experts=asked.part == "E"
    )
    if asked.part == "H":
        whole = _by_head(whole, places.model.anatomy.layers[number])
    axis = {"H": "head", "KV": "kv", "E": "expert"}[asked.part]
    names = tuple(axis if name in {"head", "kv", "expert"} else name for name in whole.names)
    tensor = whole.as_tensor()
    if names[:1] != (axis,):  # all heads share one key
        tensor, names = tensor[None], (axis, *names)
    if axis in asked.stacked:
        items = list(asked.items)
        return Array(tensor if items == list(range(tensor.shape[0])) else tensor[items], names)
    return Array(tensor[asked.items[0]], names[1:])


def _by_head(whole: Array, layer: LayerAnatomy) -> Array:
    """Return a weight of key-value heads with one place for each query head, which uses it."""
    tensor = whole.as_tensor()
    if whole.names[:1] == ("head",) and tensor.shape[0] == layer.heads:
        return whole
    if whole.names[:1] not in {("kv",), ("head",)}:
        return Array(tensor.expand(layer.heads, *tensor.shape), ("head", *whole.names))
    sizes = [(name, size) for name, size in layer.head_axes if name in layer.kv_axes]
    places: list[int] = []
    for head in range(layer.heads):
        place = 0
        for name, size in sizes:
            place = place * size + layer.head_index(head)[name]
        places.append(place)
    return Array(tensor[places], ("head", *whole.names[1:]))


def _whole(places: Places, layer: int | None, part: str, leaf: str, *, fold: bool, experts: bool = False) -> Array:
    """Return a weight of the model or of a whole layer, axes in TransformerLens's order, heads as one axis."""
    if part.startswith("ln") or leaf.startswith("ln_f"):
        return _norm(places, layer, part or "ln_f", leaf.rpartition(".")[2])
    found = map_of(places, layer, "E" if experts else part, leaf, fold=fold)
    heads = places.model.anatomy.layers[layer].head_axes if layer is not None and part == "attn" else ()
    bias = leaf.startswith("b")
    node = found.matrix if not bias else found.bias
    if node is None:
        like = [axis for axis in found.matrix.axes if not axis.name.endswith(READ)]
        array = _zeros(places.model, like)
    else:
        array = _value(places.model, node)
    laid = _laid(array, found, heads, part)
    return Array(laid.as_tensor(), ("context", *laid.names[1:])) if leaf == "W_pos" else laid


def _norm(places: Places, layer: int | None, name: str, leaf: str) -> Array:
    norm = norm_of(places, layer, name)
    text = f"{name}.{leaf}" if layer is None else f"L{layer}.{name}.{leaf}"
    node = norm.scale if leaf == "w" else norm.bias
    if node is None and norm.scale is None and norm.bias is None:
        raise AddressError(f"{text}: this norm has no weights of its own")
    axes = [axis for axis in norm.normalized.axes if axis.name not in {"batch", "query"}]
    if node is None:
        return _zeros(places.model, axes, one=leaf == "w")
    found = _value(places.model, node)
    return Array(torch.broadcast_to(found.in_dims([axis.name for axis in axes]), [int(axis.size) for axis in axes]), tuple(axis.name for axis in axes))  # fmt: skip


def _value(model: Model, node: Node) -> Array:
    found = evaluate([node], {}, model.stores, dtype=model.dtype, device=model.device)[node]
    return Array(found.as_tensor().detach(), found.names)


def _zeros(model: Model, axes: Sequence[Axis], *, one: bool = False) -> Array:
    tensor = torch.full(
        [int(axis.size) for axis in axes],
        float(one),
        dtype=model.dtype or torch.get_default_dtype(),
        device=model.device,
    )
    return Array(tensor, tuple(axis.name for axis in axes))


def _laid(array: Array, found: Linear, heads: Sequence[tuple[str, int]], part: str) -> Array:
    """Return a value in order: experts or heads (as one axis), then what is read, then what is written."""
    own = [name for name, _ in heads if {name, name + READ} & set(array.names)]
    stack = [next(one for one in (name + READ, name) if one in array.names) for name in own]
    first = [found.experts] if found.experts in array.names else []
    reads = [name + READ for name in found.reads if name + READ in array.names and name + READ not in stack]
    writes = [name for name in array.names if name not in {*stack, *first, *reads}]
    order = [name for name in (*first, *stack, *reads, *writes) if name is not None]
    tensor = array.dense(order)
    if stack:
        sizes = dict(heads)
        tensor = tensor.reshape(
            *tensor.shape[: len(first)], prod(sizes[name] for name in own), *tensor.shape[len(first) + len(stack) :]
        )
    whole = ["kv" if len(own) < len(heads) else "head"] if stack else []
    plain = [name.removesuffix(READ) for name in (*reads, *writes)]
    strange = [name for name in plain if name not in {"model", "expert"}]
    called = {"mlp": "hidden", "attn": "d_head"}.get(part)
    if called is not None and len(strange) == 1 and (len(plain) > 1 or stack):
        plain = [called if name in strange else name for name in plain]
    if len(set(plain)) < len(plain):
        plain = [f"{name}_{'in' if place < len(reads) else 'out'}" for place, name in enumerate(plain)]
    return Array(tensor, (*(["expert"] if first else []), *whole, *plain))


_NOTES = {
    "OV": "the biases b_V and b_O and the norm before it are left out",
    "QK": "scores have the model's scale, terms of the biases b_Q and b_K, and a mask beside it; the norm before it is left out",
}


_FACTORS = {"OV": ("W_V", "W_O"), "QK": ("W_Q", "W_K")}
_ENDS = {"OV": (), "QK": (), "full_OV": ("W_E", "W_U"), "full_QK": ("W_E",)}


def _product(places: Places, asked: Wanted, fold: bool, offset: int) -> Factored:
    assert asked.layers is not None
    assert asked.items is not None
    lefts, rights = list[torch.Tensor](), list[torch.Tensor]()
    for layer in asked.layers:
        left, right = _factors(places, layer, asked.items, asked.leaf, fold=fold, offset=offset)
        lefts.append(left)
        rights.append(right)
    if len({(one.shape, two.shape) for one, two in zip(lefts, rights, strict=True)}) > 1:
        raise AddressError(
            f"{asked.text!r}: layers have heads of different sizes, and cannot be stacked: name one layer"
        )
    left, right = torch.stack(lefts), torch.stack(rights)
    if "head" not in asked.stacked:
        left, right = left[:, 0], right[:, 0]
    if "layer" not in asked.stacked:
        left, right = left[0], right[0]
    kind = asked.leaf.removeprefix("full_")
    whole = "vocab" if asked.leaf.startswith("full") else "model"
    ends = ("in", "out") if kind == "OV" else ("query", "key")
    turned = f" at offset {offset}" if kind == "QK" and offset else ""
    notes = [_NOTES[kind]]
    if fold:
        notes.append("the weights of the norms before are folded in")
    if kind == "OV":
        notes += norms_behind(places.model, asked.layers, fold=fold)
    if kind == "QK" and any(places.model.anatomy.layers[layer].qk_norm for layer in asked.layers):
        notes.append("scores are divided by the scales of the norms of queries and keys")
    return Factored(
        left, right, (*asked.stacked, *(f"{whole}_{end}" for end in ends)), asked.text + turned, tuple(notes)
    )


def _factors(
    places: Places, layer: int, heads: Sequence[int], leaf: str, *, fold: bool, offset: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both factors of a product for some heads of a layer: (head, row, d_head) and (head, d_head, column)."""
    kind = leaf.removeprefix("full_")
    _whole_heads(places, layer, kind)
    before = fold and not _only_behind(places, layer, _FACTORS[kind][0])
    left, right = (_head_weight(places, layer, name, heads, fold=before) for name in _FACTORS[kind])
    if kind == "OV":
        _unchanged(places, layer, heads)
        right = _written(places, layer, right) if fold else right
    if kind == "QK":
        for_queries, for_keys = between(places.model, layer, offset)
        left, right = (
            _turned(places, layer, left, for_queries, heads),
            _turned(places, layer, right, for_keys, heads).mT,
        )
    if leaf == "full_OV":
        return _ends(places, "W_E", False) @ left, right @ _ends(places, "W_U", fold)
    if leaf == "full_QK":
        embed = _ends(places, "W_E", False)
        return embed @ left, right @ embed.mT
    return left, right


def _only_behind(places: Places, layer: int, leaf: str) -> bool:
    """Tell whether attention reads the stream itself and what it adds is normed: there is no norm before to fold."""
    if not places.model.anatomy.layers[layer].sandwich:
        return False
    return without_casts(map_of(places, layer, "attn", leaf, fold=False).source) in {
        without_casts(node) for node in places.stream
    }


def _unchanged(places: Places, layer: int, heads: Sequence[int]) -> None:
    """Raise `CircuitError` for a head whose output an intervention replaced."""
    if gone := sorted(set(heads) & set(changed(places.model, layer))):
        names = ", ".join(f"L{layer}.H{head}.out" for head in gone)
        raise CircuitError(
            f"{names} was replaced by an intervention, so what is written there is no product of weights: ask for the other heads"
        )


def _written(places: Places, layer: int, right: torch.Tensor) -> torch.Tensor:
    """Return the right factor of OV, (head, d_head, model), with the weights of the norm after attention taken in."""
    found = after(places.model, layer)
    if isinstance(found, str):
        raise CircuitError(
            f"L{layer}.H*.OV: between L{layer}.attn.o and what is added stands {found}: there is no norm to fold, leave fold=False"
        )
    if found.centered:
        right = right - right.mean(-1, keepdim=True)
    if found.scale is None:
        return right
    scale = _value(places.model, found.scale)
    if scale.names != ("model",):
        raise CircuitError(
            f"L{layer}.H*.OV: what attention adds is scaled by {scale!r} and not along the stream's axis"
        )
    return right * scale.as_tensor().to(right)


def norms_behind(model: Model, layers: Sequence[int], *, fold: bool) -> tuple[str, ...]:
    """Return notes on the norms between what heads write and the stream, or what reads it."""
    notes: dict[str, None] = {}
    for layer in layers:
        anatomy, found = model.anatomy.layers[layer], after(model, layer)
        normed = anatomy.sandwich if isinstance(found, str) else found.normed
        own = not isinstance(found, str) and (found.centered or found.scale is not None)
        if own and fold:
            notes["the weights of the norm after attention are folded into what is written, its scale is held"] = None
        elif own:
            notes[BEHIND] = None
        elif normed:
            notes["what attention adds passes a norm, whose scale is held"] = None
        if anatomy.post_norm:
            notes["the stream passes a norm after each sum: these norms, weights and all, are left out"] = None
    return tuple(notes)


BEHIND = "what attention adds passes a norm, whose own weights are left out: fold=True takes them in"


def _ends(places: Places, leaf: str, fold: bool) -> torch.Tensor:
    """Return W_E (vocab, model) or W_U (model, vocab)."""
    found = _whole(places, None, "", leaf, fold=fold)
    if found.names != (wide := ("vocab", "model") if leaf == "W_E" else ("model", "vocab")):
        raise CircuitError(
            f"{leaf} of {places.model.name} is {found!r} and not over {wide}: no map from token to token is made of weights alone"
        )
    return found.as_tensor()


def _head_weight(places: Places, layer: int, leaf: str, heads: Sequence[int], *, fold: bool) -> torch.Tensor:
    anatomy = places.model.anatomy.layers[layer]
    found = _by_head(_whole(places, layer, "attn", leaf, fold=fold), anatomy)
    if set(found.names) != {"head", "model", "d_head"}:
        read = map_of(places, layer, "attn", leaf, fold=False).reads
        raise CircuitError(f"L{layer}.attn.{leaf} is {found!r}: it reads {', '.join(read)} and not the stream (latent attention, say), so there is no product of one head's weights")  # fmt: skip
    tensor = found.as_tensor()
    return tensor if list(heads) == list(range(anatomy.heads)) else tensor[list(heads)]


def _turned(
    places: Places, layer: int, weight: torch.Tensor, turn: torch.Tensor | None, heads: Sequence[int]
) -> torch.Tensor:
    if turn is None:
        return weight
    anatomy = places.model.anatomy.layers[layer]
    flat = turn.detach().reshape(-1, *turn.shape[-2:]).to(weight)
    many = flat.shape[0]
    if many == anatomy.heads:
        return weight @ flat[list(heads)]
    whole = Array(flat, ("kv", "row", "column")) if many > 1 else Array(flat[0], ("row", "column"))
    return weight @ _by_head(whole, anatomy).as_tensor()[list(heads)]


def _whole_heads(places: Places, layer: int, kind: str) -> None:
    """Raise `CircuitError` where more than weights stands between what attention reads and what it writes, or scores."""
    table, here = places.model.circuit.table, f"L{layer}.attn."
    sites = ("v", "z", "o") if kind == "OV" else ("q", "k", "scores")
    for site in sites:
        places.node(here + site, f"L{layer}.H*.{kind}")
    if kind == "QK":
        return
    z, v = table[here + "z"], table[here + "v"]
    mixed = [_unmoved(one) for one in z.factors] if isinstance(z, Einsum) else []
    if v not in mixed:
        raise CircuitError(
            f"L{layer}.H*.OV: attention does not mix the values {here}v as they are (a norm or gate of them, or an intervention, stands between)"
        )
    projected = map_of(places, layer, "attn", "W_O", fold=False).source
    if _unmoved(projected) is not z:
        raise CircuitError(
            f"L{layer}.H*.OV: between {here}z and the output projection stands more than weights ({_kind(projected)}), so what a head writes is not linear in what it reads"
        )


def _unmoved(node: Node) -> Node:
    while isinstance(node, Relabel) or without_casts(node) is not node:
        node = node.source if isinstance(node, Relabel) else without_casts(node)
    return node


def _kind(node: Node) -> str:
    return (
        node.op
        if isinstance(node, Map)
        else {Multiply: "a product of values", Add: "a sum"}.get(type(node), type(node).__name__)
    )
