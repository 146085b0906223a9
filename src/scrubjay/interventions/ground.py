"""The ground that variants stand on: the unpatched run's values that they start from, and both plain runs' metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.node import Node
from scrubjay.engine.array import Array
from scrubjay.engine.compute import compute
from scrubjay.engine.context import Context
from scrubjay.engine.evaluate import input_sizes
from scrubjay.engine.resume import Resumption, resume
from scrubjay.interventions.metric import Metric, checked


@dataclass(frozen=True, eq=False)
class Ground:
    """Values of the unpatched run, and what its variants are measured by.

    Attributes:
        model: the model.
        inputs: the patched run's inputs, those of the metric among them.
        held: values of the unpatched run.
        read: the metric.
        clean: what the clean run gave where the metric reads.
        ends: the metric of the clean and of the counterfactual inputs, each (row,).
    """

    model: Model
    inputs: Mapping[str, torch.Tensor]
    held: Mapping[Node, Array]
    read: Metric
    clean: torch.Tensor
    ends: tuple[np.ndarray, np.ndarray]

    def measured(self, plan: Resumption, root: Node, given: Mapping[Node, Array], start: int) -> torch.Tensor:
        """Return the metric of some variants, (variant, row), from what is given for each and the first position that it changes."""
        counts = [one.as_tensor().shape[one.names.index("variant")] for one in given.values() if "variant" in one.names]
        sizes = input_sizes(list(self.model.circuit.inputs.values()), self.inputs)
        device = torch.device(self.model.device) if self.model.device else None
        context = Context(
            self.model.stores, self.model.dtype, device, {**sizes, "variant": max(counts, default=1)}, self.inputs
        )
        made = resume(plan, {**self.held, **given}, context, start)[root]
        return checked(self.read, made, self.clean)


def ground_of(
    model: Model,
    nodes: Sequence[Node],
    read: Metric,
    taker: Mapping[str, torch.Tensor],
    giver: Mapping[str, torch.Tensor],
    direction: str,
) -> Ground:
    """Return the ground of variants of the run on `taker`, which hold the values of `nodes`."""
    root = read.read(model.circuit.roots[model.anatomy.result])
    inputs = {**taker, **read.inputs}
    here = compute([root, *nodes], inputs, model.stores, dtype=model.dtype, device=model.device)
    there = compute([root], {**giver, **read.inputs}, model.stores, dtype=model.dtype, device=model.device)
    clean = read.laid((there if direction == "denoise" else here)[root])[0]
    one, two = (checked(read, value, clean)[0].numpy() for value in (here[root], there[root]))
    ends = (two, one) if direction == "denoise" else (one, two)
    return Ground(model, inputs, {node: here[node] for node in nodes}, read, clean, ends)
