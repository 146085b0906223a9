"""What kernels may ask for while evaluating: stored weights, the floating type, the device, sizes of this run's axes."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from scrubjay.errors import EvaluationError
from scrubjay.evidence.digest import digest_array

SIZE_FUNCTIONS: Mapping[str, Callable[..., int]] = {
    **dict.fromkeys(("Mod", "PythonMod"), int.__mod__),
    **dict.fromkeys(("FloorDiv", "CleanDiv"), int.__floordiv__),
    **dict.fromkeys(("Min", "min"), min),
    **dict.fromkeys(("Max", "max"), max),
}
"""Functions that sizes are written with, as torch prints them."""


class Store(Protocol):
    """A place where weights are found by name."""

    def tensor(self, name: str) -> torch.Tensor:
        """Return the stored tensor, not a copy; raise `LoadError` for a name it lacks."""
        ...


@dataclass(frozen=True, eq=False)
class Payload:
    """Tensors and functions that interventions brought along, by name."""

    tensors: Mapping[str, torch.Tensor]
    functions: Mapping[str, Callable[[torch.Tensor], torch.Tensor]]

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor."""
        return self.tensors[name]

    def digest(self, name: str) -> str:
        """Return the fingerprint of a tensor."""
        found = self.tensors[name].detach().cpu()
        return digest_array(found.to(torch.float64).numpy() if found.is_floating_point() else found.numpy())


@dataclass(frozen=True, eq=False)
class Context:
    """The facts of one evaluation."""

    stores: Mapping[str, Store]
    dtype: torch.dtype | None
    device: torch.device | None
    sizes: Mapping[str, int]
    inputs: Mapping[str, torch.Tensor]

    def weight(self, source: str, name: str, dtype: str) -> torch.Tensor:
        """Return a stored tensor in the type and on the device of this run."""
        if source not in self.stores:
            raise EvaluationError(
                f"weight {name!r} is in {source!r}, which this run was not given; given: {', '.join(self.stores) or 'none'}"
            )
        store = self.stores[source]
        tensor = store.tensor(name)
        if dtype != "model":
            wanted = getattr(torch, dtype)
        elif self.dtype is not None or isinstance(store, Payload):
            wanted = self.model_dtype()
        else:
            wanted = tensor.dtype
        if tensor.dtype != wanted or (self.device is not None and tensor.device != self.device):
            tensor = tensor.to(device=self.device or tensor.device, dtype=wanted)
        return tensor

    def function(self, source: str, name: str) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return a function that an intervention brought along."""
        store = self.stores.get(source)
        if not isinstance(store, Payload) or name not in store.functions:
            raise EvaluationError(f"the function {name!r} of {source!r} is not known in this run")
        return store.functions[name]

    def model_dtype(self) -> torch.dtype:
        """Return the circuit's floating type."""
        if self.dtype is not None:
            return self.dtype
        for store in self.stores.values():
            found = getattr(store, "dtype", None)
            if isinstance(found, torch.dtype):
                return found
        return torch.float32

    def type_of(self, name: str) -> torch.dtype:
        """Return the torch type of a name (`"model"` is the circuit's own)."""
        return self.model_dtype() if name == "model" else getattr(torch, name)

    def size(self, size: int | str) -> int:
        """Return a size as a number: a symbol, or an expression of symbols and numbers."""
        if isinstance(size, int):
            return size
        if size in self.sizes:
            return self.sizes[size]
        return self._value(ast.parse(size, mode="eval").body, size)

    def _value(self, part: ast.expr, whole: str) -> int:
        """Return the value of an expression of symbols, whole numbers, +, -, *, //, % and the functions of sizes."""
        match part:
            case ast.Constant(value=int(number)):
                return number
            case ast.Name(id=name) if name in self.sizes:
                return self.sizes[name]
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return -self._value(inner, whole)
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() as op, right=right):
                one, two = self._value(left, whole), self._value(right, whole)
                return one + two if isinstance(op, ast.Add) else one - two if isinstance(op, ast.Sub) else one * two
            case ast.BinOp(left=left, op=ast.FloorDiv() | ast.Mod() as op, right=right):
                one, two = self._value(left, whole), self._value(right, whole)
                return one // two if isinstance(op, ast.FloorDiv) else one % two
            case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int(power))) if 0 <= power <= 8:
                return self._value(left, whole) ** power
            case ast.Call(func=ast.Name(id=name), args=parts) if name in SIZE_FUNCTIONS:
                return SIZE_FUNCTIONS[name](*(self._value(one, whole) for one in parts))
            case _:
                raise EvaluationError(f"the size {whole!r} is not known in this run; known: {dict(self.sizes)}")
