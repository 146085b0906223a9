"""The ground that variants stand on: the unpatched run's values that they start from, and both plain runs' metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.node import Node
from scrubjay.engine.array import Array
from scrubjay.engine.cache import Cache, compute_with
from scrubjay.engine.context import Context
from scrubjay.engine.evaluate import input_sizes
from scrubjay.engine.resume import Resumption, resume
from scrubjay.engine.tally import Work, bytes_of
from scrubjay.interventions.metric import Metric, checked


@dataclass(frozen=True, eq=False)
class Ground:
    """Values of the unpatched run, and what its variants are measured by.

    Attributes:
        model: the model.
        inputs: the patched run's inputs, those of the metric among them.
        held: values of the unpatched run.
        giver: the other inputs, and `there` values of the run on them.
        read: the metric.
        clean: what the clean run gave where the metric reads.
        ends: the metric of the clean and of the counterfactual inputs, each (row,).
        work: what the plain runs cost; `kept_bytes` is what all that is held takes.

    On the device `meta` (a rehearsal) there are no numbers, and metrics are zeros.
    """

    model: Model
    inputs: Mapping[str, torch.Tensor]
    held: Mapping[Node, Array]
    read: Metric
    clean: torch.Tensor
    ends: tuple[np.ndarray, np.ndarray]
    work: Work = field(default_factory=Work)
    giver: Mapping[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])
    there: Mapping[Node, Array] = field(default_factory=dict[Node, Array])

    def measured(
        self, plan: Resumption, root: Node, given: Mapping[Node, Array], start: int, late: Mapping[Node, Array] | None = None
    ) -> tuple[torch.Tensor, Work]:  # fmt: skip
        """Return the metric of some variants, (variant, row), and what it cost; arguments are those of `computed`."""
        found, work = self.computed(plan, root, given, start, late)
        own = sum(bytes_of(one) for one in {**given, **(late or {})}.values() if "variant" in one.names)
        work = replace(work, peak_bytes=max(work.peak_bytes, own + 3 * bytes_of(found)))
        return _measured(self.read, found, self.clean), work

    def computed(
        self, plan: Resumption, wanted: Node, given: Mapping[Node, Array], start: int, late: Mapping[Node, Array] | None = None
    ) -> tuple[Array, Work]:  # fmt: skip
        """Return a node's value in some variants, from the first changed position on, and what it cost.

        `given` is what each variant puts in, `start` the first position that any of them changes, and `late` what is put in
        that has positions from there on alone.
        """
        device, late = self.clean.device, late or {}
        given = {node: Array(one.as_tensor().to(device), one.names) for node, one in given.items()}
        both = [one for one in (*given.values(), *late.values()) if "variant" in one.names]
        counts = [one.as_tensor().shape[one.names.index("variant")] for one in both]
        sizes = input_sizes(list(self.model.circuit.inputs.values()), self.inputs)
        place = torch.device(self.model.device) if self.model.device else None
        context = Context(
            self.model.stores, self.model.dtype, place, {**sizes, "variant": max(counts, default=1)}, self.inputs
        )
        found, work = resume(plan, {**self.held, **given}, context, start, late)
        own = sum(map(bytes_of, both))
        return found[wanted], replace(work, kept_bytes=0, peak_bytes=own + work.peak_bytes)

    def and_held(self, values: Mapping[Node, Array], work: Work) -> Ground:
        """Return the ground that holds further values, with what they cost."""
        return replace(self, held={**self.held, **values}, work=self.work.then(work, self.work.kept_bytes))


def _measured(read: Metric, value: Array, clean: torch.Tensor) -> torch.Tensor:
    """Return a metric's numbers; zeros in a rehearsal."""
    if value.as_tensor().is_meta:
        return torch.zeros(read.laid(value).shape[:2], dtype=torch.float64)
    return checked(read, value, clean)


def ground_of(
    model: Model,
    nodes: Sequence[Node],
    read: Metric,
    taker: Mapping[str, torch.Tensor],
    giver: Mapping[str, torch.Tensor],
    direction: str,
    cache: Cache | None = None,
    given: Sequence[Node] = (),
) -> Ground:
    """Return the ground of variants of the run on `taker`, which hold the values of `nodes`, and of `given` on `giver`.

    Each input is run once. Values are taken from a cache where it has them.
    """
    root = read.read(model.circuit.roots[model.anatomy.result])
    inputs = {**taker, **read.inputs}
    where: dict[str, Any] = {"dtype": model.dtype, "device": model.device}
    here = compute_with(cache, [root, *nodes], inputs, model.stores, **where)
    other = {**giver, **read.inputs}
    there = compute_with(cache, [root, *given], other, model.stores, **where)
    work = here.work.then(there.work, here.work.kept_bytes)
    clean = read.laid((there if direction == "denoise" else here)[root])[0]
    one, two = (_measured(read, value, clean)[0].numpy() for value in (here[root], there[root]))
    ends = (two, one) if direction == "denoise" else (one, two)
    held, found = {node: here[node] for node in nodes}, {node: there[node] for node in given}
    return Ground(model, inputs, held, read, clean, ends, work, other, found)
