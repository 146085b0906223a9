"""How the values that a node holds are written in the notation and read back: by the types its fields declare.

    text        query, "a text"           one axis       [model=4]         several    [batch query="query + 1"]
    a number    1, 1.0, -0.0, true, none   dimensions     [batch, head=2 d_head=4, 1] (a comma between them; 1: of size 1)
    pairs       [query: key, batch: row]   operands       [#1, embed]

A new kind of node needs nothing here as long as it declares fields of these types.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache
from types import UnionType
from typing import Any, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.node import Node
from scrubjay.circuit.printing.tokens import Tokens, as_number, as_text, as_word, number_of, said, text_of
from scrubjay.errors import CircuitError

_Item = TypeVar("_Item")

Say = Callable[[Node], str]
"""What an operand is called."""

Read = Callable[[], Node]
"""Read an operand."""

_WORDS: dict[str, bool | None] = {"true": True, "false": False, "none": None}
_SCALARS: dict[type, str] = {
    bool: "true or false", int: "an integer", float: "a float", str: "text", type(None): "none",
}  # fmt: skip


@dataclass(frozen=True)
class Form:
    """How the values of one declared type are written and read."""

    write: Callable[[Any, Say], str]
    read: Callable[[Tokens, Read], Any]


class Part(NamedTuple):
    """A field of a kind of node: its name, its form, and the value it has where none is written (else `MISSING`)."""

    name: str
    form: Form
    default: object


@cache
def parts(kind: type[Node]) -> tuple[Part, ...]:
    """Return the fields of a kind, in order; raise `CircuitError` for one of a type that has no written form."""
    hints = get_type_hints(kind)
    declared = cast("tuple[Field[object], ...]", fields(cast("Any", kind)))
    return tuple(Part(one.name, _form(hints[one.name], f"{kind.__name__}.{one.name}"), one.default) for one in declared)


def is_default(part: Part, value: object) -> bool:
    """Tell whether a value need not be written."""
    return part.default is not MISSING and type(value) is type(part.default) and value == part.default


def _form(hint: Any, where: str) -> Form:
    if isinstance(hint, type) and issubclass(hint, Node):
        return Form(lambda value, say: say(value), lambda _, read: read())
    if hint is Axis:
        return Form(lambda value, _: f"[{as_axis(value)}]", _read_one_axis)
    if get_origin(hint) in (Union, UnionType) or hint in _SCALARS:
        allowed = frozenset(cast("tuple[type, ...]", get_args(hint) or (hint,)))
        if allowed <= set(_SCALARS):
            return _scalar(allowed)
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        if inner == (str, str):
            return Form(lambda value, _: f"{as_word(value[0])}: {as_word(value[1])}", _read_pair)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return _checked(_several(inner[0], where))
    raise CircuitError(
        f"{where} is declared as {hint!r}, which has no written form: add one in circuit.printing.fields"
    )


def _checked(form: Form) -> Form:
    def write(value: Any, say: Say) -> str:
        if type(value) is not tuple:
            raise CircuitError(f"{value!r}, of type {type(value).__name__}, and should hold a tuple")
        return form.write(value, say)

    return Form(write, form.read)


def _several(inner: Any, where: str) -> Form:
    if inner is Axis:
        return Form(lambda value, _: as_axes(value), lambda tokens, _: read_axes(tokens))
    if inner is str:
        return Form(lambda value, _: f"[{' '.join(map(as_word, value))}]", _read_names)
    if inner == tuple[Axis, ...]:
        return Form(lambda value, _: as_dims(value), lambda tokens, _: _read_dims(tokens))
    item = _form(inner, where)

    def write(value: Any, say: Say) -> str:
        return f"[{', '.join(item.write(one, say) for one in value)}]"

    def read(tokens: Tokens, operand: Read) -> Any:
        return _listed(tokens, lambda: item.read(tokens, operand))

    return Form(write, read)


def _scalar(allowed: frozenset[type]) -> Form:
    wanted = " or ".join(_SCALARS[kind] for kind in _SCALARS if kind in allowed)

    def write(value: Any, _: Say) -> str:
        if type(value) not in allowed:
            raise CircuitError(f"{value!r}, of type {type(value).__name__}, and should hold {wanted}")
        return as_word(value) if isinstance(value, str) else "none" if value is None else as_number(value)

    def read(tokens: Tokens, _: Read) -> Any:
        token = tokens.here
        value = read_scalar(tokens)
        if type(value) not in allowed:
            raise tokens.error(f"expected {wanted}, found {said(token)}", token)
        return value

    return Form(write, read)


def read_scalar(tokens: Tokens) -> bool | int | float | str | None:
    """Read a number, a truth value, `none` or a text."""
    token = tokens.take()
    if token.kind == "number":
        return number_of(tokens, token)
    if token.kind == "name" and token.text in _WORDS:
        return _WORDS[token.text]
    if token.kind == "text" or (token.kind == "name" and token.text[0] not in "`#"):
        return text_of(tokens, token)
    raise tokens.error(f"expected a number or a text, found {said(token)}", token)


def as_axis(axis: Axis) -> str:
    """Return an axis as `name=size`, or the bare name where the size is that symbol."""
    name, size = axis
    if type(name) is not str or not (type(size) is str or (type(size) is int and size >= 0)):
        raise CircuitError(f"axis {name!r} has the size {size!r}; a size is an integer from 0 on or a text")
    if size == name:
        return as_word(name)
    return f"{as_word(name)}={size}" if isinstance(size, int) else f"{as_word(name)}={as_text(size)}"


def as_axes(axes: tuple[Axis, ...]) -> str:
    """Return axes in brackets."""
    return f"[{' '.join(map(as_axis, axes))}]"


def as_dims(dims: tuple[tuple[Axis, ...], ...]) -> str:
    """Return dimensions in brackets, each a product of axes, or 1."""
    return f"[{', '.join(' '.join(map(as_axis, dim)) or '1' for dim in dims)}]"


def _read_name(tokens: Tokens, what: str) -> str:
    token = tokens.take()
    if token.kind == "text" or (token.kind == "name" and token.text[0] not in "`#" and token.text not in _WORDS):
        return text_of(tokens, token)
    raise tokens.error(f"expected {what}, found {said(token)}", token)


def _read_axis(tokens: Tokens) -> Axis:
    name = _read_name(tokens, "the name of an axis")
    if not tokens.skip("="):
        return Axis(name, name)
    token = tokens.take()
    if token.kind == "text":
        return Axis(name, text_of(tokens, token))
    size = number_of(tokens, token) if token.kind == "number" else None
    if type(size) is not int or size < 0:
        raise tokens.error(
            f"expected the size of axis {name!r}, an integer from 0 on or a text in quotes, found {said(token)}", token
        )
    return Axis(name, size)


def read_axes(tokens: Tokens) -> tuple[Axis, ...]:
    """Read axes in brackets."""
    tokens.need("[", "before the axes")
    found: list[Axis] = []
    while not tokens.skip("]"):
        found.append(_read_axis(tokens))
    return tuple(found)


def _read_one_axis(tokens: Tokens, _: Read) -> Axis:
    start = tokens.here
    found = read_axes(tokens)
    if len(found) != 1:
        raise tokens.error(f"expected one axis in brackets, found {len(found)}", start)
    return found[0]


def _read_names(tokens: Tokens, _: Read) -> tuple[str, ...]:
    tokens.need("[", "before the names of axes")
    found: list[str] = []
    while not tokens.skip("]"):
        found.append(_read_name(tokens, "the name of an axis"))
    return tuple(found)


def _read_dims(tokens: Tokens) -> tuple[tuple[Axis, ...], ...]:
    def dim() -> tuple[Axis, ...]:
        if tokens.here.text == "1":
            tokens.take()
            return ()
        found = [_read_axis(tokens)]
        while tokens.here.text not in (",", "]"):
            found.append(_read_axis(tokens))
        return tuple(found)

    return _listed(tokens, dim)


def _read_pair(tokens: Tokens, _: Read) -> tuple[str, str]:
    old = _read_name(tokens, "the name of an axis")
    tokens.need(":", "between two names of an axis")
    return old, _read_name(tokens, "the name of an axis")


def _listed(tokens: Tokens, item: Callable[[], _Item]) -> tuple[_Item, ...]:
    """Read items in brackets with commas between them."""
    tokens.need("[", "before a list")
    if tokens.skip("]"):
        return ()
    found = [item()]
    while tokens.skip(","):
        found.append(item())
    tokens.need("]", "or ',' in a list")
    return tuple(found)
