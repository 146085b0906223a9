"""A model whose rows read each other is computed whole, or refused: never in batches, nor row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import scrubjay as sj
import small_models
from pairs import task_of
from scrubjay.errors import CaptureError, CheckError, InputError


class Centred(nn.Module):
    """Two layers, the second of which reads the mean over the rows of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.first = nn.Embedding(small_models.VOCABULARY, 16), nn.Linear(16, 16)
        self.second, self.out = nn.Linear(16, 16), nn.Linear(16, small_models.VOCABULARY)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return logits (batch, query, vocab)."""
        x = torch.tanh(self.first(self.table(input_ids)))
        return self.out(torch.tanh(self.second(x - x.mean(0, keepdim=True))))


def seventh(logits: Tensor) -> Tensor:
    """A metric."""
    return logits[:, -1, 7]


def test_rows_that_read_each_other_stay_together() -> None:
    torch.manual_seed(0)
    module = Centred().eval()
    small_models.redraw(module, 1)
    model = sj.load(module, inputs={"input_ids": torch.zeros(2, 12, dtype=torch.long)}, cache=None)
    assert model.verdict is not None
    assert (model.verdict.exact, model.verdict.rows_independent) == (True, False)
    task = task_of(length=9)
    clean, other = (torch.tensor(one["input_ids"]) for one in (task.clean, task.counterfactual))
    pairs = sj.Task("t", {"input_ids": clean.numpy()}, {"input_ids": other.numpy()}, task.answers, task.wrong)
    made = sj.sweep(model, pairs, ".first", positions=-1, metric=seventh)
    with torch.no_grad():
        mixed = torch.cat([other[:, :-1], clean[:, -1:]], 1)  # nothing but the last token reaches the last logits
        logits = module(mixed)[:, -1]
    np.testing.assert_allclose(made.values.reshape(3), logits[:, 7].numpy(), rtol=0, atol=1e-5)
    least = made.counts["peak_bytes"]
    with pytest.raises(
        InputError, match=r"3 rows, which cannot be computed apart \(rows of this model are not known to"
    ):
        sj.sweep(model, pairs, ".first", positions=-1, metric=seventh, budget=least // 2)
    data = sj.Dataset("rows", {"input_ids": clean.numpy()}, np.array([0, 1, 0]), {})
    hypothesis = sj.Hypothesis("h")
    hypothesis.node("answer", site="logits")
    with pytest.raises(CheckError, match="rows are not independent"):
        sj.scrub(model, hypothesis, data, samples=4, seeds=1)


def test_batch_norm_in_training_is_refused() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    example = {"input": torch.randn(3, 4)}
    with pytest.raises(CaptureError, match=r"call module\.eval\(\) first"):
        sj.load(module.train(), inputs=example, dynamic={"input": ("batch", None)}, cache=None)
    bare = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 2)).eval()
    with pytest.raises(CaptureError, match="batch_norm"):
        sj.load(bare, inputs=example, dynamic={"input": ("batch", None)}, cache=None)
    model = sj.load(module.eval(), inputs=example, dynamic={"input": ("batch", None)}, cache=None)
    assert model.verdict is not None
    assert model.verdict.rows_independent is True
