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
from collections.abc import Sequence
from dataclasses import dataclass

from scrubjay.circuit.circuit import Circuit, is_note
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Constant, Iota, Weight
from scrubjay.circuit.printing.dependence import Marking, painted
from scrubjay.circuit.printing.sections import Page, Section, is_inline, page_of, sections
from scrubjay.circuit.printing.words import WORDS, Names, runs

NARROWEST, LEVELS, HISTORY = 40, 8, 4
"""The least width; how deep lines are indented before a value gets a number instead; how many rewrites are told."""


def show(
    circuit: Circuit,
    focus: str | None = None,
    depth: int | None = None,
    width: int = 120,
    most: int = 500,
    marks: Marking | None = None,
    colour: bool = False,
) -> str:
    """Return a circuit as text, readers before what they read.

    Args:
        circuit: what to print.
        focus: an address of its table (or a result) to print from; the results if not given.
        depth: how many steps below the results (or the focus) to print; all if not given.
        width: the longest line, at least 40.
        most: the most nodes to print; the rest is counted.
        marks: what each node depends on, from `marking`: its letters are the first column.
        colour: whether to colour lines for a terminal too, as the marks say.

    Layers that differ in the names of their weights alone are printed once. Addresses that no result depends on are listed
    at the end. Raises `AddressError` for a focus that the circuit lacks.

    >>> from scrubjay.circuit.axes import Axis
    >>> from scrubjay.circuit.ops import Add, Input, Map
    >>> x = Input("x", (Axis("model", 4),))
    >>> print(show(Circuit({"output": Map("relu", (Add((x, Constant(1.0))),))}, {"in.x": x})))
    output: 4 nodes, 0 weights, 2 addresses (· stands for the lines indented below)
    <BLANKLINE>
    output  [model=4]  relu(·)
      ·     [model=4]  in.x + 1.0
    in.x    [model=4]  input x, model
    """
    page = page_of(circuit, focus, depth, marks)
    rows: list[_Row] = []
    left = most
    for section in sections(page):
        made = _section_rows(page, section, left)
        left -= sum(row.name != "" for row in made)
        rows += made
    lines = [*_wrapped(_title(circuit, page, focus), width), *_table(rows, width, marks, colour)]
    if marks is not None:
        lines += [
            "",
            *(painted(f"{mark}: {meaning}", kind if colour else "") for mark, kind, meaning in marks.legend()),
        ]
    for note in _notes(circuit, page, whole=focus is None and depth is None):
        lines += ["", *_wrapped(note, width)]
    return "\n".join(lines)


_PLACE_TAKEN = re.compile(r" at (\w+) (-?\d+)")


@dataclass(frozen=True)
class _Row:
    """A line: its name (indented), its axes and what it is; without a name, a heading."""

    name: str
    axes: str
    what: str
    node: Node | None = None


# --- rows -------------------------------------------------------------------------------------------------------------


def _section_rows(page: Page, section: Section, most: int) -> list[_Row]:
    rows: list[_Row] = []
    mine = set(section.nodes or ())
    for top in section.nodes or ():
        if top in page.done or is_inline(page, top):
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
    return [_Row("", "", ""), *heading, *_folded(rows)]


def _folded(rows: Sequence[_Row]) -> list[_Row]:
    """Return rows with neighbouring values that differ in the places they are taken at alone (heads, say) printed once."""
    levels = [(len(row.name) - len(row.name.lstrip())) // 2 for row in rows]
    made: list[_Row] = []
    place = 0
    while place < len(rows):
        end = _end(levels, place)
        alike = [place]
        while end < len(rows) and levels[end] == levels[place] and rows[end].name.strip() == "·":
            after = _end(levels, end)
            if _unplaced(rows[end:after]) != _unplaced(rows[place : place + after - end]):
                break
            alike.append(end)
            end = after
        size = (end - place) // len(alike)
        if len(alike) < 3 or size * len(alike) != end - place or rows[place].name.strip() != "·":
            made.append(rows[place])
            place += 1
            continue
        made += [rows[place], *_folded(rows[place + 1 : place + size])]
        others = [_PLACE_TAKEN.findall(" ".join(row.what for row in rows[at : at + size])) for at in alike]
        varied: dict[str, list[int]] = {}
        for axis, number in (pair for one in others[1:] for pair in one if pair not in others[0]):
            varied.setdefault(axis, []).append(int(number))
        where = ", ".join(f"{axis} {', '.join(runs(numbers))}" for axis, numbers in varied.items())
        made.append(_Row(rows[place].name, "", f"{len(alike) - 1} more alike, at {where}"))
        place = end
    return made


def _end(levels: Sequence[int], place: int) -> int:
    """Return where the rows below a row end."""
    return next((at for at in range(place + 1, len(levels)) if levels[at] <= levels[place]), len(levels))


def _unplaced(rows: Sequence[_Row]) -> list[tuple[str, str, str]]:
    """Return rows with places numbered in the order they appear: equal for those that read head 3 where others read head 0."""
    seen: dict[str, dict[str, int]] = {}

    def numbered(found: re.Match[str]) -> str:
        numbers = seen.setdefault(found[1], {})
        return f" at {found[1]} {numbers.setdefault(found[2], len(numbers))}"

    return [(row.name, row.axes, _PLACE_TAKEN.sub(numbered, row.what)) for row in rows]


def _operands(page: Page, layer: int | None, mine: set[Node], node: Node, level: int) -> tuple[list[str], list[Node]]:
    """Return what a line calls the operands, and those of them that follow it, indented."""
    texts: list[str] = []
    below: list[Node] = []
    for operand in node.operands:
        name = page.name(operand, layer)
        once = page.uses[operand] == 1
        if name is not None:
            texts.append(name)
        elif is_inline(page, operand):
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


def _row(page: Page, layer: int | None, node: Node, level: int, operands: Names) -> _Row:
    name = page.name(node, layer) or page.labels.get(node, "·")
    others = [address for address in page.addresses.get(node, ()) if address != name]
    also = f"  (also {', '.join(others)})" if others else ""
    what = (
        _leaf(page, node, alone=True)
        if isinstance(node, Weight | Constant | Iota)
        else WORDS[type(node)](node, operands)
    )
    return _Row("  " * level + name, f"[{' '.join(map(str, node.axes))}]", what + also, node)


def _leaf(page: Page, node: Node, *, alone: bool = False) -> str:
    if isinstance(node, Weight):
        name = node.name if node.source == page.main_source else f"{node.source}:{node.name}"
        return f"weight {name}" if alone else name
    return WORDS[type(node)](node, ())


# --- lines ------------------------------------------------------------------------------------------------------------


def _table(rows: Sequence[_Row], width: int, marks: Marking | None = None, colour: bool = False) -> list[str]:
    """Return rows as lines in three columns, after one of marks if any; what does not fit goes on below its own column."""
    width = max(width, NARROWEST)
    first = {row.node: marks.mark(row.node) for row in rows if row.node is not None} if marks is not None else {}
    left = max(map(len, first.values()), default=-2) + 2
    names = _column([len(row.name) for row in rows], width // 4)
    axes = _column([len(row.axes) for row in rows], width // 3)
    lines: list[str] = []
    for row in rows:
        if not row.name:
            lines += _wrapped(row.what, width) if row.what else [""]
            continue
        mark = f"{first[row.node]:{left}}" if row.node in first else ""
        text = f"{mark}{row.name:{names}}  {row.axes:{axes}}  {row.what}"
        indent = min(left + names + axes + 4, width * 2 // 3)
        kind = marks.colour(row.node) if marks is not None and row.node is not None and colour else ""
        lines += [painted(line, kind) for line in _wrapped(text, width, indent)]
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


def _title(circuit: Circuit, page: Page, focus: str | None) -> str:
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


def _notes(circuit: Circuit, page: Page, *, whole: bool) -> list[str]:
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
        since = [address for address, by in circuit.removed.items() if by == rewrite and not is_note(address)]
        gone = [address for address in since if not circuit.is_bypassed(address)]
        around = [address for address in since if circuit.is_bypassed(address)]
        notes += [f"no result depends any more, since {rewrite}, on: {', '.join(gone)}"] if gone else []
        notes += [f"readers go around, since {rewrite}: {', '.join(around)}"] if around else []
    return notes


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun if number == 1 else noun + ('es' if noun.endswith('s') else 's')}"
