"""What a module computes, apart from the values of its weights, as a JSON value: the base of the cache's key.

Two modules with one description must have one circuit. So it holds the module tree, shapes and ties of weights, every plain
attribute (a number read in `forward` is baked into the circuit), hooks, and the code: the bytecode of the classes' methods and
of the functions and values that they reach by name. Code of released packages (`VERSIONED`) is taken as its name, the key
having their versions; of transformers, whose functions some packages replace, the code is looked at too; of other installed
packages the file. What cannot be described is named in
`unknown`: such a module is not cached at all, because a stale circuit would be wrong in silence.
"""

from __future__ import annotations

import enum
import functools
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import nn

from scrubjay.capture.export import model_dtype
from scrubjay.evidence.digest import digest_array, digest_bytes

VERSIONED = frozenset(
    {"torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "numpy", *sys.stdlib_module_names}
    - {"builtins"}
)
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
            plain = {
                key: [str(item.dtype), list(item.shape)]
                for key, item in sorted(part.__dict__.items())
                if isinstance(item, torch.Tensor)
            }
            hooks = [self.value(dict(getattr(part, key)), f"{path}.{key}") for key in HOOKS if getattr(part, key)]
            tensors = [
                self._tensor(f"{path}.{key}", item, main, first)
                for key, item in [*part._parameters.items(), *part._buffers.items()]
            ]
            rows.append([path, self.value(type(part), path), own, plain, hooks, tensors])
        return rows

    def _tensor(self, name: str, tensor: torch.Tensor | None, main: torch.dtype, first: dict[int, str]) -> list[Any]:
        if tensor is None:
            return [name, None]
        follows = isinstance(tensor, nn.Parameter) and tensor.dtype == main
        return [name, "model" if follows else str(tensor.dtype), list(tensor.shape), first.setdefault(id(tensor), name)]

    def value(self, item: Any, where: str) -> Any:
        """Return the description of any value; note it in `unknown` where there is none."""
        if isinstance(item, nn.Module) and id(item) in self._names:
            return {"module": self._names[id(item)]}
        if isinstance(item, ATOMS):
            return _atom(item)
        if type(item).__module__ == "typing" or isinstance(item, types.GenericAlias | types.UnionType):
            return {"typing": repr(item)}
        if id(item) in self._seen:
            return {"seen": self._seen[id(item)]}
        self._seen[id(item)] = len(self._seen)
        self._kept.append(item)
        for kinds, describe in HANDLERS:
            if isinstance(item, kinds):
                return describe(self, item, where)
        if hasattr(type(item), "__slots__") or not hasattr(item, "__dict__"):
            self.unknown.append(f"{where}, a {_name(type(item))}")
            return {"unknown": _name(type(item))}
        state = {
            key: self.value(one, f"{where}.{key}") for key, one in sorted(vars(item).items()) if key not in NOT_COMPUTED
        }
        return {"object": [self.value(type(item), where), state]}

    def _values(self, items: Iterable[Any], where: str) -> list[Any]:
        return [self.value(one, where) for one in items]

    def _mapping(self, item: Mapping[Any, Any], where: str) -> Any:
        return {
            "items": [[self.value(key, where), self.value(one, f"{where}[{key!r}]")] for key, one in item.items()],
            "type": _name(type(item)),
        }

    def _list(self, item: Sequence[Any], where: str) -> Any:
        return {"list": self._values(item, where), "type": _name(type(item))}

    def _set(self, item: Iterable[Any], where: str) -> Any:
        return {"set": sorted(self._values(item, where), key=repr)}

    def _partial(self, item: functools.partial[Any], where: str) -> Any:
        return {"partial": self._values((item.func, item.args, item.keywords), where)}

    def _method(self, item: types.MethodType, where: str) -> Any:
        return {"method": self._values((item.__func__, item.__self__), where)}

    def _property(self, item: property, where: str) -> Any:
        return {"property": self._values((item.fget, item.fset), where)}

    def _wrapped(self, item: staticmethod[..., Any] | classmethod[Any, ..., Any], where: str) -> Any:
        return {type(item).__name__: self.value(item.__func__, where)}

    def _tensor_value(self, item: torch.Tensor, _: str) -> Any:
        if item.device.type == "meta":
            return {"tensor": [str(item.dtype), list(item.shape), "meta"]}
        raw = item.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return {"tensor": [str(item.dtype), list(item.shape), digest_bytes(raw)]}

    def _array(self, item: np.ndarray, where: str) -> Any:
        if item.dtype.kind in "biufc":
            return {"array": digest_array(item)}
        return {"array": self._values(item.ravel().tolist(), where), "shape": list(item.shape)}

    def _class(self, item: type, where: str) -> Any:
        package = _package(item.__module__)
        if package in VERSIONED - {"transformers"}:
            return {"class": _name(item)}
        if package != "transformers" and (file := _installed(item.__module__)):
            return {"class": _name(item), "file": file}
        own = [
            [key, self.value(one, f"{_name(item)}.{key}")]
            for key, one in sorted(vars(item).items())
            if isinstance(one, CODE)
            or (isinstance(one, CONSTANTS) and package != "transformers" and not key.startswith("__"))
        ]
        return {
            "class": [_name(item), self._values((base for base in item.__mro__[1:] if base is not object), where), own]
        }

    def _function(self, item: types.FunctionType, _: str) -> Any:
        name, package = f"{item.__module__}.{item.__qualname__}", _package(item.__module__)
        if package in VERSIONED - {"transformers"}:
            return {"function": name}
        if package != "transformers" and (file := _installed(item.__module__)):
            return {"function": name, "file": file}
        released = package == "transformers"
        reached = {
            key: self.value(item.__globals__[key], f"{name}: {key}")
            for key in sorted(_names_of(item.__code__))
            if key in item.__globals__ and (not released or _is_code_of(item.__globals__[key], item.__module__))
        }
        cells = [cell.cell_contents for cell in item.__closure__ or () if _filled(cell)]
        inner = self._values((one for one in cells if not released or isinstance(one, types.FunctionType)), name)
        defaults = [] if released else self._values((item.__defaults__, item.__kwdefaults__), name)
        return {"function": [name, _bytecode(item.__code__), reached, inner, defaults]}


ATOMS = (
    type(None),
    bool,
    str,
    int,
    float,
    complex,
    bytes,
    torch.dtype,
    torch.device,
    np.dtype,
    PurePath,
    range,
    slice,
    re.Pattern,
    enum.Enum,
)
CODE = (types.FunctionType, property, staticmethod, classmethod)
CONSTANTS = (bool, int, float, str, tuple, list, dict, torch.Tensor)
"""What of a class can bear on what its modules compute: code, and values in the class itself."""

HANDLERS: tuple[tuple[Any, Callable[[Description, Any, str], Any]], ...] = (
    (torch.Tensor, Description._tensor_value),
    (np.ndarray, Description._array),
    (Mapping, Description._mapping),
    ((list, tuple), Description._list),
    ((set, frozenset), Description._set),
    (functools.partial, Description._partial),
    (type, Description._class),
    (types.MethodType, Description._method),
    (types.FunctionType, Description._function),
    ((staticmethod, classmethod), Description._wrapped),
    (property, Description._property),
    (
        types.ModuleType,
        lambda _self, item, _where: {
            "package": item.__name__,
            "file": None if _package(item.__name__) in VERSIONED else _file(item.__name__),
        },
    ),
    (
        (types.BuiltinFunctionType, types.WrapperDescriptorType, types.MethodDescriptorType),
        lambda _self, item, _where: {"builtin": item.__qualname__},
    ),
)


def _atom(item: Any) -> Any:
    if isinstance(item, enum.Enum):
        return {"enum": [_name(type(item)), item.name]}
    if item is None or isinstance(item, bool | str):
        return item
    if isinstance(item, float):
        return {"float": item.hex()}
    if isinstance(item, int):
        return item if abs(item) < 2**53 else {"integer": str(item)}
    text = [item.pattern, item.flags] if isinstance(item, re.Pattern) else item
    return {_name(type(item)): repr(text)}


def _is_code_of(item: Any, module: str) -> bool:
    """Tell whether a value is a function of that module, or one that somebody put in a released function's place."""
    return isinstance(item, types.FunctionType) and (
        item.__module__ == module or not (_package(item.__module__) in VERSIONED or _installed(item.__module__))
    )


def _installed(module: str | None) -> str | None:
    """Return the digest of the file of an installed module; None for one of the user's own."""
    file = "" if module == "__main__" else getattr(sys.modules.get(module or ""), "__file__", None) or ""
    return _file(module or "") if {"site-packages", "dist-packages"} & set(PurePath(file).parts) else None


@functools.cache
def _file(module: str) -> str | None:
    """Return the digest of a loaded module's file; None where it has none (a notebook)."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return digest_bytes(Path(file).read_bytes()) if file and Path(file).is_file() else None


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
