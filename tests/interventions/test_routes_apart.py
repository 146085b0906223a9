"""Path patches of a model that was edited with a Python function, which takes no axis of variants: sender by sender, the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scrubjay as sj
import small_models
from pairs import task_of

SENDERS, RECEIVERS = ["embed", "L0.H*.out"], ["L1.H*.q_in", "L1.mlp.in", "L1.resid_post"]


def same(value: torch.Tensor) -> torch.Tensor:
    """Give back what it is given: an edit that changes no number, but stands in the circuit as a function."""
    return value


@pytest.mark.parametrize("mlps", ["freeze", "recompute"])
@pytest.mark.parametrize("site", ["L1.mlp.out", "L0.mlp.out", "L1.H1.z"])
def test_paths_below_a_function_are_those_of_the_plain_model(site: str, mlps: str) -> None:
    _, model = small_models.captured("llama")
    edited, task = sj.edit(model, sj.apply(site, same)), task_of("left")
    whole = sj.path_patch(model, task, SENDERS, RECEIVERS, "noise", mlps)
    made = sj.path_patch(edited, task, SENDERS, RECEIVERS, "noise", mlps)
    np.testing.assert_allclose(made.values, whole.values, atol=1e-5)
    assert np.abs(whole.values - whole.clean).max() > 1e-3


def test_edges_below_a_function_are_those_of_the_plain_model() -> None:
    _, model = small_models.captured("llama")
    edited, task = sj.edit(model, sj.apply("L1.H1.z", same)), task_of("left")
    whole, made = (sj.edge_patch(one, task, "noise") for one in (model, edited))
    assert made.labels == whole.labels
    np.testing.assert_allclose(made.values, whole.values, atol=1e-5)
