"""One rule: a product with matrices looked up for every token is a choice of experts, x W[chosen] = Experts(x, W, chosen).

A mixture of experts in plain products copies a matrix for each token and choice, which at real size fits no memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from scrubjay.circuit.graph import above, rebuild, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Einsum, Experts, Gather, Input, Relabel


def experts_chosen(roots: Sequence[Node]) -> dict[Node, Node]:
    """Return every node with each product of a value and looked-up matrices written as `Experts`.

    Only stacks of matrices computed from weights alone are taken, chosen by something computed from an input.

    >>> from scrubjay.circuit.axes import Axis
    >>> from scrubjay.circuit.ops import Weight
    >>> query, model, hidden, expert = (Axis(name, 4) for name in ("query", "model", "hidden", "expert"))
    >>> x, chosen = Input("x", (query, model)), Input("chosen", (query,), "int64")
    >>> stack = Weight("model", "W", ((expert,), (model,), (hidden,)))
    >>> product = Einsum((x, Gather(stack, "expert", chosen)), ("model",))
    >>> experts_chosen([product])[product] is Experts(x, stack, "expert", chosen, ("model",))
    True
    """
    order = topological(roots)
    data = above(roots, [node for node in order if isinstance(node, Input)])

    def change(node: Node, operands: tuple[Node, ...]) -> Node:
        if isinstance(node, Einsum) and len(node.factors) == 2:
            for value, looked in ((0, 1), (1, 0)):
                if node.factors[value] in data and _is_stack(node.factors[looked], data):
                    made = _chosen(operands[value], _stack(operands[looked]), node.summed)
                    if made is not None:
                        return made
        return node.with_operands(operands)

    return rebuild(roots, change)


def _is_stack(node: Node, data: set[Node]) -> bool:
    """Tell whether a node looks up matrices that are weights, by an index that is data (and perhaps renames their axes)."""
    inner = node.source if isinstance(node, Relabel) else node
    if not isinstance(inner, Gather) or inner.source in data or inner.index not in data or len(inner.source.axes) < 3:
        return False
    return not isinstance(node, Relabel) or not any(
        old in inner.index.axis_names or new == inner.axis for old, new in node.pairs
    )


def _stack(node: Node) -> tuple[Node, str, Node]:
    """Return the matrices, their axis of experts and the index; a renaming of what was looked up is one of the matrices."""
    if isinstance(node, Relabel) and isinstance(node.source, Gather):
        return Relabel(node.source.source, node.pairs), node.source.axis, node.source.index
    if isinstance(node, Gather):
        return node.source, node.axis, node.index
    raise TypeError(f"{node!r} is no look-up")


def _chosen(value: Node, stack: tuple[Node, str, Node], summed: tuple[str, ...]) -> Node | None:
    """Return the product as `Experts`, or `None` where the axes of the three do not allow it."""
    weights, axis, index = stack
    rest = weights.axis_names - {axis}
    fits = (
        set(summed) <= value.axis_names & rest
        and not value.axis_names & rest - set(summed)
        and not weights.axis_names & index.axis_names
        and axis not in value.axis_names | index.axis_names
        and bool(rest - set(summed))
    )
    return Experts(value, weights, axis, index, summed) if fits else None
