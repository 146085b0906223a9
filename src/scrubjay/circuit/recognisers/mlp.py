"""MLPs, found by shape: a linear map of a nonlinear function of one or two linear maps of the stream, position by position."""

from __future__ import annotations

from dataclasses import dataclass

from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Einsum, Map, Multiply
from scrubjay.circuit.recognisers.facts import (
    Facts,
    linear_input,
    norm_below,
    projection,
    projections_below,
    region,
    without_casts,
)  # fmt: skip

_STRAIGHT = frozenset({"cast", "maximum", "minimum", "divide", "where", "abs", "round", "floor", "ceil"})


@dataclass(frozen=True, eq=False)
class Mlp:
    """An MLP: the input and output of its nonlinearity (`up` is what a gated one multiplies), and its last linear map."""

    pre: Node
    up: Node | None
    post: Node
    down: Einsum
    fed: Node


def read_mlp(write: Node, before: Node, known: Facts) -> Mlp | str:
    """Return the MLP that makes `write` of the stream `before`, or why it is none that we know."""
    outer = projections_below(write, known)
    if len(outer) != 1:
        return f"{len(outer)} linear maps are added" if outer else "no linear map gives what it adds"
    down = projection(outer[0], known)
    assert down is not None
    fed = known.data_operands(down)[0]
    post = without_casts(fed)
    first = [node for node in projections_below(post, known) if node in region(post, {before}, known)]
    if any(_inner_linear(node, before, known) for node in first) or not first:
        return "it is not two linear maps with a function between them"
    if len(first) == 1:
        return Mlp(first[0], None, post, down, fed)
    product = _product(post, known)
    if len(first) == 2 and product is not None:
        found = _gate_and_up(product, first, known)
        if found is not None:
            return Mlp(*found, post, down, fed)
    return f"{len(first)} linear maps of the stream are joined in a way that is not known"


def _inner_linear(first: Node, before: Node, known: Facts) -> bool:
    """Tell whether the linear map that gives `first` reads anything but the stream, normed or not."""
    linear = projection(first, known)
    if linear is None:
        return True
    below = region(linear_input(linear, known), {before}, known)
    return any(isinstance(node, Einsum) and any(known.weight_only(one) for one in node.factors) for node in below)


def _product(post: Node, known: Facts) -> Multiply | None:
    """Return the product of gate and up below what the last linear map reads, which may norm it first."""
    while True:
        post = without_casts(post)
        norm = norm_below(post, known)
        if norm is not None:
            post = norm.source
        elif isinstance(post, Multiply) and len(known.data_operands(post)) == 2:
            return post
        elif len(known.data_operands(post)) == 1:
            (post,) = known.data_operands(post)
        else:
            return None


def _gate_and_up(product: Multiply, first: list[Node], known: Facts) -> tuple[Node, Node] | None:
    """Return the map that enters the nonlinearity and the one that does not."""
    sides: list[tuple[Node, bool]] = []
    for factor in known.data_operands(product):
        below = region(factor, set(first), known)
        reached = [
            node for node in first if node is without_casts(factor) or any(node in one.operands for one in below)
        ]
        if len(reached) != 1:
            return None
        bent = any(
            (isinstance(node, Map) and node.op not in _STRAIGHT)
            or (isinstance(node, Multiply) and len(known.data_operands(node)) > 1)
            for node in below
        )
        sides.append((reached[0], bent))
    gates = [node for node, bent in sides if bent]
    ups = [node for node, bent in sides if not bent]
    return (gates[0], ups[0]) if len(gates) == len(ups) == 1 else None
