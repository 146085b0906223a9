"""Thresholds of real numbers: which side a tie is on is said, and the feature with ties on the other side is kept beside it.

A number computed in floating point is known to some precision only. Where it should equal the threshold, rounding would decide the
feature; so numbers within a tolerance of it count as equal to it, and a rule says on which side they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from scrubjay.claims.data import Feature
from scrubjay.errors import InputError

RULES = ("below", "above")


def threshold(
    name: str, values: np.ndarray, at: float, *, tie: str = "below", within: float = 0.0, description: str = ""
) -> Feature:
    """Return the feature [value > at], numbers within `within` of `at` being ties.

    `tie` says on which side ties are. The feature's `otherwise` is that of the other rule, and its `ties` the share of values that the
    rule decides. Raises `InputError` for another rule or a negative tolerance.

    >>> found = threshold("more than half", np.array([0.2, 0.5000001, 0.9]), at=0.5, within=1e-5)
    >>> found.values, found.otherwise.values, round(found.ties, 2)
    (array([False, False,  True]), array([False,  True,  True]), 0.33)
    """
    return by_rule(
        lambda rule: Feature(name, above(values, at, tie=rule, within=within), description, said(at, rule, within)), tie
    )


def above(values: np.ndarray, at: float, *, tie: str, within: float = 0.0) -> np.ndarray:
    """Return which values are above `at`, ties as the rule says; the shape of `values`."""
    if tie not in RULES or not within >= 0:
        raise InputError(
            f"tie={tie!r}, within={within!r}: a tie is 'below' or 'above', within a tolerance of 0 or more"
        )
    return values > at + within if tie == "below" else values >= at - within


def by_rule(make: Callable[[str], Feature], tie: str = "below") -> Feature:
    """Return a feature made by one rule for ties, with the one that the other rule makes beside it: for what thresholds are made into."""
    if tie not in RULES:
        raise InputError(f"tie={tie!r} is no rule: a tie is 'below' or 'above'")
    other = RULES[tie == "below"]
    return replace(make(tie), otherwise=make(other))


def said(at: float, tie: str, within: float) -> str:
    """Return a rule in words.

    >>> said(0.5, "below", 1e-05)
    'above 0.5; within 1e-05 of it counts as below'
    """
    return f"above {at:g}; within {within:g} of it counts as {tie}"
