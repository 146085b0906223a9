"""Names of weights, from text: `L3.H7.W_Q`, `L*.H*.OV`, `W_E`, and TransformerLens's `W_Q[3, 7]` and `blocks.3.attn.W_Q`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from scrubjay.circuit.recognisers import Anatomy
from scrubjay.errors import AddressError, near

PRODUCTS = ("OV", "QK", "full_OV", "full_QK")
"""Products of a head's weights, kept as two factors."""

LEAVES: dict[str, tuple[str, ...]] = {
    "": ("W_E", "b_E", "W_pos", "W_U", "b_U", "ln_f.w", "ln_f.b"),
    "H": ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", *PRODUCTS),
    "KV": ("W_K", "W_V", "b_K", "b_V"),
    "attn": ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O"),
    "mlp": ("W_in", "W_gate", "W_out", "b_in", "b_gate", "b_out"),
    "E": ("W_in", "W_gate", "W_out", "b_in", "b_gate", "b_out"),
    "router": ("W", "b"),
    "ln1": ("w", "b"),
    "ln2": ("w", "b"),
}
"""The weights of each kind of part: of the model, of a head, of a key-value head, of all heads of a layer, and so on."""

_LENS = {
    "embed.W_E": "W_E",
    "pos_embed.W_pos": "W_pos",
    "unembed.W_U": "W_U",
    "unembed.b_U": "b_U",
    "ln_final.w": "ln_f.w",
    "ln_final.b": "ln_f.b",
}
_N = r"(\d+\.\.\d+|\d+|\*)"
_PARTS = {
    "H": re.compile(rf"H{_N}\.(\w+)"),
    "KV": re.compile(rf"KV{_N}\.(\w+)"),
    "E": re.compile(rf"mlp\.E{_N}\.(\w+)"),
    "router": re.compile(r"mlp\.router\.()(\w+)"),
    "mlp": re.compile(r"mlp\.()(\w+)"),
    "attn": re.compile(r"attn\.()(\w+)"),
    "ln1": re.compile(r"ln1\.()(\w+)"),
    "ln2": re.compile(r"ln2\.()(\w+)"),
}
_LAYER = re.compile(rf"(?:L|blocks\.){_N}\.(.+)")
_HEAD = re.compile(r"(?:[aL]?(\d+)\.h?|L(\d+)H)(\d+)\.(\w+)")
_STACK = re.compile(r"(\w+?)(?:\[\s*(\d+)\s*(?:,\s*(\d+)\s*)?\])?")


@dataclass(frozen=True)
class Wanted:
    """One or several weights of one kind: of which layers, and of which heads (key-value heads, experts) of each.

    `None` is no choice (the model's own weight; all heads of a layer in one). A stack has an axis for each choice in `stacked`.
    """

    text: str
    part: str
    leaf: str
    layers: tuple[int, ...] | None = None
    items: tuple[int, ...] | None = None
    stacked: tuple[str, ...] = ()


def wanted(text: str, anatomy: Anatomy) -> Wanted:
    """Return which weights a name asks for.

    Raises `AddressError` for a text that is no name of a weight, and for a layer or head that the model lacks.
    """
    plain = _LENS.get(text, text)
    if plain in LEAVES[""]:
        return Wanted(text, "", plain)
    for read in (_in_layer, _spelled, _stack):
        found = read(plain)
        if found is not None:
            layer, part, item, leaf = found
            return _checked(text, anatomy, layer, part, item, leaf)
    raise unknown(text, anatomy)


def unknown(text: str, anatomy: Anatomy) -> AddressError:
    """Return the error that says that a text names no weight, with near names and the forms that there are."""
    known = [
        *LEAVES[""],
        *_LENS,
        *(one for number in range(len(anatomy.layers)) for one in _layer_names(number, anatomy)),
    ]
    return AddressError(
        f"{text!r} names no weight{near(text, known) or '.'} The model's: {', '.join(LEAVES[''])}; a head's: L3.H7.W_Q "
        f"({', '.join(LEAVES['H'])}); a layer's: L3.attn.b_O, L3.mlp.W_in ({', '.join(LEAVES['mlp'])}), L3.ln1.w. "
        f"{bounds(anatomy)}; scrubjay.matrices.names(model) lists all"
    )


def bounds(anatomy: Anatomy) -> str:
    """Return in words which layers and heads a model has."""
    if not anatomy.layers:
        return "No layers of this model were recognised"
    heads = sorted({layer.heads for layer in anatomy.layers})
    many = f"{heads[0]}" if len(heads) == 1 else f"{heads[0]} to {heads[-1]}"
    return f"This model has layers L0..L{len(anatomy.layers) - 1} of {many} heads"


def _layer_names(number: int, anatomy: Anatomy) -> list[str]:
    layer = anatomy.layers[number]
    counts = {"H": layer.heads, "KV": layer.kv_heads, "E": layer.experts}
    found: list[str] = []
    for part, leaves in LEAVES.items():
        path = {"E": "mlp.E", "router": "mlp.router"}.get(part, part)
        where = [f"{path}{n}" for n in range(counts[part])] if part in counts else [path]
        found += [f"L{number}.{one}.{leaf}" for one in where for leaf in leaves if part]
    return found


def _in_layer(text: str) -> tuple[str, str, str, str] | None:
    found = _LAYER.fullmatch(text)
    if found is None:
        return None
    for part, form in _PARTS.items():
        inside = form.fullmatch(found[2])
        if inside is not None:
            return found[1], part, inside[1], inside[2]
    return None


def _spelled(text: str) -> tuple[str, str, str, str] | None:
    found = _HEAD.fullmatch(text)
    return None if found is None else (found[1] or found[2], "H", found[3], found[4])


def _stack(text: str) -> tuple[str, str, str, str] | None:
    """Read TransformerLens's stacks: `W_Q` is (layer, head, ...), `W_Q[3]` is (head, ...), `W_Q[3, 7]` is one head's."""
    found = _STACK.fullmatch(text)
    if found is None:
        return None
    leaf, layer, head = found[1], found[2] or "*", found[3]
    if leaf in LEAVES["H"]:
        return layer, "H", head or "*", leaf
    part = "mlp" if leaf in LEAVES["mlp"] else "attn"
    return None if leaf not in LEAVES[part] or head is not None else (layer, part, "", leaf)


def _checked(text: str, anatomy: Anatomy, layer: str, part: str, item: str, leaf: str) -> Wanted:
    if part in {"attn"} and leaf in PRODUCTS:
        raise AddressError(f"{text!r}: products are of one head each: ask for L{layer}.H*.{leaf}")
    if leaf not in LEAVES[part]:
        raise unknown(text, anatomy)
    stacked: list[str] = []
    layers = _numbers(text, layer, len(anatomy.layers), "layer", "L")
    if not layer.isdecimal():
        stacked.append("layer")
    if part not in {"H", "KV", "E"}:
        return Wanted(text, part, leaf, layers, None, tuple(stacked))
    what, axis = {"H": ("heads", "head"), "KV": ("kv_heads", "kv"), "E": ("experts", "expert")}[part]
    counts = {int(getattr(anatomy.layers[number], what)) for number in layers}
    if len(counts) > 1 and not item.isdecimal():
        if 0 in counts and item == "*" and len(counts) == 2:
            raise AddressError(f"{text!r}: not every layer has {what.replace('_', '-')}: name the layers that do")
        raise AddressError(
            f"{text!r}: layers have {sorted(counts)} {what}, and cannot be stacked: name one layer at a time"
        )
    if not item.isdecimal():
        stacked.append(axis)
    return Wanted(text, part, leaf, layers, _numbers(text, item, min(counts), axis, part), tuple(stacked))


def _numbers(text: str, said: str, many: int, what: str, mark: str) -> tuple[int, ...]:
    if not many:
        raise AddressError(f"{text!r}: this has no {what}: none was recognised there")
    if said == "*":
        return tuple(range(many))
    first, _, last = said.partition("..")
    low, high = int(first), int(last or first)
    if low > high or high >= many:
        raise AddressError(f"{text!r}: {what} {high} does not exist; there are {mark}0..{mark}{many - 1}")
    return tuple(range(low, high + 1))
