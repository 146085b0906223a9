"""Compute a scrubbed circuit for many draws: whatever reads a single datum once for each row, the rest for each sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Gather, Input, Repeat
from scrubjay.circuit.rules import gathers_up, positions_down
from scrubjay.claims.data import Dataset
from scrubjay.engine.array import Array
from scrubjay.engine.evaluate import evaluate, input_sizes
from scrubjay.interventions.inputs import prepare
from scrubjay.scrubbing.tree import INDEX, ROWS

ROWS_AT_ONCE = 1024
SAMPLES_AT_ONCE = 2048


@dataclass(frozen=True, eq=False)
class Computed:
    """The values of the roots, one row for each sample, and how many rows and node-rows were evaluated for them."""

    values: tuple[torch.Tensor, ...]
    rows: int
    shared_nodes: int
    sample_nodes: int


@torch.no_grad()
def compute(
    model: Model,
    roots: Sequence[Node],
    data: Dataset,
    table: Mapping[str, np.ndarray],
    progress: Callable[[int, int], None] | None = None,
) -> Computed:
    """Return the roots' values for every sample of an index table.

    Row look-ups are raised and choices of a position pushed down (both keep the value). What then lies below the look-ups
    is evaluated once for each distinct row that is drawn, in chunks; what lies above them once for each sample.
    """
    settled = _settle(roots)
    order = topological(settled)
    lookups = [node for node in order if isinstance(node, Gather) and node.axis == "row"]
    sources = list(dict.fromkeys(node.source for node in lookups))
    names = sorted(
        {node.name.removeprefix(INDEX) for node in order if isinstance(node, Input) and node.name.startswith(INDEX)}
    )
    used, places = np.unique(
        np.concatenate([table[name] for name in names]) if names else np.zeros(0, np.int64), return_inverse=True
    )
    compact = (
        {f"{INDEX}{name}": part for name, part in zip(names, np.split(places, len(names)), strict=True)}
        if names
        else {}
    )
    rows = _rows(model, data, used)
    samples = len(next(iter(table.values())))
    total = -(-len(used) // ROWS_AT_ONCE) + -(-samples // SAMPLES_AT_ONCE)
    sizes = _sizes(model, rows)
    known, shared = _by_row(model, sources, rows, sizes, total, progress)
    # a node that acts along the samples (an operation kept whole) must see all of them at once
    together = any("batch" in node.acts_along and not isinstance(node, Repeat) for node in order)
    at_once = samples if together else SAMPLES_AT_ONCE
    values: list[list[torch.Tensor]] = [[] for _ in settled]
    evaluated = 0
    done = -(-len(used) // ROWS_AT_ONCE)
    for start in range(0, samples, at_once):
        index = {name: torch.from_numpy(part[start : start + at_once]) for name, part in compact.items()}
        count = min(at_once, samples - start)
        made = evaluate(
            settled, {**rows, **index}, model.stores, dtype=model.dtype, device=model.device, known=known, sizes={**sizes, "batch": count}
        )  # fmt: skip
        evaluated += made.evaluated
        for place, node in enumerate(settled):
            rest = [axis.name for axis in node.axes if axis.name != "batch"]
            tensor = torch.as_tensor(made[node].laid(["batch", *rest]))
            values[place].append(tensor.expand(count, *tensor.shape[1:]).cpu())
        done += 1
        if progress is not None:
            progress(done, total)
    return Computed(tuple(torch.cat(parts) for parts in values), len(used), shared, evaluated)


def _settle(roots: Sequence[Node]) -> list[Node]:
    """Apply both rules until nothing moves; two rounds settle every circuit met so far, and more do no harm."""
    settled = list(roots)
    for _ in range(4):
        down = positions_down(settled)
        up = gathers_up([down[node] for node in settled])
        made = [up[down[node]] for node in settled]
        if all(new is old for new, old in zip(made, settled, strict=True)):
            break
        settled = made
    return settled


def _rows(model: Model, data: Dataset, used: np.ndarray) -> dict[str, torch.Tensor]:
    """Return the model's inputs for the rows that are drawn, as the row inputs of a treeified circuit."""
    if not len(used):
        return {}
    named = {name: torch.from_numpy(np.array(array[used])) for name, array in data.inputs.items()}
    return {f"{ROWS}{name}": tensor for name, tensor in prepare(model, named).items()}


def _sizes(model: Model, rows: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Return the sizes that the data tell, but for the number of rows: an edited model may read none of its inputs."""
    given = {name: rows[f"{ROWS}{name}"] for name in model.circuit.inputs if f"{ROWS}{name}" in rows}
    nodes = [node for name, node in model.circuit.inputs.items() if name in given]
    return {name: size for name, size in input_sizes(nodes, given).items() if name != "batch"}


def _by_row(
    model: Model,
    sources: Sequence[Node],
    rows: Mapping[str, torch.Tensor],
    sizes: Mapping[str, int],
    total: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[Node, Array], int]:
    """Return what lies below the row look-ups, evaluated in chunks of rows."""
    parts: dict[Node, list[torch.Tensor]] = {node: [] for node in sources}
    orders = {node: ("row", *(axis.name for axis in node.axes if axis.name != "row")) for node in sources}
    evaluated = 0
    count = len(next(iter(rows.values()))) if rows else 0
    for number, start in enumerate(range(0, count, ROWS_AT_ONCE)):
        chunk = {name: tensor[start : start + ROWS_AT_ONCE] for name, tensor in rows.items()}
        made = evaluate(sources, chunk, model.stores, dtype=model.dtype, device=model.device, sizes=sizes)
        evaluated += made.evaluated
        for node in sources:
            parts[node].append(made[node].dense(orders[node]).clone())
        if progress is not None:
            progress(number + 1, total)
    return {node: Array(torch.cat(parts[node]), orders[node]) for node in sources if parts[node]}, evaluated
