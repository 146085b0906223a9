"""The tables of all equalities, by theme."""

from __future__ import annotations

from scrubjay.circuit.rules.algebra import ALGEBRA
from scrubjay.circuit.rules.attention import ATTENTION
from scrubjay.circuit.rules.distribution import DISTRIBUTION
from scrubjay.circuit.rules.joining import JOINING
from scrubjay.circuit.rules.norms import NORMS
from scrubjay.circuit.rules.numbers import NUMBERS
from scrubjay.circuit.rules.places import PLACES
from scrubjay.circuit.rules.projection import PROJECTION
from scrubjay.circuit.rules.relabels import RELABELS
from scrubjay.circuit.rules.rule import Rule
from scrubjay.circuit.rules.shapes import SHAPES
from scrubjay.circuit.rules.sources import SOURCES
from scrubjay.circuit.rules.taking import TAKING

EQUALITIES: tuple[Rule, ...] = (
    *(*ALGEBRA, *DISTRIBUTION, *RELABELS, *TAKING, *JOINING, *SHAPES, *NUMBERS),
    *(*PLACES, *SOURCES, *ATTENTION, *PROJECTION, *NORMS),
)
"""Every rule, those with parameters by an example of theirs."""


def rule_table() -> str:
    """Return the rules as text: theme, name and law, one a line."""
    return "\n".join(f"{rule.theme:13} {rule.name:18} {rule.law}" for rule in EQUALITIES)
