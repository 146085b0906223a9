"""Parts of circuits to draw, against a search by force, and their DOT text, read back by a reader of its grammar."""

from __future__ import annotations

import re
from html import unescape

import pytest

import scrubjay as sj
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit, is_note
from scrubjay.circuit.graph import topological
from scrubjay.circuit.match import edges, path
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Einsum, Input, Map, Weight
from scrubjay.circuit.printing.dependence import dependence, marking
from scrubjay.circuit.printing.dot import HEX, dot
from scrubjay.circuit.printing.part import part_of
from scrubjay.errors import AddressError, CircuitError, MatchError
from small_models import captured

TOKEN = re.compile(r'\s+|"((?:[^"\\]|\\.)*)"|(->|[{}\[\];=,]|[A-Za-z0-9_]+)', re.DOTALL)
HOSTILE = [
    'a"; evil [label="',
    "back\\",
    "two\nlines",
    "\\N \\l",
    "&lt;b&gt;",
    "\u202eevil\x00\x1b",
    "\ud800",
    "<b>",
    "-> }",
]


def tokens(text: str) -> list[str]:
    """Read DOT text as tokens; quoted ones keep their first quote. Anything between tokens is an error."""
    found: list[str] = []
    place = 0
    while place < len(text):
        match = TOKEN.match(text, place)
        assert match, text[place : place + 40]
        place = match.end()
        if match[1] is not None:
            found.append('"' + match[1])
        elif match[2]:
            found.append(match[2])
    return found


def statements(text: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return the labels of the nodes and the edges of DOT text, the attributes read as name = value alone."""
    words = tokens(text)
    assert words[:3] == ["digraph", "circuit", "{"]
    assert words[-1] == "}"
    labels: dict[str, str] = {}
    lines: list[tuple[str, str]] = []
    at = 3
    while words[at] != "}":
        name, at = words[at], at + 1
        target = None
        if words[at] == "->":
            target, at = words[at + 1], at + 2
        attributes: dict[str, str] = {}
        if words[at] == "[":
            while words[at] != "]":
                assert words[at + 2] == "="
                attributes[words[at + 1]] = words[at + 3]
                at += 4
                assert words[at] in {",", "]"}
            at += 1
        assert words[at] == ";"
        at += 1
        if target is not None:
            lines.append((name, target))
        elif name not in {"graph", "node"}:
            labels[name] = attributes["label"][1:]
    return labels, lines


def reachable(node: Node, stop: set[Node], hidden: set[Node]) -> set[Node]:
    """The nodes of `stop` that a node reads through others, by following every way down."""
    found: set[Node] = set()
    stack = [*node.operands]
    while stack:
        one = stack.pop()
        if one in hidden:
            continue
        if one in stop or isinstance(one, Input):
            found.add(one)
        else:
            stack += one.operands
    return found


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_between_named_values_an_edge_stands_for_every_way(kind: str) -> None:
    _, model = captured(kind)
    circuit = model.circuit
    names = {node for address, node in circuit.table.items() if not is_note(address)} | {*circuit.roots.values()}
    constant = {node for node, found in dependence(circuit).items() if not found}
    part = part_of(circuit, named=True)
    assert {*circuit.roots.values()} <= {*part.nodes}
    for node in part.nodes:
        assert {*part.reads[node]} == reachable(node, names, constant)
    assert set(part.names) >= {node for node in part.nodes if not isinstance(node, Input)}


def test_a_part_is_as_deep_as_is_asked_for() -> None:
    circuit = captured("gpt2")[1].circuit
    for depth in range(5):
        near = here = {circuit.table["L0.attn.out"]}
        for _ in range(depth):
            here = {operand for node in here for operand in node.operands}
            near = near | here
        part = part_of(circuit, "L0.attn.out", depth, weights=True)
        assert {*part.nodes} == near
        assert all(part.cut.get(node, 0) == len({*node.operands} - near) for node in near)
    assert not part_of(circuit, "L0.attn.out").cut


def test_weights_are_part_of_the_words_unless_they_are_asked_for() -> None:
    circuit = captured("gpt2")[1].circuit
    without, including = part_of(circuit, "L0.attn.out", 2), part_of(circuit, "L0.attn.out", 2, weights=True)
    assert not any(isinstance(node, Weight) for node in without.nodes)
    assert [node.name for node in including.nodes if isinstance(node, Weight)] == [
        "transformer.h.0.attn.c_proj.weight",
        "transformer.h.0.attn.c_proj.bias",
    ]
    assert without.words[circuit.table["L0.attn.out"]] == "· + transformer.h.0.attn.c_proj.bias"
    edited = part_of(sj.edit(captured("gpt2")[1], sj.zero("L0.H1.z")).circuit, "L0.attn.out", 4)
    assert any(words.endswith("change at L0.H1.z") for words in edited.words.values())


def test_paths_are_drawn_as_they_are_found() -> None:
    circuit = captured("gpt2")[1].circuit
    found = path("L0.attn.out -> L1.attn.q").avoiding("L0.mlp.out")
    part = part_of(circuit, found)
    assert {(node, operand) for node in part.nodes for operand in part.reads[node]} == {
        (edge.reader, edge.operand) for edge in edges(circuit, found)
    }
    assert circuit.table["L0.mlp.out"] not in part.nodes
    assert circuit.table["L0.mlp.out"] in part_of(circuit, "L0.attn.out -> L1.attn.q").nodes


def test_what_cannot_be_drawn_is_refused() -> None:
    circuit = captured("gpt2")[1].circuit
    with pytest.raises(
        CircuitError,
        match=r"logits: this part has \d+ nodes, and at most 20 are drawn: narrow it with focus= and depth=",
    ):
        part_of(circuit, most=20)
    with pytest.raises(AddressError, match=r"L0\.attn\.ou: no such place"):
        part_of(circuit, "L0.attn.ou")
    with pytest.raises(MatchError):
        part_of(circuit, "L1.attn.q -> L0.attn.out")
    with pytest.raises(CircuitError, match="depth=2 was given with the paths"):
        part_of(circuit, "L0.attn.out -> L1.attn.q", 2)


def test_dot_has_each_node_and_edge_of_the_part() -> None:
    circuit = sj.edit(captured("gpt2")[1], sj.zero("L0.H1.z")).circuit
    marks, part = marking(circuit), part_of(circuit, "L0.attn.out", 8)
    text = dot(circuit, "L0.attn.out", 8, marks=marks)
    labels, lines = statements(text)
    place = {node: f"n{number}" for number, node in enumerate(part.nodes)}
    assert set(labels) == {*place.values(), *(f"{place[node]}_more" for node in part.cut)}
    assert {line for line in lines if "more" not in line[0]} == {
        (place[operand], place[node]) for node in part.nodes for operand in part.reads[node]
    }
    for node in part.nodes:
        assert labels[place[node]].startswith(f"({marks.mark(node)}) ")
        line = next(line for line in text.split("\n") if line.startswith(f"  {place[node]} ["))
        assert HEX[marks.colour(node)] in line
        assert ("dashed" in line) == (node in marks.changed)


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_no_name_ends_its_label(name: str) -> None:
    x = Input(name, (Axis("model", 4),))
    read = Einsum((x, Weight(name, name, ((Axis("model", 4),), (Axis(name, 2),)))), ("model",))
    circuit = Circuit({name: Add((read, Map("relu", (read,))))}, {f"at {name}": read})
    text = dot(circuit, weights=True, marks=marking(circuit, {name: "*"}))
    labels, lines = statements(text)
    assert len(labels) == len(topological(circuit.roots.values()))
    assert len(lines) == 5
    text.encode("utf-8")
    assert all(char.isprintable() or char == "\n" for char in text)
    label = next(label for label in labels.values() if " input " in label)
    shown = unescape(re.sub(r"\\(.)", r"\1", label))  # as Graphviz reads it: escapes, then entities
    assert "".join(char if char.isprintable() else f"⟨U+{ord(char):04X}⟩" for char in name) in shown
