"""How nnsight loads a saved model: through a transformers pipeline, or around a module.

nnsight has no names of its own for the parts of a model: a site is read at the path of the module that shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nnsight import NNsight, TransformersModel
from worker import Access, Saved, Way

DISTRIBUTION = "nnsight"
SERVED = {"input": "E_input", "output": "E_output"}
"""Its names for submodules whose own names it serves values under."""


def from_folder(saved: Saved) -> Access:
    task = "fill-mask" if saved.masked else "text-generation"
    model = TransformersModel(str(saved.folder), task=task, attn_implementation="eager", dispatch=True)
    model._module.eval()
    return access(model, saved)


def around_module(saved: Saved) -> Access:
    """The base class: any module, no tokenizer."""
    return access(NNsight(saved.module()), saved)


def access(model: Any, saved: Saved) -> Access:
    def logits(batch: dict[str, Any]) -> Any:
        with model.trace(**batch):
            made = model.output.save()
        return made["logits"] if "logits" in made else made["last_hidden_state"]

    def site(path: str, end: str, index: int | None) -> Callable[[dict[str, Any]], Any]:
        def read(batch: dict[str, Any]) -> Any:
            envoy = model.get(".".join(SERVED.get(part, part) for part in path.split(".")))
            with model.trace(**batch):
                value = envoy.input if end == "input" else envoy.output
                made = (value if index is None else value[index]).save()
            return made  # noqa: RET504 - a trace's value exists after its block

        return read

    return Access(logits, {name: site(*where) for name, where in saved.paths.items()}, named=False)


VARIANTS: dict[str, list[Way]] = {
    "nnsight": [
        ('TransformersModel(folder, task=, attn_implementation="eager")', from_folder),
        ("NNsight(module)", around_module),
    ]
}
