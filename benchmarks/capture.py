"""Capture, measured: `make bench`, or `python benchmarks/capture.py`.

GPT-2 small's shape with random weights, and a 32-layer, 4096-wide llama on the meta device. Each is captured in a process of
its own, whose peak of memory is what the capture took (imports and weights left out). Seconds of the clock, and seconds of
the processor beside them: on a machine that does other work, only those can be compared.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import scrubjay as sj

TURNS = 3
MODELS = ("gpt2", "llama")


def build(kind: str) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    torch.manual_seed(0)
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config()).eval()
    sizes = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
    with torch.device("meta"):
        return LlamaForCausalLM(LlamaConfig(vocab_size=32000, **sizes)).eval()


def taken(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of the clock and of the processor that a piece of work takes."""
    begun, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun, time.process_time() - used


def best(work: Callable[[], object]) -> str:
    runs = [taken(work) for _ in range(TURNS)]
    clock, processor = min(run[0] for run in runs), min(run[1] for run in runs)
    return f"{clock:8.2f} s   ({processor:.2f} s of the processor)"


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def one(kind: str) -> None:
    """Measure one model: run in a process of its own."""
    module = build(kind)
    before = peak_bytes()
    first, used = taken(lambda: sj.load(module, cache=None))
    grown = peak_bytes() - before
    name = "GPT-2 small" if kind == "gpt2" else "llama, 32 layers, meta"
    print(f"first capture, {name:<23} {first:8.2f} s   ({used:.2f} s of the processor)")
    print(f"capture, {name:<29} {best(lambda: sj.load(module, cache=None))}")
    with tempfile.TemporaryDirectory() as folder:
        sj.load(module, cache=Path(folder))
        print(f"second load, {name:<25} {best(lambda: sj.load(module, cache=Path(folder)))}")
        written = sum(path.stat().st_size for path in Path(folder).iterdir())
    print(f"peak memory above the model's          {grown / 1e6:8.0f} MB  ({written / 1e3:.0f} kB in the cache)")


def main() -> None:
    if len(sys.argv) > 1:
        one(sys.argv[1])
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; the best of {TURNS}", flush=True)
    for kind in MODELS:
        subprocess.run([sys.executable, __file__, kind], check=True)


if __name__ == "__main__":
    main()
