"""Equalities: rewrites that keep the value on every input. One theme a module; every rule is tested as a law.

`lookup` moves look-ups: row look-ups rise (a subtree that reads one datum is computed once for all rows), choices of one
position sink (what no one reads at other positions is not computed).
"""

from scrubjay.circuit.rules.lookup import gathers_up, positions_down

__all__ = ["gathers_up", "positions_down"]
