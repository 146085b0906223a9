"""What an experiment is told apart by: fingerprints of a model as it is, edits included, that another process finds too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from scrubjay.capture.model import Model
from scrubjay.capture.store import digest_of
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.fingerprint import fingerprint
from scrubjay.circuit.graph import rebuild
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Custom, Weight
from scrubjay.claims.task import Task
from scrubjay.engine.context import Payload
from scrubjay.evidence.digest import digest_json


def identity(model: Model, nodes: Mapping[str, Node] | None = None) -> dict[str, Any]:
    """Return the fingerprint of what a model computes (of some nodes of it, by name; of its results when not given), ready for JSON.

    `circuit`: of the expressions; `added`: of the tensors and functions that interventions brought along;
    `functions`: the names of those functions that have no fingerprint, so that whether they are the same cannot be told.
    """
    sources = [name for name, store in model.stores.items() if isinstance(store, Payload)]
    renamed = {name: f"added-{number}" for number, name in enumerate(sources)}
    tensors: dict[str, str] = {}
    functions: dict[str, str] = {}
    named = dict(model.circuit.roots) if nodes is None else dict(nodes)

    def neutral(node: Node, operands: tuple[Node, ...]) -> Node:
        here = node.with_operands(operands)
        if isinstance(here, Weight) and here.source in renamed:
            name = f"{renamed[here.source]}.{here.name}"
            tensors[name] = digest_of(model.stores[here.source].tensor(here.name).detach())
            return Weight(renamed[here.source], here.name, here.dims, here.dtype)
        if isinstance(here, Custom) and here.source in renamed:
            store = model.stores[here.source]
            assert isinstance(store, Payload)
            functions[f"{renamed[here.source]}.{here.name}"] = function_name(store.functions[here.name])
            return Custom(renamed[here.source], here.name, here.operand, here.layout)
        return here

    made = rebuild(list(named.values()), neutral)
    return {
        "circuit": fingerprint(Circuit({name: made[node] for name, node in named.items()})),
        "added": digest_json([tensors, functions]),
        "functions": [text for text in functions.values() if not text.startswith("sha256:")],
    }


def experiment(model: Model, task: Task, direction: str, metric: str, at: str) -> dict[str, Any]:
    """Return what every experiment on pairs depends on, ready for JSON."""
    dtype = str(model.dtype).removeprefix("torch.") if model.dtype else "as stored"
    told = {"task": task.digest, "direction": direction, "metric": metric, "at": at}
    return {"model": model.name, "weights": model.digest, **identity(model), "dtype": dtype, **told}


def function_name(value: Any) -> str:
    """Return the fingerprint of a function, where it is a module or has nothing inside; else its name."""
    if isinstance(value, torch.nn.Module):
        return digest_json([repr(value), {name: digest_of(one) for name, one in value.state_dict().items()}])
    if value is torch.Tensor.detach:
        return digest_json("detach")
    return str(getattr(value, "__qualname__", type(value).__name__))
