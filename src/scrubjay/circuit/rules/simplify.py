"""A normal form: what can be said with fewer nodes is, and nothing is computed twice for it.

Each rule of `SIMPLIFY` takes nodes away or puts a renaming, repetition or number in a plainer form, so that they come to an
end together, and simplifying twice is simplifying once.
"""

from __future__ import annotations

from collections.abc import Mapping

from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.rules.algebra import FLATTEN
from scrubjay.circuit.rules.joining import REJOIN, SINGLE_CONCAT
from scrubjay.circuit.rules.numbers import (
    ADD_ZERO,
    CANCEL_TERMS,
    DOUBLE_CAST,
    EINSUM_AS_SUM,
    EINSUM_ONES,
    FOLD_NUMBERS,
    MULTIPLY_ONE,
    SINGLE_TERM,
)
from scrubjay.circuit.rules.relabels import COMPOSE_RELABELS, COUNT_RELABELLED
from scrubjay.circuit.rules.rewriting import rewrite
from scrubjay.circuit.rules.shapes import MERGE_OF_SPLIT, REPEAT_ONCE, SINGLE_SPLIT, SPLIT_OF_MERGE, SUM_OF_REPEAT
from scrubjay.circuit.rules.taking import COMPOSE_TAKES, WHOLE_STRETCH

SIMPLIFY = (
    *(
        SINGLE_TERM,
        FOLD_NUMBERS,
        ADD_ZERO,
        MULTIPLY_ONE,
        CANCEL_TERMS,
        EINSUM_ONES,
        SUM_OF_REPEAT,
        EINSUM_AS_SUM,
        DOUBLE_CAST,
    ),
    *(COMPOSE_RELABELS, COUNT_RELABELLED, WHOLE_STRETCH, COMPOSE_TAKES, REJOIN, SINGLE_CONCAT),
    *(MERGE_OF_SPLIT, SPLIT_OF_MERGE, SINGLE_SPLIT, REPEAT_ONCE),
)
"""The rules of the normal form."""


def simplify(circuit: Circuit | Mapping[str, Node] | Node, *, flat: bool = False) -> Circuit:
    """Return the circuit in its normal form; `flat` flattens sums, products and contractions as well.

    Flattening makes two ways of bracketing the same, and computes anew for each reader what several read: addresses in
    the middle of a flattened sum are read by nothing any more.

    >>> from scrubjay.circuit.ops import Add, Constant, Input
    >>> x = Input("x", ())
    >>> simplify(Add((Add((x,)), Constant(0)))).roots["output"] is x
    True
    """
    return rewrite(circuit, (*SIMPLIFY, *FLATTEN) if flat else SIMPLIFY)
