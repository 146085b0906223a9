"""Interventions as values: what to change, where. Nothing happens until a run or an edit applies them.

An address may have wildcards, ranges and positions; the change is made at every place it names. Interventions apply in the
order given, each to the values as the earlier ones left them; values of other inputs (`mean`, `resample`, `patch`) are those of the
model as it was given, under none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from scrubjay.errors import InputError

ERRORS = ("drop", "add", "freeze")
"""What may become of what a spliced module leaves out."""


@dataclass(frozen=True, eq=False)
class Intervention:
    """A change of kind `kind` at the address `at`; `options` hold what the kind needs."""

    kind: str
    at: str
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    def __repr__(self) -> str:
        """Say what is changed, where."""
        return f"<{self.kind} {self.at}>"


def zero(at: str) -> Intervention:
    """Return the change of a value to zero.

    >>> zero("L0.H1.z@-1")
    <zero L0.H1.z@-1>
    """
    return Intervention("zero", at)


def mean(at: str, over: Any, by: str = "position") -> Intervention:
    """Return the change of a value to its mean over the rows of `over` (anything `sj.run` reads).

    `by="position"` takes the mean of each position, counted from a row's first real token; `by="all"` one mean over all
    positions. Padding never counts. A row longer than every row of `over` is an error.
    """
    if by not in {"position", "all"}:
        raise InputError(f"mean(by={by!r}): use 'position' or 'all'")
    return Intervention("mean", at, {"over": over, "by": by})


def resample(at: str, over: Any, seed: int = 0) -> Intervention:
    """Return the change of a value, in each row of the run, to that of a row of `over` drawn by `seed` (with replacement).

    Positions correspond as counted from the first real token; only rows at least as long as the run's longest are drawn.
    """
    return Intervention("resample", at, {"over": over, "seed": seed})


def patch(at: str, from_: Any) -> Intervention:
    """Return the change of a value to the one it has on other inputs: a `Run` that kept it, or inputs to run.

    Rows correspond one to one, or one row serves all. Positions correspond as the address counts them (`@2`, `@-3..-1`);
    without one, as counted from the first real token, and rows that correspond must have as many real tokens as each other,
    however they are padded (in `sj.edit`, where the rows are not known yet, no more than the row to patch from). Values
    between two positions (patterns) need rows that are padded alike.
    """
    return Intervention("patch", at, {"from": from_})


def replace(at: str, value: torch.Tensor | float) -> Intervention:
    """Return the change of a value to a number or tensor.

    A tensor's dimensions are matched to the value's own, as `run[at]` shows them, from the last one backwards; at a position
    (`"L3.resid_post@-1"`) those are (batch, model).
    """
    return Intervention("replace", at, {"value": value})


def add(at: str, vector: torch.Tensor | float, scale: float = 1.0) -> Intervention:
    """Return the addition of `scale * vector` to a value (steering)."""
    return Intervention("add", at, {"value": vector, "scale": scale})


def project_out(at: str, directions: torch.Tensor) -> Intervention:
    """Return the removal of a value's component in the span of `directions` ((d,) or (n, d)), along its last axis."""
    return Intervention("project_out", at, {"directions": directions})


def apply(at: str, function: Callable[[torch.Tensor], torch.Tensor]) -> Intervention:
    """Return the change of a value to `function(value)`; the tensor is laid out as `run[at].names` says, the shape must stay."""
    return Intervention("apply", at, {"function": function})


def splice(at: str, module: torch.nn.Module, error: str = "drop") -> Intervention:
    """Return the change of a value to what a torch module makes of it (a probe's direction, an autoencoder's reconstruction).

    What the module leaves out, the value minus `module(value)`, is the value at `<at>.error` (`L3.resid_post.error`), to keep or, where it is
    added, to change by a later intervention. `error` says what becomes of it:

    - `"drop"`: nothing; the value is the module's output;
    - `"add"`: it is added again, as a number of its own: the value is what it was, and gradients go through the module alone;
    - `"freeze"`: the error of the same rows without any intervention is added, whatever earlier ones do to the value (in `sj.run` only).

    A differentiable run carries gradients to the module's parameters.
    """
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"splice takes a torch module, not {type(module).__name__}; for a function use apply")
    if error not in ERRORS:
        raise InputError(f"splice(error={error!r}): use {', '.join(map(repr, ERRORS))}")
    return Intervention("splice", at, {"module": module, "error": error})
