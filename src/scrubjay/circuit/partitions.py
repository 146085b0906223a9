"""Partitions of a few values into blocks, and the weights with which moments, cumulants and their estimates are sums over them.

kappa(X_1..X_n) = sum over partitions of (-1)^(b-1) (b-1)! prod over blocks of E[prod of the block], b the number of blocks, and
E[X_1..X_n] = sum over partitions of prod over blocks of kappa(block) (Leonov and Shiryaev 1959; Speed 1983).
"""

from __future__ import annotations

from functools import cache
from math import comb, factorial, perm

from scrubjay.errors import CircuitError

MOST = 6
"""The highest order: six values have 203 partitions, eight 4140, and estimates beyond the fourth order are mostly noise."""

Partition = tuple[tuple[int, ...], ...]


def check_order(count: int, what: str) -> None:
    """Refuse an order without values, or with more than `MOST`."""
    if not 1 <= count <= MOST:
        raise CircuitError(
            f"{what} of {count} values was asked for, and orders from 1 to {MOST} are known (8 values have 4,140 partitions): "
            "take fewer values together, or drop the higher orders (rules.cumulants_up_to)"
        )


@cache
def partitions(count: int) -> tuple[Partition, ...]:
    """Return the partitions of 0..count-1 into blocks, the coarsest first; blocks and their members in order.

    >>> partitions(3)
    (((0, 1, 2),), ((0,), (1, 2)), ((0, 1), (2,)), ((0, 2), (1,)), ((0,), (1,), (2,)))
    """
    check_order(count, "the partitions")
    found: list[Partition] = [()]
    for item in range(count):
        grown: list[Partition] = []
        for blocks in found:
            grown += [(*blocks[:at], (*blocks[at], item), *blocks[at + 1 :]) for at in range(len(blocks))]
            grown.append((*blocks, (item,)))
        found = grown
    return tuple(sorted(found, key=lambda blocks: (len(blocks), blocks)))


def moebius(blocks: int) -> int:
    """Return (-1)^(b-1) (b-1)!, the weight of a partition with `blocks` blocks in a cumulant."""
    return (-1) ** (blocks - 1) * factorial(blocks - 1)


@cache
def k_weight(sizes: tuple[int, ...], draws: int) -> float:
    """Return the weight of prod over blocks of (sum over draws of the block's product) in the unbiased estimate of a cumulant.

    `sizes` are those of the blocks. The estimate is the k-statistic: its mean over all samples of independent draws is the
    cumulant. It puts for each prod of moments its average over distinct draws, which takes as many draws as there are values.

    >>> k_weight((2,), 5), k_weight((1, 1), 5)  # sum xy / 4 - sum x sum y / 20
    (0.25, -0.05)
    """
    order = sum(sizes)
    if draws < order:
        raise CircuitError(
            f"a cumulant of order {order} is estimated from at least {order} draws, and there are {draws}"
        )
    finer = [1]  # by number of blocks: the weights of the partitions that refine this one
    for size in sizes:
        own = [0] + [_stirling(size, parts) * moebius(parts) for parts in range(1, size + 1)]
        finer = [
            sum(finer[i] * own[total - i] for i in range(len(finer)) if 0 <= total - i < len(own))
            for total in range(len(finer) + len(own) - 1)
        ]
    return sum(moebius(blocks) * weight / perm(draws, blocks) for blocks, weight in enumerate(finer) if weight)


def _stirling(items: int, blocks: int) -> int:
    """Return the number of partitions of some items into so many blocks."""
    return sum((-1) ** (blocks - j) * comb(blocks, j) * j**items for j in range(blocks + 1)) // factorial(blocks)
