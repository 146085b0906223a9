"""A table of values as colour: layers by heads, layers by positions, components by features.

Signed values take the blue, white, red scale with zero exactly white; others the sequential scale. Where the cells
are few, each also holds its number. NaN is hatched, never a colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scrubjay.errors import InputError
from scrubjay.viz.array import labels, largest, numbers
from scrubjay.viz.colour import ink, sequential
from scrubjay.viz.colour import signed as signed_colour
from scrubjay.viz.escape import Markup, brief, join, shorten, tag, token
from scrubjay.viz.frame import GREY, chart, drawing, places_for, scrolling, sequential_legend, signed_legend
from scrubjay.viz.number import rounded, with_unit, written

if TYPE_CHECKING:
    from jaxtyping import Float

MOST_CELLS = 20_000
_MOST_NUMBERED_COLUMNS = 14
_FONT = 11.0
_CHARACTER = 0.6 * _FONT
_LABEL_CHARACTERS = 20


def heatmap(
    values: Float[np.ndarray, "row column"],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    signed: bool = True,
    unit: str = "",
    *,
    places: int | None = None,
    limit: float | None = None,
) -> Markup:
    """Return a heat map of `values` with axes (row, column), and its colour bar.

    `signed` picks the scale: blue for negative, white for zero, red for positive, the same reach on both sides; or
    white to green from zero. `limit` is the value of the full colour (the largest finite size unless given);
    values beyond it keep the end colour, and their own number. `places` is the number of decimals.

    Raises `InputError` where the sizes disagree or an unsigned map holds negative values.

    >>> figure = heatmap(np.array([[0.0, 1.5]]), ["L0"], ["H0", "H1"], "Effect", unit="nats")
    >>> "L0, H1: +1.50 nats" in figure and 'fill="#ffffff"' in figure
    True
    """
    array = numbers(values, "row column")
    row_names = labels(rows, array.shape[0], "rows", "row")
    column_names = labels(columns, array.shape[1], "columns", "column")
    if array.size > MOST_CELLS:
        raise InputError(
            f"values has {array.size} cells; at most {MOST_CELLS} can be drawn. Slice or average it first."
        )
    if not signed and np.nanmin(array, initial=0.0) < 0:
        raise InputError(f"values goes down to {float(np.nanmin(array)):.3g}, but signed=False; ask for signed=True.")
    reach = _reach(array, limit)
    look = _Look(signed, reach, unit, places_for(reach) if places is None else places)
    names = (
        [token(name, _LABEL_CHARACTERS) for name in row_names],
        [token(name, _LABEL_CHARACTERS) for name in column_names],
    )
    picture = _picture(array, names[0], names[1], title, look)
    note = "hatched: no value" if np.isnan(array).any() else ""
    legend = (signed_legend if signed else sequential_legend)(reach, unit, look.places, note)
    return chart(title, scrolling(picture, shorten(title, 80)), legend, kind="heatmap")


@dataclass(frozen=True, slots=True)
class _Look:
    """How values are shown: the scale, its reach (in `unit`), and the decimals."""

    signed: bool
    reach: float
    unit: str
    places: int

    def colour(self, value: float) -> str:
        return signed_colour(value, self.reach) if self.signed else sequential(value, self.reach)

    def number(self, value: float) -> str:
        return rounded(value, self.places, sign=self.signed)

    def hint(self, value: float) -> str:
        if math.isnan(value):
            return "no value"
        return with_unit(written(value, self.places, sign=self.signed), self.unit)


def _reach(array: Float[np.ndarray, "row column"], limit: float | None) -> float:
    if limit is None:
        return largest(array) or 1.0
    if not (math.isfinite(limit) and limit > 0):
        raise InputError(f"limit is the value of the full colour, a positive finite number; {limit} was given.")
    return float(limit)


def _picture(
    array: Float[np.ndarray, "row column"], rows: list[str], columns: list[str], title: str, look: _Look
) -> Markup:
    count = array.shape[1]
    numbered = count <= _MOST_NUMBERED_COLUMNS
    widest = max(len(look.number(float(value))) for value in array.flat) if numbered else 0
    width = max(42.0, 14 + _CHARACTER * widest) if numbered else min(max(680 / count, 6.0), 28.0)
    height = 27.0 if numbered else min(max(width, 12.0), 22.0)
    turned = max(len(name) for name in columns) * _CHARACTER > width - 4
    overhang = 0.72 * _CHARACTER * max(len(name) for name in columns)
    left = 10 + _CHARACTER * max(len(name) for name in rows)
    top = 16 + overhang if turned else 20.0
    cells = [
        _cell(
            value,
            (left + width * column, top + height * row),
            (width, height),
            f"{rows[row]}, {columns[column]}",
            look,
            numbered,
        )
        for (row, column), value in np.ndenumerate(array)
    ]
    every = max(1, math.ceil(_FONT * 1.1 / width)) if turned else 1
    parts = [
        tag("g", *cells, font_size=_FONT, text_anchor="middle", class_="sj-cells"),
        _row_labels(rows, left, top, height),
        _column_labels(columns, (left, top), width, turned, every),
    ]
    description = (
        f"{len(rows)} rows by {count} columns; full colour at {with_unit(look.number(look.reach), look.unit)}."
    )
    total = left + width * count + (overhang if turned else 0) + 2
    return drawing(total, top + height * len(rows) + 2, title, description, parts, least=0.85)


def _cell(
    value: float, place: tuple[float, float], size: tuple[float, float], name: str, look: _Look, numbered: bool
) -> Markup:
    left, top = place
    width, height = size
    colour = look.colour(value)
    shown = look.number(value)
    hint = tag("title", f"{name}: {look.hint(value)}")
    box = f"M{brief(left)} {brief(top)}h{brief(width)}v{brief(height)}h-{brief(width)}z"
    if math.isnan(value):
        strokes = tag("path", d=_hatch(left, top, width, height), stroke=GREY, class_="sj-hatch")
        return tag("g", hint, tag("path", d=box, class_="sj-plate", fill="#fff"), strokes)
    square = tag("path", hint, d=box, fill=colour)
    if not numbered:
        return square
    middle = {"x": left + width / 2, "y": top + height / 2 + 0.35 * _FONT}
    return join([square, tag("text", shown, fill=ink(colour), **middle)])


def _hatch(left: float, top: float, width: float, height: float) -> str:
    """Return diagonal strokes, 6 pixels apart, that fill a box and stay inside it."""
    strokes = []
    offset = 3.0
    while offset < width + height:
        start_x, start_y = min(offset, width), max(0.0, offset - width)
        end_x, end_y = max(0.0, offset - height), min(offset, height)
        strokes.append(f"M{brief(left + start_x)} {brief(top + start_y)}L{brief(left + end_x)} {brief(top + end_y)}")
        offset += 6.0
    return "".join(strokes)


def _row_labels(rows: list[str], left: float, top: float, height: float) -> Markup:
    every = max(1, math.ceil(_FONT * 1.1 / height))
    texts = [
        tag("text", name, x=left - 7, y=top + height * (index + 0.5) + 0.35 * _FONT)
        for index, name in enumerate(rows)
        if index % every == 0
    ]
    return tag("g", *texts, font_size=_FONT, text_anchor="end", fill=GREY, class_="sj-axis")


def _column_labels(columns: list[str], corner: tuple[float, float], width: float, turned: bool, every: int) -> Markup:
    left, top = corner
    texts = []
    for index, name in enumerate(columns):
        middle = left + width * (index + 0.5)
        if turned and index % every == 0:
            texts.append(tag("text", name, transform=f"translate({brief(middle + 3)} {brief(top - 6)}) rotate(-45)"))
        elif not turned:
            texts.append(tag("text", name, x=middle, y=top - 7))
    anchor = "start" if turned else "middle"
    return tag("g", *texts, font_size=_FONT, text_anchor=anchor, fill=GREY, class_="sj-axis")
