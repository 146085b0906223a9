"""Activation patching: put a value of one input into the run of another, and see how far the result moves.

A clean and a corrupted input differ in what the model answers. Denoising puts clean values into the corrupted run:
does this place suffice to bring the answer back? Noising does the reverse: is this place needed?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scrubjay.capture.model import Model
from scrubjay.errors import InputError
from scrubjay.interventions import patch, run
from scrubjay.reporting.variant import Progress, outcomes

Metric = Callable[[torch.Tensor], torch.Tensor]
LEAST_GAP = 0.05
"""The least mean difference between clean and corrupted, in the metric's unit, that a normalised effect is given for."""


@dataclass(frozen=True, eq=False)
class Patching:
    """The metric of each pair under each patch, and unpatched.

    Attributes:
        sites: the addresses that were patched.
        patched: shape (site, pair).
        clean: the metric of the clean inputs, shape (pair,); `corrupted` likewise.
        direction: `"denoise"` (clean values into the corrupted run) or `"noise"`.
    """

    sites: tuple[str, ...]
    patched: np.ndarray
    clean: np.ndarray
    corrupted: np.ndarray
    direction: str

    @property
    def gap(self) -> float:
        """The mean difference between clean and corrupted."""
        return float((self.clean - self.corrupted).mean())

    @property
    def effect(self) -> np.ndarray:
        """The normalised effect of each site, a ratio of means: 0 where nothing moved, 1 where all of the gap did.

        Raises `InputError` where clean and corrupted are too close: the ratio would be noise.
        """
        if abs(self.gap) < LEAST_GAP:
            raise InputError(
                f"the metric differs by {self.gap:.3g} between clean and corrupted inputs, less than {LEAST_GAP}: a fraction of "
                "that says nothing; choose inputs on which the model answers differently"
            )
        moved, whole = self._moved()
        return moved.mean(1) / whole.mean()

    @property
    def error(self) -> np.ndarray:
        """The standard error of each effect over pairs, by linearising the ratio; NaN for a single pair."""
        effect = self.effect
        moved, whole = self._moved()
        count = len(whole)
        if count < 2:
            return np.full(len(self.sites), np.nan)
        return (moved - effect[:, None] * whole).std(1, ddof=1) / np.sqrt(count) / abs(float(whole.mean()))

    def _moved(self) -> tuple[np.ndarray, np.ndarray]:
        """Return how far each patch moved the metric, (site, pair), and the way it could move, (pair,)."""
        start, end = (self.corrupted, self.clean) if self.direction == "denoise" else (self.clean, self.corrupted)
        return self.patched - start, end - start


def patching(
    model: Model,
    clean: Any,
    corrupted: Any,
    metric: Metric,
    sites: Sequence[str],
    direction: str = "denoise",
    progress: Progress | None = None,
) -> Patching:
    """Return the metric under a patch of each site alone.

    Args:
        model: the model; it is not changed.
        clean: inputs, anything `sj.run` reads; row by row the counterparts of `corrupted`, with as many tokens.
        corrupted: inputs that the model should answer differently.
        metric: from the result (batch, ...) to one number for each row.
        sites: concrete addresses, with or without a position.
        direction: `"denoise"` or `"noise"`.
        progress: called with (sites done, sites in all).

    Raises `InputError` for an unknown direction and rows that do not correspond.
    """
    if direction not in {"denoise", "noise"}:
        raise InputError(f"direction={direction!r} is not a direction of patching: use 'denoise' or 'noise'")
    giver, taker = (clean, corrupted) if direction == "denoise" else (corrupted, clean)
    source, plain = run(model, giver, keep=list(sites)), run(model, taker)
    _check_rows(source.inputs, plain.inputs)
    made = outcomes(model, taker, [patch(site, source) for site in sites], progress)
    patched = np.stack([_numbers(metric(one)) for one in made])
    ends = _numbers(metric(source.output)), _numbers(metric(plain.output))
    first, second = ends if direction == "denoise" else ends[::-1]
    return Patching(tuple(sites), patched, first, second, direction)


def _check_rows(one: Any, other: Any) -> None:
    for name, tensor in one.items():
        if tensor.shape != other[name].shape:
            raise InputError(
                f"clean and corrupted inputs correspond token by token, but {name!r} has the shapes {tuple(tensor.shape)} and "
                f"{tuple(other[name].shape)}: give texts with the same number of tokens"
            )


def _numbers(found: torch.Tensor) -> np.ndarray:
    return found.detach().to(torch.float64).cpu().numpy()
