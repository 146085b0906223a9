"""Kernels of choices: the greatest places of an axis, and the linear map of the expert that each value has chosen."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from scrubjay.circuit.ops import Experts, Order
from scrubjay.engine.array import Array
from scrubjay.engine.context import Context
from scrubjay.errors import EvaluationError


def order(node: Order, operands: Sequence[Array], context: Context) -> Array:
    """Return values or places in order along an axis."""
    (source,) = operands
    tensor, place, count = source.as_tensor(), source.names.index(node.axis), context.size(node.to.size)
    if count > tensor.shape[place]:
        raise EvaluationError(
            f"the first {count} are asked for along {node.axis!r}, which has {tensor.shape[place]} places"
        )
    if node.how == "sort":
        both = torch.sort(tensor, stable=True, dim=place, descending=node.greatest)
        made = [part.narrow(place, 0, count) for part in both]
    else:
        made = [*torch.topk(tensor, count, place, node.greatest, node.how == "topk")]
    names = tuple(node.to.name if name == node.axis else name for name in source.names)
    return Array(made[0 if node.result == "values" else 1], names)


def experts(node: Experts, operands: Sequence[Array], _: Context) -> Array:
    """Return each value times the matrix it has chosen, one product for each expert that any value chose."""
    source, weights, index = operands
    places = index.as_tensor()
    shared = [name for name in source.names if name in index.names]
    chosen = [name for name in index.names if name not in shared]
    kept = [name for name in source.names if name not in shared and name not in node.summed]
    made = [name for name in weights.names if name not in node.summed and name != node.axis]
    summed = list(node.summed)
    values = torch.as_tensor(source.laid([*shared, *kept, *summed]))
    table = torch.as_tensor(weights.laid([node.axis, *summed, *made]))
    places = torch.as_tensor(index.laid([*shared, *chosen]))
    lead, inner = values.shape[: len(shared)], prod(values.shape[len(shared) + len(kept) :])
    middle = values.shape[len(shared) : len(shared) + len(kept)]
    rows, each = prod(lead), prod(places.shape[len(shared) :])
    flat = values.reshape(rows, prod(middle), inner)
    matrices = table.reshape(table.shape[0], inner, -1)
    shape = [*lead, *places.shape[len(shared) :], *middle, *table.shape[1 + len(summed) :]]
    if places.is_meta:  # nobody has chosen
        return Array(flat.new_empty(shape), (*shared, *chosen, *kept, *made))
    wanted = _checked(places.reshape(-1), len(matrices), node.axis)
    by_expert = wanted.argsort(stable=True)
    counts = [int(count) for count in torch.bincount(wanted, minlength=len(matrices)).cpu()]
    parts, start = list[torch.Tensor](), 0
    for expert, count in enumerate(counts):
        if count:
            mine = flat[torch.div(by_expert[start : start + count], each, rounding_mode="floor")]
            parts.append(mine @ matrices[expert])
            start += count
    out = torch.cat(parts) if parts else flat.new_zeros((0, prod(middle), matrices.shape[-1]))
    back = torch.empty_like(by_expert).scatter_(0, by_expert, torch.arange(len(by_expert), device=by_expert.device))
    return Array(out[back].reshape(shape), (*shared, *chosen, *kept, *made))


def _checked(places: torch.Tensor, size: int, axis: str) -> torch.Tensor:
    """Return places counted from the front; refuse one that does not exist."""
    if places.numel() and (int(places.min()) < -size or int(places.max()) >= size):
        wrong = int(places.max()) if int(places.max()) >= size else int(places.min())
        raise EvaluationError(f"index {wrong} is outside axis {axis!r}, which has {size} places")
    return torch.where(places < 0, places + size, places)
