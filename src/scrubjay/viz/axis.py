"""A horizontal number line: from values to places in percent, with round ticks.

Places are percentages, so a chart stretches to any width while its text and strokes keep their size. A value
beyond the line is placed at its end; `Axis.is_beyond` says so, and figures then draw a break.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from scrubjay.errors import InputError


@dataclass(frozen=True, slots=True)
class Axis:
    """The part of the number line from `low` to `high` (in the unit of the values), drawn from 0 to 100 percent."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InputError(
                f"An axis runs from a smaller to a larger finite number, not from {self.low} to {self.high}."
            )

    def percent(self, value: float) -> float:
        """Return the place of `value` in percent, kept within 0 and 100.

        >>> Axis(0.0, 4.0).percent(1.0), Axis(0.0, 4.0).percent(9.0)
        (25.0, 100.0)
        """
        if math.isinf(value):
            return 100.0 if value > 0 else 0.0
        return min(max(100 * (value - self.low) / (self.high - self.low), 0.0), 100.0)

    def is_beyond(self, value: float) -> bool:
        """Return whether `value` lies outside the line.

        >>> Axis(0.0, 1.0).is_beyond(1.5)
        True
        """
        return not self.low <= value <= self.high

    def step(self, most: int = 5) -> float:
        """Return the round distance (1, 2 or 5 times a power of ten) that gives at most `most` ticks."""
        rough = (self.high - self.low) / max(most - 1, 1)
        power = 10.0 ** math.floor(math.log10(rough))
        return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))

    def ticks(self, most: int = 5) -> list[float]:
        """Return round numbers within the line, in order.

        >>> Axis(-0.3, 1.1).ticks()
        [0.0, 0.5, 1.0]
        """
        step = self.step(most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step + 0.0 for index in range(first, last + 1)]

    def places(self, most: int = 5) -> int:
        """Return how many decimals the ticks need."""
        return min(max(0, -math.floor(math.log10(self.step(most)) + 1e-9)), 12)


def spanning(values: Iterable[float], include: tuple[float, ...] = (0.0,), margin: float = 0.04) -> Axis:
    """Return an axis that holds every finite value and the numbers in `include`, with a share of it as margin.

    The margin is added only on a side where a value, and not one of `include`, is outermost.

    >>> spanning([1.0, float("nan")], margin=0.0)
    Axis(low=0.0, high=1.0)
    """
    finite = [value for value in values if math.isfinite(value)] + list(include)
    low, high = min(finite), max(finite)
    if low == high:
        return Axis(low - 0.5 * max(1.0, abs(low)), high + 0.5 * max(1.0, abs(high)))
    width = high - low
    return Axis(
        low if low in include else low - margin * width,
        high if high in include else high + margin * width,
    )
