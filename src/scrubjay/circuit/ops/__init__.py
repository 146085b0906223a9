"""The kinds of node, one frozen class each, grouped by family.

`KINDS` lists them all: every table keyed by node type (kernels, printing, reading back) has a test that no kind is missing.
"""

from __future__ import annotations

from scrubjay.circuit.node import Node
from scrubjay.circuit.ops.custom import Custom
from scrubjay.circuit.ops.leaves import Constant, Input, Iota, Weight
from scrubjay.circuit.ops.linear import Add, Einsum, Experts, Multiply
from scrubjay.circuit.ops.movement import Concat, Gather, Index, Merge, Narrow, Relabel, Repeat, Split
from scrubjay.circuit.ops.pointwise import Along, Map, Opaque, Order
from scrubjay.circuit.ops.random import Cumulant, Expectation, Sample

KINDS: tuple[type[Node], ...] = (
    *(Input, Weight, Constant, Iota),
    *(Einsum, Add, Multiply, Experts),
    *(Index, Narrow, Concat, Gather, Relabel, Split, Merge, Repeat),
    *(Map, Along, Order, Opaque, Custom),
    *(Sample, Expectation, Cumulant),
)

__all__ = [
    "KINDS", "Add", "Along", "Concat", "Constant", "Cumulant", "Custom", "Einsum", "Expectation", "Experts", "Gather", "Index", "Input", "Iota", "Map", "Merge", "Multiply",
    "Narrow", "Opaque", "Order", "Relabel", "Repeat", "Sample", "Split", "Weight",
]  # fmt: skip
