"""The reference evaluator: each node once, one at a time, values freed as soon as nothing needs them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from scrubjay.circuit.circuit import unique_inputs
from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Weight
from scrubjay.engine.array import Array
from scrubjay.engine.context import Context, Payload, Store
from scrubjay.engine.fused import Fused, fused_kernel
from scrubjay.engine.kernels import KERNELS
from scrubjay.engine.rehearsal import shaped
from scrubjay.engine.tally import Tally, Work
from scrubjay.errors import EvaluationError

__all__ = ["Array", "Evaluated", "Store", "evaluate"]


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Values of the nodes that were asked for, how many nodes were evaluated for them, and what that cost; `hits` came from a cache."""

    values: Mapping[Node, Array]
    evaluated: int
    peak_live: int = field(default=0)
    work: Work = field(default_factory=Work)
    hits: int = 0

    def __getitem__(self, node: Node) -> Array:
        """Return the value of a node that was asked for."""
        return self.values[node]


def evaluate(
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
) -> Evaluated:
    """Return the values of `nodes`.

    Args:
        nodes: what is asked for.
        inputs: one tensor for each `Input` below them, dimensions in the input's own order.
        stores: where weights are found, by source.
        dtype: the circuit's floating type; that of the weights when not given.
        device: where to compute, inputs and counts included; that of the weights below `nodes`, or else of the inputs, when not given (`home`).
        known: values already at hand; nothing below them is evaluated.
        progress: called with (nodes done, nodes in all).
        differentiable: make values of floating type that were asked for part of one autograd graph, so that gradients can be
            taken at them even where no weight asks for any.
        sizes: sizes of symbols that no input below `nodes` tells, as where an intervention has replaced all that reads one.

    Values are freed by liveness: a value lives until its last reader has run. Raises `EvaluationError` for a missing
    input, or one of another size than a second input says.
    """
    known = known or {}
    order = topological(nodes, stop=known)
    context = Context(
        stores,
        dtype,
        torch.device(device) if device is not None else home(order, stores, known, inputs),
        {**(sizes or {}), **input_sizes(order, inputs)},
        inputs,
    )
    wanted = set(nodes)
    left = Counter(operand for node in order if node not in known for operand in dict.fromkeys(node.operands))
    live, peak, tally = dict[Node, Array](), 0, Tally(known.values())
    for done, node in enumerate(order):
        if node in known:
            live[node] = known[node]
        else:
            operands = [live[operand] for operand in node.operands]
            live[node] = value_of(node, operands, context)
            if differentiable and node in wanted:
                live[node] = _tracked(live[node])
            tally.step(node, operands, live[node], context)
            for operand in dict.fromkeys(node.operands):
                left[operand] -= 1
                if not left[operand] and operand not in wanted:
                    tally.drop(live.pop(operand))
        peak = max(peak, len(live))
        if progress is not None:
            progress(done + 1, len(order))
    values = {node: live[node] for node in nodes}
    return Evaluated(values, sum(node not in known for node in order), peak, tally.work())


def home(
    nodes: Sequence[Node],
    stores: Mapping[str, Store],
    known: Mapping[Node, Array],
    inputs: Mapping[str, torch.Tensor] | None = None,
) -> torch.device | None:
    """Return the device to compute on where none is given: that of the first of the model's own weights among some nodes.

    Where there is none it is that of the first known value, then that of the first input. What interventions brought along says nothing.
    """
    for node in nodes:
        store = stores.get(node.source) if isinstance(node, Weight) else None
        if isinstance(node, Weight) and store is not None and not isinstance(store, Payload):
            return store.tensor(node.name).device
    tensors = [array.tensor for array in known.values() if isinstance(array.tensor, torch.Tensor)]
    return next((one.device for one in (*tensors, *(inputs or {}).values())), None)


def value_of(node: Node, operands: Sequence[Array], context: Context) -> Array:
    """Return the value of one node, from those of its operands."""
    made = shaped(node, operands, lambda: _made(node, operands, context))
    if frozenset(made.names) != node.axis_names and isinstance(made.tensor, torch.Tensor):
        raise EvaluationError(f"{node!r} was evaluated to the axes {made.names}: this is a defect, please report it")
    return made


def _made(node: Node, operands: Sequence[Array], context: Context) -> Array:
    return fused_kernel(node, operands) if isinstance(node, Fused) else KERNELS[type(node)](node, operands, context)


def _tracked(value: Array) -> Array:
    """Return the value as one that gradients can be taken at."""
    tensor = value.tensor
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or tensor.requires_grad:
        return value
    return Array(tensor.detach().requires_grad_(), value.names)


def input_sizes(order: Sequence[Node], inputs: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Return the size of every symbol, read off the inputs among some nodes; raise `EvaluationError` where two disagree."""
    sizes: dict[str, int] = {}
    seen: dict[str, str] = {}
    for node in unique_inputs(order).values():
        if node.name not in inputs:
            raise EvaluationError(
                f"the circuit reads an input {node.name!r} that was not given; given: {', '.join(inputs) or 'none'}"
            )
        given = inputs[node.name]
        if given.dim() != len(node.dims):
            expected = ", ".join(map(str, node.dims))
            raise EvaluationError(
                f"input {node.name!r} has {given.dim()} dimensions {tuple(given.shape)}; the circuit expects ({expected})"
            )
        for axis, size in zip(node.dims, given.shape, strict=True):
            if isinstance(axis.size, int) and axis.size != size:
                raise EvaluationError(
                    f"input {node.name!r} has {size} places along {axis.name!r}; the circuit was captured with {axis.size}"
                )
            if isinstance(axis.size, str):
                if sizes.setdefault(axis.size, size) != size:
                    raise EvaluationError(
                        f"{axis.name!r} is {size} in input {node.name!r} and {sizes[axis.size]} in {seen[axis.size]!r}: give both the same size"
                    )
                seen.setdefault(axis.size, node.name)
    return sizes


def weight_names(nodes: Sequence[Node]) -> list[str]:
    """Return the names of the stored tensors below `nodes`."""
    return sorted({node.name for node in topological(nodes) if isinstance(node, Weight)})
