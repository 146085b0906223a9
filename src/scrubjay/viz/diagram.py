"""A part of a circuit as a drawing: a box for each value, arrows upwards from what is read to what reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.printing.dependence import Marking
from scrubjay.circuit.printing.dot import HEX
from scrubjay.circuit.printing.part import Focus, Part, clipped, part_of
from scrubjay.viz.escape import Markup, brief, join, tag, visible
from scrubjay.viz.frame import GREY, chart, drawing, scrolling
from scrubjay.viz.layered import Layout, Place, layered

MOST = 120
LINE, EDGE, BETWEEN = 15.0, 8.0, 34.0
"""The height of a line of text, the room around it in a box, and the room between layers."""

_WIDTHS = {"sj-mono": 7.4, "sj-letters": 7.4, "sj-small": 6.3}
_SIZES = {"sj-mono": 12, "sj-letters": 12, "sj-small": 11}
_LONGEST = 44
_LEAST = 0.7


class _Text(NamedTuple):
    """A line of text in a box and its style."""

    words: str
    style: str


def diagram(
    circuit: Circuit,
    focus: Focus = None,
    depth: int | None = None,
    *,
    weights: bool = False,
    named: bool = False,
    most: int = MOST,
    marks: Marking | None = None,
    title: str = "",
) -> Markup:
    """Return the drawing of a part of a circuit: the results at the top, what they read below.

    `focus`, `depth`, `weights`, `named` and `most` say which part, as for `scrubjay.circuit.printing.part_of`. `marks` adds what
    each value depends on: by letters and, again, by colour; a dashed frame and `*` are values after an intervention.

    Raises `CircuitError` where the part has more than `most` nodes, and `AddressError` or `MatchError` for a focus that the
    circuit lacks.

    >>> from scrubjay.circuit.ops import Input, Map
    >>> made = diagram(Circuit({"output": Map("relu", (Input("<x>", ()),))}))
    >>> made.count('class="sj-box"'), "&lt;x&gt;" in made
    (2, True)
    """
    part = part_of(circuit, focus, depth, weights, named, most)
    number = {node: place for place, node in enumerate(part.nodes)}
    texts = [_texts(part, node, marks) for node in part.nodes]
    widths = [max(_WIDTHS[line.style] * len(line.words) for line in lines) + 2 * EDGE for lines in texts]
    reads = [(number[node], number[operand]) for node in part.nodes for operand in part.reads[node]]
    layout = layered(widths, reads, margin=1.5)
    heights = [LINE * len(lines) + 2 * EDGE for lines in texts]
    rows = _rows(layout, heights)
    boxes = [
        _box(part, node, marks, texts[place], layout.places[place], widths[place], rows)
        for place, node in enumerate(part.nodes)
    ]
    shown = drawing(
        layout.width,
        rows[-1][1] + 2,
        title or part.title,
        f"{len(part.nodes)} values of the circuit and what each of them reads",
        [tag("g", *_lines(layout, widths, heights, rows)), tag("g", *boxes)],
        least=_LEAST,
    )
    name = title or part.title
    return chart(name, scrolling(shown, name), legend(marks, part.nodes) if marks else Markup(), kind="circuit")


def legend(marks: Marking, nodes: Sequence[Node]) -> Markup:
    """Return the key of the marks that these nodes have: swatch, letters, meaning."""
    met = {marks.mark(node).rstrip("*") for node in nodes}
    if not marks.changed.isdisjoint(nodes):
        met.add("*")
    rows = [row for row in marks.legend() if row[0] in met]
    entries = [tag("span", _swatch(colour), tag("b", mark), tag("span", meaning)) for mark, colour, meaning in rows]
    return tag("p", *entries, class_="sj-key")


def _swatch(colour: str) -> Markup:
    frame = tag("rect", x=1, y=1, width=12, height=12, fill="#ffffff", stroke=HEX.get(colour, GREY), stroke_width=2)
    kind = f"sj-box sj-{colour}" if colour else "sj-box sj-changed"
    return tag("svg", tag("g", frame, class_=kind), viewBox="0 0 14 14", aria_hidden="true")


def _texts(part: Part, node: Node, marks: Marking | None) -> list[_Text]:
    """Return what is written in a box."""
    lines = [_Text(_short(visible(name)), "sj-mono") for name in part.names.get(node, ())[:1]]
    lines += [
        _Text(_short(visible(words)), "sj-small")
        for words in (part.words[node], part.axes(node))
        if words not in ("", "[]")
    ]
    if left := part.cut.get(node):
        lines.append(_Text(f"reads {left} more", "sj-small"))
    if marks is not None:
        lines.append(_Text(marks.mark(node), "sj-letters"))
    return lines


def _short(words: str) -> str:
    return clipped(words, _LONGEST)


def _rows(layout: Layout, heights: Sequence[float]) -> list[tuple[float, float]]:
    """Return the top and the bottom of each layer."""
    tall = [0.0] * layout.layers
    for place, height in zip(layout.places, heights, strict=True):
        tall[place.layer] = max(tall[place.layer], height)
    rows: list[tuple[float, float]] = []
    top = 1.0
    for height in tall:
        rows.append((top, top + height))
        top += height + BETWEEN
    return rows


def _box(
    part: Part,
    node: Node,
    marks: Marking | None,
    lines: Sequence[_Text],
    place: Place,
    width: float,
    rows: list[tuple[float, float]],
) -> Markup:
    height = LINE * len(lines) + 2 * EDGE
    top = sum(rows[place.layer]) / 2 - height / 2
    colour = marks.colour(node) if marks else ""
    frame = tag(
        "rect", x=place.x - width / 2, y=top, width=width, height=height, fill="#f5f7f8", stroke=HEX.get(colour, GREY)
    )
    written = [
        tag("text", line.words, x=place.x, y=top + EDGE + LINE * row + 11, text_anchor="middle", class_=line.style, font_size=_SIZES[line.style], fill="#1b2227")
        for row, line in enumerate(lines)
    ]  # fmt: skip
    hint = "\n".join([*part.names.get(node, ()), part.words[node], part.axes(node)])
    kinds = ["sj-box", f"sj-{colour}" if colour else "", "sj-changed" if marks and node in marks.changed else ""]
    return tag("g", tag("title", join(hint.split("\n"), " | ")), frame, *written, class_=" ".join(filter(None, kinds)))


def _lines(
    layout: Layout, widths: Sequence[float], heights: Sequence[float], rows: list[tuple[float, float]]
) -> list[Markup]:
    """Return the arrows: up from the top of what is read, through the layers between, to the bottom of what reads it."""
    ports = _ports(layout, widths)
    made: list[Markup] = []
    for (upper, lower), points in layout.lines.items():
        middle = sum(rows[points[-1].layer]) / 2
        x, y = points[-1].x, middle - heights[lower] / 2
        way = [f"M{brief(x)} {brief(y)}"]
        if y > rows[points[-1].layer][0]:
            y = rows[points[-1].layer][0]
            way.append(f"V{brief(y)}")
        for point in points[-2:0:-1]:
            top, bottom = rows[point.layer]
            way += [_curve(x, y, point.x, bottom), f"V{brief(top)}"]
            x, y = point.x, top
        bottom = rows[points[0].layer][1]
        end, tip = ports[upper, lower], sum(rows[points[0].layer]) / 2 + heights[upper] / 2
        way += [_curve(x, y, end, bottom + 6), f"V{brief(tip + 5)}"]
        made.append(tag("path", d="".join(way), class_="sj-edge", fill="none", stroke=GREY))
        made.append(tag("path", d=f"M{brief(end)} {brief(tip)}l-3.5 7h7z", class_="sj-arrow", fill=GREY))
    return made


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    half = (y + to_y) / 2
    return f"C{brief(x)} {brief(half)} {brief(to_x)} {brief(half)} {brief(to_x)} {brief(to_y)}"


def _ports(layout: Layout, widths: Sequence[float]) -> Mapping[tuple[int, int], float]:
    """Return where each arrow ends: side by side along the bottom of what reads, in the order they come from."""
    ending: dict[int, list[tuple[float, int]]] = {}
    for (upper, lower), points in layout.lines.items():
        ending.setdefault(upper, []).append((points[1].x, lower))
    found: dict[tuple[int, int], float] = {}
    for upper, ends in ending.items():
        step = min(22.0, 0.8 * widths[upper] / len(ends))
        for place, (_, lower) in enumerate(sorted(ends)):
            found[upper, lower] = layout.places[upper].x + (place - (len(ends) - 1) / 2) * step
    return found
