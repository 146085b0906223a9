"""How much of the loss each hypothesis recovers: dots with intervals on one line, and the losses beneath.

Recovered is (scrubbed - floor) / (original - floor): 1 is the unscrubbed model, 0 is the floor (the model on
unrelated inputs). Values below 0 and above 1 are shown where they are. A hollow diamond stands where the best
constant predictor would be: a high fraction means little if guessing the base rate scores as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scrubjay.errors import InputError
from scrubjay.viz.axis import Axis, spanning
from scrubjay.viz.escape import Markup, join, shorten, tag
from scrubjay.viz.forest import Line, Strip, beyond, forest, symbol, whisker
from scrubjay.viz.frame import chart
from scrubjay.viz.number import MISSING, interval, with_error, written
from scrubjay.viz.table import table

FARTHEST = 1.0
"""How far below 0 and above 1 the line reaches at most; what lies beyond gets a break mark."""
_DOT = "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z"
_DIAMOND = "M0-5.5L5.5 0 0 5.5-5.5 0z"


@dataclass(frozen=True, slots=True)
class ScrubRow:
    """The outcome of scrubbing one hypothesis, as numbers and text.

    `recovered`, its `standard_error`, and the interval `low` to `high` are fractions; `original`, `floor`,
    `scrubbed` and `constant` are mean losses in one unit (lower is better). NaN stands for "not measured".
    """

    name: str
    recovered: float
    standard_error: float
    low: float
    high: float
    original: float
    floor: float
    scrubbed: float
    constant: float = math.nan
    verdict: str = ""

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise InputError(
                f"The interval of {self.name!r} runs from {self.low} to {self.high}; give the lower end first."
            )

    def constant_recovered(self) -> float:
        """Return the fraction that the constant predictor recovers, or NaN where it is undefined.

        >>> ScrubRow("h", 0.8, 0.1, 0.6, 1.0, original=0.0, floor=4.0, scrubbed=0.8, constant=1.0).constant_recovered()
        0.75
        """
        width = self.original - self.floor
        return (self.constant - self.floor) / width if width and math.isfinite(width) else math.nan


def recovered(rows: Sequence[ScrubRow], title: str = "Loss recovered", unit: str = "nats") -> Markup:
    """Return the chart of recovered fractions and the table of losses (in `unit`), in the order given.

    Raises `InputError` where there is no row.

    >>> row = ScrubRow("name movers", 0.87, 0.02, 0.83, 0.91, 0.3, 4.2, 0.8, 0.69, "not rejected")
    >>> figure = recovered([row])
    >>> "0.87 ± 0.02" in figure and "not rejected" in figure
    True
    """
    found = list(rows)
    if not found:
        raise InputError("recovered was given no rows; scrub at least one hypothesis first.")
    axis = _axis(found)
    lines = [Line(0.0, "floor"), Line(1.0, "original")]
    places = _places(found)
    strips = [_strip(row, axis, places) for row in found]
    plot = forest(axis, lines, strips, ("hypothesis", "recovered"), band=True)
    has_constant = any(math.isfinite(row.constant_recovered()) for row in found)
    return chart(title, plot, _key(has_constant), _losses(found, unit, places), kind="recovered")


def _axis(rows: Sequence[ScrubRow]) -> Axis:
    """Return a line from floor to original, and beyond as far as the values within `FARTHEST` of them."""
    needed = [value for row in rows for value in (row.recovered, row.low, row.high, row.constant_recovered())]
    within = [value for value in needed if -FARTHEST <= value <= 1 + FARTHEST]
    return spanning([-0.06, 1.06, *within], include=(0.0, 1.0), margin=0.0)


def _places(rows: Sequence[ScrubRow]) -> int:
    """Return three decimals where two would hide a standard error, else two."""
    return 3 if any(0 < row.standard_error < 0.005 for row in rows) else 2


def _strip(row: ScrubRow, axis: Axis, places: int) -> Strip:
    number = with_error(row.recovered, row.standard_error, places)
    constant = row.constant_recovered()
    hint = f"{row.name}: recovered {number}, interval {interval(row.low, row.high, places)}"
    marks: list[Markup] = []
    if not math.isnan(constant):
        hint = f"{hint}; the constant predictor would recover {written(constant)}"
        if not axis.is_beyond(constant):
            marks.append(symbol(axis, constant, _DIAMOND, "constant"))
    if not math.isnan(row.low) and not math.isnan(row.high):
        marks.append(whisker(axis, row.low, row.high))
    if not math.isnan(row.recovered) and not axis.is_beyond(row.recovered):
        marks.append(symbol(axis, row.recovered, _DOT, "dot"))
    reached = [value for value in (row.recovered, row.low, row.high) if not math.isnan(value)]
    first, last = min(reached, default=0.0), max(reached, default=0.0)
    marks += [beyond(axis, min(first, 0.0)), beyond(axis, max(last, 1.0))]
    return Strip(shorten(row.name, 120), tuple(marks), number, hint, remark=row.verdict)


def _key(has_constant: bool) -> Markup:
    """Return the explanation of the marks."""
    entries = [(_DOT, "dot", "recovered fraction, with its interval")]
    if has_constant:
        entries.append((_DIAMOND, "constant", "best constant predictor"))
    shown = [
        tag(
            "span",
            tag(
                "svg",
                tag("path", d=path, class_=f"sj-{kind}"),
                viewBox="-7 -7 14 14",
                width=13,
                height=13,
                aria_hidden="true",
            ),
            words,
        )
        for path, kind, words in entries
    ]
    return tag("p", join(shown), class_="sj-key")


def _losses(rows: Sequence[ScrubRow], unit: str, places: int) -> Markup:
    body = [
        (
            row.name,
            *(written(loss, _loss_places(rows)) for loss in (row.original, row.scrubbed, row.floor, row.constant)),
            MISSING if math.isnan(row.low + row.high) else interval(row.low, row.high, places),
        )
        for row in rows
    ]
    headers = ["hypothesis", "original", "scrubbed", "floor", "constant", "interval of recovered"]
    caption = f"Mean losses, in {unit}" if unit else "Mean losses"
    return tag("div", table(headers, body, "lrrrrr", caption=caption), class_="sj-under")


def _loss_places(rows: Sequence[ScrubRow]) -> int:
    """Return the decimals that show the smallest loss with one digit, at least three and at most five."""
    sizes = [abs(loss) for row in rows for loss in (row.original, row.floor, row.scrubbed, row.constant)]
    smallest = min((size for size in sizes if 0 < size < math.inf), default=1.0)
    return min(max(3, math.ceil(-math.log10(smallest))), 5)
