"""What is not changed before a position is only left out where no position reads a later one, on the very inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import families
import scrubjay as sj
import small_models
from pairs import difference, task_of
from scrubjay.claims.task import Task
from scrubjay.interventions.masking import causal_on
from scrubjay.interventions.paths import path_patch
from small_models import HEADS, VOCABULARY, WIDTH

Masked = Callable[[Tensor, Tensor, Tensor], Tensor]


class Layer(nn.Module):
    """Attention under a mask, and a norm before it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.o = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the stream after the layer."""
        y = self.norm(x)
        q, k, v = (part(y).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        scores = (q @ k.transpose(-1, -2) * 0.35).masked_fill(~mask, float("-inf"))
        return x + self.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Language(nn.Module):
    """Two layers under a mask made of (query places, key places, the `kinds` of tokens)."""

    def __init__(self, masked: Masked, *, kinds: bool = False) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(64, WIDTH)
        self.layers, self.out = nn.ModuleList([Layer(), Layer()]), nn.Linear(WIDTH, VOCABULARY)
        self.masked, self.kinds = masked, kinds

    def forward(self, input_ids: Tensor, kinds: Tensor | None = None) -> Tensor:
        """Return logits."""
        places = torch.arange(input_ids.shape[1])
        given = torch.zeros_like(input_ids) if kinds is None else kinds
        mask = self.masked(places[:, None], places[None, :], given[:, None, None, :])
        x = self.table(input_ids) + self.places(places)
        for layer in self.layers:
            x = layer(x, mask)
        return self.out(x)


def load(masked: Masked, *, kinds: bool = False) -> tuple[Language, Any]:
    torch.manual_seed(0)
    module = Language(masked, kinds=kinds).eval()
    small_models.redraw(module, 1)
    example = torch.zeros(2, 12, dtype=torch.long)
    inputs = {"input_ids": example, **({"kinds": example} if kinds else {})}
    return module, small_models.load(module, inputs=inputs)


def pairs(length: int, more: Mapping[str, np.ndarray]) -> Task:
    task = task_of(length=length)
    clean, other = ({"input_ids": one["input_ids"], **more} for one in (task.clean, task.counterfactual))
    return Task("pairs", clean, other, task.answers, task.wrong)


def by_hand(module: Language, task: Task, layer: int, place: int) -> np.ndarray:
    """The metric with one place of the stream before a layer taken from the clean run, in the module."""
    clean, other = (
        {name: torch.tensor(one) for name, one in side.items()} for side in (task.clean, task.counterfactual)
    )
    found: list[Tensor] = []
    part = module.layers[layer]
    hook = part.register_forward_pre_hook(lambda _, given: found.append(given[0]))
    with torch.no_grad():
        module(**clean)
        hook.remove()

        def put(_: Any, given: Any) -> Any:
            new = given[0].clone()
            new[:, place] = found[0][:, place]
            return (new, *given[1:])

        hook = part.register_forward_pre_hook(put)
        logits = module(**other)
        hook.remove()
    whole = Task(
        "whole",
        {**task.clean, "attention_mask": np.ones_like(task.clean["input_ids"])},
        {**task.counterfactual, "attention_mask": np.ones_like(task.clean["input_ids"])},
        task.answers,
        task.wrong,
    )
    return difference(logits, whole)


def before(query: Tensor, key: Tensor) -> Tensor:
    return key <= query


MASKS: dict[str, tuple[Masked, bool | None, int]] = {
    "window": (lambda query, key, _: before(query, key) & (query - key < 4), True, 9),
    "prefix": (lambda query, key, _: before(query, key) | (key < 5), False, 9),
    "one ahead": (lambda query, key, _: key <= query + 1, False, 9),
    "ahead from a length on": (lambda query, key, _: before(query, key) | (key >= 12), True, 16),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_decides_what_is_left_out(name: str) -> None:
    masked, causal, length = MASKS[name]
    module, model = load(masked)
    assert model.verdict.causal is causal
    task = pairs(length, {})
    for place in (3, length - 3):
        made = sj.sweep(model, task, "L*.resid_pre", positions=place, stack=1)
        for layer in (0, 1):
            np.testing.assert_allclose(made.values[layer, 0], by_hand(module, task, layer, place), rtol=0, atol=1e-5)
        assert made.counts["tokens"] == 2 * 3 * (length - (place if name == "window" else 0))
    ids = torch.tensor(task.clean["input_ids"])[:, :3]
    made = sj.generate(model, {"input_ids": ids}, tokens=12)
    whole = ids
    for _ in range(12):
        with torch.no_grad():
            whole = torch.cat([whole, module(whole)[:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(made.tokens, whole[:, 3:])
    assert (sum(made.positions) == 14) is (name == "window")


def test_an_input_may_say_that_a_prefix_reads_itself() -> None:
    module, model = load(lambda query, key, kinds: before(query, key) | (kinds == 1), kinds=True)
    assert model.verdict.causal is True  # as far as the example goes, whose kinds are all 0
    kinds = np.zeros((3, 9), np.int64)
    plain = pairs(9, {"kinds": kinds})
    assert causal_on(model, {name: torch.tensor(one) for name, one in plain.clean.items()}) is model
    assert sj.sweep(model, plain, "L0.resid_pre", positions=4, stack=1).counts["tokens"] == 3 * 5
    kinds = kinds.copy()
    kinds[1, :6] = 1
    task = pairs(9, {"kinds": kinds})
    made = sj.sweep(model, task, "L*.resid_pre", positions=4, stack=1)
    assert made.counts["tokens"] == 2 * 3 * 9
    for layer in (0, 1):
        np.testing.assert_allclose(made.values[layer, 0], by_hand(module, task, layer, 4), rtol=0, atol=1e-5)
    slow = replace(model, verdict=replace(model.verdict, causal=False))
    routes, whole = (path_patch(one, task, "L0.H*.out", "L1.H*.q_in", "noise", "freeze") for one in (model, slow))
    np.testing.assert_allclose(routes.values, whole.values, rtol=0, atol=1e-6)


def test_a_window_that_slides_over_padded_rows_is_that_of_the_module() -> None:
    module = families.build("mistral")
    model = small_models.load(module)
    assert model.verdict is not None
    assert model.verdict.causal is True
    given = small_models.batch(3, 12, "left")
    made = sj.generate(model, given, tokens=8)
    theirs = module.generate(
        **{name: given[name] for name in ("input_ids", "attention_mask")}, do_sample=False, max_new_tokens=8, min_new_tokens=8, pad_token_id=0
    )  # fmt: skip
    assert torch.equal(made.tokens, theirs[:, 12:])
    assert made.positions == (12, *[1] * 7)
    task = task_of("left", length=16)
    late = sj.sweep(model, task, "L0.resid_pre", positions=["early"], stack=1)
    slow = replace(model, verdict=replace(model.verdict, causal=False))
    whole = sj.sweep(slow, task, "L0.resid_pre", positions=["early"], stack=1)
    assert late.counts["tokens"] < whole.counts["tokens"]
    np.testing.assert_allclose(late.values, whole.values, rtol=0, atol=1e-5)
