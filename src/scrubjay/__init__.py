"""Scrubjay: take a trained transformer apart, say how it works, and put that claim to a test that can fail.

Names are imported when first used, so that `import scrubjay` is quick and loads neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scrubjay.capture.model import Model as Model
    from scrubjay.claims.data import Dataset as Dataset
    from scrubjay.claims.data import Feature as Feature
    from scrubjay.claims.hypothesis import Hypothesis as Hypothesis
    from scrubjay.claims.task import Task as Task
    from scrubjay.interventions import Effects as Effects
    from scrubjay.interventions import Run as Run
    from scrubjay.interventions import add as add
    from scrubjay.interventions import apply as apply
    from scrubjay.interventions import edge_patch as edge_patch
    from scrubjay.interventions import edit as edit
    from scrubjay.interventions import mean as mean
    from scrubjay.interventions import pair as pair
    from scrubjay.interventions import patch as patch
    from scrubjay.interventions import path_patch as path_patch
    from scrubjay.interventions import project_out as project_out
    from scrubjay.interventions import replace as replace
    from scrubjay.interventions import resample as resample
    from scrubjay.interventions import run as run
    from scrubjay.interventions import splice as splice
    from scrubjay.interventions import sweep as sweep
    from scrubjay.interventions import zero as zero
    from scrubjay.reporting import report as report
    from scrubjay.scrubbing import ScrubResult as ScrubResult
    from scrubjay.scrubbing import scrub as scrub
    from scrubjay.tasks import task as task
    from scrubjay.zoo.load import load as load

__version__ = "0.1.0"

_HOMES = {
    "Model": "scrubjay.capture.model",
    "Dataset": "scrubjay.claims.data",
    "Feature": "scrubjay.claims.data",
    "Hypothesis": "scrubjay.claims.hypothesis",
    "Task": "scrubjay.claims.task",
    **dict.fromkeys(
        (
            *(
                "Effects",
                "Run",
                "add",
                "apply",
                "edge_patch",
                "edit",
                "mean",
                "pair",
                "patch",
                "path_patch",
                "project_out",
                "replace",
            ),
            *("resample", "run", "splice", "sweep", "zero"),
        ),
        "scrubjay.interventions",
    ),
    "report": "scrubjay.reporting",
    "ScrubResult": "scrubjay.scrubbing",
    "scrub": "scrubjay.scrubbing",
    "task": "scrubjay.tasks",
    "load": "scrubjay.zoo.load",
}

_MODULES = {
    "errors": "scrubjay.errors",
    "match": "scrubjay.circuit.match",
    "tasks": "scrubjay.tasks",
    "zoo": "scrubjay.zoo",
}

__all__ = [
    "Dataset", "Effects", "Feature", "Hypothesis", "Model", "Run", "ScrubResult", "Task", "add", "apply", "edge_patch", "edit", "load", "mean",
    "pair", "patch", "path_patch", "project_out", "replace", "report", "resample", "run", "scrub", "splice", "sweep", "task", "zero",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name not in _HOMES:
        raise AttributeError(f"scrubjay has no {name!r}; it has {', '.join(__all__)}")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def load_ipython_extension(shell: Any) -> None:
    """Let runs, scrub results and hypotheses draw themselves in a notebook: `%load_ext scrubjay`."""
    import_module("scrubjay.reporting.notebook").register(shell)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*__all__, "__version__"])
