"""Circuits as figures: `draw` for a part of one, `listing` for all of it."""

from __future__ import annotations

from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.printing.dependence import Marking
from scrubjay.circuit.printing.part import Focus
from scrubjay.viz import Figure, diagram, outline


def draw(
    circuit: Circuit,
    focus: Focus = None,
    depth: int | None = None,
    *,
    weights: bool = False,
    named: bool = False,
    most: int = 120,
    marks: Marking | None = None,
    caption: str = "",
) -> Figure:
    """Return a drawing of a part of a circuit, for a notebook or `sj.report`: results at the top, what they read below.

    Args:
        circuit: the circuit, such as `model.circuit`.
        focus: where to look down from: an address, a result or a node; or paths, such as `"L0.attn.out -> L1.attn.q"`.
        depth: how many steps to go down; all if not given.
        weights: whether weights, and what is computed from them alone, have boxes of their own.
        named: whether to draw only what has an address; an arrow then stands for all that lies between.
        most: the most boxes.
        marks: what each value depends on, from `marking`.
        caption: what is written below.

    Raises `CircuitError` for a part of more than `most` values, and `AddressError` or `MatchError` for a focus that the
    circuit lacks.

    >>> from scrubjay.circuit.ops import Input, Map
    >>> draw(Circuit({"output": Map("relu", (Input("x", ()),))})).markup.count("sj-arrow")
    1
    """
    return Figure(diagram(circuit, focus, depth, weights=weights, named=named, most=most, marks=marks), caption)


def listing(
    circuit: Circuit, focus: str | None = None, depth: int | None = None, marks: Marking | None = None
) -> Figure:
    """Return a whole circuit as lines that open and close, for a notebook or `sj.report`.

    The arguments are those of `draw`. Raises `AddressError` for a focus that the circuit lacks.

    >>> from scrubjay.circuit.ops import Input, Map
    >>> listing(Circuit({"output": Map("relu", (Input("x", ()),))})).markup.count("<details")
    1
    """
    return Figure(outline(circuit, focus, depth, marks=marks))
