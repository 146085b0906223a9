"""Capture: a torch module's own computation, exported and lifted to a circuit whose weights stay where they are.

The module is copied without its weights and exported in bfloat16: wherever that type occurs in the program, "the model's own
type" is meant, so one circuit serves every type. Nothing of the given module is changed, read or copied but its structure.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scrubjay.capture.constant import WIDE, constants_of, settled
from scrubjay.capture.functional import functional, is_decomposed
from scrubjay.capture.lift.call import MODEL_DTYPE
from scrubjay.capture.lift.program import TABLE, lift
from scrubjay.capture.store import ModuleStore, states_of
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.ops import Opaque
from scrubjay.errors import CaptureError, FixedSizeError


@dataclass(frozen=True, eq=False)
class Signature:
    """How a module is called: example tensors by argument name, names of their dynamic dimensions, and what to read off.

    `dynamic["input_ids"] == ("batch", "query")` names both dimensions; `None` stands for a fixed one. `fixed` holds further
    keyword arguments; `pick` takes the tensor out of what the module returns; `result` names it. Axes named in `static` have a
    name and the example's own size, and no other.
    """

    inputs: Mapping[str, torch.Tensor]
    dynamic: Mapping[str, tuple[str | None, ...]]
    pick: Callable[[Any], torch.Tensor]
    fixed: Mapping[str, Any] = field(default_factory=dict[str, Any])
    result: str = "output"
    static: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Captured:
    """A circuit, and what belongs to it.

    `limits` has the greatest size of each dynamic dimension that the program allows (`None`: no limit found); `constants`
    the tensors that the module makes of plain numbers, for its store: `store_of(module, captured.constants)`; `place` is the file
    it is kept in, if it is.
    """

    circuit: Circuit
    limits: Mapping[str, int | None]
    constants: Mapping[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])
    place: Path | None = None


class _Called(nn.Module):
    """The module under its signature: positional tensors in, one tensor out."""

    def __init__(self, module: nn.Module, signature: Signature) -> None:
        super().__init__()
        self.module = module
        self.signature = signature

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Call the module with the tensors by name."""
        named = dict(zip(self.signature.inputs, tensors, strict=True))
        result = self.module(**named, **self.signature.fixed)
        try:
            found = self.signature.pick(result)
        except (AttributeError, LookupError, TypeError) as error:
            raise CaptureError(
                f"`pick` does not fit what the module returns, a {type(result).__name__}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(found, torch.Tensor):
            raise CaptureError(
                f"a circuit gives one tensor, and a {type(found).__name__} was read off what the module returns: say with `pick` (`output=` of load) "
                "which tensor of it is meant"
            )
        return found


def capture(module: nn.Module, signature: Signature, source: str = "model") -> Captured:
    """Return the circuit of a module; one that runs in its own floating type only gives a circuit of that type.

    Args:
        module: any module in evaluation mode; its weights may be on any device, even the meta device.
        signature: how it is called.
        source: the name of the store its weights will be found in.

    Raises `CaptureError`: a module in training mode, control flow that depends on data, state changed by a run, a result
    that is no tensor.
    """
    if any(part.training for part in module.modules()):
        raise CaptureError(
            "the module is in training mode, so dropout would be part of the circuit: call module.eval() first"
        )
    _check_dimensions(signature)
    try:
        program = _exported(module, signature, MODEL_DTYPE)
    except FixedSizeError:
        raise
    except CaptureError:
        # code that writes a type out (`mask.float() @ x`) runs in that type only: the circuit is then fixed to it
        program = _exported(module, signature, model_dtype(module))
    aliases = {f"module.{name}": first for name, first in _aliases(module).items()}
    axes = {name: signature.dynamic[name] for name in signature.inputs}
    circuit = _lifted(program, lambda found: lift(found, source, axes, aliases, signature.result))
    circuit, constants = settled(
        circuit, constants_of(program, module), lambda: constants_of(_exported(module, signature, WIDE), module)
    )
    return Captured(circuit, _limits(program, signature), constants)


def _lifted(
    program: torch.export.ExportedProgram, lifted: Callable[[torch.export.ExportedProgram], Circuit]
) -> Circuit:
    """Return the circuit of a program in functional form, with as little of it taken apart as lifting needs."""
    composite = {str(node.target) for node in program.graph.nodes if is_decomposed(node.target)}
    with _explained_errors():
        plain = functional(program, TABLE)
    circuit = lifted(plain)
    if any(isinstance(node, Opaque) and node.op in composite for node in circuit.nodes):
        with _explained_errors():
            plain = plain.run_decompositions({})
        circuit = lifted(plain)
    return circuit


def _check_dimensions(signature: Signature) -> None:
    if set(signature.dynamic) != set(signature.inputs):
        raise CaptureError(
            f"`dynamic` names the inputs {', '.join(signature.dynamic) or 'none'}, and `inputs` {', '.join(signature.inputs) or 'none'}: name the same"
        )
    for name, tensor in signature.inputs.items():
        given = signature.dynamic[name]
        if len(given) != tensor.dim():
            raise CaptureError(
                f"`dynamic` names {len(given)} dimensions of {name!r}, and the example has {tensor.dim()}, {tuple(tensor.shape)}: None is a fixed one"
            )


def hollow(module: nn.Module, marker: torch.dtype = MODEL_DTYPE) -> nn.Module:
    """Return a copy of the module's structure whose floating weights are empty tensors of the type `marker`.

    No weight is read or copied, and the memory of the empty tensors is never touched.
    """
    main = model_dtype(module)
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        dtype = marker if parameter.dtype == main else parameter.dtype
        empty = torch.empty(parameter.shape, dtype=dtype)
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=False)
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty(buffer.shape, dtype=buffer.dtype)
    return copy.deepcopy(module, memo).eval()


def model_dtype(module: nn.Module) -> torch.dtype:
    """Return the type of most floating weights (float32 for a module without any)."""
    counts: dict[torch.dtype, int] = {}
    for parameter in module.parameters():
        if parameter.is_floating_point():
            counts[parameter.dtype] = counts.get(parameter.dtype, 0) + parameter.numel()
    return max(counts, key=lambda dtype: counts[dtype]) if counts else torch.float32


def _exported(module: nn.Module, signature: Signature, marker: torch.dtype) -> torch.export.ExportedProgram:
    """Export a hollow copy of the module, weights and floating inputs of the module's type in the type `marker`."""
    twin, main = _Called(hollow(module, marker), signature), model_dtype(module)
    shapes = tuple(
        {
            place: torch.export.Dim.DYNAMIC
            for place, name in enumerate(signature.dynamic[key])
            if name is not None and name not in signature.static
        }
        or None
        for key in signature.inputs
    )
    plain = [tensor.detach().cpu() for tensor in signature.inputs.values()]
    examples = tuple(tensor.to(marker) if tensor.dtype == main else tensor for tensor in plain)
    with _explained_errors():
        return torch.export.export(twin, examples, dynamic_shapes=(shapes,), strict=False)


@contextmanager
def plain_path() -> Iterator[None]:
    """Keep torch's own transformer layers from their fused path, which gives padded positions other values than their code does."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _explained_errors() -> Iterator[None]:
    """Run torch.export without gradients and its warnings, each of its errors turned into one that says what to do."""
    try:
        # the search for a good order of a long einsum asks for sizes as numbers, which fixes them
        with warnings.catch_warnings(), torch.no_grad(), plain_path(), torch.backends.opt_einsum.flags(enabled=False):
            warnings.simplefilter("ignore")
            yield
    except CaptureError:
        raise
    except Exception as error:  # export raises a zoo of types; each becomes one clear error, chained
        kind = FixedSizeError if _is_fixed(error) else CaptureError
        raise kind(_explained(error)) from error


def _explained(error: Exception) -> str:
    text = " ".join(line.strip() for line in str(error).strip().splitlines()[:3])[:300]
    kind = type(error).__name__
    if "DataDependent" in kind or "data-dependent" in str(error) or "Could not guard" in str(error):
        advice = "its control flow depends on the values of its input: replace `if tensor...` by torch.where, or capture the part without it"
    elif _is_fixed(error):
        advice = "a dimension named in `dynamic` is in truth fixed: leave it None there, or give an example of the right size; if its code calls len(x), write x.shape[0]"
    elif "expected scalar type" in text or "same dtype" in text:
        advice = (
            "it multiplies tensors of a type written out in its code (float32) with tensors of its own type, which is wrong in any "
            "other type: write `mask.to(x.dtype)` for `mask.float()`"
        )
    else:
        advice = (
            "check that the arguments in `inputs` are named as forward() names them, and that the module runs on them"
        )
    return f"torch.export could not capture the module: {advice} ({kind}: {text})"


def _is_fixed(error: Exception) -> bool:
    """Tell whether an error says that a dimension which was to vary has one size only."""
    return "data-dependent" not in str(error) and (
        "specialized" in str(error) or "ConstraintViolation" in type(error).__name__
    )


def _aliases(module: nn.Module) -> dict[str, str]:
    """Return, for every parameter and buffer name, the first name of the same tensor (tied weights are one leaf)."""
    first: dict[int, str] = {}
    names: dict[str, str] = {}
    for name, tensor in [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]:
        names[name] = first.setdefault(id(tensor), name)
    return names


def _limits(program: torch.export.ExportedProgram, signature: Signature) -> dict[str, int | None]:
    limits: dict[str, int | None] = {}
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    for key, user in zip(signature.inputs, program.graph_signature.user_inputs, strict=True):
        for name, size in zip(signature.dynamic[key], placeholders[str(user)].meta["val"].shape, strict=True):
            if name is None or not isinstance(size, torch.SymInt):
                continue
            bounds = program.range_constraints.get(size.node.expr)
            upper = (
                None
                if bounds is None or not bounds.upper.is_Integer or int(bounds.upper) >= 2**31
                else int(bounds.upper)
            )
            limits[name] = upper
    return limits


def store_of(module: nn.Module, constants: Mapping[str, torch.Tensor] | None = None) -> ModuleStore:
    """Return the module's own tensors by name, shared and not copied, and the constants of its capture."""
    return ModuleStore(
        module, _aliases(module), model_dtype(module), constants=constants or {}, states=states_of(module)
    )
