"""What `benchmarks/sweeps.py` asks of TransformerLens 3.9's HookedTransformer, the one that later versions no longer have.

Its weights are converted as they are: nothing folded or centred, so that values can be compared.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pandas as pd
import torch
from serve import Kept, Request, Setting
from transformer_lens import HookedTransformer, HookedTransformerConfig, patching
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

NAMES = {
    "resid_pre": "hook_resid_pre", "resid_mid": "hook_resid_mid", "resid_post": "hook_resid_post", "q": "attn.hook_q", "k": "attn.hook_k",
    "v": "attn.hook_v", "pattern": "attn.hook_pattern", "z": "attn.hook_z", "mlp.pre": "mlp.hook_pre", "mlp.post": "mlp.hook_post",
    "mlp.out": "hook_mlp_out",
}  # fmt: skip


def hooked(setting: Setting, **flags: bool) -> Any:
    """Return GPT-2 as a HookedTransformer."""
    module = setting.module("gpt2")
    own = module.config
    config = HookedTransformerConfig(
        n_layers=own.n_layer, n_heads=own.n_head, d_model=own.n_embd, d_head=own.n_embd // own.n_head, d_mlp=own.n_inner or 4 * own.n_embd,
        n_ctx=own.n_positions, d_vocab=own.vocab_size, act_fn="gelu_new", normalization_type="LN", eps=own.layer_norm_epsilon,
        device=setting.device, **flags,
    )  # fmt: skip
    model = HookedTransformer(config)
    weights = {name: value.detach().contiguous() for name, value in convert_gpt2_weights(module, config).items()}
    model.load_and_process_state_dict(
        weights, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    return model.eval()


class Patcher:
    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    @cache  # noqa: B019 - lives as long as the process
    def model(self) -> Any:
        return hooked(self.setting)

    @cache  # noqa: B019
    def values(self, length: int) -> Any:
        names = [f"blocks.{n}.{site}" for n in range(self.model().cfg.n_layers) for site in ("hook_resid_pre", "attn.hook_z")]  # fmt: skip
        _, found = self.model().run_with_cache(self.setting.ids("clean", length), names_filter=names)
        return found

    def plain(self, request: Request) -> torch.Tensor:
        return self.setting.metric(self.model()(self.setting.ids("clean", request["length"])))

    def keep(self, request: Request) -> Kept:
        model = self.model()
        names = [f"blocks.{n}.{NAMES[site]}" for n in range(model.cfg.n_layers) for site in request["sites"]]
        _, found = model.run_with_cache(self.setting.ids("clean", request["length"]), names_filter=names)
        return list(found.values()), lambda site, layer: found[f"blocks.{layer}.{NAMES[site]}"]

    def helped(self, request: Request, axes: list[str], setter: Any, name: str) -> torch.Tensor:
        cells = pd.DataFrame([[request["layer"], request[axes[1]]]], columns=["layer", axes[0]])
        kept: list[torch.Tensor] = []

        def metric(logits: torch.Tensor) -> torch.Tensor:
            kept.append(self.setting.metric(logits))
            return kept[-1].mean()

        ids, values = self.setting.ids("corrupted", request["length"]), self.values(request["length"])
        patching.generic_activation_patch(self.model(), ids, values, metric, setter, name, index_df=cells)
        return kept[-1]

    def resid(self, request: Request) -> torch.Tensor:
        return self.helped(request, ["pos", "position"], patching.layer_pos_patch_setter, "resid_pre")

    def z(self, request: Request) -> torch.Tensor:
        return self.helped(request, ["head_index", "head"], patching.layer_head_vector_patch_setter, "z")
