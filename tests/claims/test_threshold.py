"""Thresholds of real numbers: ties by rule, and the other rule beside it."""

from __future__ import annotations

import numpy as np
import pytest

from scrubjay.claims.data import Dataset, Feature
from scrubjay.claims.threshold import by_rule, threshold
from scrubjay.errors import InputError

VALUES = np.array([0.2, 0.5 - 1e-8, 0.5, 0.5 + 1e-8, 0.9])


def test_ties_are_on_the_side_that_the_rule_says() -> None:
    below = threshold("half", VALUES, 0.5, within=1e-6)
    above = threshold("half", VALUES, 0.5, within=1e-6, tie="above")
    assert below.values.tolist() == [False, False, False, False, True]
    assert above.values.tolist() == [False, True, True, True, True]
    assert below.otherwise is not None
    assert below.otherwise.values.tolist() == above.values.tolist()
    assert below.ties == above.ties == pytest.approx(0.6)
    assert below.tie_rule == "above 0.5; within 1e-06 of it counts as below"
    assert below.to_dict()["ties"] == pytest.approx(0.6)
    assert threshold("half", VALUES, 0.5).ties == pytest.approx(0.2), "an exact tie is one without a tolerance too"


def test_rows_keep_their_other_rule() -> None:
    feature = threshold("half", VALUES, 0.5, within=1e-6)
    data = Dataset("d", {"x": np.zeros((5, 1))}, np.zeros(5), {"half": feature}).select([0, 2])
    kept = data.feature("half")
    assert kept.otherwise is not None
    assert (kept.values.tolist(), kept.otherwise.values.tolist(), kept.ties) == ([False, False], [False, True], 0.5)
    assert "ties" not in Feature("plain", np.zeros(2)).to_dict()


def test_other_rules_are_refused() -> None:
    with pytest.raises(InputError, match="a tie is 'below' or 'above'"):
        threshold("half", VALUES, 0.5, tie="either")
    with pytest.raises(InputError, match="within a tolerance of 0 or more"):
        threshold("half", VALUES, 0.5, within=-1.0)
    with pytest.raises(InputError, match="with ties resolved the other way it has shape"):
        by_rule(lambda rule: Feature("f", np.zeros(2 if rule == "below" else 3)))
