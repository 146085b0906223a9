"""How each kind of node is said in one line, from the node and what its operands are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from scrubjay.circuit import ops
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Constant, Einsum, Iota, Map, Weight

_SIGNS = {
    "divide": "/", "floor_divide": "//", "remainder": "%", "power": "**", "and": "and", "or": "or", "xor": "xor", "bitwise_and": "and",
    "bitwise_or": "or", "equal": "==", "not_equal": "!=", "less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">=",
}  # fmt: skip

Names = Sequence[str]


def _number(node: Constant) -> str:
    return str(node.value) if node.dtype is None else f"{node.dtype}({node.value})"


def _einsum(node: Einsum, operands: Names) -> str:
    into = ", ".join(" ".join(axis_order(factor)) or "1" for factor in node.factors)
    return f'einsum "{into} -> {" ".join(axis.name for axis in node.axes)}" of {", ".join(operands)}'


def axis_order(node: Node) -> list[str]:
    """Return a weight's axes as it is stored, any other node's as the glossary has them."""
    return (
        [axis.name for dim in node.dims for axis in dim]
        if isinstance(node, Weight)
        else [axis.name for axis in node.axes]
    )


def _map(node: Map, operands: Names) -> str:
    if node.op == "cast":
        kind = node.parameters[0]
        return f"{operands[0]} as {'the model type' if kind == 'model' else kind}"
    if node.op in _SIGNS:
        return f" {_SIGNS[node.op]} ".join(operands)
    return f"{node.op}({', '.join([*operands, *map(str, node.parameters)])})"


def _along(node: ops.Along, operands: Names) -> str:
    parameters = f", with {', '.join(map(str, node.parameters))}" if node.parameters else ""
    return f"{node.op} over {' '.join(node.over)} of {operands[0]}{parameters}"


def _opaque(node: ops.Opaque, operands: Names) -> str:
    result = f", result {node.result}" if node.result else ""
    return f"{node.op} of {', '.join(operands) or 'nothing'}, kept as it is with {node.arguments}{result}"


def _narrow(node: ops.Narrow, operands: Names) -> str:
    step = f" every {node.step}" if node.step != 1 else ""
    return f"{node.axis} from {node.start}{step} of {operands[0]}, as {node.to}"


WORDS: dict[type[Node], Callable[[Any, Names], str]] = {
    ops.Input: lambda node, _: f"input {node.name}, {node.dtype}",
    Weight: lambda node, _: f"weight {node.name}",
    Constant: lambda node, _: _number(node),
    Iota: lambda node, _: f"0, 1.. along {node.axis.name}",
    Einsum: _einsum,
    ops.Add: lambda _, operands: " + ".join(operands),
    ops.Multiply: lambda _, operands: " * ".join(operands),
    ops.Index: lambda node, operands: f"{operands[0]} at {node.axis} {node.at}",
    ops.Narrow: _narrow,
    ops.Concat: lambda node, operands: f"{', '.join(operands)} joined along {', '.join(node.along)} into {node.to}",
    ops.Gather: lambda node, operands: f"gather {node.axis} of {operands[0]} at {operands[1]}",
    ops.Experts: lambda node, operands: (
        f"{operands[0]} through {operands[1]}, {node.axis} chosen by {operands[2]}, summed over {', '.join(node.summed)}"
    ),
    ops.Order: lambda node, operands: (
        f"{node.result} of the {'greatest' if node.greatest else 'least'} along {node.axis} of {operands[0]} as {node.to}, by {node.how}"
    ),
    ops.Relabel: lambda node, operands: f"{operands[0]} with {', '.join(f'{old} as {new}' for old, new in node.pairs)}",
    ops.Split: lambda node, operands: f"{operands[0]} with {node.axis} split into {' '.join(map(str, node.into))}",
    ops.Merge: lambda node, operands: f"{operands[0]} with {' '.join(node.merged)} merged into {node.to}",
    ops.Repeat: lambda node, operands: f"{operands[0]} repeated along {' '.join(map(str, node.along))}",
    Map: _map,
    ops.Along: _along,
    ops.Opaque: _opaque,
    ops.Sample: lambda node, operands: f"{operands[0]} at a random {node.axis}, drawn by {node.by}",
    ops.Expectation: lambda node, operands: f"mean of {operands[0]} over {', '.join(node.over)}",
    ops.Cumulant: lambda node, operands: (
        f"{'unbiased estimate of the ' if node.unbiased else ''}cumulant of {', '.join(operands)} over {', '.join(node.over)}"
    ),
    ops.Custom: lambda node, operands: f"function {node.name} of {node.source} on {operands[0]}",
}
"""How each kind of node is said, from the node and what its operands are called."""


def runs(numbers: Iterable[int]) -> list[str]:
    """Return numbers as ranges.

    >>> runs([2, 0, 1, 5])
    ['0..2', '5']
    """
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return [f"{low}..{high}" if low != high else str(low) for low, high in found]
