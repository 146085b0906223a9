"""Facts that every recogniser asks for: what depends on data, who reads whom, and the shapes of linear maps and norms."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TypeGuard

from scrubjay.circuit.graph import above, readers
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Along,
    Constant,
    Einsum,
    Gather,
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

    `inverse` says that the node is the divisor's reciprocal, as in a norm written with rsqrt; `centered` that the mean is
    taken away first.
    """

    source: Node
    normalized: Node
    scale: Node
    inverse: bool
    centered: bool


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
        if isinstance(node, Index | Narrow | Split | Merge) or _chooses(node, known):
            node = node.operands[0]
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


def _chooses(node: Node, known: Facts) -> bool:
    """Tell whether a node takes fixed places of an axis of a value, by a list of them."""
    return isinstance(node, Gather) and node.source in known.data and known.weight_only(node.index)


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


def one_projection_below(node: Node, known: Facts, heads: frozenset[str] = frozenset()) -> Node | None:
    """Return the one linear output below `node`, or `None`; stretches of it (as rotary embeddings take) count as it.

    Where several are joined, as in latent attention, the one that each of `heads` has of its own is meant.
    """
    found = projections_below(node, known)
    found = [one for one in found if one.axis_names & heads] or found
    if not found:
        return None
    chains = [_chain(one) for one in found]
    common = next((one for one in chains[0] if all(one in chain for chain in chains[1:])), None)
    return common.source if common is not None and _is_regrouped(common) else common


def _chain(node: Node) -> list[Node]:
    chain = [node]
    while (
        isinstance(chain[-1], Index | Narrow | Gather)
        or _is_regrouped(chain[-1])
        or without_casts(chain[-1]) is not chain[-1]
    ):
        chain.append(chain[-1].operands[0])
    return chain


def _is_regrouped(node: Node) -> TypeGuard[Split]:
    """Tell whether a node splits what was merged just before, as `with_whole_heads` leaves it."""
    return isinstance(node, Split) and isinstance(node.source, Merge)


def region(top: Node, stop: AbstractSet[Node], known: Facts) -> set[Node]:
    """Return the nodes that depend on an input, from `top` down to the nodes in `stop`, which are not among them."""
    found: set[Node] = set()
    stack = [top]
    while stack:
        node = stack.pop()
        if node not in found and node not in stop and node in known.data:
            found.add(node)
            stack.extend(node.operands)
    return found


def norm_below(node: Node, known: Facts) -> Norm | None:
    """Return the normalisation whose (scaled and shifted) output this node is, if it is one."""
    while True:
        node = without_casts(node)
        found = norm_at(node)
        if found is not None:
            return found
        data = known.data_operands(node)
        if isinstance(node, Index | Narrow):
            (node,) = node.operands
        elif len(data) == 1 and (isinstance(node, Add | Multiply) or (isinstance(node, Map) and node.op == "divide")):
            (node,) = data
        else:
            return None


def norm_at(node: Node) -> Norm | None:
    """Return the normalisation whose value before the affine map this node is, if it is one."""
    if (
        isinstance(node, Map)
        and node.op == "divide"
        and isinstance(node.inputs[1], Along)
        and node.inputs[1].op == "rms"
    ):
        value, scale = node.inputs
        return _norm(value, node, scale, inverse=False)
    if isinstance(node, Multiply) and len(node.factors) == 2:
        for value, factor in (node.factors, node.factors[::-1]):
            if isinstance(factor, Map) and factor.op == "rsqrt" and _is_mean_square(factor.inputs[0], value):
                return _norm(value, node, factor, inverse=True)
    return None


def _norm(value: Node, node: Node, scale: Node, *, inverse: bool) -> Norm:
    source = _uncentred(value)
    return Norm(without_casts(value if source is None else source), node, scale, inverse, source is not None)


def _uncentred(node: Node) -> Node | None:
    """Return the value from which its mean was taken away to give a node."""
    if isinstance(node, Along) and node.op == "center":
        return node.source
    if isinstance(node, Add) and len(node.terms) == 2:
        for value, less in (node.terms, node.terms[::-1]):
            if isinstance(less, Multiply) and any(
                isinstance(factor, Along)
                and factor.op == "mean"
                and without_casts(factor.source) is without_casts(value)
                for factor in less.factors
            ):
                return value
    return None


def _is_mean_square(node: Node, value: Node) -> bool:
    if isinstance(node, Add):
        node = next((term for term in node.terms if isinstance(term, Along)), node)
    if not isinstance(node, Along) or node.op != "mean":
        return False
    square = node.source
    if isinstance(square, Map) and square.op == "power":
        return without_casts(square.inputs[0]) is without_casts(value)
    return isinstance(square, Multiply) and [without_casts(one) for one in square.factors] == [without_casts(value)] * 2


def stored(node: Node) -> Weight | None:
    """Return the weight below renamings and choices, if the node is one."""
    while isinstance(node, Relabel | Index | Narrow | Split | Merge):
        (node,) = node.operands
    return node if isinstance(node, Weight) else None
