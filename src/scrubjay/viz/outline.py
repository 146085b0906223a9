"""A whole circuit as nested parts that open and close, without a script: what a notebook shows of it.

A value is called by its address, and reads as in the printed table (`scrubjay.circuit.printing`): layers of equal structure
once, a value that is read in several places once, with links to it from the others. Weights are in small print.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Constant, Einsum, Index, Iota, Multiply, Weight
from scrubjay.circuit.printing.dependence import Marking
from scrubjay.circuit.printing.part import clipped
from scrubjay.circuit.printing.sections import Page, Section, is_inline, page_of, sections
from scrubjay.circuit.printing.words import WORDS
from scrubjay.viz.diagram import legend
from scrubjay.viz.escape import Markup, join, tag, text
from scrubjay.viz.frame import chart

MOST, DEEPEST, MANY, OPEN = 10_000, 24, 8, 80
"""The most values; how deep they nest; from how many operands on a sum is said in short; up to how many values a part is open."""

_LONGEST, _FAR = 200, 40


@dataclass(frozen=True, eq=False)
class _Row:
    """A value, how deep it is, the layer whose names it uses, and which of its operands follow it, one level deeper."""

    node: Node
    level: int
    layer: int | None
    below: frozenset[Node]


def outline(
    circuit: Circuit,
    focus: str | None = None,
    depth: int | None = None,
    *,
    most: int = MOST,
    marks: Marking | None = None,
    title: str = "",
) -> Markup:
    """Return a circuit as nested lines: each opens to show what it is computed from.

    Args:
        circuit: what to show.
        focus: an address of its table (or a result) to show from; the results if not given.
        depth: how many steps below the results (or the focus) to show; all if not given.
        most: the most values to show; the rest is counted.
        marks: what each value depends on, shown by letters and by colour.
        title: what is written above; what is shown and how large it is if not given.

    Raises `AddressError` for a focus that the circuit lacks.

    >>> from scrubjay.circuit.ops import Input, Map
    >>> made = outline(Circuit({"output": Map("relu", (Map("exp", (Input("<x>", ()),)),))}))
    >>> made.count("<details"), "&lt;x&gt;" in made, "<script" in made
    (2, True, False)
    """
    page = page_of(circuit, focus, depth, marks)
    found = [(section, _rows(page, section)) for section in sections(page)]
    total = sum(len(rows) for _, rows in found)
    kept: list[tuple[Section, list[_Row]]] = []
    room = most
    for section, rows in found:
        kept.append((section, rows[:room]))
        room -= len(kept[-1][1])
    shown = [row.node for _, rows in kept for row in rows]
    writer = _Writer(page, {node: place for place, node in enumerate(shown)}, marks)
    written = [writer.lines(rows) for _, rows in kept]
    parts = [
        _part(section, writer.nested(rows, lines), len(rows), total)
        for (section, rows), lines in zip(kept, written, strict=True)
        if rows or section.nodes is None
    ]
    notes = [_note(page.deeper, "at a greater depth")] if page.deeper else []
    if total > most:
        notes.append(_note(total - most, "not shown: narrow it with focus= and depth=, or raise most="))
    key = legend(marks, shown) if marks is not None else Markup()
    head = (
        title
        or f"{focus or ', '.join(circuit.roots)}: {len(page.order):,} values, {sum(isinstance(node, Weight) for node in page.order):,} weights"
    )
    body = tag("div", *parts, class_="sj-outline")
    return chart(head, *_history(circuit), body, *notes, key, kind="outline")


def _note(number: int, words: str) -> Markup:
    return tag("p", f"{number:,} more {'value' if number == 1 else 'values'} {words}", class_="sj-remark")


def _history(circuit: Circuit) -> list[Markup]:
    if not circuit.history:
        return []
    steps = tag("ol", *(tag("li", clipped(step, _LONGEST)) for step in circuit.history))
    return [
        tag(
            "details",
            tag("summary", f"after {len(circuit.history)} rewrites" if len(circuit.history) > 1 else "after 1 rewrite"),
            steps,
        )
    ]


def _part(section: Section, lines: Sequence[Markup], number: int, total: int) -> Markup:
    """Return a section: a heading alone, or one that opens to its lines."""
    if section.nodes is None:
        return tag("p", section.title, class_="sj-alike")
    inside = tag("div", *lines, class_="sj-lines")
    if not section.title:
        return inside
    summary = tag("summary", section.title, tag("small", f" {number:,} values"))
    return tag("details", summary, inside, open="" if total <= OPEN else None, class_="sj-layer")


def _rows(page: Page, section: Section) -> list[_Row]:
    """Return the values of a section in the order they are shown, each before what is shown below it."""
    rows: list[_Row] = []
    mine = {*(section.nodes or ())}
    for top in section.nodes or ():
        if top in page.done or is_inline(page, top):
            continue
        stack = [(top, 0)]
        while stack:
            node, level = stack.pop()
            page.done.add(node)
            below = (
                [] if level >= DEEPEST else [one for one in dict.fromkeys(node.operands) if _follows(page, mine, one)]
            )
            page.done.update(below)
            rows.append(_Row(node, level, section.layer, frozenset(below)))
            stack += [(operand, level + 1) for operand in reversed(below)]
    return rows


def _sources(page: Page, terms: Sequence[Node]) -> dict[Node, str]:
    """Return what tells the terms of a long sum apart: named values they are computed from, and most others are not."""
    found: dict[Node, dict[str, None]] = {}
    for term in terms:
        names, stack, seen = dict[str, None](), [term], set[Node]()
        while stack and len(seen) < _FAR:
            node = stack.pop()
            seen.add(node)
            for operand in node.operands:
                if name := page.name(operand):
                    names[f"{name} at {node.axis} {node.at}" if isinstance(node, Index) else name] = None
                elif operand in page.owner and operand not in seen:
                    stack.append(operand)
        found[term] = names
    often = {
        name
        for name, number in Counter(name for names in found.values() for name in names).items()
        if 2 * number > len(found)
    }
    return {
        term: clipped(", ".join([name for name in names if name not in often][:2]), _LONGEST)
        for term, names in found.items()
    }


def _follows(page: Page, mine: set[Node], operand: Node) -> bool:
    """Tell whether a value is shown below the first one that reads it."""
    free = operand in page.owner and operand not in page.done and not page.addresses.get(operand)
    return free and not is_inline(page, operand) and (page.uses[operand] == 1 or operand in mine)


class _Writer:
    """Writes values as lines, with links to those that have a line of their own, and puts lines within lines."""

    def __init__(self, page: Page, places: Mapping[Node, int], marks: Marking | None) -> None:
        self.page, self.places, self.marks = page, places, marks
        shown = "\n".join(map(repr, places))
        # figures on one page must not link into each other
        self.prefix = f"sj-{sha256(shown.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}-"
        self.targets: set[Node] = set()
        self.sources: dict[Node, str] = {}

    def lines(self, rows: Sequence[_Row]) -> list[tuple[Markup, str]]:
        """Return the line of each value and what is told when one points at it."""
        return [(self._line(row), self._hint(row)) for row in rows]

    def nested(self, rows: Sequence[_Row], lines: Sequence[tuple[Markup, str]]) -> list[Markup]:
        """Return lines as elements, those of a deeper level within the line before them."""
        waiting: dict[int, list[Markup]] = {}
        for row, (line, hint) in zip(reversed(rows), reversed(lines), strict=True):
            anchor = f"{self.prefix}{self.places[row.node]}" if row.node in self.targets else None
            inside = waiting.pop(row.level + 1, [])[::-1]
            if inside:
                made = tag("details", tag("summary", line, title=hint or None), *inside, id=anchor)
            else:
                made = tag("div", line, title=hint or None, id=anchor)
            waiting.setdefault(row.level, []).append(made)
        return waiting.get(0, [])[::-1]

    def _line(self, row: _Row) -> Markup:
        node = row.node
        words = self._words(row)
        name = self.page.name(node, row.layer) or self.page.labels.get(node, "")
        pieces = [tag("b", clipped(name, _LONGEST))] if name else []
        if self.marks is not None:
            changed = " sj-changed" if node in self.marks.changed else ""
            pieces.append(tag("em", self.marks.mark(node), class_=f"sj-{self.marks.colour(node)}{changed}"))
        pieces += [tag("i", " ".join(map(str, node.axes))), words]
        if told := self.sources.get(node):
            pieces.append(tag("small", f"\u2190 {told}"))
        return join(pieces, " ")

    def _hint(self, row: _Row) -> str:
        """Return the other addresses of a value, and the axes of what a product is of."""
        name = self.page.name(row.node, row.layer)
        others = [address for address in self.page.addresses.get(row.node, ()) if address != name]
        hint = [f"also {', '.join(others)}"] if others else []
        if isinstance(row.node, Einsum):
            hint.append(WORDS[Einsum](row.node, ()).removesuffix(" of "))
        return clipped("; ".join(hint), 2 * _LONGEST)

    def _words(self, row: _Row) -> Markup:
        node = row.node
        if isinstance(node, Weight | Constant | Iota):
            return text(clipped(f"{'weight ' * isinstance(node, Weight)}{self._leaf(node)}", _LONGEST))
        operands = [self._operand(row, operand) for operand in node.operands]
        if isinstance(node, Add | Multiply) and len(operands) > MANY:
            said = [made for made, operand in zip(operands, node.operands, strict=True) if operand not in row.below]
            first = f"{'sum' if isinstance(node, Add) else 'product'} of {len(operands)}"
            below = f"{len(operands) - len(said)} below" if len(said) < len(operands) else ""
            self.sources |= _sources(self.page, sorted(row.below, key=node.operands.index))
            return join([f"{first}: ", join([*said, *([below] if below else [])], ", ")])
        if isinstance(node, Einsum) and node.summed:
            return join(["product of ", join(operands, ", "), f" over {' '.join(node.summed)}"])
        if isinstance(node, Einsum):
            return join(operands, " * ")
        # the slots of operands are named by a digest of all that is shown, which no name within it can hold
        words = WORDS[type(node)](node, [f"{{{self.prefix}{place}}}" for place in range(len(operands))])
        pieces = re.split(f"{{{self.prefix}([0-9]+)}}", words)
        return join(
            operands[int(piece)] if place % 2 else clipped(piece, _LONGEST) for place, piece in enumerate(pieces)
        )

    def _operand(self, row: _Row, operand: Node) -> Markup:
        """Return what an operand is called: a link where it has a line of its own elsewhere."""
        page = self.page
        name = page.name(operand, row.layer)
        if name is None and is_inline(page, operand):
            return tag("small", clipped(self._leaf(operand), _LONGEST))
        if name is None and operand not in page.owner:
            return text("…")
        if operand in row.below and page.uses[operand] == 1 and operand in self.places:
            return text("·")
        shown = clipped(name or page.label(operand), _LONGEST)
        if operand not in self.places:
            return text(shown)
        self.targets.add(operand)
        return tag("a", shown, href=f"#{self.prefix}{self.places[operand]}")

    def _leaf(self, node: Node) -> str:
        if isinstance(node, Weight):
            return node.name if node.source == self.page.main_source else f"{node.source}:{node.name}"
        return WORDS[type(node)](node, ())
