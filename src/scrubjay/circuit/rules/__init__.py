"""Equalities: rewrites that keep the value on every input. One theme a module; every rule is tested as a law.

A `Rule` is a record with its law and an example; `rewrite` applies some of them bottom-up until nothing changes and notes in the
circuit's history what it did, which `explain` tells. `themes.EQUALITIES` lists them all. `lookup` moves look-ups for the evaluator:
row look-ups rise, choices of one position sink. `experts` writes products with looked-up matrices as choices of an expert. An
`Approximation` changes values, and is a type of its own that `rewrite` refuses.
"""

from scrubjay.circuit.rules.approximation import Approximation, approximate, frozen_scale
from scrubjay.circuit.rules.attention import FACTOR_OV, FACTOR_QK, split_qkv
from scrubjay.circuit.rules.cumulants import CumulantTerm, cumulant_terms
from scrubjay.circuit.rules.drawing import drawn, redrawn, sampled
from scrubjay.circuit.rules.experts import experts_chosen
from scrubjay.circuit.rules.joining import in_chunks, split_to_concat
from scrubjay.circuit.rules.lookup import gather_up, gathers_up, positions_down
from scrubjay.circuit.rules.norms import fold_norms
from scrubjay.circuit.rules.places import split_heads, split_place, split_places, split_stretches
from scrubjay.circuit.rules.projection import estimate, onto, project
from scrubjay.circuit.rules.random import cumulants_up_to, wick_product
from scrubjay.circuit.rules.rewriting import explain, rewrite, rules_applied
from scrubjay.circuit.rules.rule import Rule, applied
from scrubjay.circuit.rules.selecting import scatter
from scrubjay.circuit.rules.simplify import SIMPLIFY, simplify
from scrubjay.circuit.rules.sources import by_source, expand_residual, sources
from scrubjay.circuit.rules.themes import EQUALITIES, rule_table
from scrubjay.circuit.rules.virtual import PathTerm, contracted, path_terms, through_heads, virtual_heads

__all__ = [
    "EQUALITIES", "FACTOR_OV", "FACTOR_QK", "SIMPLIFY", "Approximation", "CumulantTerm", "PathTerm", "Rule", "applied", "approximate", "by_source",
    "contracted", "cumulant_terms", "cumulants_up_to", "drawn", "estimate", "expand_residual", "experts_chosen", "explain", "fold_norms", "frozen_scale", "gather_up", "gathers_up",
    "in_chunks", "onto", "path_terms", "positions_down", "project", "redrawn", "rewrite", "rule_table", "rules_applied", "sampled", "scatter", "simplify",
    "sources", "split_heads", "split_place", "split_places", "split_qkv", "split_stretches", "split_to_concat", "through_heads",
    "virtual_heads", "wick_product",
]  # fmt: skip
