"""The model of a tour together with the module it was captured from, so that one can be checked against the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike

import torch

from scrubjay.capture import hub
from scrubjay.capture.model import Model
from scrubjay.reporting.check import Forward
from scrubjay.zoo import read
from scrubjay.zoo.load import load


@dataclass(frozen=True, eq=False)
class Pair:
    """A captured model, the module's own computation, and the model's task in the zoo, if it has one."""

    model: Model
    forward: Forward
    task: str | None


def open_pair(source: str | PathLike[str]) -> Pair:
    """Return a model of the zoo, of a local folder or of a hub name, with its module.

    Raises `LoadError` where there is none.
    """
    name = str(source)
    if name.startswith("zoo/"):
        module, card = read(name.removeprefix("zoo/"))
        return Pair(load(module, name=name), lambda inputs: module(**inputs), str(card["data"]["task"]))
    opened = hub.open_source(source)
    model = load(opened.module, tokenizer=opened.tokenizer, name=opened.name)

    def forward(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return opened.signature.pick(opened.module(**inputs, **opened.signature.fixed))

    return Pair(model, forward, None)
