"""The residual stream: additions in which what is added was itself computed from what it is added to, one after another.

An addition `s + w` is a step of the stream where `w` depends on `s` through a linear map. `(a + m) + s` and `(s + a) + m`,
with `a` and `m` both computed from `s`, are one step with two writes: parallel blocks. The longest sequence of steps, each
read by the next as it is or through a norm, is the stream; where it is interrupted by something that is no addition, the
sequences on both sides are kept and the gap is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from scrubjay.circuit.graph import above
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Einsum, Experts, Index, Merge, Multiply, Narrow, Opaque, Split
from scrubjay.circuit.recognisers.facts import Facts, norm_below, region, without_casts


@dataclass(frozen=True, eq=False)
class Step:
    """One addition: the stream before it, the terms that were added, and the sum."""

    before: Node
    writes: tuple[Node, ...]
    after: Node


@dataclass(frozen=True, eq=False)
class Stream:
    """The steps in order, and the numbers of those that do not read what the step before them gave (0 is never one)."""

    steps: tuple[Step, ...]
    gaps: frozenset[int] = frozenset()

    @property
    def values(self) -> frozenset[Node]:
        """Every value of the stream."""
        return frozenset(node for step in self.steps for node in (step.before, step.after))


def find_stream(known: Facts) -> Stream:
    """Return the residual stream, which has no steps where none was found."""
    steps = _steps(known)
    chain = _longest(steps, known)
    if not chain:
        return Stream(())
    alike = [step for step in steps if _shape(step.after) == _shape(chain[-1].after)]
    gaps: set[int] = set()
    for later in (True, False):
        while True:
            more = _beyond(chain, alike, known, later=later)
            if not more:
                break
            gaps = gaps | {len(chain)} if later else {len(more), *(gap + len(more) for gap in gaps)}
            chain = [*chain, *more] if later else [*more, *chain]
    return Stream(tuple(chain), frozenset(gaps))


def _shape(node: Node) -> tuple[str, ...]:
    return tuple(sorted(str(axis.size) for axis in node.axes))


def _beyond(chain: Sequence[Step], steps: Sequence[Step], known: Facts, *, later: bool) -> list[Step]:
    """Return the longest sequence of steps wholly after (or before) another, with a part that a layer could be."""
    first, last = chain[0].before, chain[-1].after
    if later:
        reached = above([step.after for step in steps], [last])
        rest = [step for step in steps if step.before in reached and step.after is not last]
    else:
        below = region(first, frozenset(), known)
        rest = [step for step in steps if step.after in below and step.after is not first]
    found = _longest(rest, known)
    return found if len(found) > 1 or any(_mixes(step, known) for step in found) else []


def _mixes(step: Step, known: Facts) -> bool:
    """Tell whether a step reads other positions: what stands alone and does not is part of the embedding or the head."""
    return any(mixes_positions(region(write, {step.before}, known)) for write in step.writes)


def _steps(known: Facts) -> list[Step]:
    candidates = [node for node in known.nodes if _is_sum(node, known)]
    bits: dict[Node, int] = {}
    for node in candidates:
        for term in _flat(node, known):
            bits.setdefault(below_scale(term, known), 1 << len(bits))
        for term in known.data_operands(node):
            bits.setdefault(below_scale(term, known), 1 << len(bits))
    inside: dict[Node, int] = {}
    for node in known.nodes:
        mask = bits.get(node, 0)
        for operand in node.operands:
            mask |= inside[operand]
        inside[node] = mask
    found: list[Step] = []
    for node in candidates:
        for terms in (known.data_operands(node), _flat(node, known)):
            step = _step(node, terms, bits, inside, known)
            if step is not None:
                found.append(step)
                break
    return found


def _step(
    node: Node, terms: Sequence[Node], bits: dict[Node, int], inside: dict[Node, int], known: Facts
) -> Step | None:
    """Return the step that a sum of terms is: one of them, below all others, is the stream."""
    for term in terms:
        core = below_scale(term, known)
        others = [other for other in terms if other is not term]
        if others and all(
            inside[other] & bits[core] and below_scale(other, known) is not core and _has_weights(other, core, known)
            for other in others
        ):
            return Step(term, tuple(others), node)
    return None


def _is_sum(node: Node, known: Facts) -> bool:
    if not isinstance(node, Add) or "query" not in node.axis_names or "key" in node.axis_names:
        return False
    return len(known.data_operands(node)) >= 2 and any(
        axis.name not in {"batch", "query"} and isinstance(axis.size, int) for axis in node.axes
    )


def _flat(node: Node, known: Facts) -> list[Node]:
    """Return the terms of a sum, those of sums that only this one reads included."""
    found: list[Node] = []
    stack = list(reversed(known.data_operands(node)))
    while stack:
        term = stack.pop()
        if isinstance(term, Add) and _is_sum(term, known) and len(known.readers[term]) == 1:
            stack.extend(reversed(known.data_operands(term)))
        else:
            found.append(term)
    return found


def below_scale(node: Node, known: Facts) -> Node:
    """Return the value below casts and fixed factors."""
    while True:
        node = without_casts(node)
        data = known.data_operands(node)
        if not isinstance(node, Multiply) or len(data) != 1 or len(node.factors) < 2:
            return node
        (node,) = data


def _has_weights(write: Node, before: Node, known: Facts) -> bool:
    """Tell whether a linear map, or something that is not understood, stands between a value and what is added to it."""
    return any(
        isinstance(node, Experts | Opaque)
        or (isinstance(node, Einsum) and any(known.weight_only(factor) for factor in node.factors))
        for node in region(write, {before}, known)
    )


def settled(node: Node, known: Facts, ends: AbstractSet[Node]) -> Node:
    """Return the value of `ends` that a node is, up to casts, fixed factors, a norm, a choice of positions; else the last below."""
    while node not in ends:
        inner = below_scale(node, known)
        if inner is node:
            norm = norm_below(node, known)
            if norm is not None:
                inner = norm.source
            elif isinstance(node, Index | Narrow | Split | Merge) or (
                isinstance(node, Add) and len(known.data_operands(node)) == 1
            ):
                (inner,) = known.data_operands(node)
            elif isinstance(node, Multiply):
                inner = _unmasked(node, known)
        if inner is node:
            return node
        node = inner
    return node


def _unmasked(node: Multiply, known: Facts) -> Node:
    """Return the other factor of a product with a padding mask, or with what else a position has that no weight made."""
    masks = [
        factor
        for factor in known.data_operands(node)
        if factor.axis_names <= {"batch", "query"} and not _weights_below(factor, known)
    ]
    rest = [factor for factor in node.factors if factor not in masks]
    return rest[0] if masks and len(rest) == 1 else node


def _weights_below(node: Node, known: Facts) -> list[Node]:
    inside = region(node, frozenset(), known)
    return [operand for one in inside for operand in one.operands if known.weight_only(operand) and operand.axes]


def _longest(steps: Sequence[Step], known: Facts) -> list[Step]:
    """Return the longest sequence of steps in which each reads the one before; of equals, that which ends last."""
    ends = {step.after: step for step in steps}
    place = {node: number for number, node in enumerate(known.nodes)}
    lengths: dict[Step, int] = {}
    before: dict[Step, Step | None] = {}
    for step in sorted(steps, key=lambda one: place[one.after]):
        source = ends.get(settled(step.before, known, ends.keys()))
        before[step] = source
        lengths[step] = 1 + (lengths[source] if source is not None else 0)
    if not lengths:
        return []
    here: Step | None = max(lengths, key=lambda step: (lengths[step], place[step.after]))
    chain: list[Step] = []
    while here is not None:
        chain.append(here)
        here = before[here]
    return chain[::-1]


def is_additive(stream: Stream) -> bool:
    """Tell whether the last value of the stream is the first plus everything that was written, nothing else done to it."""
    pairs = zip(stream.steps, stream.steps[1:], strict=False)
    return not stream.gaps and all(_plain(later.before) is earlier.after for earlier, later in pairs)


def _plain(node: Node) -> Node:
    while isinstance(node, Index | Narrow) or without_casts(node) is not node:
        node = node.operands[0]
    return node


def mixes_positions(nodes: AbstractSet[Node]) -> bool:
    """Tell whether nodes make one position depend on others."""
    return any(
        "query" in node.acts_along and not (isinstance(node, Opaque) and _looks_pointwise(node)) for node in nodes
    )


def _looks_pointwise(node: Opaque) -> bool:
    same = [operand for operand in node.inputs if operand.axis_names == node.axis_names]
    return bool(same) and not any(word in node.op for word in ("conv", "scan", "cum", "sort", "pad", "roll", "flip"))
