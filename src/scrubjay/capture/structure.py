"""What a module computes, apart from the values of its weights, as a JSON value: the base of the cache's key.

Two modules with one description must have one circuit. So it holds the module tree, shapes and ties of weights, every plain
attribute (a number read in `forward` is baked into the circuit), hooks, and the code: the bytecode of the classes' methods and
of the functions and values that they reach by name. Code of released packages (`VERSIONED`) is taken as its name, the key
having their versions, except for what is reached from a method of the same file. What cannot be described is named in
`unknown`: such a module is not cached at all, because a stale circuit would be wrong in silence.
"""

from __future__ import annotations

import enum
import functools
import sys
import types
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import nn

from scrubjay.capture.export import model_dtype
from scrubjay.evidence.digest import digest_bytes

VERSIONED = frozenset({"torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "numpy", "scrubjay", *sys.stdlib_module_names})
"""Top-level packages whose code is known by their version (the standard library, by Python's)."""

PRIVATE_TO_TORCH = frozenset(nn.Module().__dict__) - {"training"}
NOT_COMPUTED = frozenset({"_name_or_path", "name_or_path", "_commit_hash", "warnings_issued", "generation_config"})
"""Attributes of transformers' models and configurations that say where they come from, or are for generating only."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class Description:
    """A description in the making: `unknown` lists what could not be described."""

    def __init__(self, module: nn.Module) -> None:
        self.unknown: list[str] = []
        self._module = module
        self._names = {id(part): name for name, part in module.named_modules()}
        self._seen: dict[int, int] = {}
        self._kept: list[object] = []

    def modules(self) -> list[Any]:
        """Return the description of the whole module tree."""
        main, first, rows = model_dtype(self._module), dict[int, str](), list[Any]()
        for path, part in self._module.named_modules(remove_duplicate=False):
            if self._names[id(part)] != path:
                rows.append([path, {"same": self._names[id(part)]}])
                continue
            own = {
                key: self.value(item, f"{path}.{key}")
                for key, item in sorted(part.__dict__.items())
                if key not in PRIVATE_TO_TORCH and key not in NOT_COMPUTED and not isinstance(item, torch.Tensor)
            }
            plain = {key: [str(item.dtype), list(item.shape)] for key, item in sorted(part.__dict__.items()) if isinstance(item, torch.Tensor)}
            hooks = [self.value(dict(getattr(part, key)), f"{path}.{key}") for key in HOOKS if getattr(part, key)]
            tensors = [self._tensor(f"{path}.{key}", item, main, first) for key, item in [*part._parameters.items(), *part._buffers.items()]]
            rows.append([path, self.value(type(part), path), own, plain, hooks, tensors])
        return rows

    def _tensor(self, name: str, tensor: torch.Tensor | None, main: torch.dtype, first: dict[int, str]) -> list[Any]:
        if tensor is None:
            return [name, None]
        follows = isinstance(tensor, nn.Parameter) and tensor.dtype == main
        return [name, "model" if follows else str(tensor.dtype), list(tensor.shape), first.setdefault(id(tensor), name)]

    def value(self, item: Any, where: str) -> Any:
        """Return the description of any value; note it in `unknown` where there is none."""
        if item is None or isinstance(item, bool | str):
            return item
        if isinstance(item, float):
            return {"float": item.hex()}
        if isinstance(item, int) and not isinstance(item, enum.Enum):
            return item if abs(item) < 2**53 else {"integer": str(item)}
        if isinstance(item, nn.Module) and id(item) in self._names:
            return {"module": self._names[id(item)]}
        if id(item) in self._seen:
            return {"seen": self._seen[id(item)]}
        if isinstance(item, types.ModuleType):
            return {"package": item.__name__}
        self._seen[id(item)] = len(self._seen)
        self._kept.append(item)
        return self._object(item, where)

    def _object(self, item: Any, where: str) -> Any:
        if isinstance(item, torch.Tensor):
            return self._numbers(item)
        if isinstance(item, np.ndarray) and item.dtype.kind in "biufc":
            return {"array": [str(item.dtype), list(item.shape), digest_bytes(np.ascontiguousarray(item).tobytes())]}
        if isinstance(item, Mapping):
            return {"items": [[self.value(key, where), self.value(one, f"{where}[{key!r}]")] for key, one in item.items()], "type": _name(type(item))}
        if isinstance(item, list | tuple):
            return {"list": [self.value(one, where) for one in item], "type": _name(type(item))}
        if isinstance(item, set | frozenset):
            return {"set": sorted((self.value(one, where) for one in item), key=repr)}
        if isinstance(item, torch.dtype | torch.device | np.dtype | PurePath | range | slice | complex | bytes):
            return {_name(type(item)): repr(item)}
        if isinstance(item, enum.Enum):
            return {"enum": [_name(type(item)), item.name]}
        if isinstance(item, functools.partial):
            return {"partial": [self.value(part, where) for part in (item.func, item.args, item.keywords)]}
        return self._code_or_state(item, where)

    def _code_or_state(self, item: Any, where: str) -> Any:
        if isinstance(item, type):
            return self._class(item)
        if isinstance(item, types.MethodType):
            return {"method": [self.value(item.__func__, where), self.value(item.__self__, where)]}
        if isinstance(item, types.FunctionType):
            return self._function(item)
        if isinstance(item, types.BuiltinFunctionType | types.WrapperDescriptorType | types.MethodDescriptorType):
            return {"builtin": item.__qualname__}
        if isinstance(item, property):
            return {"property": [self.value(part, where) for part in (item.fget, item.fset)]}
        if isinstance(item, staticmethod | classmethod):
            return {type(item).__name__: self.value(item.__func__, where)}
        if hasattr(type(item), "__slots__") or not hasattr(item, "__dict__"):
            self.unknown.append(f"{where}, a {_name(type(item))}")
            return {"unknown": _name(type(item))}
        state = {key: self.value(one, f"{where}.{key}") for key, one in sorted(vars(item).items()) if key not in NOT_COMPUTED}
        return {"object": [self.value(type(item), where), state]}

    def _numbers(self, tensor: torch.Tensor) -> Any:
        if tensor.device.type == "meta":
            return {"tensor": [str(tensor.dtype), list(tensor.shape), "meta"]}
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return {"tensor": [str(tensor.dtype), list(tensor.shape), digest_bytes(raw)]}

    def _class(self, item: type) -> Any:
        if _package(item.__module__) in VERSIONED - {"transformers"}:
            return {"class": _name(item)}
        bases = [self.value(base, _name(item)) for base in item.__mro__[1:] if base is not object]
        own = [
            [key, self.value(one, f"{_name(item)}.{key}")]
            for key, one in sorted(vars(item).items())
            if isinstance(one, types.FunctionType | property | staticmethod | classmethod | bool | int | float | str | torch.Tensor) and key not in ("__module__", "__doc__")
        ]
        return {"class": [_name(item), bases, own]}

    def _function(self, item: types.FunctionType) -> Any:
        name = f"{item.__module__}.{item.__qualname__}"
        known = _package(item.__module__) in VERSIONED
        if known and _package(item.__module__) != "transformers":
            return {"function": name}
        reached = {
            key: self.value(item.__globals__[key], f"{name}: {key}")
            for key in sorted(_names_of(item.__code__))
            if key in item.__globals__ and self._counts(item.__globals__[key], item.__module__, known)
        }
        cells = [cell.cell_contents for cell in item.__closure__ or () if _filled(cell)]
        inner = [self.value(one, name) for one in cells if not known or isinstance(one, types.FunctionType)]
        defaults = [self.value(item.__defaults__, name), self.value(item.__kwdefaults__, name)] if not known else []
        return {"function": [name, _bytecode(item.__code__), reached, inner, defaults]}

    def _counts(self, item: Any, here: str, known: bool) -> bool:
        """Tell whether a value that a function reaches by name belongs into the description."""
        if not known:
            return True
        if isinstance(item, types.FunctionType):
            return item.__module__ == here or _package(item.__module__) not in VERSIONED
        return False


def _filled(cell: Any) -> bool:
    """Tell whether a closure's cell has a value yet (one that refers to itself may have none)."""
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _name(item: type) -> str:
    return f"{item.__module__}.{item.__qualname__}"


def _package(module: str | None) -> str:
    return (module or "").partition(".")[0]


def _names_of(code: types.CodeType) -> set[str]:
    """Return the names that the code, and code nested in it, looks up."""
    inner = [_names_of(part) for part in code.co_consts if isinstance(part, types.CodeType)]
    return set(code.co_names).union(*inner)


def _bytecode(code: types.CodeType) -> list[Any]:
    """Return what the code does, without file names and line numbers."""
    constants = [_bytecode(part) if isinstance(part, types.CodeType) else _constant(part) for part in code.co_consts]
    return [code.co_code.hex(), constants, list(code.co_names), list(code.co_varnames), code.co_flags]


def _constant(item: object) -> str:
    """Say a constant of the code; a set's order differs from run to run, so it is sorted."""
    if isinstance(item, frozenset):
        return f"frozenset({sorted(map(repr, item))})"
    return item.hex() if isinstance(item, float) else repr(item)
