"""What a scrub found: losses, the fraction recovered with its interval, and the record that replays it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from scrubjay.capture.model import Model
from scrubjay.claims.data import Dataset
from scrubjay.claims.hypothesis import Hypothesis
from scrubjay.evidence.digest import digest_array, digest_json
from scrubjay.scrubbing.sample import ClassSizes

BOOTSTRAPS = 1000


@dataclass(frozen=True, eq=False)
class Losses:
    """One loss for each sample, scrubbed, original and at the floor, and the best constant predictor's mean loss."""

    scrubbed: np.ndarray
    original: np.ndarray
    floor: np.ndarray
    constant: float


@dataclass(frozen=True, eq=False)
class ScrubResult:
    """The outcome of a scrub. Losses are means over samples, in the loss's unit (nats for cross-entropy); lower is better.

    Attributes:
        original: the model's own loss on the reference data.
        scrubbed: its loss when everything the hypothesis leaves open is resampled.
        floor: its loss when its whole input is resampled, independently of the label.
        recovered: (floor - scrubbed) / (floor - original): 1 when scrubbing costs nothing, 0 when it costs everything;
            values outside 0..1 are shown as they are. It is no probability of being right.
        standard_error: of `scrubbed`; `recovered_error` and `interval` (95%) are of `recovered`, by a bootstrap over
            reference data, all samples of one datum together.
        constant: the loss of the best predictor that ignores its input.
        per_example: the scrubbed loss of each sample; `table` the rows that each source read.
        hypothesis: what was claimed, as it was when scrubbed; it takes no more claims.
        facts: what the result depended on; `seeds` is None where a table was replayed.
    """

    hypothesis: Hypothesis
    original: float
    scrubbed: float
    floor: float
    recovered: float
    standard_error: float
    floor_error: float
    recovered_error: float
    interval: tuple[float, float]
    constant: float
    per_example: np.ndarray
    outputs: torch.Tensor
    table: Mapping[str, np.ndarray]
    classes: Mapping[str, ClassSizes]
    facts: Mapping[str, object]

    @property
    def worse_than_constant(self) -> bool:
        """Whether a predictor that ignores its input would have done better than the scrubbed model."""
        return bool(self.scrubbed > self.constant)

    @property
    def verdict(self) -> str:
        """What the scrub says, in words: it rejects, or does not reject. A hypothesis may lose a tenth and not be rejected."""
        if not np.isfinite([self.recovered, *self.interval]).all():
            return "undecided: the original and the floor loss do not differ, so there is no fraction to recover"
        if self.interval[1] < 0.9:
            extra = "; worse than a constant answer" if self.worse_than_constant else ""
            return f"rejected: only {self.recovered:.0%} of the loss is recovered{extra}"
        if self.interval[0] < 0.9:
            return f"undecided: {self.recovered:.0%} recovered, and the interval includes 90%"
        return f"not rejected: {self.recovered:.0%} of the loss is recovered"

    @cached_property
    def fingerprint(self) -> str:
        """The digest of everything the result depends on, and of the result: equal for a result and its replay by the table."""
        return digest_json({**self.to_dict(), "facts": {**self._facts(), "seeds": None}})

    def to_dict(self) -> dict[str, object]:
        """Return the result as plain values, ready for JSON, with the fingerprints of what it depended on."""
        return {
            "hypothesis": self.hypothesis.to_dict(),
            "original": self.original,
            "scrubbed": self.scrubbed,
            "floor": self.floor,
            "floor_kind": "all inputs resampled",
            "recovered": self.recovered if np.isfinite(self.recovered) else None,
            "standard_error": self.standard_error,
            "recovered_error": self.recovered_error if np.isfinite(self.recovered_error) else None,
            "interval": [end if np.isfinite(end) else None for end in self.interval],
            "constant": self.constant if np.isfinite(self.constant) else None,
            "verdict": self.verdict,
            "samples": len(self.per_example),
            "classes": {
                name: {"classes": size.classes, "smallest": size.smallest, "alone": size.alone}
                for name, size in self.classes.items()
            },
            "facts": self._facts(),
        }

    def _facts(self) -> dict[str, object]:
        return {key: value for key, value in self.facts.items() if key != "seconds"}

    def __repr__(self) -> str:
        """Say the outcome in one line."""
        low, high = self.interval
        return (
            f"<Scrub of {self.hypothesis.name!r}: recovered {self.recovered:.3f} [{low:.3f}, {high:.3f}]; loss {self.scrubbed:.3f} ± {self.standard_error:.3f}, "
            f"original {self.original:.4f}, floor {self.floor:.3f}, constant {self.constant:.3f}>"
        )


def summarise(
    losses: Losses,
    table: Mapping[str, np.ndarray],
    *,
    model: Model,
    hypothesis: Hypothesis,
    data: Dataset,
    seeds: tuple[int, ...] | None,
    classes: Mapping[str, ClassSizes],
    outputs: tuple[torch.Tensor, ...],
    evaluated_rows: int,
    seconds: float,
) -> ScrubResult:
    """Return the result of a scrub from its losses and index table."""
    scrubbed, original, floor = (float(part.mean()) for part in (losses.scrubbed, losses.original, losses.floor))
    low, high, error = _interval(losses, table["reference"])
    count = len(losses.scrubbed)
    facts = {
        "model": model.name,
        "weights": model.digest,
        "rewrites": list(model.circuit.history),
        "dtype": str(model.dtype).removeprefix("torch.") if model.dtype is not None else "as stored",
        "data": data.digest,
        "data_name": data.name,
        "rows": len(data),
        "hypothesis": hypothesis.digest,
        "table": digest_json({name: digest_array(rows) for name, rows in table.items()}),
        "seeds": None if seeds is None else list(seeds),
        "evaluated_rows": evaluated_rows,
        "torch": torch.__version__.split("+")[0],
        "python": platform.python_version(),
        "seconds": seconds,
    }
    return ScrubResult(
        hypothesis, original, scrubbed, floor, _fraction(floor - scrubbed, floor - original), _error(losses.scrubbed, count), _error(losses.floor, count),
        error, (low, high), losses.constant, losses.scrubbed, outputs[0], dict(table), dict(classes), facts,
    )  # fmt: skip


def _fraction(part: float, whole: float) -> float:
    """Return a fraction, or NaN where floor and original are too close to tell apart."""
    return part / whole if abs(whole) > 1e-9 else float("nan")


def _error(losses: np.ndarray, count: int) -> float:
    return float(losses.std(ddof=1) / np.sqrt(count))


def _interval(losses: Losses, references: np.ndarray) -> tuple[float, float, float]:
    """Return the 95% interval and standard error of the recovered fraction: a paired bootstrap, clustered by reference datum."""
    _, cluster = np.unique(references, return_inverse=True)
    count = int(cluster.max()) + 1
    sums = [np.bincount(cluster, part, minlength=count) for part in (losses.scrubbed, losses.original, losses.floor)]
    generator = np.random.default_rng(0)
    values = np.empty(BOOTSTRAPS)
    for turn in range(BOOTSTRAPS):
        weights = np.bincount(generator.integers(count, size=count), minlength=count)
        scrubbed, original, floor = (float(weights @ part) for part in sums)
        values[turn] = _fraction(floor - scrubbed, floor - original)
    if not np.isfinite(values).all():
        return float("nan"), float("nan"), float("nan")
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high), float(values.std(ddof=1))
