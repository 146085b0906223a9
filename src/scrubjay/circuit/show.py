"""A circuit as text: a table from the results down, one line a node, layers of equal structure once.

    L0.mlp.post   [batch query hidden=56]  relu(L0.mlp.pre)
    L0.mlp.pre    [batch query hidden=56]  · + blocks.0.mlp.up.bias
      ·           [batch query hidden=56]  einsum "batch query model, hidden model -> batch query hidden" of ...

A value with an address is called by it, one that is used in several places by a number (`#1`); a dot stands for the lines
indented below, in order. Weights, numbers and counts have no line of their own; `model(min)` is the lowest number of the type
that the model runs in. Nothing here recurses.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import groupby
from typing import Any, cast

from scrubjay.circuit import ops
from scrubjay.circuit.circuit import Circuit, is_note
from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Constant, Einsum, Iota, Map, Weight
from scrubjay.circuit.spelling import LAYER_SITES, MODEL_SITES

NARROWEST, LEVELS, HISTORY = 40, 8, 4
"""The least width; how deep lines are indented before a value gets a number instead; how many rewrites are told."""

_IN_LAYER = re.compile(r"L(\d+)\.(.+)")
_SIGNS = {
    "divide": "/", "floor_divide": "//", "remainder": "%", "power": "**", "and": "and", "or": "or", "xor": "xor", "bitwise_and": "and",
    "bitwise_or": "or", "equal": "==", "not_equal": "!=", "less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">=",
}  # fmt: skip

Names = Sequence[str]


def show(
    circuit: Circuit, focus: str | None = None, depth: int | None = None, width: int = 120, most: int = 500
) -> str:
    """Return a circuit as text, readers before what they read.

    Args:
        circuit: what to print.
        focus: an address of its table (or a result) to print from; the results if not given.
        depth: how many steps below the results (or the focus) to print; all if not given.
        width: the longest line, at least 40.
        most: the most nodes to print; the rest is counted.

    Layers that differ in the names of their weights alone are printed once. Addresses that no result depends on are listed
    at the end. Raises `AddressError` for a focus that the circuit lacks.

    >>> from scrubjay.circuit.axes import Axis
    >>> from scrubjay.circuit.ops import Add, Input
    >>> x = Input("x", (Axis("model", 4),))
    >>> print(show(Circuit({"output": Map("relu", (Add((x, Constant(1.0))),))}, {"in.x": x})))
    output: 4 nodes, 0 weights, 2 addresses (· stands for the lines indented below)
    <BLANKLINE>
    output  [model=4]  relu(·)
      ·     [model=4]  in.x + 1.0
    in.x    [model=4]  input x, model
    """
    page = _page(circuit, focus, depth)
    rows: list[_Row] = []
    left = most
    for section in _sections(page):
        made = _section_rows(page, section, left)
        left -= sum(row.name != "" for row in made)
        rows += made
    lines = [*_wrapped(_title(circuit, page, focus), width), *_table(rows, width)]
    for note in _notes(circuit, page, whole=focus is None and depth is None):
        lines += ["", *_wrapped(note, width)]
    return "\n".join(lines)


@dataclass(frozen=True)
class _Row:
    """A line: its name (indented), its axes and what it is; without a name, a heading."""

    name: str
    axes: str
    what: str


@dataclass(eq=False)
class _Page:
    """What is printed: the nodes in sight, operands first, and how they are called and grouped."""

    order: list[Node]
    addresses: dict[Node, list[str]]
    uses: Counter[Node]
    owner: dict[Node, int | None]
    main_source: str
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


def _page(circuit: Circuit, focus: str | None, depth: int | None) -> _Page:
    roots = list(circuit.roots.values()) if focus is None else [circuit.node(focus)]
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
    for address, node in sorted(given, key=lambda item: _rank(item[0])):
        if node in below:
            addresses.setdefault(node, []).append(address)
        else:
            unread.append(address)
    uses = Counter(operand for node in order for operand in node.operands)
    sources = Counter(node.source for node in order if isinstance(node, Weight))
    main = sources.most_common(1)[0][0] if sources else ""
    return _Page(order, addresses, uses, _owners(order, addresses), main, unread=unread, deeper=len(far))


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


def _rank(address: str) -> int:
    """Sort named sites first, inputs next, then modules; each as the table has them."""
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
    if not found and not any(_rank(address) == 0 for address in addresses):
        return readers
    if made or any(address in MODEL_SITES for address in addresses):
        return min(made, default=None)
    before = min((number for number, _ in found), default=0) - 1
    return before if before >= 0 else None


# --- sections ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Section:
    """Nodes that are printed together, readers first; without nodes, only a heading."""

    title: str
    layer: int | None
    nodes: Sequence[Node] | None = None


def _sections(page: _Page) -> list[_Section]:
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
        return [_Section("", None, before[::-1])]
    twins = _twins(page, layers)
    found = [_Section("", None, after[::-1])]
    for first, group in groupby(sorted(layers, reverse=True), key=lambda number: twins[number]):
        numbers = list(group)
        if alike := [number for number in numbers if number != first]:
            whose = "their" if len(alike) > 1 else "its"
            found.append(_Section(f"{_ranges(alike)}: as L{first}, with weights of {whose} own", None))
        if first in numbers:
            found.append(_Section(f"L{first}", first, layers[first][::-1]))
    return [*found, _Section("what the layers read", None, before[::-1])]


def _ranges(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"L{low}" if low == high else f"L{low}..L{high}"


def _twins(page: _Page, layers: Mapping[int, Sequence[Node]]) -> dict[int, int]:
    """Return for each layer the first one of the same structure; weights of one layer alone are alike if their shapes are."""
    first: dict[object, int] = {}
    return {number: first.setdefault(_structure(page, number, layers[number]), number) for number in sorted(layers)}


def _structure(page: _Page, layer: int, nodes: Sequence[Node]) -> object:
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
    return tuple((made(node), known) for node, known in zip(nodes, sites, strict=True))


def _own(node: Node) -> list[str]:
    """Return a node's own fields, as texts, without its operands."""
    values = [cast("object", getattr(node, item.name)) for item in fields(cast("Any", node))]
    return [repr(value) for value in values if not isinstance(value, Node) and not _holds_nodes(value)]


def _holds_nodes(value: object) -> bool:
    return isinstance(value, tuple) and any(isinstance(item, Node) for item in cast("tuple[object, ...]", value))


# --- rows -------------------------------------------------------------------------------------------------------------


def _section_rows(page: _Page, section: _Section, most: int) -> list[_Row]:
    rows: list[_Row] = []
    mine = set(section.nodes or ())
    for top in section.nodes or ():
        if top in page.done or _is_inline(page, top):
            continue
        stack = [(top, 0)]
        while stack:
            node, level = stack.pop()
            page.done.add(node)
            if len(rows) >= most:
                page.left_out += 1
                continue
            texts, below = _operands(page, section.layer, mine, node, level)
            rows.append(_row(page, section.layer, node, level, texts))
            stack += [(operand, level + 1) for operand in reversed(below)]
    if not rows and section.nodes is not None:
        return []
    heading = [_Row("", "", section.title)] if section.title else []
    return [_Row("", "", ""), *heading, *rows]


def _operands(page: _Page, layer: int | None, mine: set[Node], node: Node, level: int) -> tuple[list[str], list[Node]]:
    """Return what a line calls the operands, and those of them that follow it, indented."""
    texts: list[str] = []
    below: list[Node] = []
    for operand in node.operands:
        name = page.name(operand, layer)
        once = page.uses[operand] == 1
        if name is not None:
            texts.append(name)
        elif _is_inline(page, operand):
            texts.append(_leaf(page, operand))
        elif operand not in page.owner:
            texts.append("…")
        elif operand in page.done or level + 1 > LEVELS or not (once or operand in mine):
            texts.append(page.label(operand))
        else:
            texts.append("·" if once else page.label(operand))
            below.append(operand)
            page.done.add(operand)
    return texts, below


def _is_inline(page: _Page, node: Node) -> bool:
    return isinstance(node, Weight | Constant | Iota) and not page.addresses.get(node)


def _row(page: _Page, layer: int | None, node: Node, level: int, operands: Names) -> _Row:
    name = page.name(node, layer) or page.labels.get(node, "·")
    others = [address for address in page.addresses.get(node, ()) if address != name]
    also = f"  (also {', '.join(others)})" if others else ""
    what = (
        _leaf(page, node, alone=True)
        if isinstance(node, Weight | Constant | Iota)
        else WORDS[type(node)](node, operands)
    )
    return _Row("  " * level + name, f"[{' '.join(map(str, node.axes))}]", what + also)


def _leaf(page: _Page, node: Node, *, alone: bool = False) -> str:
    if isinstance(node, Weight):
        name = node.name if node.source == page.main_source else f"{node.source}:{node.name}"
        return f"weight {name}" if alone else name
    return WORDS[type(node)](node, ())


def _number(node: Constant) -> str:
    return str(node.value) if node.dtype is None else f"{node.dtype}({node.value})"


def _einsum(node: Einsum, operands: Names) -> str:
    into = ", ".join(" ".join(_axis_order(factor)) or "1" for factor in node.factors)
    return f'einsum "{into} -> {" ".join(axis.name for axis in node.axes)}" of {", ".join(operands)}'


def _axis_order(node: Node) -> list[str]:
    """Return a weight's axes as it is stored, any other node's as the glossary has them."""
    return (
        [axis.name for dim in node.dims for axis in dim]
        if isinstance(node, Weight)
        else [axis.name for axis in node.axes]
    )


def _map(node: Map, operands: Names) -> str:
    if node.op == "cast":
        kind = node.parameters[0]
        return f"{operands[0]} as {'the model type' if kind == 'model' else kind}"
    if node.op in _SIGNS:
        return f" {_SIGNS[node.op]} ".join(operands)
    return f"{node.op}({', '.join([*operands, *map(str, node.parameters)])})"


def _along(node: ops.Along, operands: Names) -> str:
    parameters = f", with {', '.join(map(str, node.parameters))}" if node.parameters else ""
    return f"{node.op} over {' '.join(node.over)} of {operands[0]}{parameters}"


def _opaque(node: ops.Opaque, operands: Names) -> str:
    result = f", result {node.result}" if node.result else ""
    return f"{node.op} of {', '.join(operands) or 'nothing'}, kept as it is with {node.arguments}{result}"


def _narrow(node: ops.Narrow, operands: Names) -> str:
    step = f" every {node.step}" if node.step != 1 else ""
    return f"{node.axis} from {node.start}{step} of {operands[0]}, as {node.to}"


WORDS: dict[type[Node], Callable[[Any, Names], str]] = {
    ops.Input: lambda node, _: f"input {node.name}, {node.dtype}",
    Weight: lambda node, _: f"weight {node.name}",
    Constant: lambda node, _: _number(node),
    Iota: lambda node, _: f"0, 1.. along {node.axis.name}",
    Einsum: _einsum,
    ops.Add: lambda _, operands: " + ".join(operands),
    ops.Multiply: lambda _, operands: " * ".join(operands),
    ops.Index: lambda node, operands: f"{operands[0]} at {node.axis} {node.at}",
    ops.Narrow: _narrow,
    ops.Concat: lambda node, operands: f"{', '.join(operands)} joined along {', '.join(node.along)} into {node.to}",
    ops.Gather: lambda node, operands: f"gather {node.axis} of {operands[0]} at {operands[1]}",
    ops.Experts: lambda node, operands: (
        f"{operands[0]} through {operands[1]}, {node.axis} chosen by {operands[2]}, summed over {', '.join(node.summed)}"
    ),
    ops.Order: lambda node, operands: (
        f"{node.result} of the {'greatest' if node.greatest else 'least'} along {node.axis} of {operands[0]} as {node.to}, by {node.how}"
    ),
    ops.Relabel: lambda node, operands: f"{operands[0]} with {', '.join(f'{old} as {new}' for old, new in node.pairs)}",
    ops.Split: lambda node, operands: f"{operands[0]} with {node.axis} split into {' '.join(map(str, node.into))}",
    ops.Merge: lambda node, operands: f"{operands[0]} with {' '.join(node.merged)} merged into {node.to}",
    ops.Repeat: lambda node, operands: f"{operands[0]} repeated along {' '.join(map(str, node.along))}",
    Map: _map,
    ops.Along: _along,
    ops.Opaque: _opaque,
    ops.Custom: lambda node, operands: f"function {node.name} of {node.source} on {operands[0]}",
}
"""How each kind of node is said, from the node and what its operands are called."""


# --- lines ------------------------------------------------------------------------------------------------------------


def _table(rows: Sequence[_Row], width: int) -> list[str]:
    """Return rows as lines in three columns; what does not fit goes on below its own column."""
    width = max(width, NARROWEST)
    names = _column([len(row.name) for row in rows], width // 4)
    axes = _column([len(row.axes) for row in rows], width // 3)
    lines: list[str] = []
    for row in rows:
        if not row.name:
            lines += _wrapped(row.what, width) if row.what else [""]
            continue
        text = f"{row.name:{names}}  {row.axes:{axes}}  {row.what}"
        indent = min(names + axes + 4, width * 2 // 3)
        lines += _wrapped(text, width, indent)
    return lines


def _column(lengths: Sequence[int], widest: int) -> int:
    """Return the width of a column that fits all entries but those wider than `widest`."""
    return max((length for length in lengths if length <= widest), default=0)


def _wrapped(text: str, width: int, indent: int = 2) -> list[str]:
    if len(text) <= (width := max(width, NARROWEST)):
        return [text.rstrip()]
    return textwrap.wrap(
        text,
        width,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )


def _title(circuit: Circuit, page: _Page, focus: str | None) -> str:
    weights = sum(isinstance(node, Weight) for node in page.order)
    known = sum(len(page.addresses.get(node, ())) for node in page.order)
    text = (
        f"{focus or ', '.join(circuit.roots)}: {_count(len(page.order), 'node')}, {_count(weights, 'weight')}, "
        f"{_count(known, 'address')} (· stands for the lines indented below)"
    )
    if circuit.history:
        earlier = f"{len(circuit.history) - HISTORY} more, " if len(circuit.history) > HISTORY else ""
        text += f"; after {earlier}{', '.join(circuit.history[-HISTORY:])}"
    return text


def _notes(circuit: Circuit, page: _Page, *, whole: bool) -> list[str]:
    notes: list[str] = []
    if page.deeper:
        notes.append(f"{_count(page.deeper, 'more node')} at a greater depth")
    if page.left_out:
        notes.append(
            f"{_count(page.left_out, 'more node')} not printed: narrow it with focus= and depth=, or raise most="
        )
    if whole and (never := [address for address in page.unread if address not in circuit.removed]):
        notes.append(f"no result depends on: {', '.join(never)}")
    for rewrite in dict.fromkeys(circuit.removed.values() if whole else ()):
        gone = [address for address, by in circuit.removed.items() if by == rewrite]
        notes.append(f"no result depends any more, since {rewrite}, on: {', '.join(gone)}")
    return notes


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun if number == 1 else noun + ('es' if noun.endswith('s') else 's')}"
