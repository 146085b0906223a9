"""Resuming: a changed circuit computed from values of the unchanged one, from the first changed position on.

Whatever the change does not reach is taken as held. Where positions are causal nothing before the first changed position changes
either, so values with the axis of positions are computed from there on alone; where a node acts along that axis (a key that
every later query reads) the held values are put in front again. This is what a key-value cache does, with no case for any model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from scrubjay.circuit.graph import above, topological
from scrubjay.circuit.node import Node
from scrubjay.engine.array import Array
from scrubjay.engine.context import Context
from scrubjay.engine.evaluate import value_of
from scrubjay.engine.fusing import fuse
from scrubjay.engine.tally import Tally, Work
from scrubjay.errors import EvaluationError

POSITIONS = "query"


@dataclass(frozen=True, eq=False)
class Resumption:
    """How `wanted` are computed from held values.

    Attributes:
        wanted: the nodes that are asked for.
        needs: the nodes whose values must be held.
        order: what is computed, operands first.
        last: how many readers each computed value has.
        before: for each computed node, the node that stands for it before the change.
        causal: whether positions before the first changed one may be left out.
    """

    wanted: Mapping[Node, Node]
    needs: tuple[Node, ...]
    order: tuple[Node, ...]
    last: Mapping[Node, int]
    before: Mapping[Node, Node]
    causal: bool

    @property
    def evaluated(self) -> int:
        """The number of nodes that one resumption evaluates."""
        return len(self.order)


def resumption(
    wanted: Sequence[Node],
    changed: Iterable[Node],
    before: Mapping[Node, Node],
    causal: bool = True,
    fused: bool = True,
) -> Resumption:
    """Return how to compute some nodes of a changed circuit from values of the unchanged one.

    Args:
        wanted: nodes of the changed circuit.
        changed: what differs from variant to variant; its values are given with each, and what does not read it is held.
        before: for a node of the changed circuit, the node it was made from.
        causal: whether values at a position depend on no later position, in the changed circuit as before.
        fused: whether patterns of nodes may be computed as one.
    """
    leaves = set(changed)
    fresh = above(wanted, leaves) - leaves
    stop = frozenset(node for node in topological(wanted) if node not in fresh)
    whole = {  # in order, so that the same plan is made every time
        operand: None
        for node in topological(wanted, stop)
        if node not in stop and POSITIONS in node.acts_along
        for operand in node.operands
        if operand in fresh and POSITIONS in operand.axis_names
    }
    lost = [node for node in whole if node not in before]
    made = fuse(wanted, whole, stop) if fused else {node: node for node in topological(wanted, stop)}
    ends = [made[node] for node in wanted]
    order = topological(ends, stop)
    held = [node for node in order if node in stop]
    earlier = {made[node]: before[node] for node in whole if node in before}
    allowed = causal and not lost
    return Resumption(
        {node: made[node] for node in wanted},
        tuple(dict.fromkeys([*held, *(earlier.values() if allowed else ())])),
        tuple(node for node in order if node not in stop),
        Counter(one for node in order if node not in stop for one in dict.fromkeys(node.operands)),
        earlier,
        allowed,
    )


def resume(
    plan: Resumption, held: Mapping[Node, Array], context: Context, start: int = 0, late: Mapping[Node, Array] | None = None
) -> tuple[dict[Node, Array], Work]:  # fmt: skip
    """Return the values of a plan's wanted nodes, computed from position `start` on, and what that cost.

    Held values have all positions; those in `late`, and wanted nodes, have the ones from `start` on alone. Raises `EvaluationError` for a
    value that is not held.
    """
    late = late or {}
    if missing := [node for node in plan.needs if node not in held and node not in late]:
        raise EvaluationError(
            f"to resume, the value of {missing[0]!r} must be held, and {len(missing)} such values are not"
        )
    start = start if plan.causal else 0
    live: dict[Node, Array] = dict(late)
    short = {node for node in late if start and POSITIONS in node.axis_names}
    left = dict(plan.last)
    kept = set(plan.wanted.values())
    tally = Tally([*held.values(), *late.values()])
    for node in plan.order:
        along = POSITIONS in node.acts_along
        operands: list[Array] = []
        for one in node.operands:
            value = live[one] if one in live else held[one]
            if along and one in short:
                value = _joined(held[plan.before[one]], value, start)
            elif not along and one not in short:
                value = _late(value, start)
            operands.append(value)
        live[node] = value_of(node, operands, context)
        tally.step(node, operands, live[node], context)
        if start and not along and any(POSITIONS in one.axis_names for one in node.operands):
            short.add(node)
        for one in dict.fromkeys(node.operands):
            left[one] -= 1
            if not left[one] and one in live and one not in kept:
                tally.drop(live.pop(one))
    return {asked: live[made] if made in live else held[made] for asked, made in plan.wanted.items()}, tally.work()


def _late(value: Array, start: int) -> Array:
    """Return a value from a position on."""
    if not start or POSITIONS not in value.names or not isinstance(value.tensor, torch.Tensor):
        return value
    place = value.names.index(POSITIONS)
    return Array(value.tensor.narrow(place, start, value.tensor.shape[place] - start), value.names)


def _joined(earlier: Array, value: Array, start: int) -> Array:
    """Return a value whose first positions are those of another one."""
    tensor, place = value.as_tensor(), value.names.index(POSITIONS)
    first = torch.as_tensor(earlier.laid(value.names)).narrow(place, 0, start)
    shape = [start if d == place else size for d, size in enumerate(tensor.shape)]
    if tensor.is_meta:  # a rehearsal: torch takes long to find the shape
        whole = [start + size if d == place else size for d, size in enumerate(tensor.shape)]
        return Array(tensor.new_empty(whole), value.names)
    return Array(torch.cat([first.expand(shape), tensor], place), value.names)
