"""A captured program in which no operation changes a tensor: the form that is lifted.

torch can functionalise any program (`run_decompositions({})`), by tracing it once more, which takes twice the time of the
export. Most programs have nothing to functionalise, or only `x /= y` on a value that nobody else looks at: those are left as
they are, or get the operation that makes a new value. Everything else goes to torch.
"""

from __future__ import annotations

import operator
from collections.abc import Container
from typing import Any

import torch
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Node as FxNode

from scrubjay.errors import CaptureError

SAME_TYPE = frozenset(
    {"add", "sub", "mul", "div", "neg", "pow", "sqrt", "rsqrt", "exp", "clamp", "clamp_min", "clamp_max", "masked_fill"}
    | {"relu", "silu", "sigmoid", "tanh"}
)
"""Operators whose result has the type of their first operand, if the others have it too; so `x.op_(y)` is `x = x.op(y)`."""


def functional(program: ExportedProgram, known: Container[str]) -> ExportedProgram:
    """Return the program in functional form: the given one, changed where that is enough, else as torch functionalises it.

    Args:
        program: as `torch.export.export` gives it. It may be changed: use what comes back.
        known: names of the operators that are lifted by name. A composite operator that may return a view of its operand, or
            change it, is decomposed unless it is known.

    Raises `CaptureError` where torch's own form would be wrong.
    """
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    changes = _changes(program) if all(_is_understood(node, known) for node in calls) else None
    if changes is None:
        _check_dropouts(program)
        return program.run_decompositions({})
    order = {node: place for place, node in enumerate(program.graph.nodes)}
    for node, plain in changes.items():
        node.target, begun = plain, order[node]
        first: Any = node.args[0]
        first.replace_all_uses_with(node, delete_user_cb=lambda user, begun=begun: order[user] > begun)
    program.graph.eliminate_dead_code()
    return program


def is_decomposed(op: object) -> bool:
    """Tell whether torch's functional form takes this operator apart: a composite one that may return a view or change a tensor.

    >>> is_decomposed(torch.ops.aten.reshape.default), is_decomposed(torch.ops.aten.linear.default)
    (True, False)
    """
    if not isinstance(op, OpOverload) or not _is_composite(op):
        return False
    annotated = any(argument.alias_info is not None for argument in op._schema.arguments)
    return annotated or torch.Tag.maybe_aliasing_or_mutating in op.tags or op.namespace != "aten"


def _is_composite(op: OpOverload) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "CompositeImplicitAutograd")


def _is_understood(node: FxNode, known: Container[str]) -> bool:
    """Tell whether a call needs no torch to be functional, but for what `_changes` does about it."""
    if not isinstance(node.target, OpOverload):
        return not isinstance(node.target, torch._ops.HigherOrderOperator)
    return node.target._schema.is_mutable or not is_decomposed(node.target) or _name(node.target) in known


def _name(op: OpOverload) -> str:
    return op._schema.name.split("::")[1]


def _changes(program: ExportedProgram) -> dict[FxNode, OpOverload] | None:
    """Return, for every operation that changes its first operand, the one that makes a new value; None where that is not enough.

    It is enough where no other tensor that may share the operand's memory is read afterwards: the operand's later readers
    then read the new value.
    """
    order = {node: place for place, node in enumerate(program.graph.nodes)}
    changes: dict[FxNode, OpOverload] = {}
    now: dict[FxNode, FxNode] = {}
    shared: dict[FxNode, set[FxNode]] = {}
    views: list[FxNode]
    for node, begun in order.items():
        read: list[FxNode] = [now[one] if one in now else one for one in node.all_input_nodes]  # noqa: SIM401 - typed better
        if not isinstance(node.target, OpOverload):
            views = read if node.target is operator.getitem else []
        elif node.target._schema.is_mutable:
            plain, first = _plain(node), node.args[0]
            if plain is None or not isinstance(first, FxNode) or first in now:
                return None
            others = shared[first] - {first}
            if any(one.op == "placeholder" for one in shared[first]):
                return None
            if any(order[user] > begun for one in others for user in one.users):
                return None
            changes[node], now[first], views = plain, node, []
        else:
            views = read if _may_alias(node.target) else []
        group = {node}.union(*(shared[one] for one in views))
        shared.update(dict.fromkeys(group, group))
    return changes


def _check_dropouts(program: ExportedProgram) -> None:
    """Refuse what torch functionalises wrongly: a dropout that gives its operand back, one of the two changed, the other then read."""
    order = {node: place for place, node in enumerate(program.graph.nodes)}
    for node, begun in order.items():
        if node.target is not torch.ops.aten.dropout.default or not isinstance(node.args[0], FxNode):
            continue
        for one, other in ((node, node.args[0]), (node.args[0], node)):
            writes = [user for user in one.users if _writes(user) and user.args[0] is one and order[user] > begun]
            if any(order[reader] > order[write] for write in writes for reader in other.users):
                raise CaptureError(
                    f"{node.name}: dropout in evaluation mode gives back its own operand, and one of the two is changed in place before the other "
                    "is read, which torch.export gets wrong: write x = x + y for x += y"
                )


def _writes(node: FxNode) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def _may_alias(op: OpOverload) -> bool:
    return _is_composite(op) or any(argument.alias_info is not None for argument in op._schema.arguments)


def _plain(node: FxNode) -> OpOverload | None:
    """Return the operator that makes what this one writes into its first operand, or None where the two might differ."""
    op: Any = node.target
    base = _name(op).removesuffix("_")
    if op.namespace != "aten" or base not in SAME_TYPE:
        return None
    plain = getattr(getattr(torch.ops.aten, base), op._overloadname, None)
    names = [[argument.name for argument in one._schema.arguments] for one in (op, plain) if one is not None]
    values = [one.meta.get("val") for one in node.all_input_nodes]
    types = [value.dtype for value in values if isinstance(value, torch.Tensor)]
    if len(names) < 2 or names[0] != names[1] or any(dtype not in (types[0], torch.bool) for dtype in types):
        return None
    return plain
