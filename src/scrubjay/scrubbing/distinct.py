"""Rows that a model reads as one: data sets repeat themselves, and what was computed for a row holds for every other with its contents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from scrubjay.claims.data import Dataset
from scrubjay.evidence.digest import digest_array, digest_json


@dataclass(frozen=True, eq=False)
class Distinct:
    """Which rows of a data set have which contents.

    Attributes:
        first: for each content the row that stands for it, (content,).
        of: for each row of the data the content it has, (row,); -1 for rows that were not looked at.
    """

    first: np.ndarray
    of: np.ndarray

    def __len__(self) -> int:
        """Return the number of unlike rows."""
        return len(self.first)


_known: WeakKeyDictionary[Dataset, dict[tuple[str, ...], Distinct]] = WeakKeyDictionary()
_digests: WeakKeyDictionary[Dataset, dict[tuple[str, ...], str]] = WeakKeyDictionary()


def distinct(data: Dataset, columns: Sequence[str] = (), rows: np.ndarray | None = None) -> Distinct:
    """Return the unlike rows of a data set (or of some rows of it): those that differ in an input, or in one of these features.

    >>> data = Dataset("pairs", {"x": np.array([[1, 2], [3, 4], [1, 2]])}, np.zeros(3))
    >>> distinct(data).of
    array([0, 1, 0])
    """
    if rows is None:
        known = _known.setdefault(data, {})
        key = tuple(columns)
        if key not in known:
            known[key] = _merged(data, columns, np.arange(len(data)))
        return known[key]
    return _merged(data, columns, rows)


def _merged(data: Dataset, columns: Sequence[str], rows: np.ndarray) -> Distinct:
    if not len(rows):
        return Distinct(rows, np.full(len(data), -1, dtype=np.int64))
    arrays = [*data.inputs.values(), *(data.features[name].values for name in columns)]
    parts = [_narrow(array[rows]).reshape(len(rows), -1).view(np.uint8) for array in arrays]
    joined = np.ascontiguousarray(np.concatenate(parts, 1)) if len(parts) > 1 else parts[0]
    seen: dict[bytes, int] = {}
    contents = [seen.setdefault(bytes(one), len(seen)) for one in joined.view(f"V{joined.shape[1]}").ravel().tolist()]
    numbers = np.array(contents, dtype=np.int64)
    of = np.full(len(data), -1, dtype=np.int64)
    of[rows] = numbers
    _, places = np.unique(numbers, return_index=True)
    return Distinct(rows[places], of)


def _narrow(array: np.ndarray) -> np.ndarray:
    """Return whole numbers in the narrowest type that holds them all, anything else as it is: what is compared is then small."""
    if array.dtype.kind not in "iu" or not array.size:
        return np.ascontiguousarray(array)
    kinds = (np.min_scalar_type(array.min()), np.min_scalar_type(array.max()))
    return np.ascontiguousarray(array.astype(np.result_type(*kinds)))


def digest_of_rows(data: Dataset, columns: Sequence[str] = ()) -> str:
    """Return the fingerprint of what a model reads of a data set: its inputs by name, and these features."""
    known, key = _digests.setdefault(data, {}), tuple(columns)
    if key not in known:
        inputs = {name: digest_array(array) for name, array in data.inputs.items()}
        known[key] = digest_json([inputs, {name: digest_array(data.features[name].values) for name in columns}])
    return known[key]
