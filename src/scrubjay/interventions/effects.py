"""Effects: the metric of every pair under every variant, with both endpoints beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np

from scrubjay.errors import InputError

_SHOWN = 12
"""How many effects are printed."""
LEAST_GAP = 1e-3
"""The least mean difference between clean and corrupted, as a fraction of the metric's spread over rows or of 1, that is normalised by."""


@dataclass(frozen=True, eq=False)
class Effects:
    """A labelled table of patching effects.

    Attributes:
        values: the metric under each variant, shape (..., row): one axis for each of `labels`, then pairs.
        labels: the axes before the last, in order, each with its labels: `{"site": [...], "position": [...]}`.
        clean: the metric of the clean inputs, shape (row,); `corrupted` that of the counterfactual ones.
        direction: `"denoise"`: clean values into the corrupted run; 1 is all of the clean answer back. `"noise"`: corrupted values into the clean
            run; 1 is all of it lost.
        metric: its name.
        clusters: which rows belong together, shape (row,).
        counts: what was computed: variants, evaluations, nodes, rows.
        facts: fingerprints of model, data and settings.
        constants: of a sweep of optimal constants, the constants by address, by the labels of each cell.
    """

    values: np.ndarray
    labels: Mapping[str, tuple[Any, ...]]
    clean: np.ndarray
    corrupted: np.ndarray
    direction: str
    metric: str
    clusters: np.ndarray
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    constants: Mapping[tuple[Any, ...], Mapping[str, np.ndarray]] = field(default_factory=dict[tuple[Any, ...], Any])

    @property
    def start(self) -> np.ndarray:
        """The metric where nothing is patched, (row,)."""
        return self.corrupted if self.direction == "denoise" else self.clean

    @property
    def gap(self) -> float:
        """The mean difference from the unpatched run to the run that values are taken from."""
        end = self.clean if self.direction == "denoise" else self.corrupted
        return float((end - self.start).mean())

    @cached_property
    def effect(self) -> np.ndarray:
        """The normalised effect, a ratio of means, one number for each variant: 0 where nothing moved, 1 where all of the gap did.

        Values below 0 and above 1 are shown as they are. Raises `InputError` where clean and corrupted hardly differ.
        """
        self._refuse()
        return (self.values - self.start).mean(-1) / self.gap

    @cached_property
    def error(self) -> np.ndarray:
        """The standard error of each effect over clusters of rows, by linearising the ratio; NaN for a single cluster."""
        self._refuse()
        end = self.clean if self.direction == "denoise" else self.corrupted
        residual = (self.values - self.start) - self.effect[..., None] * (end - self.start)
        names, groups = np.unique(self.clusters, return_inverse=True)
        if len(names) < 2:
            return np.full(self.effect.shape, np.nan)
        summed = np.zeros((*residual.shape[:-1], len(names)))
        np.add.at(summed.reshape(-1, len(names)).T, groups, residual.reshape(-1, residual.shape[-1]).T)
        rows = residual.shape[-1]
        return np.sqrt((summed**2).sum(-1) * len(names) / (len(names) - 1)) / rows / abs(self.gap)

    @property
    def refusal(self) -> str:
        """Why no normalised effect is given; empty where it is."""
        spread = max(float(np.abs(self.clean).mean()), float(np.abs(self.corrupted).mean()), 1e-12)
        if abs(self.gap) > LEAST_GAP * spread:
            return ""
        return (
            f"{self.metric} is {self.clean.mean():.4g} clean and {self.corrupted.mean():.4g} corrupted: a fraction of that difference says nothing. "
            "Choose inputs on which the model answers differently; the raw numbers are in .values"
        )

    def _refuse(self) -> None:
        if self.refusal:
            raise InputError(self.refusal)

    def top(self, n: int = 10) -> list[tuple[tuple[Any, ...], float]]:
        """Return the labels and effects of the `n` variants with the greatest effect either way; pairs without a path are none."""
        order = np.argsort(-np.abs(self.effect), axis=None)[: min(n, int((~np.isnan(self.effect)).sum()))]
        names = list(self.labels.values())
        places = [np.unravel_index(one, self.effect.shape) for one in order]
        return [(tuple(names[d][i] for d, i in enumerate(at)), float(self.effect[at])) for at in places]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain lists and numbers, ready for JSON: what has no number (a pair without a path) is `None`.

        `effect` is `None` where clean and corrupted hardly differ, and `refusal` says so.
        """
        return {
            "labels": {name: list(map(_plain, given)) for name, given in self.labels.items()},
            "values": _numbers(self.values),
            "clean": self.clean.tolist(),
            "corrupted": self.corrupted.tolist(),
            "effect": None if self.refusal else _numbers(self.effect),
            "refusal": self.refusal,
            "direction": self.direction,
            "metric": self.metric,
            "clusters": self.clusters.tolist(),
            "counts": dict(self.counts),
            "facts": dict(self.facts),
        }

    def __str__(self) -> str:
        """Return both endpoints and the greatest effects as a table; raw means where they are not normalised."""
        ends = f"  {self.metric}: {self.clean.mean():.4g} clean, {self.corrupted.mean():.4g} corrupted"
        if self.refusal:
            return f"{self!r}\n{ends}\n  no effects: {self.refusal}"
        errors = dict(zip(np.ndindex(self.effect.shape), self.error.ravel().tolist(), strict=True))
        names = [[_named(one) for one in given] for given in self.labels.values()]
        order = np.argsort(-np.abs(self.effect), axis=None)[: min(_SHOWN, int((~np.isnan(self.effect)).sum()))]
        lines: list[tuple[str, str]] = []
        for at in (tuple(map(int, np.unravel_index(one, self.effect.shape))) for one in order):
            label = "  ".join(
                f"@{names[d][i]}" if kind == "position" else names[d][i]
                for d, (kind, i) in enumerate(zip(self.labels, at, strict=True))
            )
            error = "" if np.isnan(errors[at]) else f" +- {errors[at]:.3f}"
            lines.append((label, f"{self.effect[at]:+.3f}{error}  ({self.values[at].mean():.4g})"))
        wide = max((len(label) for label, _ in lines), default=0)
        rest = int((~np.isnan(self.effect)).sum()) - len(lines)
        more = [f"  and {rest} smaller ones"] if rest else []
        return "\n".join([repr(self), ends, *(f"  {label:{wide}}  {text}" for label, text in lines), *more])

    def __repr__(self) -> str:
        """Say what was patched, and both endpoints, in one line."""
        shape = " x ".join(f"{len(given)} {name}s" for name, given in self.labels.items())
        return (
            f"<Effects {self.direction}: {shape}, {self.values.shape[-1]} pairs; {self.metric} {self.clean.mean():.4g} clean, "
            f"{self.corrupted.mean():.4g} corrupted>"
        )


def _named(label: Any) -> str:
    return " -> ".join(map(str, cast("tuple[Any, ...]", label))) if isinstance(label, tuple) else str(label)


def _numbers(values: np.ndarray) -> Any:
    """Return an array as lists, with `None` for what is no number."""
    made = values.astype(object)
    made[np.isnan(values)] = None
    return made.tolist()


def _plain(label: Any) -> Any:
    if isinstance(label, tuple):
        return [_plain(one) for one in cast("tuple[Any, ...]", label)]
    return label if isinstance(label, str | int | float | bool) or label is None else str(label)
