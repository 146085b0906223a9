"""Kernels of random variables: an axis of outcomes, means over it, and joint cumulants."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from scrubjay.circuit.axes import RANDOM
from scrubjay.circuit.ops import Cumulant, Expectation, Sample
from scrubjay.circuit.partitions import Partition, k_weight, moebius, partitions
from scrubjay.engine.array import Array, spread
from scrubjay.engine.context import Context
from scrubjay.engine.contraction import contract, sizes_of
from scrubjay.errors import CircuitError, EvaluationError


def sample(node: Sample, operands: Sequence[Array], _: Context) -> Array:
    """Return the value at every outcome: the axis it is drawn of, as the random one."""
    (value,) = operands
    made = RANDOM + node.by
    return Array(value.tensor, tuple(made if name == node.axis else name for name in value.names))


def expectation(node: Expectation, operands: Sequence[Array], context: Context) -> Array:
    """Return the mean over the outcomes."""
    return _mean(_real(operands[0], context), [RANDOM + name for name in node.over])


def cumulant(node: Cumulant, operands: Sequence[Array], context: Context) -> Array:
    """Return the joint cumulant, of the population or as its unbiased estimate.

    Values are first taken from their means, which changes no cumulant but the first and keeps large means out of the sums;
    partitions with a block of one then have nothing to add.
    """
    over = [RANDOM + name for name in node.over]
    values = [_real(value, context) for value in operands]
    if len(values) == 1:
        return _mean(values[0], over)
    away = [_away(value, over) for value in values]
    parts = [one for one in partitions(len(values)) if min(map(len, one)) > 1]
    if node.unbiased:
        found = [_estimated(away, blocks, over[0]) for blocks in parts]
    else:
        found = [_weighted(_moments(away, blocks, over), moebius(len(blocks))) for blocks in parts]
    tensors, order = spread(found)
    total = torch.as_tensor(tensors[0])
    for tensor in tensors[1:]:
        total = total + tensor
    return Array(total, order)


def _real(value: Array, context: Context) -> Array:
    """Return the value as floating numbers: the mean of truth values is a share, and that of whole numbers is not whole."""
    tensor = value.as_tensor(context.device)
    return Array(tensor if tensor.is_floating_point() else tensor.to(context.model_dtype()), value.names)


def _mean(value: Array, over: Sequence[str]) -> Array:
    places = [value.names.index(name) for name in over if name in value.names]
    rest = tuple(name for name in value.names if name not in over)
    return Array(value.as_tensor().mean(places) if places else value.as_tensor(), rest)


def _away(value: Array, over: Sequence[str]) -> Array:
    """Return what a value is away from its mean; zero for one that is the same at every outcome."""
    places = [value.names.index(name) for name in over if name in value.names]
    tensor = value.as_tensor()
    return Array(tensor - tensor.mean(places, keepdim=True) if places else torch.zeros_like(tensor), value.names)


def _moments(values: Sequence[Array], blocks: Partition, over: Sequence[str]) -> Array:
    """Return the product over blocks of the mean of each block's product."""
    found: list[Array] = []
    for block in blocks:
        members = [values[place] for place in block]
        sizes = {name: size for one in members for name, size in sizes_of(one).items() if name in over}
        found.append(_weighted(contract(members, list(sizes)), 1 / prod(sizes.values())))
    return _product(found)


def _estimated(values: Sequence[Array], blocks: Partition, draw: str) -> Array:
    """Return the term of a partition in the k-statistic."""
    draws = {sizes_of(one)[draw] for one in values if draw in one.names}
    (count,) = draws
    try:
        weight = k_weight(tuple(sorted(map(len, blocks))), count)
    except CircuitError as error:
        raise EvaluationError(f"{error}: draw more (samples=)") from error
    sums = [contract([values[place] for place in block], [draw]) for block in blocks]
    return _weighted(_product(sums), weight)


def _product(values: Sequence[Array]) -> Array:
    tensors, order = spread(values)
    total = torch.as_tensor(tensors[0])
    for tensor in tensors[1:]:
        total = total * tensor
    return Array(total, order)


def _weighted(value: Array, by: float) -> Array:
    return Array(value.as_tensor() * by, value.names)
