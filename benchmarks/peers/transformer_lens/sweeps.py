"""Activation and path patching by TransformerLens's Bridge, one cell at a time: `python sweeps.py FOLDER`, a request a line.

The folder holds a saved GPT-2, and `inputs.pt` with clean and corrupted ids, answers and wrong answers. A request is JSON,
{"what": "resid", "layer": 3, "position": 5}, {"what": "z", "layer": 3, "head": 7} or {"what": "plain"}; the answer is the metric of each row and
the seconds it took (wall, and the processor's).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2LMHeadModel


def bridge_of(folder: Path) -> Any:
    module = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").eval()
    module.config.architectures = ["GPT2LMHeadModel"]
    from transformers import AutoTokenizer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return TransformerBridge.boot_transformers(str(folder), hf_model=module, tokenizer=tokenizer, device="cpu").eval()


class Patcher:
    def __init__(self, folder: Path) -> None:
        self.bridge = bridge_of(folder)
        self.given = torch.load(folder / "inputs.pt", weights_only=True)
        names = [f"blocks.{layer}.{site}" for layer in range(12) for site in ("hook_resid_pre", "attn.hook_z")]
        _, self.cache = self.bridge.run_with_cache(self.given["clean"], names_filter=names)

    def metric(self, logits: torch.Tensor) -> torch.Tensor:
        last = logits[:, -1]
        rows = torch.arange(len(last))
        return last[rows, self.given["answers"]] - last[rows, self.given["wrong"]]

    def hook(self, request: dict[str, Any]) -> list[tuple[str, Callable[..., torch.Tensor]]]:
        layer = request.get("layer", 0)
        if request["what"] == "resid":
            name, at = f"blocks.{layer}.hook_resid_pre", (slice(None), request["position"])
        elif request["what"] == "z":
            name, at = f"blocks.{layer}.attn.hook_z", (slice(None), slice(None), request["head"])
        else:
            return []
        value = self.cache[name]

        def patch(activation: torch.Tensor, hook: Any) -> torch.Tensor:
            activation[at] = value[at]
            return activation

        return [(name, patch)]

    @torch.no_grad()
    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        wall, processor = time.perf_counter(), time.process_time()
        found = self.metric(self.bridge.run_with_hooks(self.given["corrupted"], fwd_hooks=self.hook(request)))
        return {
            "wall": time.perf_counter() - wall,
            "processor": time.process_time() - processor,
            "metric": found.tolist(),
        }


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    patcher = Patcher(Path(sys.argv[1]))
    for line in sys.stdin:
        print("ANSWER " + json.dumps(patcher.answer(json.loads(line))), flush=True)
