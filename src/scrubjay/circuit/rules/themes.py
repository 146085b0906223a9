"""The tables of all equalities, by theme.

What rust_circuit calls its rewrites, and where they are here: `explicit_reduce` is `split_places`; `push_down_index` is
`push_take`; `pull_concat` and `split_to_concat` keep their names, and `batch_to_concat` is `joining.in_chunks`; `residual_rewrite`
is `estimate` (and `project`); scatters are `selecting.scatter`, and `scatter_to_concat` and `concat_to_scatter` go between; a
diagonal or trace is a contraction with the identity, `einsum_identity`; `distribute`, `factor_add_of_mul` (`factor`), `flatten` and
`nest` are in `algebra` and `distribution`; `simp` and `canonicalize` are `simplify.simplify`. Its merged permutations have no
counterpart to need: axes are a set of names, so that a transposition makes no node, and renamings merge by `compose_relabels`.
"""

from __future__ import annotations

from scrubjay.circuit.rules.algebra import ALGEBRA
from scrubjay.circuit.rules.attention import ATTENTION
from scrubjay.circuit.rules.distribution import DISTRIBUTION
from scrubjay.circuit.rules.joining import JOINING
from scrubjay.circuit.rules.lookup import LOOKUP
from scrubjay.circuit.rules.norms import NORMS
from scrubjay.circuit.rules.numbers import NUMBERS
from scrubjay.circuit.rules.places import PLACES
from scrubjay.circuit.rules.projection import PROJECTION
from scrubjay.circuit.rules.random import RANDOM_RULES
from scrubjay.circuit.rules.relabels import RELABELS
from scrubjay.circuit.rules.rule import Rule
from scrubjay.circuit.rules.selecting import SELECTING
from scrubjay.circuit.rules.shapes import SHAPES
from scrubjay.circuit.rules.sources import SOURCES
from scrubjay.circuit.rules.taking import TAKING
from scrubjay.circuit.rules.virtual import VIRTUAL

EQUALITIES: tuple[Rule, ...] = (
    *(*ALGEBRA, *DISTRIBUTION, *RELABELS, *TAKING, *JOINING, *SELECTING, *LOOKUP, *SHAPES, *NUMBERS),
    *(*PLACES, *SOURCES, *ATTENTION, *VIRTUAL, *PROJECTION, *NORMS, *RANDOM_RULES),
)
"""Every rule, those with parameters by an example of theirs."""


def rule_table() -> str:
    """Return the rules as text: theme, name and law, one a line."""
    return "\n".join(f"{rule.theme:13} {rule.name:18} {rule.law}" for rule in EQUALITIES)
