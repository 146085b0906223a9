"""What `benchmarks/sweeps.py` asks of auto-circuit 1.0.1: one forward with patch masks for each edge, on TransformerLens 2.16."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from auto_circuit.types import AblationType
from auto_circuit.utils.ablation_activations import src_ablations
from auto_circuit.utils.graph_utils import patch_mode, patchable_model
from serve import Request, Setting
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights


def hooked(setting: Setting) -> Any:
    """Return GPT-2 as a HookedTransformer that shows what heads write and lets each read a stream of its own."""
    module = setting.module("gpt2")
    own = module.config
    config = HookedTransformerConfig(
        n_layers=own.n_layer, n_heads=own.n_head, d_model=own.n_embd, d_head=own.n_embd // own.n_head, d_mlp=own.n_inner or 4 * own.n_embd,
        n_ctx=own.n_positions, d_vocab=own.vocab_size, act_fn="gelu_new", normalization_type="LN", eps=own.layer_norm_epsilon,
        device=setting.device, use_attn_result=True, use_split_qkv_input=True, use_hook_mlp_in=True,
    )  # fmt: skip
    model = HookedTransformer(config)
    weights = {name: value.detach().contiguous() for name, value in convert_gpt2_weights(module, config).items()}
    model.load_and_process_state_dict(
        weights, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    return model.eval()


def name_of(sender: str, receiver: str) -> str:
    """Return auto-circuit's name of an edge; ours are `("L0.H3.out", "L2.H1.q_in")`."""

    def source(text: str) -> str:
        layer, _, rest = text.partition(".")
        return "Resid Start" if text == "embed" else f"MLP {layer[1:]}" if rest == "mlp.out" else f"A{layer[1:]}.{rest[1:].split('.')[0]}"  # fmt: skip

    layer, head, *part = receiver.split(".")
    if head == "mlp":
        end = f"MLP {layer[1:]}"
    else:
        end = f"A{layer[1:]}.{head[1:]}.{part[0][0].upper()}" if part else "Resid End"
    return f"{source(sender)}->{end}"


class Patcher:
    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    @cache  # noqa: B019 - lives as long as the process
    def model(self) -> Any:
        return patchable_model(
            hooked(self.setting), factorized=True, slice_output="last_seq", separate_qkv=True, device=torch.device(self.setting.device),
        )  # fmt: skip

    @cache  # noqa: B019
    def sources(self, length: int) -> torch.Tensor:
        return src_ablations(self.model(), self.setting.ids("corrupted", length), AblationType.RESAMPLE).clone()

    def count(self, request: Request) -> torch.Tensor:
        """The number of edges."""
        return torch.tensor([float(len(self.model().edges))])

    def edge(self, request: Request) -> torch.Tensor:
        model, length = self.model(), request["length"]
        with patch_mode(model, self.sources(length), [name_of(*request["edge"])]):
            logits = model(self.setting.ids("clean", length))[model.out_slice]
        return self.setting.metric(logits)
