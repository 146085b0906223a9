"""Checks of a captured model against what it was captured from, each with the number it rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from scrubjay.capture.model import Model
from scrubjay.interventions import run
from scrubjay.interventions.inputs import prepare

Forward = Callable[[Mapping[str, torch.Tensor]], torch.Tensor]


@dataclass(frozen=True)
class Check:
    """One check: it holds where `error` (in the unit `words` names) is at most `limit`; `None` where it does not apply."""

    name: str
    error: float | None
    limit: float
    words: str

    @property
    def holds(self) -> bool | None:
        """Whether the check holds; `None` where it does not apply to this model."""
        return None if self.error is None else bool(self.error <= self.limit)

    def to_dict(self) -> dict[str, object]:
        """Return the check as plain values, ready for JSON."""
        return {
            "name": self.name,
            "error": self.error,
            "limit": self.limit,
            "holds": self.holds,
            "words": self.words,
        }


def check_model(model: Model, forward: Forward, batches: Sequence[Mapping[str, torch.Tensor]]) -> tuple[Check, ...]:
    """Return the checks of a model on batches of its inputs.

    Args:
        model: the captured model.
        forward: the module itself: from named inputs to its result, in the order `sj.run(...).output` has.
        batches: inputs by name; padded rows are compared at their real positions.
    """
    prepared = [prepare(model, dict(batch)) for batch in batches]
    return (
        logits_agree(model, forward, prepared),
        stream_adds_up(model, prepared),
        heads_add_up(model, prepared),
        attention_sums_to_one(model, prepared),
    )


def real_positions(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """Return the mask (batch, query) of real tokens, if the inputs tell."""
    mask = inputs.get("attention_mask")
    if mask is not None:
        return mask.ne(0)
    ids = inputs.get("input_ids")
    return None if ids is None or ids.dim() != 2 else torch.ones_like(ids, dtype=torch.bool)


def _precision(value: torch.Tensor) -> float:
    return 100 * float(torch.finfo(value.dtype).eps)


def logits_agree(model: Model, forward: Forward, batches: Sequence[Mapping[str, torch.Tensor]]) -> Check:
    """Return whether the circuit's result is the module's own, relative to the largest result."""
    worst, limit, rows, padded = 0.0, 0.0, 0, 0
    for inputs in batches:
        with torch.no_grad():
            theirs = forward(inputs)
        ours = run(model, inputs).output
        real = real_positions(inputs)
        if real is not None and ours.dim() == 3 and ours.shape[:2] == real.shape:
            ours, theirs = ours[real], theirs[real]
        rows += len(next(iter(inputs.values())))
        padded += 0 if real is None else int((~real.all(1)).sum())
        scale = float(theirs.abs().max()) or 1.0
        worst = max(worst, float((ours - theirs).abs().max()) / scale)
        limit = _precision(theirs)
    many = f"{rows} fresh rows, {padded} of them padded"
    words = (
        f"largest difference between the circuit's and the module's own result, relative to the largest result ({many})"
    )
    return Check("The circuit is the module", worst, limit, words)


_WRITES = ("attn.out", "cross.out", "mixer.out", "mlp.out")


def stream_adds_up(model: Model, batches: Sequence[Mapping[str, torch.Tensor]]) -> Check:
    """Return whether the stream after each layer is the stream before it plus what attention and MLP write."""
    name = "The residual stream adds up"
    words = "largest difference between the stream and the sum of what was written to it, relative to the stream"
    table = model.circuit.table
    wanted = [
        f"L{layer}.{site}"
        for layer in range(model.layers)
        for site in ("resid_pre", *_WRITES, "resid_post")
        if f"L{layer}.{site}" in table
    ]
    if not model.layers:
        return Check(name, None, 0.0, "no layers were recognised in this model")
    if not model.anatomy.additive:
        return Check(
            name, None, 0.0, "norms follow the sums in this model, so the stream is not a sum of what is written"
        )
    worst, limit = 0.0, 0.0
    for inputs in batches:
        kept = run(model, inputs, keep=wanted)
        values = {site: kept.values[site].as_tensor() for site in wanted}
        for layer in range(model.layers):
            after = values[f"L{layer}.resid_post"]
            parts = [values[f"L{layer}.{site}"] for site in ("resid_pre", *_WRITES) if f"L{layer}.{site}" in values]
            gap = (torch.stack([part.expand_as(after) for part in parts]).sum(0) - after).abs()
            worst = max(worst, float(gap.max()) / (float(after.abs().max()) or 1.0))
            limit = _precision(after)
    return Check(name, worst, limit, words)


def heads_add_up(model: Model, batches: Sequence[Mapping[str, torch.Tensor]]) -> Check:
    """Return whether attention's output projection gives the sum of its heads' shares and one constant, its bias."""
    name = "Heads add up to attention"
    layers = [layer for layer in range(model.layers) if "H.out" in model.anatomy.shape.layers[layer].sites]
    if not layers:
        return Check(name, None, 0.0, "no output projection was recognised in this model")
    worst, limit = 0.0, 0.0
    for layer in layers:
        heads = [f"L{layer}.H{head}.out" for head in range(model.heads[layer])]
        bias: torch.Tensor | None = None
        for inputs in batches:
            kept = run(model, inputs, keep=[*heads, f"L{layer}.attn.o"])
            whole = kept.values[f"L{layer}.attn.o"].as_tensor()
            left = whole - torch.stack([kept.values[head].as_tensor() for head in heads]).sum(0)
            bias = left[0, 0] if bias is None else bias
            worst = max(worst, float((left - bias).abs().max()) / (float(whole.abs().max()) or 1.0))
            limit = _precision(whole)
    words = "how far attention's output less its heads' shares is from one constant (its bias), relative to the output"
    return Check(name, worst, limit, words)


def attention_sums_to_one(model: Model, batches: Sequence[Mapping[str, torch.Tensor]]) -> Check:
    """Return whether every row of attention weights sums to one, at real positions."""
    name = "Attention rows sum to one"
    wanted = [
        f"L{number}.attn.pattern"
        for number, layer in enumerate(model.anatomy.layers)
        if f"L{number}.attn.pattern" in model.circuit.table and not layer.sinks
    ]
    if not wanted:
        return Check(name, None, 0.0, "no attention was recognised in this model")
    worst, limit, rows = 0.0, 0.0, 0
    for inputs in batches:
        real = real_positions(inputs)
        for site in wanted:
            found = run(model, inputs, keep=[site]).values[site]
            sums = found.as_tensor().sum(found.names.index("key"))  # (batch, head, query)
            gap = (sums - 1).abs()
            if real is not None and sums.shape[-1] == real.shape[1]:
                gap = gap.masked_fill(~real[:, None, :], 0.0)
            worst, limit = max(worst, float(gap.max())), _precision(sums)
            rows += gap.numel()
    return Check(name, worst, limit, f"largest distance of a row's sum from 1 ({rows} rows of weights)")
