"""Estimates from one number for each sample: means, fractions recovered, and intervals by a paired bootstrap over clusters.

Whole clusters (a template, or all samples of one reference datum) are drawn with replacement, scrubbed, original and floor together.
Everything here is a function of stored numbers, so that a record can be audited without the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

BOOTSTRAPS = 1000
_AT_ONCE = 2**16


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error and 95% interval; NaN where it is not defined."""

    value: float
    error: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """Return the numbers, ready for JSON: `None` for what is not defined."""
        named = {"value": self.value, "error": self.error, "low": self.low, "high": self.high}
        return {name: number if np.isfinite(number) else None for name, number in named.items()}


def fraction(part: float, whole: float) -> float:
    """Return a fraction, or NaN where the whole is too small to tell from nothing."""
    return part / whole if abs(whole) > 1e-9 else float("nan")


def standard_error(values: np.ndarray, clusters: np.ndarray | None = None) -> float:
    """Return the standard error of a mean, (sample,); with clusters, that of samples which vary together within each.

    >>> values = np.array([0.0, 0.0, 1.0, 1.0])
    >>> standard_error(values) < standard_error(values, np.array([0, 0, 1, 1]))
    True
    """
    count = len(values)
    if clusters is None:
        return float(values.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan")
    _, group = np.unique(clusters, return_inverse=True)
    groups = int(group.max()) + 1
    if groups < 2:
        return float("nan")
    sums = np.bincount(group, values - values.mean(), minlength=groups)
    return float(np.sqrt((sums**2).sum() * groups / (groups - 1)) / count)


def resampled(columns: np.ndarray, clusters: np.ndarray, turns: int = BOOTSTRAPS, seed: int = 0) -> np.ndarray:
    """Return sums of columns, (column, sample), over clusters drawn with replacement: (turn, column).

    All columns of one turn see the same clusters. The draws are those of `numpy.random.default_rng(seed)`, one turn after the other.
    """
    _, group = np.unique(clusters, return_inverse=True)
    groups = int(group.max()) + 1
    sums = np.stack([np.bincount(group, column, minlength=groups) for column in columns], 1)
    generator = np.random.default_rng(seed)
    made = np.empty((turns, len(columns)))
    size = max(1, _AT_ONCE // groups)
    for start in range(0, turns, size):
        count = min(size, turns - start)
        drawn = generator.integers(groups, size=(count, groups)) + groups * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * groups).reshape(count, groups)
        made[start : start + count] = weights @ sums
    return made


def recovered(scrubbed: np.ndarray, original: np.ndarray, floor: np.ndarray, clusters: np.ndarray) -> Estimate:
    """Return (floor - scrubbed) / (floor - original) of the means, with its interval.

    >>> one = recovered(np.array([0.0, 1.0]), np.zeros(2), np.ones(2), np.array([0, 1]))
    >>> one.value, one.low, one.high
    (0.5, 0.0, 1.0)
    """
    value = fraction(float(floor.mean() - scrubbed.mean()), float(floor.mean() - original.mean()))
    sums = resampled(np.stack([scrubbed, original, floor]), clusters)
    return _spread(value, _fractions(sums[:, 0], sums[:, 1], sums[:, 2]))


def difference(
    one: np.ndarray, other: np.ndarray, original: np.ndarray, floor: np.ndarray, clusters: np.ndarray
) -> Estimate:
    """Return how much more `one` recovers than `other`, both scrubbed losses of the same reference data, with its interval."""
    gap = float(floor.mean() - original.mean())
    sums = resampled(np.stack([one, other, original, floor]), clusters)
    turns = _fractions(sums[:, 0], sums[:, 2], sums[:, 3]) - _fractions(sums[:, 1], sums[:, 2], sums[:, 3])
    return _spread(fraction(float(other.mean() - one.mean()), gap), turns)


def _fractions(scrubbed: np.ndarray, original: np.ndarray, floor: np.ndarray) -> np.ndarray:
    whole = floor - original
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(whole) > 1e-9, (floor - scrubbed) / whole, np.nan)


def _spread(value: float, turns: np.ndarray) -> Estimate:
    if not np.isfinite(turns).all() or not np.isfinite(value):
        return Estimate(value, float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(turns, [0.025, 0.975])
    return Estimate(value, float(turns.std(ddof=1)), float(low), float(high))


def by_seed(losses: Mapping[str, np.ndarray], floor: str, seeds: np.ndarray) -> dict[int, float]:
    """Return the fraction recovered in the samples of each seed; `seeds` names each sample's."""
    found: dict[int, float] = {}
    for seed in np.unique(seeds).tolist():
        chosen = seeds == seed
        scrubbed, original, base = (float(losses[name][chosen].mean()) for name in ("scrubbed", "original", floor))
        found[int(seed)] = fraction(base - scrubbed, base - original)
    return found
