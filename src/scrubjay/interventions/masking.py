"""Whether positions read later ones on the inputs at hand: what the masks of attention say of just these.

That a model is causal is found at load, by changing tokens. An input may say otherwise, though: a prefix that reads itself
in both directions, given by an input of its own; or a mask that depends on the length. So masks are looked at again for each input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Along, Constant, Input, Iota, Map, Weight
from scrubjay.engine.array import Array
from scrubjay.engine.evaluate import evaluate, input_sizes
from scrubjay.engine.resume import POSITIONS
from scrubjay.interventions.inputs import padding

KEYS = "key"
LOW = -1e4
"""What is added to a score to forbid a key is at most this; its exponential is 0 in every type."""

Mask = tuple[Node, str]
"""A node, and what it is where a key is forbidden: `low`, `false` or `true`."""


def causal_on(model: Model, *inputs: Mapping[str, torch.Tensor]) -> Model:
    """Return the model, as one that is known not to be causal where masks let a position read a later one on some inputs."""
    if model.verdict is None or model.verdict.causal is not True:
        return model
    if not any(_reads_later(model, one) for one in inputs):
        return model
    return replace(model, verdict=replace(model.verdict, causal=False))


def _reads_later(model: Model, inputs: Mapping[str, torch.Tensor]) -> bool:
    """Tell whether the masks of some attention together allow a real position a later real one."""
    found = masks_of(model.circuit.nodes)
    if not found:
        return False
    wanted = list(dict.fromkeys(mask for masks in found for mask, _ in masks))
    sizes = input_sizes(list(model.circuit.inputs.values()), inputs)
    with torch.no_grad():
        made = evaluate(wanted, inputs, model.stores, dtype=model.dtype, device=model.device, sizes=sizes)
    real = padding(inputs)
    for masks in found:
        allowed = torch.ones((), dtype=torch.bool)
        for mask, kind in masks:
            allowed = allowed & _allows(made[mask], kind).cpu()
        if real is not None:
            allowed = allowed & (real[:, None, :, None] & real[:, None, None, :]).cpu()
        if bool(allowed.triu(1).any()):
            return True
    return False


def masks_of(nodes: Iterable[Node]) -> list[tuple[Mask, ...]]:
    """Return what the attentions among some nodes are masked by, each set of masks once; an attention without a mask gives none."""
    made: dict[tuple[Mask, ...], None] = {}
    plain: dict[Node, bool] = {}
    for node in topological(list(nodes)):
        plain[node] = _is_plain(node, plain)
        if isinstance(node, Along) and node.op in ("softmax", "safe_softmax") and node.over == (KEYS,):
            found = [one for one in _masks(node.source, plain) if {POSITIONS, KEYS} <= one[0].axis_names]
            if found and node.size(KEYS) == node.size(POSITIONS):
                made[tuple(found)] = None
    return list(made)


def _is_plain(node: Node, plain: Mapping[Node, bool]) -> bool:
    """Tell whether a value is made of inputs, counts and stored masks alone."""
    if isinstance(node, Weight):
        return node.dtype in ("bool", "int64")
    return isinstance(node, Input | Iota | Constant) or (
        bool(node.operands) and all(plain[one] for one in node.operands)
    )


def _masks(scores: Node, plain: Mapping[Node, bool]) -> list[Mask]:
    """Return what scores are masked by, on the way down to where they are computed."""
    found: list[Mask] = []
    waiting = [scores]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Add):
            found += [(one, "low") for one in node.terms if plain[one]]
            waiting += [one for one in node.terms if not plain[one]]
        elif isinstance(node, Map) and node.op == "cast":
            waiting.append(node.inputs[0])
        elif isinstance(node, Map) and node.op == "where" and plain[node.inputs[0]]:
            condition, yes, no = node.inputs
            for one, other, kind in ((no, yes, "false"), (yes, no, "true")):
                if _is_low(one):
                    found.append((condition, kind))
                    waiting.append(other)
    return found


def _is_low(node: Node) -> bool:
    while isinstance(node, Map) and node.op == "cast":
        node = node.inputs[0]
    if not isinstance(node, Constant):
        return False
    return node.value == "min" or (isinstance(node.value, int | float) and node.value <= LOW)


def _allows(value: Array, kind: str) -> torch.Tensor:
    """Return where a mask allows a key, as (batch, head or whatever, query, key)."""
    rest = [name for name in value.names if name not in {"batch", POSITIONS, KEYS}]
    laid = torch.as_tensor(value.laid(("batch", *rest, POSITIONS, KEYS)))
    flat = laid.flatten(1, -3) if rest else laid[:, None]
    return flat > LOW if kind == "low" else flat.bool() if kind == "false" else ~flat.bool()
