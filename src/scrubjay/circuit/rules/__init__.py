"""Equalities: rewrites that keep the value on every input. One theme a module; every rule is tested as a law.

`lookup` moves look-ups: row look-ups rise (a subtree that reads one datum is computed once for all rows), choices of one
position sink (what no one reads at other positions is not computed). `experts` writes products with looked-up matrices as
choices of an expert.
"""

from scrubjay.circuit.rules.experts import experts_chosen
from scrubjay.circuit.rules.lookup import gathers_up, positions_down

__all__ = ["experts_chosen", "gathers_up", "positions_down"]
