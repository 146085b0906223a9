"""Means and cumulants estimated from draws, where the population is too large to go through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.rules.drawing import DRAW, draw_axes, sampled
from scrubjay.engine.context import Context, Store
from scrubjay.engine.evaluate import Evaluated, evaluate, input_sizes
from scrubjay.errors import EvaluationError


def estimate(
    nodes: Sequence[Node],
    inputs: Mapping[str, torch.Tensor],
    stores: Mapping[str, Store],
    *,
    samples: int,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Evaluated:
    """Return estimates of nodes without random axes from `samples` joint draws of all sources, with replacement.

    A mean is the mean of the draws, a cumulant the k-statistic of them: each is unbiased. What is made of several of them is not
    (their product, say), since all are of the same draws. The values are by the nodes as they were given.

    Raises `EvaluationError` for too few draws, and `CircuitError` for a mean over some only of what draws its values.
    """
    if samples < 1:
        raise EvaluationError(f"an estimate from {samples} draws was asked for: give one draw or more")
    own = {**(sizes or {}), **input_sizes(topological(nodes), inputs)}
    context = Context(stores, dtype, None, own, inputs)
    generator = torch.Generator().manual_seed(seed)
    draws = {
        DRAW + name: torch.randint(context.size(axis.size), (samples,), generator=generator)
        for name, axis in sorted(draw_axes(nodes).items())
    }
    made = sampled(nodes)
    done = evaluate(made, {**inputs, **draws}, stores, dtype=dtype, sizes=sizes)
    values = {node: done[one] for node, one in zip(nodes, made, strict=True)}
    return Evaluated(values, done.evaluated, done.peak_live, done.work, done.hits)
