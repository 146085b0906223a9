"""Deliberate type errors in the constructors of nodes. Nothing here is run.

Nodes are interned by a metaclass. Annotate what its `__call__` returns and type checkers silently stop checking every
node's constructor; then the comments below suppress nothing, and pyright reports each of them as unnecessary.
`tests/test_types.py` strips the comments and expects exactly these diagnostics.
"""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.ops import Add, Constant, Input, Iota, Weight

AXIS = Axis("batch", "batch")


def wrong_types() -> None:
    """Fields of the wrong type."""
    Input(3, (AXIS,))  # pyright: ignore[reportArgumentType]
    Input("tokens", "batch")  # pyright: ignore[reportArgumentType]
    Weight("source", "name", (AXIS,))  # pyright: ignore[reportArgumentType]
    Constant(None)  # pyright: ignore[reportArgumentType]
    Add((Constant(1.0), 1.0))  # pyright: ignore[reportArgumentType]
    Iota("batch")  # pyright: ignore[reportArgumentType]


def wrong_calls() -> None:
    """Fields missing, unknown or too many."""
    Input()  # pyright: ignore[reportCallIssue]
    Input("tokens", (AXIS,), sizes=(2, 3))  # pyright: ignore[reportCallIssue]
    Iota(AXIS, AXIS)  # pyright: ignore[reportCallIssue]


def wrong_use(node: Input) -> None:
    """A node is frozen, and has the fields of its kind and no others."""
    node.name = "other"  # pyright: ignore[reportAttributeAccessIssue]
    node.terms  # pyright: ignore[reportAttributeAccessIssue]  # noqa: B018
    made: Add = Input("tokens", (AXIS,))  # pyright: ignore[reportAssignmentType]
    del made
