"""Variants of one run: a circuit with a hole at one place, filled anew for each variant, and how it is computed from the unchanged run.

The changed circuit has the axis `variant`: what the change does not reach lacks it, so several variants are one evaluation and
share what they share. What is put in, and where, are inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.address import Address
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.graph import substitute
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Constant, Input, Map, Multiply
from scrubjay.circuit.places import Place, place, refuse_bypassed
from scrubjay.engine.array import Array
from scrubjay.engine.resume import Resumption, resumption
from scrubjay.interventions.metric import Metric

VARIANT = Axis("variant", "variant")
VALUE, WHERE = "variant.value", "variant.where"


@dataclass(frozen=True, eq=False)
class Hole:
    """A node of the circuit where variants differ, and the places of it that addresses name.

    Attributes:
        value: the node whose values are put in, as the run that gives them has it.
        given: what stands for them in the changed circuit, and `where` for the places that take them.
        root: the read-out of the changed circuit.
        plan: how it is computed.
        at: for each address the place of it along axes of its own.
    """

    value: Node
    given: Input
    where: Input
    root: Node
    plan: Resumption
    at: Mapping[Address, Mapping[str, int]]


def holes(model: Model, addresses: Sequence[Address], metric: Metric, causal: bool) -> list[Hole]:
    """Return the holes for some addresses, those that are places of one node together."""
    groups: dict[Node, dict[Address, Mapping[str, int]]] = {}
    alone: list[tuple[Address, Place]] = []
    for address in addresses:
        refuse_bypassed(model.circuit, model.anatomy, address)
        found = place(model.circuit, model.anatomy, address)
        if found.at is not None:
            groups.setdefault(found.target, {})[address] = found.at
        else:
            alone.append((address, found))
    made = [_grouped(model, target, at, metric, causal) for target, at in groups.items()]
    return [*made, *(_alone(model, address, found, metric, causal) for address, found in alone)]


def _grouped(model: Model, target: Node, at: Mapping[Address, Mapping[str, int]], metric: Metric, causal: bool) -> Hole:
    """Return the hole at a node, of which each address names some places along other axes (heads, neurons) or all of it."""
    named = dict.fromkeys(name for one in at.values() for name in one)
    sizes = {name: size for address in at for name, size in _sizes(model, address, target).items()}
    given = Input(VALUE, target.axes)
    where = Input(WHERE, (VARIANT, *_rows(target), *(Axis(name, sizes[name]) for name in named)), "bool")
    new = Map("where", (where, given, target))
    return _hole(model, target, target, new, (given, where), metric, causal, at)


def _alone(model: Model, address: Address, found: Place, metric: Metric, causal: bool) -> Hole:
    """Return the hole at a place that is no node of its own: what one head reads, a head's share of a sum."""
    given, where = Input(VALUE, found.value.axes), Input(WHERE, (VARIANT, *_rows(found.value)), "bool")
    if found.terms is None:
        new = found.put(given, where)
    else:  # one term of a sum: the sum moves by as much as the term
        moved = Add((given, Multiply((found.value, Constant(-1.0)))))
        new = Add((found.target, Map("where", (where, moved, Constant(0.0)))))
    return _hole(model, found.target, found.value, new, (given, where), metric, causal, {address: {}})


def _rows(node: Node) -> tuple[Axis, ...]:
    return tuple(axis for axis in node.axes if axis.name in {"batch", "query"})


def _sizes(model: Model, address: Address, target: Node) -> dict[str, int]:
    own = {axis.name: axis.size for axis in target.axes if isinstance(axis.size, int)}
    heads = model.anatomy.layers[address.layer].head_axes if isinstance(address.layer, int) else ()
    return {**own, **dict(heads)}


def _hole(
    model: Model, target: Node, value: Node, new: Node, leaves: tuple[Input, Input], metric: Metric, causal: bool,
    at: Mapping[Address, Mapping[str, int]],
) -> Hole:  # fmt: skip
    root = model.circuit.roots[model.anatomy.result]
    made = substitute([root], {target: new})
    read = metric.read(made[root])
    before = {late: early for early, late in made.items() if late is not early}
    return Hole(value, *leaves, read, resumption([read], leaves, before, causal), at)


def needed(found: Sequence[Hole]) -> list[Node]:
    """Return the nodes of the unchanged circuit whose values the holes' plans hold."""
    leaves = {leaf for hole in found for leaf in (hole.given, hole.where)}
    return list(dict.fromkeys(node for hole in found for node in hole.plan.needs if node not in leaves))


def mask_of(hole: Hole, chosen: Sequence[tuple[Address, torch.Tensor]]) -> Array:
    """Return where each variant takes values: (address, rows (batch, query), or (batch,) without positions) for each of them."""
    parts: list[torch.Tensor] = []
    for address, rows in chosen:
        mask = rows
        for axis in hole.where.dims[1 + len(_rows(hole.value)) :]:
            at = hole.at[address].get(axis.name)
            one = torch.ones(int(axis.size), dtype=torch.bool)
            if at is not None:
                one = torch.arange(int(axis.size)) == at
            mask = mask.unsqueeze(-1) & one
        parts.append(mask)
    return Array(torch.stack(parts), tuple(axis.name for axis in hole.where.dims))
