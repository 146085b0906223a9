"""Gradients of a scalar at the values that a run kept: one pass backwards, then a view for each address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.address import Address, Head, parse
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Index, Map, Merge
from scrubjay.circuit.places import at_position, place, refuse_bypassed
from scrubjay.engine.array import Array
from scrubjay.engine.evaluate import evaluate
from scrubjay.errors import AddressError, InputError
from scrubjay.interventions.shown import shown, stacked


@dataclass(frozen=True, eq=False)
class Gradients:
    """The gradients of one scalar at what a run kept, by address; wildcards stack as those of the run do.

    `slopes` holds, for each address, the node that it is a part of, that node's value, and the gradient there.
    """

    model: Model
    inputs: Mapping[str, torch.Tensor]
    scalar: float
    slopes: Mapping[str, tuple[Node, Array, torch.Tensor]]

    def __getitem__(self, text: str) -> Array:
        """Return the gradient at a kept value (or the stack of those a wildcard names), with the axes of the value.

        A value that the scalar does not depend on has the gradient zero. Raises `AddressError` for what was not kept, and where no
        gradient of its own exists: at what one reader sees of the stream.
        """
        asked, wanted = parse(text, self.model.anatomy.shape), self.model.addresses(text)
        for one in wanted:
            if str(one) not in self.slopes:
                raise AddressError(
                    f"{one} was not kept by this run, so no gradient can be taken there: sj.run(..., keep=[{text!r}]); kept: {', '.join(self.slopes)}"
                )
        return stacked(asked, wanted, [self._at(one) for one in wanted])

    def _at(self, address: Address) -> Array:
        node, value, slope = self.slopes[str(address)]
        refuse_bypassed(self.model.circuit, self.model.anatomy, address)
        where = place(self.model.circuit, self.model.anatomy, Address(address.layer, address.part, address.site))
        if isinstance(address.part, Head) and where.terms is None and _is_shared(self.model, address, node):
            raise AddressError(
                f"{address}: this value is shared by the heads of a group, so one head's copy has no gradient of its own: take that of the key-value head"
            )
        if isinstance(where.value, Map) and where.value.op == "reciprocal":  # d(1 / s) = -1 / s^2 ds
            slope, view = -slope * value.as_tensor().detach() ** 2, node
        elif where.terms is not None:  # a term of a sum has the gradient of the sum
            view = node
        else:
            view = where.value
        if not _is_view(view, node):
            raise AddressError(
                f"{address}: a gradient is taken at a value, not at what one reader sees of it; take it at what is read, or at what the reader gives"
            )
        if address.position is not None:
            view = at_position(self.model.circuit, view, address.position)
        known = {node: Array(slope, value.names)}
        seen = evaluate([view], self.inputs, self.model.stores, known=known, device=self.model.device)
        return shown(view, seen[view])

    def __repr__(self) -> str:
        """Say of what, and where, in one line."""
        return f"<Gradients of a scalar ({self.scalar:.4g}) in {self.model.name} at {len(self.slopes)} values>"


def gradients_of(
    model: Model, inputs: Mapping[str, torch.Tensor], nodes: Mapping[str, tuple[Node, Array]], scalar: Any
) -> Gradients:
    """Return the gradients of a scalar at the values of some nodes, which stand for addresses."""
    if not isinstance(scalar, torch.Tensor) or scalar.numel() != 1:
        what = f"shape {tuple(scalar.shape)}" if isinstance(scalar, torch.Tensor) else type(scalar).__name__
        raise InputError(f"a gradient is of one number, a tensor of one element; got {what}: sum it, or take its mean")
    if not scalar.requires_grad:
        raise InputError(
            "the scalar does not hang on this run's values: compute it by torch from run.output or kept values, without detach, item or no_grad"
        )
    able = {name: pair for name, pair in nodes.items() if pair[1].as_tensor().is_floating_point()}
    places = {node: value.as_tensor() for node, value in able.values()}
    found = torch.autograd.grad(scalar, list(places.values()), retain_graph=True, materialize_grads=True)
    slopes = dict(zip(places, found, strict=True))
    return Gradients(
        model, inputs, float(scalar.detach()), {name: (*able[name], slopes[able[name][0]]) for name in able}
    )


def _is_view(value: Node, node: Node) -> bool:
    """Tell whether a value is a node itself, or some places of it."""
    while isinstance(value, Index | Merge) and value is not node:
        (value,) = value.operands
    return value is node


def _is_shared(model: Model, address: Address, node: Node) -> bool:
    """Tell whether a node has fewer heads than the layer's attention."""
    heads = model.anatomy.layers[address.layer].head_axes if isinstance(address.layer, int) else ()
    present = {name for name, _ in heads} & node.axis_names
    return bool(present) and len(present) < len(heads)
