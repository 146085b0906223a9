"""Splicing: a torch module in the place of a value, and what it leaves out as a value of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.address import Address, Module
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Constant, Multiply
from scrubjay.circuit.places import write
from scrubjay.engine.array import Array
from scrubjay.errors import InputError
from scrubjay.interventions.change import Intervention
from scrubjay.interventions.shelf import Shelf


def error_address(address: Address) -> Address:
    """Return the address of what a module spliced at an address leaves out.

    >>> from scrubjay.circuit.address import parse
    >>> str(error_address(parse("L3.resid_post@-1")))
    '.L3.resid_post.error'
    """
    whole = str(replace(address, position=None)).removeprefix(".")
    return Address(None, Module(f"{whole}.error"), "")


def spliced(
    given: Model, model: Model, change: Intervention, address: Address, inputs: Mapping[str, torch.Tensor] | None, shelf: Shelf
) -> Model:  # fmt: skip
    """Return a model with a module in the place of the value at an address; `given` is the model under no intervention."""
    module, kind = change.options["module"], change.options["error"]
    frozen = _error_of(given, module, change, address, inputs) if kind == "freeze" else None
    errors: list[Node] = []

    def make(old: Node) -> Node:
        made = shelf.function(module, old)
        error: Node = Add((old, Multiply((Constant(-1), made))))
        if frozen is not None:
            error = shelf.array(frozen, {axis.name: axis.size for axis in old.axes})
        elif kind == "add":
            error = shelf.function(torch.Tensor.detach, error)
        errors.append(error)
        return made if kind == "drop" else Add((made, error))

    circuit, name = write(model.circuit, model.anatomy, address, make, repr(change)), str(error_address(address))
    circuit = circuit.with_table({**circuit.table, name: errors[0]})
    if kind == "drop":  # it can be read, and a change of it would change nothing
        circuit = replace(circuit, removed={**circuit.removed, name: repr(change)})
    shape = replace(model.anatomy.shape, modules=model.anatomy.shape.modules | {name.removeprefix(".")})
    return replace(model, circuit=circuit, anatomy=replace(model.anatomy, shape=shape))


def _error_of(
    given: Model, module: torch.nn.Module, change: Intervention, address: Address, inputs: Mapping[str, torch.Tensor] | None
) -> Array:  # fmt: skip
    """Return what a module leaves out of the value in the run without interventions."""
    from scrubjay.interventions.run import run  # noqa: PLC0415 - a run applies interventions, which may need a run

    if inputs is None:
        raise InputError(
            f"{change!r}: error='freeze' takes the error of the rows of a run; use it in sj.run, or error='add' in sj.edit"
        )
    bare = str(replace(address, position=None))
    value = run(given, dict(inputs), keep=bare)[bare]
    with torch.no_grad():
        made = module(value.as_tensor())
    if not isinstance(made, torch.Tensor) or made.shape != value.as_tensor().shape:
        what = f"shape {tuple(made.shape)}" if isinstance(made, torch.Tensor) else type(made).__name__
        raise InputError(
            f"{change!r}: the module returned {what}; it must return a tensor of shape {tuple(value.as_tensor().shape)} ({', '.join(value.names)})"
        )
    return Array(value.as_tensor() - made, value.names)
