"""Noise: Gaussian numbers of a site's own scale over a reference set, the same in whatever batches rows are computed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.address import Address
from scrubjay.circuit.node import Node
from scrubjay.engine.array import Array
from scrubjay.engine.cache import Cache, compute_with
from scrubjay.engine.tally import Work
from scrubjay.errors import InputError
from scrubjay.interventions.fillings import Inputs, Reference, Rows, batches_of
from scrubjay.interventions.inputs import padding
from scrubjay.interventions.variants import Hole

Part = tuple[tuple[str, int], ...]
"""Places along axes: `(("head", 3),)`."""


def scales(
    model: Model,
    reference: Reference,
    wanted: Mapping[Node, set[tuple[tuple[str, int], ...]]],
    rows: Rows,
    cache: Cache | None,
) -> Work:
    """Find the standard deviation of all numbers of a value over the reference set's real positions: of each part of it that is asked for.

    They are known afterwards as `reference.known[(node, part)]`, a part being places along axes (`(("head", 3),)`).
    """
    missing = [
        (node, part) for node, parts in wanted.items() for part in sorted(parts) if (node, part) not in reference.known
    ]
    cost = Work()
    if not missing:
        return cost
    nodes, moments = (
        list(dict.fromkeys(node for node, _ in missing)),
        {key: torch.zeros(3, dtype=torch.float64) for key in missing},
    )
    for first, last in batches_of(reference, rows):
        some = {name: one[first:last] for name, one in reference.inputs.items()}
        made = compute_with(cache, nodes, some, model.stores, dtype=model.dtype, device=model.device)
        for node, part in missing:
            value = made[node]
            if "key" in value.names:
                raise InputError(
                    f"ablation='noise': {node!r} is a value between two positions, of which the masked ones have no scale: ablate q, k or z"
                )
            if not value.as_tensor().is_meta:
                moments[node, part] += _moments(part_of(value, part), some)
        cost = cost.then(replace(made.work, kept_bytes=0))
    for key, (count, total, squares) in ((key, one.tolist()) for key, one in moments.items()):
        mean = total / max(count, 1)
        reference.known[key] = float(np.sqrt(max(squares / max(count, 1) - mean**2, 0.0)))
    return cost


def part_of(value: Array, part: Sequence[tuple[str, int]]) -> Array:
    """Return a value at one place along each of some axes, those that it has."""
    for name, index in part:
        if name in value.names:
            place = value.names.index(name)
            value = Array(value.as_tensor().select(place, index), tuple(one for one in value.names if one != name))
    return value


def _moments(value: Array, inputs: Inputs) -> torch.Tensor:
    """Return how many numbers there are at real positions, their sum, and that of their squares."""
    real = padding(inputs)
    rest = tuple(name for name in value.names if name not in {"batch", "query"})
    if "query" in value.names and real is not None:
        laid = torch.as_tensor(value.laid(("batch", "query", *rest)))
        laid = laid.expand(len(real), *laid.shape[1:])[real.to(laid.device)]
    else:
        laid = value.as_tensor()
    wide = laid.to(torch.float64)
    return torch.tensor([wide.numel(), float(wide.sum()), float((wide * wide).sum())], dtype=torch.float64)


def noise(seed: Sequence[int], name: str, row: int, shape: Sequence[int]) -> torch.Tensor:
    """Return standard normal numbers that depend on the seed, the name and the row alone, in 32 bits.

    >>> noise([0, 0], "L0.H1.z", 3, (2, 2)).equal(noise([0, 0], "L0.H1.z", 3, (2, 2)))
    True
    """
    draw = np.random.default_rng([*seed, zlib.crc32(name.encode()), row])
    return torch.from_numpy(draw.standard_normal(tuple(shape), dtype=np.float32))


def noisy(reference: Reference, hole: Hole, addresses: Sequence[Address], value: Array, rows: Rows, draw: int) -> Array:
    """Return a value of some rows with noise at the places of a hole that addresses name, at real positions."""
    real = padding(rows.taker)
    made = value.as_tensor().clone()
    whole = Array(made, value.names)
    for address in addresses:
        part = tuple(sorted(hole.at[address].items()))
        here = part_of(whole, part)  # a view, which is written into
        rest = tuple(name for name in here.names if name not in {"batch", "query"})
        size = reference.known[hole.value, part] * float(reference.how.option("scale"))
        shape = [here.as_tensor().shape[here.names.index(name)] for name in rest]
        for place, row in enumerate(rows.numbers):
            mine = (
                here.as_tensor().select(here.names.index("batch"), place) if "batch" in here.names else here.as_tensor()
            )
            names = tuple(name for name in here.names if name != "batch")
            at = slice(None)
            if real is not None and "query" in names:
                at = slice(int(real[place].int().argmax()), int(real[place].int().argmax() + real[place].sum()))
                mine = mine.narrow(names.index("query"), at.start, at.stop - at.start)
            order = (*(("query",) if "query" in names else ()), *rest)
            count = [mine.shape[names.index("query")]] if "query" in names else []
            drawn = noise(
                [int(reference.how.option("seed")), draw],
                str(address),
                row if "batch" in here.names else 0,
                [*count, *shape],
            )
            mine += torch.as_tensor(Array(drawn.to(mine.device, mine.dtype) * size, order).laid(names))
            if "batch" not in here.names:
                break
    return whole
