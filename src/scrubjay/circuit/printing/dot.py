"""A part of a circuit in the DOT language, for Graphviz and what else reads it."""

from __future__ import annotations

from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.printing.dependence import Marking
from scrubjay.circuit.printing.part import Focus, Part, part_of

HEX = {
    "blue": "#2268ae", "red": "#b3202f", "green": "#1c6f6d", "orange": "#9a5b00", "purple": "#7b3f98", "grey": "#68747c",
}  # fmt: skip
"""The colours of a `Marking` on white paper: each has a contrast of at least 4.5 to it."""


def dot(
    circuit: Circuit,
    focus: Focus = None,
    depth: int | None = None,
    *,
    weights: bool = False,
    named: bool = False,
    most: int = 2000,
    marks: Marking | None = None,
) -> str:
    r"""Return a part of a circuit as the text of a DOT file; values flow upwards, from what is read to what reads it.

    The arguments are those of `scrubjay.circuit.printing.part_of`; `marks` adds colours and letters by what nodes depend on.
    Names come from models, so every label is quoted: no name ends its string, begins an escape or hides a character.

    Raises what `part_of` raises.

    >>> from scrubjay.circuit.ops import Input, Map
    >>> x = Input("x", ())
    >>> print(dot(Circuit({"output": Map("relu", (x,))}, {'a "name"': x})))
    digraph circuit {
      graph [rankdir=BT, label="output", labelloc=t];
      node [shape=box, style="rounded,filled", fillcolor="white", fontname="Helvetica", fontsize=11];
      n0 [label="a \"name\"\ninput x, model\n[]"];
      n1 [label="output\nrelu(·)\n[]"];
      n0 -> n1;
    }
    """
    part = part_of(circuit, focus, depth, weights, named, most)
    numbers = {node: f"n{place}" for place, node in enumerate(part.nodes)}
    title = [part.title, *(f"{mark}: {meaning}" for mark, _, meaning in (marks.legend() if marks else ()))]
    lines = [
        "digraph circuit {",
        f"  graph [rankdir=BT, label={_quoted(title)}, labelloc=t];",
        '  node [shape=box, style="rounded,filled", fillcolor="white", fontname="Helvetica", fontsize=11];',
        *(f"  {numbers[node]} [{_attributes(part, node, marks)}];" for node in part.nodes),
    ]
    for node, count in part.cut.items():
        lines.append(f"  {numbers[node]}_more [label={_quoted([f'{count} more'])}, shape=plaintext];")
        lines.append(f"  {numbers[node]}_more -> {numbers[node]} [style=dashed];")
    lines += [f"  {numbers[operand]} -> {numbers[node]};" for node in part.nodes for operand in part.reads[node]]
    return "\n".join([*lines, "}"])


def _attributes(part: Part, node: Node, marks: Marking | None) -> str:
    names = part.names.get(node, ())[:1]
    label = [*names, part.words[node], part.axes(node)]
    if marks is None:
        return f"label={_quoted(label)}"
    colour, dashes = HEX[marks.colour(node)], ', style="rounded,filled,dashed"' if node in marks.changed else ""
    return f'label={_quoted([f"({marks.mark(node)}) {label[0]}", *label[1:]])}, color="{colour}", fontcolor="{colour}"{dashes}'


def _quoted(lines: list[str]) -> str:
    r"""Return lines as one quoted label: entities and escapes are literal, what hides or reorders text is shown."""
    return '"' + r"\n".join(_literal(line) for line in lines if line) + '"'


def _literal(line: str) -> str:
    shown = "".join(one if one.isprintable() else f"⟨U+{ord(one):04X}⟩" for one in line)
    return shown.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')
