"""How a number is written in a figure or a table.

One style everywhere: a real minus sign, a fixed number of decimals so that columns line up, an en dash for "no
value", and scientific notation only where fixed decimals would show nothing.
"""

from __future__ import annotations

import math

from scrubjay.errors import InputError

MINUS = "\N{MINUS SIGN}"
MISSING = "\N{EN DASH}"
_LARGEST_FIXED = 1e6


def written(value: float, places: int = 2, sign: bool = False) -> str:
    """Return `value` with `places` decimals; `sign=True` also writes the plus.

    >>> written(-1.234), written(0.5, sign=True), written(float("nan")), written(float("inf"))
    ('−1.23', '+0.50', '–', '∞')
    >>> written(0.000012), written(0.0)
    ('1.2e−5', '0.00')
    """  # noqa: RUF002
    if not 0 <= places <= 12:
        raise InputError(f"Decimals must lie between 0 and 12; {places} were asked for.")
    if math.isnan(value):
        return MISSING
    mark = MINUS if value < 0 else "+" if sign and value > 0 else ""
    size = abs(value)
    if math.isinf(size):
        return mark + "\N{INFINITY}"
    if size >= _LARGEST_FIXED or 0 < size < 0.5 * 10**-places:
        digits, exponent = f"{size:.1e}".split("e")
        power = int(exponent)
        return f"{mark}{digits}e{MINUS if power < 0 else ''}{abs(power)}"
    return mark + f"{size:.{places}f}"


def rounded(value: float, places: int = 2, sign: bool = False) -> str:
    """Return `value` as `written` does, but with zeros where it is too small for its decimals, never an exponent.

    >>> rounded(-0.0004), rounded(0.126, sign=True)
    ('0.00', '+0.13')
    """
    return written(0.0 if abs(value) < 0.5 * 10**-places else value, places, sign)


def with_error(value: float, error: float, places: int = 2, sign: bool = False) -> str:
    """Return a value and its standard error, to the same decimals; an error too small for them is bounded.

    >>> with_error(0.871, 0.02), with_error(0.98, 0.0004), with_error(1.0, float("nan"))
    ('0.87 ± 0.02', '0.98 ± <0.01', '1.00')
    """
    number = rounded(value, places, sign)
    if math.isnan(value) or math.isnan(error):
        return number
    if 0 < error < 0.5 * 10**-places:
        return f"{number} ± <{10**-places:.{places}f}"
    return f"{number} ± {written(error, places)}"


def interval(low: float, high: float, places: int = 2) -> str:
    """Return an interval in brackets.

    >>> interval(0.84, 0.9)
    '[0.84, 0.90]'
    """
    return f"[{written(low, places)}, {written(high, places)}]"


def with_unit(value: str, unit: str) -> str:
    """Return a written value followed by its unit, or alone where there is none.

    >>> with_unit("1.20", "nats"), with_unit("1.20", ""), with_unit("80", "%")
    ('1.20 nats', '1.20', '80%')
    """
    if not unit:
        return value
    return value + unit if unit == "%" else f"{value} {unit}"
