"""How a rotary embedding turns queries and keys: the matrix between places, measured in the model's own graph.

Between `q` and `q_rot` stands a map that is linear in q at every position (up to the scale of a q/k norm, which is held at
1). It is read off by giving the graph a basis instead of queries, at the positions that are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Input
from scrubjay.circuit.recognisers.facts import norm_at
from scrubjay.engine.array import Array
from scrubjay.engine.evaluate import evaluate, home
from scrubjay.errors import CircuitError, InputError
from scrubjay.matrices.linear import PLACES


def turned(model: Model, layer: int, site: str, position: int) -> torch.Tensor | None:
    """Return what a query (`site` is `q`) or key (`k`) becomes at a position before scores are made: q_rot = q @ R.

    R is (..., d_head, d_head), with an axis for each axis of heads that `q` has, in the anatomy's order; `None` where the scores
    use `q` itself. The weights of a q/k norm are in R, its scale is not.

    Raises `CircuitError` where what stands between is not linear in q.
    """
    table = model.circuit.table
    plain, after = table[f"L{layer}.attn.{site}"], table[f"L{layer}.attn.{site}_rot"]
    if plain is after:
        return None
    heads = [name for name, _ in model.anatomy.layers[layer].head_axes if name in plain.axis_names]
    space, turned_space = _space(plain, layer, model), _space(after, layer, model)
    rank = int(plain.size(space))
    scales = _scales(after, plain)
    dtype = model.dtype or torch.float32
    basis = torch.cat([torch.eye(rank), torch.zeros(1, rank), torch.linspace(-1, 1, rank)[None]]).to(dtype)
    basis = basis.to(home(model.circuit.nodes, model.stores, {}))
    found = _evaluated(model, (plain, after), scales, Array(basis, ("batch", space)), position)
    value = found.dense(["batch", *heads, turned_space])
    shift, mixed = value[rank], value[rank + 1]
    matrix = (value[:rank] - shift).movedim(0, -2)
    wanted = torch.einsum("i,...ij->...j", basis[rank + 1], matrix) + shift
    if not torch.allclose(mixed, wanted, atol=1e-3 if dtype.itemsize < 8 else 1e-6, rtol=1e-3):
        raise CircuitError(f"L{layer}.attn.{site}_rot is no linear map of L{layer}.attn.{site}, even with the scale of norms held: there is no QK of the weights alone")  # fmt: skip
    return matrix


def _space(node: Node, layer: int, model: Model) -> str:
    """Return the axis of one head's own space; raise `CircuitError` where there is not one."""
    heads = {name for name, _ in model.anatomy.layers[layer].head_axes}
    found = sorted(node.axis_names - heads - PLACES)
    if len(found) != 1:
        raise CircuitError(
            f"L{layer}.attn: a query or key lies along {', '.join(found) or 'no axis of its own'}: there is no QK of one head's weights"
        )
    return found[0]


def _scales(after: Node, plain: Node) -> list[Node]:
    """Return the scales of norms between two values."""
    found: list[Node] = []
    for node in topological([after], stop={plain: None}):
        norm = norm_at(node) if node is not plain else None
        if norm is not None and plain in topological([norm.scale], stop={plain: None}):
            found.append(norm.scale)
    return found


def _evaluated(model: Model, ends: tuple[Node, Node], scales: list[Node], basis: Array, position: int) -> Array:
    """Return the value after, for rows of a basis as values before, at a position."""
    plain, after = ends
    known: frozenset[Node] = frozenset([plain, *scales])
    leaves = [node for node in topological([after], stop=known) if isinstance(node, Input)]
    counted = any(node.name == "position_ids" for node in leaves)
    fixed = plain.size("query")
    length = fixed if isinstance(fixed, int) else 2 if counted and position else position + 1
    rows = basis.as_tensor().shape[0]
    sizes = {"batch": rows, "query": length}
    if length <= position and not counted:
        raise InputError(f"offset={position}: {model.name} was captured for {length} positions alone")
    places = torch.tensor([*range(length - 1), position] if counted else range(length))
    inputs: dict[str, torch.Tensor] = {}
    for leaf in leaves:
        if leaf.name not in {"position_ids", "attention_mask"}:
            raise CircuitError(
                f"the rotary embedding depends on the input {leaf.name!r}: there is no QK of the weights alone"
            )
        row = places if leaf.name == "position_ids" else torch.ones(length, dtype=torch.long)
        inputs[leaf.name] = row.expand(*(sizes[axis.name] for axis in leaf.dims))
    ones = torch.ones_like(basis.as_tensor()[:, 0])
    values: dict[Node, Array] = {plain: _spread(plain, basis, sizes)}
    values |= {node: _spread(node, Array(ones, ("batch",)), sizes) for node in scales}
    found = evaluate([after], inputs, model.stores, dtype=model.dtype, known=values, sizes=sizes)[after]
    at = found.names.index("query")
    return Array(
        found.as_tensor().select(at, length - 1 if counted else position), tuple(n for n in found.names if n != "query")
    )


def _spread(node: Node, rows: Array, sizes: Mapping[str, int]) -> Array:
    """Return rows as a value of a node's axes, the same at all places and heads."""
    names = tuple(axis.name for axis in node.axes)
    full = [sizes[axis.size] if isinstance(axis.size, str) else axis.size for axis in node.axes]
    laid = rows.laid(names)
    assert isinstance(laid, torch.Tensor)
    return Array(laid.expand(*full), names)


def between(model: Model, layer: int, offset: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return the matrices that queries at position `offset` and keys at position 0 pass before they meet in scores.

    Raises `InputError` for an offset that is no whole number from 0 on, or beyond the model's context.
    """
    if isinstance(offset, bool) or not isinstance(offset, int) or offset < 0:
        raise InputError(f"offset={offset!r}: give how many places the key stands before the query, 0 or more")
    if model.context is not None and offset >= model.context:
        raise InputError(f"offset={offset}: {model.name} takes {model.context} positions")
    found = turned(model, layer, "q", offset), turned(model, layer, "k", 0)
    fixed = model.circuit.table[f"L{layer}.attn.q"].size("query")
    if offset + 1 in {model.context, fixed}:  # no further place to compare with
        return found
    again = turned(model, layer, "q", offset + 1), turned(model, layer, "k", 1)
    if any(one is not None for one in found) and not _alike(found, again):
        raise CircuitError(
            f"L{layer}.attn: what turns queries and keys depends on both positions and not on how far they are apart: there is no QK at an offset"
        )
    return found


Turns = tuple[torch.Tensor | None, torch.Tensor | None]


def _alike(one: Turns, two: Turns) -> bool:
    """Tell whether two turns of queries and keys give the same scores."""
    (q, k), (q2, k2) = ([_flat(turn) for turn in turns] for turns in (one, two))
    if q is None or q2 is None or k is None or k2 is None:
        return all(a is b or (a is not None and b is not None and torch.allclose(a, b)) for a, b in ((q, q2), (k, k2)))
    return torch.allclose(q[0] @ k[0].mT, q2[0] @ k2[0].mT, atol=2e-2 if q.dtype.itemsize < 4 else 1e-3, rtol=1e-2)


def _flat(turn: torch.Tensor | None) -> torch.Tensor | None:
    return None if turn is None else turn.reshape(-1, *turn.shape[-2:])
