"""Acceptance criteria: what is to hold of a result, stamped before the result is known."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from scrubjay.errors import EvidenceError, near
from scrubjay.evidence.digest import digest_json

FIGURES = ("recovered", "interval_low", "interval_high", "scrubbed", "original", "floor", "constant")
"""The figures of a result that a criterion may speak of; the interval is that of `recovered`."""

_SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_CONDITION = re.compile(r"\s*(>=|<=|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True)
class Criterion:
    """Conditions on the figures of a result, and when they were declared.

    Attributes:
        conditions: by figure (`FIGURES`), a sign and a number: `{"recovered": ">= 0.9"}`. All of them are to hold.
        declared: the moment, in UTC, as ISO 8601; `Criterion.declare` stamps it.

    Raises `EvidenceError` for no conditions, an unknown figure, or a condition that is no sign and number.

    >>> one = Criterion.declare({"recovered": ">= 0.9", "interval_low": "> 0.85"})
    >>> one.met({"recovered": 0.93, "interval_low": 0.8})
    False
    >>> str(one)
    'recovered >= 0.9 and interval_low > 0.85'
    """

    conditions: Mapping[str, str]
    declared: str

    def __post_init__(self) -> None:
        if not self.conditions:
            raise EvidenceError(
                "a criterion was declared without conditions: give one, such as {'recovered': '>= 0.9'}"
            )
        found: dict[str, str] = {}
        for name, text in self.conditions.items():
            if name not in FIGURES:
                raise EvidenceError(
                    f"a criterion speaks of {name!r}, which is no figure of a result; it has {', '.join(FIGURES)}{near(str(name), FIGURES)}"
                )
            read = _CONDITION.fullmatch(text) if isinstance(text, str) else None
            if read is None:
                raise EvidenceError(
                    f"the criterion for {name!r} is {text!r}: write a sign ({', '.join(_SIGNS)}) and a number, such as '>= 0.9'"
                )
            found[name] = f"{read[1]} {read[2]}"
        object.__setattr__(self, "conditions", MappingProxyType(found))

    @staticmethod
    def declare(conditions: Mapping[str, str]) -> Criterion:
        """Return a criterion stamped with this moment."""
        return Criterion(conditions, datetime.now(UTC).isoformat(timespec="microseconds"))

    @property
    def digest(self) -> str:
        """The fingerprint of the conditions and the moment they were declared."""
        return digest_json(self.to_dict())

    def met(self, figures: Mapping[str, float | None]) -> bool:
        """Return whether every condition holds of these figures; a figure that is missing, `None` or NaN meets none."""
        for name, text in self.conditions.items():
            sign, number = text.split(" ")
            value = figures.get(name)
            if value is None or not _SIGNS[sign](value, float(number)):
                return False
        return True

    def before(self, moment: str) -> bool:
        """Return whether it was declared no later than a moment (ISO 8601 with a time zone)."""
        return datetime.fromisoformat(self.declared) <= datetime.fromisoformat(moment)

    def to_dict(self) -> dict[str, object]:
        """Return the conditions and the moment as plain values, ready for JSON."""
        return {"conditions": dict(self.conditions), "declared": self.declared}

    def __str__(self) -> str:
        """Say the conditions in one line."""
        return " and ".join(f"{name} {text}" for name, text in self.conditions.items())
