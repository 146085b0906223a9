"""Pairs of inputs for small models, and the logit difference measured by hand."""

from __future__ import annotations

import numpy as np
import torch

import small_models
from scrubjay.claims.task import Task


def task_of(padding: str = "none", rows: int = 3, length: int = 9) -> Task:
    clean = small_models.batch(rows, length, padding, seed=1)
    other = {**clean, "input_ids": small_models.batch(rows, length, padding, seed=2)["input_ids"].clone()}
    other["input_ids"][:, :3] = clean["input_ids"][:, :3]
    names = ("input_ids", "attention_mask")
    draw = np.random.default_rng(0)
    answers = draw.permutation(small_models.VOCABULARY)[: 2 * rows].reshape(2, rows)
    return Task(
        "pairs", {n: clean[n].numpy() for n in names}, {n: other[n].numpy() for n in names}, answers[0], answers[1],
        positions={"early": np.full(rows, 1)},
    )  # fmt: skip


def difference(logits: torch.Tensor, task: Task) -> np.ndarray:
    mask = torch.tensor(task.clean["attention_mask"])
    last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
    rows = torch.arange(len(last))
    found = logits[rows, last]
    return (found[rows, torch.tensor(task.answers)] - found[rows, torch.tensor(task.wrong)]).numpy()
