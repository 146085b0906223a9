"""Rules that move look-ups: f(gather(x, i), gather(y, i)) = gather(f(x, y), i), and f(x)[i] = f(x[i]).

Both hold where f does not act along the axis in question, which every node declares.
"""

from __future__ import annotations

from collections.abc import Sequence

from scrubjay.circuit.graph import rebuild, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Constant, Custom, Gather, Index, Input, Iota, Opaque, Weight


def gathers_up(roots: Sequence[Node], axis: str = "row") -> dict[Node, Node]:
    """Return every node with look-ups along `axis` raised as far as they go.

    A look-up rises through a node when all operands that are looked up share one index, the others do not have the index's
    axes, and the node acts neither along `axis` nor along the index's axes.

    >>> from scrubjay.circuit.axes import Axis
    >>> from scrubjay.circuit.ops import Map
    >>> x, i = Input("x", (Axis("row", "row"),)), Input("i", (Axis("batch", "batch"),), "int64")
    >>> node = Map("relu", (Gather(x, "row", i),))
    >>> gathers_up([node])[node] is Gather(Map("relu", (x,)), "row", i)
    True
    """

    def raised(node: Node, operands: tuple[Node, ...]) -> Node:
        plain = node.with_operands(operands)
        looked = [item for item in operands if isinstance(item, Gather) and item.axis == axis]
        if not looked or (isinstance(node, Gather) and node.axis == axis):
            return plain
        index = looked[0].index
        if any(item.index is not index for item in looked[1:]):
            return plain
        ours = index.axis_names
        others = [item for item in operands if item not in looked]
        if any(item.axis_names & (ours | {axis}) for item in others):
            return plain
        if node.acts_along & (ours | {axis}) or any(name in item.source.axis_names for item in looked for name in ours):
            return plain
        if isinstance(node, Opaque | Custom) or len({item.source.size(axis) for item in looked}) > 1:
            return plain  # an operation whose layout is fixed takes no further axis; rows of two data sets are not walked together
        inner = node.with_operands(
            [item.source if isinstance(item, Gather) and item in looked else item for item in operands]
        )
        return Gather(inner, axis, index)

    return rebuild(roots, raised)


def positions_down(roots: Sequence[Node], axis: str = "query") -> dict[Node, Node]:
    """Return the roots with choices of a position (`Index` or `Gather` along `axis`) pushed down as far as they go.

    >>> from scrubjay.circuit.axes import Axis
    >>> from scrubjay.circuit.ops import Map
    >>> x = Input("x", (Axis("query", "query"),))
    >>> node = Index(Map("relu", (x,)), "query", -1)
    >>> positions_down([node])[node] is Map("relu", (Index(x, "query", -1),))
    True
    """
    made: dict[Node, Node] = {}
    pushed: dict[tuple[Node, Node | int], Node] = {}
    for node in topological(roots):
        here = node.with_operands([made[operand] for operand in node.operands])
        if isinstance(here, Index | Gather) and here.axis == axis and not _is_table(here.operands[0]):
            here = _push(here.source, here.index if isinstance(here, Gather) else here.at, axis, pushed)
        made[node] = here
    return {root: made[root] for root in roots}


def _is_table(node: Node) -> bool:
    return isinstance(node, Input | Weight | Constant)


def _taken(node: Node, at: Node | int, axis: str) -> Node:
    return Index(node, axis, at) if isinstance(at, int) else Gather(node, axis, at)


def _passes(node: Node, at: Node | int, axis: str) -> bool:
    if isinstance(node, Input | Weight | Constant | Iota) or axis in node.acts_along:
        return False
    if isinstance(at, int):
        return True
    if isinstance(node, Gather) and not at.axis_names <= node.source.axis_names:
        return False  # the source would be multiplied by the axes of the choice
    return not node.acts_along & at.axis_names


def _push(source: Node, at: Node | int, axis: str, pushed: dict[tuple[Node, Node | int], Node]) -> Node:
    """Return `source` at one place of the axis, with the choice made as deep as it goes (no recursion)."""
    stack = [source]
    while stack:
        node = stack[-1]
        if (node, at) in pushed:
            stack.pop()
            continue
        if axis not in node.axis_names:
            pushed[node, at] = node
        elif not _passes(node, at, axis):
            pushed[node, at] = _taken(node, at, axis)
        else:
            waiting = [operand for operand in node.operands if (operand, at) not in pushed]
            if waiting:
                stack.extend(waiting)
                continue
            pushed[node, at] = node.with_operands([pushed[operand, at] for operand in node.operands])
        stack.pop()
    return pushed[source, at]
