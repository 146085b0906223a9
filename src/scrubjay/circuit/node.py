"""What every node is: an immutable, interned expression with named axes.

Equal structure is the same object, so equality is identity, sharing needs no search and a dictionary over nodes is
cheap. A node knows its operands, its axes, and the axes it *acts along*; along every other axis it is pointwise. It does
not know how it is evaluated, printed or drawn: those are tables elsewhere, keyed by node type.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, cast, dataclass_transform

from scrubjay.circuit.axes import Axis
from scrubjay.errors import CircuitError


def _key(value: object) -> object:
    """Return a hashable stand-in that tells 1 from 1.0 from True and -0.0 from 0.0, and equates NaN with itself."""
    if isinstance(value, float):
        return ("float", value.hex())
    if isinstance(value, bool | int):
        return (type(value).__name__, value)
    if isinstance(value, tuple):
        return tuple(_key(item) for item in cast("tuple[object, ...]", value))
    return value


class _Interned(type):
    """Give back the live equal node, if there is one.

    `__call__` has no return annotation on purpose: with one, type checkers stop checking every node's constructor.
    """

    _live: ClassVar[weakref.WeakValueDictionary[tuple[object, ...], Any]] = weakref.WeakValueDictionary()
    _lock: ClassVar[threading.RLock] = threading.RLock()

    def __call__(cls, *args: Any, **kwargs: Any):
        made = super().__call__(*args, **kwargs)
        values = tuple(getattr(made, field.name) for field in fields(made))
        key = (cls, *(_key(value) for value in values))
        with _Interned._lock:
            live = _Interned._live.get(key)
            if live is None:
                made._settle(values)
                live = _Interned._live.setdefault(key, made)
            return live


@dataclass_transform(frozen_default=True, eq_default=False)
class Node(metaclass=_Interned):
    """An expression: a value with named axes, computed from other nodes."""

    _axes: ClassVar[tuple[Axis, ...]]
    _operands: ClassVar[tuple[Node, ...]]

    def __init_subclass__(cls) -> None:
        """Make every kind of node a frozen dataclass compared by identity."""
        dataclass(frozen=True, eq=False, repr=False)(cls)

    def _settle(self, values: tuple[object, ...]) -> None:
        """Check a new node and remember its operands and axes."""
        operands: list[Node] = []
        for value in values:
            items = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,)
            operands.extend(item for item in items if isinstance(item, Node))
        object.__setattr__(self, "_operands", tuple(operands))
        object.__setattr__(self, "_axes", self.find_axes())

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the axes, in the glossary's order; raise `CircuitError` when the node would be ill-formed."""
        raise NotImplementedError

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes of the value, in the glossary's order (a set: the order means nothing)."""
        return self._axes

    @property
    def operands(self) -> tuple[Node, ...]:
        """The nodes this one is computed from, in order."""
        return self._operands

    @property
    def acts_along(self) -> frozenset[str]:
        """The names of the axes this node acts along; along every other it is pointwise."""
        return frozenset()

    @property
    def axis_names(self) -> frozenset[str]:
        """The names of the axes."""
        return frozenset(axis.name for axis in self._axes)

    def size(self, name: str) -> int | str:
        """Return the size of the axis `name`; raise `CircuitError` when the node has no such axis."""
        for axis in self._axes:
            if axis.name == name:
                return axis.size
        raise CircuitError(f"{self!r} has no axis {name!r}; its axes are {', '.join(map(str, self._axes)) or 'none'}")

    def with_operands(self, operands: Sequence[Node]) -> Self:
        """Return the same kind of node over other operands (one for each, in the same order)."""
        if len(operands) != len(self._operands):
            raise CircuitError(f"{self!r} has {len(self._operands)} operands and was given {len(operands)}")
        if all(new is old for new, old in zip(operands, self._operands, strict=True)):
            return self
        rest = iter(operands)
        values: list[Any] = []
        for field in fields(cast("Any", self)):
            value: Any = getattr(self, field.name)
            if isinstance(value, Node):
                values.append(next(rest))
            elif isinstance(value, tuple) and any(isinstance(item, Node) for item in cast("tuple[object, ...]", value)):
                items = cast("tuple[object, ...]", value)
                values.append(tuple(next(rest) if isinstance(item, Node) else item for item in items))
            else:
                values.append(value)
        return type(self)(*values)

    def __repr__(self) -> str:
        """Name the kind, its own parameters and its axes, not what is below it."""
        own: list[str] = []
        for field in fields(cast("Any", self)):
            value: Any = getattr(self, field.name)
            if not isinstance(value, Node) and not (
                isinstance(value, tuple) and any(isinstance(v, Node) for v in cast("tuple[object, ...]", value))
            ):
                own.append(f"{field.name}={value!r}")
        axes = " ".join(map(str, self._axes))
        return f"<{type(self).__name__} {', '.join(own)} [{axes}]>"

    def __copy__(self) -> Self:
        """Return the node itself: it cannot change."""
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Return the node itself: it cannot change."""
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        """Read back through the constructor, so that a copy from elsewhere is interned too."""
        return type(self), tuple(getattr(self, field.name) for field in fields(cast("Any", self)))
