"""What every node is: an immutable, interned expression with named axes.

Equal structure is the same object, so equality is identity, sharing needs no search and a dictionary over nodes is
cheap. A node knows its operands, its axes, and the axes it *acts along*; along every other axis it is pointwise. It does
not know how it is evaluated, printed or drawn: those are tables elsewhere, keyed by node type.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Self, cast, dataclass_transform

from scrubjay.circuit.axes import Axis, is_random
from scrubjay.errors import CircuitError

_KINDS: set[type] = set()
"""Every kind of node: asking `type(item) in _KINDS` is quicker than `isinstance`, which a metaclass slows down."""
_PLAIN: set[type] = {str, int, type(None)}
"""Types whose values are their own keys, the kinds of node among them (they are compared by identity)."""


def _key(value: object) -> object:
    """Return a hashable stand-in that tells 1 from 1.0 from True and -0.0 from 0.0, and equates NaN with itself."""
    kind = type(value)
    if kind in _PLAIN or isinstance(value, str):
        return value
    if isinstance(value, tuple):
        items = cast("tuple[object, ...]", value)
        return items if _PLAIN.issuperset(map(type, items)) else tuple(map(_key, items))
    if isinstance(value, float):
        return (float, value.hex())
    return (kind, value)


class _Interned(type):
    """Give back the live equal node, if there is one: it is looked for before anything is made or checked.

    `__call__` has no return annotation on purpose: with one, type checkers stop checking every node's constructor.
    """

    _live: ClassVar[weakref.WeakValueDictionary[tuple[object, ...], Any]] = weakref.WeakValueDictionary()
    _lock: ClassVar[threading.RLock] = threading.RLock()
    field_names: tuple[str, ...]
    field_defaults: dict[str, object]

    def __call__(cls, *args: Any, **kwargs: Any):
        values = args
        if kwargs or len(args) != len(cls.field_names):
            values = cls._bound(args, kwargs)
        key = (cls, *map(_key, values))
        live = _Interned._live.get(key)
        if live is None:
            with _Interned._lock:
                live = _Interned._live.get(key)
                if live is None:
                    live = type.__call__(cls, *values)
                    try:
                        live._settle(values)
                    except (AttributeError, TypeError) as error:
                        raise CircuitError(_unfit(cls, values, error)) from error
                    _Interned._live[key] = live
        return live

    def _bound(cls, args: tuple[object, ...], kwargs: dict[str, object]) -> tuple[object, ...]:
        """Return one value for each field; raise `TypeError` where the arguments do not fit the fields."""
        rest = cls.field_names[len(args) :]
        if len(args) <= len(cls.field_names) and kwargs.keys() <= set(rest):
            filled = {**cls.field_defaults, **kwargs}
            if all(name in filled for name in rest):
                return (*args, *[filled[name] for name in rest])
        made = super().__call__(*args, **kwargs)  # says what is wrong with the arguments
        return tuple(getattr(made, name) for name in cls.field_names)


def _unfit(cls: Any, values: tuple[object, ...], error: Exception) -> str:
    """Say which value went into which field, where a node could not be made of them."""
    given = ", ".join(f"{name}: {type(value).__name__}" for name, value in zip(cls.field_names, values, strict=False))
    wanted = ", ".join(f"{one.name}: {one.type}" for one in fields(cls))
    return f"a {cls.__name__} holds ({wanted}) and was given ({given}): {error}"


_RANDOM = frozenset({"Sample", "Repeat", "Expectation", "Cumulant"})
"""The kinds that may act along a random axis."""


def _check_random(node: Node) -> None:
    """Refuse a node that acts along the outcomes of a random source."""
    wrong = [name for name in sorted(node.acts_along) if is_random(name)]
    if wrong and type(node).__name__ not in _RANDOM:
        raise CircuitError(
            f"{type(node).__name__} would act along {wrong[0]!r}: the outcomes of a random source have no order and no number of their own. "
            "Only Sample makes such an axis, and only Expectation and Cumulant are over it"
        )


@dataclass_transform(frozen_default=True, eq_default=False)
class Node(metaclass=_Interned):
    """An expression: a value with named axes, computed from other nodes."""

    axes: ClassVar[tuple[Axis, ...]]
    """The axes of the value, in the glossary's order (a set: the order means nothing). Found once, when a node is new."""
    operands: ClassVar[tuple[Node, ...]]
    """The nodes this one is computed from, in order."""

    def __init_subclass__(cls) -> None:
        """Make every kind of node a frozen dataclass compared by identity."""
        dataclass(frozen=True, eq=False, repr=False)(cls)
        known = fields(cast("Any", cls))
        cls.field_names = tuple(field.name for field in known)
        cls.field_defaults = {field.name: field.default for field in known if field.default is not MISSING}
        _KINDS.add(cls)
        _PLAIN.add(cls)

    def _settle(self, values: tuple[object, ...]) -> None:
        """Check a new node and remember its operands and axes."""
        operands: tuple[Any, ...] = ()
        for value in values:
            if type(value) in _KINDS:
                operands = (*operands, value)
            elif isinstance(value, tuple):
                value = cast("tuple[Any, ...]", value)
                items = [item for item in value if type(item) in _KINDS]
                if items:  # a field that is all operands is kept once
                    operands = value if len(items) == len(value) and not operands else (*operands, *items)
        object.__setattr__(self, "operands", operands)
        object.__setattr__(self, "axes", self.find_axes())
        for node in (self, *operands):
            if node.axes and is_random(node.axes[-1].name):  # they come last
                _check_random(self)
                break

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the axes, in the glossary's order; raise `CircuitError` when the node would be ill-formed."""
        raise NotImplementedError

    @property
    def acts_along(self) -> frozenset[str]:
        """The names of the axes this node acts along; along every other it is pointwise."""
        return frozenset()

    @property
    def axis_names(self) -> frozenset[str]:
        """The names of the axes."""
        return frozenset(axis.name for axis in self.axes)

    def size(self, name: str) -> int | str:
        """Return the size of the axis `name`; raise `CircuitError` when the node has no such axis."""
        for axis in self.axes:
            if axis.name == name:
                return axis.size
        raise CircuitError(f"{self!r} has no axis {name!r}; its axes are {', '.join(map(str, self.axes)) or 'none'}")

    def with_operands(self, operands: Sequence[Node]) -> Self:
        """Return the same kind of node over other operands (one for each, in the same order)."""
        old, new = self.operands, tuple(operands)
        if len(new) != len(old):
            raise CircuitError(f"{self!r} has {len(old)} operands and was given {len(new)}")
        if new == old:
            return self
        rest = iter(new)
        values: list[Any] = []
        for name in type(self).field_names:
            value: Any = getattr(self, name)
            if type(value) in _KINDS:
                value = next(rest)
            elif isinstance(value, tuple) and value == old:
                value = new
            elif isinstance(value, tuple) and not _KINDS.isdisjoint(map(type, cast("tuple[object, ...]", value))):
                items = cast("tuple[object, ...]", value)
                value = tuple(next(rest) if type(item) in _KINDS else item for item in items)
            values.append(value)
        return type(self)(*values)

    def __repr__(self) -> str:
        """Name the kind, its own parameters and its axes, not what is below it."""
        own: list[str] = []
        for name in type(self).field_names:
            value: Any = getattr(self, name)
            if not isinstance(value, Node) and not (
                isinstance(value, tuple) and any(isinstance(v, Node) for v in cast("tuple[object, ...]", value))
            ):
                own.append(f"{name}={value!r}")
        axes = " ".join(map(str, self.axes))
        return f"<{type(self).__name__} {', '.join(own)} [{axes}]>"

    def __copy__(self) -> Self:
        """Return the node itself: it cannot change."""
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Return the node itself: it cannot change."""
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        """Read back through the constructor, so that a copy from elsewhere is interned too."""
        return type(self), tuple(getattr(self, name) for name in type(self).field_names)
