"""The kit's models as plain torch modules, built from their `config.json` and `weights.safetensors` alone.

Written apart from `scrubjay.zoo.transformer`, in the layouts of the code that trained them, so that a mistake in one is
not repeated in the other. Two layouts: "tl" (TransformerLens: x @ W, one matrix for each head) and "grok" (W @ x, z
flattened by head). All logits are given at every position.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

KIT_MODELS = ("paren_balance", "mod113_grokked", "palindromes_july23", "induction_2l_infinite")
MASKED = {"tl": -1e5, "grok": -1e10}


def load_kit_model(folder: Path) -> KitModel:
    """Return the model in `folder`, in eval mode; its forward takes (input_ids, attention_mask) where it pads."""
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "weights.safetensors")
    kind = PaddedKitModel if "key_padding_mask" in config else KitModel
    return kind(config, weights).eval()


class KitModel(nn.Module):
    """A causal model without padding: (batch, query) ids to (batch, query, output) logits."""

    def __init__(self, config: dict, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.grok = config["weight_layout"] == "grok"
        self.masked = MASKED[config["weight_layout"]]
        prefix = config.get("block_prefix", "blocks")
        parts = {
            layer: {
                name.removeprefix(f"{prefix}.{layer}."): weight
                for name, weight in weights.items()
                if name.startswith(f"{prefix}.{layer}.")
            }
            for layer in range(config["n_layers"])
        }
        norm_eps = config["norm"]["eps"]
        self.blocks = nn.ModuleList([KitBlock(part, self.grok, norm_eps) for part in parts.values()])
        self.embed = parameter(weights["embed.W_E"].T if self.grok else weights["embed.W_E"])
        self.pos_embed = parameter(weights["pos_embed.W_pos"])
        self.ln_final = layer_norm(weights, "ln_final", norm_eps) if config["norm"]["final"] else nn.Identity()
        self.unembed = parameter(weights["unembed.W_U"])
        self.unembed_bias = parameter(weights["unembed.b_U"]) if config["unembed_bias"] else None

    def forward(self, input_ids: Tensor) -> Tensor:
        """Mask the scores of later keys after the product, as the original does: filled, not added."""
        query = input_ids.shape[1]
        allowed = torch.ones(query, query, dtype=torch.bool, device=input_ids.device).tril()
        return self.logits(input_ids, allowed[None, None])

    def logits(self, input_ids: Tensor, allowed: Tensor) -> Tensor:
        """Give the logits where a query may read the keys that are `allowed`, shape (batch, 1, query, key)."""
        stream = self.embed[input_ids] + self.pos_embed[: input_ids.shape[1]]
        for block in self.blocks:
            stream = block(stream, allowed, self.masked)
        logits = self.ln_final(stream) @ self.unembed
        return logits if self.unembed_bias is None else logits + self.unembed_bias


class PaddedKitModel(KitModel):
    """A bidirectional model that does not read padding keys."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:  # type: ignore[override]
        """Mask padding on the key side only: padded queries are computed too."""
        return self.logits(input_ids, (attention_mask != 0)[:, None, None, :])


class KitBlock(nn.Module):
    """Attention, then an MLP where the weights have one; each reads the stream through its norm, if any."""

    def __init__(self, weights: dict[str, Tensor], grok: bool, norm_eps: float | None) -> None:
        super().__init__()
        w_q, w_k, w_v = (weights[f"attn.W_{name}"] for name in "QKV")
        w_o = weights["attn.W_O"]
        if grok:  # (head, d_head, model) and (model, head d_head), applied as W @ x
            w_q, w_k, w_v = (w.transpose(1, 2) for w in (w_q, w_k, w_v))
            w_o = w_o.reshape(w_o.shape[0], w_q.shape[0], w_q.shape[2]).permute(1, 2, 0)
        self.w_q, self.w_k, self.w_v = parameter(w_q), parameter(w_k), parameter(w_v)  # (head, model, d_head)
        self.w_o = parameter(w_o)  # (head, d_head, model)
        heads, width, d_head = w_q.shape
        zero = {"Q": torch.zeros(heads, d_head), "O": torch.zeros(width)}
        self.b_q, self.b_k, self.b_v = (parameter(weights.get(f"attn.b_{name}", zero["Q"])) for name in "QKV")
        self.b_o = parameter(weights.get("attn.b_O", zero["O"]))
        self.ln1 = layer_norm(weights, "ln1", norm_eps)
        self.ln2 = layer_norm(weights, "ln2", norm_eps)
        self.has_mlp = "mlp.W_in" in weights
        if self.has_mlp:
            w_in, w_out = weights["mlp.W_in"], weights["mlp.W_out"]
            self.w_in, self.w_out = parameter(w_in.T if grok else w_in), parameter(w_out.T if grok else w_out)
            self.b_in, self.b_out = parameter(weights["mlp.b_in"]), parameter(weights["mlp.b_out"])

    def forward(self, stream: Tensor, allowed: Tensor, masked: float) -> Tensor:
        """Give the stream after this block, shape (batch, query, model)."""
        stream = stream + self.attention(self.ln1(stream), allowed, masked)
        if self.has_mlp:
            hidden = torch.relu(self.ln2(stream) @ self.w_in + self.b_in)
            stream = stream + hidden @ self.w_out + self.b_out
        return stream

    def attention(self, stream: Tensor, allowed: Tensor, masked: float) -> Tensor:
        """Give what the heads write together; scores where not `allowed` become `masked`."""
        q = torch.einsum("bqm,hmd->bhqd", stream, self.w_q) + self.b_q[:, None]
        k = torch.einsum("bkm,hmd->bhkd", stream, self.w_k) + self.b_k[:, None]
        v = torch.einsum("bkm,hmd->bhkd", stream, self.w_v) + self.b_v[:, None]
        scores = torch.einsum("bhqd,bhkd->bhqk", q, k)
        scale = q.shape[-1] ** 0.5
        # Where the originals divide differs (tl before the mask, grok after), which no softmax can tell.
        scores = (scores / scale).masked_fill(~allowed, masked)
        z = torch.einsum("bhqk,bhkd->bhqd", scores.softmax(-1), v)
        return torch.einsum("bhqd,hdm->bqm", z, self.w_o) + self.b_o


def layer_norm(weights: dict[str, Tensor], name: str, eps: float | None) -> nn.Module:
    """Give the layer norm under `name`, or the identity where the model has none."""
    if f"{name}.w" not in weights or eps is None:
        return nn.Identity()
    norm = nn.LayerNorm(weights[f"{name}.w"].shape[0], eps=eps)
    norm.load_state_dict({"weight": weights[f"{name}.w"], "bias": weights[f"{name}.b"]})
    return norm


def parameter(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.contiguous(), requires_grad=False)
