"""Names and notes of a user's own: values beside the model's addresses, kept out of the grammar's way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from scrubjay.circuit.address import Address, Head, ModelShape, Module, expand, parse
from scrubjay.errors import AddressError, InputError


def with_names(shape: ModelShape, names: Mapping[str, str]) -> ModelShape:
    """Return the shape of a model in which addresses go by further names; see `Model.rename`.

    Raises `AddressError` for an address that is not one value of the model, and a name that is taken or means something else.
    """
    known = dict(shape.names)
    for text, name in names.items():
        for called, address in _pairs(text, name, shape):
            path = _free(called, shape)
            if known.setdefault(path, address) != address:
                raise AddressError(f"{name!r} is the name of {known[path]} already, and {address} needs another")
    return replace(shape, names=tuple(known.items()))


def _pairs(text: str, name: str, shape: ModelShape) -> list[tuple[str, Address]]:
    """Return what is to be named and how: one value, or for a head without a site every value of it."""
    asked = parse(text, shape)
    found = expand(asked, shape)
    if len(found) != 1 or asked.position is not None:
        raise AddressError(
            f"{text!r} names {'a position' if asked.position is not None else f'{len(found)} values'}: give a name to one whole value, or to one head"
        )
    (address,) = found
    if not isinstance(asked.part, Head) or asked.site != "out" or text.strip().endswith(("out", "result")):
        return [(name, address)]
    kinds = shape.layers[int(str(address.layer))].sites
    stem = name.removeprefix(".")
    parts = [(f"{stem}.{kind.removeprefix('H.')}", kind) for kind in sorted(kinds) if kind.startswith("H.")]
    return [(name, address), *((called, replace(address, site=kind.removeprefix("H."))) for called, kind in parts)]


def _free(name: str, shape: ModelShape) -> str:
    """Return the path by which a name is known, or raise where it means something already."""
    advice = "choose letters, digits, _ and - with a dot in between or in front, such as 'induction.z' or '.induction'"
    try:
        address = parse(name)
    except AddressError as error:
        raise AddressError(f"{name!r} cannot be a name ({error}): {advice}") from None
    if not isinstance(address.part, Module) or address.position is not None:
        raise AddressError(f"{name!r} cannot be a name, for it reads as the address {address}: {advice}")
    if address.part.path in shape.modules:
        raise AddressError(f"{name!r} cannot be a name, for the model has a module of that path: {advice}")
    return address.part.path


def noted(notes: Mapping[str, str], shape: ModelShape, text: str, note: str) -> dict[str, str]:
    """Return the notes with one more, at the canonical form of an address; an empty note takes one away.

    Raises `AddressError` for an address that the model lacks, `InputError` for a note that is no text.
    """
    if not isinstance(note, str):  # pyright: ignore[reportUnnecessaryIsInstance] - a caller's, and not checked before
        raise InputError(f"the note at {text} is a text, not {type(note).__name__}; an empty text takes a note away")
    asked = parse(text, shape)
    found = expand(asked, shape)
    if isinstance(asked.part, Module) and asked.part.path in dict(shape.names):
        (asked,) = found
    kept = {key: value for key, value in notes.items() if key != str(asked)}
    return {**kept, str(asked): note} if note else kept
