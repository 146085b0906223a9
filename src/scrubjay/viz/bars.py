"""Horizontal signed bars: what each head, MLP or feature contributes.

Bars start at zero and are never cut: the number line reaches the largest value with its error. Positive is red,
negative is blue, as in the signed colour scale, and the number beside the bar says the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from scrubjay.errors import InputError
from scrubjay.viz.array import labels as checked_labels
from scrubjay.viz.array import largest, numbers
from scrubjay.viz.axis import Axis, spanning
from scrubjay.viz.escape import Markup, shorten, tag
from scrubjay.viz.forest import Line, Strip, bar, beyond, forest, whisker
from scrubjay.viz.frame import chart, places_for
from scrubjay.viz.number import with_error, with_unit

if TYPE_CHECKING:
    from jaxtyping import Float

_LABEL_CHARACTERS = 60


def bars(
    labels: Sequence[str],
    values: Float[np.ndarray, " item"],
    errors: Float[np.ndarray, " item"] | None = None,
    title: str = "",
    unit: str = "",
    *,
    reference_lines: Mapping[str, float] | None = None,
    places: int | None = None,
) -> Markup:
    """Return a bar for each value, with its number, in the order given.

    `errors` are standard errors (not negative, same unit): they are drawn as whiskers of one standard error to
    each side and written after ±. `reference_lines` maps a name to the value of a vertical line. NaN has no bar and
    is written as a dash; an infinite value runs to the end of the line with a break mark.

    >>> figure = bars(["L0.H0", "MLP 0"], np.array([1.25, -0.5]), np.array([0.1, 0.05]), title="Effect")
    >>> "+1.25 ± 0.10" in figure and "0.50 ± 0.05" in figure
    True
    """
    array = numbers(values, "item")
    names = checked_labels(labels, len(array), "labels", "item")
    spread = _spread(errors, len(array))
    drawn = np.where(np.isfinite(spread), spread, 0.0)
    lines = [Line(float(value), name) for name, value in (reference_lines or {}).items()]
    if any(not math.isfinite(line.value) for line in lines):
        raise InputError("A reference line needs a finite value; leave out the ones that have none.")
    ends = np.concatenate([array - drawn, array + drawn, [line.value for line in lines]])
    axis = spanning(ends.tolist())
    decimals = places_for(largest(array)) if places is None else places
    strips = [
        _strip(shorten(name, _LABEL_CHARACTERS), float(value), float(error), axis, unit, decimals)
        for name, value, error in zip(names, array, spread, strict=True)
    ]
    table = forest(axis, [Line(0.0), *lines], strips, ("", unit))
    key = (
        tag("p", "Whiskers reach one standard error to each side.", class_="sj-key") if errors is not None else Markup()
    )
    return chart(title, table, key, kind="bars")


def _spread(errors: Float[np.ndarray, " item"] | None, count: int) -> Float[np.ndarray, " item"]:
    if errors is None:
        return np.full(count, math.nan)
    spread = numbers(errors, "item", "errors")
    if len(spread) != count:
        raise InputError(f"errors holds {len(spread)} numbers for {count} values; give exactly one for each.")
    if np.nanmin(spread, initial=0.0) < 0:
        raise InputError(f"errors are sizes and not negative; the smallest given is {float(np.nanmin(spread)):.3g}.")
    return spread


def _strip(name: str, value: float, error: float, axis: Axis, unit: str, places: int) -> Strip:
    number = with_error(value, error, places, sign=True)
    hint = f"{name}: " + ("no value" if math.isnan(value) else with_unit(number, unit))
    if math.isnan(value):
        return Strip(name, (), number, hint)
    marks = [bar(axis, 0.0, value, "negative" if value < 0 else "positive"), beyond(axis, value)]
    if 0 < error < math.inf and math.isfinite(value):
        marks.append(whisker(axis, value - error, value + error))
    return Strip(name, tuple(marks), number, hint)
