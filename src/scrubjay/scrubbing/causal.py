"""A causal model: named discrete variables, each a function of others, over the columns of a data set."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from scrubjay.claims.data import Dataset
from scrubjay.errors import HypothesisError, near

Mechanism = Callable[..., np.ndarray]


class CausalModel:
    """What a network is claimed to compute: variables, each computed from others, down to columns of the data.

    A mechanism's parameters name what it reads: other variables, or columns (features of the data, and inputs with one value a row);
    it is given whole columns. `output` is the variable that the network's answer is compared with.

    Raises `HypothesisError` for variables that go round in a circle, an unknown output, and mechanisms whose parameters have no names.

    >>> either = CausalModel({"a": lambda z1: z1 > 3, "b": lambda z2: z2 > 3, "answer": lambda a, b: a | b}, "answer")
    >>> z1, z2 = np.array([1, 5]), np.array([0, 0])
    >>> either.run({"z1": z1, "z2": z2})["answer"]
    array([False,  True])
    >>> either.run({"z1": z1, "z2": z2}, fixed={"a": np.array([True, False])})["answer"]
    array([ True, False])
    """

    def __init__(self, mechanisms: Mapping[str, Mechanism], output: str) -> None:
        self.mechanisms = MappingProxyType(dict(mechanisms))
        self.output = output
        if output not in self.mechanisms:
            raise HypothesisError(
                f"the causal model has no variable {output!r} to give; it has {', '.join(self.mechanisms)}{near(output, self.mechanisms)}"
            )
        self.parents = {name: _parameters(name, one) for name, one in self.mechanisms.items()}
        self.order = self._order()

    def _order(self) -> tuple[str, ...]:
        """Return the variables, those that others read first."""
        done: list[str] = []
        left = dict(self.parents)
        while left:
            ready = [name for name, reads in left.items() if not set(reads) & set(left)]
            if not ready:
                raise HypothesisError(
                    f"the variables {', '.join(left)} go round in a circle: each reads another of them"
                )
            done += ready
            left = {name: reads for name, reads in left.items() if name not in ready}
        return tuple(done)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the data that mechanisms read."""
        return tuple(
            dict.fromkeys(one for reads in self.parents.values() for one in reads if one not in self.mechanisms)
        )

    def read_by(self, name: str) -> bool:
        """Tell whether the output depends on a variable."""
        found = {name}
        for one in self.order:
            if found & set(self.parents[one]):
                found.add(one)
        return self.output in found

    def run(
        self, columns: Mapping[str, np.ndarray], fixed: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the value of every variable for each row, some of them held at given values."""
        values: dict[str, np.ndarray] = dict(columns)
        for name in self.order:
            if fixed is not None and name in fixed:
                values[name] = fixed[name]
                continue
            made = np.asarray(self.mechanisms[name](*(values[one] for one in self.parents[name])))
            rows = len(next(iter(columns.values())))
            if made.shape != (rows,) or made.dtype.kind not in "biu":
                raise HypothesisError(
                    f"the mechanism of {name!r} gave shape {made.shape} and type {made.dtype} for {rows} rows: give one whole number or truth "
                    "value for each row (interchange needs values that can be equal)"
                )
            values[name] = made
        return {name: values[name] for name in self.order}

    def read(self, data: Dataset) -> dict[str, np.ndarray]:
        """Return the columns that are read: features, and inputs with one value a row; raise `HypothesisError` for one the data lack."""
        plain = {name: array for name, array in data.inputs.items() if array.ndim == 1}
        known = {**plain, **{name: one.values for name, one in data.features.items() if one.values.ndim == 1}}
        for name in self.columns:
            if name not in known:
                raise HypothesisError(
                    f"the causal model reads {name!r}, which {data.name!r} has no column of; it has {', '.join(known) or 'none'}{near(name, known)}"
                )
        return {name: known[name] for name in self.columns}

    def __repr__(self) -> str:
        """Say the variables and what each reads."""
        said = [f"{name}({', '.join(self.parents[name])})" for name in self.order]
        return f"<CausalModel {'; '.join(said)}>"


def _parameters(name: str, mechanism: Mechanism) -> tuple[str, ...]:
    given = inspect.signature(mechanism).parameters.values()
    if not given or any(one.kind not in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in given):
        raise HypothesisError(f"the mechanism of {name!r} must name what it reads as plain parameters")
    return tuple(one.name for one in given)
