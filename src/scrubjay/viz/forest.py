"""Rows on a shared number line: name at the left, marks in the middle, numbers at the right.

This is the forest plot of medical reports, built as a real HTML table, so that it reads as a table, wraps on a
narrow screen and keeps its text size at every width. Each row holds its own strip of SVG whose places are
percentages of one `Axis`; reference lines run the full height of every strip and so join up from row to row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scrubjay.viz.axis import Axis
from scrubjay.viz.escape import Markup, brief, shorten, tag
from scrubjay.viz.number import written

_MOST_TICKS = 8
_LINE_HEIGHT = 15
_PERCENT_PER_CHARACTER = 4.6
_EM_PER_CHARACTER = 0.56


@dataclass(frozen=True, slots=True)
class Line:
    """A vertical reference line at `value`, named above the rows; an empty name leaves the line unnamed."""

    value: float
    name: str = ""


@dataclass(frozen=True, slots=True)
class Strip:
    """One row: its name, a smaller remark under it, its marks on the number line, and its written number."""

    name: str
    marks: tuple[Markup, ...]
    number: str
    hint: str
    remark: str = ""


def forest(
    axis: Axis, lines: Sequence[Line], strips: Sequence[Strip], headings: tuple[str, str], band: bool = False
) -> Markup:
    """Return the table: a heading with the names of the lines, a row for each strip, and the ticks.

    `headings` names the first and the last column. With `band`, the part between 0 and 1 is shaded.

    >>> strip = Strip("L0.H1", (bar(Axis(0.0, 2.0), 0.0, 1.0, "positive"),), "+1.00", "L0.H1: +1.00")
    >>> "L0.H1" in forest(Axis(0.0, 2.0), [Line(0.0)], [strip], ("head", "effect"))
    True
    """
    shading = _band(axis) if band else Markup()
    rules = [_rule(axis, line) for line in lines]
    rows = [_row(strip, shading, rules) for strip in strips]
    first, last = headings
    head = tag(
        "tr",
        tag("th", first, scope="col"),
        tag("td", _line_names(axis, lines), class_="sj-plot"),
        tag("th", last, scope="col", class_="sj-number"),
    )
    foot = tag("tr", tag("td"), tag("td", _ticks(axis), class_="sj-plot"), tag("td"), class_="sj-ticks")
    longest = max((max(len(strip.name), 0.88 * len(strip.remark)) for strip in strips), default=0.0)
    width = f"--sj-names:{brief(_EM_PER_CHARACTER * longest + 0.5)}em"
    return tag("table", tag("thead", head), tag("tbody", *rows), tag("tfoot", foot), class_="sj-forest", style=width)


def bar(axis: Axis, start: float, stop: float, kind: str) -> Markup:
    """Return a bar between two values; `kind` is its style, `positive` or `negative`."""
    left, right = sorted((axis.percent(start), axis.percent(stop)))
    fill = {"positive": "#b3202f", "negative": "#2268ae"}.get(kind)
    return tag(
        "rect", x=f"{brief(left)}%", width=f"{brief(right - left)}%", y="50%", height=12,
        transform="translate(0 -6)", class_=f"sj-{kind}", fill=fill,
    )  # fmt: skip


def whisker(axis: Axis, low: float, high: float, ends: bool = True) -> Markup:
    """Return a horizontal interval; `ends` adds the small strokes across where an end lies on the line."""
    left, right = (f"{brief(axis.percent(value))}%" for value in (low, high))
    parts = [tag("line", x1=left, x2=right, y1="50%", y2="50%")]
    if ends:
        parts += [
            tag("line", x1=place, x2=place, y1="50%", y2="50%", transform="translate(0 -4)", class_="sj-cap")
            for place, value in ((left, low), (right, high))
            if not axis.is_beyond(value)
        ]
    return tag("g", *parts, class_="sj-whisker", stroke="#1b2227")


def symbol(axis: Axis, value: float, path: str, kind: str) -> Markup:
    """Return a small shape, given as a path around the origin, at `value`; out of reach, at the end of the line."""
    return tag(
        "svg", tag("path", d=path, class_=f"sj-{kind}"), x=f"{brief(axis.percent(value))}%", y="50%", overflow="visible"
    )


def beyond(axis: Axis, value: float) -> Markup:
    """Return the break mark, a double chevron at the end of the line, where `value` lies beyond it."""
    if math.isnan(value) or not axis.is_beyond(value):
        return Markup()
    chevrons = "M-9-5l5 5-5 5M-4-5l5 5-5 5" if value > axis.high else "M9-5l-5 5 5 5M4-5l-5 5 5 5"
    return symbol(axis, value, chevrons, "break")


def _row(strip: Strip, shading: Markup, rules: Sequence[Markup]) -> Markup:
    remark = tag("span", strip.remark, class_="sj-remark") if strip.remark else Markup()
    picture = tag(
        "svg",
        tag("title", strip.hint),
        shading,
        *rules,
        *strip.marks,
        role="img",
        aria_label=strip.hint,
        class_="sj-strip",
    )
    return tag(
        "tr",
        tag("th", tag("span", strip.name, class_="sj-name"), remark, scope="row"),
        tag("td", picture, class_="sj-plot"),
        tag("td", strip.number, class_="sj-number"),
    )


def _rule(axis: Axis, line: Line) -> Markup:
    place = f"{brief(axis.percent(line.value))}%"
    kind = "sj-zero" if line.value == 0 else "sj-reference"
    return tag("line", x1=place, x2=place, y1="0", y2="100%", class_=kind, stroke="#9aa5ad")


def _band(axis: Axis) -> Markup:
    left, right = axis.percent(0.0), axis.percent(1.0)
    return tag(
        "rect",
        x=f"{brief(left)}%",
        width=f"{brief(right - left)}%",
        y="0",
        height="100%",
        class_="sj-band",
        fill="#f2f5f6",
    )


def _anchor(place: float) -> str:
    """Return where a name at `place` percent is held, so that it stays within the line."""
    return "start" if place < 8 else "end" if place > 92 else "middle"


def _line_names(axis: Axis, lines: Sequence[Line]) -> Markup:
    """Return the names above their lines, on as many levels as keep them apart."""
    ends: list[float] = []
    placed: list[tuple[float, str, int]] = []
    for line in sorted((line for line in lines if line.name), key=lambda line: line.value):
        place, name = axis.percent(line.value), shorten(line.name, 28)
        width = _PERCENT_PER_CHARACTER * len(name)
        start = place - width * {"start": 0.0, "middle": 0.5, "end": 1.0}[_anchor(place)]
        depth = next((index for index, end in enumerate(ends) if end < start), len(ends))
        ends[depth : depth + 1] = [start + width]
        placed.append((place, name, depth))
    if not placed:
        return Markup()
    height = _LINE_HEIGHT * len(ends) + 3
    names = [
        tag(
            "text",
            name,
            x=f"{brief(place)}%",
            y=height - 6 - _LINE_HEIGHT * depth,
            text_anchor=_anchor(place),
            class_="sj-axis",
        )
        for place, name, depth in placed
    ]
    return tag("svg", *names, height=height, class_="sj-names", aria_hidden="true")


def _ticks(axis: Axis) -> Markup:
    parts = []
    for value in axis.ticks(_MOST_TICKS):
        place = f"{brief(axis.percent(value))}%"
        parts.append(tag("line", x1=place, x2=place, y1="0", y2="4", class_="sj-tick", stroke="#9aa5ad"))
        parts.append(
            tag("text", written(value, axis.places(_MOST_TICKS)), x=place, y=17, text_anchor="middle", class_="sj-axis")
        )
    return tag("svg", *parts, height=20, class_="sj-names", aria_hidden="true")
