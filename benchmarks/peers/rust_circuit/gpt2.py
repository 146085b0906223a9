"""GPT-2 in rust_circuit's own nodes, from a transformers state dict: one node where Scrubjay has one, so that paths are as many.

Centring is one product with a matrix and a square is `pow`: both read their operand once, as Scrubjay's nodes do.
"""

from __future__ import annotations

from collections.abc import Mapping

import rust_circuit as rc
import torch

Weights = Mapping[str, torch.Tensor]
EINSUM = rc.Einsum.from_einsum_string


def norm(x: rc.Circuit, weights: Weights, where: str, name: str, centring: rc.Circuit) -> rc.Circuit:
    """Return layer norm: the centred value by its scale and gain, and the bias."""
    width = x.shape[-1]
    centred = EINSUM("bqd,de->bqe", x, centring, name=f"{name}.centred")
    square = rc.pow(centred, rc.Scalar(2.0), name=f"{name}.square")
    mean = EINSUM("bqd,->bq", square, rc.Scalar(1.0 / width), name=f"{name}.mean")
    scale = rc.rsqrt(rc.Add(mean, rc.Scalar(1e-5), name=f"{name}.variance"), name=f"{name}.scale")
    gain = rc.Array(weights[f"{where}.weight"], name=f"{name}.gain")
    made = EINSUM("bqd,bq,d->bqd", centred, scale, gain, name=f"{name}.scaled")
    return rc.Add(made, rc.Array(weights[f"{where}.bias"], name=f"{name}.bias"), name=name)


def attention(x: rc.Circuit, weights: Weights, layer: int, heads: int, mask: rc.Circuit) -> rc.Circuit:
    """Return what the heads of a layer write; the bias is not in it."""
    where, width = f"transformer.h.{layer}.attn", x.shape[-1]
    matrix, bias = weights[f"{where}.c_attn.weight"], weights[f"{where}.c_attn.bias"]
    made = {}
    for place, kind in enumerate("qkv"):
        part = slice(place * width, (place + 1) * width)
        own = rc.Array(matrix[:, part].reshape(width, heads, -1).clone(), name=f"L{layer}.W_{kind}")
        shift = rc.Array(bias[part].reshape(heads, -1).clone(), name=f"L{layer}.b_{kind}")
        made[kind] = rc.Add(
            EINSUM("bqd,dhe->bqhe", x, own, name=f"L{layer}.{kind}_map"), shift, name=f"L{layer}.{kind}"
        )
    root = (width // heads) ** -0.5
    scores = EINSUM("bqhe,bkhe,->bhqk", made["q"], made["k"], rc.Scalar(root), name=f"L{layer}.scores")
    pattern = rc.softmax(rc.Add(scores, mask, name=f"L{layer}.masked"), name=f"L{layer}.pattern")
    z = EINSUM("bhqk,bkhe->bqhe", pattern, made["v"], name=f"L{layer}.z")
    out = rc.Array(weights[f"{where}.c_proj.weight"].reshape(heads, -1, width).clone(), name=f"L{layer}.W_O")
    return EINSUM("bqhe,hed->bqd", z, out, name=f"L{layer}.heads")


def mlp(x: rc.Circuit, weights: Weights, layer: int) -> rc.Circuit:
    """Return what the MLP of a layer writes."""
    where = f"transformer.h.{layer}.mlp"

    def linear(value: rc.Circuit, part: str, name: str) -> rc.Circuit:
        matrix = rc.Array(weights[f"{where}.{part}.weight"], name=f"{name}.W")
        product = EINSUM("bqd,df->bqf", value, matrix, name=f"{name}_map")
        return rc.Add(product, rc.Array(weights[f"{where}.{part}.bias"], name=f"{name}.b"), name=name)

    return linear(rc.gelu_new(linear(x, "c_fc", f"L{layer}.pre"), name=f"L{layer}.post"), "c_proj", f"L{layer}.mlp")


def gpt2(weights: Weights, ids: torch.Tensor, layers: int, heads: int) -> rc.Circuit:
    """Return the logits: one contraction over heads for each attention."""
    width, length = weights["transformer.wte.weight"].shape[1], ids.shape[1]
    centring = rc.Array(torch.eye(width) - 1.0 / width, name="centring")
    mask = rc.Array(torch.full((length, length), -1e9).triu(1), name="mask")
    embed = rc.Array(weights["transformer.wte.weight"][ids], name="embed")
    x = rc.Add(embed, rc.Array(weights["transformer.wpe.weight"][:length], name="pos"), name="stream")
    for layer in range(layers):
        where = f"transformer.h.{layer}"
        read = norm(x, weights, f"{where}.ln_1", f"L{layer}.ln1", centring)
        shift = rc.Array(weights[f"{where}.attn.c_proj.bias"], name=f"L{layer}.b_O")
        written = rc.Add(attention(read, weights, layer, heads, mask), shift, name=f"L{layer}.attn")
        x = rc.Add(x, written, name=f"L{layer}.mid")
        read = norm(x, weights, f"{where}.ln_2", f"L{layer}.ln2", centring)
        x = rc.Add(x, mlp(read, weights, layer), name=f"L{layer}.post_mlp")
    final = norm(x, weights, "transformer.ln_f", "ln_f", centring)
    return EINSUM("bqd,vd->bqv", final, rc.Array(weights["transformer.wte.weight"], name="W_E"), name="logits")
