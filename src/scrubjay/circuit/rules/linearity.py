"""In which operand a node is linear, and what becomes of it when that operand is one term of a sum."""

from __future__ import annotations

from scrubjay.circuit.axes import RANDOM
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Along,
    Constant,
    Cumulant,
    Einsum,
    Expectation,
    Experts,
    Gather,
    Index,
    Map,
    Merge,
    Multiply,
    Narrow,
    Relabel,
    Repeat,
    Split,
)  # fmt: skip
from scrubjay.circuit.rules.facts import floating, kind, relabelled, widened

_ALONG = ("center", "mean", "sum", "cumsum")


def linear_in(node: Node) -> tuple[int, ...]:
    """Return the operands in each of which the node is linear, the others held still.

    >>> from scrubjay.circuit.ops import Constant
    >>> one = Constant(1.0)
    >>> linear_in(Multiply((one, one))), linear_in(Map("divide", (one, one))), linear_in(Map("tanh", (one,)))
    ((0, 1), (0,), ())
    """
    match node:
        case Einsum() | Multiply():
            return tuple(range(len(node.factors)))
        case Experts():
            return (0, 1)
        case Expectation() | Cumulant():
            return tuple(range(len(node.operands)))
        case Index() | Narrow() | Gather() | Relabel() | Split() | Merge() | Repeat():
            return (0,)
        case Along():
            return (0,) if node.op in _ALONG else ()
        case Map():
            wide = node.op == "cast" and node.parameters == ("model",) and floating(node.inputs)
            return (0,) if node.op == "divide" or wide else ()
        case _:
            return ()


def counts_for(node: Node) -> tuple[Node, ...]:
    """Return the operands whose numbers take part (the index of a look-up does not)."""
    if isinstance(node, Gather | Experts):
        return node.operands[: 1 if isinstance(node, Gather) else 2]
    return node.operands


def image(node: Node, position: int, term: Node) -> Node:
    """Return the node with the operand at `position`, a sum, replaced by one of its terms.

    A term that lacks an axis the node acts along is taken to be the same at all of its places.
    """
    whole = node.operands[position]
    missing = [axis for axis in whole.axes if axis.name not in term.axis_names and axis.name in node.acts_along]
    match node:
        case Index() | Narrow() | Gather() if missing:
            return term
        case Relabel():
            return relabelled(term, node.pairs)
        case Along() if node.op == "mean":
            over = tuple(name for name in node.over if name in term.axis_names)
            return Along("mean", term, over) if over else term
        case Einsum():
            others = {name for place, one in enumerate(node.factors) if place != position for name in one.axis_names}
            missing = [axis for axis in missing if axis.name not in others]
        case Map() if node.op == "cast" and kind(term) == "number":
            return Map("cast", (term,), node.parameters)
        case Expectation() | Cumulant() if missing:
            values = tuple(term if place == position else one for place, one in enumerate(node.operands))
            drawn = {name for one in values for name in one.axis_names}
            over = tuple(name for name in node.over if RANDOM + name in drawn)
            if isinstance(node, Expectation):
                return Expectation(term, over) if over else term
            if over:
                return Cumulant(values, over, node.unbiased)
        case Repeat() if kind(term) == "number":
            return Multiply((term, Repeat(Constant(1, "model"), node.along)))
        case _:
            pass
    operands = list(node.operands)
    operands[position] = widened(term, missing)
    return node.with_operands(operands)
