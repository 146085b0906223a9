"""How rows are drawn: with replacement, or each at most once by a source and seed; and data that cannot be drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import scrubjay as sj
from scrubjay.claims.data import Dataset, Feature
from scrubjay.scrubbing.sample import Classes, draw
from scrubjay.scrubbing.sources import Source

ROWS = 60
SOURCES = (
    Source("reference", None, None),
    Source("head", "reference", "kind"),
    Source("below", "head", "parity"),
    Source("head/other", None, None),
)


@pytest.fixture(scope="module")
def data() -> Dataset:
    numbers = np.arange(ROWS)
    kinds = Feature("kind", numbers % 7)  # classes of 8 and 9 rows
    return Dataset("numbers", {"x": numbers}, numbers % 2, {"kind": kinds, "parity": Feature("parity", numbers % 2)})


HYPOTHESIS = sj.Hypothesis("none")


@pytest.mark.parametrize("samples", [ROWS, 41])
def test_a_permutation_draws_no_row_twice_and_keeps_to_classes(data: Dataset, samples: int) -> None:
    for seed in range(5):
        table = draw(SOURCES, HYPOTHESIS, data, samples, seed, "permutation")
        for name, rows in table.items():
            assert len(set(rows.tolist())) == samples, name
        for source in SOURCES[1:3]:
            values = data.feature(str(source.feature)).values
            assert (values[table[source.name]] == values[table[str(source.parent)]]).all()
    assert sorted(draw(SOURCES, HYPOTHESIS, data, ROWS, 0, "permutation")["reference"]) == list(range(ROWS))


def test_single_draws_of_a_permutation_are_uniform_in_their_class() -> None:
    values = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    classes = Classes.by(values)
    every = [classes.permuted(np.array([4, 1]), np.random.default_rng(seed)) for seed in range(4000)]
    drawn = np.stack([one for one in every if one is not None])
    assert len(drawn) == 4000
    for column, members in ((0, [3, 4, 5, 6, 7]), (1, [0, 1, 2])):
        counts = np.bincount(drawn[:, column], minlength=8)[members]
        assert counts.sum() == len(drawn)
        assert (np.abs(counts / len(drawn) - 1 / len(members)) < 4 * np.sqrt(0.25 / len(drawn))).all()


def test_with_replacement_rows_repeat_and_streams_are_each_sources_own(data: Dataset) -> None:
    table = draw(SOURCES, HYPOTHESIS, data, ROWS, 0)
    assert len(set(table["reference"].tolist())) < ROWS
    fewer = draw([SOURCES[0], SOURCES[3]], HYPOTHESIS, data, ROWS, 0)
    assert (fewer["head/other"] == table["head/other"]).all()


def test_a_permutation_of_rows_that_repeat_is_refused(data: Dataset) -> None:
    with pytest.raises(sj.errors.HypothesisError, match=r"samples=61 .*each row is drawn at most once.* has 60 rows"):
        draw(SOURCES, HYPOTHESIS, data, ROWS + 1, 0, "permutation")
    fixed = [SOURCES[0], Source("always", None, None, row=3), Source("head", "always", "kind")]
    with pytest.raises(sj.errors.HypothesisError, match=r"'head' cannot be drawn.*those of 'always'.*repeat"):
        draw(fixed, HYPOTHESIS, data, 5, 0, "permutation")
    twice = np.array([1, 1, 2])
    with pytest.raises(sj.errors.HypothesisError, match=r"'head' cannot be drawn.*'reference'"):
        draw(SOURCES, HYPOTHESIS, data, 3, 0, "permutation", references=twice)


def test_a_place_for_each_position_is_dealt_out_by_place() -> None:
    ids = np.arange(30).reshape(10, 3)
    each = Feature("each", ids % 2)
    data = Dataset("places", {"input_ids": ids}, np.zeros(10), {"each": each})
    sources = [SOURCES[0], Source("apart", "reference", "each", each=True)]
    table = draw(sources, HYPOTHESIS, data, 10, 0, "permutation")
    assert table["apart"].shape == (10, 3)
    for place in range(3):
        rows = table["apart"][:, place]
        assert sorted(rows.tolist()) == list(range(10))
        assert (each.values[rows, place] == each.values[table["reference"], place]).all()


def test_classes_that_are_too_small_are_listed(data: Dataset) -> None:
    small = Feature("small", np.where(np.arange(ROWS) < 40, np.arange(ROWS), -1))
    from scrubjay.scrubbing.sample import class_sizes  # noqa: PLC0415

    made = Dataset("numbers", data.inputs, data.labels, {"small": small})
    with pytest.raises(
        sj.errors.HypothesisError, match=r"'small' tells 67% of the 60 rows .*smallest classes: 0 \(1 row\)"
    ):
        class_sizes([SOURCES[0], Source("head", "reference", "small")], HYPOTHESIS, made)
    few = Feature("few", np.where(np.arange(ROWS) < 20, np.arange(ROWS), -1))
    sizes = class_sizes(
        [Source("head", "reference", "few")], HYPOTHESIS, Dataset("numbers", data.inputs, data.labels, {"few": few})
    )
    assert (sizes["few"].smallest, sizes["few"].classes) == (1, 21)


def test_draws_and_options_that_are_unknown_are_refused(data: Dataset) -> None:
    unknown: Any = {"drawn": "once"}
    from scrubjay.scrubbing.options import way_of  # noqa: PLC0415

    with pytest.raises(TypeError, match="unexpected keyword argument 'drawn'"):
        way_of(unknown)
    with pytest.raises(sj.errors.InputError, match="draws='once' is no way to draw rows"):
        way_of({"draws": "once"})
