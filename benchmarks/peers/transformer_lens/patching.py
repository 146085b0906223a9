"""What `benchmarks/sweeps.py` asks of TransformerLens 4's Bridge: its own helpers of `transformer_lens.patching`, told which cells."""

from __future__ import annotations

from functools import cache
from typing import Any

import pandas as pd
import torch
from serve import Kept, Request, Setting
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge

NAMES = {
    "resid_pre": "hook_resid_pre", "resid_mid": "hook_resid_mid", "resid_post": "hook_resid_post", "q": "attn.hook_q", "k": "attn.hook_k",
    "v": "attn.hook_v", "pattern": "attn.hook_pattern", "z": "attn.hook_z", "mlp.pre": "mlp.hook_pre", "mlp.post": "mlp.hook_post",
    "mlp.out": "hook_mlp_out",
}  # fmt: skip


class Patcher:
    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    @cache  # noqa: B019 - lives as long as the process
    def model(self, family: str) -> Any:
        from transformers import AutoTokenizer  # noqa: PLC0415

        folder = self.setting.model(family)
        module = self.setting.module(family)
        module.config.architectures = [type(module).__name__]
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return TransformerBridge.boot_transformers(
            str(folder), hf_model=module, tokenizer=tokenizer, device=self.setting.device
        ).eval()

    @cache  # noqa: B019
    def values(self, family: str, kind: str, length: int) -> Any:
        model = self.model(family)
        names = [f"blocks.{n}.{site}" for n in range(model.cfg.n_layers) for site in ("hook_resid_pre", "attn.hook_z")]
        _, found = model.run_with_cache(self.setting.ids(kind, length), names_filter=names)
        return found

    def warm(self, request: Request) -> Any:
        """Do what all patches need; of a direct path, which is many forwards, no more than that."""
        if request["what"] != "path":
            return getattr(self, request["what"])(request)
        for kind in ("clean", "corrupted"):
            self.values(request["family"], kind, request["length"])
        return self.plain(request)

    def plain(self, request: Request) -> torch.Tensor:
        return self.setting.metric(self.model(request["family"])(self.setting.ids("clean", request["length"])))

    def keep(self, request: Request) -> Kept:
        model = self.model("gpt2")
        names = [f"blocks.{n}.{NAMES[site]}" for n in range(model.cfg.n_layers) for site in request["sites"]]
        _, found = model.run_with_cache(self.setting.ids("clean", request["length"]), names_filter=names)
        return list(found.values()), lambda site, layer: found[f"blocks.{layer}.{NAMES[site]}"]

    def helped(self, request: Request, axes: list[str], setter: Any, name: str) -> torch.Tensor:
        """Return the metric of one cell, by the function that the helpers are made of."""
        cells = pd.DataFrame([[request["layer"], request[axes[1]]]], columns=["layer", axes[0]])
        kept: list[torch.Tensor] = []

        def metric(logits: torch.Tensor) -> torch.Tensor:
            kept.append(self.setting.metric(logits))
            return kept[-1].mean()

        model, length = self.model("gpt2"), request["length"]
        patching.generic_activation_patch(
            model, self.setting.ids("corrupted", length), self.values("gpt2", "clean", length), metric, setter, name, index_df=cells
        )  # fmt: skip
        return kept[-1]

    def resid(self, request: Request) -> torch.Tensor:
        return self.helped(request, ["pos", "position"], patching.layer_pos_patch_setter, "resid_pre")

    def z(self, request: Request) -> torch.Tensor:
        return self.helped(request, ["head_index", "head"], patching.layer_head_vector_patch_setter, "z")

    def path(self, request: Request) -> torch.Tensor:
        """The helper of direct paths, from a head of the last layer but one to all heads of the last: (receiver, row)."""
        model, length, family = self.model(request["family"]), request["length"], request["family"]
        kept: list[torch.Tensor] = []

        def metric(logits: torch.Tensor) -> torch.Tensor:
            kept.append(self.setting.metric(logits))
            return kept[-1].mean()

        layer, head = request["sender"]
        patching.get_act_patch_direct_path(
            model, self.setting.ids("corrupted", length), self.values(family, "clean", length), self.values(family, "corrupted", length),
            metric, layer, head, request["part"], verbose=False,
        )  # fmt: skip
        assert layer + 1 == request["receivers"][0] == model.cfg.n_layers - 1
        return torch.stack(kept)[request["receivers"][1]]
