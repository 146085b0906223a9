"""What every figure shares: a titled group with an accessible name, a colour bar, a box that scrolls sideways.

A figure is a `div` of class `sj-chart` whose accessible name is its title. Styles live in `style.py`; a drawing
also carries plain colours and sizes as attributes, so it stays readable where a viewer strips the style sheet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from scrubjay.viz.colour import LEVELS, level, sequential, signed
from scrubjay.viz.escape import Markup, brief, join, tag
from scrubjay.viz.number import with_unit, written

XMLNS = "http://www.w3.org/2000/svg"
GREY = "#68747c"
_BAR_STEPS = 48


def chart(title: str, *content: Markup, kind: str) -> Markup:
    """Return a figure: the title over its content, grouped under one accessible name.

    >>> chart("Losses", tag("p", "…"), kind="table")
    '<div class="sj-chart sj-chart-table" role="group" aria-label="Losses"><p class="sj-title">Losses</p><p>…</p></div>'
    """
    heading = tag("p", title, class_="sj-title") if title else Markup()
    return tag("div", heading, *content, class_=f"sj-chart sj-chart-{kind}", role="group", aria_label=title or kind)


def drawing(
    width: float, height: float, title: str, description: str, parts: Sequence[Markup], least: float = 0.0
) -> Markup:
    """Return a stand-alone SVG of `width` by `height` pixels, named and described.

    It shrinks with its box down to the share `least` of its width; below that, its box has to scroll.
    """
    return tag(
        "svg",
        tag("desc", description),
        *parts,
        xmlns=XMLNS,
        viewBox=f"0 0 {brief(width)} {brief(height)}",
        class_="sj-drawing",
        role="img",
        aria_label=title,
        style=f"max-width:{brief(width)}px;min-width:{brief(least * width)}px",
        font_family="ui-sans-serif, system-ui, sans-serif",
    )


def scrolling(content: Markup, name: str) -> Markup:
    """Return `content` in a box that scrolls sideways where the page is too narrow, reachable by keyboard."""
    return tag("div", content, class_="sj-scroll", role="region", aria_label=name, tabindex="0")


def signed_legend(limit: float, unit: str, places: int, note: str = "") -> Markup:
    """Return the colour bar of the signed scale, from `-limit` over 0 to `limit`."""
    steps = [signed(limit * (2 * (index + 0.5) / _BAR_STEPS - 1), limit) for index in range(_BAR_STEPS)]
    ends = [written(-limit, places), "0", with_unit(written(limit, places, sign=True), unit)]
    return _legend(
        [tag("rect", x=index, width=1.05, height=1, fill=step) for index, step in enumerate(steps)], ends, note
    )


def sequential_legend(top: float, unit: str, places: int, note: str = "") -> Markup:
    """Return the colour bar of the sequential scale, from 0 to `top`."""
    steps = [sequential((index + 0.5) / _BAR_STEPS) for index in range(_BAR_STEPS)]
    parts = [tag("rect", x=index, width=1.05, height=1, fill=step) for index, step in enumerate(steps)]
    return _legend(parts, ["0", with_unit(written(top, places), unit)], note)


def level_legend(top: float, places: int, note: str = "") -> Markup:
    """Return the colour bar of the steps of the sequential scale, from 0 to `top`; it follows the page into the dark."""
    width = _BAR_STEPS / LEVELS
    parts = [
        tag("rect", x=width * step, width=width + 0.05, height=1, fill=level(step + 1), class_=f"sj-q{step + 1}")
        for step in range(LEVELS)
    ]
    return _legend(parts, ["0", written(top, places)], note)


def places_for(size: float) -> int:
    """Return how many decimals show two or three digits of numbers up to `size`.

    >>> places_for(3.2), places_for(0.9), places_for(0.04), places_for(250.0), places_for(0.0)
    (2, 2, 3, 0, 2)
    """
    if size <= 0 or not math.isfinite(size):
        return 2
    power = math.floor(math.log10(size))
    return min(max((2 if power >= 0 else 1) - power, 0), 6)


def _legend(parts: Sequence[Markup], ends: Sequence[str], note: str) -> Markup:
    bar = tag("svg", *parts, viewBox="0 0 48 1", preserveAspectRatio="none", class_="sj-colourbar", aria_hidden="true")
    scale = tag("div", bar, tag("div", join(tag("span", end) for end in ends), class_="sj-ends"), class_="sj-scale")
    return tag("div", scale, tag("span", note, class_="sj-note") if note else Markup(), class_="sj-legend")
