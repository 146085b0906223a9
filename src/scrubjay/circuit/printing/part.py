"""A part of a circuit that is small enough to draw: which nodes, which of them read which, and what is written on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scrubjay.circuit.circuit import Circuit, is_note
from scrubjay.circuit.graph import need_circuit, topological
from scrubjay.circuit.match import Paths, edges, path
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Constant, Einsum, Input, Map, Multiply, Weight
from scrubjay.circuit.printing.dependence import change_of, dependence, main_source
from scrubjay.circuit.printing.sections import at_focus, check_depth, rank
from scrubjay.circuit.printing.words import WORDS
from scrubjay.errors import CircuitError

MOST_WORDS = 60
FEW = 4
"""How long the words of a node may get; up to how many operands a sum or product names."""

Focus = str | Node | Paths | None


@dataclass(frozen=True, eq=False)
class Part:
    """Some nodes of a circuit, as they are drawn.

    Attributes:
        title: what was asked for.
        nodes: the nodes, operands before what reads them.
        reads: for each node, the nodes of this part that it reads, directly or through ones that are not drawn.
        cut: for some nodes, how many values they read that are not drawn because of the depth.
        names: the addresses of each node that has any, the most telling one first.
        words: what each node computes, shortly; empty where that is done by nodes that are not drawn.
    """

    title: str
    nodes: tuple[Node, ...]
    reads: Mapping[Node, tuple[Node, ...]]
    cut: Mapping[Node, int]
    names: Mapping[Node, tuple[str, ...]]
    words: Mapping[Node, str]

    def axes(self, node: Node) -> str:
        """Return a node's axes and their sizes, as `[batch query model=768]`."""
        return f"[{' '.join(map(str, node.axes))}]"


def part_of(
    circuit: Circuit,
    focus: Focus = None,
    depth: int | None = None,
    weights: bool = False,
    named: bool = False,
    most: int = 120,
) -> Part:
    """Return the part of a circuit that is asked for.

    Args:
        circuit: the circuit.
        focus: an address, a result's name or a node to look down from, or paths (`"L0.attn.out -> L1.attn.q"`, or a value of
            `sj.match`); the results if not given.
        depth: how many steps to go down from there; all if not given. Paths have no depth.
        weights: whether weights, numbers and what is computed from them alone are nodes of their own; else they are part
            of the words of what reads them.
        named: whether to draw only what has an address; an edge then stands for all that lies between two of them.
        most: the most nodes.

    Raises `AddressError` or `MatchError` for a focus that the circuit lacks, and `CircuitError` for a part of more than
    `most` nodes.
    """
    need_circuit(circuit)
    title = ", ".join(circuit.roots) if focus is None else focus if isinstance(focus, str) else repr(focus)
    if isinstance(focus, str) and "->" in focus and focus not in circuit.table:
        focus = path(focus)
    if isinstance(focus, Paths):
        if depth is not None:
            raise CircuitError(
                f"depth={depth} was given with the paths {title}: paths are drawn whole, leave depth out"
            )
        along = _along(circuit, focus)
        read = {operand for operands in along.values() for operand in operands}
        roots = [node for node in along if node not in read]
    else:
        along = None
        roots = (
            [*circuit.roots.values()]
            if focus is None
            else [at_focus(circuit, focus) if isinstance(focus, str) else focus]
        )
    names = addresses(circuit)
    constant = {node for node, found in dependence(circuit).items() if not found}
    hidden = constant - {*roots} if not weights else set[Node]()
    reads = _reads(roots, along, hidden, {*names} if named else None)
    kept, cut = _near(roots, reads, depth)
    if len(kept) > most:
        raise CircuitError(
            f"{title}: this part has {len(kept):,} nodes, and at most {most} are drawn: narrow it with focus= and depth=, draw only what "
            "has an address with named=True, or raise most="
        )
    below = topological(roots)
    order = tuple(node for node in below if node in kept)
    shown = {node: tuple(one for one in dict.fromkeys(reads[node]) if one in kept) for node in order}
    words = _Words(main_source(circuit.nodes), hidden, names)
    telling = {node for node in order if not named or (node not in cut and words.drawn(node) <= {*shown[node]})}
    every = {node: words.of(node) for node in below}
    said = {node: every[node] if node in telling else "" for node in order}
    return Part(title, order, shown, cut, {node: names[node] for node in order if node in names}, said)


def _along(circuit: Circuit, focus: Paths) -> dict[Node, list[Node]]:
    """Return for each node on the paths what it reads along them."""
    found: dict[Node, list[Node]] = {}
    for edge in edges(circuit, focus):
        found.setdefault(edge.reader, []).append(edge.operand)
    return found


def addresses(circuit: Circuit) -> dict[Node, tuple[str, ...]]:
    """Return the addresses of the nodes that have any: named sites first, then results and inputs, then modules."""
    known = {**{name: node for name, node in circuit.table.items() if not is_note(name)}}
    for name, node in circuit.roots.items():
        known.setdefault(name, node)
    found: dict[Node, list[str]] = {}
    for name in sorted(known, key=lambda name: (rank(name), name not in circuit.roots)):
        found.setdefault(known[name], []).append(name)
    return {node: tuple(names) for node, names in found.items()}


def _reads(
    roots: Sequence[Node], along: Mapping[Node, Sequence[Node]] | None, hidden: set[Node], named: set[Node] | None
) -> dict[Node, tuple[Node, ...]]:
    """Return which drawn nodes each node reads, through nodes that are not drawn."""
    tops = {*roots}
    found: dict[Node, tuple[Node, ...]] = {}
    for node in topological(roots):
        below: dict[Node, None] = {}
        for operand in node.operands if along is None else along.get(node, ()):
            if operand in hidden:
                continue
            if named is None or operand in named or operand in tops or isinstance(operand, Input):
                below[operand] = None
            else:
                below.update(dict.fromkeys(found[operand]))
        found[node] = tuple(below)
    return found


def _near(
    roots: Sequence[Node], reads: Mapping[Node, Sequence[Node]], depth: int | None
) -> tuple[set[Node], dict[Node, int]]:
    """Return the nodes up to `depth` steps down, and how many values of each are further away."""
    check_depth(depth)
    near, here, steps = {*roots}, [*roots], 0
    while here and (depth is None or steps < depth):
        here = [one for one in dict.fromkeys(operand for node in here for operand in reads[node]) if one not in near]
        near.update(here)
        steps += 1
    return near, {node: left for node in near if (left := sum(one not in near for one in reads[node]))}


class _Words:
    """What nodes compute, in few words; what is hidden is said within."""

    def __init__(self, main: str, hidden: set[Node], names: Mapping[Node, Sequence[str]]) -> None:
        self.main, self.hidden, self.names = main, hidden, names
        self.known: dict[Node, str] = {}

    def of(self, node: Node) -> str:
        """Return the words of a node: its operands are dots, or what they are where they are not drawn.

        What is hidden has to be said before what reads it.
        """
        said = self._said(node)
        if node in self.hidden:
            self.known[node] = said
        return said

    def drawn(self, node: Node) -> set[Node]:
        """Return the operands that are not said within."""
        return {operand for operand in node.operands if operand not in self.hidden}

    def _said(self, node: Node) -> str:
        if isinstance(node, Weight):
            return clipped(node.name if node.source == self.main else f"{node.source}:{node.name}")
        if (change := change_of(node, self.main)) is not None and isinstance(node, Map):
            return clipped(f"{WORDS[Constant](node.inputs[0], ())}, {change}")
        texts = [self.known.get(operand, "·") if operand in self.hidden else "·" for operand in node.operands]
        if isinstance(node, Add | Multiply) and len(texts) > FEW:
            return f"{'sum' if isinstance(node, Add) else 'product'} of {len(texts)}"
        if isinstance(node, Einsum):
            over = f" over {' '.join(node.summed)}" if node.summed else ""
            return clipped(f"product of {', '.join(texts)}{over}" if node.summed else " * ".join(texts))
        return clipped(WORDS[type(node)](node, texts))


def clipped(text: str, most: int = MOST_WORDS) -> str:
    """Return a text of at most `most` characters, its middle left out where it is longer.

    >>> clipped("transformer.h.0.mlp", 12)
    'transf…0.mlp'
    """
    left = most // 2
    return text if len(text) <= most else f"{text[:left]}…{text[len(text) - (most - left - 1) :]}"
