"""Circuits as drawings and as lines that open: nothing overlaps, nothing is left out, every link leads somewhere."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

import scrubjay as sj
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit, is_note
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Constant, Input, Iota, Map, Weight
from scrubjay.circuit.printing.dependence import marking
from scrubjay.circuit.printing.dot import HEX
from scrubjay.circuit.printing.part import part_of
from scrubjay.circuit.rules import expand_residual, split_heads
from scrubjay.errors import AddressError, CircuitError
from scrubjay.viz import diagram, outline
from scrubjay.viz.layered import GAP, layered
from scrubjay.viz.style import stylesheet
from small_models import captured

SVG = "{http://www.w3.org/2000/svg}"


def tree(markup: str) -> ET.Element:
    return ET.fromstring(markup)


def contrast(one: str, other: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


# --- layout ----------------------------------------------------------------------------------------------------------

graphs = st.integers(1, 14).flatmap(
    lambda size: st.tuples(
        st.lists(st.floats(10, 200), min_size=size, max_size=size),
        st.sets(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)).filter(lambda pair: pair[0] > pair[1])),
    )
)


@given(graph=graphs)
def test_boxes_keep_apart_and_lines_lead_down(graph: tuple[list[float], set[tuple[int, int]]]) -> None:
    widths, edges = graph
    made = layered(widths, sorted(edges), margin=3.0)
    assert {*made.lines} == edges
    for (upper, lower), points in made.lines.items():
        assert (points[0], points[-1]) == (made.places[upper], made.places[lower])
        assert [point.layer for point in points] == list(range(points[0].layer, points[-1].layer + 1))
    for layer in range(made.layers):
        row = sorted((place.x, width) for place, width in zip(made.places, widths, strict=True) if place.layer == layer)
        for (x, width), (other, wide) in pairwise(row):
            assert other - x >= (width + wide) / 2 + GAP - 1e-6
    sides = [(place.x - width / 2, place.x + width / 2) for place, width in zip(made.places, widths, strict=True)]
    assert min(left for left, _ in sides) >= 3.0 - 1e-6
    assert max(right for _, right in sides) <= made.width - 3.0 + 1e-6


def test_a_crossing_that_can_be_avoided_is_avoided() -> None:
    made = layered([20.0] * 4, [(2, 1), (3, 0)])  # given in an order in which the two lines would cross
    left, right = sorted((2, 3), key=lambda box: made.places[box].x)
    below = {2: 1, 3: 0}
    assert made.places[below[left]].x < made.places[below[right]].x


def test_a_chain_is_straight() -> None:
    made = layered([30.0, 80.0, 10.0], [(1, 0), (2, 1)])
    assert max(place.x for place in made.places) - min(place.x for place in made.places) < 1e-6


# --- drawings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [False, True])
def test_a_drawing_has_a_box_for_each_value_and_an_arrow_for_each_use(named: bool) -> None:
    circuit = captured("gpt2")[1].circuit
    part = part_of(circuit, "L1.attn.out", None if named else 9, named=named)
    root = tree(diagram(circuit, "L1.attn.out", None if named else 9, named=named, marks=marking(circuit)))
    kinds = Counter(kind for element in root.iter() for kind in element.get("class", "").split())
    drawing = next(root.iter(f"{SVG}svg"))
    boxes = [element for element in drawing.iter() if "sj-box" in element.get("class", "")]
    assert len(boxes) == len(part.nodes)
    assert kinds["sj-arrow"] == kinds["sj-edge"] == sum(map(len, part.reads.values()))
    titles = [box[0].text or "" for box in boxes]
    for node, title in zip(part.nodes, titles, strict=True):
        assert all(name in title for name in part.names.get(node, ()))
    _, _, width, height = map(float, drawing.attrib["viewBox"].split())
    for box in boxes:
        frame = next(box.iter(f"{SVG}rect")).attrib
        assert float(frame["x"]) >= 1
        assert float(frame["x"]) + float(frame["width"]) <= width - 1
        assert 1 <= float(frame["y"]) < float(frame["y"]) + float(frame["height"]) <= height - 1
        assert all(5.2 * len(line.text or "") <= float(frame["width"]) for line in box.iter(f"{SVG}text"))


def test_colour_is_never_alone() -> None:
    model = captured("gpt2")[1]
    circuit = sj.edit(model, sj.zero("L0.H1.z")).circuit
    marks = marking(circuit)
    root = tree(diagram(circuit, "L0.attn.out", 9, marks=marks))
    letters = {"".join(line.itertext()) for line in root.iter(f"{SVG}text") if line.get("class") == "sj-letters"}
    key = next(element for element in root.iter() if element.get("class") == "sj-key")
    known = {element.text for element in key.iter("b")}
    assert {mark.rstrip("*") for mark in letters} | {"*"} == known
    assert letters >= {"IP", "IPA", "IPA*", "A"}
    for box in (element for element in root.iter() if "sj-box" in element.get("class", "") and len(element) > 1):
        mark = next("".join(line.itertext()) for line in box.iter(f"{SVG}text") if line.get("class") == "sj-letters")
        assert ("sj-changed" in box.attrib["class"]) == mark.endswith("*")


def test_every_colour_can_be_read_on_paper_and_in_the_dark() -> None:
    assert all(contrast(colour, "#ffffff") >= 4.5 for colour in HEX.values())
    light, dark = stylesheet().split("@media screen and (prefers-color-scheme:dark)")[:2]
    for name in ("positive", "negative", "green", "orange", "purple", "faint"):
        for sheet, paper in ((light, "#ffffff"), (dark, "#14191d")):
            found = re.search(rf"--sj-{name}:(#[0-9a-f]{{6}})", sheet)
            assert found is not None
            assert contrast(found[1], paper) >= 4.5


def test_too_large_a_part_is_refused() -> None:
    circuit = captured("gpt2")[1].circuit
    with pytest.raises(CircuitError, match="at most 10 are drawn"):
        diagram(circuit, most=10)


# --- lines that open -------------------------------------------------------------------------------------------------


def lines(root: ET.Element) -> list[ET.Element]:
    """The elements with the lines of values: each begins with a name, a mark or axes."""
    found: list[ET.Element] = []
    for part in (element for element in root.iter("div") if element.get("class") == "sj-lines"):
        found += [element for element in part.iter() if element is not part and element.tag in {"summary", "div"}]
    return found


def expanded() -> Circuit:
    return expand_residual(split_heads(captured("gpt2")[1].circuit))


@pytest.mark.parametrize("which", ["plain", "expanded", "marked"])
def test_every_value_has_one_line_and_every_link_leads_to_one(which: str) -> None:
    circuit = expanded() if which == "expanded" else captured("gpt2")[1].circuit
    markup = outline(circuit, marks=marking(circuit) if which == "marked" else None)
    root = tree(markup)
    anchors = Counter(element.attrib["id"] for element in root.iter() if "id" in element.attrib)
    links = {element.attrib["href"] for element in root.iter("a")}
    assert set(anchors.values()) == {1}
    assert links == {f"#{anchor}" for anchor in anchors}
    assert "<script" not in markup
    small = {node for node in circuit.nodes if isinstance(node, Weight | Constant | Iota)}
    written = len(lines(root))
    assert ("L1: as L0, with weights of its own" in markup) == (which == "plain")
    if which == "expanded":  # no two layers read as many terms, so none stands for another
        named = {node for address, node in circuit.table.items() if not is_note(address)}
        assert written == len([node for node in circuit.nodes if node not in small or node in named])
        assert "\u2190 L1.H3.out" in markup
        assert len(markup.encode()) < 200 * written


def test_what_is_below_a_value_is_within_it() -> None:
    x = Input("x", (Axis("model", 4),))
    shared = Map("exp", (x,))
    circuit = Circuit({"output": Add((Map("relu", (shared,)), shared))}, {"in.x": x})
    root = tree(outline(circuit))
    (opened,) = root.iter("details")
    written = [" ".join("".join(line.itertext()).split()) for line in opened]
    assert written == ["output model=4 · + #1", "model=4 relu(#1)", "#1 model=4 exp(in.x)"]


def test_parts_are_chosen_and_the_rest_counted() -> None:
    circuit = captured("gpt2")[1].circuit
    assert "more values at a greater depth" in outline(circuit, "L0.attn.out", 3)
    assert len(lines(tree(outline(circuit, most=5)))) == 5
    assert re.search(
        r"\d+ more values not shown: narrow it with focus= and depth=, or raise most=", outline(circuit, most=5)
    )
    with pytest.raises(AddressError):
        outline(circuit, "L9.attn.out")


def test_two_circuits_on_one_page_do_not_link_into_each_other() -> None:
    model = captured("gpt2")[1]
    one, other = (outline(circuit) for circuit in (model.circuit, sj.edit(model, sj.zero("L0.H1.z")).circuit))
    assert one == outline(model.circuit)
    assert set(re.findall(r'id="([^"]*)"', one)).isdisjoint(re.findall(r'id="([^"]*)"', other))


def test_a_long_chain_is_no_deep_nest() -> None:
    node: Node = Input("x", (Axis("model", 4),))
    for _ in range(3000):
        node = Map("relu", (node,))
    markup = outline(Circuit({"output": node}))
    depth = deepest = 0
    for step in re.findall(r"<(/?)details", markup):
        depth += -1 if step else 1
        deepest = max(deepest, depth)
    assert deepest < 40
    assert len(lines(tree(markup))) == 3001


def test_a_name_is_not_taken_for_a_link() -> None:
    x = Input("{sj-0}", ())
    first = outline(Circuit({"output": Map("cast", (Map("exp", (x,)),), ("{sj-0}",))}, {"in.x": x}))
    prefix = re.search(r'id="(sj-[^"]*-)', first)
    assert prefix is not None
    again = outline(Circuit({"output": Map("cast", (Map("exp", (x,)),), (f"{{{prefix[1]}0}}",))}, {"in.x": x}))
    assert f"as {{{prefix[1]}0}}" in again
    assert again.count("<a ") == first.count("<a ") == 1
