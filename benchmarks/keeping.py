"""What the row `keep` compares: the kept values themselves, and the bytes that a rehearsal foretells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tools import Tool

import scrubjay as sj
from scrubjay.engine.compute import compute
from scrubjay.engine.evaluate import input_sizes
from scrubjay.interventions.inputs import prepare

CLOSE = 2e-4


def planned_bytes(model: sj.Model, sites: Sequence[str], ids: torch.Tensor) -> int:
    """Return the bytes that a run's kept values and its result will hold, by a rehearsal on values without numbers."""
    inputs = prepare(model, ids)
    asked = list(dict.fromkeys([model.circuit.roots[model.anatomy.result], *(model.node(one) for text in sites for one in model.addresses(text))]))  # fmt: skip
    sizes = input_sizes(list(model.circuit.inputs.values()), inputs)
    return compute(asked, inputs, model.stores, dtype=model.dtype, device="meta", sizes=sizes, across=True).work.kept_bytes  # fmt: skip


def canonical(made: sj.Run, site: str, layer: int) -> torch.Tensor:
    """Return a kept value as (batch, position, ...), a pattern as (batch, head, query, key)."""
    text = f"L{layer}.attn.{site}" if site in {"q", "k", "v", "pattern", "z"} else f"L{layer}.{site}"
    value = made[text]
    order = ("batch", "head", "query", "key") if site == "pattern" else ("batch", "query", *(name for name in value.names if name not in {"batch", "query"}))  # fmt: skip
    return value.as_tensor().permute([value.names.index(name) for name in order])


def kept_alike(made: sj.Run, tools: Sequence[Tool], request: Mapping[str, Any]) -> list[str]:
    """Return remarks on the bytes that tools hold; stop where a value is not ours."""
    notes, furthest = list[str](), 0.0
    for tool in tools:
        tool.ask(request)
        found = tool.ask(request)
        if "samples" not in found:
            raise SystemExit(f"{tool.title}: {found}; the end of its log is in {tool.log}")
        for name, theirs in found["samples"].items():
            site, layer = name.split()
            flat = canonical(made, site, int(layer)).float().flatten().cpu()
            places = torch.linspace(0, len(flat) - 1, min(64, len(flat))).long()
            far = float(np.abs(flat[places].numpy() - np.array(theirs)).max())
            if not far < CLOSE * max(1.0, float(flat.abs().max())):
                raise SystemExit(f"{tool.title} and Scrubjay differ by {far:.1e} at {name}: no time is worth printing")
            furthest = max(furthest, far)
        notes.append(f"{tool.title} holds {found['bytes'] / 1e6:.0f} MB for the same values (logits not counted)")
    return [f"same values, to {furthest:.0e}", *notes] if tools else []
