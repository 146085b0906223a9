"""Load a model from wherever it is: a module in hand, a local folder, a hub name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scrubjay.capture import cache as disk
from scrubjay.capture import hub
from scrubjay.capture.export import Captured, Signature, capture, store_of
from scrubjay.capture.model import Model
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.ops import Gather, Narrow
from scrubjay.circuit.recognisers import recognise
from scrubjay.errors import InputError, LoadError

SOURCE = "model"
"""The name of a model's own store of weights."""


def load(
    source: nn.Module | str | PathLike[str],
    *,
    inputs: Mapping[str, torch.Tensor] | None = None,
    dynamic: Mapping[str, tuple[str | None, ...]] | None = None,
    output: Callable[[Any], torch.Tensor] | str | int | None = None,
    tokenizer: Any = None,
    dtype: torch.dtype | str | None = None,
    device: str | None = None,
    name: str | None = None,
    revision: str | None = None,
    cache: Path | str | bool | None = True,
) -> Model:
    """Return a model whose computation is a circuit with named sites.

    Args:
        source: a torch module in evaluation mode, a local Hugging Face folder, or a hub name.
        inputs: for a module that is not from transformers: example tensors by the names of `forward`'s arguments.
        dynamic: which dimensions of each input may vary, by axis name: `{"input_ids": ("batch", "query")}` (the default for
            2-dimensional integer inputs); `None` for a dimension that is fixed.
        output: what to read off the result: an attribute, a key, a place in a tuple, or a function. Default: the result.
        tokenizer: used instead of the source's own.
        dtype: the floating type to run in; as stored if not given.
        device: where to run; where the weights are if not given.
        name: what to call the model.
        revision: the branch or commit of a hub model.
        cache: the folder for captured circuits; `True` for the user's cache folder, `None` or `False` for none.

    The module is not changed, its weights are neither copied nor needed for the capture, and a later change of its weights
    is seen by the model. Raises `LoadError` or `CaptureError`, saying what to do.
    """
    wanted = _dtype(dtype)
    folder = None if cache is None or cache is False else disk.default_folder() if cache is True else Path(cache)
    if isinstance(source, nn.Module):
        if hub.is_pretrained(source):
            if inputs is not None or dynamic is not None:
                raise InputError("a transformers model knows its own inputs: leave out inputs= and dynamic=")
            opened = hub.describe(source)
        else:
            opened = hub.Opened(
                source, signature_of(source, inputs, dynamic, output), type(source).__name__, None, None, {}
            )
    elif isinstance(source, str | PathLike):
        opened = hub.open_source(source, dtype=wanted, device=device, revision=revision, tokenizer=tokenizer)
    else:
        raise LoadError(
            f"cannot load a {type(source).__name__}: give a torch module, a folder, a hub name, or zoo/NAME"
        )
    captured = (
        disk.cached(opened.module, opened.signature, folder, opened.facts)
        if folder is not None
        else capture(opened.module, opened.signature, SOURCE)
    )
    return assemble(captured, opened, tokenizer=tokenizer, dtype=wanted, device=device, name=name)


def assemble(
    captured: Captured,
    opened: hub.Opened,
    *,
    tokenizer: Any,
    dtype: torch.dtype | None,
    device: str | None,
    name: str | None,
) -> Model:
    """Return the model of a captured circuit: sites recognised, weights attached."""
    circuit, anatomy = recognise(captured.circuit)
    found = (opened.context, captured.limits.get("query"), _table_positions(circuit))
    limits = [limit for limit in found if limit is not None]
    return Model(
        name or opened.name,
        circuit,
        anatomy,
        {SOURCE: store_of(opened.module, captured.constants)},
        tokenizer if tokenizer is not None else opened.tokenizer,
        min(limits) if limits else None,
        dtype,
        device,
    )


def _table_positions(circuit: Circuit) -> int | None:
    """Return the number of rows of a table of learned positions, if the model has one."""
    node = circuit.table.get("pos_embed")
    while node is not None and node.operands:
        if isinstance(node, Gather | Narrow):
            size = node.source.size(node.axis)
            return size if isinstance(size, int) else None
        node = node.operands[0]
    return None


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if isinstance(dtype, str):
        found = getattr(torch, dtype, None)
        if not isinstance(found, torch.dtype) or not found.is_floating_point:
            raise InputError(f"dtype={dtype!r} is not a floating type: use float32, float64, bfloat16 or float16")
        return found
    return dtype


def signature_of(
    module: nn.Module,
    inputs: Mapping[str, torch.Tensor] | None,
    dynamic: Mapping[str, tuple[str | None, ...]] | None,
    output: Callable[[Any], torch.Tensor] | str | int | None,
) -> Signature:
    """Return how a module that is not from transformers is called."""
    if inputs is None:
        raise InputError(
            f"{type(module).__name__} is not a transformers model: give example tensors by argument name, "
            "such as inputs={'input_ids': torch.zeros(2, 12, dtype=torch.long)}"
        )
    axes: dict[str, tuple[str | None, ...]] = {}
    for key, tensor in inputs.items():
        given = (dynamic or {}).get(key)
        if given is None:
            given = (
                ("batch", "query")
                if dynamic is None and tensor.dim() == 2 and not tensor.is_floating_point()
                else (None,) * tensor.dim()
            )
        if len(given) != tensor.dim():
            raise InputError(
                f"dynamic[{key!r}] names {len(given)} dimensions; the example has {tensor.dim()}: {tuple(tensor.shape)}"
            )
        axes[key] = given
    if unknown := set(dynamic or {}) - set(inputs):
        raise InputError(f"dynamic names {sorted(unknown)}, which inputs lacks; inputs: {', '.join(inputs)}")
    tokens = any(set(names) >= {"query"} for names in axes.values())
    return Signature(dict(inputs), axes, _picker(output), result="logits" if tokens else "output")


def _picker(output: Callable[[Any], torch.Tensor] | str | int | None) -> Callable[[Any], torch.Tensor]:
    if output is None:
        return lambda result: result
    if callable(output):
        return output

    def pick(result: Any) -> torch.Tensor:
        return (
            getattr(result, output) if isinstance(output, str) and not isinstance(result, Mapping) else result[output]
        )

    return pick
