"""What a scrub computes and what it does not: unlike rows once, only values that are asked of a row, no padding, nothing that is held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import scrubjay as sj
from scrubjay.capture.model import Model
from scrubjay.claims.data import Dataset, Feature
from scrubjay.scrubbing import rows as by_rows
from scrubjay.scrubbing.compute import Computed, compute
from scrubjay.scrubbing.sample import draw
from scrubjay.scrubbing.scrub import treed
from scrubjay.zoo.transformer import Config, Transformer

LENGTH, SAMPLES = 12, 40


def module_of(seed: int = 0) -> Transformer:
    config: Any = {
        "layers": 3, "heads": 2, "d_model": 16, "d_head": 8, "d_mlp": 16, "vocabulary": 5, "positions": LENGTH, "outputs": 2,
        "direction": "bidirectional", "readout": "first",
    }  # fmt: skip
    module = Transformer(Config(**config), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module.double().eval()


@pytest.fixture(scope="module")
def model() -> Model:
    return sj.load(module_of(), cache=None)


def data_of(unlike: int, copies: int, longest: int = LENGTH) -> Dataset:
    random = np.random.default_rng(1)
    ids = random.integers(0, 5, (unlike, LENGTH))
    ids[:, 1] = np.arange(unlike) % 5
    ids[:, 2] = np.arange(unlike) // 5 % 5
    lengths = random.integers(3, longest + 1, unlike)
    mask = (np.arange(LENGTH) < lengths[:, None]).astype(np.int64)
    ids, mask = np.tile(ids * mask, (copies, 1)), np.tile(mask, (copies, 1))
    features = {"first": Feature("first", ids[:, 0] % 2), "second": Feature("second", ids[:, 1])}
    inputs = {"input_ids": ids, "attention_mask": mask}
    return Dataset("strings", inputs, random.integers(0, 2, unlike * copies), features)


def heads() -> sj.Hypothesis:
    made = sj.Hypothesis("heads")
    output = made.node("output", "logits")
    output.reads("low", "L0.H0.out@0", "first")
    output.reads("high", "L2.H1.out@0", "second").reads("stream", "L2.resid_pre@1", "second")
    return made


Table = Mapping[str, np.ndarray]


def scrubbed(model: Model, data: Dataset, table: Table, hypothesis: sj.Hypothesis, **more: Any) -> Computed:
    tree = treed(model, hypothesis, data)
    return compute(tree.model, [tree.scrubbed], data, table, **more)


def table_of(model: Model, data: Dataset, hypothesis: sj.Hypothesis, samples: int = SAMPLES) -> dict[str, np.ndarray]:
    return draw(treed(model, hypothesis, data).sources, hypothesis, data, samples, 0)


def test_rows_with_equal_contents_are_computed_once(model: Model) -> None:
    made, many = heads(), data_of(20, 50)
    table = table_of(model, many, made)
    found = scrubbed(model, many, table, made)
    assert found.counts["rows"] == found.rows <= 20
    one = data_of(20, 1)
    same = scrubbed(model, one, {name: rows % 20 for name, rows in table.items()}, made)
    torch.testing.assert_close(found.values[0], same.values[0], rtol=0, atol=1e-12)


def test_a_row_is_computed_no_further_than_it_is_asked_for(model: Model, monkeypatch: Any) -> None:
    monkeypatch.setattr(by_rows, "FEW", 1)
    data, made = data_of(60, 1), heads()
    alike = np.zeros(SAMPLES, np.int64)
    table = dict.fromkeys(table_of(model, data, made), alike)
    base = scrubbed(model, data, table, made).counts
    more = {
        key: scrubbed(model, data, {**table, key: np.arange(SAMPLES)}, made).counts for key in ("low", "output/other")
    }
    extra = {key: counts["multiply_adds"] - base["multiply_adds"] for key, counts in more.items()}
    assert more["low"]["rows"] == more["output/other"]["rows"] == SAMPLES
    assert extra["low"] < 0.35 * extra["output/other"], "one head of the first layer, or all three layers"


def test_few_of_a_pattern_are_computed_with_others_and_each_alone_gives_the_same(
    model: Model, monkeypatch: Any
) -> None:
    data, made = data_of(60, 1), heads()
    table = table_of(model, data, made)
    found = []
    for few, bytes_ in ((1, 10_000), (10_000, 10_000), (10_000, 10**9)):
        monkeypatch.setattr(by_rows, "FEW", few)
        monkeypatch.setattr(by_rows, "AT_ONCE_BYTES", bytes_)
        found.append(scrubbed(model, data, table, made))
    assert found[0].counts["row_nodes"] > found[2].counts["row_nodes"]
    for other in found[1:]:
        torch.testing.assert_close(found[0].values[0], other.values[0], rtol=0, atol=1e-12)


def test_padding_behind_rows_is_not_computed(model: Model, monkeypatch: Any) -> None:
    data, made = data_of(60, 1, longest=6), sj.Hypothesis("a head")
    made.node("output", "logits").reads("high", "L2.H0.out@0", "first")
    table = table_of(model, data, made)
    found = scrubbed(model, data, table, made)
    assert found.counts["tokens"] <= 6 * found.counts["rows"]
    monkeypatch.setattr(by_rows, "_cut", lambda rows, asked: by_rows._Cut(frozenset(), 0))
    whole = scrubbed(model, data, table, made)
    assert whole.counts["tokens"] == LENGTH * whole.counts["rows"]
    torch.testing.assert_close(found.values[0], whole.values[0], rtol=0, atol=1e-12)


class Mean(nn.Module):
    """Reads its mask, and means over padding all the same."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.out = nn.Embedding(5, 8), nn.Linear(8, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.embed(input_ids)).mean(1)) + attention_mask.sum(1, keepdim=True)


def test_padding_that_counts_is_kept() -> None:
    module = Mean().double().eval()
    ids = torch.zeros(2, 6, dtype=torch.long)
    model = sj.load(module, inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)}, cache=None)
    data, made = data_of(60, 1, longest=6), sj.Hypothesis("plain")
    made.node("output", "logits", "first")
    table = table_of(model, data, made)
    found = scrubbed(model, data, table, made)
    assert found.counts["tokens"] == LENGTH * found.counts["rows"]
    rows = table["output"]
    named = {name: torch.tensor(array[rows]) for name, array in data.inputs.items()}
    torch.testing.assert_close(found.values[0], module(**named).detach(), rtol=0, atol=1e-12)


def test_held_values_are_looked_up_by_any_hypothesis_and_seed(model: Model) -> None:
    data, cache = data_of(60, 2), sj.Cache("100 MB")
    first = sj.scrub(model, heads(), data, samples=SAMPLES, seeds=1, cache=cache)
    kept = len(cache)
    assert kept > 0
    table = table_of(model, data, heads(), 30)
    looked = scrubbed(model, data, table, heads(), cache=cache)
    assert (looked.counts["rows"], looked.counts["row_nodes"], looked.counts["tokens"]) == (0, 0, 0)
    assert looked.counts["held"] > 0
    fresh = scrubbed(model, data, table, heads())
    torch.testing.assert_close(looked.values[0], fresh.values[0], rtol=0, atol=1e-12)
    assert looked.rows == fresh.rows, "what a result depends on says nothing of caches"
    again = sj.scrub(model, heads(), data, samples=SAMPLES, seeds=1)
    assert np.allclose(first.per_example, again.per_example, rtol=0, atol=1e-12)
    assert len(cache) == kept


def test_held_values_are_those_of_the_weights_as_they_are_now() -> None:
    module = module_of()
    model, data, cache = sj.load(module, cache=None), data_of(60, 1), sj.Cache("100 MB")
    before = sj.scrub(model, heads(), data, samples=SAMPLES, seeds=1, cache=cache)
    with torch.no_grad():
        next(iter(module.parameters())).mul_(1.5)
    model = sj.load(module, cache=None)
    after = sj.scrub(model, heads(), data, samples=SAMPLES, seeds=1, cache=cache)
    fresh = sj.scrub(model, heads(), data, samples=SAMPLES, seeds=1)
    assert np.allclose(after.per_example, fresh.per_example, rtol=0, atol=1e-12)
    assert not np.allclose(after.per_example, before.per_example, rtol=0, atol=1e-3)


def test_what_a_cache_has_no_room_for_is_computed_for_the_rows_drawn(model: Model) -> None:
    data, small = data_of(60, 1), sj.Cache(100)
    table = {name: rows % 10 for name, rows in table_of(model, data, heads()).items()}
    found = [scrubbed(model, data, table, heads(), cache=small) for _ in range(2)]
    plain = scrubbed(model, data, table, heads())
    for one in found:
        assert 0 < one.counts["rows"] <= 10, "the rows drawn, and not all 60"
        torch.testing.assert_close(one.values[0], plain.values[0], rtol=0, atol=1e-12)


def test_a_rehearsal_counts_what_is_then_done(model: Model) -> None:
    data, made = data_of(60, 1, longest=7), heads()
    table = table_of(model, data, made)
    told, done = (scrubbed(model, data, table, made, rehearsal=flag) for flag in (True, False))
    assert told.counts == done.counts
    assert done.counts["multiply_adds"] > 0


def test_a_plan_has_the_counts_of_the_scrub(model: Model) -> None:
    data = data_of(60, 1, longest=7)
    asked: dict[str, Any] = {"samples": SAMPLES, "seeds": 2, "floor": ("claimed", "all")}
    told = sj.plan(sj.scrub, model, heads(), data, **asked)
    found = sj.scrub(model, heads(), data, **asked)
    assert told.counts == found.facts["counts"]
    assert "multiply-adds" in str(told)
    held = sj.scrub(model, heads(), data, cache=sj.Cache(), **asked)
    assert held.facts["counts"] != found.facts["counts"]
    assert "counts" not in str(held.to_dict()), "what a result says hangs on no cache"
    with pytest.raises(sj.errors.InputError, match="samples='all'"):
        sj.plan(sj.scrub, model, heads(), data, samples="all")
    assert sj.plan(sj.run, model, dict(data.inputs)).counts["rows"] == 60


def test_permuted_draws_scrub_and_replay(model: Model) -> None:
    data = data_of(60, 1)
    once = sj.scrub(model, heads(), data, samples=60, seeds=2, draws="permutation")
    assert sorted(once.table["reference"][:60].tolist()) == list(range(60))
    again = sj.scrub(model, heads(), data, table=once.table)
    assert (again.per_example == once.per_example).all()


def test_subnormal_numbers_are_zero_while_a_scrub_computes_and_as_before_after_it(model: Model) -> None:
    tiny = torch.tensor(torch.finfo(torch.float32).tiny)
    data, made, seen = data_of(20, 1), heads(), list[float]()
    assert float(tiny * 0.5) > 0
    scrubbed(model, data, table_of(model, data, made), made, progress=lambda *_: seen.append(float(tiny * 0.5)))
    assert seen
    assert float(tiny * 0.5) > 0
    if torch.set_flush_denormal(True):  # this processor can
        torch.set_flush_denormal(False)
        assert not any(seen)
