"""Facts of nodes that decide whether a rule holds: the kind of number, whether inputs are read, axes that agree.

Arithmetic on whole numbers and truth values is no arithmetic on reals (True + True is True), and a bare number times a whole
number is found in 32 bits: laws of algebra ask for floating values.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar
from weakref import WeakKeyDictionary

from scrubjay.circuit.axes import Axis
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
    Input,
    Iota,
    Map,
    Multiply,
    Opaque,
    Order,
    Relabel,
    Repeat,
    Weight,
)  # fmt: skip

Fact = TypeVar("Fact")

_TRUTHS = ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal", "and", "or", "xor", "not", "isnan", "isinf", "isfinite")  # fmt: skip
_KEEPING = ("abs", "ceil", "floor", "relu", "round", "sign", "bitwise_not")
_TOGETHER = ("maximum", "minimum", "floor_divide", "remainder", "power", "bitwise_and", "bitwise_or")

_kinds: WeakKeyDictionary[Node, str] = WeakKeyDictionary()
_reading: WeakKeyDictionary[Node, bool] = WeakKeyDictionary()


def _remembered(node: Node, table: WeakKeyDictionary[Node, Fact], find: Callable[[Node], Fact]) -> Fact:
    """Return a fact of a node, found for all below it first, once in its life."""
    if node in table:
        return table[node]
    if all(operand in table for operand in node.operands):
        table[node] = find(node)
        return table[node]
    for one in topological([node], stop=table):
        if one not in table:
            table[one] = find(one)
    return table[node]


def kind(node: Node) -> str:
    """Return what numbers a value is made of: `model`, `float`, `whole`, `truth`, a bare `number`, or `unknown`.

    >>> kind(Constant(1.5)), kind(Iota(Axis("query", "query"))), kind(Map("cast", (Constant(1),), ("model",)))
    ('number', 'whole', 'model')
    """
    return _remembered(node, _kinds, _kind)


def floating(nodes: Iterable[Node]) -> bool:
    """Tell whether all are floating values or bare numbers, so that the laws of algebra hold."""
    return all(kind(node) in {"model", "float", "number"} for node in nodes)


NOT_FLOATING = "not all of the values are known to be floating, and arithmetic on others is not that of real numbers"


def _named(dtype: str) -> str:
    if dtype == "model":
        return "model"
    if dtype == "bool":
        return "truth"
    return "float" if "float" in dtype else "whole"


def _together(nodes: Iterable[Node]) -> str:
    found = {_kinds[node] for node in nodes} - {"number"}
    for one in ("unknown", "float", "model", "whole", "truth"):
        if one in found:
            return one
    return "number"


def _kind(node: Node) -> str:  # noqa: PLR0911 - one answer for each family of nodes
    match node:
        case Input() | Weight():
            return _named(node.dtype)
        case Constant():
            bare = "truth" if isinstance(node.value, bool) else "number"
            return _named(node.dtype) if node.dtype is not None else bare
        case Iota() | Along(op="argmax" | "argmin") | Order(result="places"):
            return "whole"
        case Opaque() | Custom():
            return "unknown"
        case Repeat():
            found = _kinds[node.source]
            return "float" if found == "number" else found
        case Add() | Multiply() | Einsum() | Concat():
            return _together(node.operands)
        case Experts():
            return _together([node.source, node.weights])
        case Expectation() | Cumulant():
            found = _together(node.operands)
            return "model" if found in {"whole", "truth", "number"} else found
        case Map():
            return _map_kind(node)
        case Along() if node.op in {"any", "all"}:
            return "truth"
        case _:
            return _kinds[node.operands[0]]


def _map_kind(node: Map) -> str:
    if node.op in _TRUTHS:
        return "truth"
    if node.op == "cast":
        return _named(str(node.parameters[0]))
    if node.op == "where":
        chosen = _together(node.inputs[1:])
        return (
            "unknown" if chosen == "number" else chosen
        )  # of two bare numbers torch makes a tensor of its default type
    found = _together(node.inputs)
    if node.op in _KEEPING or node.op in _TOGETHER or found in {"number", "unknown"}:
        return found
    return found if found == "model" else "float"


def reads_input(node: Node) -> bool:
    """Tell whether a value depends on an input, and not on weights, constants and counts alone."""
    return _remembered(node, _reading, lambda one: isinstance(one, Input) or any(_reading[op] for op in one.operands))


Where = Callable[[Node], bool] | Collection[Node]
"""Which nodes: a predicate, or the nodes themselves."""


def predicate(where: Where | None) -> Callable[[Node], bool]:
    """Return the predicate that says which nodes are asked for; every node when `None`."""
    if where is None:
        return lambda _: True
    if callable(where):
        return where
    nodes = frozenset[Node](where)
    return lambda node: node in nodes


def agree(nodes: Iterable[Node]) -> bool:
    """Tell whether no axis has two sizes among the nodes."""
    sizes: dict[str, int | str] = {}
    return all(sizes.setdefault(axis.name, axis.size) == axis.size for node in nodes for axis in node.axes)


def fresh(name: str, taken: Collection[str]) -> str:
    """Return a name like `name` that is not taken: the first of name.2, name.3, ...

    >>> fresh("model", {"model", "model.2"})
    'model.3'
    """
    number = 2
    while f"{name}.{number}" in taken:
        number += 1
    return f"{name}.{number}"


def relabelled(node: Node, pairs: Iterable[tuple[str, str]]) -> Node:
    """Return the node with axes renamed; pairs of axes that it lacks, or that keep their name, are left out."""
    here = tuple(sorted((old, new) for old, new in pairs if old != new and old in node.axis_names))
    return Relabel(node, here) if here else node


def widened(node: Node, axes: Iterable[Axis]) -> Node:
    """Return the node with the axes that it lacks made real."""
    missing = tuple(axis for axis in axes if axis.name not in node.axis_names)
    if not missing:
        return node
    if kind(node) == "number":  # a bare number made real would be one of 32 bits
        return Multiply((node, Repeat(Constant(1, "model"), missing)))
    return Repeat(node, missing)


def total(nodes: Sequence[Node]) -> Node:
    """Return the sum of some nodes, or the one there is."""
    return Add(tuple(nodes)) if len(nodes) > 1 else nodes[0]


def product(nodes: Sequence[Node]) -> Node:
    """Return the product of some nodes, the one there is, or 1 for none."""
    if not nodes:
        return Constant(1)
    return Multiply(tuple(nodes)) if len(nodes) > 1 else nodes[0]


def contraction(factors: Sequence[Node], summed: Iterable[str]) -> Node:
    """Return a contraction; a product where nothing is summed."""
    over = tuple(sorted(set(summed)))
    return Einsum(tuple(factors), over) if over else product(factors)
