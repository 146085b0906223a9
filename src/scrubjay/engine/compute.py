"""Evaluation at speed: the reference evaluator on the fused form of what is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from scrubjay.circuit.node import Node
from scrubjay.engine.array import Array
from scrubjay.engine.context import Store
from scrubjay.engine.evaluate import Evaluated, evaluate
from scrubjay.engine.fusing import fuse


def compute(
    nodes: Sequence[Node],
    inputs: Mapping[str, torch.Tensor],
    stores: Mapping[str, Store],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    known: Mapping[Node, Array] | None = None,
    progress: Callable[[int, int], None] | None = None,
    differentiable: bool = False,
    sizes: Mapping[str, int] | None = None,
    across: bool = True,
) -> Evaluated:
    """Return the values of `nodes`, equal to those of `evaluate` to rounding: activations, norms, linear maps and attention fused.

    Arguments and errors are those of `evaluate`. Nothing that is asked for lies inside a fused pattern. Without `across` only what
    has no value of interest inside is fused (linear maps, activations), so that asking for a value changes no bit of the others.
    """
    made = fuse(nodes, stop=known or {}, across=across)
    done = evaluate(
        [made[node] for node in nodes], inputs, stores, dtype=dtype, device=device, known=known, progress=progress,
        differentiable=differentiable, sizes=sizes,
    )  # fmt: skip
    return replace(done, values={node: done.values[made[node]] for node in nodes})
