"""What a figure demands of the arrays and labels it is given.

Every figure checks its input here, so that a mistake is named by what was asked and what was found, both with
their sizes, and never shows up as a figure with shifted labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scrubjay.errors import InputError


def numbers(values: ArrayLike, axes: str, name: str = "values") -> NDArray[np.float64]:
    """Return `values` as float64 with one axis for each word of `axes`, none of them empty.

    Raises `InputError` where the array has another number of axes, holds no element, or is not real numbers.

    >>> numbers([[1, 2, 3]], "row column").shape
    (1, 3)
    """
    words = axes.split()
    found = np.asarray(values)
    if found.dtype.kind not in "biuf":
        raise InputError(f"{name} must be real numbers; the array given has dtype {found.dtype}.")
    if found.ndim != len(words):
        raise InputError(
            f"{name} must have {len(words)} axes ({', '.join(words)}); the array given has shape {found.shape}."
        )
    if found.size == 0:
        raise InputError(f"{name} is empty: its shape ({', '.join(words)}) is {found.shape}. There is nothing to draw.")
    return found.astype(np.float64)


def labels(given: Sequence[str], count: int, name: str, axis: str) -> list[str]:
    """Return the labels as a list, checked to be strings and one for each of the `count` places on `axis`.

    >>> labels(["a", "b"], 2, "tokens", "query")
    ['a', 'b']
    """
    if isinstance(given, str):
        raise InputError(f"{name} must be a list of strings; one string was given: {given[:40]!r}.")
    found = list(given)
    if len(found) != count:
        raise InputError(
            f"{name} holds {len(found)} labels, but the {axis} axis has {count} places; give exactly one label for each."
        )
    for label in found:
        if not isinstance(label, str):
            raise InputError(f"{name} must hold strings; it holds {label!r}, a {type(label).__name__}.")
    return found


def largest(values: NDArray[np.float64]) -> float:
    """Return the largest finite absolute value, or 0.0 where no value is finite.

    >>> largest(np.array([1.0, -3.0, np.nan, np.inf]))
    3.0
    """
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size else 0.0
