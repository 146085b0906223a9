"""What is in a model, and what changed from one circuit to another: on one screen."""

from __future__ import annotations

from scrubjay.capture.model import Model
from scrubjay.circuit.printing import Difference
from scrubjay.viz import Figure, Markup, Section, tag, text
from scrubjay.viz.frame import scrolling

_MOST_LINES = 60


def model_section(model: Model) -> Section:
    """Return the section of a model: its sizes, and the table of its sites with layers that are alike together."""
    heads = sorted(set(model.heads))
    many = f"{heads[0]} heads each" if len(heads) == 1 else f"{heads[0]} to {heads[-1]} heads" if heads else "no heads"
    said = f"{model.layers} layers, {many}, {len(model.circuit.nodes)} nodes; its result is {model.anatomy.result!r}."
    notes = "; ".join(model.anatomy.notes[:3])
    caption = f"Every named value; L0..{max(model.layers - 1, 0)} stands for each of these layers, H* for each head."
    return Section(
        f"Model {model.name}",
        f"{said} {notes}".strip(),
        (Figure(_lines(str(model.sites).splitlines(), "Sites"), caption),),
    )


def difference_section(found: Difference) -> Section:
    """Return the section of a difference: its lines, what is new in green and what is gone in red."""
    lines = str(found).splitlines()
    finding = "The circuits are the same." if not found else f"{len(found.changed)} expressions differ."
    return Section("Difference of two circuits", finding, (Figure(_lines(lines, "Difference"), ""),))


def _lines(lines: list[str], title: str) -> Markup:
    shown = lines[:_MOST_LINES]
    if len(lines) > len(shown):
        shown.append(f"and {len(lines) - len(shown)} lines more: print it")
    body = [tag("span", text(f"{one}\n"), style=_style(one)) for one in shown]
    return scrolling(tag("pre", *body, style="margin:0;font-size:12px;line-height:1.45"), title)


def _style(line: str) -> str:
    sign = line.lstrip()[:1]
    return {"+": "color:#1a7f37", "-": "color:#b42318"}.get(sign, "color:inherit")
