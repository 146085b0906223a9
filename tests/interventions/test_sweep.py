"""A sweep gives what one patched run after another gives, and computes less."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

import scrubjay as sj
import small_models
from pairs import difference, task_of
from scrubjay.claims.task import Task
from scrubjay.errors import AddressError, InputError
from scrubjay.interventions.sweep import sweep

KINDS = ("gpt2", "llama", "bert")


def by_hand(model: Any, task: Task, site: str, direction: str = "denoise") -> np.ndarray:
    """The logit difference of one patched run, by `sj.run`."""
    giver, taker = (task.clean, task.counterfactual) if direction == "denoise" else (task.counterfactual, task.clean)
    source = sj.run(model, dict(giver), keep=[site])
    made = sj.run(model, dict(taker), interventions=sj.patch(site, source)).logits
    return difference(made, task)


SITES = [
    "resid_pre",
    "resid_mid",
    "mlp.out",
    "attn.z",
    "H1.z",
    "H2.q",
    "H3.k",
    "H0.v",
    "H1.pattern",
    "H2.q_in",
    "H1.k_in",
    "H3.out",
    "N5",
    "mlp.in",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padding", ["left", "both"])
def test_a_sweep_is_one_patched_run_after_another(kind: str, padding: str) -> None:
    _, model = small_models.captured(kind)
    task = task_of(padding)
    sites = [f"L{layer}.{site}" for layer in (0, 1) for site in SITES]
    sites = [one for one in sites if not (kind == "bert" and "mlp.in" in one)]
    for direction in ("denoise", "noise"):
        made = sweep(model, task, sites, direction=direction)
        for site, row in zip(sites, made.values, strict=True):
            assert np.abs(row - by_hand(model, task, site, direction)).max() < 2e-5, site
    ends = [difference(sj.run(model, dict(one)).logits, task) for one in (task.clean, task.counterfactual)]
    assert np.abs(made.clean - ends[0]).max() < 2e-5
    assert np.abs(made.corrupted - ends[1]).max() < 2e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stack", [1, 4, None])
def test_positions_are_patched_each_alone(kind: str, stack: int | None) -> None:
    _, model = small_models.captured(kind)
    task = task_of(length=7)
    made = sweep(model, task, ["L0.resid_pre", "L1.resid_pre", "L1.H2.k"], positions="each", stack=stack)
    assert made.values.shape == (3, 7, 3)
    for s, site in enumerate(made.labels["site"]):
        for p in made.labels["position"]:
            assert np.abs(made.values[s, p] - by_hand(model, task, f"{site}@{p}")).max() < 2e-5, (site, p)


def test_positions_by_name_count_real_tokens() -> None:
    _, model = small_models.captured("llama")
    task = task_of("left")
    task = replace(task, positions={**task.positions, "third": np.full(len(task), 2)})
    made = sweep(model, task, "L*.resid_pre", positions=["early", -1, "third"])
    for p, name in enumerate(("@1", "@-1", "@2")):
        assert np.abs(made.values[1, p] - by_hand(model, task, f"L1.resid_pre{name}")).max() < 2e-5


def test_patching_everything_is_the_other_run() -> None:
    _, model = small_models.captured("gpt2")
    made = sweep(model, task_of(), "L0.resid_pre")
    assert np.abs(made.values[0] - made.clean).max() < 2e-5
    assert made.effect[0] == pytest.approx(1, abs=1e-4)
    late = sweep(model, task_of(), "L0.resid_pre", positions=[0, 1, 2])  # the pairs have these tokens in common
    assert np.abs(late.effect).max() < 1e-4


def test_causality_saves_positions_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = small_models.captured("gpt2")
    quick = sweep(model, task_of(), "L*.resid_pre", positions="each")
    monkeypatch.setattr(import_module("scrubjay.interventions.sweep"), "is_causal", lambda _model: False)
    slow = sweep(model, task_of(), "L*.resid_pre", positions="each")
    assert np.abs(quick.values - slow.values).max() < 1e-5
    assert quick.counts["variants"] == 18


@pytest.mark.parametrize("metric", ["log_probability", "kl"])
def test_other_metrics(metric: str) -> None:
    _, model = small_models.captured("gpt2")
    task = task_of("right")
    made = sweep(model, task, ["L0.H1.z", "L1.mlp.out"], metric=metric)
    source = sj.run(model, dict(task.clean), keep=["L0.H1.z", "L1.mlp.out"])
    last = torch.tensor(task.clean["attention_mask"]).sum(1) - 1
    rows = torch.arange(3)
    for s, site in enumerate(("L0.H1.z", "L1.mlp.out")):
        logits = sj.run(model, dict(task.counterfactual), interventions=sj.patch(site, source)).logits[rows, last]
        logs, clean = logits.log_softmax(-1), source.logits[rows, last].log_softmax(-1)
        wanted = (
            logs[rows, torch.tensor(task.answers)]
            if metric == "log_probability"
            else (clean.exp() * (clean - logs)).sum(-1)
        )
        assert np.abs(made.values[s] - wanted.numpy()).max() < 2e-5


def test_a_function_is_a_metric() -> None:
    _, model = small_models.captured("gpt2")
    task = task_of()
    made = sweep(model, task, ["L0.H1.z"], metric=lambda logits: logits[:, -1, 5])
    source = sj.run(model, dict(task.clean), keep=["L0.H1.z"])
    wanted = sj.run(model, dict(task.counterfactual), interventions=sj.patch("L0.H1.z", source)).logits[:, -1, 5]
    assert np.abs(made.values[0] - wanted.numpy()).max() < 2e-5
    with pytest.raises(InputError, match="one number for each row"):
        sweep(model, task, ["L0.H1.z"], metric=lambda logits: logits.mean())
    with pytest.raises(InputError, match="NaN in row 1"):
        sweep(model, task, ["L0.H1.z"], metric=lambda logits: torch.tensor([0.0, float("nan"), 1.0]))


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_ablations(ablation: str) -> None:
    _, model = small_models.captured("llama")
    task = task_of()
    made = sweep(model, task, ["L0.H1.z", "L1.H2.out"], direction="noise", ablation=ablation)
    change = {"zero": sj.zero, "mean": lambda a: sj.mean(a, dict(task.counterfactual))}[ablation]
    for s, site in enumerate(("L0.H1.z", "L1.H2.out")):
        wanted = difference(sj.run(model, dict(task.clean), interventions=change(site)).logits, task)
        assert np.abs(made.values[s] - wanted).max() < 2e-5


def test_bad_input_is_refused() -> None:
    _, model = small_models.captured("gpt2")
    task = task_of("left")
    with pytest.raises(AddressError, match="L7"):
        sweep(model, task, "L7.resid_pre")
    with pytest.raises(InputError, match="rows of one length"):
        sweep(model, task, "L0.resid_pre", positions="each")
    with pytest.raises(InputError, match="has no position 40"):
        sweep(model, task, "L0.resid_pre", positions=40)
    with pytest.raises(InputError, match="'S2'"):
        sweep(model, task, "L0.resid_pre", positions="S2")
    with pytest.raises(InputError, match="denoise"):
        sweep(model, task, "L0.resid_pre", direction="up")
    with pytest.raises(AddressError, match="positions="):
        sweep(model, task, "L0.resid_pre@2")
    same = Task("same", task.clean, task.clean, task.answers, task.wrong)
    with pytest.raises(InputError, match="answers differently"):
        _ = sweep(model, same, "L0.resid_pre").effect
