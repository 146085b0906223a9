"""The table of a model's named sites: what each is called, its axes, what it means, and the torch module it belongs to."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import groupby
from typing import overload

from scrubjay.circuit.address import Address, Module, parse
from scrubjay.circuit.axes import Axis, as_shown
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.meanings import MEANINGS, meaning
from scrubjay.circuit.origin import Origin, Origins
from scrubjay.circuit.places import place
from scrubjay.circuit.recognisers import Anatomy
from scrubjay.circuit.spelling import starred
from scrubjay.errors import AddressError, near

_INDEX = re.compile(r"(?<![A-Za-z])(H|KV|N|E)(\*|[0-9]+(?:\.\.[0-9]+)?)(?=\.|$)")
_LAYER = re.compile(r"L(\*|[0-9]+(?:\.\.[0-9]+)?)\.(.+)")
_COLUMNS = ("address", "axes", "module", "meaning", "note")
_LEAST = 16
_RANKS = {kind: rank for rank, kind in enumerate(MEANINGS)}


@dataclass(frozen=True)
class Site:
    """One row: a named value of the model, heads and neurons of a layer together.

    Attributes:
        address: what it is called, heads as `H*`; `sj.run(..., keep=...)` takes it.
        axes: its axes in the order values are shown in.
        meaning: what it is, in words.
        origin: the torch module it belongs to, and how.
        names: names of the user's own for it, each with the head it is for: `("H1", "induction.z")`.
        notes: the user's notes on it, likewise.
    """

    address: str
    axes: tuple[Axis, ...]
    meaning: str
    origin: Origin
    names: tuple[tuple[str, str], ...] = ()
    notes: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return the row as plain values, ready for JSON."""
        return {
            "address": self.address,
            "axes": [[axis.name, axis.size] for axis in self.axes],
            "meaning": self.meaning,
            "module": self.origin.path,
            "relation": self.origin.relation,
            "names": [list(pair) for pair in self.names],
            "notes": [list(pair) for pair in self.notes],
        }

    @property
    def remark(self) -> str:
        """The user's names and notes in one text."""
        called = [f"{part}: called {name}".removeprefix(": ") for part, name in self.names]
        return "; ".join([*called, *(f"{part}: {note}".removeprefix(": ") for part, note in self.notes)])

    def __str__(self) -> str:
        """Return the row in one line."""
        axes = " ".join(map(str, self.axes))
        return "  ".join(filter(None, (self.address, f"[{axes}]", str(self.origin), self.meaning, self.remark)))


class Sites(Sequence[Site]):
    """The rows of a model's table of sites, whole-model values first.

    It prints as an aligned table, layers that have the same sites as one block; a text as index chooses rows.
    """

    def __init__(self, rows: Iterable[Site]) -> None:
        self._rows = tuple(rows)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every address, as `sj.run(..., keep=...)` takes them."""
        return tuple(row.address for row in self._rows)

    @overload
    def __getitem__(self, index: int) -> Site: ...
    @overload
    def __getitem__(self, index: str | slice) -> Sites: ...
    def __getitem__(self, index: int | str | slice) -> Site | Sites:
        """Return a row by its number, the rows of a slice, or those that a pattern names (see `matching`)."""
        if isinstance(index, str):
            return self.matching(index)
        return Sites(self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def matching(self, pattern: str) -> Sites:
        """Return the rows that a pattern names.

        In a pattern `*` stands for any text, so `L3.*` is a layer and `*.z` every z; layers and heads may be numbers or ranges as
        in an address (`L2..3.H7.z` finds the rows `L2.H*.z` and `L3.H*.z`). A user's own name and a module path are patterns too.

        Raises `AddressError` where nothing matches.
        """
        found = [row for row in self._rows if _matches(row, pattern)]
        if not found:
            known = {*self.addresses, *(row.origin.path for row in self._rows)} - {""}
            raise AddressError(f"no site of this table matches {pattern!r}{near(pattern, known)}")
        return Sites(found)

    def to_rows(self) -> list[dict[str, object]]:
        """Return all rows as plain values, ready for JSON."""
        return [row.to_dict() for row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Site]:
        return iter(self._rows)

    def __contains__(self, item: object) -> bool:
        """Tell whether a row, or the address of one, is in the table."""
        return item in (self.addresses if isinstance(item, str) else self._rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sites) and self._rows == other._rows

    def __hash__(self) -> int:
        return hash(self._rows)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<{len(self)} sites; print them, or choose some: sites['L0.*']>"

    def text(self, width: int = 120) -> str:
        """Return the table as text, columns aligned, no line longer than `width` where the columns leave room for it."""
        lines = [
            (row.address, " ".join(map(str, row.axes)), str(row.origin), row.meaning, row.remark)
            for row in _folded(self)
        ]
        kept = [place for place, _ in enumerate(_COLUMNS) if any(line[place] for line in lines)]
        table = [[_COLUMNS[place] for place in kept], *([line[place] for place in kept] for line in lines)]
        widths = [max(len(line[place]) for line in table) for place in range(len(kept))]
        while sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > _LEAST:
            widths[widths.index(max(widths))] -= 1
        return "\n".join(_laid(line, widths) for line in table)

    def _repr_html_(self) -> str:
        """Return the table as HTML; every text in it is escaped."""
        lines = [
            (row.address, " ".join(map(str, row.axes)), str(row.origin), row.meaning, row.remark)
            for row in _folded(self)
        ]
        head = "".join(f'<th scope="col" style="text-align:left">{name}</th>' for name in _COLUMNS)
        body = "".join(
            "<tr>" + "".join(f'<td style="text-align:left">{html.escape(cell)}</td>' for cell in line) + "</tr>"
            for line in lines
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _laid(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return a row whose long cells go on in further lines."""
    pieces = [_cut(cell, width) for cell, width in zip(cells, widths, strict=True)]
    deep = max(map(len, pieces))
    return "\n".join(
        "  ".join(
            (piece[line] if line < len(piece) else "").ljust(width) for piece, width in zip(pieces, widths, strict=True)
        ).rstrip()
        for line in range(deep)
    )


def _cut(text: str, width: int) -> list[str]:
    """Return a text in pieces of at most `width`, cut after a space or a dot where there is one."""
    pieces: list[str] = []
    while len(text) > width:
        at = max(text.rfind(" ", 0, width + 1), text.rfind(".", 0, width - 1) + 1)
        at = at if at > width // 3 else width
        pieces.append(text[:at].rstrip())
        text = text[at:].lstrip()
    return [*pieces, text]


def _matches(row: Site, pattern: str) -> bool:
    asked = pattern.strip()
    if any(fnmatchcase(name, asked) for _, name in row.names) or (
        row.origin.path and fnmatchcase(row.origin.path, asked)
    ):
        return True
    layered, found = _LAYER.fullmatch(asked), _LAYER.fullmatch(row.address)
    if layered is None or found is None:
        return fnmatchcase(_INDEX.sub(r"\1*", row.address), _INDEX.sub(r"\1*", asked))
    first, dots, last = layered[1].partition("..")
    here = int(found[1])
    if first != "*" and not int(first) <= here <= int(last if dots else first):
        return False
    return fnmatchcase(found[2], _INDEX.sub(r"\1*", layered[2]))


def _folded(sites: Iterable[Site]) -> list[Site]:
    """Return the rows with layers that follow each other and differ in nothing but their number as one: `L0..11.attn.q`."""
    folded: list[Site] = []
    blocks: list[tuple[int, int, list[Site]]] = []
    for layer, rows in groupby(sites, key=_layer_of):
        if layer is None:
            folded += rows
            continue
        block = [_numberless(row, layer) for row in rows]
        if blocks and blocks[-1][2] == block and blocks[-1][1] == layer - 1:
            blocks[-1] = (blocks[-1][0], layer, block)
        else:
            blocks.append((layer, layer, block))
    for first, last, block in blocks:
        number = str(first) if first == last else f"{first}..{last}"
        inside = str(first) if first == last else "*"
        folded += [
            replace(
                row,
                address=f"L{number}.{row.address}",
                origin=replace(row.origin, path=row.origin.path.replace("\0", inside)),
            )
            for row in block
        ]
    return folded


def _layer_of(row: Site) -> int | None:
    found = _LAYER.fullmatch(row.address)
    return int(found[1]) if found else None


def _numberless(row: Site, layer: int) -> Site:
    names = ["\0" if name == str(layer) else name for name in row.origin.path.split(".")]
    return replace(row, address=row.address.partition(".")[2], origin=replace(row.origin, path=".".join(names)))


def table_of(circuit: Circuit, anatomy: Anatomy, notes: Mapping[str, str]) -> Sites:
    """Return the table of a circuit's named sites; the modules' outputs where no layer was recognised.

    `notes` maps addresses to a user's words.
    """
    origins, shape = Origins(circuit, anatomy), anatomy.shape
    words: dict[tuple[int | None, str], list[tuple[str, str]]] = {}
    names: dict[tuple[int | None, str], list[tuple[str, str]]] = {}
    for name, address in shape.names:
        names.setdefault(_row_of(address), []).append((_part_of(address), name))
    for text, note in notes.items():
        address = parse(text)
        for number in (
            range(len(shape.layers)) if not isinstance(address.layer, int) and address.layer is not None else [None]
        ):
            one = address if number is None else replace(address, layer=number)
            words.setdefault(_row_of(one), []).append((_part_of(one), note))
    asked = [parse(site) for site in sorted(shape.sites, key=_rank)]
    for number, layer in enumerate(shape.layers):
        asked += [parse(f"L{number}.{starred(kind)}") for kind in sorted(layer.sites, key=_rank)]
    if not shape.layers:
        asked += [Address(None, Module(path), "") for path in sorted(shape.modules)]
    found: list[Site] = []
    for address in asked:
        sizes = {axis.name: axis for axis in axes_of(circuit, anatomy, address)}
        axes = tuple(sizes[name] for name in as_shown(sizes))
        row = _row_of(address)
        origin = Origin(address.part.path, "output") if isinstance(address.part, Module) else origins.of(address)
        found.append(
            Site(str(address), axes, meaning(address), origin, tuple(names.get(row, ())), tuple(words.get(row, ())))
        )
    return Sites(found)


def _rank(kind: str) -> tuple[int, str]:
    """Return where a kind of site stands in the glossary; what it lacks comes last."""
    return (_RANKS.get(kind, len(_RANKS)), kind)


def _row_of(address: Address) -> tuple[int | None, str]:
    return (address.layer if isinstance(address.layer, int) else None, address.kind)


def _part_of(address: Address) -> str:
    """Return which head, neuron or expert an address names, as its own text; empty for a whole value and for all of them."""
    found = _INDEX.search(address.place)
    return "" if found is None or found[2] == "*" or isinstance(address.part, Module) else f"{found[1]}{found[2]}"


def axes_of(circuit: Circuit, anatomy: Anatomy, address: Address) -> tuple[Axis, ...]:
    """Return the axes of the value at an address; of every head alike, those of one."""
    index = getattr(address.part, "index", None)
    if index is not None and not isinstance(index, int):
        address = replace(address, part=replace(address.part, index=0))  # type: ignore[arg-type, call-overload]
    return place(circuit, anatomy, address).value.axes
