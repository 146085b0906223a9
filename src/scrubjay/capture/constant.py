"""Tensors that a module makes of plain numbers when it runs (`torch.tensor([1.0, 2.0])`): kept beside the circuit.

Such a tensor is in no checkpoint. One that is made in the model's own type is a trap: the module is captured in bfloat16, so
its numbers come out rounded. The module is then exported once more in 64 bits, and the numbers are taken from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.export import ExportedProgram

from scrubjay.capture.lift.call import MODEL_DTYPE
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import substitute
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Constant, Map, Weight
from scrubjay.errors import CaptureError

WIDE = torch.float64


def constants_of(program: ExportedProgram, module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the constant tensors of a program by name, but for those that the module itself has under that name."""
    lifted = program.graph_signature.inputs_to_lifted_tensor_constants.values()
    return {
        name.removeprefix("module."): torch.as_tensor(program.constants[name]).detach().contiguous()
        for name in lifted
        if not _is_attribute(module, name.removeprefix("module."))
    }


def _is_attribute(module: nn.Module, name: str) -> bool:
    owner: object = module
    for part in name.split("."):
        owner = getattr(owner, part, None)
    return isinstance(owner, torch.Tensor)


def settled(
    circuit: Circuit, constants: Mapping[str, torch.Tensor], again: Callable[[], Mapping[str, torch.Tensor]]
) -> tuple[Circuit, dict[str, torch.Tensor]]:
    """Return the circuit and its constants with those of the model's own type unrounded: stored in 64 bits, and cast.

    `again()` gives the constants of the same module captured in 64 bits; it is called only when one is needed. Raises
    `CaptureError` where the numbers depend on the type in a way that a circuit for every type cannot say.
    """
    used = {name: tensor for name, tensor in constants.items() if name in circuit.weights}
    rounded = [name for name, tensor in used.items() if tensor.dtype == MODEL_DTYPE]
    if not rounded:
        return circuit, used
    exact, changes = again(), dict[Node, Node]()
    if exact.keys() != constants.keys():
        raise CaptureError(
            f"the module makes other constants in 64 bits than in 16: {', '.join(exact) or 'none'}, and not {', '.join(constants)}; "
            "register them as buffers"
        )
    for name in rounded:
        leaf = circuit.weights[name]
        changes[leaf] = _unrounded(leaf, exact[name])
    made = substitute((*circuit.roots.values(), *circuit.table.values()), changes)
    roots = {name: made[node] for name, node in circuit.roots.items()}
    table = {address: made[node] for address, node in circuit.table.items()}
    return Circuit(roots, table, circuit.removed, circuit.history), {
        name: exact[name] if name in rounded else tensor for name, tensor in used.items()
    }


def _unrounded(leaf: Weight, exact: torch.Tensor) -> Node:
    limits = torch.finfo(WIDE)
    if exact.dim() == 0 and exact.dtype == WIDE and float(exact) in (limits.min, limits.max):
        return Constant("min" if float(exact) == limits.min else "max", "model")
    largest = exact[torch.isfinite(exact)].abs().max() if bool(torch.isfinite(exact).any()) else torch.tensor(0.0)
    if float(largest) > torch.finfo(torch.float32).max:
        raise CaptureError(
            f"the module makes the constant tensor {leaf.name!r} with the greatest number of its floating type in it, which is another for "
            "every type: use torch.full or masked_fill, or register the tensor as a buffer"
        )
    wide = Weight(leaf.source, leaf.name, leaf.dims, str(exact.dtype).removeprefix("torch."))
    return Map("cast", (wide,), ("model",))
