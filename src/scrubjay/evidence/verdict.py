"""What a scrub says, in words, from its figures alone: so that a record's verdict can be checked as its numbers are."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from scrubjay.evidence.criterion import Criterion
from scrubjay.evidence.digest import digest_json

BAR = 0.9
"""What the fraction recovered is held against where no criterion speaks of it."""

FLOORS: Mapping[str, str] = MappingProxyType(
    {"all": "all inputs resampled", "labels": "labels permuted", "claimed": "claimed sites only resampled"}
)
"""The floors by name, and what they are called in words."""

STOPPING = ("vacuous", "floor_is_ceiling")
"""Flags that leave a verdict open."""

_OF_THE_RUN = ("by_seed", "criterion", "criterion_met", "verdict", "flags", "ties", "stopped")
"""What a run says and its replay by the table does not."""


def bar_of(criterion: Criterion | None) -> float:
    """Return what the fraction recovered is held against: the declared criterion's number for it, or 0.9."""
    text = {} if criterion is None else criterion.conditions
    sign, _, number = text.get("recovered", f">= {BAR}").partition(" ")
    return float(number) if sign.startswith(">") else BAR


def fingerprint_of(figures: Mapping[str, Any]) -> str:
    """Return the fingerprint of a result from its plain values: equal for a result and its replay by the table."""
    plain = {key: value for key, value in figures.items() if key not in _OF_THE_RUN}
    return digest_json({**plain, "facts": {**figures["facts"], "seeds": None, "explored": None}})


def spoken(measure: str, *, higher_is_better: bool) -> str:
    """Return what is measured, in words."""
    return f"the {measure.replace('_', ' ')}" if higher_is_better else "the loss"


def verdict_of(
    recovered: tuple[float, float, float],
    flags: Mapping[str, str],
    criterion: tuple[Criterion, bool] | None,
    measured: str,
    *,
    worse_than_constant: bool,
) -> str:
    """Return the verdict: it rejects, or does not reject.

    Args:
        recovered: the fraction recovered and the ends of its interval.
        flags: by name, in words; those of `STOPPING` leave it open.
        criterion: what was declared, and whether it is met.
        measured: what is recovered, in words.
        worse_than_constant: whether a predictor that ignores its input would have done better.

    >>> verdict_of((0.95, 0.92, 0.97), {}, None, "the loss", worse_than_constant=False)
    'not rejected: 95% of the loss is recovered'
    """
    notes = [words for name, words in flags.items() if name not in STOPPING]
    if criterion is not None:
        declared, met = criterion
        notes.append(f"the criterion declared before ({declared}) is {'' if met else 'not '}met")
    bar = bar_of(None if criterion is None else criterion[0])
    stopped = [words for name, words in flags.items() if name in STOPPING]
    said = _said(recovered, bar, measured, "; worse than a constant answer" if worse_than_constant else "")
    return "; ".join([f"undecided: {'; '.join(stopped)}" if stopped else said, *notes])


def _said(recovered: tuple[float, float, float], bar: float, measured: str, worse: str) -> str:
    value, low, high = recovered
    if not np.isfinite(recovered).all():
        return "undecided: there is no interval: give more rows or clusters"
    if high < bar:
        return f"rejected: only {value:.0%} of {measured} is recovered{worse}"
    if low < bar:
        return f"undecided: {value:.0%} recovered, and the interval includes {bar:.0%}"
    return f"not rejected: {value:.0%} of {measured} is recovered"
