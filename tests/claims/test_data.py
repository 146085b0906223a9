"""Data sets and features: checks on construction, selection, digests, descriptions."""

import json

import numpy as np
import pytest

from scrubjay.claims import Dataset, Feature
from scrubjay.errors import AddressError, InputError

IDS = np.array([[0, 3, 4, 2], [0, 4, 3, 2], [0, 3, 3, 2]])


def made(**changes):
    given = {
        "name": "pairs",
        "inputs": {"input_ids": IDS, "attention_mask": np.ones_like(IDS)},
        "labels": np.array([1, 0, 0]),
        "features": {
            "start": Feature("start", IDS[:, 1] == 3, "starts open"),
            "at": Feature("at", IDS * 0.5, tie_rule="none"),
        },
        "texts": ("()", ")(", "(("),
    }
    return Dataset(**{**given, **changes})


def test_arrays_are_copied_and_read_only():
    mine = np.array([True, False])
    feature = Feature("f", mine)
    mine[0] = False
    assert feature.values[0]
    with pytest.raises(ValueError, match="read-only"):
        feature.values[0] = False
    data = made()
    with pytest.raises(ValueError, match="read-only"):
        data.inputs["input_ids"][0, 0] = 1
    with pytest.raises(TypeError):
        data.inputs["more"] = IDS  # pyright: ignore[reportIndexIssue]


def test_repr_is_one_line():
    assert repr(made()) == "Dataset('pairs', 3 rows, inputs: input_ids, attention_mask; features: start, at)"
    assert repr(made().feature("at")) == "Feature('at', float64, 3 rows x 4 positions)"


def test_description_is_json_without_arrays():
    described = made().to_dict()
    assert json.loads(json.dumps(described)) == described
    assert described["rows"] == 3
    assert described["features"][0] == {
        "name": "start",
        "dtype": "bool",
        "shape": [3],
        "description": "starts open",
        "tie_rule": "",
    }


def test_unknown_feature_lists_near_names():
    with pytest.raises(AddressError, match=r"feature 'strat' was asked for, .* start, at; did you mean start"):
        made().feature("strat")


@pytest.mark.parametrize("rows", [[2, 0, 0], np.array([2, 0, 0]), np.array([-1, 0, -3])])
def test_selection_keeps_order_and_repeats(rows):
    chosen = made().select(rows)
    assert chosen.texts == ("((", "()", "()")
    assert chosen.labels.tolist() == [0, 1, 1]
    assert chosen.feature("start").values.tolist() == [True, True, True]
    assert chosen.feature("at").tie_rule == "none"
    assert np.array_equal(chosen.inputs["input_ids"], IDS[[2, 0, 0]])


def test_selection_by_mask_and_slice():
    assert made().select(np.array([False, True, True])).texts == (")(", "((")
    assert made().select(slice(1, None)).digest == made().select([1, 2]).digest


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([3], "row 3 was asked for, but data set 'pairs' has 3 rows"),
        ([], "selection of no rows"),
        (np.zeros(3, dtype=bool), "selection of no rows"),
        (np.zeros(2, dtype=bool), r"shape \(2,\) and dtype bool"),
        ([0.5], "dtype float64"),
    ],
)
def test_wrong_selections_are_refused(rows, message):
    with pytest.raises(InputError, match=message):
        made().select(rows)


def test_digest_is_of_contents_alone():
    assert made().digest == made(name="other").digest
    assert made().digest == made(inputs={"attention_mask": np.ones_like(IDS), "input_ids": IDS}).digest
    changed = [
        made(labels=np.array([1, 1, 0])),
        made(texts=()),
        made(features={}),
        made(inputs={"input_ids": IDS}),
    ]
    assert len({made().digest, *(data.digest for data in changed)}) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.array([1, 0])}, "same number of rows everywhere, but has .* the labels 2"),
        ({"texts": ("()",)}, "the texts 1"),
        ({"inputs": {}}, "no inputs"),
        ({"inputs": {"x": np.array(3)}}, r"input 'x' has shape \(\)"),
        ({"inputs": {"x": np.array(["a", "b", "c"])}}, "dtype <U1"),
        ({"inputs": {"x": np.array([0.0, np.nan, 0.0])}}, "input 'x' holds NaN"),
        ({"features": {"begin": Feature("start", np.zeros(3))}}, "'start' under the key 'begin'"),
        ({"inputs": {"x": IDS[:0]}, "labels": IDS[:0, 0], "features": {}, "texts": ()}, "0 rows"),
    ],
)
def test_ill_formed_data_sets_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        made(**changes)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("", np.zeros(2), "empty name"),
        ("f", np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
        ("f", np.array(1), r"shape \(\)"),
        ("f", np.array(["a"]), "dtype <U1"),
        ("f", np.array([0.0, np.nan]), r"NaN at row 1 \(of 1 such values\)"),
    ],
)
def test_ill_formed_features_are_refused(name, values, message):
    with pytest.raises(InputError, match=message):
        Feature(name, values)
