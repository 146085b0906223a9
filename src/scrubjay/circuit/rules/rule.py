"""What a rule is: a record that keeps the value of a node on every input, or says why it does not hold there.

A rule is local: it looks at one node and below, and gives another expression for the same value, with the same axes. One
function decides both whether it holds and what it makes, so that `apply` and `why_not` cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scrubjay.circuit.node import Node
from scrubjay.errors import CircuitError

Change = Callable[[Node], "Node | str"]
"""A node for the same value, or the reason why there is none."""


@dataclass(frozen=True, eq=False)
class Rule:
    """An equality: the node it makes has the value and the axes of the node it was given.

    Laws hold for finite values (0 times infinity is no number), to rounding in the type that the circuit is run in.

    Attributes:
        name: what traces and errors call it.
        theme: the table it belongs to.
        says: what it does, in words.
        law: the equation.
        example: makes a small node that it applies to.
        change: the node it makes of one, or the reason why it does not hold.
        repeats: whether it may be applied to what it made. A rule that does not is applied once at each place.
    """

    name: str
    theme: str
    says: str
    law: str
    example: Callable[[], Node]
    change: Change
    repeats: bool = True

    def apply(self, node: Node) -> Node | None:
        """Return another expression for the node's value, or `None` where the rule does not hold."""
        made = self.change(node)
        if isinstance(made, str) or made is node:
            return None
        if made.axes != node.axes:
            raise CircuitError(
                f"the rule {self.name} made {made!r} of {node!r}, which has other axes: this is a defect, please report it"
            )
        return made

    def why_not(self, node: Node) -> str:
        """Return why the rule does not hold at the node; an empty text where it does."""
        made = self.change(node)
        if isinstance(made, str):
            return made
        return "it would change nothing" if made is node else ""

    def __repr__(self) -> str:
        """Say the name and the law in one line."""
        return f"<Rule {self.name}: {self.law}>"


def applied(rule: Rule, node: Node) -> Node:
    """Return what a rule makes of a node; raise `CircuitError` that says why where it does not hold.

    >>> from scrubjay.circuit.ops import Add, Constant
    >>> from scrubjay.circuit.rules.algebra import FLATTEN_ADD
    >>> one, two = Constant(1), Constant(2)
    >>> applied(FLATTEN_ADD, Add((one, Add((one, two))))) is Add((one, one, two))
    True
    """
    made = rule.apply(node)
    if made is None:
        raise CircuitError(f"the rule {rule.name} ({rule.law}) does not hold at {node!r}: {rule.why_not(node)}")
    return made


def expected(kind: str, node: Node) -> str:
    """Return the reason that a rule for another kind of node gives."""
    return f"it is for {kind}, and this is {type(node).__name__}"
