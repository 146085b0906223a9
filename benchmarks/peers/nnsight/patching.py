"""What `benchmarks/sweeps.py` asks of nnsight: one trace for each patch, at module paths."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from nnsight import NNsight
from serve import Kept, Request, Setting


class Patcher:
    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    @cache  # noqa: B019 - lives as long as the process
    def model(self) -> Any:
        return NNsight(self.setting.module("gpt2"))

    @cache  # noqa: B019
    def values(self, length: int) -> dict[str, torch.Tensor]:
        model, found = self.model(), {}
        blocks = model.transformer.h
        with model.trace(self.setting.ids("clean", length)):
            for layer in range(len(blocks)):
                found[f"resid{layer}"] = blocks[layer].input.save()
                found[f"z{layer}"] = blocks[layer].attn.c_proj.input.save()
        return found

    def plain(self, request: Request) -> torch.Tensor:
        model = self.model()
        with model.trace(self.setting.ids("clean", request["length"])):
            logits = model.lm_head.output.save()
        return self.setting.metric(logits)

    def keep(self, request: Request) -> Kept:
        model, found = self.model(), {}
        blocks = model.transformer.h
        with model.trace(self.setting.ids("clean", request["length"])):
            for n in range(len(blocks)):  # in the order in which they run
                block = blocks[n]
                found[f"resid_pre {n}"] = block.input.save()
                found[f"qkv {n}"] = block.attn.c_attn.output.save()
                found[f"z {n}"] = block.attn.c_proj.input.save()
                found[f"pattern {n}"] = block.attn.output[1].save()
                found[f"resid_mid {n}"] = block.ln_2.input.save()
                found[f"mlp.pre {n}"] = block.mlp.c_fc.output.save()
                found[f"mlp.post {n}"] = block.mlp.c_proj.input.save()
                found[f"mlp.out {n}"] = block.mlp.output.save()
                found[f"resid_post {n}"] = block.output.save()
        heads = self.model()._module.config.n_head

        def read(site: str, layer: int) -> torch.Tensor:
            if site in "qkv":
                return found[f"qkv {layer}"].chunk(3, -1)["qkv".index(site)].unflatten(-1, (heads, -1))
            value = found[f"{site} {layer}"]
            return value.unflatten(-1, (heads, -1)) if site == "z" else value

        return list(found.values()), read

    def resid(self, request: Request) -> torch.Tensor:
        model, layer, position = self.model(), request["layer"], request["position"]
        put = self.values(request["length"])[f"resid{layer}"][:, position]
        with model.trace(self.setting.ids("corrupted", request["length"])):
            model.transformer.h[layer].input[:, position] = put
            logits = model.lm_head.output.save()
        return self.setting.metric(logits)

    def z(self, request: Request) -> torch.Tensor:
        model, layer = self.model(), request["layer"]
        value = self.values(request["length"])[f"z{layer}"]
        width = value.shape[-1] // self.model()._module.config.n_head
        at = slice(request["head"] * width, (request["head"] + 1) * width)
        with model.trace(self.setting.ids("corrupted", request["length"])):
            model.transformer.h[layer].attn.c_proj.input[:, :, at] = value[:, :, at]
            logits = model.lm_head.output.save()
        return self.setting.metric(logits)
