"""Path patching is the three passes by hand; edge patching is a path patch with everything between held."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import families
import scrubjay as sj
import small_models
from pairs import difference, task_of
from scrubjay.claims.task import Task
from scrubjay.errors import AddressError, InputError
from scrubjay.interventions.paths import edge_patch, path_patch


def by_hand(model: Any, task: Task, sender: str, receivers: list[str], direction: str, mlps: str) -> np.ndarray:
    """Run with the sender patched and what lies between held, note what receivers read; run again with that put in."""
    giver, taker = (task.clean, task.counterfactual) if direction == "denoise" else (task.counterfactual, task.clean)
    held = ["attn.out", "mlp.out"] if mlps == "freeze" else ["attn.out"]
    own = int(sender[1:].partition(".")[0]) if sender.startswith("L") else -1
    between = [f"L{layer}.{site}" for layer in range(own, model.layers) for site in held if layer >= 0]
    between = [one for one in between if not (one == f"L{own}.attn.out" and ".H" in sender) and one != sender]
    between = [one for one in between if one in model.circuit.table]
    if ".H" not in sender:  # an MLP's own layer: its attention is before it
        between = [one for one in between if one != f"L{own}.attn.out"]
    base = sj.run(model, dict(taker), keep=[*between, *receivers])
    there = sj.run(model, dict(giver), keep=[sender])
    changes = [sj.patch(sender, there), *(sj.patch(one, base) for one in between)]
    third = sj.run(model, dict(taker), keep=receivers, interventions=changes)
    made = sj.run(model, dict(taker), interventions=[sj.replace(one, third[one].as_tensor()) for one in receivers])
    return difference(made.logits, task)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("mlps", ["recompute", "freeze"])
@pytest.mark.parametrize("direction", ["noise", "denoise"])
def test_path_patching_is_three_passes(kind: str, mlps: str, direction: str) -> None:
    _, model = small_models.captured(kind)
    task = task_of("left")
    senders = ["L0.H1.out", "L0.H2.out", "L0.mlp.out", "embed"]
    receivers = ["L1.H0.q_in", "L1.H3.k_in", "L1.H1.v_in", "L1.mlp.in", "L1.resid_post"]
    made = path_patch(model, task, senders, receivers, direction, mlps)
    assert made.values.shape == (4, 5, 3)
    for s, sender in enumerate(senders):
        for r, receiver in enumerate(receivers):
            wanted = by_hand(model, task, sender, [receiver], direction, mlps)
            assert np.abs(made.values[s, r] - wanted).max() < 2e-5, (sender, receiver)
            assert np.abs(made.values[s, r] - made.start).max() > 1e-4, (sender, receiver)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_receivers_are_patched_together(kind: str) -> None:
    _, model = small_models.captured(kind)
    task = task_of()
    receivers = ["L1.H0.q_in", "L1.H2.q_in", "L1.H1.k_in", "L1.mlp.in"]
    made = path_patch(model, task, "L0.H*.out", receivers, "noise", "recompute", jointly=True)
    assert made.values.shape == (4, 3)
    for s, sender in enumerate(made.labels["sender"]):
        assert np.abs(made.values[s] - by_hand(model, task, sender, receivers, "noise", "recompute")).max() < 2e-5


@pytest.mark.parametrize("kind", ["gemma2", "gpt_neox"])
def test_norms_after_the_head_and_parallel_layers(kind: str) -> None:
    module = families.build(kind)
    model = small_models.load(module)
    ids = [families.batch(module, 3, 8, seed=seed)["input_ids"].numpy() for seed in (1, 2)]
    task = Task("t", {"input_ids": ids[0]}, {"input_ids": ids[1]}, np.array([1, 2, 3]), np.array([4, 5, 6]))
    for mlps in ("freeze", "recompute"):
        made = path_patch(model, task, ["L0.H1.out", "L0.mlp.out"], ["L1.H0.q_in", "L1.resid_post"], "noise", mlps)
        masked = Task(
            "t",
            {**task.clean, "attention_mask": np.ones((3, 8), int)},
            {**task.counterfactual, "attention_mask": np.ones((3, 8), int)},
            task.answers,
            task.wrong,
        )
        for s, sender in enumerate(("L0.H1.out", "L0.mlp.out")):
            for r, receiver in enumerate(("L1.H0.q_in", "L1.resid_post")):
                wanted = by_hand(model, masked, sender, [receiver], "noise", mlps)
                assert np.abs(made.values[s, r] - wanted).max() < 2e-5, (kind, mlps, sender, receiver)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_every_edge_is_a_direct_path(kind: str) -> None:
    _, model = small_models.captured(kind)
    task = task_of()
    made = edge_patch(model, task, "noise")
    heads, layers = small_models.HEADS, small_models.LAYERS
    per = [1 + (heads + 1) * layer for layer in range(layers)]
    assert len(made.labels["edge"]) == sum(3 * heads * n + n + heads for n in per) + 1 + (heads + 1) * layers
    values = dict(zip(made.labels["edge"], made.values, strict=True))
    for sender, receiver in [
        ("embed", "L0.H2.v_in"),
        ("L0.H1.out", "L0.mlp.in"),
        ("L0.mlp.out", "L1.H3.k_in"),
        ("L1.H0.out", "L1.resid_post"),
        ("embed", "L1.mlp.in"),
    ]:
        start = "L0.resid_pre" if sender == "embed" else sender
        base, there = (sj.run(model, dict(one), keep=[start, receiver]) for one in (task.clean, task.counterfactual))
        new = base[receiver].as_tensor() + there[start].as_tensor() - base[start].as_tensor()
        wanted = difference(sj.run(model, dict(task.clean), interventions=sj.replace(receiver, new)).logits, task)
        assert np.abs(values[sender, receiver] - wanted).max() < 2e-5, (sender, receiver)


def test_all_senders_to_the_last_stream_cost_few_nodes() -> None:
    _, model = small_models.captured("gpt2")
    made = path_patch(model, task_of(), "L*.H*.out", "L1.resid_post", "noise", "freeze")
    assert made.counts["variants"] == 8
    assert made.counts["evaluations"] <= 1
    assert made.counts["tokens"] == 8 * 3  # one position of each row is read
    assert made.counts["nodes"] < 20 + 3 * 8  # and what each head writes there is computed from what its layer mixes


def test_bad_input_is_refused() -> None:
    _, model = small_models.captured("gpt2")
    task = task_of()
    with pytest.raises(InputError, match="not upstream"):
        path_patch(model, task, "L1.H0.out", "L0.H1.q_in", "noise", "recompute")
    with pytest.raises(AddressError, match="a sender writes"):
        path_patch(model, task, "L0.H0.q", "L1.H1.q_in", "noise", "recompute")
    with pytest.raises(AddressError, match="a receiver reads"):
        path_patch(model, task, "L0.H0.out", "L1.H1.z", "noise", "recompute")
    with pytest.raises(InputError, match="mlps='keep'"):
        path_patch(model, task, "L0.H0.out", "L1.H1.q_in", "noise", "keep")
    mixed = path_patch(model, task, "L*.H0.out", "L1.H1.q_in", "noise", "recompute")
    assert np.isnan(mixed.values[1]).all()
    assert not np.isnan(mixed.values[0]).any()
    _, bert = small_models.captured("bert")
    with pytest.raises(InputError, match="not a sum"):
        edge_patch(bert, task, "noise")


def test_the_same_input_moves_nothing() -> None:
    _, model = small_models.captured("llama")
    task = task_of()
    same = Task("same", task.clean, task.clean, task.answers, task.wrong)
    made = path_patch(model, same, "L0.H*.out", "L1.H*.q_in", "noise", "recompute")
    assert np.abs(made.values - made.clean).max() < 1e-5
    assert torch.tensor(made.values).isfinite().all()
