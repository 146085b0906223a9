"""Circuits as JSON and back, exactly: the same nodes, the same bits of every number.

    {"format": "scrubjay.circuit", "version": 2, "fingerprint": "sha256:...",
     "nodes": [["Constant", {"float": "0x1.8p+1"}, null], ["Add", [0, 0]], ...],
     "roots": {"output": 1}, "table": {}, "removed": {}, "history": []}

A node is its kind and its fields in order, with the place of an operand for the operand; operands come first. How a field is
written follows from its declared type, so a new kind of node needs nothing here. A float is its hexadecimal text, which
keeps -0.0, infinities and NaN, and tells 1.0 from 1. Reading runs no code, only the constructors of `KINDS`, which check; at the
end what was read must have the fingerprint that was written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit, unique_inputs
from scrubjay.circuit.fingerprint import digest_frame, digest_node, fingerprint
from scrubjay.circuit.graph import need_circuit, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import KINDS
from scrubjay.errors import CircuitError, near

FORMAT = "scrubjay.circuit"
VERSION = 2
MOST_NODES = 250_000
"""How many nodes are read unless more are asked for: some ten seconds of work; a million are some 40 s and 1 GB."""

Json = Any
_Made = TypeVar("_Made")
_BITS = 13_000
_KEYS = ("format", "version", "fingerprint", "nodes", "roots", "table", "removed", "history")
_SCALARS: dict[type, str] = {
    bool: "a truth value",
    int: "an integer",
    float: "a float",
    str: "text",
    type(None): "nothing",
}


@dataclass(frozen=True)
class _Codec:
    """How the values of one declared type are written and read."""

    write: Callable[[object, Mapping[Node, int]], Json]
    read: Callable[[Json, Sequence[object]], object]


def to_json(circuit: Circuit) -> dict[str, Json]:
    """Return the circuit as a value that `json.dumps` takes.

    Raises `CircuitError` for a node whose field holds a value of another type than it declares.

    >>> from scrubjay.circuit.ops import Add, Constant
    >>> to_json(Circuit({"output": Add((Constant(3.0), Constant(3)))}))["nodes"]
    [['Constant', {'float': '0x1.8000000000000p+1'}, None], ['Constant', 3, None], ['Add', [0, 1]]]
    """
    need_circuit(circuit)
    order = topological([*circuit.roots.values(), *circuit.table.values()])
    places = {node: place for place, node in enumerate(order)}
    nodes = [_written(node, places) for node in order]
    return {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": fingerprint(circuit),
        "nodes": nodes,
        "roots": {name: places[node] for name, node in circuit.roots.items()},
        "table": {address: places[node] for address, node in circuit.table.items()},
        "removed": dict(circuit.removed),
        "history": list(circuit.history),
    }


def to_text(circuit: Circuit) -> str:
    """Return the circuit as JSON text; see `to_json`."""
    return json.dumps(to_json(circuit), allow_nan=False)


def from_text(text: str | bytes, sources: Mapping[str, str], most: int = MOST_NODES) -> Circuit:
    """Return the circuit of a JSON text; see `from_json`. A key that is given twice, or no JSON, is a `CircuitError` too."""
    try:
        data = json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise CircuitError("the text is nested deeper than any stored circuit is") from error
    except CircuitError:
        raise
    except ValueError as error:
        raise CircuitError(f"the text is no JSON: {error}") from error
    return from_json(data, sources, most)


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    made: dict[str, Json] = {}
    for key, value in pairs:
        if key in made:
            raise CircuitError(
                f"the key {_short(key)} is given twice in one object of the text: each name has one value"
            )
        made[key] = value
    return made


def from_json(data: Json, sources: Mapping[str, str], most: int = MOST_NODES) -> Circuit:
    """Return the circuit that `to_json` wrote; its nodes are the live ones where equal nodes live already.

    Args:
        data: what `json.loads` gave.
        sources: for every store that a leaf of the text is in (a `source`), the name it gets here. A source may be a token that means
            something only in the process that wrote it, so one that is not listed is refused.
        most: the most nodes that are read; a text of more is refused before any is made.

    Raises `CircuitError` for anything that is not a well-formed circuit of this version with its own fingerprint.

    >>> from scrubjay.circuit.ops import Weight
    >>> old = Circuit({"output": Weight("model", "bias", ())})
    >>> from_json(to_json(old), {"model": "sha256:12"}).roots["output"]
    <Weight source='sha256:12', name='bias', dims=(), dtype='model' []>
    """
    _check_frame(data)
    rows = cast("list[object]", _typed(data["nodes"], list, "'nodes'"))
    if len(rows) > most:
        raise CircuitError(
            f"the stored circuit has {len(rows):,} nodes, and this reading was limited to {most:,}: if you trust it, raise the limit with most="
        )
    made: list[Node] = []
    digests: list[str] = []
    for place, item in enumerate(rows):
        node, digest = _read(item, place, made, digests, sources)
        made.append(node)
        digests.append(digest)
    removed = {
        key: _typed(value, str, f"removed[{key!r}]") for key, value in _keyed(data["removed"], "removed").items()
    }
    history = tuple(_typed(item, str, "an item of 'history'") for item in _typed(data["history"], list, "'history'"))
    circuit = Circuit(_named(data["roots"], made, "roots"), _named(data["table"], made, "table"), removed, history)
    found = digest_frame(_digests(data["roots"], digests), _digests(data["table"], digests), removed, history)
    unique_inputs(made)
    if found != data["fingerprint"]:
        raise CircuitError(
            f"the stored circuit says that its fingerprint is {_short(data['fingerprint'])}, and what it holds has {found}: it was "
            "changed after it was written; write it again from the circuit itself"
        )
    return circuit


def _check_frame(data: Json) -> None:
    found = _keyed(data, "the stored circuit")
    if found.get("format") != FORMAT:
        raise CircuitError(
            f"this is no stored circuit: its 'format' is {_short(found.get('format'))} and not {FORMAT!r}"
        )
    if type(found.get("version")) is not int or found["version"] != VERSION:
        raise CircuitError(
            f"this circuit is stored in version {_short(found.get('version'))} of the format; this Scrubjay reads version {VERSION}: "
            "write it again with this version, or read it with the one that wrote it"
        )
    if set(found) != set(_KEYS):
        raise CircuitError(f"a stored circuit has the keys {', '.join(_KEYS)}; this one has {_short(sorted(found))}")


def _written(node: Node, places: Mapping[Node, int]) -> list[Json]:
    kind = type(node)
    if kind not in KINDS:
        raise CircuitError(f"{node!r} is of a kind that is not listed in KINDS and cannot be stored")
    row: list[Json] = [kind.__name__]
    for name, codec in _codecs(kind):
        try:
            row.append(codec.write(getattr(node, name), places))
        except CircuitError as error:
            raise CircuitError(f"{node!r} cannot be stored: its field {name!r} holds {error}") from error
    return row


def _read(
    item: Json, place: int, made: Sequence[Node], digests: Sequence[str], sources: Mapping[str, str]
) -> tuple[Node, str]:
    """Return a node and its digest, in which a store has the name that was written."""
    where = f"node {place} of the stored circuit"
    row = _typed(item, list, where)
    kind = _kinds().get(row[0]) if row and isinstance(row[0], str) else None
    if kind is None:
        known = _kinds()
        raise CircuitError(
            f"{where} is of the unknown kind {_short(row[0]) if row else 'nothing'}"
            f"{near(row[0], known) if row and isinstance(row[0], str) else ''}; the kinds are {', '.join(known)}"
        )
    codecs = _codecs(kind)
    if len(row) != len(codecs) + 1:
        raise CircuitError(
            f"{where}, a {kind.__name__}, has {len(row) - 1} fields and needs {len(codecs)}: {', '.join(name for name, _ in codecs)}"
        )
    values: dict[str, Any] = {}
    for (name, codec), value in zip(codecs, row[1:], strict=True):
        try:
            values[name] = codec.read(value, made)
        except CircuitError as error:
            raise CircuitError(f"{where}, a {kind.__name__}: its field {name!r} holds {error}") from error
    digest = digest_node(kind, [codec.read(value, digests) for (_, codec), value in zip(codecs, row[1:], strict=True)])
    if isinstance(values.get("source"), str):  # a store, and not an operand of that name
        values["source"] = _source(values["source"], f"{kind.__name__} {values.get('name')!r}", sources)
    try:
        return kind(**values), digest
    except CircuitError as error:
        raise CircuitError(f"{where} is ill-formed: {error}") from error


def _source(source: str, what: str, sources: Mapping[str, str]) -> str:
    if source not in sources:
        raise CircuitError(
            f"{what} is in the store {source!r}, and this reading was told of {', '.join(map(repr, sources)) or 'none'}: a local "
            f"token is refused elsewhere, so say in `sources` what {source!r} is to be called here"
        )
    return sources[source]


def _named(data: Json, made: Sequence[Node], where: str) -> dict[str, Node]:
    named: dict[str, Node] = {}
    for name, place in _keyed(data, where).items():
        try:
            named[name] = _operand(place, made)
        except CircuitError as error:
            raise CircuitError(f"{where}[{name!r}] of the stored circuit holds {error}") from error
    return named


def _digests(data: Mapping[str, int], digests: Sequence[str]) -> dict[str, str]:
    return {name: digests[place] for name, place in data.items()}


def _keyed(data: Json, where: str) -> dict[str, Json]:
    found = _typed(data, dict, where)
    for key in found:
        _typed(key, str, f"a key of {where}")
    return found


def _typed(value: Json, wanted: type, where: str) -> Any:
    if type(value) is not wanted:
        raise CircuitError(
            f"{where} is {_short(value)}, of type {type(value).__name__}, and should be of type {wanted.__name__}"
        )
    return value


def _short(value: object) -> str:
    """Say a value in at most 60 letters, without walking through a huge or deep one."""
    if isinstance(value, list | tuple | dict):
        return f"a {type(cast('object', value)).__name__} of {len(cast('list[object]', value))}"
    text = (
        str(value)[:80]
        if isinstance(value, str)
        else repr(value)
        if isinstance(value, float | bool | None)
        else "an integer"
    )
    text = str(value) if type(value) is int and abs(value) < 2**64 else text
    return repr(text[:57] + "...") if len(text) > 60 else repr(text) if isinstance(value, str) else text


@cache
def _kinds() -> dict[str, type[Node]]:
    return {kind.__name__: kind for kind in KINDS}


@cache
def _codecs(kind: type[Node]) -> tuple[tuple[str, _Codec], ...]:
    """Return each field of a kind and how it is written, by the type it declares."""
    hints = get_type_hints(kind)
    return tuple(
        (field.name, _codec(hints[field.name], f"{kind.__name__}.{field.name}")) for field in fields(cast("Any", kind))
    )


def _codec(hint: Any, where: str) -> _Codec:
    if isinstance(hint, type) and issubclass(hint, Node):
        return _Codec(_write_operand, _operand)
    if hint is Axis:
        return _Codec(_write_axis, _read_axis)
    if get_origin(hint) in (Union, UnionType) or hint in _SCALARS:
        allowed = frozenset(cast("tuple[type, ...]", get_args(hint) or (hint,)))
        if allowed <= set(_SCALARS):
            return _scalar(allowed)
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        if len(parts) == 2 and parts[1] is Ellipsis:
            return _list_of(_codec(parts[0], where))
        return _row_of(tuple(_codec(part, where) for part in parts))
    raise CircuitError(
        f"{where} is declared as {hint!r}, which has no stored form: use Node, Axis, scalars and tuples of these"
    )


def _write_operand(value: object, places: Mapping[Node, int]) -> Json:
    if not isinstance(value, Node):
        raise CircuitError(f"{_short(value)}, and should hold a node")
    return places[value]


def _operand(value: Json, made: Sequence[_Made]) -> _Made:
    if type(value) is not int:
        raise CircuitError(f"{_short(value)}, and should hold the place of a node")
    if not 0 <= value < len(made):
        raise CircuitError(
            f"the place {_short(value)}, and only the {len(made)} nodes before it can be meant: nodes are listed operands first"
        )
    return made[value]


def _write_axis(value: object, _: object) -> Json:
    if not isinstance(value, Axis) or type(value.name) is not str or not _is_size(value.size):
        raise CircuitError(
            f"{_short(value)}, and should hold an Axis (a name, and a size that is an integer from 0 on or text)"
        )
    return [value.name, value.size]


def _is_size(value: object) -> bool:
    return isinstance(value, str) or (type(value) is int and value >= 0)


def _read_axis(value: Json, _: object) -> Axis:
    if type(value) is not list:
        raise CircuitError(f"{_short(value)}, and should hold an axis, [name, size]")
    row = cast("list[object]", value)
    if len(row) == 2 and isinstance(row[0], str) and _is_size(row[1]):
        return Axis(row[0], cast("int | str", row[1]))
    raise CircuitError(f"{_short(row)}, and should hold an axis: [name, size], the size an integer from 0 on or text")


def _scalar(allowed: frozenset[type]) -> _Codec:
    wanted = " or ".join(_SCALARS[kind] for kind in _SCALARS if kind in allowed)

    def write(value: object, _: object) -> Json:
        if type(value) is int and value.bit_length() > _BITS:
            raise CircuitError(
                f"an integer of {value.bit_length():,} bits; one of at most {_BITS:,} bits can be stored"
            )
        if type(value) not in allowed:
            raise CircuitError(f"{_short(value)}, of type {type(value).__name__}, and should hold {wanted}")
        return {"float": value.hex()} if isinstance(value, float) else value

    def read(value: Json, _: object) -> object:
        found: object = value
        made = _read_float(cast("dict[str, object]", value)) if isinstance(value, dict) else found
        if isinstance(found, float) or type(made) not in allowed or (type(made) is int and made.bit_length() > _BITS):
            raise CircuitError(
                f"{_short(found)}, and should hold {wanted} (a float as {{'float': its hexadecimal text}})"
            )
        return made

    return _Codec(write, read)


def _read_float(value: dict[str, object]) -> float:
    text = value.get("float")
    if len(value) == 1 and isinstance(text, str) and len(text) < 40:
        try:
            made = float.fromhex(text)
        except (ValueError, OverflowError) as error:
            raise CircuitError(f"{text!r}, which is not a float's hexadecimal text") from error
        if made.hex() == text:
            return made
    raise CircuitError(f"{_short(text)}, which is not a float's hexadecimal text as float.hex() writes it")


def _list_of(item: _Codec) -> _Codec:
    def write(value: object, places: Mapping[Node, int]) -> Json:
        if type(value) is not tuple:
            raise CircuitError(f"{_short(value)}, and should hold a tuple")
        return [item.write(one, places) for one in cast("tuple[object, ...]", value)]

    def read(value: Json, made: Sequence[object]) -> object:
        if type(value) is not list:
            raise CircuitError(f"{_short(value)}, and should hold a list")
        return tuple(item.read(one, made) for one in cast("list[object]", value))

    return _Codec(write, read)


def _row_of(items: tuple[_Codec, ...]) -> _Codec:
    def write(value: object, places: Mapping[Node, int]) -> Json:
        row = cast("tuple[object, ...]", value if isinstance(value, tuple) else ())
        if len(row) != len(items):
            raise CircuitError(f"{_short(cast('object', value))}, and should hold a tuple of {len(items)}")
        return [item.write(one, places) for item, one in zip(items, row, strict=True)]

    def read(value: Json, made: Sequence[object]) -> object:
        row = cast("list[object]", value if isinstance(value, list) else [])
        if len(row) != len(items):
            raise CircuitError(f"{_short(cast('object', value))}, and should hold a list of {len(items)}")
        return tuple(item.read(one, made) for item, one in zip(items, row, strict=True))

    return _Codec(write, read)
