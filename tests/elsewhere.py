"""A device that stands for a GPU where there is none: its tensors have numbers, and mixing them with the processor's raises.

Made for a process of its own: torch keeps such a device for as long as it lives. An operation on tensors of two devices raises
what torch raises, with the exceptions that CUDA has: single numbers, and indices on the processor into a tensor elsewhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "elsewhere"
_setup_privateuseone_for_python_backend(NAME)
DEVICE = torch.device(NAME, 0)
COPIES = ("aten._to_copy.default", "aten.copy_.default", "aten._copy_from.default")
INDEXED = ("aten.index.Tensor", "aten.index_put.default", "aten.index_put_.default")


class There(torch.Tensor):
    """A tensor on the device; its numbers are `numbers`."""

    numbers: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> There:
        """Wrap a tensor of the processor."""
        made: There = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype, device=DEVICE
        )  # fmt: skip
        made.numbers = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do an operation on the device."""
        return done(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        """Show the numbers."""
        del tensor_contents
        return f"There({self.numbers})"


def done(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Return what an operation gives, on the device where its operands are or where it was told to be."""
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
    there = {id(one.numbers): one for one in tensors if isinstance(one, There)}
    here = [one for one in tensors if not isinstance(one, There) and one.device.type == "cpu" and one.dim() > 0]
    name = str(func)
    if there and here and name not in COPIES and not (name in INDEXED and isinstance(args[0], There)):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, found {DEVICE} and cpu")
    given = kwargs.get("device")
    stays = bool(there) if given is None else torch.device(given).type == NAME
    if given is not None and stays:
        kwargs = {**kwargs, "device": "cpu"}
    made = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))

    def placed(one: Any) -> Any:
        if not isinstance(one, torch.Tensor) or not stays or one.is_meta:
            return one
        return there[id(one)] if id(one) in there else There(one)

    return tree_map(placed, made)


def _inner(one: Any) -> Any:
    return one.numbers if isinstance(one, There) else one


class Factories(TorchDispatchMode):
    """While on, tensors are made on the device where it is asked for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do any operation."""
        return done(func, args, kwargs or {})


def _empty(size: Any, *_: Any, dtype: Any = None, **__: Any) -> There:
    return There(torch.empty(size, dtype=dtype))


def _copied(one: torch.Tensor, to: There, *_: Any) -> There:
    to.numbers.copy_(_inner(one))
    return to


# what torch.tensor(..., device=...) calls with all modes off
_LIBRARY = torch.library.Library("aten", "IMPL")
_LIBRARY.impl("empty_strided", _empty, "PrivateUse1")
_LIBRARY.impl("empty.memory_format", _empty, "PrivateUse1")
_LIBRARY.impl("_copy_from", _copied, "PrivateUse1")
