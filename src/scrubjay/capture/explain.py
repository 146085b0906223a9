"""An address explained in words: what it names, which module and weights make it, what it reads and what reads it."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from scrubjay.capture.sites import axes_of
from scrubjay.circuit.address import Address, Head, KeyValueHead, Module, Range, expand, parse
from scrubjay.circuit.axes import GLOSSARY, as_shown
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.meanings import convention, meaning
from scrubjay.circuit.node import Node
from scrubjay.circuit.origin import Origins, Stretch, whole_of
from scrubjay.circuit.recognisers import Anatomy
from scrubjay.circuit.traits import Trait, end_traits, layer_traits

_NEAR = 8
_OWN = {"q", "k", "v", "q_rot", "k_rot", "scores", "pattern", "z"}


@dataclass(frozen=True)
class Explanation:
    """What an address names, in words: topics and texts, in order. It prints, draws itself in a notebook, and goes to JSON.

    Topics are `is`, `axes`, `module`, `weights`, `reads`, `read by`, `note`, `convention`, `here` (what is unusual in this model),
    `called` and `said` (the user's own); a topic may come several times, and only where there is something to say.
    """

    address: str
    lines: tuple[tuple[str, str], ...]

    def __getitem__(self, topic: str) -> str:
        """Return the texts of a topic, one a line; empty where there is nothing to say of it."""
        return "\n".join(text for name, text in self.lines if name == topic)

    def to_dict(self) -> dict[str, object]:
        """Return it as plain values, ready for JSON."""
        found: dict[str, list[str]] = {}
        for name, text in self.lines:
            found.setdefault(name, []).append(text)
        return {"address": self.address, **found}

    def __str__(self) -> str:
        """Return it as text of at most 100 columns."""
        wide = max(len(name) for name, _ in self.lines) + 2
        shown, last = [self.address], ""
        for name, text in self.lines:
            head = f"  {'' if name == last else name:<{wide}}"
            shown.append(
                textwrap.fill(
                    text,
                    100,
                    initial_indent=head,
                    subsequent_indent=" " * len(head),
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
            last = name
        return "\n".join(shown)

    def _repr_html_(self) -> str:
        """Return it as HTML; every text in it is escaped."""
        rows = "".join(
            f'<tr><th scope="row" style="text-align:left">{html.escape(name)}</th><td style="text-align:left">{html.escape(text)}</td></tr>'
            for name, text in self.lines
        )
        return f"<table><caption>{html.escape(self.address)}</caption><tbody>{rows}</tbody></table>"


def explain(circuit: Circuit, anatomy: Anatomy, text: str, notes: Mapping[str, str] | None = None) -> Explanation:
    """Return what an address names in a circuit, in words; of several values, what they have in common, told by the first.

    Raises `AddressError` for an address that the circuit lacks.
    """
    asked = parse(text, anatomy.shape)
    found = expand(asked, anatomy.shape)
    named = dict(anatomy.shape.names).get(asked.part.path) if isinstance(asked.part, Module) else None
    first = replace(found[0], position=None)
    origins = Origins(circuit, anatomy)
    lines: list[tuple[str, str]] = [("is", meaning(first) + _several(found) + _where(asked))]
    lines += [("called", name) for name, address in anatomy.shape.names if address == first]
    lines += [("said", note) for place, note in (notes or {}).items() if _covers(place, first, anatomy)]
    lines.append(
        (
            "axes",
            _axes(
                circuit,
                anatomy,
                first,
                one_place=asked.position is not None and not isinstance(asked.position.at, Range),
            ),
        )
    )
    lines += _made_of(origins, anatomy, first)
    lines += _neighbours(origins, anatomy, first)
    if also := _also(origins, anatomy, first):
        lines.append(("also", also))
    if words := convention(first):
        lines.append(("convention", words))
    lines += [("here", trait.words) for trait in _unusual(origins, anatomy, first)]
    return Explanation(str(named or asked), tuple((name, words) for name, words in lines if words))


def _several(found: tuple[Address, ...]) -> str:
    return "" if len(found) == 1 else f" ({len(found)} values; told here by the first, {found[0]})"


def _where(asked: Address) -> str:
    return (
        ""
        if asked.position is None
        else f", at the position {str(asked.position)[1:]} of each row (padding not counted)"
    )


def _covers(place: str, address: Address, anatomy: Anatomy) -> bool:
    """Tell whether a note at `place` is about an address; one on a head's output is about all of the head."""
    noted = expand(parse(place), anatomy.shape)
    if isinstance(address.part, Head) and any(
        one.layer == address.layer and one.part == address.part and one.site == "out" for one in noted
    ):
        return True
    return address in [replace(one, position=None) for one in noted]


def _axes(circuit: Circuit, anatomy: Anatomy, address: Address, *, one_place: bool) -> str:
    axes = {axis.name: axis for axis in axes_of(circuit, anatomy, address) if not (one_place and axis.name == "query")}
    names = [axes[name] for name in as_shown(axes)]
    words = [f"{axis} ({GLOSSARY[axis.name]})" if axis.name in GLOSSARY else str(axis) for axis in names]
    return ", ".join(words) or "none: one number"


def _node(origins: Origins, address: Address) -> Node | None:
    """Return the node of an address, of a head's value the one that holds all heads."""
    table = origins.circuit.table
    if isinstance(address.part, Module):
        return table.get(str(address))
    here = f"L{address.layer}." if address.layer is not None else ""
    if address.kind in {"H.q_in", "H.k_in", "H.v_in"}:
        return table.get(f"{here}resid_pre")
    if address.kind == "H.out":
        return table.get(f"{here}attn._product")
    return table.get(str(address)) or table.get(str(whole_of(address)))


def _at(anatomy: Anatomy, address: Address) -> dict[str, int]:
    """Return the place of a head on its axes."""
    if not isinstance(address.layer, int) or not isinstance(getattr(address.part, "index", None), int):
        return {}
    layer, index = anatomy.layers[address.layer], int(address.part.index)  # type: ignore[union-attr, arg-type]
    if isinstance(address.part, Head):
        return layer.head_index(index)
    return (
        layer.kv_index(index)
        if isinstance(address.part, KeyValueHead)
        else {"hidden": index}
        if address.kind == "N"
        else {}
    )


def _made_of(origins: Origins, anatomy: Anatomy, address: Address) -> list[tuple[str, str]]:
    origin = None if isinstance(address.part, Module) else origins.of(address)
    lines = [] if origin is None or not origin.path else [("module", str(origin))]
    node = _node(origins, address)
    if node is None or address.kind.endswith("_in"):
        return lines
    if address.kind == "N":
        return [*lines, *_neuron(origins, anatomy, address)]
    weights = origins.weights(node, _at(anatomy, address))
    if isinstance(address.part, Module):
        stem = f"{address.part.path}."
        inside = [Stretch(name) for name in origins.circuit.weights if name.startswith(stem)]
        weights = (
            inside if len(inside) <= _NEAR else [*inside[:_NEAR], Stretch(f"and {len(inside) - _NEAR} more inside it")]
        )
    return [*lines, *(("weights", str(weight)) for weight in dict.fromkeys(weights))]


def _neuron(origins: Origins, anatomy: Anatomy, address: Address) -> list[tuple[str, str]]:
    """Return the weights into a neuron and out of it."""
    table, here, at = origins.circuit.table, f"L{address.layer}.mlp.", _at(anatomy, address)
    into = [
        weight for site in ("pre", "up") if here + site in table for weight in origins.weights(table[here + site], at)
    ]
    lines = [("weights", f"in: {weight}") for weight in dict.fromkeys(into)]
    out = origins.linear_reader(table[here + "post"]) if here + "post" in table else None
    return lines if out is None else [*lines, *(("weights", f"out: {weight}") for weight in origins.weights(out, at))]


def _neighbours(origins: Origins, anatomy: Anatomy, address: Address) -> list[tuple[str, str]]:
    if isinstance(address.part, Head) and address.site.endswith("_in"):
        return [("read by", f"L{address.layer}.H{address.part.index}.{address.site[0]}, and by nothing else")]
    node = _node(origins, address)
    if node is None:
        return []
    below, over = origins.below(node), origins.above(node)
    if address.kind == "H.out":
        over = [f"L{address.layer}.attn.o", *(name for name in over if not name.endswith("attn.o"))][:1]
    lines = []
    for topic, names in (("reads", below), ("read by", over)):
        shown = dict.fromkeys(_of_part(name, address, anatomy) for name in names)
        if shown:
            more = f" and {len(shown) - _NEAR} more" if len(shown) > _NEAR else ""
            lines.append((topic, ", ".join([*shown][:_NEAR]) + more))
    return lines


def _of_part(name: str, address: Address, anatomy: Anatomy) -> str:
    """Return a neighbour of a head's value as that head's own where it has one."""
    here, _, site = name.rpartition("attn.")
    if here != f"L{address.layer}." or site not in _OWN or not isinstance(address.layer, int):
        return name
    if isinstance(address.part, Head):
        return f"L{address.layer}.H{address.part.index}.{site}"
    if isinstance(address.part, KeyValueHead) and isinstance(address.part.index, int):
        if site in {"k", "v", "k_rot"}:
            return f"L{address.layer}.KV{address.part.index}.{site}"
        first, last = _group(anatomy, address.layer, address.part.index)
        return f"L{address.layer}.H{first}..{last}.{site}" if last > first else f"L{address.layer}.H{first}.{site}"
    return name


def _group(anatomy: Anatomy, layer: int, kv_head: int) -> tuple[int, int]:
    """Return the first and the last query head that read a key-value head."""
    many = anatomy.layers[layer].heads // anatomy.layers[layer].kv_heads
    return kv_head * many, (kv_head + 1) * many - 1


def _also(origins: Origins, anatomy: Anatomy, address: Address) -> str:
    """Return the other names of the very same value, and of the value it is part of or a copy of."""
    names: list[str] = []
    if isinstance(address.layer, int) and isinstance(address.part, Head) and address.site in {"k", "v", "k_rot"}:
        layer = anatomy.layers[address.layer]
        if layer.kv_heads < layer.heads and isinstance(address.part.index, int):
            kv_head = address.part.index * layer.kv_heads // layer.heads
            first, last = _group(anatomy, address.layer, kv_head)
            names.append(f"a copy of L{address.layer}.KV{kv_head}.{address.site}, which H{first}..H{last} share")
    if (whole := whole_of(address)) is not None and not address.kind.endswith("_in"):
        names.append(f"part of {whole}")
    node = _node(origins, address)
    if node is not None and (address.part is None or isinstance(address.part, Module)):
        own = str(address)
        same = [*origins.sites.get(node, []), *origins.outputs.get(node, [])]
        names += [f"the same value as {name}" for name in same if own not in {name, f".{name}"}]
    return "; ".join(names)


def _unusual(origins: Origins, anatomy: Anatomy, address: Address) -> Iterable[Trait]:
    """Return what is unusual about this model and matters to an address."""
    if isinstance(address.part, Module):
        return []
    if not isinstance(address.layer, int):
        return [trait for trait in end_traits(origins, anatomy) if not trait.usual and address.kind in trait.sites]
    site = address.kind.removeprefix("H.").removeprefix("KV.").removeprefix("attn.")
    return [
        trait for trait in layer_traits(origins, anatomy, address.layer)
        if not trait.usual and (not trait.sites or {address.kind, site} & set(trait.sites))
    ]  # fmt: skip


__all__ = ["Explanation", "Stretch", "explain"]
