"""Runs one tool for `benchmarks/sweeps.py`, in the tool's own environment: `python -P serve.py NAME FOLDER THREADS DEVICE`.

A request is a line of JSON: `{"what": "resid", "family": "gpt2", "length": 64, "layer": 3, "position": 5}`; an answer is a line that begins with
ANSWER: the seconds it took (wall, and the processor's) and the metric of each row, or `lacks` where the tool has no such way, or `refused`
with the first line of its error. `NAME/patching.py` says how the tool does each: a class `Patcher` whose methods are named by `what`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent
OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "WANDB_MODE": "disabled", "PIP_NO_INDEX": "1", "UV_OFFLINE": "1"}  # fmt: skip
SAMPLES = 64

Request = Mapping[str, Any]
Kept = tuple[Iterable[torch.Tensor], Callable[[str, int], torch.Tensor]]
"""All tensors that a run kept, and a function from a site and a layer to its value: (batch, position, ...), patterns (batch, head, query, key)."""


@dataclass(frozen=True)
class Setting:
    """The folder that all tools are given: saved models, clean and corrupted ids of each length, answers."""

    folder: Path
    device: str

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        return {name: value.to(self.device) for name, value in load_file(self.folder / "inputs.safetensors").items()}

    def model(self, family: str) -> Path:
        return self.folder / family

    def ids(self, kind: str, length: int) -> torch.Tensor:
        """Return clean or corrupted ids, (row, position)."""
        return self.tensors[f"{kind}.{length}"]

    def module(self, family: str = "gpt2") -> Any:
        """Return the model as transformers loads it, with eager attention."""
        import transformers  # noqa: PLC0415

        kind = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}[family]
        made = getattr(transformers, kind).from_pretrained(self.model(family), attn_implementation="eager")
        return made.eval().to(self.device)

    def metric(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logit difference of each row from logits (row, position, vocabulary), or those of the last position alone."""
        last = logits if logits.dim() == 2 else logits[:, -1]
        rows = torch.arange(len(last), device=last.device)
        return last[rows, self.tensors["answers"]] - last[rows, self.tensors["wrong"]]


def sampled(value: torch.Tensor) -> list[float]:
    """Return some numbers of a tensor, the same places for all tools."""
    flat = value.detach().float().flatten()
    places = torch.linspace(0, len(flat) - 1, min(SAMPLES, len(flat))).long()
    return flat[places.to(flat.device)].tolist()


def held(tensors: Iterable[torch.Tensor]) -> int:
    """Return the bytes of tensors, memory that several share once."""
    sizes = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    return sum(sizes.values())


def measured(work: Callable[[Request], Any], request: Request, device: str) -> tuple[Any, dict[str, float]]:
    """Return what a way gives, and the seconds it took."""
    wall, processor = time.perf_counter(), time.process_time()
    with torch.no_grad():
        made = work(request)
    if device != "cpu":
        torch.cuda.synchronize()
    return made, {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}


def answer(patcher: Any, request: Request, device: str) -> dict[str, Any]:
    """Return what goes back for a request."""
    if request["what"] == "memory":
        return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    way = getattr(patcher, request["what"], None)
    if way is None:
        return {"lacks": True}
    if request.get("warm"):
        way = getattr(patcher, "warm", way)
    try:
        made, seconds = measured(way, request, device)
    except Exception as error:  # noqa: BLE001 - whatever a tool raises is the finding
        traceback.print_exc()
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
        return {"refused": f"{type(error).__name__}: {lines[0][:160]}"}
    if request["what"] == "keep":
        tensors, read = made
        wanted = {f"{site} {layer}": sampled(read(site, layer)) for site in request["sites"] for layer in request["layers"]}  # fmt: skip
        return {**seconds, "samples": wanted, "bytes": held(tensors)}
    return {**seconds, "metric": made.tolist()}


def loaded(name: str) -> Any:
    """Return a tool's `patching.py` as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_patching", HERE / name / "patching.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.append(str(HERE / name))  # what lies beside it, such as rust_circuit's gpt2.py
    spec.loader.exec_module(module)
    return module


def main() -> None:
    name, folder, threads, device = sys.argv[1:]
    os.environ |= OFFLINE
    torch.set_num_threads(int(threads))
    sys.modules["serve"] = sys.modules[__name__]
    answers, sys.stdout = sys.stdout, sys.stderr  # what a tool prints is no answer
    patcher = loaded(name).Patcher(Setting(Path(folder), device))
    for line in sys.stdin:
        request = json.loads(line)
        torch.set_num_threads(int(request.get("threads", threads)))
        answers.write("ANSWER " + json.dumps(answer(patcher, request, device)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
