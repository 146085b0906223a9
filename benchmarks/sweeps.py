"""Sweeps and path patches at the shape of GPT-2 small, beside one forward per patch: `python benchmarks/sweeps.py`.

Random weights, batch 8, 64 tokens, float32. Peers: hooks on the Hugging Face module in this process, and TransformerLens's Bridge in an
environment of its own (`make .peers/transformer_lens/.installed`; left out with `--without-peers`). Cells are measured by turns and their
times extrapolated to all cells; Scrubjay's sweeps are run whole. The same cells must have the same metric everywhere before any
time is printed. `ideal` is the multiply-adds that are needed (counted here, from the shapes alone) over torch.mm's rate in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import scrubjay as sj

HERE = Path(__file__).parent
LAYERS, HEADS, WIDTH, HIDDEN, VOCABULARY = 12, 12, 768, 3072, 50257
BATCH, LENGTH, EDGE_LENGTH = 8, 64, 17
CELLS = [(layer, position) for layer in (0, 4, 8, 11) for position in (4, 32, 60)]
HEAD_CELLS = [(layer, head) for layer in (0, 4, 8, 11) for head in (1, 7)]
ALIKE = 1e-4


def pairs(length: int, shared: int = 0) -> sj.Task:
    draw = np.random.default_rng(0)
    clean, corrupted = (draw.integers(0, VOCABULARY, (BATCH, length)) for _ in range(2))
    corrupted[:, :shared] = clean[:, :shared]
    answers, wrong = draw.integers(0, 25_000, BATCH), draw.integers(25_001, VOCABULARY, BATCH)
    return sj.Task("random pairs", {"input_ids": clean}, {"input_ids": corrupted}, answers, wrong)


class Hooks:
    """One forward of the module for each patch."""

    def __init__(self, module: GPT2LMHeadModel, task: sj.Task) -> None:
        self.module, self.task = module, task
        self.ids = torch.tensor(task.counterfactual["input_ids"])
        self.values: dict[str, torch.Tensor] = {}
        handles = []
        for layer, block in enumerate(module.transformer.h):
            handles.append(block.register_forward_pre_hook(self.keeper(f"resid{layer}")))
            handles.append(block.attn.c_proj.register_forward_pre_hook(self.keeper(f"z{layer}")))
        with torch.no_grad():
            module(torch.tensor(task.clean["input_ids"]))
        for handle in handles:
            handle.remove()

    def keeper(self, name: str) -> Callable[[Any, Any], None]:
        def keep(_module: Any, args: Any) -> None:
            self.values[name] = args[0].detach().clone()

        return keep

    @torch.no_grad()
    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        wall, processor = time.perf_counter(), time.process_time()
        with self.patched(request):
            last = self.module(self.ids).logits[:, -1]
        rows = torch.arange(BATCH)
        found = last[rows, torch.tensor(self.task.answers)] - last[rows, torch.tensor(self.task.wrong)]
        return {
            "wall": time.perf_counter() - wall,
            "processor": time.process_time() - processor,
            "metric": found.tolist(),
        }

    @contextmanager
    def patched(self, request: dict[str, Any]) -> Iterator[None]:
        if request["what"] == "plain":
            yield
            return
        layer = request["layer"]
        block = self.module.transformer.h[layer]
        if request["what"] == "resid":
            where, name, at = block, f"resid{layer}", (slice(None), request["position"])
        else:
            width, head = WIDTH // HEADS, request["head"]
            where, name, at = (
                block.attn.c_proj,
                f"z{layer}",
                (slice(None), slice(None), slice(head * width, head * width + width)),
            )

        def patch(_module: Any, args: Any) -> Any:
            value = args[0].clone()
            value[at] = self.values[name][at]
            return (value, *args[1:])

        handle = where.register_forward_pre_hook(patch)
        try:
            yield
        finally:
            handle.remove()


class Bridge:
    """The Bridge in its own process, answering a request a line."""

    def __init__(self, environment: Path, folder: Path, threads: int) -> None:
        script = HERE / "peers" / "transformer_lens" / "sweeps.py"
        quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [environment / "bin" / "python", "-P", script, folder, str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **quiet},
        )  # fmt: skip

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("ANSWER "):
                return json.loads(line.removeprefix("ANSWER "))
        raise SystemExit("TransformerLens stopped without an answer")


def saved(module: GPT2LMHeadModel, task: sj.Task, folder: Path) -> None:
    from tokenizers import Tokenizer, models  # noqa: PLC0415

    module.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")),
        bos_token="a",
        eos_token="a",
        pad_token="a",
    ).save_pretrained(folder)
    given = {
        "clean": task.clean["input_ids"],
        "corrupted": task.counterfactual["input_ids"],
        "answers": task.answers,
        "wrong": task.wrong,
    }
    torch.save({name: torch.tensor(np.array(value)) for name, value in given.items()}, folder / "inputs.pt")


def rate() -> float:
    """Return torch.mm's multiply-adds a second at the shapes of an MLP, the median of several."""
    a, b = torch.randn(BATCH * LENGTH, WIDTH), torch.randn(WIDTH, HIDDEN)
    torch.mm(a, b)
    taken = []
    for _ in range(9):
        begun = time.perf_counter()
        torch.mm(a, b)
        taken.append(time.perf_counter() - begun)
    return BATCH * LENGTH * WIDTH * HIDDEN / statistics.median(taken)


def layer_work(rows: int, keys: float, last: bool) -> float:
    """Return the multiply-adds of a layer for so many positions of a row; in the last layer one query is read."""
    read = 1 if last else rows
    linear = rows * 2 * WIDTH * WIDTH + read * (2 * WIDTH * WIDTH + 2 * WIDTH * HIDDEN)
    return BATCH * (linear + 2 * read * keys * WIDTH)


def resid_ideal() -> float:
    """Return the multiply-adds of the sweep of resid_pre over layers and positions."""
    total = 0.0
    for layer in range(LAYERS):
        for position in range(LENGTH):
            rows = LENGTH - position
            total += (
                sum(layer_work(rows, LENGTH, later == LAYERS - 1) for later in range(layer, LAYERS)) + BATCH * 2 * WIDTH
            )
    return total


def head_ideal() -> float:
    """Return the multiply-adds of patching every head's z at all positions: its projection, the MLP, and the later layers."""
    total = 0.0
    for layer in range(LAYERS):
        read = 1 if layer == LAYERS - 1 else LENGTH
        own = BATCH * read * (WIDTH * WIDTH / HEADS + 2 * WIDTH * HIDDEN)
        total += HEADS * (
            own
            + sum(layer_work(LENGTH, LENGTH, later == LAYERS - 1) for later in range(layer + 1, LAYERS))
            + BATCH * 2 * WIDTH
        )
    return total


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    made = work()
    return made, time.perf_counter() - wall, time.process_time() - processor


def compared(
    ours: np.ndarray, requests: list[dict[str, Any]], pick: Callable[[dict[str, Any]], Any], peers: dict[str, Any]
) -> dict[str, dict[str, float]]:
    """Ask every peer for the same cells by turns; stop where a metric differs; return the median times."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
    for request in requests:
        for name, ask in peers.items():
            found = ask(request)
            far = float(np.abs(np.array(found["metric"]) - ours[pick(request)]).max())
            if not far < ALIKE:
                raise SystemExit(f"{name} and Scrubjay differ by {far:.1e} at {request}: no time is worth printing")
            times[name].append((found["wall"], found["processor"]))
    return {
        name: {"wall": statistics.median(t[0] for t in each), "processor": statistics.median(t[1] for t in each)}
        for name, each in times.items()
    }


def row(what: str, ours: float, cells: int, peers: dict[str, dict[str, float]], ideal: float | None = None) -> str:
    beside = "  ".join(
        f"{name} {each['wall'] * cells:7.0f} s = {each['wall'] * cells / ours:4.1f}x" for name, each in peers.items()
    )
    reach = f"  {ideal / ours:4.0%} of the ideal {ideal:.0f} s" if ideal else ""
    return f"{what:44} {ours:7.1f} s  {beside}{reach}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, default=HERE.parent / ".peers" / "transformer_lens")
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--edges", action="store_true", help="also every edge, 17 tokens, one thread: about half an hour"
    )
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    module = GPT2LMHeadModel(GPT2Config()).eval()
    model, task = sj.load(module), pairs(LENGTH)
    peers: dict[str, Any] = {"hooks": Hooks(module, task)}
    with tempfile.TemporaryDirectory() as temporary:
        if not given.without_peers:
            saved(module, task, Path(temporary))
            peers["Bridge"] = Bridge(given.environment, Path(temporary), given.threads)
            peers["Bridge"]({"what": "plain"})
        print(
            f"load of the machine {os.getloadavg()[0]:.1f}, {given.threads} threads; torch.mm {rate() * 2 / 1e9:.0f} GFLOP/s"
        )
        found, wall, _ = timed(lambda: sj.sweep(model, task, "L*.resid_pre", positions="each"))
        asked = [{"what": "resid", "layer": layer, "position": position} for layer, position in CELLS]
        beside = compared(found.values, asked, lambda one: (one["layer"], one["position"]), peers)
        print(row("resid_pre, 12 layers x 64 positions", wall, LAYERS * LENGTH, beside, resid_ideal() / rate()))
        found, wall, _ = timed(lambda: sj.sweep(model, task, "L*.H*.z"))
        asked = [{"what": "z", "layer": layer, "head": head} for layer, head in HEAD_CELLS]
        values = found.values.reshape(LAYERS, HEADS, BATCH)
        beside = compared(values, asked, lambda one: (one["layer"], one["head"]), peers)
        print(row("z of 144 heads, all positions", wall, LAYERS * HEADS, beside, head_ideal() / rate()))
    ids = torch.tensor(task.clean["input_ids"])
    forward = statistics.median(timed(lambda: module(ids))[1] for _ in range(5))
    for mlps in ("recompute", "freeze"):
        _, wall, _ = timed(lambda mlps=mlps: sj.path_patch(model, task, "L*.H*.out", "L11.resid_post", "noise", mlps))
        print(
            f"{'144 heads to the final stream, mlps=' + mlps:44} {wall:7.1f} s  = {wall / forward:.1f} forwards, both plain runs among them"
        )
    one = sj.path_patch(model, task, "L4.H3.out", "L5..11.H*.q_in", "noise", "freeze")
    _, wall, _ = timed(lambda: sj.path_patch(model, task, "L4.H3.out", "L5..11.H*.q_in", "noise", "freeze"))
    print(
        f"{'one head to q of 84 later heads':44} {wall / one.counts['variants'] * 1e3:7.1f} ms each, both plain runs among them; Bridge 909 ms (anchors)"
    )
    if given.edges:
        torch.set_num_threads(1)
        found, wall, processor = timed(lambda: sj.edge_patch(model, pairs(EDGE_LENGTH, 2), "noise"))
        print(
            f"every edge ({len(found.labels['edge'])}), 17 tokens: {processor / 60:.1f} minutes of one thread ({wall / 60:.1f} wall)"
        )
    print(f"load of the machine {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
