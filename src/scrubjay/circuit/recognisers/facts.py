"""Facts that every recogniser asks for: what depends on data, who reads whom, and the shapes of linear maps and norms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scrubjay.circuit.graph import above, readers
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Along,
    Constant,
    Einsum,
    Index,
    Input,
    Map,
    Merge,
    Multiply,
    Narrow,
    Relabel,
    Split,
    Weight,
)


@dataclass(frozen=True, eq=False)
class Facts:
    """A circuit's nodes in order, their readers, and which of them depend on an input."""

    nodes: tuple[Node, ...]
    readers: dict[Node, list[Node]]
    data: set[Node]

    def weight_only(self, node: Node) -> bool:
        """Tell whether a node is computed from weights and constants alone."""
        return node not in self.data

    def data_operands(self, node: Node) -> list[Node]:
        """Return the operands that depend on an input."""
        return [operand for operand in node.operands if operand in self.data]


@dataclass(frozen=True)
class Norm:
    """A normalisation: what it reads, its value before the affine map, and the node its divisor is read from.

    `inverse` says that the node is the divisor's reciprocal, as in a norm written with rsqrt.
    """

    source: Node
    normalized: Node
    scale: Node
    inverse: bool


def facts(nodes: tuple[Node, ...], roots: Iterable[Node]) -> Facts:
    """Return the facts of a graph."""
    roots = list(roots)
    return Facts(nodes, readers(roots), above(roots, [node for node in nodes if isinstance(node, Input)]))


def without_casts(node: Node) -> Node:
    """Return the node below casts of type."""
    while isinstance(node, Map) and node.op == "cast":
        (node,) = node.inputs
    return node


def projection(node: Node, known: Facts) -> Einsum | None:
    """Return the linear map whose output this node is (up to bias, cast, and a choice of some of its outputs), if it is one."""
    while True:
        node = without_casts(node)
        if isinstance(node, Index | Narrow | Split | Merge):
            (node,) = node.operands
        elif isinstance(node, Add):
            data = known.data_operands(node)
            if len(data) != 1:
                return None
            (node,) = data
        elif isinstance(node, Einsum):
            data = known.data_operands(node)
            weights = [item for item in node.operands if known.weight_only(item) and not isinstance(item, Constant)]
            return node if len(data) == 1 and weights and node.summed else None
        else:
            return None


def linear_input(linear: Einsum, known: Facts) -> Node:
    """Return what a linear map reads."""
    return without_casts(known.data_operands(linear)[0])


def projections_below(node: Node, known: Facts) -> list[Node]:
    """Return the outermost outputs of linear maps that `node` is computed from, nearest first."""
    found: list[Node] = []
    seen: set[Node] = set()
    stack = [node]
    while stack:
        here = stack.pop()
        if here in seen or here not in known.data:
            continue
        seen.add(here)
        if not isinstance(here, Relabel) and projection(here, known) is not None:
            found.append(here)
        else:
            stack.extend(reversed(here.operands))
    return found


def one_projection_below(node: Node, known: Facts) -> Node | None:
    """Return the one linear output below `node`, or `None`; stretches of it (as rotary embeddings take) count as it."""
    found = projections_below(node, known)
    if not found:
        return None
    chains = [_chain(one) for one in found]
    return next((one for one in chains[0] if all(one in chain for chain in chains[1:])), None)


def _chain(node: Node) -> list[Node]:
    chain = [node]
    while isinstance(chain[-1], Index | Narrow) or without_casts(chain[-1]) is not chain[-1]:
        chain.append(chain[-1].operands[0])
    return chain


def norm_below(node: Node, known: Facts) -> Norm | None:
    """Return the normalisation whose (scaled and shifted) output this node is, if it is one."""
    while True:
        node = without_casts(node)
        found = _norm_core(node)
        if found is not None:
            return found
        if isinstance(node, Index | Narrow):
            (node,) = node.operands
        elif isinstance(node, Add | Multiply) and len(known.data_operands(node)) == 1:
            (node,) = known.data_operands(node)
        else:
            return None


def _norm_core(node: Node) -> Norm | None:
    if (
        isinstance(node, Map)
        and node.op == "divide"
        and isinstance(node.inputs[1], Along)
        and node.inputs[1].op == "rms"
    ):
        value, scale = node.inputs
        centered = isinstance(value, Along) and value.op == "center"
        return Norm(without_casts(value.operands[0] if centered else value), node, scale, inverse=False)
    if isinstance(node, Multiply) and len(node.factors) == 2:
        for value, factor in (node.factors, node.factors[::-1]):
            if isinstance(factor, Map) and factor.op == "rsqrt" and _is_mean_square(factor.inputs[0], value):
                return Norm(without_casts(value), node, factor, inverse=True)
    return None


def _is_mean_square(node: Node, value: Node) -> bool:
    if isinstance(node, Add):
        node = next((term for term in node.terms if isinstance(term, Along)), node)
    if not isinstance(node, Along) or node.op != "mean":
        return False
    square = node.source
    if isinstance(square, Map) and square.op == "power":
        return square.inputs[0] is value
    return isinstance(square, Multiply) and square.factors == (value, value)


def stored(node: Node) -> Weight | None:
    """Return the weight below renamings and choices, if the node is one."""
    while isinstance(node, Relabel | Index | Narrow | Split | Merge):
        (node,) = node.operands
    return node if isinstance(node, Weight) else None
