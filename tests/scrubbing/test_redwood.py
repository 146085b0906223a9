"""Redwood's bracket experiments 0a, 0b, 1a, 1b on their model and their data, against the losses they published.

The model is another author's, in another layout; the features are computed by the task; the hypotheses are those of the
experiments. A published value has its own standard error, and so has ours: the z-test takes both.
"""

import csv
import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import scrubjay as sj
from scrubjay.capture.model import Model
from scrubjay.claims.data import Dataset
from scrubjay.tasks import brackets

PUBLISHED = {"0a": (0.0, 0.01), "0b": (4.30, 0.12), "1a": (0.52, 0.04), "1b": (0.30, 0.04)}
SAMPLES, SEEDS = 4000, 5


def kit_module(folder: Path) -> torch.nn.Module:
    spec = importlib.util.spec_from_file_location("kit_models", Path(__file__).parents[1] / "kit_models.py")
    assert spec is not None
    assert spec.loader is not None
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    return loader.load_kit_model(folder)


@pytest.fixture(scope="module")
def model(kit: Path) -> Model:
    ids = torch.zeros(2, 12, dtype=torch.long)
    return sj.load(
        kit_module(kit / "models/paren_balance"),
        inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        cache=None,
    )


@pytest.fixture(scope="module")
def data(kit: Path) -> Dataset:
    with (kit / "datasets/brackets_redwood.csv").open() as file:
        rows = list(csv.DictReader(file))
    return brackets.dataset([row["string"] for row in rows], [int(row["balanced"]) for row in rows], name="redwood")


def experiment(name: str) -> sj.Hypothesis:
    made = sj.Hypothesis(name)
    if name == "0b":  # the result itself is another datum's
        made.node("output", "logits@0", None)
        return made
    output = made.node("output", "logits@0")
    if name != "0a":
        counts = {"1a": "count", "1b": "count_open"}[name]
        output.reads("1.0", "L1.H0.out@0", counts)
        output.reads("2.0", "L2.H0.out@0", counts)
        output.reads("2.1", "L2.H1.out@0", "horizon")
    return made


@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_loss_is_found(model: Model, data: Dataset, name: str) -> None:
    result = sj.scrub(model, experiment(name), data, samples=SAMPLES, seeds=SEEDS)
    published, error = PUBLISHED[name]
    z = (result.scrubbed - published) / np.hypot(error, result.standard_error)
    if abs(z) > 2:
        warnings.warn(
            f"experiment {name}: {result.scrubbed:.3f}, published {published} ± {error}: z = {z:.1f}",
            UserWarning,
            stacklevel=1,
        )
    assert abs(z) <= 4, (
        f"experiment {name}: {result.scrubbed:.3f} ± {result.standard_error:.3f}, published {published} ± {error}"
    )
    assert abs(result.floor - 4.30) <= 4 * np.hypot(0.12, result.floor_error)
    assert abs(result.constant - 0.577) < 0.02, "entropy of labels that are 26.4% balanced"


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
