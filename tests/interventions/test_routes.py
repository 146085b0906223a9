"""What a path costs: one head where one head reads, one position where one is read, one run of each input."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

import families
import scrubjay as sj
import small_models
from pairs import task_of
from scrubjay.claims.task import Task
from scrubjay.interventions.paths import path_patch
from small_models import HEADS, HIDDEN, KV_HEADS, LAYERS, WIDTH

ROWS, LENGTH, LATER = 3, 9, 6  # the first three tokens of a pair are the same
SPACE = WIDTH // HEADS


def mlp(kind: str) -> int:
    return (2 if kind == "gpt2" else 3) * WIDTH * HIDDEN


def last_layer(kind: str) -> int:
    """Multiply-adds of a row whose stream before the last layer is changed, two answers read at its end."""
    over = HEADS * LENGTH * WIDTH + WIDTH**2  # what is read of all positions, by one query, and then its projection
    kv = WIDTH * KV_HEADS[kind] // HEADS
    read = 3 * WIDTH**2 + over + WIDTH if kind == "gpt2" else WIDTH**2 + LATER * WIDTH * kv + LENGTH * WIDTH
    return read + over + WIDTH**2 + mlp(kind) + 2 * WIDTH


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_a_receiving_head_is_computed_alone(kind: str, part: str) -> None:
    _, model = small_models.captured(kind)
    early, late = (
        path_patch(model, task_of(length=LENGTH), "embed", f"L{layer}.H1.{part}_in", "noise", "freeze")
        for layer in (0, LAYERS - 1)
    )
    read, mixed = (
        1 if part == "q" else LATER,
        (1 if part == "v" else 2) * LENGTH * SPACE,
    )  # patterns are held where v moves
    head = LATER * (2 * WIDTH * SPACE + mixed)
    assert early.counts["multiply_adds"] == ROWS * (head + LATER * mlp(kind) + last_layer(kind))
    one = (read + 1) * WIDTH * SPACE + mixed
    assert late.counts["multiply_adds"] == ROWS * (one + mlp(kind) + 2 * WIDTH)
    assert late.counts["tokens"] == ROWS * read


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_where_one_position_is_read_mlps_are_recomputed_there_alone(kind: str) -> None:
    _, model = small_models.captured(kind)
    made = path_patch(model, task_of(), "L*.H*.out", f"L{LAYERS - 1}.resid_post", "noise", "recompute")
    each = [WIDTH * SPACE + (LAYERS - layer) * mlp(kind) + 2 * WIDTH for layer in range(LAYERS)]
    assert made.counts["multiply_adds"] == ROWS * HEADS * sum(each)
    assert made.counts["tokens"] == ROWS * HEADS * LAYERS
    assert made.counts["evaluations"] == LAYERS  # all heads of a layer at once


@pytest.mark.parametrize("receivers", ["L1.resid_post", ["L1.H*.q_in", "L1.mlp.in"], "sweep"], ids=str)
def test_each_input_is_run_once(receivers: str | list[str]) -> None:
    _, model = small_models.captured("gpt2")
    task = task_of(length=LENGTH)
    compute = import_module("scrubjay.engine.compute").compute
    inputs = import_module("scrubjay.interventions.inputs").prepare(model, dict(task.clean))
    whole = compute([model.circuit.roots["logits"]], inputs, model.stores).work.multiply_adds
    if receivers == "sweep":
        made = sj.sweep(model, task, ["L*.H*.z", "L*.mlp.out"])
    else:
        made = path_patch(model, task, "L*.H*.out", receivers, "noise", "freeze")
    assert made.counts["plain_multiply_adds"] <= 2 * whole


def test_heads_of_a_layer_have_the_rest_of_their_paths_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = small_models.captured("llama")
    routes = import_module("scrubjay.interventions.routes")
    made: list[Any] = []
    tail = routes._tail
    monkeypatch.setattr(routes, "_tail", lambda *given: made.append(given) or tail(*given))
    path_patch(model, task_of(), "embed", ["L0.H*.q_in", "L0.H*.k_in", "L1.H*.v_in"], "noise", "freeze")
    assert len(made) == 2


@pytest.mark.parametrize("kind", ["qwen3", "gemma2", "gpt_neox", "bloom", "falcon", "gpt_oss"])
@pytest.mark.parametrize("mlps", ["freeze", "recompute"])
def test_one_head_alone_is_the_head_in_its_layer(kind: str, mlps: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = families.build(kind)
    model = small_models.load(module)
    ids = [families.batch(module, 3, 8, seed=seed)["input_ids"].numpy() for seed in (1, 2)]
    task = Task("t", {"input_ids": ids[0]}, {"input_ids": ids[1]}, np.array([1, 2, 3]), np.array([4, 5, 6]))
    given = (model, task, ["L0.H1.out", "L0.mlp.out"], ["L1.H1.q_in", "L1.H0.k_in", "L1.H1.v_in"], "noise", mlps)
    alone = sj.path_patch(*given)
    routes = import_module("scrubjay.interventions.routes")
    assert alone.counts["multiply_adds"] > 0
    monkeypatch.setattr(routes, "_one_head", lambda *_: None)
    whole = sj.path_patch(*given)
    assert np.abs(alone.values - whole.values).max() < 2e-5
    assert np.abs(alone.values - alone.start).max() > 1e-5
    assert alone.counts["multiply_adds"] < whole.counts["multiply_adds"]
