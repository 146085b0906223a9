"""Parts of a site's value: what lies along some directions, or an estimate made of columns of the data, and what remains.

Both write the value as a sum, x = part + (x - part), so that a hypothesis can claim the two apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from scrubjay.errors import HypothesisError
from scrubjay.evidence.digest import digest_array, digest_json

REST = "rest of "
"""How the name of what remains begins."""


@dataclass(frozen=True, eq=False)
class Part:
    """A part of a value: `Part.along` some directions, or `Part.estimate` from columns of the data; `.rest` is what remains.

    Attributes:
        name: what hypotheses call it.
        vectors: (direction, width), orthonormal, or one for each column of an estimate.
        columns: the features of the data that an estimate reads, in the order of `vectors`; empty for directions.
        offset: (width,), what an estimate adds; zero for directions.
        remains: whether this is what remains of a value without the part.
    """

    name: str
    vectors: np.ndarray
    columns: tuple[str, ...]
    offset: np.ndarray
    remains: bool = False

    @staticmethod
    def along(name: str, directions: np.ndarray | Sequence[float] | Sequence[Sequence[float]]) -> Part:
        """Return the projection onto the span of one direction (width,) or several (direction, width), of any length and angle.

        Raises `HypothesisError` for directions that are zero, or no numbers.

        >>> Part.along("up", [0.0, 2.0]).vectors
        array([[0., 1.]])
        """
        rows = np.atleast_2d(_numbers(name, directions))
        _, strength, basis = np.linalg.svd(rows, full_matrices=False)
        basis = basis[strength > strength.max() * 1e-10] if strength.size and strength.max() > 0 else basis[:0]
        if not len(basis):
            raise HypothesisError(f"part {name!r}: its directions are all zero")
        signs = np.sign((basis @ rows.T)[np.arange(len(basis)), np.abs(basis @ rows.T).argmax(1)])
        return Part(_named(name), basis * signs[:, None] + 0.0, (), np.zeros(basis.shape[1]))

    @staticmethod
    def estimate(name: str, columns: Mapping[str, Any], offset: Any = None) -> Part:
        """Return the estimate offset + sum of column * vector: each column of the data (a feature) times a vector (width,).

        Any function of the data is such a column. Raises `HypothesisError` for vectors of different lengths, or none.

        >>> Part.estimate("phi", {"proportion": [2.0, 0.0]}, offset=[-1.0, 0.0]).columns
        ('proportion',)
        """
        vectors = [_numbers(name, vector) for vector in columns.values()]
        given = _numbers(name, offset) if offset is not None else np.zeros_like(vectors[0]) if vectors else None
        if given is None or any(vector.shape != given.shape or vector.ndim != 1 for vector in vectors):
            shapes = [vector.shape for vector in vectors]
            raise HypothesisError(
                f"part {name!r}: an estimate needs a vector for each column and perhaps an offset, all of one length; found {shapes or 'none'}"
            )
        stacked = np.stack(vectors) if vectors else np.zeros((0, len(given)))
        return Part(_named(name), stacked, tuple(columns), given)

    @property
    def rest(self) -> Part:
        """What remains of a value without this part."""
        return replace(self, remains=True)

    @property
    def spoken(self) -> str:
        """The name a claim has it by: `v`, or `rest of v`."""
        return f"{REST}{self.name}" if self.remains else self.name

    @property
    def width(self) -> int:
        """The length of its vectors."""
        return self.vectors.shape[1]

    @property
    def digest(self) -> str:
        """The fingerprint of its numbers and columns."""
        return digest_json(
            {"columns": self.columns, "vectors": digest_array(self.vectors), "offset": digest_array(self.offset)}
        )

    def to_dict(self) -> dict[str, object]:
        """Return the part as plain values, ready for JSON."""
        kind = (
            {"columns": list(self.columns), "offset": self.offset.tolist()} if self.columns or self.offset.any() else {}
        )
        return {"vectors": self.vectors.tolist(), **kind}

    @staticmethod
    def from_dict(name: str, data: Mapping[str, object]) -> Part:
        """Return the part of `to_dict`'s values; raise `HypothesisError` for values of another form."""
        if set(data) - {"vectors", "columns", "offset"} or "vectors" not in data:
            raise HypothesisError(
                f"part {name!r} needs 'vectors', and 'columns' and 'offset' if it is an estimate; found {sorted(data)}"
            )
        if "offset" not in data:
            rows = np.atleast_2d(_numbers(name, data["vectors"]))
            if np.abs(rows @ rows.T - np.eye(len(rows))).max() < 1e-12:  # written by `to_dict`: kept to the bit
                return Part(_named(name), rows, (), np.zeros(rows.shape[1]))
            return Part.along(name, cast("Any", rows))
        columns, vectors = cast("list[str]", data.get("columns", [])), cast("list[Any]", data["vectors"])
        return Part.estimate(name, dict(zip(columns, vectors, strict=True)), data["offset"])

    def __repr__(self) -> str:
        """Say what it is in one line."""
        kind = (
            f"estimate from {', '.join(self.columns) or 'nothing'}"
            if self.columns or self.offset.any()
            else f"{len(self.vectors)} directions"
        )
        return f"Part({self.spoken!r}, {kind}, width {self.width})"


def base(spoken: str) -> str:
    """Return the name of the part that a claim's part is, or is the rest of.

    >>> base("rest of v"), base("v")
    ('v', 'v')
    """
    return spoken.removeprefix(REST)


def _named(name: str) -> str:
    if not name or name.startswith(REST):
        raise HypothesisError(f"a part cannot be called {name!r}: names of what remains begin so")
    return name


def _numbers(name: str, values: Any) -> np.ndarray:
    try:
        found = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise HypothesisError(f"part {name!r}: its vectors are not numbers: {error}") from error
    if found.ndim not in (1, 2) or not np.isfinite(found).all():
        raise HypothesisError(
            f"part {name!r}: vectors have shape {found.shape}; give finite numbers of shape (width,) or (vector, width)"
        )
    return found
