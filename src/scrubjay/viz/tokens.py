"""A strip of tokens coloured by value: loss, attribution, a feature's activation along a text.

Spaces show as dots and line ends as arrows, so that tokens can be told apart. Every value can be read without
colour: in the hover text, and in a table that opens below the strip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scrubjay.errors import InputError
from scrubjay.viz.array import labels, largest, numbers
from scrubjay.viz.colour import ink, sequential
from scrubjay.viz.colour import signed as signed_colour
from scrubjay.viz.escape import Markup, tag, token
from scrubjay.viz.frame import chart, places_for, sequential_legend, signed_legend
from scrubjay.viz.number import with_unit, written
from scrubjay.viz.table import table

if TYPE_CHECKING:
    from jaxtyping import Float

_MOST_CHARACTERS = 40


def tokens(
    strings: Sequence[str],
    values: Float[np.ndarray, " token"],
    title: str = "",
    signed: bool = True,
    unit: str = "",
    *,
    places: int | None = None,
) -> Markup:
    """Return the tokens in reading order, each on a background coloured by its value, with the colour bar.

    `values` has one number for each token. NaN is drawn hatched. With `signed=False` values must not be negative.

    >>> figure = tokens(["The", " cat"], np.array([0.0, 1.5]), unit="nats")
    >>> "·cat: +1.50 nats" in figure
    True
    """
    array = numbers(values, "token")
    names = labels(strings, len(array), "strings", "token")
    if not signed and np.nanmin(array, initial=0.0) < 0:
        raise InputError(f"values goes down to {float(np.nanmin(array)):.3g}, but signed=False; ask for signed=True.")
    reach = largest(array) or 1.0
    decimals = places_for(reach) if places is None else places
    numbers_written = [written(float(value), decimals, sign=signed) for value in array]
    spans = []
    for name, value, number in zip(names, array, numbers_written, strict=True):
        colour = signed_colour(float(value), reach) if signed else sequential(float(value), reach)
        spans.append(_span(name, float(value), with_unit(number, unit), colour))
        if "\n" in name:
            spans.append(tag("br"))
    legend = (signed_legend if signed else sequential_legend)(reach, unit, decimals)
    listing = table(
        ["place", "token", f"value, {unit}" if unit else "value"],
        [
            (str(place), token(name, _MOST_CHARACTERS), number)
            for place, (name, number) in enumerate(zip(names, numbers_written, strict=True))
        ],
        "rlr",
    )
    opened = tag("details", tag("summary", "Values as a table"), listing, class_="sj-values")
    return chart(title, tag("p", *spans, class_="sj-strip-of-tokens"), legend, opened, kind="tokens")


def _span(name: str, value: float, number: str, colour: str) -> Markup:
    shown = token(name, _MOST_CHARACTERS)
    if math.isnan(value):
        return tag("span", shown, class_="sj-token sj-missing", title=f"{shown}: no value")
    return tag(
        "span", shown, class_="sj-token", style=f"background:{colour};color:{ink(colour)}", title=f"{shown}: {number}"
    )
