"""Optimal constants: the constant in the place of a value that leaves a prediction most as it is, by gradient steps from the mean.

Li and Janson 2024 ablate by the constant that does least harm, so that what is lost is what the value said of its datum, and not
that a zero or a mean is strange to the model. There is no closed form; where descent began and ended is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.node import Node
from scrubjay.claims.task import Task
from scrubjay.engine.array import Array
from scrubjay.engine.context import Context
from scrubjay.engine.evaluate import input_sizes
from scrubjay.engine.tally import Work
from scrubjay.errors import InputError
from scrubjay.interventions.ablation import Ablation
from scrubjay.interventions.cells import Joint
from scrubjay.interventions.ground import Ground
from scrubjay.interventions.metric import Metric, metric_of
from scrubjay.interventions.variants import Hole


def loss_of(model: Model, task: Task, inputs: Mapping[str, torch.Tensor], at: str) -> Metric:
    """Return what an optimal constant makes least: the divergence from the unpatched prediction where the metric is read.

    KL, in nats, of results with a vocabulary; the mean squared difference of others.
    """
    root = model.circuit.roots[model.anatomy.result]
    if {"vocab", "batch"} <= root.axis_names:
        return metric_of(model, task, inputs, "kl", at)
    rest = tuple(axis.name for axis in root.axes if axis.name != "batch")

    def measure(value: torch.Tensor, clean: torch.Tensor | None) -> torch.Tensor:
        assert clean is not None
        return (value - clean).square().flatten(2).mean(-1)

    return Metric("squared_difference", lambda node: node, {}, measure, rest)


@dataclass(frozen=True, eq=False)
class Found:
    """The constants of some variants, for each hole (variant, ...), and the loss where descent began and ended, (variant, 2)."""

    constants: tuple[Array, ...]
    losses: torch.Tensor
    work: Work


def optimum(
    ground: Ground, joint: Joint, masks: Sequence[Array], values: Mapping[Node, Array], start: int, how: Ablation
) -> Found:
    """Return the constants of some variants, each its own descent.

    Args:
        ground: what variants stand on; its metric is the loss, its `clean` the unpatched run's value.
        joint: the changed circuit, with a plan that gradients can be taken through.
        masks: for each of its holes, where each variant takes values.
        values: the unpatched run's own values at the holes.
        start: the first position that any variant changes.
        how: steps, rate, batch, seed.

    The constants are those with the least loss on all rows of any that were tried on all rows, the mean among them.
    """
    means, sizes = zip(
        *(_start(values[hole.value], mask) for hole, mask in zip(joint.holes, masks, strict=True)), strict=True
    )
    first, cost = _losses(ground, joint, masks, means, start)
    work = _whole_cost(ground, joint, how, cost, len(first))
    if first.is_meta or ground.clean.is_meta:
        return Found(means, torch.zeros(len(first), 2), work)
    best, least = means, first
    with torch.enable_grad():
        leaves = [torch.zeros_like(one.as_tensor(), requires_grad=True) for one in means]
        descent = torch.optim.Adam(leaves, lr=float(how.option("rate")))
        for chosen in _batches(how, len(ground.ends[0])):
            now = _moved(means, leaves, sizes)
            loss, _ = _losses(*_rows_of(ground, masks, chosen, joint), now, start)
            if chosen is None:
                best, least = _better(best, least, now, loss.detach())
            descent.zero_grad()
            loss.sum().backward()
            descent.step()
    last = tuple(Array(one.as_tensor().detach(), one.names) for one in _moved(means, leaves, sizes))
    best, least = _better(best, least, last, _losses(ground, joint, masks, last, start)[0])
    return Found(best, torch.stack([first, least], 1), work)


def filling(constant: Array, like: Array) -> Array:
    """Return constants (variant, ...) as what is put in: with all axes of a value, repeated along those that they lack."""
    names = ("variant", *like.names)
    shape = [constant.as_tensor().shape[0], *like.as_tensor().shape]
    return Array(torch.as_tensor(constant.laid(names)).expand(shape), names)


def _start(value: Array, mask: Array) -> tuple[Array, torch.Tensor]:
    """Return the mean of a value where each variant takes values, (variant, ...), and its standard deviation there, the unit of a step."""
    if "key" in value.names:
        raise InputError(
            "ablation='optimal': a value between two positions has no constant for all of them: ablate q, k, v or z"
        )
    rows = tuple(name for name in ("batch", "query") if name in mask.names)
    rest = tuple(name for name in value.names if name not in {"batch", "query"})
    chosen = torch.as_tensor(mask.laid(("variant", *rows, *(name for name in mask.names if name in rest))))
    while chosen.dim() > 1 + len(rows):  # a place is chosen in all its parts or in none
        chosen = chosen.any(-1)
    laid = torch.as_tensor(value.laid((*rows, *rest)))
    laid = laid.expand(*chosen.shape[1:], *laid.shape[len(rows) :]).flatten(0, len(rows) - 1) if rows else laid[None]
    weights = chosen.flatten(1).to(laid.device, laid.dtype)
    count = weights.sum(1).clamp(min=1)
    flat = laid.flatten(1)
    mean = weights @ flat / count[:, None]
    spread = (weights @ flat.square() / count[:, None] - mean.square()).clamp(min=0).mean(1).sqrt()
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    return Array(mean.reshape(len(mean), *laid.shape[1:]), ("variant", *rest)), spread


def _moved(means: Sequence[Array], leaves: Sequence[torch.Tensor], sizes: Sequence[torch.Tensor]) -> tuple[Array, ...]:
    return tuple(
        Array(one.as_tensor() + leaf * size.reshape(-1, *[1] * (leaf.dim() - 1)), one.names)
        for one, leaf, size in zip(means, leaves, sizes, strict=True)
    )


def _losses(
    ground: Ground, joint: Joint, masks: Sequence[Array], constants: Sequence[Array], start: int
) -> tuple[torch.Tensor, Work]:
    """Return the mean loss over rows of each variant, and what it cost."""
    given: dict[Node, Array] = {}
    sizes = input_sizes(list(ground.model.circuit.inputs.values()), ground.inputs)
    for hole, mask, constant in zip(joint.holes, masks, constants, strict=True):
        names = ("variant", *(axis.name for axis in hole.value.axes))
        laid = torch.as_tensor(constant.laid(names))
        shape = [laid.shape[0], *(_size(ground, axis.size, sizes) for axis in hole.value.axes)]
        given |= {hole.where: mask, hole.given: Array(laid.expand(shape), names)}
    found, work = ground.measured(joint.holes[0].plan, joint.holes[0].root, joint.filling(given), start)
    return found.mean(1).expand(len(constants[0].as_tensor())), work


def _size(ground: Ground, size: int | str, sizes: Mapping[str, int]) -> int:
    return Context(ground.model.stores, ground.model.dtype, None, sizes, ground.inputs).size(size)


def _better(
    best: Sequence[Array], least: torch.Tensor, now: Sequence[Array], loss: torch.Tensor
) -> tuple[tuple[Array, ...], torch.Tensor]:
    """Return, variant by variant, the constants with the lesser loss."""
    less = loss < least
    if not bool(less.any()):
        return tuple(best), least
    made = [
        torch.where(
            less.to(two.as_tensor().device).reshape(-1, *[1] * (two.as_tensor().dim() - 1)),
            two.as_tensor().detach(),
            one.as_tensor(),
        )
        for one, two in zip(best, now, strict=True)
    ]
    return tuple(Array(one, two.names) for one, two in zip(made, best, strict=True)), torch.where(less, loss, least)


def _batches(how: Ablation, rows: int) -> list[torch.Tensor | None]:
    """Return the rows that each step looks at; `None` for all of them."""
    size, steps = how.option("batch"), int(how.option("steps"))
    if size is None or size >= rows:
        return [None] * steps
    draw = torch.Generator().manual_seed(int(how.option("seed")))
    return [torch.randperm(rows, generator=draw)[:size].sort().values for _ in range(steps)]


def _rows_of(
    ground: Ground, masks: Sequence[Array], chosen: torch.Tensor | None, joint: Joint
) -> tuple[Ground, Joint, Sequence[Array]]:
    """Return the ground and the masks of some rows."""
    if chosen is None:
        return ground, joint, masks

    def some(value: Array) -> Array:
        if "batch" not in value.names:
            return value
        tensor, place = value.as_tensor(), value.names.index("batch")
        return Array(
            tensor.index_select(place, chosen.to(tensor.device)) if tensor.shape[place] > 1 else tensor, value.names
        )

    inputs = {name: one[chosen.to(one.device)] for name, one in ground.inputs.items()}
    held = {node: some(value) for node, value in ground.held.items()}
    ends = (ground.ends[0][chosen.numpy()], ground.ends[1][chosen.numpy()])
    fewer = replace(ground, inputs=inputs, held=held, clean=ground.clean[chosen.to(ground.clean.device)], ends=ends)
    return fewer, joint, [some(mask) for mask in masks]


def _whole_cost(ground: Ground, joint: Joint, how: Ablation, one: Work, variants: int) -> Work:
    """Return what a descent costs: two runs of all rows, and for each step one forward and backward, which holds all that it computed."""
    rows, steps = max(1, len(ground.ends[0])), int(how.option("steps"))
    share = min(1.0, (how.option("batch") or rows) / rows)
    sizes = {**input_sizes(list(ground.model.circuit.inputs.values()), ground.inputs), "variant": variants}
    held = 8 * _all_numbers(ground, joint.holes[0], sizes)
    return Work(one.nodes * (steps + 2), int(one.multiply_adds * (2 + 3 * steps * share)), 0, one.peak_bytes + held)


def _all_numbers(ground: Ground, hole: Hole, sizes: Mapping[str, int]) -> int:
    """Return how many numbers all values on the way have together."""
    total = 0
    for node in hole.plan.order:
        size = 1
        for axis in node.axes:
            size *= _size(ground, axis.size, sizes)
        total += size
    return total
