"""Budgets are kept, whatever they are the numbers are the same, and running out of memory makes smaller pieces."""

from __future__ import annotations

import weakref
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import scrubjay as sj
import small_models
from pairs import task_of
from scrubjay.engine import memory
from scrubjay.errors import InputError
from scrubjay.interventions.ground import Ground
from scrubjay.interventions.paths import path_patch
from scrubjay.interventions.sweep import sweep

SITES = ["L*.resid_pre", "L1.H*.q_in", "L0.H*.z"]


class Allocated(TorchDispatchMode):
    """Counts the bytes of all tensors that torch makes while it is on, and the most that lived at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak = 0, 0
        self.seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function and look at what it made."""
        made = func(*args, **(kwargs or {}))
        given = {id(one.untyped_storage()) for one in args if isinstance(one, torch.Tensor)}
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, torch.Tensor) and one.device.type == "cpu":
                storage = one.untyped_storage()
                if id(storage) not in given and storage not in self.seen:
                    self.seen.add(storage)
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self._freed, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return made

    def _freed(self, size: int) -> None:
        self.live -= size


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("budget", ["1 MB", "90 KB", "32 KB"])
def test_a_budget_is_kept_and_changes_no_number(kind: str, budget: str) -> None:
    _, model = small_models.captured(kind)
    task = task_of(length=9)
    whole = sweep(model, task, SITES, positions="each")
    with Allocated() as real:
        made = sweep(model, task, SITES, positions="each", budget=budget)
    assert np.abs(made.values - whole.values).max() < 1e-5
    assert np.abs(made.clean - whole.clean).max() < 1e-5
    assert made.counts["peak_bytes"] <= memory.budget_bytes(budget)
    # masks, inputs and labels are small and not counted; nothing else is
    assert real.peak <= memory.budget_bytes(budget) + 3_000
    if budget == "32 KB":
        assert made.counts["batches"] == 3
        assert real.peak > 0.5 * made.counts["peak_bytes"]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_paths_keep_a_budget(kind: str) -> None:
    _, model = small_models.captured(kind)
    task = task_of("left")
    arguments = (model, task, ["L0.H*.out", "embed"], ["L1.H*.q_in", "L1.resid_post"], "noise", "recompute")
    whole = path_patch(*arguments)
    with Allocated() as real:
        made = path_patch(*arguments, budget="40 KB")
    assert np.abs(made.values - whole.values).max() < 1e-5
    assert made.counts["batches"] == 3
    assert made.counts["peak_bytes"] <= 40_000
    assert real.peak <= 40_000 + 3_000


@pytest.mark.parametrize("options", [{"ablation": "mean"}, {"metric": "kl"}, {"metric": "log_probability"}], ids=str)
def test_rows_apart_give_what_rows_together_give(options: dict[str, Any]) -> None:
    _, model = small_models.captured("llama")
    whole = sweep(model, task_of(), "L*.H*.out", direction="noise", **options)
    made = sweep(model, task_of(), "L*.H*.out", direction="noise", budget="48 KB", **options)
    assert made.counts["batches"] > 1
    assert np.abs(made.values - whole.values).max() < 1e-5


def test_a_budget_too_small_says_what_is_needed() -> None:
    _, model = small_models.captured("gpt2")
    task = task_of()
    with pytest.raises(
        InputError, match=r"budget='9 KB' is 9 KB, and one row with one variant .* needs .* \((\d+) bytes\)"
    ) as told:
        sweep(model, task, SITES, budget="9 KB")
    needed = int(str(told.value).split("(")[1].split(" bytes")[0])
    assert sweep(model, task, SITES, budget=needed).counts["peak_bytes"] <= needed
    with pytest.raises(InputError, match="needs"):
        sweep(model, task, SITES, budget=needed - 1)


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        ({"rows_independent": None}, {}, "not known to be independent"),
        ({"rows_independent": False}, {}, "not known to be independent"),
        ({}, {"metric": lambda logits: logits[:, -1, 5]}, "a function of one's own"),
        ({}, {"ablation": lambda value: value.as_tensor() * 0}, "a function of one's own"),
    ],
)
def test_rows_that_may_not_be_computed_apart_are_not(
    change: dict[str, Any], options: dict[str, Any], reason: str
) -> None:
    _, model = small_models.captured("gpt2")
    assert model.verdict is not None
    model = replace(model, verdict=replace(model.verdict, **change))
    with pytest.raises(InputError, match=f"3 rows, which cannot be computed apart .*{reason}.* needs"):
        sweep(model, task_of(), SITES, budget="30 KB", **options)
    sweep(model, task_of(), "L1.mlp.out", budget="1 MB", **options)


def test_running_out_of_memory_halves_stacks_then_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = small_models.captured("gpt2")
    whole = sweep(model, task_of(), SITES, positions="each", stack=8)
    sizes: list[tuple[int, int]] = []
    most: list[int] = []
    real = Ground.measured

    def measured(self: Ground, plan: Any, root: Any, given: Any, start: int) -> Any:
        (mask,) = [one.as_tensor() for one in given.values() if "variant" in one.names]
        sizes.append((len(mask), mask.shape[1]))
        if len(mask) * mask.shape[1] > most[-1]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(self, plan, root, given, start)

    monkeypatch.setattr(Ground, "measured", measured)
    for fits, expected in (
        (6, [(8, 3), (4, 3), (2, 3)]),
        (2, [(8, 3), (4, 3), (2, 3), (1, 3), (8, 2), (4, 2), (2, 2), (1, 2)]),
    ):
        sizes.clear()
        most.append(fits)
        made = sweep(model, task_of(), SITES, positions="each", stack=8)
        assert np.abs(made.values - whole.values).max() < 1e-5
        assert sizes[: len(expected)] == expected
    most.append(0)
    with pytest.raises(InputError, match="memory ran out with one row and one variant") as told:
        sweep(model, task_of(), SITES, positions="each", stack=8)
    assert isinstance(told.value.__cause__, torch.OutOfMemoryError)


def test_running_out_of_memory_in_the_plain_run_halves_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = small_models.captured("gpt2")
    whole = path_patch(model, task_of(), "L0.H*.out", "L1.resid_post", "noise", "freeze")
    paths = import_module("scrubjay.interventions.paths")
    real = paths.ground_of

    def ground_of(*given: Any, **more: Any) -> Any:
        if len(given[3]["input_ids"]) > 1:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."
            )
        return real(*given, **more)

    monkeypatch.setattr(paths, "ground_of", ground_of)
    made = path_patch(model, task_of(), "L0.H*.out", "L1.resid_post", "noise", "freeze")
    assert made.counts["batches"] == 3
    assert np.abs(made.values - whole.values).max() < 1e-5
    with pytest.raises(InputError, match=r"memory ran out with all 3 rows \(a function of one's own"):
        path_patch(model, task_of(), "L0.H*.out", "L1.resid_post", "noise", "freeze", metric=lambda x: x[:, 0, 0])


def test_other_errors_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = small_models.captured("gpt2")

    def broken(*_given: Any) -> Any:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(Ground, "measured", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        sweep(model, task_of(), SITES)


@pytest.mark.parametrize(
    ("given", "size"),
    [(7, 7), ("7", 7), ("7 B", 7), ("2 GB", 2 * 10**9), ("0.5kb", 500), (" 3 MiB ", 3 * 2**20), ("1TiB", 2**40)],
)
def test_amounts_of_memory(given: int | str, size: int) -> None:
    assert memory.budget_bytes(given) == size


@pytest.mark.parametrize("given", ["", "GB", "2 XB", "-1 GB", "1e9", 0, -3, "0.1 B", True, 1.5, "2 GB 3"])
def test_what_is_no_amount_of_memory_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match="budget="):
        memory.budget_bytes(given)


def test_the_least_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "memory.max": "1000\n",
        "memory.current": "700\n",
        "memory.stat": "anon 1\ninactive_file 50\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert memory._group_bytes(tmp_path) == 350
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._group_bytes(tmp_path) == memory._group_bytes(tmp_path / "none") == 2**62
    assert 2**20 < memory._system_bytes() < 2**50
    monkeypatch.setattr(memory, "_group_bytes", lambda: 800)
    assert memory.free_bytes() == 800
    assert memory.budget_bytes(None) == 400


def test_progress_goes_up_to_the_end() -> None:
    _, model = small_models.captured("gpt2")
    seen: list[tuple[int, int]] = []
    sj.sweep(model, task_of(), SITES, positions="each", budget="32 KB", progress=lambda *one: seen.append(one))
    assert seen == sorted(seen)
    assert seen[-1] == (90, 90)
    with pytest.raises(InputError, match="stack=0"):
        sj.sweep(model, task_of(), SITES, stack=0)
