"""Ablations: what a sweep puts in the place of a value, as values of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from scrubjay.engine.array import Array
from scrubjay.errors import InputError

Own = Callable[[Array], torch.Tensor]
OWN = "own"
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "resample": {"over": None, "by": "row", "labels": None, "seed": None, "table": None, "draws": 1},
    "zero": {},
    "mean": {"over": None, "by": "position", "labels": None},
    "noise": {"over": None, "scale": 3.0, "seed": 0, "draws": 1},
    "optimal": {"steps": 60, "rate": 0.1, "batch": None, "seed": 0},
    OWN: {"function": None},
}
"""The options of each kind, with what they are unless given."""
KINDS = tuple(kind for kind in _OPTIONS if kind != OWN)


@dataclass(frozen=True, eq=False)
class Ablation:
    """What a sweep puts in the place of a value: `sj.sweep(..., ablation=sj.Ablation("mean", by="template"))`.

    Attributes:
        kind: one of the kinds below; each takes the options that are named there.
        over: the reference set: a `Task` (of which the inputs that values are taken from) or anything `sj.run` reads; the task's own when not given.
        by: `"mean"`: `"position"` (counted from a row's first real token), `"all"` positions together, `"template"` (the task's clusters) and position, or
            a feature of the task and position. `"resample"`: `"row"`, or draw rows of the same `"template"` or feature only.
        labels: with `by="template"` or a feature, the label of each row of `over`, where `over` is no `Task` or `Dataset` that has it.
        seed: rows, noise or batches are drawn by it. table: (row,) or (draw, row): which row of `over` each row of the task takes its values from.
        draws: how many times is drawn; the table of the sweep has the mean of the metric over them.
        scale: standard deviations of the noise, in units of the site's own.
        steps: of gradient descent (Adam) on the constant. rate: the step size, in units of the site's own standard deviation.
        batch: how many rows, drawn by `seed`, each step looks at; all when not given.

    The kinds:

    - `"resample"`: the value on another input: of the same row of the pair (an interchange), or where `over`, `seed` or `table` is given of a row
      drawn from the reference set that has at least as many tokens. Options over, by, labels, seed, table, draws.
    - `"zero"`.
    - `"mean"`: the mean over the reference set; padding never counts. Options over, by, labels.
    - `"noise"`: the unpatched run's own value plus Gaussian noise of `scale` times the standard deviation of all the value's numbers over
      the reference set (Meng et al. 2022 at embeddings: scale 3). Options over, scale, seed, draws.
    - `"optimal"`: the constant, one for all rows and positions of a cell, that leaves the prediction most as it is (least KL divergence from the
      unpatched run at the position the metric is read at), from the mean on by gradient steps (Li and Janson 2024). The table's `facts["loss"]` says
      where descent began and ended, `constants` are what it found. Options steps, rate, batch, seed.

    Raises `InputError` for an unknown kind, an option of another kind, and impossible numbers.

    >>> Ablation("noise", seed=1)
    <Ablation noise: seed=1>
    """

    kind: str
    over: Any = None
    by: str | None = None
    labels: Any = None
    seed: int | None = None
    table: Any = None
    draws: int | None = None
    scale: float | None = None
    steps: int | None = None
    rate: float | None = None
    batch: int | None = None
    function: Own | None = None

    def __post_init__(self) -> None:
        if self.kind not in _OPTIONS:
            raise InputError(
                f"ablation={self.kind!r} is not known: use {', '.join(map(repr, KINDS))}, or a function of the other run's value"
            )
        own = _OPTIONS[self.kind]
        for name, value in self._given().items():
            if name not in own:
                raise InputError(f"Ablation({self.kind!r}) has no {name}=; its options are {', '.join(own) or 'none'}")
            least = {"draws": 1, "steps": 1, "batch": 1}.get(name)
            if least is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise InputError(f"Ablation({self.kind!r}, {name}={value!r}): give a whole number, at least {least}")
            if name in {"scale", "rate"} and not (float(value) > 0 and np.isfinite(float(value))):
                raise InputError(f"Ablation({self.kind!r}, {name}={value!r}): give a number above 0")
        if self.table is not None and self.seed is not None:
            raise InputError(
                "Ablation('resample') was given table= and seed=: which rows are taken is said by one of them"
            )

    def _given(self) -> dict[str, Any]:
        return {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name != "kind" and getattr(self, one.name) is not None
        }

    def option(self, name: str) -> Any:
        """Return an option as given, or what it is unless given; raise `KeyError` for one that the kind has not."""
        given = getattr(self, name)
        return _OPTIONS[self.kind][name] if given is None else given

    @property
    def is_paired(self) -> bool:
        """Whether row i takes the value of row i of the other inputs, as it is."""
        drawn = (self.over, self.seed, self.table) != (None, None, None) or self.option_is_set("by")
        return self.kind == "resample" and not drawn

    def option_is_set(self, name: str) -> bool:
        """Tell whether an option was given."""
        return getattr(self, name) is not None

    @property
    def is_per_cell(self) -> bool:
        """Whether what is put in differs from cell to cell of a table, and not only from place to place."""
        return self.kind in {"noise", "optimal"}

    @property
    def many(self) -> int:
        """How many times is drawn."""
        return int(self.option("draws")) if "draws" in _OPTIONS[self.kind] else 1

    def to_dict(self) -> dict[str, Any]:
        """Return the kind and all plain options, ready for JSON."""
        plain = {
            name: self.option(name)
            for name in _OPTIONS[self.kind]
            if name not in {"over", "labels", "table", "function"}
        }
        return {"kind": self.kind, **plain}

    def __repr__(self) -> str:
        """Say the kind and what was given in one line."""
        given = ", ".join(f"{name}={_short(value)}" for name, value in self._given().items())
        return f"<Ablation {self.kind}{': ' if given else ''}{given}>"


def _short(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | float) else f"<{type(value).__name__}>"


def ablation_of(given: str | Own | Ablation) -> Ablation:
    """Return what a sweep was given as an `Ablation`."""
    if isinstance(given, Ablation):
        return given
    if isinstance(given, str):
        if given == OWN:
            raise InputError("ablation='own' is not known: give the function itself")
        return Ablation(given)
    if not callable(given):
        raise InputError(f"ablation={given!r}: give a name, an sj.Ablation, or a function of the other run's value")
    return Ablation(OWN, function=given)
