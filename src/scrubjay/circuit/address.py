"""Addresses: the one way to name a value inside a model, typed, read once from text and printed one way.

    embed  pos_embed  ln_f.scale  logits                        values of the whole model
    L3.resid_pre  L3.attn.out  L3.mlp.post  L3.ln1.scale        values of a layer
    L3.H7.z  L3.KV2.k  L3.N512  L3.mlp.E5.out                   of a head, key-value head, neuron, expert
    model.layers.3.mlp  .lm_head                                the output of a module, by its path
    L*.H0..3.z  A@3  A@-1  A@2..5  A@END  A -> B -> C           every index, a range, positions, a path

`parse` reads them and the foreign spellings of `spelling.py`; `str` prints the canonical form, and reading that gives the
same address. A module whose path could be read as something else (one word, or `L3.H7.z`) has a dot in front.
`expand` turns wildcards and ranges into the addresses a model really has. What each site means is design.md, 2.4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum

from scrubjay.circuit import spelling
from scrubjay.circuit.spelling import LAYER_SITES, MODEL_SITES, close, listed, shorten
from scrubjay.errors import AddressError

_EXAMPLES = "; addresses look like L3.resid_pre, L3.H7.z@END, L*.mlp.out, logits or model.layers.3.mlp"


class Wildcard(Enum):
    """The one value `ANY`: every index there is, printed `*`."""

    ANY = "*"

    def __str__(self) -> str:
        return self.value


ANY = Wildcard.ANY


@dataclass(frozen=True, slots=True)
class Range:
    """Whole numbers from `first` to `last`, both included; negative ones (of positions only) count from the end.

    >>> str(Range(10, 11)), str(Range(1, -1))
    ('10..11', '1..-1')
    """

    first: int
    last: int

    def __post_init__(self) -> None:
        if not _is_number(self.first) or not _is_number(self.last):
            raise AddressError("the ends of a range are whole numbers of at most nine digits")
        # 1..-1 is all but the first; -1..1 would be empty in every row of three tokens or more.
        if (self.first < 0, self.first) > (self.last < 0, self.last):
            raise AddressError(f"the range {self} runs backwards; write the earlier end first")

    def __str__(self) -> str:
        return f"{self.first}..{self.last}"


Index = int | Range | Wildcard


@dataclass(frozen=True, slots=True)
class Head:
    """Query head `index` of a layer: `L3.H7.z`."""

    index: Index


@dataclass(frozen=True, slots=True)
class KeyValueHead:
    """Key-value head `index` of a layer, shared by a group of query heads: `L3.KV2.k`."""

    index: Index


@dataclass(frozen=True, slots=True)
class Neuron:
    """Neuron `index` of a layer, one coordinate of `mlp.post`: `L3.N512`; its site is empty."""

    index: Index


@dataclass(frozen=True, slots=True)
class Expert:
    """Expert `index` of a layer's mixture: `L3.mlp.E5.out`."""

    index: Index


@dataclass(frozen=True, slots=True)
class Module:
    """The module at a dotted `path` from the model's root: `model.layers.3.mlp`; its site is empty (its output)."""

    path: str


Part = Head | KeyValueHead | Neuron | Expert | Module


@dataclass(frozen=True, slots=True)
class _Numbered:
    """How the parts of one type are written (`prefix` before the index), called and counted, and what sites they have."""

    make: Callable[[Index], Head | KeyValueHead | Neuron | Expert]
    prefix: str
    noun: str
    sites: tuple[str, ...]


_NUMBERED = {
    Head: _Numbered(Head, "H", "head", spelling.HEAD_SITES),
    KeyValueHead: _Numbered(KeyValueHead, "KV", "key-value head", spelling.KEY_VALUE_SITES),
    Neuron: _Numbered(Neuron, "N", "neuron", ("",)),
    Expert: _Numbered(Expert, "mlp.E", "expert", spelling.EXPERT_SITES),
}


@dataclass(frozen=True, slots=True)
class Position:
    """Where in a row: a number (`@3` from its first real token, `@-1` its last), a `Range` of them, or a task's name (`@END`).

    >>> str(Position(Range(2, 5))), str(Position("END"))
    ('@2..5', '@END')
    """

    at: int | Range | str

    def __post_init__(self) -> None:
        if isinstance(self.at, str) and not self.at.isidentifier():
            wanted = "a number (@3, @-1), a range (@2..5, @1..-1) or a name (@END)"
            raise AddressError(f"the position {shorten(self.at)} is not {wanted}")
        if isinstance(self.at, int) and not _is_number(self.at):
            raise AddressError("a position is a whole number of at most nine digits, a Range or a name")

    def __str__(self) -> str:
        return f"@{self.at}"


@dataclass(frozen=True, slots=True)
class Address:
    """One value inside a model, or with wildcards and ranges a set of them.

    Attributes:
        layer: the index of the layer; None for a value of the whole model and for a module.
        part: the head, key-value head, neuron or expert of that layer, or a module; None for a whole value.
        site: the name of the value (`resid_pre`, `attn.q`, of a head `q`); empty for a neuron or a module.
        position: where in each row; None is every position.

    Raises:
        AddressError: if the grammar has no such combination.

    >>> str(Address(3, Head(7), "z", Position(-1)))
    'L3.H7.z@-1'
    >>> str(Address(ANY, None, "mlp.out")), str(Address(None, Module("lm_head"), ""))
    ('L*.mlp.out', '.lm_head')
    """

    layer: Index | None
    part: Part | None
    site: str
    position: Position | None = None

    def __post_init__(self) -> None:
        if isinstance(self.part, Module):
            if problem := spelling.module_problem(self.part.path):
                raise AddressError(problem)
            if self.layer is not None:
                raise AddressError(f"the module {shorten(self.part.path)} has no layer; leave the layer None")
        elif self.part is not None:
            if self.layer is None:
                raise AddressError(f"{self.place} belongs to a layer; give the layer's index or ANY")
            _check_index(self.part.index, _NUMBERED[type(self.part)].noun)
        if self.layer is not None:
            _check_index(self.layer, "layer")
        if self.site not in _sites_of(self.layer, self.part):
            raise AddressError(_no_such_site(self.layer, self.part, self.site))

    @property
    def place(self) -> str:
        """The address without layer and position: `H7.z`, `resid_pre`, `mlp.E*.out`, `embed`, `.lm_head`."""
        match self.part:
            case None:
                return self.site
            case Module(path):
                return path if spelling.reads_as_module(path) else f".{path}"
            case _:
                return _joined(f"{_NUMBERED[type(self.part)].prefix}{self.part.index}", self.site)

    @property
    def kind(self) -> str:
        """The place without its index, as in `LayerShape.sites`: `H.z`, `N`, `resid_pre`, `mlp.E.out`, `embed`."""
        if self.part is None or isinstance(self.part, Module):
            return self.place
        return _joined(_NUMBERED[type(self.part)].prefix, self.site)

    def __str__(self) -> str:
        """Return the canonical text; `parse` reads it back to an equal address."""
        position = "" if self.position is None else str(self.position)
        return f"{'' if self.layer is None else f'L{self.layer}.'}{self.place}{position}"


@dataclass(frozen=True, slots=True)
class LayerShape:
    """How many parts a layer has, and the `kind` of every value in it: `resid_pre`, `attn.q`, `H.q`, `KV.k`, `N`, `mlp.E.out`."""

    heads: int = 0
    kv_heads: int = 0
    neurons: int = 0
    experts: int = 0
    sites: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        known = {*LAYER_SITES, *(_joined(kind.prefix, site) for kind in _NUMBERED.values() for site in kind.sites)}
        _check_known(self.sites, known, "a layer")
        if min(self.heads, self.kv_heads, self.neurons, self.experts) < 0:
            raise AddressError(f"a layer cannot have fewer than no parts: {self}")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What a model has: its layers in order, the values of the whole model, the paths of its modules, the names users gave."""

    layers: tuple[LayerShape, ...] = ()
    sites: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()
    names: tuple[tuple[str, Address], ...] = ()

    def __post_init__(self) -> None:
        _check_known(self.sites, MODEL_SITES, "the whole model")


@dataclass(frozen=True, slots=True)
class Path:
    """Addresses from sender to receiver; two of them are an edge, one is that place alone.

    >>> str(parse_path("9.9->L10.H0.q_in"))
    'L9.H9.out -> L10.H0.q_in'
    """

    steps: tuple[Address, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise AddressError("a path needs at least one address")

    def __str__(self) -> str:
        return " -> ".join(str(step) for step in self.steps)


def parse(text: str) -> Address:
    """Return the address that `text` names, in our grammar or an accepted foreign spelling.

    A head alone (`L9.H9`, `9.9`, `a9.h9`) means its output.

    Raises:
        AddressError: if it does not parse; the message names the offending part.

    >>> parse("L10..11.H*.q_in@END")
    Address(layer=Range(first=10, last=11), part=Head(index=<Wildcard.ANY: '*'>), site='q_in', position=Position(at='END'))
    >>> [str(parse(text)) for text in ("9.9", "blocks.9.attn.hook_result", "model.layers.3.mlp@-1")]
    ['L9.H9.out', 'L9.H*.out', 'model.layers.3.mlp@-1']
    """
    stripped = text.strip()
    try:
        if "->" in stripped:
            raise AddressError("a path of several addresses, where one is expected; read paths with parse_path")
        name, at, where = stripped.partition("@")
        if not name:
            raise AddressError(f"an address is missing{' before the @' if at else ''}{_EXAMPLES}")
        address = _parse_name(name)
        return replace(address, position=_parse_position(where)) if at else address
    except AddressError as error:
        raise AddressError(f"{shorten(text)}: {error}") from None


def parse_path(text: str) -> Path:
    """Return the path `A -> B -> C`; a plain address is a path of one step.

    Raises:
        AddressError: if a step does not parse; the message says which.

    >>> len(parse_path("embed -> L0.H1.k_in -> L1.H0.q_in@-1").steps)
    3
    """
    pieces = text.split("->")
    steps: list[Address] = []
    for number, piece in enumerate(pieces, start=1):
        try:
            steps.append(parse(piece))
        except AddressError as error:
            if len(pieces) == 1:
                raise
            raise AddressError(f"step {number} of the path {shorten(text)}: {error}") from None
    return Path(tuple(steps))


def to_transformer_lens(address: Address) -> str | None:
    """Return the TransformerLens hook that holds exactly this value, or None.

    One head of a hook, a position, several layers and modules have none: take the hook of the whole value and index it.

    >>> to_transformer_lens(parse("L9.attn.z")), to_transformer_lens(parse("L9.H*.out")), to_transformer_lens(parse("L9.H7.z"))
    ('blocks.9.attn.hook_z', 'blocks.9.attn.hook_result', None)
    """
    if address.position is not None or isinstance(address.layer, Range | Wildcard):
        return None
    return spelling.transformer_lens_hook(address.layer, address.place)


def expand(address: Address, shape: ModelShape) -> tuple[Address, ...]:
    """Return the addresses without wildcard or range that `address` stands for, by layer and then index; positions stay.

    A wildcard passes over layers that lack the value; a layer, head, ... that is given by number or range must have it.

    Raises:
        AddressError: if nothing matches, or something asked for by number does not exist; the message says what does.

    >>> shape = ModelShape((LayerShape(heads=2, sites=frozenset({"H.z"})),) * 2, frozenset({"logits"}))
    >>> [str(one) for one in expand(parse("L*.H*.z@END"), shape)]
    ['L0.H0.z@END', 'L0.H1.z@END', 'L1.H0.z@END', 'L1.H1.z@END']
    """
    if isinstance(address.part, Module) and (own := dict(shape.names).get(address.part.path)):
        return expand(replace(own, position=address.position), shape)
    if address.layer is None:
        _check_there(address, shape)
        return (address,)
    found: list[Address] = []
    for number in _numbers(address, address.layer, "layer", "L", len(shape.layers), "this model"):
        if address.kind in shape.layers[number].sites:
            found += _expand_part(address, number, shape.layers[number])
        elif address.layer is not ANY:
            raise AddressError(_lacks(address, number, shape))
    if not found:
        sites = {site for layer in shape.layers for site in layer.sites}
        hint = close(address.kind, sites) or listed("; they have", sites)
        raise AddressError(f"{address}: no layer of this model has {address.kind}{hint}")
    return tuple(found)


def _check_there(address: Address, shape: ModelShape) -> None:
    """Raise unless a value of the whole model, or a module, exists."""
    if isinstance(address.part, Module):
        what, name, known = "module", address.part.path, shape.modules
    else:
        what, name, known = "site", address.site, shape.sites
    if name in known:
        return
    in_layers = (
        f"L{number}.{site}" for number, layer in enumerate(shape.layers) for site in layer.sites if site in LAYER_SITES
    )
    hint = close(name, {*shape.modules, *shape.sites, *in_layers, *dict(shape.names)}) or listed("; it has", known)
    shown = str(address) if len(name) <= 60 else shorten(str(address))
    raise AddressError(f"{shown}: this model has no such {what}{hint}")


def _expand_part(asked: Address, number: int, layer: LayerShape) -> list[Address]:
    """Return the addresses in layer `number` that `asked` stands for."""
    address = replace(asked, layer=number)
    if asked.part is None or isinstance(asked.part, Module):
        return [address]
    counts = {Head: layer.heads, KeyValueHead: layer.kv_heads, Neuron: layer.neurons, Expert: layer.experts}
    count = counts[type(asked.part)]
    if count == 0 and asked.layer is ANY and asked.part.index is ANY:
        return []
    kind = _NUMBERED[type(asked.part)]
    letter = kind.prefix.rpartition(".")[2]
    numbers = _numbers(asked, asked.part.index, kind.noun, letter, count, f"layer {number}")
    return [replace(address, part=kind.make(index)) for index in numbers]


def _numbers(asked: Address, index: Index, noun: str, letter: str, count: int, owner: str) -> range:
    """Return the numbers an index stands for among `count`; raise if one of them, or any at all, is not there."""
    if isinstance(index, Wildcard):
        numbers = range(count)
    elif isinstance(index, Range):
        numbers = range(index.first, index.last + 1)
    else:
        numbers = range(index, index + 1)
    if numbers and numbers[-1] < count:
        return numbers
    there = f"{noun}s {letter}0..{letter}{count - 1}" if count else f"no {noun}s"
    if count == 1:
        there = f"one {noun}, {letter}0"
    missing = f"{noun} {numbers[-1]} does not exist" if numbers else f"{noun} * matches nothing"
    raise AddressError(f"{asked}: {missing}; {owner} has {there}")


def _lacks(address: Address, number: int, shape: ModelShape) -> str:
    """Return the message for a layer that lacks the value: what it has nearby, and which layers have it."""
    sites = shape.layers[number].sites
    others = (replace(address, layer=number, site=site, position=None) for site in _sites_of(number, address.part))
    hint = close(f"L{number}.{address.place}", [str(other) for other in others if other.kind in sites])
    having = [f"L{index}" for index, layer in enumerate(shape.layers) if address.kind in layer.sites]
    elsewhere = listed("; layers that have it:", having) if having else "; no layer of this model has it"
    return f"{address}: layer {number} has no {address.kind}{hint or listed('; it has', sites)}{elsewhere}"


def _check_known(sites: Iterable[str], known: Iterable[str], owner: str) -> None:
    for unknown in sorted(set(sites) - set(known)):
        raise AddressError(f"no such site {shorten(unknown)} of {owner}{close(unknown, known)}")


_DOT = re.compile(r"(?<!\.)\.(?!\.)")  # one dot; the two of a range do not separate
_PART = re.compile(r"(H|KV|N|E)([^A-Za-z_].*)?", re.DOTALL)


def _joined(*names: str) -> str:
    return ".".join(name for name in names if name)


def _sites_of(layer: Index | None, part: Part | None) -> tuple[str, ...]:
    if isinstance(part, Module):
        return ("",)
    if part is not None:
        return _NUMBERED[type(part)].sites
    return MODEL_SITES if layer is None else LAYER_SITES


def _is_number(value: int) -> bool:
    return not isinstance(value, bool) and -spelling.LARGEST <= value <= spelling.LARGEST


def _check_index(index: Index, noun: str) -> None:
    if isinstance(index, int) and not _is_number(index):
        raise AddressError(f"the {noun} index is not a whole number of at most nine digits")
    if not isinstance(index, Wildcard) and (min(index.first, index.last) if isinstance(index, Range) else index) < 0:
        raise AddressError(f"the {noun} index {index} counts from the end, which indices cannot; number from 0")


def _no_such_site(layer: Index | None, part: Part | None, site: str) -> str:
    """Return why `site` is not one of a layer, part or model, with near addresses or else all of its sites."""
    if isinstance(part, Module):
        return f"a module has no sites, so not {shorten(site)}; name a module inside it by its path"
    sites = _sites_of(layer, part)
    owner = _joined("" if layer is None else f"L{layer}", f"{_NUMBERED[type(part)].prefix}{part.index}" if part else "")
    if sites == ("",):
        return f"{owner} has no sites, so not {shorten(site)}; leave it out"
    if not site:
        return f"{owner or 'this'} is no value by itself; its sites are {', '.join(sites)}"
    asked, known = _joined(owner, site), [_joined(owner, name) for name in sites]
    inside = [name for name in known if name.startswith(f"{asked}.")]
    hint = listed("; did you mean", inside, most=10) if inside else close(asked, known)
    hint = hint or f"; its sites are {', '.join(sites)}"
    return f"no such site {shorten(site)} of {owner or 'the whole model'}{hint}"


def _parse_name(name: str) -> Address:
    """Read an address without its position."""
    if name.startswith("."):
        return Address(None, Module(name[1:]), "")
    if spelling.reads_as_module(name):
        return Address(None, Module(name), "")
    name = spelling.to_canonical(name)
    if name in MODEL_SITES:
        return Address(None, None, name)
    segments = _DOT.split(name)
    if found := spelling.LAYER.fullmatch(segments[0]):
        return _parse_in_layer(_parse_index(found[1] or "", "layer"), segments[1:])
    hint = close(name, (*MODEL_SITES, *(f"L0.{site}" for site in LAYER_SITES)))
    module = "" if spelling.module_problem(name) else f"; a module of that path is written {shorten('.' + name)}"
    raise AddressError(f"no such value of the whole model{hint or _EXAMPLES}{module}")


def _parse_in_layer(layer: Index, names: list[str]) -> Address:
    """Read what follows the layer, split at its dots."""
    before, rest = ([], names) if names[:1] != ["mlp"] else (names[:1], names[1:])
    found = _PART.fullmatch(rest[0]) if rest else None
    kind = next((kind for kind in _NUMBERED.values() if found and kind.prefix == _joined(*before, found[1])), None)
    if found is None or kind is None:
        return Address(layer, None, ".".join(names))
    site = ".".join(rest[1:])
    if kind.make is Head and len(rest) == 1:
        site = "out"
    return Address(layer, kind.make(_parse_index(found[2] or "", kind.noun)), site)


def _parse_index(text: str, noun: str) -> Index:
    if text == "*":
        return ANY
    if not text:
        raise AddressError(f"the {noun} index is missing; give a number, a range such as 0..3, or *")
    return _parse_whole(text, f"the {noun} index")


def _parse_position(text: str) -> Position | None:
    if text == "*":
        return None
    if not text:
        raise AddressError("the position after the @ is missing; write for example @3, @-1, @2..5 or @END")
    return Position(_parse_whole(text, "the position") if text[0] in "-0123456789" else text)


def _parse_whole(text: str, what: str) -> int | Range:
    first, dots, last = text.partition("..")
    number = spelling.whole_number(first, what)
    return Range(number, spelling.whole_number(last, what)) if dots else number
