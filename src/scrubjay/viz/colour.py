"""Two colour scales: signed (blue, white, red) and sequential (white to deep green).

The signed scale is safe for the common kinds of colour blindness, and zero is exactly white, so colour always
means "not zero". Negative is blue, positive is red. The sequential scale has a twin for dark backgrounds, where
zero is the background and larger is lighter; both rise evenly in lightness, so they also print in grey.
"""

from __future__ import annotations

import math

LEVELS = 24
"""How many steps a sequential colour is rounded to where cells of one colour are drawn together."""

_NEGATIVE = ("#ffffff", "#d6e6f2", "#9cc8e2", "#539bcb", "#2268ae", "#0a3a70")
_POSITIVE = ("#ffffff", "#fbdfcf", "#f3ab8b", "#d96b52", "#b3202f", "#6d0722")
_LIGHT = ("#ffffff", "#cfe6e0", "#a3d0c8", "#6fb5ad", "#3f958f", "#1c6f6d", "#0b4a4d", "#042c33")
_DARK = ("#1a2025", "#173f42", "#165253", "#1d6764", "#35877e", "#65aa9c", "#a3cec1", "#e4f4ee")
_INK, _PAPER = "#1b2227", "#ffffff"


def signed(value: float, limit: float) -> str:
    """Return the colour of `value` on a scale from `-limit` (blue) over 0 (white) to `limit` (red).

    Values beyond the limit take the end colour; NaN is white, and figures hatch it as well.

    >>> signed(0.0, 2.0), signed(2.0, 2.0), signed(-9.0, 2.0)
    ('#ffffff', '#6d0722', '#0a3a70')
    """
    if math.isnan(value) or value == 0:
        return _PAPER
    share = 1.0 if limit <= 0 or math.isinf(value) else min(abs(value) / limit, 1.0)
    return _between(_POSITIVE if value > 0 else _NEGATIVE, share)


def sequential(value: float, limit: float = 1.0, dark: bool = False) -> str:
    """Return the colour of a value between 0 (the background) and `limit`.

    >>> sequential(0.0), sequential(1.0), sequential(0.0, dark=True)
    ('#ffffff', '#042c33', '#1a2025')
    """
    share = 0.0 if math.isnan(value) or value <= 0 else 1.0
    if math.isfinite(value) and limit > 0:
        share = min(max(value / limit, 0.0), 1.0)
    return _between(_DARK if dark else _LIGHT, share)


def level(value: int, dark: bool = False) -> str:
    """Return the colour of step `value` of `LEVELS`; even the first stands out from the background.

    >>> level(0), level(LEVELS)
    ('#ffffff', '#042c33')
    """
    return sequential(max(value - 0.2, 0) / (LEVELS - 0.2), dark=dark)


def ink(background: str) -> str:
    """Return the text colour, dark or white, that contrasts more with a background given as `#rrggbb`.

    >>> ink("#ffffff"), ink("#0a3a70")
    ('#1b2227', '#ffffff')
    """
    brightness = _luminance(background)
    dark = (brightness + 0.05) / (_luminance(_INK) + 0.05)
    light = 1.05 / (brightness + 0.05)
    return _INK if dark >= light else _PAPER


def _between(stops: tuple[str, ...], share: float) -> str:
    place = share * (len(stops) - 1)
    first = min(int(place), len(stops) - 2)
    pairs = zip(_channels(stops[first]), _channels(stops[first + 1]), strict=True)
    return "#" + "".join(f"{round(low + (high - low) * (place - first)):02x}" for low, high in pairs)


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2.1, between 0 and 1."""
    shares = (channel / 255 for channel in _channels(colour))
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
