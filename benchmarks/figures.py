"""The figures of the closing note, measured: `make bench`, or `python benchmarks/figures.py`.

Every figure is a median; two things that are compared run by turns in one process. GPT-2's shape with random weights: no
network is needed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import scrubjay as sj

TURNS = 15
BATCH, LENGTH = 8, 64


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def by_turns(*works: Callable[[], object]) -> list[float]:
    """Return the median time of each, run one after another, again and again."""
    for work in works:
        work()
    taken = [[seconds(work) for work in works] for _ in range(TURNS)]
    return [statistics.median(column) for column in zip(*taken, strict=True)]


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config()).eval()


def imports() -> None:
    command = [sys.executable, "-c", "import scrubjay"]
    bare = [sys.executable, "-c", "pass"]
    loaded, empty = by_turns(lambda: subprocess.run(command, check=True), lambda: subprocess.run(bare, check=True))
    print(
        f"import scrubjay                        {loaded - empty:8.3f} s   (over an empty interpreter's {empty:.3f} s)"
    )


def capture(module: GPT2LMHeadModel) -> sj.Model:
    with tempfile.TemporaryDirectory() as folder:
        fresh = [seconds(lambda: sj.load(module, cache=None)) for _ in range(3)]
        sj.load(module, cache=Path(folder))
        cached = [seconds(lambda: sj.load(module, cache=Path(folder))) for _ in range(5)]
    print(f"capture, GPT-2 small                   {statistics.median(fresh):8.2f} s   (export, lift, recognise)")
    print(f"cached load, GPT-2 small               {statistics.median(cached):8.2f} s")
    return sj.load(module, cache=None)


@torch.no_grad()
def runs(module: GPT2LMHeadModel, model: sj.Model) -> None:
    ids = torch.randint(0, 50257, (BATCH, LENGTH))
    mask = torch.ones_like(ids)
    given = {"input_ids": ids, "attention_mask": mask}
    everything = ["L*.resid_post", "L*.attn.pattern", "L*.attn.z"]
    own, ours, kept = by_turns(
        lambda: module(**given, use_cache=False).logits,
        lambda: sj.run(model, given).logits,
        lambda: sj.run(model, given, keep=everything).logits,
    )
    print(f"module's own forward, {BATCH} x {LENGTH}           {own:8.3f} s")
    print(f"sj.run, nothing kept                   {ours:8.3f} s   {ours / own:.2f} of the module's time")
    print(f"sj.run, stream, patterns and z kept    {kept:8.3f} s   {kept / own:.2f} of the module's time")


def scrubs() -> None:
    model = sj.load("zoo/brackets")
    data = sj.task("brackets", n=20_000, seed=0)
    made = sj.Hypothesis("direct paths of three heads")
    output = made.node("output", "logits")
    for head, feature in (("L1.H0", "count_open"), ("L2.H0", "count_open"), ("L2.H1", "horizon")):
        output.reads(head, f"{head}.out@0", feature)
    (taken,) = by_turns(lambda: sj.scrub(model, made, data, samples=4000, seeds=1))
    print(f"scrub, 3 claims, 4000 samples          {taken:8.2f} s   (zoo/brackets)")


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians of {TURNS}")
    imports()
    module = gpt2()
    runs(module, capture(module))
    scrubs()


if __name__ == "__main__":
    main()
