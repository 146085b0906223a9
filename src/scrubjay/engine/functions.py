"""The named functions of `Map` and `Along` nodes, as torch computes them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from scrubjay.engine.array import Array


def _tensors(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor | float]:
    """Return the function with bare numbers turned into tensors of the other operand's type (as Python numbers count).

    Of bare numbers alone it gives a bare number, found in 64 bits.
    """

    def wrapped(*items: Any) -> torch.Tensor | float:
        like = next((item for item in items if isinstance(item, torch.Tensor)), None)
        if like is None:
            found = function(*map(torch.tensor, items))
            wide = [torch.tensor(item, dtype=torch.float64) for item in items]
            return (function(*wide) if found.is_floating_point() else found).item()
        made: list[torch.Tensor] = []
        for item in items:
            if isinstance(item, torch.Tensor):
                made.append(item)
            else:
                kind = torch.result_type(like, item)
                made.append(torch.tensor(item, dtype=kind, device=like.device))
        return function(*made)

    return wrapped


def _cast(value: Any, dtype: torch.dtype) -> torch.Tensor:
    return value.to(dtype) if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=dtype)


def _where(condition: Any, yes: Any, no: Any) -> Any:
    if not any(isinstance(item, torch.Tensor) for item in (condition, yes, no)):
        return yes if condition else no
    items = [condition, yes, no]
    if any(isinstance(item, torch.Tensor) and item.is_meta for item in items):  # a cast number lies on no device
        items = [item.to("meta") if isinstance(item, torch.Tensor) else item for item in items]
    return torch.where(torch.as_tensor(items[0]), items[1], items[2])


def _quick_gelu(value: torch.Tensor) -> torch.Tensor:
    return value * torch.sigmoid(1.702 * value)


def _gelu(value: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(value) if value.is_meta else F.gelu(value)


def _silu(value: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(value) if value.is_meta else F.silu(value)


def _gelu_tanh(value: torch.Tensor) -> torch.Tensor:
    if value.is_meta:  # a rehearsal: torch takes milliseconds to find the shape
        return torch.empty_like(value)
    return F.gelu(value, approximate="tanh")


def _softplus(value: torch.Tensor | float, beta: float, threshold: float) -> torch.Tensor:
    return F.softplus(torch.as_tensor(value), beta, threshold)


def _leaky_relu(value: torch.Tensor | float, slope: float) -> torch.Tensor:
    return F.leaky_relu(torch.as_tensor(value), slope)


_BINARY: dict[str, Any] = {
    "divide": "truediv", "floor_divide": "floordiv", "equal": "eq", "not_equal": "ne", "greater": "gt", "greater_equal": "ge",
    "less": "lt", "less_equal": "le", "power": "pow", "remainder": "mod", "bitwise_and": "and_", "bitwise_or": "or_",
}  # fmt: skip
"""Functions that are Python's own operators, by their names there; bare numbers take part as Python numbers do."""


def _center(value: torch.Tensor, dim: int) -> torch.Tensor:
    return value - value.mean(dim, keepdim=True)


def _variance(value: torch.Tensor, dim: int) -> torch.Tensor:
    return value.var(dim, correction=0)


MAP: dict[str, Callable[..., Any]] = {
    **{name: getattr(operator, python) for name, python in _BINARY.items()},
    **{
        name: _tensors(getattr(torch, name))
        for name in (
            *("abs", "ceil", "cos", "erf", "exp", "expm1", "floor", "isfinite", "isinf", "isnan", "log", "log1p", "reciprocal"),
            *("relu", "round", "rsqrt", "sigmoid", "sign", "sin", "sqrt", "tan", "tanh", "bitwise_not", "maximum", "minimum"),
        )
    },
    "cast": _cast, "elu": _tensors(F.elu), "gelu": _tensors(_gelu), "gelu_tanh": _tensors(_gelu_tanh), "hardtanh": _tensors(F.hardtanh),
    "leaky_relu": _leaky_relu, "not": _tensors(torch.logical_not), "quick_gelu": _tensors(_quick_gelu), "silu": _tensors(_silu),
    "softplus": _softplus, "and": _tensors(torch.logical_and), "or": _tensors(torch.logical_or), "xor": _tensors(torch.logical_xor),
    "where": _where,
}  # fmt: skip


def _along_one(
    function: Callable[..., torch.Tensor], *, keeps: bool
) -> Callable[[Array, Sequence[str], Sequence[Any]], Array]:
    """Return a kernel that merges the axes it runs over into one, last."""

    def kernel(source: Array, over: Sequence[str], parameters: Sequence[Any]) -> Array:
        tensor = source.as_tensor()
        if len(over) == 1:
            place = source.names.index(over[0])
            made = function(tensor, place, *parameters)
            return Array(made, source.names if keeps else (*source.names[:place], *source.names[place + 1 :]))
        rest = tuple(name for name in source.names if name not in over)
        laid = source.dense((*rest, *over))
        made = function(laid.reshape([*laid.shape[: len(rest)], -1]), len(rest), *parameters)
        return Array(made.reshape(laid.shape), (*rest, *over)) if keeps else Array(made, rest)

    return kernel


def _safe_softmax(value: torch.Tensor, dim: int) -> torch.Tensor:
    """Softmax that gives zeros where everything is -inf."""
    return torch.ops.aten._safe_softmax(value, dim)


def _rms(value: torch.Tensor, dim: int, eps: float) -> torch.Tensor:
    return (value.pow(2).mean(dim) + eps).sqrt()


ALONG: dict[str, Callable[[Array, Sequence[str], Sequence[Any]], Array]] = {
    "softmax": _along_one(torch.softmax, keeps=True),
    "safe_softmax": _along_one(_safe_softmax, keeps=True),
    "log_softmax": _along_one(torch.log_softmax, keeps=True),
    "center": _along_one(_center, keeps=True),
    "cumsum": _along_one(torch.cumsum, keeps=True),
    "cumprod": _along_one(torch.cumprod, keeps=True),
    "mean": _along_one(torch.mean, keeps=False),
    "sum": _along_one(torch.sum, keeps=False),
    "max": _along_one(torch.amax, keeps=False),
    "min": _along_one(torch.amin, keeps=False),
    "any": _along_one(torch.any, keeps=False),
    "all": _along_one(torch.all, keeps=False),
    "argmax": _along_one(torch.argmax, keeps=False),
    "argmin": _along_one(torch.argmin, keeps=False),
    "logsumexp": _along_one(torch.logsumexp, keeps=False),
    "prod": _along_one(torch.prod, keeps=False),
    "var": _along_one(_variance, keeps=False),
    "rms": _along_one(_rms, keeps=False),
}
