"""Rewrites of rust_circuit and what says the same here: the form that comes out, and its value in 64 bits.

rust_circuit                        Scrubjay                              test
----------------------------------  ------------------------------------  -------------------------------
nest_einsums                        nest((0, 1))                          test_nest
nest_adds, extract_add              nest_sum((0, 1))                      test_nest_sum
einsum_flatten, add_flatten         FLATTEN_EINSUM, FLATTEN_ADD           test_flatten
distribute_once                     distribute()                          test_distribute
distribute(do_broadcasts)           distribute() until nothing changes    test_distribute_throughout
factor_add_of_mul_to_mul_of_add     FACTOR                                test_factor
push_down_index                     PUSH_TAKE                             test_push_down_index
pull_concat                         PULL_CONCAT                           test_pull_concat
split_to_concat                     split_to_concat(axis, sizes)          test_split_to_concat
residual_rewrite                    estimate(by)                          test_residual_rewrite
explicit_reduce                     split_places(axis), split_heads       test_explicit_reduce, test_split_heads
simp, compiler_simp, deep_normalize simplify                              test_simplify
batch_to_concat                     in_chunks                             test_batch_to_concat
scatter_to_concat and back          SCATTER_TO_CONCAT, CONCAT_TO_SCATTER  test_scatter_and_concat
einsum_permute_to_rearrange         relabels are sets of names: none      test_order_of_axes_means_nothing
"""

from __future__ import annotations

import pytest
import torch

from parity import AI, AJ, AK, STORED, VALUES, A, B, C, same, value
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Along, Concat, Constant, Einsum, Index, Input, Map, Multiply, Narrow, Relabel
from scrubjay.circuit.rules import (
    expand_residual,
    explain,
    in_chunks,
    rewrite,
    rules_applied,
    simplify,
    split_heads,
    split_to_concat,
)
from scrubjay.circuit.rules.algebra import FLATTEN_ADD, FLATTEN_EINSUM, nest, nest_sum
from scrubjay.circuit.rules.distribution import FACTOR, distribute
from scrubjay.circuit.rules.joining import PULL_CONCAT
from scrubjay.circuit.rules.places import split_places
from scrubjay.circuit.rules.projection import estimate
from scrubjay.circuit.rules.rule import Rule, applied
from scrubjay.circuit.rules.selecting import CONCAT_TO_SCATTER, SCATTER_TO_CONCAT, scatter
from scrubjay.circuit.rules.taking import PUSH_TAKE
from scrubjay.engine import evaluate
from scrubjay.errors import CircuitError
from small_models import HEADS, LAYERS, batch, captured

MADE = Input("made", (AK, Axis("m", 2)))
GIVEN = {"made": torch.randn(5, 2, dtype=torch.float64)}


def rewritten(node: Node, *rules: Rule) -> Node:
    """Apply rules throughout, and check the value."""
    made = rewrite(node, rules).roots["output"]
    same(value(made, given=GIVEN), value(node, given=GIVEN))
    return made


def test_nest():
    node = Einsum((A, B, MADE), ("j", "k"))
    made = applied(nest((0, 1)), node)
    assert made is Einsum((Einsum((A, B), ("j",)), MADE), ("k",))
    same(value(made, "i m", given=GIVEN), VALUES["a"] @ VALUES["b"] @ GIVEN["made"])
    same(value(applied(nest((1, 2)), node), "i m", given=GIVEN), VALUES["a"] @ VALUES["b"] @ GIVEN["made"])


def test_nest_sum():
    node = Add((A, C, C, A))
    made = applied(nest_sum((1, 3)), node)
    assert made is Add((A, Add((C, A)), C))
    same(value(made), value(node))
    assert rewritten(made, FLATTEN_ADD) is Add((A, C, A, C))
    assert "not all" in nest_sum((0, 1)).why_not(Add((A, C)))


def test_flatten():
    nested = Einsum((Einsum((A, B), ("j",)), MADE), ("k",))
    assert rewritten(nested, FLATTEN_EINSUM) is Einsum((A, B, MADE), ("j", "k"))
    assert rewritten(Add((Add((A, C)), Add((C, A)))), FLATTEN_ADD) is Add((A, C, C, A))


def test_distribute():
    made = applied(distribute(), Einsum((Add((A, C)), B), ("j",)))
    same(value(made, "i k"), (VALUES["a"] + VALUES["c"]) @ VALUES["b"])
    assert isinstance(made, Add)
    assert made.terms[0] is Einsum((A, B), ("j",))
    same(value(made.terms[1]), (VALUES["c"] @ VALUES["b"]).expand(value(made.terms[1]).shape))
    with pytest.raises(CircuitError, match="does not hold"):
        applied(distribute(), Map("exp", (Add((A, C)),)))


def test_distribute_throughout():
    """(a + c)(b + stored) is four products in the end."""
    made = rewritten(Einsum((Add((A, C)), Add((B, STORED))), ("j",)), distribute(), FLATTEN_ADD)
    assert isinstance(made, Add)
    assert len(made.terms) == 4
    assert not any(isinstance(node, Add) for node in topological(made.terms))


def test_factor():
    sum_ = Add((Multiply((A, C)), Multiply((A, A))))
    assert rewritten(sum_, FACTOR) is Multiply((A, Add((C, A))))
    products = Add((Einsum((A, B), ("j",)), Einsum((A, STORED), ("j",))))
    assert rewritten(products, FACTOR) is Einsum((A, Add((B, STORED))), ("j",))


@pytest.mark.parametrize("at", [0, 2, -1])
def test_push_down_index(at: int):
    """One row of a contraction is the contraction of that row; down to the leaves, and no further than what acts along it."""
    made = rewritten(Index(Einsum((Map("exp", (Add((A, C)),)), B), ("j",)), "i", at), PUSH_TAKE)
    assert made is Einsum((Map("exp", (Add((Index(A, "i", at), C)),)), B), ("j",))
    acts = Along("softmax", A, ("i",))
    assert rewrite(Index(acts, "i", at), PUSH_TAKE).roots["output"] is Index(acts, "i", at)
    part = Axis("i", 2)
    assert rewritten(Narrow(Add((A, C)), "i", 1, part), PUSH_TAKE) is Add((Narrow(A, "i", 1, part), C))


def test_pull_concat():
    whole = Axis("i", 6)
    made = rewritten(Map("exp", (Add((Concat((A, Map("sin", (A,))), ("i", "i"), whole), C)),)), PULL_CONCAT)
    assert made is Concat((Map("exp", (Add((A, C)),)), Map("exp", (Add((Map("sin", (A,)), C)),))), ("i", "i"), whole)


def test_split_to_concat():
    made = applied(split_to_concat("j", (1, 3)), A)
    parts = (Narrow(A, "j", 0, Axis("j", 1)), Narrow(A, "j", 1, Axis("j", 3)))
    assert made is Concat(parts, ("j", "j"), AJ)
    same(value(made, "i j"), VALUES["a"])


def test_residual_rewrite():
    """x = e + (x - e), with the estimate from elsewhere."""
    made = applied(estimate(C), A)
    assert isinstance(made, Add)
    assert C in made.terms
    same(value(made, "i j"), VALUES["a"])
    rest = next(term for term in made.terms if term is not C)
    same(value(rest, "i j"), VALUES["a"] - VALUES["c"])


def test_explicit_reduce():
    made = applied(split_places("j"), Einsum((A, B), ("j",)))
    assert isinstance(made, Add)
    assert made.terms == tuple(Multiply((Index(A, "j", at), Index(B, "j", at))) for at in range(4))
    same(value(made, "i k"), VALUES["a"] @ VALUES["b"])


def test_split_heads():
    """A captured gpt2 with its heads split and its residual stream expanded: one term for each head, the same logits."""
    model = captured("gpt2")[1].exact()
    heads = split_heads(model.circuit)
    assert rules_applied(heads) == {"split_places": LAYERS}
    assert f"split_places x{LAYERS}" in explain(heads)
    reads = {node for node in heads.nodes if isinstance(node, Index) and node.axis == "head"}
    assert {node.at for node in reads} == set(range(HEADS))
    made = expand_residual(heads)
    roots = [circuit.roots["logits"] for circuit in (model.circuit, heads, made)]
    found = evaluate(roots, batch(2, 9), model.stores, dtype=torch.float64)
    before, *after = (torch.as_tensor(found[root].laid(["batch", "query", "vocab"])).detach() for root in roots)
    for one in after:
        torch.testing.assert_close(one, before, rtol=1e-10, atol=1e-10)


def test_simplify():
    zero, one_ = Constant(0.0), Constant(1.0)
    node = Add((Multiply((one_, A)), zero, Add((C,)), Relabel(Relabel(A, (("i", "p"),)), (("p", "i"),))))
    made = simplify(node).roots["output"]
    assert made is Add((A, C, A))
    same(value(made, "i j"), value(node, "i j"))
    assert simplify(made).roots["output"] is made
    flat = simplify(Add((Add((A, C)), Add((A,)))), flat=True).roots["output"]
    assert flat is Add((A, C, A))


@pytest.mark.parametrize("sizes", [(1, 2), (1, 1, 1)])
def test_batch_to_concat(sizes: tuple[int, ...]):
    node = Einsum((Map("exp", (Add((A, C)),)), B), ("j",))
    made = in_chunks(Circuit({"output": node}), "i", sizes).roots["output"]
    assert isinstance(made, Concat)
    assert [part.size("i") for part in made.parts] == list(sizes)
    same(value(made, "i k"), (VALUES["a"] + VALUES["c"]).exp() @ VALUES["b"])


def test_scatter_and_concat():
    placed = scatter(A, "j", Axis("place", 8), 2)
    made = rewritten(placed, SCATTER_TO_CONCAT)
    assert isinstance(made, Concat)
    joined = Concat((A, A), ("i", "i"), Axis("place", 6))
    assert isinstance(rewritten(joined, CONCAT_TO_SCATTER), Add)


def test_order_of_axes_means_nothing():
    assert Einsum((A, B), ("j",)).axes == (AI, AK)
    assert Input("x", (AI, AJ)).axes == Input("x", (AJ, AI)).axes
