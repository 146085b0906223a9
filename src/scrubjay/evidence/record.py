"""Records of results: the specification, when it was declared and run, on what, the figures, and the arrays that they follow from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from scrubjay.errors import EvidenceError
from scrubjay.evidence.digest import digest_json
from scrubjay.evidence.sealed import Form, described_array, read_sealed, write_sealed
from scrubjay.evidence.spec import ExperimentSpec

FORM = Form("record.json", "scrubjay.record", 1)
TABLE, LOSS = "table.", "loss."
"""Names of arrays begin so: the rows that a source read, and the loss of each sample in a run."""

FIELDS = (
    "spec",
    "spec_digest",
    "declared",
    "started",
    "finished",
    "environment",
    "figures",
    "verdict",
    "criterion_met",
    "fingerprint",
)


@dataclass(frozen=True, eq=False)
class ResultRecord:
    """One run of an experiment, with all that is needed to check it and to run it again.

    Attributes:
        spec: the experiment, with the digests of its weights and data.
        declared: when the specification (and its criterion) was stamped, in UTC; never after `started`.
        started: when the run began, in UTC.
        finished: when it ended, in UTC.
        environment: versions of Python, torch and Scrubjay, the device, the type of numbers, the threads.
        figures: the result's figures, as plain values.
        verdict: the result in words.
        criterion_met: whether the declared criterion holds; `None` where none was declared.
        fingerprint: of the result, as the library gives it.
        arrays: `table.NAME` the rows that each source read, (sample,); `loss.NAME` the loss of each sample, (sample,); others by name.

    Raises `EvidenceError` where the specification was stamped after the run began, or names no weights or data.
    """

    spec: ExperimentSpec
    declared: str
    started: str
    finished: str
    environment: Mapping[str, object]
    figures: Mapping[str, Any]
    verdict: str
    criterion_met: bool | None
    fingerprint: str
    arrays: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        declared, started, finished = (moment(one) for one in (self.declared, self.started, self.finished))
        if not declared <= started <= finished:
            raise EvidenceError(
                f"the specification was declared at {self.declared}, and the run began at {self.started} and ended at {self.finished}: a criterion "
                "counts only where it was declared before the run"
            )
        if self.spec.model.weights is None or self.spec.data.digest is None:
            raise EvidenceError(
                "the record's specification names no digest of weights or data, so it cannot be checked"
            )
        if (self.criterion_met is None) != (self.spec.criterion is None):
            raise EvidenceError(
                "the record says whether a criterion was met exactly where its specification declares one"
            )

    @property
    def table(self) -> dict[str, np.ndarray]:
        """The rows that each source read, (sample,) each."""
        return {name.removeprefix(TABLE): rows for name, rows in self.arrays.items() if name.startswith(TABLE)}

    @property
    def losses(self) -> dict[str, np.ndarray]:
        """The loss of each sample in each run, (sample,) each."""
        return {name.removeprefix(LOSS): one for name, one in self.arrays.items() if name.startswith(LOSS)}

    @property
    def digest(self) -> str:
        """The fingerprint of the record."""
        arrays = {name: described_array(array) for name, array in self.arrays.items()}
        return digest_json({"format": FORM.format, "version": FORM.version, "body": self.to_dict(), "arrays": arrays})

    def to_dict(self) -> dict[str, object]:
        """Return the record without its arrays as plain values, ready for JSON."""
        return {
            "spec": self.spec.to_dict(),
            "spec_digest": self.spec.digest,
            "declared": self.declared,
            "started": self.started,
            "finished": self.finished,
            "environment": dict(self.environment),
            "figures": dict(self.figures),
            "verdict": self.verdict,
            "criterion_met": self.criterion_met,
            "fingerprint": self.fingerprint,
        }

    def save(self, folder: str | PathLike[str], *, overwrite: bool = False) -> str:
        """Write the record into a folder and return its digest; raise as `write_sealed` does."""
        return write_sealed(Path(folder), FORM, self.to_dict(), self.arrays, overwrite=overwrite)

    @staticmethod
    def load(folder: str | PathLike[str]) -> ResultRecord:
        """Return the record in a folder; raise `EvidenceError` for one that is damaged or was changed."""
        body, arrays, _ = read_sealed(Path(folder), FORM)
        if set(body) != set(FIELDS):
            raise EvidenceError(f"{folder}: a record has the fields {', '.join(FIELDS)}; found {', '.join(body)[:200]}")
        for name in ("declared", "started", "finished", "verdict", "fingerprint", "spec_digest"):
            if not isinstance(body[name], str):
                raise EvidenceError(f"{folder}: {name!r} is {repr(body[name])[:60]}, and should be text")
        for name in ("spec", "environment", "figures"):
            if not isinstance(body[name], dict):
                raise EvidenceError(f"{folder}: {name!r} is {repr(body[name])[:60]}, and should be an object")
        spec = ExperimentSpec.from_dict(body["spec"])
        if spec.digest != body["spec_digest"]:
            raise EvidenceError(
                f"{folder}: the record was made for the specification {body['spec_digest'][:20]}, and holds {spec.digest[:20]}"
            )
        rest = {name: body[name] for name in FIELDS if name not in {"spec", "spec_digest"}}
        return ResultRecord(spec=spec, arrays=arrays, **rest)

    def __repr__(self) -> str:
        """Say the outcome in one line."""
        met = {None: "no criterion declared", True: "criterion met", False: "criterion not met"}[self.criterion_met]
        return f"<Record {self.digest[7:17]} of {self.spec.kind} {self.spec.digest[7:17]}: {self.verdict}; {met}>"


def now() -> str:
    """Return this moment in UTC, to the microsecond, as records write it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def moment(text: str) -> datetime:
    """Return the moment that a record names; raise `EvidenceError` for other text and for a time without a zone.

    >>> moment("2026-01-02T03:04:05+00:00").year
    2026
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise EvidenceError(f"{text[:40]!r} is no moment in time: write it as {now()!r}") from error
    if found.tzinfo is None:
        raise EvidenceError(f"{text[:40]!r} has no time zone: write it as {now()!r}")
    return found
