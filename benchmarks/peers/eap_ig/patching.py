"""EAP-IG's way of patching edges exactly, written anew: its repository is on no registry and asks for a GPU. On TransformerLens 2.16.

All that is written to the stream is held as differences between the two inputs (row, position, source, width), and every reader of the stream
has a hook that adds what its patched edges bring. One forward for each edge, with all hooks on, as its `evaluate_graph` does.
"""

from __future__ import annotations

import importlib.util
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from serve import Request, Setting

_SPEC = importlib.util.spec_from_file_location("beside", Path(__file__).parents[1] / "auto_circuit" / "patching.py")
assert _SPEC is not None
assert _SPEC.loader is not None
_BESIDE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_BESIDE)


class Patcher:
    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    @cache  # noqa: B019 - lives as long as the process
    def model(self) -> Any:
        return _BESIDE.hooked(self.setting)

    def writers(self) -> list[tuple[str, int]]:
        """Return the hooks that show what is written, each with the number of its first source."""
        config = self.model().cfg
        made, many = [("hook_embed", 0)], 1
        for layer in range(config.n_layers):
            made += [
                (f"blocks.{layer}.attn.hook_result", many),
                (f"blocks.{layer}.hook_mlp_out", many + config.n_heads),
            ]
            many += config.n_heads + 1
        return made

    @cache  # noqa: B019
    def written(self, kind: str, length: int) -> torch.Tensor:
        """Return all that is written on one input, (row, position, source, width)."""
        model, ids = self.model(), self.setting.ids(kind, length)
        config = model.cfg
        found = torch.zeros(*ids.shape, 1 + config.n_layers * (config.n_heads + 1), config.d_model, device=ids.device)

        def put(value: torch.Tensor, hook: Any, first: int) -> None:
            parts = value if value.dim() == 4 else value.unsqueeze(2)
            found[:, :, first : first + parts.shape[2]] = parts

        model.run_with_hooks(ids, fwd_hooks=[(name, partial(put, first=first)) for name, first in self.writers()])
        return found

    def readers(self) -> list[tuple[str, int]]:
        """Return the hooks at which the stream is read, each with the number of sources before it."""
        config = self.model().cfg
        made: list[tuple[str, int]] = []
        for layer in range(config.n_layers):
            before = 1 + layer * (config.n_heads + 1)
            made += [(f"blocks.{layer}.hook_{part}_input", before) for part in "qkv"]
            made.append((f"blocks.{layer}.hook_mlp_in", before + config.n_heads))
        made.append((f"blocks.{config.n_layers - 1}.hook_resid_post", 1 + config.n_layers * (config.n_heads + 1)))
        return made

    def edge(self, request: Request) -> torch.Tensor:
        model, length = self.model(), request["length"]
        heads = model.cfg.n_heads
        differences = self.differences(length)
        chosen_source, (chosen, head) = self.source(request["edge"][0]), self.reader(request["edge"][1])

        def change(value: torch.Tensor, hook: Any, before: int) -> torch.Tensor:
            each = torch.zeros((before, heads) if value.dim() == 4 else (before,), device=value.device)
            if hook.name == chosen:
                each[(chosen_source, head) if value.dim() == 4 else chosen_source] = 1.0
            brought = torch.einsum(
                "bpsd,sh->bphd" if value.dim() == 4 else "bpsd,s->bpd", differences[:, :, :before], each
            )
            return value + brought

        hooks = [(name, partial(change, before=before)) for name, before in self.readers()]
        return self.setting.metric(model.run_with_hooks(self.setting.ids("clean", length), fwd_hooks=hooks))

    @cache  # noqa: B019
    def differences(self, length: int) -> torch.Tensor:
        return self.written("corrupted", length) - self.written("clean", length)

    def source(self, text: str) -> int:
        if text == "embed":
            return 0
        layer, _, rest = text.partition(".")
        heads = self.model().cfg.n_heads
        return 1 + int(layer[1:]) * (heads + 1) + (heads if rest == "mlp.out" else int(rest[1:].split(".")[0]))

    def reader(self, text: str) -> tuple[str, int]:
        layer, head, *part = text.split(".")
        if head == "mlp":
            return f"blocks.{layer[1:]}.hook_mlp_in", 0
        if not part:
            return f"blocks.{layer[1:]}.hook_resid_post", 0
        return f"blocks.{layer[1:]}.hook_{part[0][0]}_input", int(head[1:])
