"""A function of three numbers whose scrubbed losses are known by enumeration; see `test_closed_form`."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

import scrubjay as sj
from scrubjay.capture.model import Model
from scrubjay.claims.data import Dataset, Feature

GRID = np.array(list(itertools.product(range(8), repeat=3)))


class Above(nn.Module):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return (z > 3).to(torch.float32)


class Either(nn.Module):
    """Two results, for the label 0 and the label 1: their difference is the closed form's logit."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Above(), Above()

    def forward(self, z1: torch.Tensor, z2: torch.Tensor, z3: torch.Tensor) -> torch.Tensor:
        either = torch.maximum(self.a(z1), self.b(z2))
        logit = 8 * either - 4 + 0.5 * (z3 / 7 - 0.5)
        return torch.stack([torch.zeros_like(logit), logit], -1)


@cache
def grid_model() -> Model:
    examples = {name: torch.arange(6) % 8 for name in ("z1", "z2", "z3")}
    return sj.load(Either().eval(), inputs=examples, dynamic=dict.fromkeys(examples, ("batch",)), cache=None)


def grid_data(rows: np.ndarray = GRID, name: str = "grid", **more: Any) -> Dataset:
    z1, z2, z3 = rows.T
    values = {"z1>3": z1 > 3, "z1>4": z1 > 4, "z1 odd": z1 % 2, "z2>3": z2 > 3, "z1": z1}
    labels = ((z1 > 3) | (z2 > 3)).astype(np.int64)
    features = {key: Feature(key, np.asarray(value)) for key, value in values.items()}
    return Dataset(name, {"z1": z1, "z2": z2, "z3": z3}, labels, features, **more)


def fresh(rows: int, seed: int) -> Dataset:
    """The task's generator: rows of the grid, drawn."""
    return grid_data(GRID[np.random.default_rng(seed).integers(len(GRID), size=rows)], "drawn")


def either(a: str | None = "z1>3", b: str | None = "z2>3", name: str = "either") -> sj.Hypothesis:
    made = sj.Hypothesis(name)
    output = made.node("output", site="output")
    output.reads("a", ".a", a, via="all")
    output.reads("b", ".b", b, via="all")
    return made
