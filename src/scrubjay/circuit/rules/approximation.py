"""What is nearly the same and not an equality: a type of its own, which `rewrite` refuses.

With the scale of a norm frozen, at the value it has on some run or on average, all that reads the norm is linear in its sources.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import need_circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Along, Input, Map
from scrubjay.circuit.rules.algebra import X
from scrubjay.circuit.rules.facts import Where, predicate
from scrubjay.errors import CircuitError


@dataclass(frozen=True, eq=False)
class Approximation:
    """A replacement that changes values, exact only under the condition it names.

    Attributes:
        name: what traces and errors call it.
        says: what it does, in words.
        formula: what is put for what.
        exact_when: the condition under which nothing changes.
        example: makes a small node that it applies to.
        change: the node it puts in the place of one, or the reason why it does not apply.
    """

    name: str
    says: str
    formula: str
    exact_when: str
    example: Callable[[], Node]
    change: Callable[[Node], Node | str]

    def apply(self, node: Node) -> Node | None:
        """Return what is put in the node's place, or `None` where the approximation does not apply."""
        made = self.change(node)
        return None if isinstance(made, str) else made

    def why_not(self, node: Node) -> str:
        """Return why it does not apply at the node; an empty text where it does."""
        made = self.change(node)
        return made if isinstance(made, str) else ""

    def __repr__(self) -> str:
        """Say the name and the formula in one line."""
        return f"<Approximation {self.name}: {self.formula}; exact when {self.exact_when}>"


def is_scale(node: Node) -> bool:
    """Tell whether a node is what a norm divides by, or its reciprocal."""
    return (isinstance(node, Along) and node.op == "rms") or (isinstance(node, Map) and node.op in {"rsqrt", "sqrt"})


def frozen_scale(value: Callable[[Node], Node] | Node | None = None) -> Approximation:
    """Return the approximation that a norm's scale does not depend on what is normalised.

    Args:
        value: the node put in the scale's place, or a function from the scale to it. An input `frozen scale` with the
            scale's axes, to be given when run, when not given: for a circuit with one frozen scale.

    >>> frozen = frozen_scale().apply(Along("rms", X, ("model",), (1e-5,)))
    >>> frozen.name
    'frozen scale'
    """

    def change(node: Node) -> Node | str:
        if not is_scale(node):
            return f"it is no scale of a norm (rms, or a root), and this is {type(node).__name__}"
        if value is None:
            return Input("frozen scale", node.axes)
        made = value if isinstance(value, Node) else value(node)
        if wrong := [axis for axis in made.axes if axis not in node.axes]:
            return f"the frozen value has the axes {', '.join(map(str, wrong))}, which the scale lacks"
        return made

    return Approximation(
        "frozen_scale",
        "the scale of a norm is held at a given value",
        "center(x) / rms(x) ~ center(x) / s",
        "s is the scale of the run at hand",
        lambda: Along("rms", X, ("model",), (1e-5,)),
        change,
    )


def approximate(circuit: Circuit, approximation: Approximation, where: Where) -> Circuit:
    """Return the circuit with an approximation made at the places asked for; values change, and the history says so.

    Raises `CircuitError` where no place was asked for, or it does not apply at one of them.
    """
    need_circuit(circuit)
    asked = predicate(where)
    chosen = [node for node in circuit.nodes if asked(node)]
    if not chosen:
        raise CircuitError(f"{approximation.name}: no node of the circuit was asked for")
    changes: dict[Node, Node] = {}
    for node in chosen:
        made = approximation.apply(node)
        if made is None:
            raise CircuitError(f"{approximation.name} does not apply at {node!r}: {approximation.why_not(node)}")
        changes[node] = made
    return circuit.rewrite(changes, f"approximation: {approximation.name} x{len(chosen)}, exact when {approximation.exact_when}")  # fmt: skip
