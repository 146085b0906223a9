"""Draw the data of a scrub: for every source, which row each sample reads. The table is the record, and replays the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scrubjay.claims.data import Dataset, Feature
from scrubjay.claims.hypothesis import Hypothesis
from scrubjay.errors import HypothesisError
from scrubjay.scrubbing.tree import Source


@dataclass(frozen=True, eq=False)
class ClassSizes:
    """How many classes a feature has in the data, and the smallest one."""

    classes: int
    smallest: int
    alone: float
    """The share of rows that agree with no row but themselves."""


def draw(
    sources: Sequence[Source], hypothesis: Hypothesis, data: Dataset, samples: int, seed: int
) -> dict[str, np.ndarray]:
    """Return the rows each source reads, (sample,) for each name.

    A source is drawn uniformly, with replacement, from the rows that agree with its parent's row on its feature (that row
    included), independently of every other source. Each source has its own stream of random numbers, derived from the seed
    and its name, so that adding a claim changes no other claim's draws.
    """
    drawn: dict[str, np.ndarray] = {}
    for source in sources:
        generator = np.random.default_rng([seed, *source.name.encode()])
        if source.parent is None or source.feature is None:
            drawn[source.name] = generator.integers(len(data), size=samples)
        else:
            values = feature_of(hypothesis, source.feature, data).values
            drawn[source.name] = agreeing(values, drawn[source.parent], generator)
    return drawn


def feature_of(hypothesis: Hypothesis, name: str, data: Dataset) -> Feature:
    """Return a feature that has one value for each row of the data; raise `HypothesisError` for any other."""
    feature = hypothesis.feature(name, data)
    if feature.values.ndim != 1 or len(feature.values) != len(data):
        raise HypothesisError(
            f"feature {name!r} has values of shape {feature.values.shape}; the data {data.name!r} needs one for each of its {len(data)} rows: "
            "take one position of it, or combine the positions into one value"
        )
    return feature


def agreeing(values: np.ndarray, rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return, for each of `rows`, a row drawn uniformly from those with an equal value.

    >>> values = np.array([0, 0, 1, 1, 1])
    >>> drawn = agreeing(values, np.array([0, 2, 4]), np.random.default_rng(0))
    >>> values[drawn]
    array([0, 1, 1])
    """
    _, classes, sizes = np.unique(values, return_inverse=True, return_counts=True)
    order = np.argsort(classes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    mine = classes[rows]
    return order[starts[mine] + generator.integers(sizes[mine])]


def class_sizes(sources: Sequence[Source], hypothesis: Hypothesis, data: Dataset) -> dict[str, ClassSizes]:
    """Return the sizes of each used feature's classes. A feature that tells every row apart cannot be tested."""
    found: dict[str, ClassSizes] = {}
    for source in sources:
        if source.feature is None or source.feature in found:
            continue
        values = feature_of(hypothesis, source.feature, data).values
        _, sizes = np.unique(values, return_counts=True)
        found[source.feature] = ClassSizes(len(sizes), int(sizes.min()), float(sizes[sizes == 1].sum() / len(values)))
        if len(sizes) == len(data) > 1:
            raise HypothesisError(
                f"feature {source.feature!r} tells all {len(data)} rows of {data.name!r} apart: resampling would change nothing, and the claim "
                "cannot be rejected; use a coarser feature, or more data"
            )
    return found


def check_table(table: Mapping[str, np.ndarray], sources: Sequence[Source], rows: int) -> None:
    """Refuse a table that does not fit the sources or the data."""
    for source in sources:
        if source.name not in table:
            raise HypothesisError(f"the index table lacks {source.name!r}; it has {', '.join(table)}")
        found, first = table[source.name], table[sources[0].name]
        if found.ndim != 1 or found.dtype.kind not in "iu" or found.shape != first.shape:
            raise HypothesisError(
                f"the index table has shape {found.shape} and type {found.dtype} for {source.name!r}; it needs one row number for each of the "
                f"{len(first)} samples of {sources[0].name!r}"
            )
        if table[source.name].size and (table[source.name].min() < 0 or table[source.name].max() >= rows):
            raise HypothesisError(
                f"the index table reads rows of {source.name!r} that the data ({rows} rows) does not have"
            )
