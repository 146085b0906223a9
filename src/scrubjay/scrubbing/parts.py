"""Parts of values in a circuit: what lies along directions or an estimate gives, and what remains, as nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Constant, Multiply, Weight
from scrubjay.circuit.rules.projection import onto
from scrubjay.claims.hypothesis import Hypothesis
from scrubjay.claims.parts import Part
from scrubjay.engine.context import Payload
from scrubjay.errors import HypothesisError
from scrubjay.scrubbing.sources import PLACE, column

STORE = "parts of a hypothesis"
"""Where a treeified circuit finds the vectors of parts."""

_PLACES = {"batch", "row", "query", "key", PLACE}


@dataclass(frozen=True, eq=False)
class Vectors:
    """The vectors of a hypothesis's parts as weights of a circuit, and the columns of the data that parts read."""

    hypothesis: Hypothesis
    by_position: Mapping[str, bool] = field(default_factory=dict[str, bool])
    tensors: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])

    def store(self) -> dict[str, Payload]:
        """Return the store that the vectors are in, by its name; empty where no part is used."""
        return {STORE: Payload(self.tensors, {})} if self.tensors else {}

    def of(self, spoken: str, value: Node, circuit: Circuit, index: Node) -> Node:
        """Return the part of a value (or what remains of it) for the rows that an index draws.

        Raises `HypothesisError` where the value has another width than the part's vectors.
        """
        part = self.hypothesis.part(spoken)
        mine = (
            self._along(part, value)
            if not part.columns and not part.offset.any()
            else self._estimate(part, value, circuit, index)
        )
        return Add((value, Multiply((Constant(-1), mine)))) if part.remains else mine

    def without(self, spoken: str, value: Node, circuit: Circuit, index: Node) -> Node:
        """Return what there is of a value beside a part: the other one of the two."""
        part = self.hypothesis.part(spoken)
        other = part.name if part.remains else part.rest.spoken
        return self.of(other, value, circuit, index)

    def _along(self, part: Part, value: Node) -> Node:
        axis = self._axis(part, value)
        return onto(
            value, self._weight(part.name, part.vectors, (Axis("direction", len(part.vectors)), axis)), axis.name
        )

    def _estimate(self, part: Part, value: Node, circuit: Circuit, index: Node) -> Node:
        axis = self._axis(part, value)
        terms: list[Node] = [self._weight(f"{part.name}.offset", part.offset, (axis,))]
        for place, name in enumerate(part.columns):
            read = column(circuit, name, index, by_position=self.by_position.get(name, False))
            terms.append(Multiply((read, self._weight(f"{part.name}.{name}", part.vectors[place], (axis,)))))
        return Add(tuple(terms)) if len(terms) > 1 else terms[0]

    def _weight(self, name: str, values: object, axes: tuple[Axis, ...]) -> Weight:
        self.tensors[name] = torch.as_tensor(values, dtype=torch.float64)
        return Weight(STORE, name, tuple((axis,) for axis in axes))

    def _axis(self, part: Part, value: Node) -> Axis:
        """Return the axis that the vectors lie along: the value's own, beside rows and positions."""
        found = [axis for axis in value.axes if axis.name not in _PLACES]
        if len(found) == 1 and found[0].size == part.width:
            return found[0]
        axes = ", ".join(map(str, value.axes))
        raise HypothesisError(
            f"part {part.name!r} has vectors of {part.width} numbers, and the value it is claimed of has the axes ({axes}): claim a value with one "
            "axis of that size beside rows and positions"
        )
