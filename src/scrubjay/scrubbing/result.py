"""What a scrub found: losses, the fraction recovered with its interval, and the record that replays it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from scrubjay.claims.hypothesis import Hypothesis
from scrubjay.errors import HypothesisError
from scrubjay.evidence.criterion import Criterion
from scrubjay.evidence.estimate import Estimate, by_seed, recovered, standard_error
from scrubjay.evidence.verdict import FLOORS, bar_of, fingerprint_of, spoken, verdict_of
from scrubjay.scrubbing.flags import Flag
from scrubjay.scrubbing.sample import ClassSizes


@dataclass(frozen=True, eq=False)
class ScrubResult:
    """The outcome of a scrub. Losses are means over samples, in the loss's unit (nats for cross-entropy); lower is better.

    Attributes:
        original: the model's own loss on the reference data.
        scrubbed: its loss when everything the hypothesis leaves open is resampled.
        floor: its loss at the floor that `recovered` is measured from, `floor_kind` (`FLOORS`); `floors` has all that were computed.
        recovered: (floor - scrubbed) / (floor - original): 1 when scrubbing costs nothing, 0 when it costs everything;
            values outside 0..1 are shown as they are. It is no probability of being right.
        standard_error: of `scrubbed`; `recovered_error` and `interval` (95%) are of `recovered`, by a bootstrap over clusters of the data
            (where it names them) or reference data, all samples of one together.
        constant: the loss of the best predictor that ignores its input.
        per_example: the scrubbed loss of each sample; `losses` has them all by name, (sample,) each: `scrubbed`, `original`, each floor.
        table: the rows that each source read; `labels` those whose label is read at the floor of permuted labels.
        hypothesis: what was claimed, as it was when scrubbed; it takes no more claims.
        measure: what was measured; `higher_is_better` says which way (recovered means the same either way).
        ties: what is recovered by the other rule, for each feature whose values a rule for ties decides.
        flags: why the result says less than its number, in words.
        criterion: what was declared to hold, before the run; `None`: nothing was, and no result takes one later.
        otherwise: the share of answers (largest results) that are others than the unscrubbed model's, (sample,); NaN where results are no choice.
        seeds: each sample's seed, where it was drawn and not replayed.
        facts: what the result depended on; `seeds` is None where a table was replayed.

    Raises `HypothesisError` for a criterion that was declared after the run began.
    """

    hypothesis: Hypothesis
    original: float
    scrubbed: float
    floor: float
    recovered: float
    standard_error: float
    floor_error: float
    constant: float
    losses: Mapping[str, np.ndarray]
    clusters: np.ndarray
    outputs: torch.Tensor
    table: Mapping[str, np.ndarray]
    classes: Mapping[str, ClassSizes]
    facts: Mapping[str, object]
    floor_kind: str = "all"
    measure: str = "cross_entropy"
    higher_is_better: bool = False
    flags: tuple[Flag, ...] = ()
    criterion: Criterion | None = None
    otherwise: np.ndarray = field(default_factory=lambda: np.zeros(0))
    seeds: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    ties: Mapping[str, Estimate] = field(default_factory=dict[str, Estimate])

    def __post_init__(self) -> None:
        begun = self.facts.get("begun")
        if self.criterion is not None and isinstance(begun, str) and not self.criterion.before(begun):
            raise HypothesisError(
                f"the criterion ({self.criterion}) was declared at {self.criterion.declared}, after the run began at {begun}: a result takes "
                "no criterion once it is known; declare it with sj.scrub(..., criterion=...) and run on data that were not looked at"
            )

    @property
    def per_example(self) -> np.ndarray:
        """The scrubbed loss of each sample, (sample,)."""
        return self.losses["scrubbed"]

    @cached_property
    def estimate(self) -> Estimate:
        """The fraction recovered with its standard error and interval."""
        return self._above(self.floor_kind)

    @property
    def recovered_error(self) -> float:
        """The standard error of the fraction recovered, by bootstrap."""
        return self.estimate.error

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the fraction recovered, by bootstrap."""
        return self.estimate.low, self.estimate.high

    @cached_property
    def floors(self) -> Mapping[str, Estimate]:
        """The fraction recovered above each floor that was computed, the one that `recovered` uses first."""
        others = [name for name in FLOORS if name in self.losses and name != self.floor_kind]
        return {self.floor_kind: self.estimate, **{name: self._above(name) for name in others}}

    def _above(self, floor: str) -> Estimate:
        return recovered(self.losses["scrubbed"], self.losses["original"], self.losses[floor], self.clusters)

    @property
    def by_seed(self) -> Mapping[int, float]:
        """The fraction recovered of each seed alone; empty where a table was replayed."""
        return by_seed(self.losses, self.floor_kind, self.seeds) if len(self.seeds) else {}

    @property
    def worse_than_constant(self) -> bool:
        """Whether a predictor that ignores its input would have done better than the scrubbed model."""
        return bool(self.scrubbed < self.constant if self.higher_is_better else self.scrubbed > self.constant)

    @property
    def figures(self) -> Mapping[str, float]:
        """The figures that a criterion may speak of."""
        return {
            "recovered": self.recovered, "interval_low": self.interval[0], "interval_high": self.interval[1],
            "scrubbed": self.scrubbed, "original": self.original, "floor": self.floor, "constant": self.constant,
        }  # fmt: skip

    @property
    def criterion_met(self) -> bool | None:
        """Whether the declared criterion holds; `None` where none was declared. A scrub that could not fail meets none."""
        if self.criterion is None:
            return None
        return not any(flag.stops for flag in self.flags) and self.criterion.met(self.figures)

    @property
    def bar(self) -> float:
        """What the fraction recovered is held against: the declared criterion's number for it, or 0.9."""
        return bar_of(self.criterion)

    @property
    def verdict(self) -> str:
        """What the scrub says, in words: it rejects, or does not reject. A hypothesis may lose a tenth and not be rejected."""
        return verdict_of(
            (self.recovered, *self.interval),
            {flag.name: flag.words for flag in self.flags},
            None if self.criterion is None else (self.criterion, bool(self.criterion_met)),
            self._spoken,
            worse_than_constant=self.worse_than_constant,
        )

    @property
    def _spoken(self) -> str:
        """What is measured, in words."""
        return spoken(self.measure, higher_is_better=self.higher_is_better)

    @cached_property
    def fingerprint(self) -> str:
        """The digest of everything the result depends on, and of the result: equal for a result and its replay by the table."""
        return fingerprint_of(self.to_dict())

    def to_dict(self) -> dict[str, object]:
        """Return the result as plain values, ready for JSON, with the fingerprints of what it depended on."""
        return {
            "hypothesis": self.hypothesis.to_dict(),
            "measure": self.measure,
            "higher_is_better": self.higher_is_better,
            "original": self.original,
            "scrubbed": self.scrubbed,
            "floor": self.floor,
            "floor_kind": FLOORS[self.floor_kind],
            "floors": {
                FLOORS[name]: {
                    "loss": float(self.losses[name].mean()),
                    "error": _finite(standard_error(self.losses[name])),
                    "recovered": found.to_dict(),
                }
                for name, found in self.floors.items()
            },
            "recovered": _finite(self.recovered),
            "standard_error": self.standard_error,
            "recovered_error": _finite(self.recovered_error),
            "interval": [_finite(end) for end in self.interval],
            "ties": {name: found.to_dict() for name, found in self.ties.items()},
            "by_seed": {str(seed): _finite(found) for seed, found in self.by_seed.items()},
            "constant": _finite(self.constant),
            "verdict": self.verdict,
            "flags": {flag.name: flag.words for flag in self.flags},
            "criterion": None if self.criterion is None else self.criterion.to_dict(),
            "criterion_met": self.criterion_met,
            "samples": len(self.per_example),
            "clusters": len(np.unique(self.clusters)),
            "classes": {
                name: {"classes": size.classes, "smallest": size.smallest, "alone": size.alone}
                for name, size in self.classes.items()
            },
            "facts": self._facts(),
        }

    def _facts(self) -> dict[str, object]:
        return {key: value for key, value in self.facts.items() if key not in {"seconds", "begun", "counts"}}

    def __repr__(self) -> str:
        """Say the outcome in one line."""
        low, high = self.interval
        return (
            f"<Scrub of {self.hypothesis.name!r}: recovered {self.recovered:.3f} [{low:.3f}, {high:.3f}]; {self._spoken.removeprefix('the ')} {self.scrubbed:.3f} ± {self.standard_error:.3f}, "
            f"original {self.original:.4f}, floor {self.floor:.3f}, constant {self.constant:.3f}>"
        )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
