"""What `benchmarks/sweeps.py` asks of pyvene: an interchange intervention, which runs the source inputs again for each patch."""

from __future__ import annotations

from functools import cache
from typing import Any

import pyvene
import torch
from serve import Request, Setting


class Patcher:
    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    @cache  # noqa: B019 - lives as long as the process
    def module(self) -> Any:
        return self.setting.module("gpt2")

    def plain(self, request: Request) -> torch.Tensor:
        """The model with nothing changed, as pyvene runs it."""
        made, _ = pyvene.IntervenableModel([], model=self.module())(base=self.given("clean", request))
        return self.setting.metric(made.logits)

    def given(self, kind: str, request: Request) -> dict[str, torch.Tensor]:
        return {"input_ids": self.setting.ids(kind, request["length"])}

    def patched(self, request: Request, component: str, unit: str, units: Any, many: int) -> torch.Tensor:
        config = pyvene.RepresentationConfig(request["layer"], component, unit, max_number_of_units=many)
        model = pyvene.IntervenableModel(
            pyvene.IntervenableConfig([config], intervention_types=pyvene.VanillaIntervention), model=self.module()
        )
        _, made = model(self.given("corrupted", request), [self.given("clean", request)], {"sources->base": units})
        return self.setting.metric(made.logits)

    def resid(self, request: Request) -> torch.Tensor:
        return self.patched(request, "block_input", "pos", request["position"], 1)

    def z(self, request: Request) -> torch.Tensor:
        ids = self.setting.ids("clean", request["length"])
        rows, positions = len(ids), list(range(ids.shape[1]))
        where = [[[[request["head"]]] * rows, [positions] * rows]]
        return self.patched(request, "head_attention_value_output", "h.pos", (where, where), 1)
