"""Frozen dataclasses of plain values as JSON and back, by the types that their fields declare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from scrubjay.circuit.address import Address, parse
from scrubjay.errors import AddressError, LoadError

Json = Any

SCALARS: tuple[type, ...] = (bool, int, float, str, type(None))


def plain(value: Any) -> Json:
    """Return a value as JSON has it: a dataclass as a mapping, a tuple as a list, a set as a sorted list, an address as text.

    >>> plain((1, frozenset({"b", "a"})))
    [1, ['a', 'b']]
    """
    if isinstance(value, Address):
        return str(value)
    if is_dataclass(value):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, frozenset):
        return sorted(plain(one) for one in cast("frozenset[Any]", value))
    if isinstance(value, tuple):
        return [plain(one) for one in cast("tuple[Any, ...]", value)]
    if type(value) in SCALARS:
        return value
    raise LoadError(f"{value!r} has no stored form")


def built(hint: Any, data: Json, where: str) -> Any:
    """Return the value of a declared type that `plain` wrote.

    Raises `LoadError` for data of another form, `where` saying which.

    >>> built(tuple[int, ...], [1, 2], "sizes")
    (1, 2)
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return data if type(data) in inner else _refused(hint, data, where)
    if hint is Address:
        try:
            return parse(_typed(str, data, where))
        except AddressError as error:
            raise LoadError(f"{where}: {error}") from error
    if is_dataclass(hint):
        return _dataclass(cast("type", hint), data, where)
    if origin is frozenset:
        return frozenset(built(inner[0], one, where) for one in _typed(list, data, where))
    if origin is tuple and inner[-1] is Ellipsis:
        return tuple(built(inner[0], one, where) for one in _typed(list, data, where))
    if origin is tuple:
        row = _typed(list, data, where)
        if len(row) != len(inner):
            _refused(hint, data, where)
        return tuple(built(one, item, where) for one, item in zip(inner, row, strict=True))
    return _typed(hint, data, where)


def _dataclass(hint: Callable[..., Any], data: Json, where: str) -> Any:
    found: dict[str, Any] = _typed(dict, data, where)
    hints = get_type_hints(hint)
    names = [one.name for one in fields(cast("Any", hint))]
    if set(found) != set(names):
        raise LoadError(
            f"{where} has the fields {', '.join(map(str, found))[:200] or 'none'}, and should have {', '.join(names)}"
        )
    values = {name: built(hints[name], found[name], f"{where}.{name}") for name in names}
    try:
        return hint(**values)
    except AddressError as error:
        raise LoadError(f"{where}: {error}") from error


def _typed(hint: type, data: Json, where: str) -> Any:
    return data if type(data) is hint else _refused(hint, data, where)


def _refused(hint: Any, data: Json, where: str) -> Any:
    raise LoadError(f"{where} is {repr(data)[:60]}, of type {type(data).__name__}, and should be {hint}")
