"""Renaming axes throughout a graph: one function for each kind of node that mentions axes by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scrubjay.circuit.axes import RANDOM, Axis
from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Along,
    Concat,
    Constant,
    Cumulant,
    Custom,
    Einsum,
    Expectation,
    Experts,
    Gather,
    Index,
    Input,
    Iota,
    Map,
    Merge,
    Multiply,
    Narrow,
    Opaque,
    Order,
    Relabel,
    Repeat,
    Sample,
    Split,
    Weight,
)  # fmt: skip

Rename = Callable[[str], str]
_Renamer = Callable[[Any, tuple[Node, ...], Rename], Node]


def _axis(axis: Axis, rename: Rename) -> Axis:
    return Axis(rename(axis.name), axis.size)


def _dims(dims: Sequence[Sequence[Axis]], rename: Rename) -> tuple[tuple[Axis, ...], ...]:
    return tuple(tuple(_axis(axis, rename) for axis in dim) for dim in dims)


def _names(names: Sequence[str], rename: Rename) -> tuple[str, ...]:
    return tuple(rename(name) for name in names)


def _relabel(node: Relabel, operands: tuple[Node, ...], rename: Rename) -> Node:
    pairs = tuple(sorted((rename(old), rename(new)) for old, new in node.pairs if rename(old) != rename(new)))
    return Relabel(operands[0], pairs) if pairs else operands[0]


def _sources(names: Sequence[str], rename: Rename) -> tuple[str, ...]:
    """Return the names of random sources as their axes are renamed."""
    return tuple(sorted(rename(RANDOM + name).removeprefix(RANDOM) for name in names))


def _same(node: Node, operands: tuple[Node, ...], _: Rename) -> Node:
    return node.with_operands(operands)


RENAMERS: dict[type[Node], _Renamer] = {
    Input: lambda node, _, rename: Input(node.name, _dims([node.dims], rename)[0], node.dtype),
    Weight: lambda node, _, rename: Weight(node.source, node.name, _dims(node.dims, rename), node.dtype),
    Constant: _same,
    Iota: lambda node, _, rename: Iota(_axis(node.axis, rename)),
    Einsum: lambda node, ops, rename: Einsum(ops, tuple(sorted(_names(node.summed, rename)))),
    Experts: lambda node, ops, rename: Experts(
        ops[0], ops[1], rename(node.axis), ops[2], tuple(sorted(_names(node.summed, rename)))
    ),
    Order: lambda node, ops, rename: Order(
        ops[0], rename(node.axis), _axis(node.to, rename), node.result, node.greatest, node.how
    ),
    Add: _same,
    Multiply: _same,
    Map: _same,
    Repeat: lambda node, ops, rename: Repeat(ops[0], _dims([node.along], rename)[0]),
    Index: lambda node, ops, rename: Index(ops[0], rename(node.axis), node.at),
    Narrow: lambda node, ops, rename: Narrow(ops[0], rename(node.axis), node.start, _axis(node.to, rename), node.step),
    Concat: lambda node, ops, rename: Concat(ops, _names(node.along, rename), _axis(node.to, rename)),
    Gather: lambda node, ops, rename: Gather(ops[0], rename(node.axis), ops[1]),
    Relabel: _relabel,
    Split: lambda node, ops, rename: Split(ops[0], rename(node.axis), _dims([node.into], rename)[0]),
    Merge: lambda node, ops, rename: Merge(ops[0], _names(node.merged, rename), _axis(node.to, rename)),
    Custom: lambda node, ops, rename: Custom(node.source, node.name, ops[0], _names(node.layout, rename)),
    Along: lambda node, ops, rename: Along(node.op, ops[0], _names(node.over, rename), node.parameters),
    Sample: lambda node, ops, rename: Sample(ops[0], rename(node.axis), *_sources([node.by], rename)),
    Expectation: lambda node, ops, rename: Expectation(ops[0], _sources(node.over, rename)),
    Cumulant: lambda node, ops, rename: Cumulant(ops, _sources(node.over, rename), node.unbiased),
    Opaque: lambda node, ops, rename: Opaque(
        node.op,
        ops,
        tuple(_dims(layout, rename) for layout in node.layouts),
        node.arguments,
        node.result,
        _dims(node.dims, rename),
    ),
}


def rename_axes(roots: Sequence[Node], table: Mapping[str, str]) -> dict[Node, Node]:
    """Return what every node becomes when axes are renamed by `table` throughout.

    A new name that would give one node two axes of that name is primed until it does not.
    """
    order = topological(roots)
    table = _settled(order, table)

    def rename(name: str) -> str:
        return table.get(name, name)

    made: dict[Node, Node] = {}
    for node in order:
        made[node] = RENAMERS[type(node)](node, tuple(made[operand] for operand in node.operands), rename)
    return made


def _mentioned(node: Node) -> frozenset[str]:
    return node.axis_names | node.acts_along | {name for operand in node.operands for name in operand.axis_names}


def _settled(order: Sequence[Node], table: Mapping[str, str]) -> dict[str, str]:
    settled = dict(table)
    again = True
    while again:
        again = False
        for node in order:
            taken: dict[str, str] = {}
            renamed_away = {old for old, _ in node.pairs} if isinstance(node, Relabel) else set[str]()
            for name in sorted(_mentioned(node) - renamed_away):
                new = settled.get(name, name)
                if taken.setdefault(new, name) != name:
                    settled[name] = new + "'"
                    again = True
    return settled
