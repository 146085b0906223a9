"""Whether positions of a model are causal: found at load, and of a model that was rewritten since found again, by perturbation."""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakKeyDictionary

import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.node import Node
from scrubjay.engine.array import Array
from scrubjay.engine.compute import compute
from scrubjay.engine.evaluate import input_sizes
from scrubjay.interventions.inputs import padding, prepare, vocabulary

_LENGTH = 9
_KNOWN: WeakKeyDictionary[Model, bool] = WeakKeyDictionary()
"""What was found of models that were rewritten."""


def is_causal(model: Model) -> bool:
    """Tell whether no position of the model reads a later one.

    What the check at load found holds for the model as it was loaded. Of a rewritten or edited one other tokens are put at the last
    positions, and what lies before them must stay as it is everywhere.
    """
    if model.verdict is None or model.verdict.causal is not True:
        return False
    if not model.circuit.history:
        return True
    if model not in _KNOWN:
        _KNOWN[model] = _tried(model)
    return _KNOWN[model]


@torch.no_grad()
def _tried(model: Model) -> bool:
    """Tell whether values before a position stay as they are when the tokens from there on are others."""
    named = model.circuit.inputs
    size = vocabulary(model, "input_ids") if "input_ids" in named else None
    if size is None or size < 2 or set(named) - {"input_ids", "attention_mask", "position_ids"}:
        return False
    fixed = [axis.size for axis in named["input_ids"].dims if axis.name == "query"]
    length = next((one for one in fixed if isinstance(one, int)), min(_LENGTH, model.context or _LENGTH))
    if length < 2:
        return False
    draw = torch.Generator().manual_seed(0)
    one, two = (torch.randint(0, size, (2, length), generator=draw) for _ in range(2))
    two = torch.where(two == one, (one + 1) % size, two)
    plain = _values(model, one)
    for cut in dict.fromkeys((1, length // 2, length - 1)):
        places = torch.arange(length)
        other = _values(model, torch.where(places < cut, one, two))
        if not all(_same(plain[node], other[node], cut) for node in plain):
            return False
    return True


def _values(model: Model, ids: torch.Tensor) -> Mapping[Node, Array]:
    """Return every named value with positions on a path to the result."""
    inputs = prepare(model, {"input_ids": ids})
    assert padding(inputs) is not None
    read = set(model.circuit.nodes)
    wanted = [*model.circuit.roots.values(), *(node for node in model.circuit.table.values() if node in read)]
    nodes = [node for node in dict.fromkeys(wanted) if "query" in node.axis_names and node.operands]
    sizes = input_sizes(list(model.circuit.inputs.values()), inputs)
    return compute(nodes, inputs, model.stores, dtype=model.dtype, device=model.device, sizes=sizes).values


def _same(one: Array, two: Array, until: int) -> bool:
    """Tell whether two values agree, to rounding, at the positions before one; infinities must agree too."""
    order = ("query", *(name for name in one.names if name != "query"))
    first, second = (torch.as_tensor(item.laid(order))[:until] for item in (one, two))
    if not first.is_floating_point():
        return torch.equal(first, second)
    finite = first[first.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 1.0
    return torch.allclose(
        first, second, rtol=0, atol=100 * torch.finfo(first.dtype).eps * max(scale, 1e-30), equal_nan=True
    )
