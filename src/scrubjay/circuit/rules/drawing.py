"""What draws random values: a circuit's inputs made random, a value drawn anew, and draws in the place of the whole population."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from scrubjay.circuit.axes import RANDOM, Axis
from scrubjay.circuit.circuit import Circuit, is_note
from scrubjay.circuit.graph import rebuild, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Cumulant, Expectation, Gather, Input, Opaque, Sample
from scrubjay.circuit.renaming import rename_axes
from scrubjay.circuit.rules.random import sources_of
from scrubjay.errors import CircuitError

ROWS, DRAW, DRAWS = "rows.", "draw.", "draws"
"""Inputs of a whole data set, inputs that say which place each draw takes, and the one source of them all."""


def drawn(circuit: Circuit, by: str = "datum") -> Circuit:
    """Return the circuit with every input that has rows (`batch`) at a random row of a data set, the same row for all of them.

    Input `x` is then `rows.x`, with the axis `row`. Every value is that of a random datum.

    >>> from scrubjay.circuit.ops import Map
    >>> x = Input("x", (Axis("batch", "batch"), Axis("model", 4)))
    >>> print(*drawn(Circuit({"output": Map("tanh", (x,))})).roots["output"].axes)
    model=4 random.datum=row
    """
    changes: dict[Node, Node] = {}
    for name, node in circuit.inputs.items():
        dims = tuple(Axis("row", "row") if axis.name == "batch" else axis for axis in node.dims)
        if dims != node.dims:
            changes[node] = Sample(Input(ROWS + name, dims, node.dtype), "row", by)
    if not changes:
        raise CircuitError("none of the circuit's inputs has the axis 'batch', so none has rows to draw")
    kept = {
        at: node for at, node in circuit.table.items() if not (is_note(at) and isinstance(node, Opaque))
    }  # notes on layout
    return circuit.with_table(kept).rewrite(changes, f"drawn by {by}")


def redrawn(node: Node, names: Mapping[str, str]) -> Node:
    """Return a value with what some sources draw drawn by others, as independently as those are: an intervention.

    >>> x = Sample(Input("x", (Axis("row", 5),)), "row", "datum")
    >>> redrawn(x, {"datum": "other"}).by
    'other'
    """
    if missing := set(names) - set(sources_of(node)):
        raise CircuitError(f"{', '.join(sorted(missing))} draws nothing in {node!r}; drawn by {', '.join(sources_of(node)) or 'nothing'}")  # fmt: skip
    return rename_axes([node], {RANDOM + old: RANDOM + new for old, new in names.items()})[node]


def draw_axes(nodes: Collection[Node]) -> dict[str, Axis]:
    """Return for each source below some nodes the axis whose places it draws."""
    return {node.by: Axis(node.axis, node.value.size(node.axis)) for node in topological(nodes) if isinstance(node, Sample)}  # fmt: skip


def sampled(nodes: Sequence[Node]) -> list[Node]:
    """Return means and cumulants as estimates from draws: a mean of the draws, a k-statistic of them; both unbiased.

    The inputs `draw.<source>`, axis (`draw`,), say which place each draw takes. All sources are drawn together, draw by draw, so every
    mean and cumulant must be over all that draws its values: to be unbiased, a product of two means takes draws of its own for each.
    """

    def change(node: Node, operands: tuple[Node, ...]) -> Node:
        if isinstance(node, Sample):
            index = Input(DRAW + node.by, (Axis("draw", "draw"),), "int64")
            return Sample(Gather(operands[0], node.axis, index), "draw", DRAWS)
        if isinstance(node, Expectation | Cumulant):
            own = {name for operand in node.operands for name in sources_of(operand)}
            if own != set(node.over):
                raise CircuitError(
                    f"{node!r} is over {', '.join(node.over)}, and its values are drawn by {', '.join(sorted(own))}: an estimate from draws is over all of them"
                )
            if isinstance(node, Expectation):
                return Expectation(operands[0], (DRAWS,))
            return Cumulant(operands, (DRAWS,), unbiased=True)
        return node.with_operands(operands)

    made = rebuild(nodes, change)
    return [made[node] for node in nodes]
