"""Redwood's bracket experiments on their model and their data, against the losses they published.

The model is another author's, in another layout; the features are computed by the task; the hypotheses are those of the
experiments, in the claims language alone (`redwood.experiment`). A published value has its own standard error, and so has ours: the
z-test takes both.
"""

from __future__ import annotations

import csv
import importlib.util
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scrubjay as sj
from scrubbing.redwood import PUBLISHED, experiment
from scrubjay.capture.model import Model
from scrubjay.circuit.graph import topological
from scrubjay.claims.data import Dataset
from scrubjay.scrubbing.tree import treeify
from scrubjay.tasks import brackets

SAMPLES = {"0": 4000, "1": 4000}
"""References for each of 5 seeds, by the experiment's number: 20,000 in all; of the others, which compute more, 800 (4,000 in all)."""
SEEDS = 5
NO_PUBLISHED = {"bonus": (0.15, 0.3), "2p1": (0.3, 0.5), "2p3": (0.45, 0.65)}
"""Between which losses those lie that have no published value: where they stand among the others that they refine."""


def kit_module(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("kit_models", Path(__file__).parents[1] / "kit_models.py")
    assert spec is not None
    assert spec.loader is not None
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    return loader.load_kit_model(folder)


@pytest.fixture(scope="module")
def module(kit: Path) -> Any:
    return kit_module(kit / "models/paren_balance")


@pytest.fixture(scope="module")
def model(module: Any) -> Model:
    ids = torch.zeros(2, 12, dtype=torch.long)
    return sj.load(module, inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)}, cache=None)


@pytest.fixture(scope="module")
def shares(module: Any, data: Dataset) -> np.ndarray:
    """The adjusted proportions, in 64 bits, from head 0.0's weights."""
    block = module.blocks[0]
    norm = torch.nn.LayerNorm(56, eps=block.ln1.eps).double()
    norm.load_state_dict(block.ln1.state_dict())
    with torch.no_grad():
        normed = norm(module.embed.double()[:, None] + module.pos_embed.double()[None, : brackets.POSITIONS]).numpy()
    query, key = (
        (weight[0].double().numpy(), bias[0].double().numpy())
        for weight, bias in ((block.w_q, block.b_q), (block.w_k, block.b_k))
    )
    return brackets.proportions(data.inputs["input_ids"], brackets.adjusted_weights(normed, query, key))


@pytest.fixture(scope="module")
def data(kit: Path) -> Dataset:
    with (kit / "datasets/brackets_redwood.csv").open() as file:
        rows = list(csv.DictReader(file))
    return brackets.dataset([row["string"] for row in rows], [int(row["balanced"]) for row in rows], name="redwood")


@pytest.fixture(scope="module")
def adjusted(data: Dataset, shares: np.ndarray) -> Dataset:
    """The data with the horizon test by adjusted proportions: ties, to 1e-5, pass."""
    found = brackets.horizon_features(data.inputs["input_ids"], shares, "horizon_adjusted", within=1e-5)
    return replace(data, features={**data.features, **found})


@pytest.fixture(scope="module")
def direction(module: Any) -> np.ndarray:
    """The open vector: half of what head 0.0's values make of "(" less what they make of ")", the mean over positions 1..40."""
    block = module.blocks[0]
    with torch.no_grad():
        write = lambda token: block.ln1(module.embed[token] + module.pos_embed[1:41]) @ block.w_v[0] @ block.w_o[0]  # noqa: E731
        return ((write(brackets.OPEN) - write(brackets.CLOSE)).mean(0) / 2).double().numpy()


def scrubbed(model: Model, data: Dataset, name: str, direction: np.ndarray, samples: int = 800) -> sj.ScrubResult:
    horizon = "horizon_adjusted" if name in {"3b", "4"} else "horizon"
    hypothesis = experiment(name, direction, horizon)
    again = sj.Hypothesis.from_dict(hypothesis.to_dict())  # from its statement as JSON
    return sj.scrub(model, again, data, samples=SAMPLES.get(name[0], samples), seeds=SEEDS)


@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_loss_is_found(model: Model, adjusted: Dataset, direction: np.ndarray, name: str) -> None:
    agrees(scrubbed(model, adjusted, name, direction), name)


@pytest.mark.slow
@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.parametrize("name", [name for name in PUBLISHED if name[0] not in SAMPLES])
def test_the_published_loss_is_found_with_4000_references_a_seed(
    model: Model, adjusted: Dataset, direction: np.ndarray, name: str
) -> None:
    agrees(scrubbed(model, adjusted, name, direction, samples=4000), name)


def agrees(result: sj.ScrubResult, name: str) -> None:
    """Fail above 4 standard errors, theirs and ours, and warn above 2."""
    published, error = PUBLISHED[name]
    z = (result.scrubbed - published) / np.hypot(error, result.standard_error)
    found = f"experiment {name}: {result.scrubbed:.3f} ± {result.standard_error:.3f}, published {published} ± {error}: z = {z:.1f}"
    if abs(z) > 2:
        warnings.warn(found, UserWarning, stacklevel=1)
    assert abs(z) <= 4, found
    assert abs(result.floor - 4.30) <= 4 * np.hypot(0.12, result.floor_error)
    assert abs(result.constant - 0.577) < 0.02, "entropy of labels that are 26.4% balanced"


@pytest.mark.parametrize("name", NO_PUBLISHED)
def test_experiments_without_a_published_loss_stand_where_they_should(
    model: Model, adjusted: Dataset, direction: np.ndarray, name: str
) -> None:
    low, high = NO_PUBLISHED[name]
    assert low < scrubbed(model, adjusted, name, direction).scrubbed < high


def test_forty_two_positions_are_one_look_up(model: Model, adjusted: Dataset, direction: np.ndarray) -> None:
    """Sources of each position are one column of the index table, and no copy of the model."""
    plain, each = (treeify(model, experiment(name, direction)) for name in ("1b", "3a"))
    assert len(topological([each.scrubbed])) < 1.5 * len(topological([plain.scrubbed]))
    assert [source.each for source in each.sources if source.name == "2.1 at each position"] == [True]
    table = sj.scrub(model, experiment("3a", direction), adjusted.select(slice(300)), samples=10, seeds=1).table
    assert table["2.1 at each position"].shape == (10, brackets.POSITIONS)
    features = adjusted.feature("horizon_at").values[:300]
    drawn, places = table["2.1 at each position"], np.arange(brackets.POSITIONS)
    np.testing.assert_array_equal(features[drawn, places], features[table["2.1"]])
    assert len(np.unique(drawn[:, 3:20])) > 60, "each position its own"


def test_ties_decide_the_adjusted_horizon(
    model: Model, adjusted: Dataset, shares: np.ndarray, direction: np.ndarray
) -> None:
    """A tenth of the adjusted proportions is one half to rounding; which side they are on costs more than a nat."""
    feature = adjusted.feature("horizon_adjusted")
    real = np.arange(shares.shape[1]) < (adjusted.feature("length").values - 1)[:, None]
    assert 0.05 < (np.abs(shares - 0.5)[real] < 1e-5).mean() < 0.12
    assert feature.otherwise is not None
    assert 0.2 < feature.ties < 0.3
    assert adjusted.feature("horizon").ties == 0, "exact: counts are compared as integers"
    at = adjusted.feature("horizon_adjusted_at")
    assert at.otherwise is not None
    other = replace(adjusted, features={**adjusted.features, feature.name: feature.otherwise, at.name: at.otherwise})
    some = np.random.default_rng(0).choice(len(adjusted), 20_000, replace=False)
    hypothesis = experiment("3b", direction, "horizon_adjusted")
    below, above = (sj.scrub(model, hypothesis, rows.select(some), samples=800, seeds=1) for rows in (adjusted, other))
    assert above.scrubbed - below.scrubbed > max(0.7, 4 * np.hypot(above.standard_error, below.standard_error))


def test_the_horizon_of_the_task_is_that_of_the_published_proportions(data: Dataset) -> None:
    """Exact counts against the floating proportions of the published code, on every row."""
    ids = data.inputs["input_ids"][:2000]
    for row, horizon, count in zip(ids, data.feature("horizon").values, data.feature("count").values, strict=False):
        opens = np.cumsum((row == 3)[::-1])[::-1]
        closes = np.cumsum((row == 4)[::-1])[::-1]
        real = opens + closes > 0
        proportions = opens[real] / (opens[real] + closes[real])
        assert horizon == (proportions.max() <= 0.5)
        assert count == (proportions[0] == 0.5)
