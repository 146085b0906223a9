"""A task: pairs of inputs that a model should answer differently, and all that a measurement on them needs.

Row i of the clean inputs and row i of the counterfactual inputs are one pair. Positions count real tokens from the first one,
and are the same place in both. A task is a value; tasks with equal digests hold the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from scrubjay.claims.data import Feature
from scrubjay.errors import InputError
from scrubjay.evidence.digest import digest_array, digest_json

METRICS = ("logit_difference", "log_probability", "kl")
"""The metrics that a task may name."""


@dataclass(frozen=True, eq=False)
class Task:
    """Clean and counterfactual inputs, their answers, and what is known of each pair.

    Attributes:
        name: what reports call it.
        clean: the model's inputs by name, each (row, ...); `counterfactual` likewise, with the same shapes.
        answers: the right answer of the clean inputs, token ids of shape (row,) or (row, answer).
        wrong: the answer to compare it with, of the counterfactual inputs say; same shapes, or empty.
        positions: named positions, each (row,): real tokens from the first, negative from the last. `END` is -1 where it is not given.
        features: what hypotheses may say about a row.
        clusters: which rows belong together (a template), shape (row,); each row alone where it is empty.
        split: `"explore"` or `"confirm"` for each row; all explore where it is empty.
        metric: what is measured unless asked otherwise, one of `METRICS`.

    Raises `InputError` for unequal numbers of rows, inputs of other shapes, an unknown metric or split, a token that is both answers.

    >>> ids = np.array([[1, 2], [1, 3]])
    >>> Task("swap", {"input_ids": ids}, {"input_ids": ids[::-1]}, answers=np.array([4, 5]), wrong=np.array([5, 4]))
    Task('swap', 2 pairs, metric logit_difference; positions END)
    """

    name: str
    clean: Mapping[str, np.ndarray]
    counterfactual: Mapping[str, np.ndarray]
    answers: np.ndarray
    wrong: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    positions: Mapping[str, np.ndarray] = field(default_factory=dict)
    features: Mapping[str, Feature] = field(default_factory=dict)
    clusters: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    split: np.ndarray = field(default_factory=lambda: np.zeros(0, "U8"))
    metric: str = "logit_difference"

    def __post_init__(self) -> None:
        for key in ("clean", "counterfactual", "positions"):
            given = {name: _fixed(array) for name, array in getattr(self, key).items()}
            object.__setattr__(self, key, MappingProxyType(given))
        object.__setattr__(self, "features", MappingProxyType(dict(self.features)))
        rows = len(self)
        empty = {
            "answers": np.zeros(rows, np.int64),
            "clusters": np.arange(rows),
            "split": np.full(rows, "explore"),
        }
        for key in ("answers", "wrong", "clusters", "split"):
            array = np.asarray(getattr(self, key))
            object.__setattr__(self, key, _fixed(empty[key] if not array.size and key in empty else array))
        if "END" not in self.positions:
            object.__setattr__(self, "positions", MappingProxyType({**self.positions, "END": np.full(rows, -1)}))
        self._check()

    def _check(self) -> None:
        if not self.clean or not len(self):
            raise InputError(f"task {self.name!r} was given no rows: give at least one pair of inputs")
        if set(self.clean) != set(self.counterfactual):
            raise InputError(
                f"task {self.name!r}: the clean inputs are {', '.join(self.clean)} and the counterfactual ones {', '.join(self.counterfactual)}: "
                "give the same inputs for both"
            )
        for name, array in self.clean.items():
            if array.shape != (other := self.counterfactual[name]).shape:
                raise InputError(
                    f"task {self.name!r}: input {name!r} has shape {array.shape} clean and {other.shape} counterfactual; pairs correspond token by token: pad both alike"
                )
        arrays: dict[str, np.ndarray] = {
            **{f"input {name!r}": array for name, array in self.clean.items()},
            **{f"position {name!r}": array for name, array in self.positions.items()},
            **{f"feature {name!r}": one.values for name, one in self.features.items()},
            "answers": self.answers, "clusters": self.clusters, "split": self.split,
            **({"wrong": self.wrong} if self.wrong.size else {}),
        }  # fmt: skip
        for what, array in arrays.items():
            if len(array) != len(self):
                raise InputError(f"task {self.name!r}: {what} has {len(array)} rows and the inputs have {len(self)}")
        if self.metric not in METRICS:
            raise InputError(
                f"task {self.name!r}: metric {self.metric!r} is not known; it is one of {', '.join(METRICS)}"
            )
        if unknown := set(self.split.tolist()) - {"explore", "confirm"}:
            raise InputError(f"task {self.name!r}: a split is 'explore' or 'confirm', and not {sorted(unknown)[0]!r}")
        if self.answers.dtype.kind not in "iu" or (self.wrong.size and self.wrong.dtype.kind not in "iu"):
            raise InputError(f"task {self.name!r}: answers are token ids (whole numbers), and not {self.answers.dtype}")
        if self.wrong.size and self.wrong.ndim == self.answers.ndim == 1 and bool((self.wrong == self.answers).any()):
            row = int((self.wrong == self.answers).argmax())
            raise InputError(
                f"task {self.name!r}: in row {row} token {int(self.answers[row])} is both the right and the wrong answer"
            )

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(next(iter(self.clean.values()))) if self.clean else 0

    def __repr__(self) -> str:
        """Give one line: name, pairs, metric, positions."""
        return f"Task({self.name!r}, {len(self)} pairs, metric {self.metric}; positions {', '.join(self.positions)})"

    def select(self, rows: np.ndarray | Sequence[int] | slice) -> Task:
        """Return the task of some rows: numbers, booleans, or a slice. Raises `InputError` where none is left."""
        if len(wanted := np.arange(len(self))[rows if isinstance(rows, slice) else np.asarray(rows)]) == 0:
            raise InputError(f"task {self.name!r}: no row was selected")
        return replace(
            self,
            clean={name: array[wanted] for name, array in self.clean.items()},
            counterfactual={name: array[wanted] for name, array in self.counterfactual.items()},
            answers=self.answers[wanted],
            wrong=self.wrong[wanted] if self.wrong.size else self.wrong,
            positions={name: array[wanted] for name, array in self.positions.items()},
            features={name: replace(one, values=one.values[wanted]) for name, one in self.features.items()},
            clusters=self.clusters[wanted],
            split=self.split[wanted],
        )

    def only(self, split: str) -> Task:
        """Return the rows to explore on, or those to confirm on."""
        return self.select(self.split == split)

    @cached_property
    def digest(self) -> str:
        """The digest of everything but names."""
        return digest_json(
            {
                "clean": {name: digest_array(array) for name, array in self.clean.items()},
                "counterfactual": {name: digest_array(array) for name, array in self.counterfactual.items()},
                "positions": {name: digest_array(array) for name, array in self.positions.items()},
                "features": {name: digest_array(one.values) for name, one in self.features.items()},
                "answers": digest_array(self.answers),
                "wrong": digest_array(self.wrong),
                "clusters": digest_array(self.clusters),
                "split": self.split.tolist(),
                "metric": self.metric,
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the description without the arrays, ready for JSON."""
        return {
            "name": self.name,
            "pairs": len(self),
            "inputs": {name: list(array.shape) for name, array in self.clean.items()},
            "positions": list(self.positions),
            "features": [one.to_dict() for one in self.features.values()],
            "clusters": len(np.unique(self.clusters)),
            "explore": int((self.split == "explore").sum()),
            "confirm": int((self.split == "confirm").sum()),
            "metric": self.metric,
            "digest": self.digest,
        }


def _fixed(array: Any) -> np.ndarray:
    copy = np.array(array, order="C", copy=True)
    copy.setflags(write=False)
    return copy
