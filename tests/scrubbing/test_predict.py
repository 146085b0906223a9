"""Predictions of a hypothesis, counted by hand, and held against models that do and do not work as it says."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import scrubjay as sj
from scrubbing.grid import GRID, either, grid_data, grid_model
from scrubjay.claims.data import Dataset, Feature
from scrubjay.errors import HypothesisError, InputError
from scrubjay.scrubbing.predict import wilson

DATA = grid_data(GRID[GRID[:, 1] < 5])
"""z2 > 3 holds for one row in five: where z1 says no, the label is mostly 0."""

ONE = either(b=None, name="only z1 matters")


class OnlyOne(nn.Module):
    """A model that answers by z1 alone."""

    def forward(self, z1: torch.Tensor, z2: torch.Tensor, z3: torch.Tensor) -> torch.Tensor:
        logit = 8.0 * (z1 > 3) - 4 + 0.0 * z2 + 0.0 * z3
        return torch.stack([torch.zeros_like(logit), logit], -1)


def test_a_prediction_is_the_labels_of_the_data_that_agree() -> None:
    found = sj.predict(ONE, grid_data(), DATA)
    for row in range(0, 512, 7):
        agree = DATA.labels[DATA.feature("z1>3").values == (GRID[row, 0] > 3)]
        assert found.agreeing[row] == len(agree)
        assert found.distribution[row].tolist() == [(agree == 0).mean(), (agree == 1).mean()]
    expected = (GRID[:, 0] < 4) & (GRID[:, 1] > 3)  # the rest of the data say 0, and z2 says 1
    assert (found.wrong == expected).all()
    assert (found.features, found.data) == (("z1>3",), DATA.digest)
    assert (
        str(found).splitlines()[0]
        == "only z1 matters: if the result knows z1>3, the model answers 128 of 512 inputs wrongly; of 0 it says nothing"
    )
    both = sj.predict(either(), grid_data(), DATA)
    assert (both.features, both.wrong.any()) == (("z1>3", "z2>3"), np.False_)


def test_the_run_checks_it() -> None:
    found = sj.predict(ONE, grid_data(), DATA)
    failed = found.check(grid_model())
    assert failed.counts == {
        "wrong_as_predicted": 0, "right_against_prediction": 128, "wrong_against_prediction": 0, "right_as_predicted": 384, "unsaid": 0,
    }  # fmt: skip
    assert failed.verdict.startswith(
        "failed: of 128 inputs that it says are answered wrongly, the model gets 0 wrong (0%, interval 0% to 3%)"
    )
    examples = {name: torch.arange(6) % 8 for name in ("z1", "z2", "z3")}
    model = sj.load(OnlyOne().eval(), inputs=examples, dynamic=dict.fromkeys(examples, ("batch",)), cache=None)
    came = found.check(model)
    assert came.counts["wrong_as_predicted"] == 128
    assert came.verdict.startswith("came true: of 128 inputs")
    assert (
        sj.predict(either(), grid_data(), DATA)
        .check(model)
        .verdict.startswith("nothing was predicted to go wrong, so nothing could fail")
    )
    half = failed.answers.copy()
    half[np.flatnonzero(found.wrong)[::2]] = 0
    assert replace(failed, answers=half).verdict.startswith(
        "undecided: of 128 inputs that it says are answered wrongly, the model gets 64 wrong"
    )
    stored = json.loads(json.dumps(came.to_dict(), allow_nan=False))
    assert stored["prediction_digest"] == found.digest


def test_what_the_data_do_not_hold_is_not_predicted() -> None:
    low = grid_data(GRID[GRID[:, 0] < 4])
    found = sj.predict(ONE, grid_data(), low)
    assert (found.agreeing > 0).tolist() == (GRID[:, 0] < 4).tolist()
    assert not found.said.any()  # below, as many labels of either kind; above, no row agrees
    assert (found.answers == -1).all()
    assert not found.wrong.any()
    assert found.check(grid_model()).counts["unsaid"] == 512
    root = sj.Hypothesis("the result keeps z1>3")
    root.node("output", "output", "z1>3")
    assert (sj.predict(root, grid_data(), DATA).wrong == sj.predict(ONE, grid_data(), DATA).wrong).all()
    nothing = sj.Hypothesis("nothing matters")
    nothing.node("output", "output", None)
    assert sj.predict(nothing, grid_data(), DATA).features == ()
    exact = sj.Hypothesis("all matters")
    exact.node("output", "output")
    assert sj.predict(exact, grid_data(), DATA).agreeing.tolist() == (GRID[:, 1] < 5).astype(int).tolist()


def test_inputs_without_other_data_do_not_count_themselves() -> None:
    found = sj.predict(ONE, DATA)
    same = DATA.feature("z1>3").values
    assert found.agreeing[0] == (same == same[0]).sum() - 1
    counted = DATA.labels[(same == same[0]) & (np.arange(len(DATA)) != 0)]
    assert found.distribution[0, 1] == (counted == 1).mean()


def test_it_refuses_what_it_cannot_count() -> None:
    with pytest.raises(HypothesisError, match="no feature 'z1>3'"):
        sj.predict(ONE, Dataset("bare", grid_data().inputs, grid_data().labels))
    with pytest.raises(InputError, match="a prediction counts classes"):
        sj.predict(ONE, Dataset("real", grid_data().inputs, grid_data().labels + 0.5, grid_data().features))
    short = ONE.replaced("a", feature=Feature("short", np.arange(5) % 2))
    with pytest.raises(HypothesisError, match="name a feature that both data sets have"):
        sj.predict(short, grid_data(), DATA)


def test_wilsons_interval() -> None:
    """Against the roots of the equation that defines it."""
    share, low, high = wilson(3, 20)
    for end in (low, high):
        assert low < share < high
        assert (share - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / 20)
    assert np.isnan(wilson(0, 0)).all()
