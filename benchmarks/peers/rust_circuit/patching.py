"""What `benchmarks/sweeps.py` asks of rust_circuit: the circuit of `gpt2.py`, a node replaced in it, and evaluated anew.

A patched value is `value * rest + held`: `rest` is 0 where the patch is and 1 elsewhere, `held` the other input's value there.
"""

from __future__ import annotations

from functools import cache

import rust_circuit as rc
import torch
from gpt2 import gpt2
from safetensors.torch import load_file
from serve import Request, Setting


class Patcher:
    def __init__(self, setting: Setting) -> None:
        torch.set_default_device(setting.device)  # of the constants in gpt2.py
        self.setting = setting
        self.sizes = setting.tensors["sizes"].tolist()  # layers, heads

    @cache  # noqa: B019 - lives as long as the process
    def circuit(self, kind: str, length: int) -> rc.Circuit:
        weights = load_file(self.setting.model("gpt2") / "model.safetensors", device=self.setting.device)
        named = {name if name.startswith("transformer.") else f"transformer.{name}": one for name, one in weights.items()}  # fmt: skip
        return gpt2(named, self.setting.ids(kind, length), *self.sizes)

    @cache  # noqa: B019
    def value(self, name: str, length: int) -> torch.Tensor:
        return self.circuit("clean", length).get_unique(name).evaluate()

    def plain(self, request: Request) -> torch.Tensor:
        return self.setting.metric(self.circuit("clean", request["length"]).evaluate())

    def patched(self, name: str, at: tuple[object, ...], length: int) -> torch.Tensor:
        value = self.value(name, length)
        rest, held = torch.ones_like(value), torch.zeros_like(value)
        rest[at], held[at] = 0.0, value[at]

        def put(node: rc.Circuit) -> rc.Circuit:
            return rc.Add(rc.Einsum.from_einsum_string("bqx,bqx->bqx" if value.dim() == 3 else "bqhx,bqhx->bqhx", node, rc.Array(rest)), rc.Array(held))  # fmt: skip

        return self.setting.metric(self.circuit("corrupted", length).update(name, put).evaluate())

    def resid(self, request: Request) -> torch.Tensor:
        name = f"L{request['layer'] - 1}.post_mlp" if request["layer"] else "stream"
        return self.patched(name, (slice(None), request["position"]), request["length"])

    def z(self, request: Request) -> torch.Tensor:
        return self.patched(f"L{request['layer']}.z", (..., request["head"], slice(None)), request["length"])
