"""Mixtures of experts, found by shape: linear maps chosen for every token by the places of a router's greatest values."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Einsum, Experts, Multiply
from scrubjay.circuit.recognisers.facts import Facts, projections_below, without_casts


@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of experts: the router's scores, which experts it chose and their weights, and what each of these gives.

    `chosen`, `weights` and `each` have the axis `slot` of choices (`None` where there is one choice); `axis` is that of all
    `experts`.
    """

    logits: Node | None
    weights: Node | None
    chosen: Node
    each: Node | None
    experts: int
    axis: str
    slot: str | None


def read_mixture(inside: AbstractSet[Node], known: Facts) -> Mixture | str | None:
    """Return the mixture of experts among the nodes of a block, why it is none that we know, or `None` if none is chosen."""
    maps = [node for node in known.nodes if node in inside and isinstance(node, Experts)]
    if not maps:
        return None
    indices = {without_casts(node.index) for node in maps}
    if len(indices) != 1:
        return f"its experts are chosen by {len(indices)} indices"
    (chosen,) = indices
    slots = chosen.axis_names - {"batch", "query"}
    size = maps[-1].weights.size(maps[-1].axis)
    if len(slots) > 1 or not isinstance(size, int):
        return "the axis of its choices was not found"
    slot = next(iter(slots), None)
    scores = projections_below(chosen, known)
    each, weights = _weighed(maps[-1], slot, known)
    return Mixture(scores[0] if len(scores) == 1 else None, weights, chosen, each, size, maps[-1].axis, slot)


def _weighed(last: Node, slot: str | None, known: Facts) -> tuple[Node | None, Node | None]:
    """Return what each chosen expert gives before its weight, and the weights, if that product was found."""
    here = last
    while True:
        following: Node | None = None
        for reader in known.readers.get(here, []):
            if isinstance(reader, Multiply | Einsum) and len(reader.operands) == 2:
                (other,) = [operand for operand in reader.operands if operand is not here] or [here]
                weighs = "query" in other.axis_names and (slot is None or slot in other.axis_names)
                if weighs and other.axis_names < here.axis_names:
                    return here, other
            if without_casts(reader) is without_casts(here) or _is_bias(reader, here):
                following = reader
        if following is None:
            return None, None
        here = following


def _is_bias(reader: Node, here: Node) -> bool:
    return isinstance(reader, Add) and reader.axis_names == here.axis_names and len(reader.terms) == 2
