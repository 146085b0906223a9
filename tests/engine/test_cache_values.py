"""A cache gives what would have been computed, and nothing that has since become something else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scrubjay as sj
import small_models
from pairs import task_of
from scrubjay.engine.cache import Cache
from scrubjay.errors import CacheError, InputError
from scrubjay.interventions.paths import path_patch
from scrubjay.interventions.plan import plan
from scrubjay.interventions.sweep import sweep

KEEP = ["L0.resid_post", "L1.attn.pattern", "L1.H2.z"]


def fresh(kind: str = "gpt2") -> Any:
    return small_models.load(module := small_models.build(kind)), module


@pytest.mark.parametrize("kind", small_models.KINDS)
def test_a_second_run_is_found(kind: str) -> None:
    _, model = small_models.captured(kind)
    cache, inputs = Cache(), small_models.batch()
    first = sj.run(model, inputs, keep=KEEP, cache=cache)
    again = sj.run(model, inputs, keep=KEEP, cache=cache)
    plain = sj.run(model, inputs, keep=KEEP)
    assert (first.hits, again.hits, plain.hits) == (0, 4, 0)
    assert (again.evaluated, cache.hits, cache.misses) == (0, 4, 4)
    for name in ("logits", *KEEP):
        if name in plain.values:
            assert torch.equal(again.values[name].as_tensor(), plain.values[name].as_tensor())
    more = sj.run(model, inputs, keep=[*KEEP, "L0.mlp.post"], cache=cache)
    assert more.hits == 4
    assert 0 < more.evaluated < plain.evaluated


def test_what_differs_is_not_found() -> None:
    _, model = small_models.captured("llama")
    cache, inputs = Cache(), small_models.batch()
    sj.run(model, inputs, cache=cache)
    other = {**inputs, "input_ids": inputs["input_ids"].clone()}
    other["input_ids"][2, 8] += 1
    shorter = {name: one[:, 1:] for name, one in inputs.items()}
    for one in (other, shorter, {**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])}):
        found = sj.run(model, one, cache=cache)
        assert found.hits == 0
        assert torch.equal(found.logits, sj.run(model, one).logits)
    assert sj.run(model, inputs, fused=True, cache=cache).hits == 0
    assert sj.run(model.exact(), inputs, cache=cache).hits == 0
    changed = sj.run(model, inputs, interventions=sj.zero("L0.H1.z"), cache=cache)
    assert changed.hits == 0
    assert sj.run(model, inputs, interventions=sj.zero("L0.H1.z"), cache=cache).hits == 1


def test_an_input_changed_in_place_is_not_found() -> None:
    _, model = small_models.captured("gpt2")
    cache, inputs = Cache(), small_models.batch(padding="none")
    sj.run(model, inputs, cache=cache)
    inputs["input_ids"].numpy()[1, 3] = 7
    found = sj.run(model, inputs, cache=cache)
    assert found.hits == 0
    assert torch.equal(found.logits, sj.run(model, inputs).logits)


@pytest.mark.parametrize("how", ["in place", "exchanged", "moved"])
def test_a_weight_that_was_changed_is_not_found(how: str) -> None:
    model, module = fresh()
    cache, inputs = Cache(), small_models.batch()
    sj.run(model, inputs, keep=["L0.resid_post"], cache=cache)
    weight = module.transformer.h[1].mlp.c_proj.weight
    with torch.no_grad():
        if how == "in place":
            weight[3, 4] += 1
        elif how == "exchanged":
            module.transformer.h[1].mlp.c_proj.weight = torch.nn.Parameter(weight * 2)
        else:
            weight.data = weight.data + 1
    again = sj.run(model, inputs, keep=["L0.resid_post"], cache=cache)
    assert again.hits == 1  # the first layer does not read it
    assert torch.equal(again.logits, sj.run(model, inputs).logits)
    assert torch.allclose(again.logits, small_models.logits_of(module, inputs), atol=1e-5)


def test_equal_weights_are_found_under_another_model() -> None:
    cache, inputs = Cache(), small_models.batch()
    (one, _), (other, module) = fresh(), fresh()
    sj.run(one, inputs, cache=cache)
    assert sj.run(other, inputs, cache=cache).hits == 1
    small_models.redraw(module, 5)
    assert sj.run(other, inputs, cache=cache).hits == 0


@pytest.mark.parametrize("how", ["torch", "numpy", "data"])
def test_a_value_that_was_written_into_changes_nothing_held(how: str) -> None:
    _, model = small_models.captured("gpt2")
    cache, inputs = Cache(), small_models.batch()
    right = sj.run(model, inputs, keep=["L0.resid_post"])
    for hits in (0, 2, 2):  # the run that made it, and those that found it
        made = sj.run(model, inputs, keep=["L0.resid_post"], cache=cache)
        assert made.hits == hits
        for mine, whole in (
            (made.logits, right.logits),
            (made["L0.resid_post"].as_tensor(), right["L0.resid_post"].as_tensor()),
        ):
            assert torch.equal(mine, whole)
            if how == "torch":
                mine.zero_()
            elif how == "numpy":
                mine.numpy()[:] = 0
            else:
                mine.data.mul_(3)


def test_a_held_value_that_was_written_into_is_computed_again() -> None:
    _, model = small_models.captured("gpt2")
    cache, inputs = Cache(), small_models.batch()
    sj.run(model, inputs, keep=["L0.resid_post"], cache=cache)
    next(iter(cache._values.values())).value.as_tensor().zero_()
    assert sj.run(model, inputs, keep=["L0.resid_post"], cache=cache).hits == 1


def test_functions_of_ones_own_are_called_again() -> None:
    _, model = small_models.captured("gpt2")
    cache, inputs, called = Cache(), small_models.batch(), list[int]()
    change = sj.apply("L0.resid_post", lambda value: called.append(1) or value * 2)
    for _ in range(2):
        assert sj.run(model, inputs, interventions=change, cache=cache).hits == 0
    assert len(called) == 2
    with pytest.raises(InputError, match="leave out cache"):
        sj.run(model, inputs, differentiable=True, cache=cache)


def test_the_budget_is_kept_and_the_oldest_goes() -> None:
    _, model = small_models.captured("gpt2")
    inputs = small_models.batch(padding="none")
    size = 3 * 17 * small_models.WIDTH * 4
    cache = Cache(budget=2 * size)
    for site in ("L0.resid_pre", "L0.resid_mid", "L0.resid_pre", "L1.resid_mid"):
        sj.run(model, inputs, keep=[site], cache=cache)
        assert cache.held <= cache.budget  # logits are larger than all of it, and never held
    assert len(cache) == 2
    assert sj.run(model, inputs, keep=["L0.resid_pre"], cache=cache).hits == 1
    assert sj.run(model, inputs, keep=["L0.resid_mid"], cache=cache).hits == 0
    held = sum(one.value.as_tensor().untyped_storage().nbytes() for one in cache._values.values())
    assert held == cache.held
    cache.clear()
    assert (len(cache), cache.held) == (0, 0)
    with pytest.raises(InputError, match="budget="):
        Cache(budget="lots")


SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
import scrubjay as sj, small_models
from scrubjay.engine.cache import Cache
cache = Cache(folder={folder!r})
model = small_models.load(small_models.build("llama"))
made = sj.run(model, small_models.batch(), keep=["L0.resid_post"], cache=cache)
print(made.hits, made.evaluated, float(made.logits.double().sum()))
"""


def test_another_process_finds_files(tmp_path: Path) -> None:
    _, model = small_models.captured("llama")
    made = sj.run(model, small_models.batch(), keep=["L0.resid_post"], cache=Cache(budget=1, folder=tmp_path))
    script = SCRIPT.format(tests=str(Path(small_models.__file__).parent), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    hits, evaluated, total = done.stdout.split()
    assert (hits, evaluated) == ("2", "0")
    assert float(total) == float(made.logits.double().sum())


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "other"])
def test_a_damaged_file_is_computed_again_and_replaced(tmp_path: Path, damage: str) -> None:
    _, model = small_models.captured("gpt2")
    inputs = small_models.batch()
    right = sj.run(model, inputs, cache=Cache(folder=tmp_path)).logits
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[-5] ^= 1
    elif damage == "other":
        content = bytearray(b"pickle" * 100)
    file.write_bytes(content[: len(content) // 2] if damage == "cut" else b"" if damage == "emptied" else content)
    cache = Cache(folder=tmp_path)
    made = sj.run(model, inputs, cache=cache)
    assert (made.hits, cache.damaged) == (0, 1)
    assert torch.equal(made.logits, right)
    mended = Cache(folder=tmp_path)
    assert torch.equal(sj.run(model, inputs, cache=mended).logits, right)
    assert (mended.hits, mended.damaged) == (1, 0)


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    _, model = small_models.captured("gpt2")
    with pytest.raises(CacheError, match="give another folder"):
        sj.run(model, small_models.batch(), cache=Cache(folder=tmp_path / "file"))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_sweeps_and_paths_take_plain_values(kind: str) -> None:
    _, model = small_models.captured(kind)
    cache, task = Cache(), task_of("left")
    plain = sweep(model, task, "L*.H*.z")
    first = sweep(model, task, "L*.H*.z", cache=cache)
    again = sweep(model, task, "L*.H*.z", cache=cache)
    assert first.counts["cache_misses"] > first.counts["cache_hits"] >= 0
    assert again.counts["cache_misses"] == 0
    assert again.counts["plain_multiply_adds"] == 0 < plain.counts["plain_multiply_adds"]
    assert "cache_hits" not in plain.counts
    for made in (first, again):
        assert np.abs(made.values - plain.values).max() < 1e-6
    paths = (model, task, "L0.H*.out", ["L1.H*.q_in"], "noise", "recompute")
    path_patch(*paths, cache=cache)
    found = path_patch(*paths, cache=cache)
    assert found.counts["cache_misses"] == 0
    assert np.abs(found.values - path_patch(*paths).values).max() < 1e-6
    hits = cache.hits
    assert dict(plan(sweep, model, task, "L*.H*.z", cache=cache).counts) == dict(plain.counts)
    assert cache.hits == hits
