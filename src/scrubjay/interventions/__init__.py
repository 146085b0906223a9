"""Running a model with values kept and changed: inputs, runs, interventions as values, edits."""

from scrubjay.interventions.apply import edit
from scrubjay.interventions.change import (
    Intervention,
    add,
    apply,
    mean,
    patch,
    project_out,
    replace,
    resample,
    splice,
    zero,
)
from scrubjay.interventions.run import Run, run

__all__ = [
    "Intervention",
    "Run",
    "add",
    "apply",
    "edit",
    "mean",
    "patch",
    "project_out",
    "replace",
    "resample",
    "run",
    "splice",
    "zero",
]
