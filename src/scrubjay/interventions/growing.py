"""A sequence that grows: what comes after it, computed from what is held of the positions before.

Where no position reads a later one, the values that later positions read (keys and values of attention, with no case for any
model) are held from step to step, and a step computes its new positions alone. Where that is not established, or a function that
an intervention brought gives something else for positions that it had seen, the whole sequence is computed again.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.graph import above, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Custom, Index, Input, Iota, Map, Multiply, Relabel
from scrubjay.circuit.rules import positions_down
from scrubjay.engine.array import Array
from scrubjay.engine.compute import compute
from scrubjay.engine.context import Context
from scrubjay.engine.evaluate import Evaluated, evaluate, home, input_sizes
from scrubjay.engine.resume import POSITIONS, Resumption, resume, resumption
from scrubjay.interventions.inputs import padding

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Growing:
    """How the result at the last position of a growing sequence is computed.

    Attributes:
        model: the model, interventions included.
        last: the node of the result at the last position.
        root: the result, as `plan` computes it.
        held: the nodes whose values later positions read.
        checks: functions that interventions brought: each sees the whole sequence, and must leave the positions it had seen as they were.
        steady: the nodes below that no input and no length changes.
        varying: those that the inputs and the length alone make.
        plan: how a step is computed from held values; `None` where each step computes the whole sequence.
        back: how many positions before the new one a step computes again.
    """

    model: Model
    last: Node
    root: Node
    held: tuple[Node, ...] = ()
    checks: tuple[Node, ...] = ()
    steady: tuple[Node, ...] = ()
    varying: tuple[Node, ...] = ()
    plan: Resumption | None = None
    back: int = 0


@dataclass(frozen=True, eq=False)
class Grown:
    """The result after one step, (batch, vocab), what is held for the next, and what was computed for it."""

    logits: torch.Tensor
    values: Mapping[Node, Array]
    length: int
    evaluated: int
    positions: int


def growing(model: Model, symbol: str, back: int) -> Growing:
    """Return how the result of a model whose positions are causal grows.

    Args:
        model: the model, interventions included.
        symbol: the size of a sequence, as the circuit's inputs name it.
        back: how many positions before the new one a step computes again.
    """
    root = keys_named(model.circuit.roots[model.anatomy.result])
    nodes = topological([root])
    leaves = [node for node in nodes if isinstance(node, Input | Iota) and _grows(node, symbol, within=True)]
    reached = above([root], leaves)
    same = {node: node for node in nodes}
    held = tuple(dict.fromkeys(resumption([root], leaves, same).before.values()))
    checks = tuple(node for node in nodes if isinstance(node, Custom) and node in reached and _has_positions(node))
    last = positions_down([Index(root, POSITIONS, -1)])
    alone = Growing(model, next(iter(last.values())), root)
    if any(_grows(node, symbol, within=False) for node in held):
        return alone
    plan = resumption([root, *held, *checks], leaves, same)
    resting = [node for node in plan.needs if node not in held]
    varying = [node for node in resting if any(_grows(one, symbol, within=True) for one in topological([node]))]
    steady = [node for node in resting if node not in varying]
    if not plan.causal or any(_grows(node, symbol, within=False) for node in plan.before.values()):
        return alone
    return Growing(model, alone.last, root, held, checks, tuple(steady), tuple(varying), plan, back)


def without_cache(model: Model) -> Growing:
    """Return the growth of a model that computes the whole sequence at each step."""
    root = model.circuit.roots[model.anatomy.result]
    return Growing(model, positions_down([Index(root, POSITIONS, -1)]).popitem()[1], root)


def begin(how: Growing, inputs: Tensors) -> Grown:
    """Return the result after a whole sequence, and what is held of it."""
    wanted = [how.last, *how.held, *how.checks, *how.steady]
    made = _computed(how, list(dict.fromkeys(wanted)), inputs)
    kept = {node: made.values[node] for node in (*how.held, *how.checks, *how.steady)}
    length = _length(how, inputs)
    return Grown(_logits(made.values[how.last]), kept, length, made.evaluated, length)


def grow(how: Growing, before: Grown, inputs: Tensors) -> Grown:
    """Return the result after a sequence that continues the one before, computed from what was held of that."""
    length, start = _length(how, inputs), max(before.length - how.back, 0)
    if how.plan is None or start == 0:
        return begin(how, inputs)
    model, sizes = how.model, input_sizes(list(how.model.circuit.inputs.values()), inputs)
    device = torch.device(model.device) if model.device else home(model.circuit.nodes, model.stores, {})
    steady = {node: before.values[node] for node in how.steady}
    fresh = evaluate(how.varying, inputs, model.stores, dtype=model.dtype, device=device, known=steady, sizes=sizes)
    context = Context(model.stores, model.dtype, device, sizes, inputs)
    made, _ = resume(how.plan, {**before.values, **fresh.values}, context, start)
    for node in how.checks:
        if not _unmoved(before.values[node], made[node], start, inputs):
            return begin(how, inputs)
    kept = {
        **steady,
        **{node: made[node] for node in how.checks},
        **{node: _continued(before.values[node], made[node], start, length) for node in how.held},
    }
    return Grown(_logits(made[how.root], -1), kept, length, how.plan.evaluated + fresh.evaluated, length - start)


def stays_causal(how: Growing, inputs: Tensors, count: int) -> bool:
    """Tell whether positions before the last `count` stay as they are when those hold other tokens: the law that holding values rests on."""
    ids = inputs["input_ids"].clone()
    ids[:, -count:] = torch.where(ids[:, -count:] == 0, 1, 0)
    wanted = list(dict.fromkeys([how.root, *how.held, *how.checks]))
    one, two = (_computed(how, wanted, given).values for given in (inputs, {**inputs, "input_ids": ids}))
    early = _length(how, inputs) - count
    return all(_unmoved(one[node], two[node], early, inputs) for node in wanted)


def keys_named(root: Node) -> Node:
    """Return a result in which element-wise work on positions is done under the names it is read by.

    A mask that is made as (key, query) and read as (query, key) is then made as it is read, so that the rows of new positions are
    made alone. The value is the same.
    """
    made: dict[Node, Node] = {}
    for node in topological([root]):
        here = node.with_operands([made[operand] for operand in node.operands])
        made[node] = _pushed(here.source, dict(here.pairs)) if isinstance(here, Relabel) else here
    return made[root]


def _pushed(source: Node, pairs: Mapping[str, str]) -> Node:
    """Return a value with axes renamed, below what is element-wise."""
    made: dict[Node, Node] = {}
    inner = [node for node in topological([source]) if POSITIONS in pairs.values() and _is_plain(node)]
    plain = set(inner)
    for node in topological([source], stop=frozenset(n for n in topological([source]) if n not in plain)):
        mine = {old: new for old, new in pairs.items() if old in node.axis_names}
        if node in plain:
            made[node] = node.with_operands([made[operand] for operand in node.operands])
        elif isinstance(node, Iota):
            made[node] = Iota(Axis(mine.get(node.axis.name, node.axis.name), node.axis.size))
        else:
            made[node] = Relabel(node, tuple(sorted(mine.items()))) if mine else node
    return made[source]


def _is_plain(node: Node) -> bool:
    return isinstance(node, Map | Add | Multiply)


def _grows(node: Node, symbol: str, *, within: bool) -> bool:
    """Tell whether an axis of a node is as long as the sequence; the axis of positions counts where `within`."""
    return any(
        isinstance(axis.size, str) and symbol in _symbols(axis.size) and (within or axis.name != POSITIONS)
        for axis in node.axes
    )


def _symbols(size: str) -> set[str]:
    return {part.id for part in ast.walk(ast.parse(size, mode="eval")) if isinstance(part, ast.Name)}


def _has_positions(node: Node) -> bool:
    return POSITIONS in node.axis_names


def _computed(how: Growing, wanted: Sequence[Node], inputs: Tensors) -> Evaluated:
    model = how.model
    sizes = input_sizes(list(model.circuit.inputs.values()), inputs)
    return compute(wanted, inputs, model.stores, dtype=model.dtype, device=model.device, sizes=sizes)


def _length(how: Growing, inputs: Tensors) -> int:
    return inputs["input_ids"].shape[1]


def _logits(value: Array, at: int | None = None) -> torch.Tensor:
    """Return the result at the last position, (batch, vocab)."""
    if at is None:
        return value.dense(("batch", "vocab"))
    return value.dense(("batch", POSITIONS, "vocab"))[:, at]


def _continued(earlier: Array, value: Array, start: int, length: int) -> Array:
    """Return a value at all positions: those before `start` as they were."""
    tensor, place = value.as_tensor(), value.names.index(POSITIONS)
    if tensor.shape[place] == length:
        return value
    first = torch.as_tensor(earlier.laid(value.names)).narrow(place, 0, start)
    return Array(torch.cat([first, tensor], place), value.names)


def _unmoved(one: Array, two: Array, until: int, inputs: Tensors) -> bool:
    """Tell whether two values agree, to rounding, at the real positions before `until`; NaN and infinities must agree too."""
    if POSITIONS not in one.names:
        return True
    rest = tuple(name for name in one.names if name not in {"batch", POSITIONS})
    real = padding(inputs)
    assert real is not None
    first, second = (torch.as_tensor(item.laid((POSITIONS, "batch", *rest)))[:until] for item in (one, two))
    if first.shape != second.shape:
        return False
    if "batch" in one.names:
        here = real[:, :until].T.to(first.device)
        first, second = first[here], second[here]
    if not first.is_floating_point():
        return torch.equal(first, second)
    scale = float(first[first.isfinite()].abs().max()) if bool(first.isfinite().any()) else 1.0
    return torch.allclose(
        first, second, rtol=0, atol=100 * torch.finfo(first.dtype).eps * max(scale, 1e-30), equal_nan=True
    )
