"""Everything runs where the weights are: on a device that stands for a GPU, where mixing two devices is an error.

The device is torch's for the whole of a process, so this runs in one of its own and says what went wrong there.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SCRIPT = """
import copy, sys, tempfile
from dataclasses import replace
import numpy as np, torch
sys.path.insert(0, {tests!r})
import elsewhere, small_models, scrubjay as sj
from pairs import task_of

kind, how = {kind!r}, {how!r}
module, here = small_models.captured(kind)
given, task = small_models.batch(padding="left"), task_of("left")
keep, width = ["L*.resid_post", "L0.H*.z", "L1.attn.pattern@-1"], small_models.WIDTH
coder = torch.nn.Linear(width, width)


def same(one, two):
    one, two = (torch.as_tensor(np.asarray(item)) if not isinstance(item, torch.Tensor) else item.detach().cpu() for item in (one, two))
    here = two.isfinite()
    assert one.shape == two.shape and float((one - two)[here].abs().max()) < 1e-4


def all_of(model, given, coder):
    changes = [
        [], sj.zero("L0.H1.z"), sj.add("L0.resid_post@-1", torch.ones(width)), sj.project_out("L0.resid_post", torch.ones(width)),
        sj.mean("L0.attn.out", over=given), sj.resample("L0.attn.out", over=given, seed=0), sj.replace("L0.attn.pattern", 0.1),
        sj.patch("L1.mlp.out@-1", {{name: one[:1] for name, one in given.items()}}), sj.apply("L0.mlp.out", lambda value: value * 2),
        *(sj.splice("L0.resid_post", coder, error=error) for error in ("drop", "add", "freeze")),
    ]
    for change in changes:
        run = sj.run(model, given, keep, change)
        assert {{value.as_tensor().device for value in run.values.values()}} == {{home(model)}}
        yield run.logits
    yield sj.run(model, given, fused=True).logits
    yield sj.run(model, given, keep, scalar=lambda run: run.logits[:, -1, 5].sum()).grad["L0.H*.z"].as_tensor()
    with tempfile.TemporaryDirectory() as folder:
        for cache in (sj.Cache(), sj.Cache(folder=folder), sj.Cache(folder=folder)):
            yield sj.run(model, given, keep, cache=cache).logits
        found = sj.run(model, given, keep, cache=cache)
        assert found.hits and found.logits.device == home(model)
    for ablation in ("resample", "zero", "mean"):
        yield sj.sweep(model, task, ["L*.resid_pre", "L1.H*.z"], positions=["early", "END"], ablation=ablation).values
    yield sj.sweep(model, task, "L1.H*.z", metric="kl", budget="1 MB").values
    yield sj.sweep(model, task, "L1.H*.z", metric=lambda logits: logits[:, -1, 3]).values
    if kind != "bert":
        yield sj.path_patch(model, task, "L0.H*.out", ["L1.H*.q_in", "L1.resid_post"], "noise", "recompute").values
        yield sj.generate(model, given, 4).tokens
        newest = sj.add("L0.resid_post@-1", torch.ones(width))
        yield sj.generate(model, given, 4, newest, temperature=1.0, top_k=9, seed=0).tokens
    for positions in ("real", -1):
        with tempfile.TemporaryDirectory() as folder:
            yield sj.harvest(model, given, ["L0.resid_post", "L1.H*.z"], folder, batch=2, positions=positions)["L1.H2.z"].as_tensor()


def home(model):
    return elsewhere.DEVICE if model is not here else torch.device("cpu")


right = list(all_of(here, given, coder))
with elsewhere.Factories():
    there = copy.deepcopy(module).to(elsewhere.NAME)
    model = small_models.load(there) if how != "asked for" else small_models.load(copy.deepcopy(module), device=elsewhere.NAME)
    mine = {{name: one.to(elsewhere.NAME) for name, one in given.items()}} if how == "inputs too" else given
    made = list(all_of(model, mine, copy.deepcopy(coder).to(elsewhere.NAME)))
assert len(made) == len(right) > 20
for one, two in zip(made, right, strict=True):
    same(one, two)
"""


@pytest.mark.parametrize(("kind", "how"), [("gpt2", "asked for"), ("llama", "inputs too")])
def test_all_of_it_runs_on_another_device(kind: str, how: str) -> None:
    script = SCRIPT.format(tests=str(TESTS), kind=kind, how=how)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
