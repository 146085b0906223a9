"""The fingerprint of a circuit: one text that two circuits share only if they are the same.

A node's digest is that of its kind and its fields, with the digest of an operand for the operand, so that it depends on nothing
but the expression: not on the order nodes are listed in, nor on what else lives. A store enters by its name in the circuit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import need_circuit, topological
from scrubjay.circuit.node import Node
from scrubjay.errors import CircuitError


def fingerprint(circuit: Circuit) -> str:
    """Return `sha256:` and 64 hexadecimal digits: of its results, table, removed addresses and history.

    The order in which results and addresses are listed does not matter. Raises `CircuitError` for a node that holds a value
    that is no number, text or tuple of these.

    >>> from scrubjay.circuit.ops import Constant
    >>> one, other = (fingerprint(Circuit({"output": Constant(value)})) for value in (1, 1.0))
    >>> one == other, one == fingerprint(Circuit({"output": Constant(1)}))
    (False, True)
    """
    need_circuit(circuit)
    digests: dict[Node, str] = {}
    for node in topological([*circuit.roots.values(), *circuit.table.values()]):
        values = [_without_nodes(getattr(node, item.name), digests) for item in fields(cast("Any", node))]
        digests[node] = digest_node(type(node), values)
    roots = {name: digests[node] for name, node in circuit.roots.items()}
    table = {name: digests[node] for name, node in circuit.table.items()}
    return digest_frame(roots, table, circuit.removed, circuit.history)


def digest_node(kind: type[Node], values: Sequence[object]) -> str:
    """Return the digest of a node from its fields, in order, with digests in the place of operands."""
    return _digest([kind.__name__, *values])


def digest_frame(
    roots: Mapping[str, str], table: Mapping[str, str], removed: Mapping[str, str], history: Sequence[str]
) -> str:
    """Return the fingerprint from the digests of a circuit's results and places."""
    return f"sha256:{_digest([dict(roots), dict(table), dict(removed), list(history)])}"


def _digest(value: object) -> str:
    """Return the SHA-256 of a value as JSON; floats are written so that their bits are kept, and unlike integers."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise CircuitError(f"a node holds a value that has no fingerprint: {error}") from error
    return hashlib.sha256(text.encode()).hexdigest()


def _without_nodes(value: object, digests: Mapping[Node, str]) -> object:
    if isinstance(value, Node):
        return digests[value]
    if isinstance(value, tuple):
        return [_without_nodes(item, digests) for item in cast("tuple[object, ...]", value)]
    return value
