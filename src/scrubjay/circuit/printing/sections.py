"""How a printed circuit is ordered: what is in sight, how it is called, which layer it belongs to, which layers are alike."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import groupby
from typing import Any, cast

from scrubjay.circuit.address import Head, Neuron
from scrubjay.circuit.circuit import Circuit, is_note
from scrubjay.circuit.graph import need_circuit, topological
from scrubjay.circuit.match.matcher import Scope
from scrubjay.circuit.match.names import address_of, why_no_address
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Constant, Iota, Weight
from scrubjay.circuit.printing.dependence import Marking, main_source
from scrubjay.circuit.spelling import LAYER_SITES, MODEL_SITES
from scrubjay.errors import AddressError, CircuitError

_IN_LAYER = re.compile(r"L(\d+)\.(.+)")


@dataclass(eq=False)
class Page:
    """What is printed: the nodes in sight, operands first, and how they are called and grouped."""

    order: list[Node]
    addresses: dict[Node, list[str]]
    uses: Counter[Node]
    owner: dict[Node, int | None]
    main_source: str
    marks: Mapping[Node, str] = field(default_factory=dict[Node, str])
    labels: dict[Node, str] = field(default_factory=dict[Node, str])
    done: set[Node] = field(default_factory=set[Node])
    unread: list[str] = field(default_factory=list[str])
    deeper: int = 0
    left_out: int = 0

    def name(self, node: Node, layer: int | None = None) -> str | None:
        """Return what a node is called where `layer` reads it: an address, preferably of that layer."""
        known = self.addresses.get(node)
        if not known:
            return None
        return next((one for one in known if layer is not None and one.startswith(f"L{layer}.")), known[0])

    def label(self, node: Node) -> str:
        """Return the number of a node without an address."""
        return self.labels.setdefault(node, f"#{len(self.labels) + 1}")


def page_of(circuit: Circuit, focus: str | None, depth: int | None, marks: Marking | None = None) -> Page:
    """Return what is printed of a circuit; raise `AddressError` for a focus that it lacks.

    Layers whose nodes are marked in different ways are not alike.
    """
    need_circuit(circuit)
    roots = list(circuit.roots.values()) if focus is None else [at_focus(circuit, focus)]
    check_depth(depth)
    every = topological(roots)
    far = _beyond(roots, depth)
    order = [node for node in every if node not in far]
    addresses: dict[Node, list[str]] = {}
    below = set(every)
    unread: list[str] = []
    given = [
        *((name, node) for name, node in circuit.table.items() if not is_note(name)),
        *((name, node) for name, node in circuit.roots.items() if name not in circuit.table),
    ]
    for address, node in sorted(given, key=lambda item: rank(item[0])):
        if node in below:
            addresses.setdefault(node, []).append(address)
        else:
            unread.append(address)
    marked = {node: marks.mark(node) for node in order} if marks is not None else {}
    uses = Counter(operand for node in order for operand in node.operands)
    main = main_source(order)
    return Page(order, addresses, uses, _owners(order, addresses), main, marked, unread=unread, deeper=len(far))


def at_focus(circuit: Circuit, focus: str) -> Node:
    """Return the node that a text names: an address of the table or a result.

    Raises `AddressError`, which tells a head's or neuron's part of a node from an address that there is nothing at.
    """
    known = focus in circuit.table or focus in circuit.roots or focus in circuit.removed
    address = None if known or not isinstance(focus, str) else address_of(focus)  # pyright: ignore[reportUnnecessaryIsInstance]
    if address is not None and isinstance(address.part, Head | Neuron):
        raise AddressError(why_no_address(address, Scope(circuit)))
    return circuit.node(focus)


def check_depth(depth: object) -> None:
    """Raise `CircuitError` for a depth that is no number of steps."""
    if depth is not None and (type(depth) is not int or depth < 0):
        raise CircuitError(f"depth={depth!r}: a depth is a number of steps from 0 on, or None for all")


def _beyond(roots: Iterable[Node], depth: int | None) -> set[Node]:
    """Return the nodes more than `depth` steps below the roots (weights and numbers are part of what reads them)."""
    if depth is None:
        return set()
    near, here = set(roots), list(roots)
    for _ in range(depth):
        here = list(dict.fromkeys(operand for node in here for operand in node.operands if operand not in near))
        near.update(here)
        if not here:
            break
    near.update(
        operand for node in list(near) for operand in node.operands if isinstance(operand, Weight | Constant | Iota)
    )
    return {node for node in topological(roots) if node not in near}


def rank(address: str) -> int:
    """Return 0 for named sites, 1 for what else is of one layer, 2 for modules and the rest: the order of one node's names."""
    found = _IN_LAYER.fullmatch(address)
    if address in MODEL_SITES or (found and (found[2] in LAYER_SITES or found[2].startswith("H"))):
        return 0
    return 1 if found else 2


def _owners(order: Sequence[Node], addresses: Mapping[Node, Sequence[str]]) -> dict[Node, int | None]:
    """Return the layer each node belongs to: by its address, else that of all who read it (`None`: no one layer)."""
    owner: dict[Node, int | None] = {}
    reading: dict[Node, int | None] = {}
    for node in reversed(order):
        owner[node] = _layer_of(addresses.get(node, ()), reading.get(node))
        for operand in node.operands:
            mine = owner[node]
            reading[operand] = mine if reading.setdefault(operand, mine) == mine else None
    return owner


def _layer_of(addresses: Sequence[str], readers: int | None) -> int | None:
    found = [(int(match[1]), match[2]) for match in map(_IN_LAYER.fullmatch, addresses) if match]
    made = [number for number, site in found if site != "resid_pre"]
    if not found and not any(rank(address) == 0 for address in addresses):
        return readers
    if made or any(address in MODEL_SITES for address in addresses):
        return min(made, default=None)
    before = min((number for number, _ in found), default=0) - 1
    return before if before >= 0 else None


@dataclass(frozen=True, eq=False)
class Section:
    """Nodes that are printed together, readers first; without nodes, only a heading."""

    title: str
    layer: int | None
    nodes: Sequence[Node] | None = None


def sections(page: Page) -> list[Section]:
    """Return the parts of the print: what follows the layers, the layers from the last to the first, what they share."""
    after, before = list[Node](), list[Node]()
    layers: dict[int, list[Node]] = {}
    beyond: set[Node] = set()
    for node in page.order:
        mine = page.owner[node]
        if mine is not None or any(operand in beyond for operand in node.operands):
            beyond.add(node)
        (before if node not in beyond else after if mine is None else layers.setdefault(mine, [])).append(node)
    if not layers:
        return [Section("", None, before[::-1])]
    twins = _twins(page, layers)
    found = [Section("", None, after[::-1])]
    for first, group in groupby(sorted(layers, reverse=True), key=lambda number: twins[number]):
        numbers = list(group)
        if alike := [number for number in numbers if number != first]:
            whose = "their" if len(alike) > 1 else "its"
            found.append(Section(f"{_ranges(alike)}: as L{first}, with weights of {whose} own", None))
        if first in numbers:
            found.append(Section(f"L{first}", first, layers[first][::-1]))
    return [*found, Section("what the layers read", None, before[::-1])]


def _ranges(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"L{low}" if low == high else f"L{low}..L{high}"


def _twins(page: Page, layers: Mapping[int, Sequence[Node]]) -> dict[int, int]:
    """Return for each layer the first one of the same structure; weights of one layer alone are alike if their shapes are."""
    first: dict[object, int] = {}
    return {number: first.setdefault(_structure(page, number, layers[number]), number) for number in sorted(layers)}


def _structure(page: Page, layer: int, nodes: Sequence[Node]) -> object:
    place = {node: index for index, node in enumerate(nodes)}
    here = f"L{layer}."
    weights = [node for node in nodes if isinstance(node, Weight)]
    longest_first = sorted({node.name for node in weights}, key=len, reverse=True)
    names = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
    numbers = {name: f"w{index}" for index, name in enumerate(dict.fromkeys(node.name for node in weights))}

    def unnamed(text: str) -> str:  # axes of a layer's own may be named after its weights
        return names.sub(lambda found: numbers[found[0]], text)

    def seen(node: Node) -> object:
        if node in place:
            return place[node]
        found = [match for match in map(_IN_LAYER.fullmatch, page.addresses.get(node, ())) if match]
        sites = sorted((abs(int(match[1]) - layer), int(match[1]) - layer, match[2]) for match in found)
        return sites[0] if sites else node

    def made(node: Node) -> object:
        if isinstance(node, Weight):
            return node.source, unnamed(repr(node.dims)), node.dtype
        return type(node), *map(unnamed, _own(node)), *(seen(operand) for operand in node.operands)

    sites = (
        tuple(address[len(here) :] for address in page.addresses.get(node, ()) if address.startswith(here))
        for node in nodes
    )
    return tuple((made(node), page.marks.get(node), known) for node, known in zip(nodes, sites, strict=True))


def _own(node: Node) -> list[str]:
    """Return a node's own fields, as texts, without its operands."""
    values = [cast("object", getattr(node, item.name)) for item in fields(cast("Any", node))]
    return [repr(value) for value in values if not isinstance(value, Node) and not _holds_nodes(value)]


def _holds_nodes(value: object) -> bool:
    return isinstance(value, tuple) and any(isinstance(item, Node) for item in cast("tuple[object, ...]", value))


def is_inline(page: Page, node: Node) -> bool:
    """Tell whether a node has no line of its own and is written where it is read."""
    return isinstance(node, Weight | Constant | Iota) and not page.addresses.get(node)
