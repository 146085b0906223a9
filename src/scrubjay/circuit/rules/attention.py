"""Attention factored: scores as one contraction of what is read with W_Q and W_K (QK), a head's output with W_V and W_O (OV).

The weights stay apart, as factors of one contraction; `weights_first` multiplies them. Where queries and keys are turned (a
rotary embedding) or normed, the matrix that does it is a factor too, one for each position.
"""

from __future__ import annotations

from collections.abc import Sequence

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import need_circuit, substitute
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Einsum,
    Gather,
    Index,
    Input,
    Map,
    Merge,
    Multiply,
    Narrow,
    Relabel,
    Repeat,
    Split,
    Weight,
)
from scrubjay.circuit.rules.algebra import FLATTEN, MODEL, QUERY
from scrubjay.circuit.rules.distribution import distribute
from scrubjay.circuit.rules.facts import reads_input
from scrubjay.circuit.rules.linearity import image
from scrubjay.circuit.rules.numbers import DOUBLE_CAST
from scrubjay.circuit.rules.relabels import COMPOSE_RELABELS, SINK_RELABEL
from scrubjay.circuit.rules.rewriting import rewrite, settle
from scrubjay.circuit.rules.rule import Rule, expected
from scrubjay.circuit.rules.taking import PUSH_TAKE
from scrubjay.circuit.rules.turning import LINEAR_AS_MATRIX, Turned, turned

_MOVES = Relabel | Index | Narrow | Split | Merge | Repeat
_INSIDE = (COMPOSE_RELABELS, SINK_RELABEL, PUSH_TAKE, DOUBLE_CAST, distribute(data_only=True), *FLATTEN)


def below_of(node: Node) -> Node | str:
    """Return the one value that reads inputs below a linear node, or why there is none."""
    if isinstance(node, _MOVES) or (isinstance(node, Map) and node.op == "cast"):
        return node.operands[0]
    if isinstance(node, Gather) and not reads_input(node.index):  # values taken out of a weight that makes all three
        return node.source
    if isinstance(node, Add | Multiply):
        data = list(dict.fromkeys(one for one in node.operands if reads_input(one)))
        if len(data) == 1 and sum(one is data[0] for one in node.operands) == 1:
            return data[0]
        return f"{type(node).__name__} of {len(data)} values that read inputs stands between (a rotary embedding, say)"
    return f"{type(node).__name__}{' ' + node.op if isinstance(node, Map) else ''} stands between"


def _data(node: Einsum) -> list[Node]:
    return [one for one in node.factors if reads_input(one)]


def projected_of(node: Node, turns: dict[Node, Turned] | None = None) -> Node | str:
    """Return what a projection reads, where a value is one through linear functions; or why it is not.

    What turns queries and keys (a rotary embedding, a norm) is passed by its matrix, and noted in `turns`.
    """
    while not isinstance(node, Einsum):
        below = below_of(node)
        if isinstance(below, str) and turns is not None:
            found = turned(node)
            if isinstance(found, str):
                return f"{below}, and {found}"
            turns[node] = found
            below = found.core
        if isinstance(below, str):
            return below
        node = below
    data = _data(node)
    if len(data) != 1 or len(node.factors) < 2:
        return f"a contraction of {len(data)} values that read inputs, and no projection by weights, stands there"
    return data[0]


def mixed_of(node: Node) -> Einsum | str:
    """Return the contraction of several values that read inputs which a value is, through linear functions."""
    while not isinstance(node, Einsum) or len(_data(node)) < 2:
        below = below_of(node) if not isinstance(node, Einsum) else "a projection by weights alone stands there"
        if isinstance(below, str):
            return below
        node = below
    return node


def factored(node: Node, atoms: Sequence[Node]) -> Node | str:
    """Return a node as a sum of contractions in which `atoms`, held as they are, are factors beside weights."""
    stand = {atom: Input(f"atom {place}", atom.axes) for place, atom in enumerate(dict.fromkeys(atoms))}
    held = substitute([node], dict(stand))[node]
    made = settle([held], _INSIDE).made[held]
    for term in made.terms if isinstance(made, Add) else (made,):
        if not isinstance(term, Einsum) or any(reads_input(one) and not _is_atom(one) for one in term.factors):
            return f"it comes to {term!r}, which is no contraction of what is read with weights"
    return substitute([made], {leaf: atom for atom, leaf in stand.items()})[made]


def _is_atom(node: Node) -> bool:
    return isinstance(node, Input) or (isinstance(node, _MOVES) and _is_atom(node.operands[0]))


def _qk(node: Node) -> Node | str:
    if not isinstance(node, Einsum):
        return expected("a contraction of queries with keys", node)
    data = _data(node)
    if len(data) != 2:
        return f"{len(data)} of its factors read inputs, and queries and keys are two"
    turns: dict[Node, Turned] = {}
    read = [projected_of(one, turns) for one in data]
    for side, found in zip(("first", "second"), read, strict=True):
        if isinstance(found, str):
            return f"its {side} factor is no projection of what is read: {found}"
    plain = substitute([node], {one: found.whole for one, found in turns.items()})[node]
    matrices = [found.matrix for found in turns.values()]
    return factored(plain, [*(one for one in read if isinstance(one, Node)), *matrices])


def _ov(node: Node) -> Node | str:
    if isinstance(node, Add):  # with the bias of the output projection
        projected = [at for at, one in enumerate(node.terms) if reads_input(one)]
        made = (
            _ov(node.terms[projected[0]])
            if len(projected) == 1
            else f"a sum of {len(projected)} values that read inputs"
        )
        return made if isinstance(made, str) else image(node, projected[0], made)
    if not isinstance(node, Einsum):
        return expected("an output projection", node)
    data = _data(node)
    if len(data) != 1 or len(node.factors) < 2:
        return f"{len(data)} of its factors read inputs; an output projection has one, and weights"
    mixed = mixed_of(data[0])
    if isinstance(mixed, str):
        return f"what it projects is no mixture of values: {mixed}"
    found = {one: projected_of(one) for one in _data(mixed)}
    values = [one for one, read in found.items() if isinstance(read, Node)]
    if len(values) != 1:
        return f"{len(values)} of the values that are mixed are projections; the pattern is none and the values are one"
    read = [values_read for values_read in found.values() if isinstance(values_read, Node)]
    return factored(node, [*(one for one in found if one not in values), *read])


def split_qkv(circuit: Circuit, axis: str = "qkv") -> Circuit:
    """Return the circuit in which queries, keys and values each read their own part of a weight that makes all three.

    Raises `CircuitError` where no weight does: they are apart already.
    """
    need_circuit(circuit)
    return rewrite(circuit, PUSH_TAKE, where=lambda node: isinstance(node, Index) and node.axis == axis)


_HEAD, _D_HEAD, _KEY = Axis("head", 2), Axis("d_head", 3), Axis("key", "query")
_READ = Input("read", (QUERY, MODEL))
_PATTERN = Input("pattern", (_HEAD, QUERY, _KEY))
_Q, _K, _V = (Weight("model", name, ((_HEAD, _D_HEAD), (MODEL,))) for name in ("W_Q", "W_K", "W_V"))
_O = Weight("model", "W_O", ((_HEAD, _D_HEAD), (MODEL,)))
_BIAS = Weight("model", "b_V", ((_HEAD, _D_HEAD),))


def _scores() -> Node:
    q, k = (Einsum((_READ, weight), ("model",)) for weight in (_Q, _K))
    return Einsum((q, Relabel(k, (("query", "key"),))), ("d_head",))


def _out() -> Node:
    v = Add((Einsum((_READ, _V), ("model",)), _BIAS))
    return Einsum((Einsum((_PATTERN, Relabel(v, (("query", "key"),))), ("key",)), _O), ("d_head", "head"))


FACTOR_QK = Rule(
    "factor_qk", "attention", "scores are one contraction of what queries and keys read with their weights; biases give terms of their own",
    "(x W_Q R_q) (y W_K R_k) = x W_Q R_q R_k W_K y", _scores, _qk,
)  # fmt: skip
FACTOR_OV = Rule(
    "factor_ov", "attention", "what attention writes is one contraction of the pattern with what values read, W_V and W_O",
    "(P (x W_V)) W_O = P x W_V W_O", _out, _ov,
)  # fmt: skip

ATTENTION = (FACTOR_QK, FACTOR_OV, LINEAR_AS_MATRIX)
