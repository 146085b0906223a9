"""The most memory that experiments take, for the table of `sweeps.py`: `python memory.py full|small DEVICE THREADS`; a line of JSON.

On a processor the kernel's own high-water mark of the process is set back before each experiment, and read after it; on a GPU torch's is.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import shapes
import torch

import scrubjay as sj

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def kilobytes(name: str) -> int:
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(name)) * 1024


def taken(work: Callable[[], Any], device: str) -> tuple[Any, int]:
    """Return what a piece of work gives, and by how much memory rose while it ran."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        made = work()
        return made, torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)
    RESET.write_text("5")
    before = kilobytes("VmRSS:")
    made = work()
    return made, kilobytes("VmHWM:") - before


def main() -> None:
    size, device, threads = sys.argv[1:]
    sizes = shapes.SMALL if size == "small" else shapes.Sizes()
    torch.set_num_threads(int(threads))
    model = sj.load(shapes.gpt2(sizes, device))
    task = shapes.pairs(sizes, sizes.length)
    edge_task = shapes.pairs(sizes, sizes.edge_length, sizes.shared)
    last, unit = sizes.layers - 1, 1 if size == "small" else 100
    places = [0, sizes.length // 2, sizes.length - 1]
    work: dict[str, tuple[Any, Any, Any]] = {
        "sweep of resid_pre, 3 positions": (sj.sweep, (task, "L*.resid_pre"), {"positions": places}),
        "z of the heads of layer 0": (sj.sweep, (task, "L0.H*.z"), {}),
        "heads to a last head's queries": (sj.path_patch, (task, "L*.H*.out", f"L{last}.H0.q_in", "denoise", "freeze"), {}),
        "heads to the final stream, MLPs anew": (sj.path_patch, (task, "L*.H*.out", f"L{last}.resid_post", "noise", "recompute"), {}),
        "all edges into a last head's values": (sj.path_patch, (edge_task, ["L0.resid_pre", "L*.H*.out", "L*.mlp.out"], f"L{last}.H1.v_in", "noise", "freeze"), {}),
    }  # fmt: skip
    sj.sweep(model, task, "L0.H0.z")  # what a first run makes is there from now on
    found: list[dict[str, Any]] = []
    for what, (call, given, options) in work.items():
        for budget in (unit * 10_000_000, unit * 2_000_000):
            made, rose = taken(lambda call=call, given=given, options=options, budget=budget: call(model, *given, budget=budget, **options), device)  # fmt: skip
            found.append({"what": what, "budget": budget, "counted": made.counts["peak_bytes"], "measured": rose})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
