"""Evaluation at speed: the reference evaluator on the fused form of what is asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from weakref import WeakKeyDictionary

import torch

from scrubjay.circuit.node import Node
from scrubjay.engine.array import Array
from scrubjay.engine.context import Payload, Store
from scrubjay.engine.evaluate import Evaluated, evaluate
from scrubjay.engine.fusing import fuse

MOST = 8
"""How many fused forms are remembered for each model; the one used longest ago goes first."""
_Forms = OrderedDict[tuple[tuple[Node, ...], bool], Mapping[Node, Node]]
_FORMS: WeakKeyDictionary[Store, _Forms] = WeakKeyDictionary()
_LOCK = Lock()


def compute(
    nodes: Sequence[Node],
    inputs: Mapping[str, torch.Tensor],
    stores: Mapping[str, Store],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    known: Mapping[Node, Array] | None = None,
    progress: Callable[[int, int], None] | None = None,
    differentiable: bool = False,
    sizes: Mapping[str, int] | None = None,
    across: bool = True,
) -> Evaluated:
    """Return the values of `nodes`, equal to those of `evaluate` to rounding: activations, norms, linear maps and attention fused.

    Arguments and errors are those of `evaluate`. Nothing that is asked for lies inside a fused pattern. Without `across` only what
    has no value of interest inside is fused (linear maps, activations), so that asking for a value changes no bit of the others.
    """
    made = fuse(nodes, stop=known, across=across) if known else _form(nodes, stores, across)
    done = evaluate(
        [made[node] for node in nodes], inputs, stores, dtype=dtype, device=device, known=known, progress=progress,
        differentiable=differentiable, sizes=sizes,
    )  # fmt: skip
    return replace(done, values={node: done.values[made[node]] for node in nodes})


def _form(nodes: Sequence[Node], stores: Mapping[str, Store], across: bool) -> Mapping[Node, Node]:
    """Return what nodes become with patterns fused; as found before, where it was for the same nodes, and as long as the model lives."""
    owner = next((store for store in stores.values() if not isinstance(store, Payload)), None)
    if owner is None:
        return fuse(nodes, across=across)
    key = (tuple(nodes), across)
    with _LOCK:
        forms = _FORMS.setdefault(owner, OrderedDict())
        if key in forms:
            forms.move_to_end(key)
            return forms[key]
    made = fuse(nodes, across=across)
    with _LOCK:
        forms[key] = made
        while len(forms) > MOST:
            forms.popitem(last=False)
    return made
