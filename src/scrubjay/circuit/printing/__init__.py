"""Circuits for people: a table of text, a notation that reads back, the difference of two.

`table` prints (its words are in `words`, its order in `sections`); `notation` writes and `parsing` reads (`tokens`, `fields`);
`difference` compares. `dependence` says and marks what each value depends on; `part` chooses what is drawn, `dot` writes it.
"""

from scrubjay.circuit.printing.dependence import Marking, changed_places, dependence, marking
from scrubjay.circuit.printing.difference import Change, Difference, diff
from scrubjay.circuit.printing.dot import dot
from scrubjay.circuit.printing.notation import write
from scrubjay.circuit.printing.parsing import parse
from scrubjay.circuit.printing.table import show

__all__ = [
    "Change", "Difference", "Marking", "changed_places", "dependence", "diff", "dot", "marking", "parse", "show", "write",
]  # fmt: skip
