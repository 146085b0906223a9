"""Direct contributions: what each head, MLP and embedding adds to a result by writing into the last residual stream.

After the final norm the result is an affine function of the stream once the norm's divisor is held at its value. So the
result is a sum over whatever was added to the stream, and of the biases behind it (direct logit attribution).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scrubjay.capture.model import Model
from scrubjay.engine.array import Array
from scrubjay.errors import InputError
from scrubjay.interventions import Run, run
from scrubjay.interventions.inputs import lengths, prepare
from scrubjay.reporting.variant import bare, components, tail

Contrast = Callable[[torch.Tensor], torch.Tensor]
ATTENTION_BIAS = "attention output biases"
FINAL_BIAS = "final norm and unembedding biases"


@dataclass(frozen=True, eq=False)
class Contributions:
    """What each part adds to one number of each row.

    Attributes:
        parts: names; addresses without their position, and two rows of biases.
        values: shape (row, part), float64.
        total: the number itself, from the model's result, shape (row,).
        linear: whether what follows the final norm is affine, so that the parts must add up to the total.
    """

    parts: tuple[str, ...]
    values: np.ndarray
    total: np.ndarray
    linear: bool

    @property
    def error(self) -> float:
        """The largest distance between the sum over parts and the total."""
        return float(np.abs(self.values.sum(1) - self.total).max())

    def mean(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean over the chosen rows and its standard error, each (part,)."""
        chosen = self.values[rows]
        if not len(chosen):
            raise InputError("a mean over no rows was asked for; choose at least one")
        spread = chosen.std(0, ddof=1) / np.sqrt(len(chosen)) if len(chosen) > 1 else np.full(len(self.parts), np.nan)
        return chosen.mean(0), spread


def contributions(model: Model, inputs: Any, contrast: Contrast, position: int) -> Contributions:
    """Return the direct contributions to `contrast(result)` through the stream at one position of each row.

    Args:
        model: a model whose stream is a sum (`model.anatomy.additive`).
        inputs: anything `sj.run` reads.
        contrast: from the result (batch, ...) to one number for each row; it must be linear, such as a difference of logits.
        position: where the result is read, counted from the first real token, negative from the last.

    The final norm's divisor is held at its value in each row. An MLP's output bias counts as the MLP's own.

    Raises `InputError` for a model whose stream is no sum or has no recognised layers.
    """
    parts = {tuple(sorted(layer.kinds)) for layer in model.anatomy.layers}
    if not model.anatomy.additive or not parts <= {("attn",), ("attn", "mlp")}:
        why = "norms follow the sums" if model.layers else "no layers were recognised"
        why = "layers have other parts than an attention and an MLP" if model.anatomy.additive else why
        raise InputError(
            f"direct contributions were asked for in {model.name}, where {why}: there is no sum to take apart"
        )
    tensors = prepare(model, inputs)
    whole = [f"L{layer}.attn.out" for layer in range(model.layers)]
    normed = "ln_f.normalized" in model.circuit.table
    last = f"L{model.layers - 1}.resid_post"
    parts = [name for name in ("embed", "pos_embed") if name in model.circuit.table]
    heads = list(components(model))
    read = [f"L0.resid_pre@{position}", f"{last}@{position}", *(f"{name}@{position}" for name in (*heads, *whole))]
    kept = run(model, tensors, keep=[*read, *parts, *(["ln_f.normalized"] if normed else [last])])
    slope, bias, total = _slope(model, kept, "ln_f.normalized" if normed else last, contrast, position)
    stream = _rows(kept, f"{last}@{position}")
    scale, centred = (
        _norm(kept, stream, position) if normed else (torch.ones(len(stream), 1, dtype=torch.float64), False)
    )

    def effect(written: torch.Tensor) -> np.ndarray:
        moved = written - written.mean(1, keepdim=True) if centred else written
        return (slope * moved / scale).sum(1).numpy()

    columns = _embeddings(model, kept, parts, position, effect)
    biases = np.zeros(len(stream))
    for layer in range(model.layers):
        biases += _layer(
            kept, layer, [name for name in heads if name.startswith(f"L{layer}.")], position, effect, columns
        )
    columns[ATTENTION_BIAS] = biases
    columns[FINAL_BIAS] = bias
    values = np.stack(list(columns.values()), 1)
    linear = bool(np.abs(values.sum(1) - total).max() <= 1e-3 * max(1.0, float(np.abs(total).max())))
    return Contributions(tuple(columns), values, total, linear)


def _rows(kept: Run, address: str) -> torch.Tensor:
    """Return a kept value at one position, (batch, model), in 64 bits."""
    return kept.values[address].as_tensor().to(torch.float64)


def _columns(inputs: Mapping[str, torch.Tensor], position: int) -> torch.Tensor:
    """Return the column of a position in each row, which padding may move."""
    count = lengths(inputs)
    if count is None:
        raise InputError("these inputs have no positions, so no position can be read")
    mask = inputs.get("attention_mask")
    first = mask.ne(0).int().argmax(1) if mask is not None else torch.zeros_like(count)
    return first + position if position >= 0 else first + count + position


def _at(value: Array, inputs: Mapping[str, torch.Tensor], position: int) -> torch.Tensor:
    """Return a value (batch, query, model) at one position of each row, (batch, model)."""
    column = _columns(inputs, position)
    tensor = torch.as_tensor(value.laid(("batch", "query", "model")))
    tensor = tensor.expand(len(column), *tensor.shape[1:])
    return tensor[torch.arange(len(column)), column].detach().to(torch.float64)


def _slope(
    model: Model, kept: Run, site: str, contrast: Contrast, position: int
) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Return the slope of the contrast by the value at `site` (batch, model), its value at zero, and its value, (batch,)."""
    node, value, inputs = model.circuit.table[site], kept.values[site], dict(kept.inputs)
    moving = Array(value.as_tensor().detach().clone().requires_grad_(), value.names)
    with torch.enable_grad():
        numbers = contrast(tail(model, node, moving, inputs))
        (slope,) = torch.autograd.grad(numbers.sum(), moving.as_tensor())
    with torch.no_grad():
        at_zero = contrast(tail(model, node, Array(torch.zeros_like(value.as_tensor()), value.names), inputs))
    plain = contrast(kept.output).detach().to(torch.float64).numpy()
    return _at(Array(slope, value.names), inputs, position), at_zero.to(torch.float64).numpy(), plain


def _norm(kept: Run, stream: torch.Tensor, position: int) -> tuple[torch.Tensor, bool]:
    """Return the final norm's divisor (batch, 1) and whether it takes the mean off first, both from its own values."""
    normalized = _at(kept.values["ln_f.normalized"], kept.inputs, position)
    centre = stream - stream.mean(1, keepdim=True)
    found = []
    for moved in (stream, centre):
        scale = (moved * moved).sum(1, keepdim=True) / (moved * normalized).sum(1, keepdim=True)
        found.append((scale, float((moved / scale - normalized).abs().max())))
    return (found[1][0], True) if found[1][1] < found[0][1] else (found[0][0], False)


def _embeddings(
    model: Model, kept: Run, names: list[str], position: int, effect: Callable[[torch.Tensor], np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the effects of the embeddings; what else begins the stream has a row of its own where there is any."""
    begin = _rows(kept, f"L0.resid_pre@{position}")
    values = {}
    for name in names:
        value = kept.values[name]
        if {"query", "model"} <= set(value.names):
            values[name] = _at(value, kept.inputs, position)
    made = {name: effect(value.expand_as(begin)) for name, value in values.items()}
    left = begin - sum(value for value in values.values()) if values else begin
    if float(left.abs().max()) > 1e-4 * (float(begin.abs().max()) or 1.0):
        made["rest of the embedding" if values else "L0.resid_pre"] = effect(left)
    return made


def _layer(
    kept: Run,
    layer: int,
    names: list[str],
    position: int,
    effect: Callable[[torch.Tensor], np.ndarray],
    columns: dict[str, np.ndarray],
) -> np.ndarray:
    """Add a layer's heads and MLP to `columns`; return the effect of its attention's output bias.

    Where attention's write is not the sum of its heads and a constant (a norm or factor lies between), it is one column.
    """
    whole = _rows(kept, f"L{layer}.attn.out@{position}")
    heads = [name for name in names if ".H" in name]
    left = whole - torch.stack([_rows(kept, f"{name}@{position}") for name in heads]).sum(0)
    bias = left.mean(0, keepdim=True)
    limit = 1e-4 * (float(whole.abs().max()) or 1.0)
    plain = float((left - bias).abs().max()) <= limit and (len(left) > 1 or _is_bias(kept, layer, left, limit))
    for name in [*heads, *(name for name in names if name not in heads)] if plain else names:
        if plain or name not in heads:
            columns[bare(name)] = effect(_rows(kept, f"{name}@{position}"))
        elif name == heads[0]:
            columns[f"L{layer}.attn.out"] = effect(whole)
    return effect(left) if plain else np.zeros(len(whole))


def _is_bias(kept: Run, layer: int, left: torch.Tensor, limit: float) -> bool:
    """Tell, from the other positions of a single row, whether what heads leave of attention's write is constant."""
    model = kept.model
    sites = [f"L{layer}.H{head}.out@0" for head in range(model.heads[layer])]
    again = run(model, kept.inputs, keep=[*sites, f"L{layer}.attn.out@0"])
    first = _rows(again, f"L{layer}.attn.out@0") - torch.stack([_rows(again, site) for site in sites]).sum(0)
    return float((first - left).abs().max()) <= limit
