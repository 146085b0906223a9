"""`sj.load`: everything `scrubjay.capture.load` reads, and the zoo's own models by `zoo/NAME`."""

from __future__ import annotations

from os import PathLike
from typing import Any

import torch
from torch import nn

from scrubjay.capture import load as capture
from scrubjay.capture.model import Model
from scrubjay.errors import AddressError, InputError, LoadError
from scrubjay.zoo.store import read
from scrubjay.zoo.tokenizer import TOKENIZERS
from scrubjay.zoo.transformer import Transformer


def load(source: nn.Module | str | PathLike[str], **options: Any) -> Model:
    """Return a model from a torch module, a local folder, a hub name, or `zoo/NAME`.

    The options are those of `scrubjay.capture.load.load`: `inputs`, `dynamic`, `output`, `length`, `tokenizer`, `dtype`, `device`,
    `name`, `cache`, `revision`, `trust_remote_code`.

    >>> model = load("zoo/brackets")
    >>> model.layers, model.heads
    (3, (2, 2, 2))
    """
    if isinstance(source, str) and source.startswith("zoo/"):
        if taken := {"inputs", "dynamic", "output", "length", "revision", "trust_remote_code"} & set(options):
            raise InputError(f"{source} knows its own inputs: leave out {', '.join(sorted(taken))}")
        name = source.removeprefix("zoo/")
        try:
            module, _ = read(name)
        except AddressError as error:
            raise LoadError(f"{source}: {error}") from error
        own: dict[str, Any] = {"name": source, "tokenizer": TOKENIZERS.get(name), **_inputs(module)}
        return capture.load(module, **{**own, **options})
    if isinstance(source, Transformer) and "inputs" not in options:
        return capture.load(source, **{**_inputs(source), **options})
    return capture.load(source, **options)


def _inputs(module: Transformer) -> dict[str, Any]:
    length = min(12, module.config.positions)
    ids = torch.zeros(2, length, dtype=torch.long)
    return {"inputs": {"input_ids": ids, "attention_mask": torch.ones_like(ids)}}
