"""Contraction of named arrays: pairs of operands as (batched) matrix products, in the order that keeps values small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch

from scrubjay.engine.array import Array, spread


def contract(operands: Sequence[Array], summed: Sequence[str]) -> Array:
    """Return the product of the operands summed over the axes `summed`."""
    left: list[Array] = list(operands)
    over = set(summed)
    left = [_early(item, over, [*left[:place], *left[place + 1 :]]) for place, item in enumerate(left)]
    while len(left) > 1:
        a, b = _cheapest([sizes_of(item) for item in left], over)
        one, two = left[a], left[b]
        rest = [item for place, item in enumerate(left) if place not in (a, b)]
        elsewhere = {name for item in rest for name in item.names}
        left = [_pair(one, two, over - elsewhere), *rest]
    return _early(left[0], over, [])


def multiply_adds(sizes: Sequence[Mapping[str, int]], summed: Sequence[str]) -> int:
    """Return how many multiply-adds the matrix products of a contraction take, from the sizes of each operand's axes.

    >>> multiply_adds([{"batch": 2, "model": 3}, {"model": 3, "hidden": 5}], ["model"])
    30
    """
    over, total = set(summed), 0
    left = [_without(item, over - _names(sizes, place)) for place, item in enumerate(sizes)]
    while len(left) > 1:
        a, b = _cheapest(left, over)
        one, two = left[a], left[b]
        rest = [item for place, item in enumerate(left) if place not in (a, b)]
        gone = over & one.keys() & two.keys() - {name for item in rest for name in item}
        both = {**one, **two}
        total += prod(both.values()) if gone else 0
        left = [_without(both, gone), *rest]
    return total


def _names(sizes: Sequence[Mapping[str, int]], but: int) -> set[str]:
    return {name for place, item in enumerate(sizes) if place != but for name in item}


def _without(sizes: Mapping[str, int], gone: set[str]) -> dict[str, int]:
    return {name: size for name, size in sizes.items() if name not in gone}


def _early(item: Array, over: set[str], others: Sequence[Array]) -> Array:
    """Sum away axes that no other operand has."""
    elsewhere = {name for other in others for name in other.names}
    alone = [name for name in item.names if name in over and name not in elsewhere]
    if not alone or not isinstance(item.tensor, torch.Tensor):
        return item
    return Array(
        item.tensor.sum([item.names.index(name) for name in alone]), tuple(n for n in item.names if n not in alone)
    )


def _cheapest(left: Sequence[Mapping[str, int]], over: set[str]) -> tuple[int, int]:
    """Return the two operands whose product has the fewest values, by their places."""
    pairs = [(i, j) for j in range(len(left)) for i in range(j)]
    costs = [_cost(left, pair, over) for pair in pairs]
    return pairs[costs.index(min(costs))]


def _cost(left: Sequence[Mapping[str, int]], pair: tuple[int, int], over: set[str]) -> int:
    """Return the number of values the pair's product would have."""
    elsewhere = {name for place, item in enumerate(left) if place not in pair for name in item}
    sizes = {**left[pair[0]], **left[pair[1]]}
    return prod(size for name, size in sizes.items() if name not in over or name in elsewhere)


def sizes_of(item: Array) -> dict[str, int]:
    """Return the size of each axis of a value; a bare number has none."""
    return dict(zip(item.names, item.tensor.shape, strict=True)) if isinstance(item.tensor, torch.Tensor) else {}


def _pair(one: Array, two: Array, over: set[str]) -> Array:
    shared = [name for name in one.names if name in two.names]
    summed = [name for name in shared if name in over]
    if not summed or not isinstance(one.tensor, torch.Tensor) or not isinstance(two.tensor, torch.Tensor):
        (a, b), order = spread([one, two])
        return Array(a * b, order)
    batch = [name for name in shared if name not in over]
    left = [name for name in one.names if name not in shared]
    right = [name for name in two.names if name not in shared]
    sizes = {**sizes_of(one), **sizes_of(two)}
    rows, inner, columns = (prod(sizes[name] for name in part) for part in (left, summed, right))
    a = torch.as_tensor(one.laid([*batch, *left, *summed]))
    b = torch.as_tensor(two.laid([*batch, *summed, *right]))
    if batch:
        many = prod(sizes[name] for name in batch)
        made = torch.bmm(a.reshape(many, rows, inner), b.reshape(many, inner, columns))
    else:
        made = torch.mm(a.reshape(rows, inner), b.reshape(inner, columns))
    return Array(made.reshape([sizes[name] for name in (*batch, *left, *right)]), (*batch, *left, *right))
