"""Expected losses of a scrub over every combination of rows, for each row of the data as reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from scrubjay.circuit.node import Node
from scrubjay.claims.data import Dataset
from scrubjay.claims.hypothesis import Hypothesis
from scrubjay.engine.cache import Cache
from scrubjay.scrubbing.compute import compute, read_of_all
from scrubjay.scrubbing.enumeration import Combinations, combinations
from scrubjay.scrubbing.lookups import lookups_of
from scrubjay.scrubbing.measure import MEASURES, Measure, answered_otherwise, measured
from scrubjay.scrubbing.sample import classes_of, places_of
from scrubjay.scrubbing.tree import Treeified


@dataclass(frozen=True, eq=False)
class Expected:
    """Expectations given each row of the data as reference.

    Attributes:
        losses: by name, (row,) each.
        outputs: the scrubbed result, (row, ...); `original` the model's own.
        otherwise: the chance of another answer than the model's own, (row,); NaN where results are no choice.
        table: the combinations of rows that the scrubbed result reads, one row of each kind, without their probabilities.
        combinations: how many there are.
    """

    losses: Mapping[str, np.ndarray]
    outputs: torch.Tensor
    original: torch.Tensor
    otherwise: np.ndarray
    table: Mapping[str, np.ndarray]
    combinations: int


def expected(
    tree: Treeified,
    results: Mapping[str, Node],
    hypothesis: Hypothesis,
    data: Dataset,
    measure: Measure,
    labels: np.ndarray,
    cache: Cache | None = None,
) -> Expected:
    """Return the expected losses of some results (`scrubbed` and `original` among them), each over all rows that it could read.

    Raises `HypothesisError` where a result has more combinations than are computed.
    """
    rows = np.arange(len(data))
    original = compute(tree.model, [results["original"]], data, {"reference": rows}, cache=cache).values[0]
    marks = [labels]
    if measure is not MEASURES.get(measure.name) or not measure.reads_labels:
        marks.append(original.numpy())  # the measure may compare with the model's own result
    listed = {name: _combined(tree, result, hypothesis, data, marks, cache) for name, result in results.items()}
    losses: dict[str, np.ndarray] = {}
    outputs, otherwise = original, np.zeros(len(data))
    for name, result in results.items():
        every = listed[name]
        value = compute(tree.model, [result], data, every.table, cache=cache).values[0]
        reference = every.table["reference"]
        own = original[torch.from_numpy(reference)]
        found = measured(measure, value, torch.from_numpy(labels[reference]), own)
        losses[name] = every.by_reference(found)
        if name == "scrubbed":
            outputs = every.tensor_by_reference(value)
            otherwise = every.by_reference(answered_otherwise(value, own))
    scrubbed = listed["scrubbed"]
    return Expected(losses, outputs, original, otherwise, scrubbed.table, len(scrubbed))


def _combined(
    tree: Treeified, result: Node, hypothesis: Hypothesis, data: Dataset, marks: list[np.ndarray], cache: Cache | None
) -> Combinations:
    """Return every combination of rows that a result could read."""
    classes = {
        source.name: classes_of(source, hypothesis, data)
        for source in tree.sources
        if source.parent is not None and source.feature is not None and source.row is None
    }
    places = places_of(data) if any(source.each for source in tree.sources) else 1
    values = read_of_all(tree.model, [result], data, cache)
    return combinations(lookups_of((result,)), tree.sources, classes, values, marks, places)
