"""How pyvene wraps a saved model: by its own names of components, or by the path of a module.

Logits are those of a run in which it collects activations and changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pyvene
from worker import Access, Saved, Way

DISTRIBUTION = "pyvene"
SITES = {"resid": "block_output", "pattern": "attention_weight", "z": "attention_value_output"}


def named(saved: Saved) -> Access:
    """The documented way: a layer and a component, which pyvene looks up by the class of the model."""

    def component(name: str) -> list[dict[str, Any]]:
        return [{"layer": 0, "component": name, "intervention_type": pyvene.CollectIntervention}]

    return access(saved, {site: component(name) for site, name in SITES.items()}, named=True)


def by_path(saved: Saved) -> Access:
    """The way for a class that it does not know: the path of a module, and an intervention that is already made."""

    def component(path: str, end: str) -> list[dict[str, Any]]:
        bracketed = re.sub(r"[.](\d+)", r"[\1]", path)
        return [{"component": f"{bracketed}.{end}", "intervention": pyvene.CollectIntervention()}]

    # Of a module that returns several values pyvene takes the first.
    first = {site: (path, end) for site, (path, end, index) in saved.paths.items() if index in (None, 0)}
    return access(saved, {site: component(*where) for site, where in first.items()}, named=False)


def access(saved: Saved, components: dict[str, list[dict[str, Any]]], *, named: bool) -> Access:
    module = saved.module()

    def collect(what: list[dict[str, Any]], batch: dict[str, Any]) -> Any:
        positions = list(range(batch["input_ids"].shape[1]))
        everywhere = None if what[0]["component"] == SITES["pattern"] else {"base": positions}
        sized = [each | {"max_number_of_units": len(positions)} for each in what]
        return pyvene.IntervenableModel(sized, model=module)(base=batch, unit_locations=everywhere, return_dict=True)

    def logits(batch: dict[str, Any]) -> Any:
        if not components:
            made, _ = pyvene.IntervenableModel([], model=module)(base=batch)
        else:
            made = collect(next(iter(components.values())), batch).intervened_outputs
        return made["logits"] if "logits" in made else made["last_hidden_state"]

    def site(what: list[dict[str, Any]]) -> Callable[[dict[str, Any]], Any]:
        def read(batch: dict[str, Any]) -> Any:
            import torch  # noqa: PLC0415

            return torch.stack(list(collect(what, batch).collected_activations))

        return read

    return Access(logits, {name: site(what) for name, what in components.items()}, named=named)


VARIANTS: dict[str, list[Way]] = {
    "pyvene": [
        ("IntervenableModel({layer, component})", named),
        ("IntervenableModel({component: module path})", by_path),
    ]
}
