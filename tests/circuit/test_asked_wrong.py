"""What printing, comparing and rewriting say to a wrong question, and what a difference shows of an intervention."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import families
import scrubjay as sj
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.fingerprint import fingerprint
from scrubjay.circuit.ops import Add, Input, Map, Multiply
from scrubjay.circuit.printing import diff, dot, marking, show, write
from scrubjay.circuit.rules import expand_residual, fold_norms, path_terms, rewrite, simplify, split_heads
from scrubjay.circuit.serial import to_text
from scrubjay.errors import AddressError, CircuitError
from scrubjay.viz import diagram, outline

A, B, C, D = (Input(name, (Axis("model", 4),)) for name in "abcd")


@pytest.fixture(scope="module")
def model() -> Any:
    return sj.load(families.build("gpt2", 0), cache=None)


@pytest.mark.parametrize(
    "ask",
    [
        show, dot, write, diagram, outline, marking, to_text, fingerprint, split_heads, expand_residual, fold_norms, simplify, sj.draw,
        lambda m: diff(m, m), lambda m: diff(m.circuit, m), lambda m: path_terms(m, "logits"), lambda m: rewrite(m, ()),
        lambda m: show(m, focus="L0.mlp.out"),
    ],
)  # fmt: skip
def test_a_model_for_a_circuit_is_told(model: Any, ask: Any):
    with pytest.raises(
        CircuitError, match=r"this is a Model, and a circuit was asked for: give its own, model\.circuit"
    ):
        ask(model)
    with pytest.raises(CircuitError, match="a circuit was asked for"):
        show(None)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("ask", [show, dot, diagram, outline, sj.draw])
def test_a_head_is_a_part_of_a_node(model: Any, ask: Any):
    for focus, whole in (("L1.H2.z", "L1.attn.z"), ("L1.H2.out", "L1.attn.out"), ("L1.N3", "L1.mlp.post")):
        with pytest.raises(AddressError, match=f"{focus}.*a part of the node {whole}.*split it off"):
            ask(model.circuit, focus)
    with pytest.raises(AddressError, match="no such place"):
        ask(model.circuit, "L1.mlp.outt")


@pytest.mark.parametrize("ask", [show, dot, diagram, outline, sj.draw])
@pytest.mark.parametrize("depth", ["x", -1, 1.5, True])
def test_a_depth_is_a_number_of_steps(model: Any, ask: Any, depth: Any):
    with pytest.raises(CircuitError, match="a depth is a number of steps"):
        ask(model.circuit, "L0.mlp.out", depth)


def test_a_difference_shows_the_one_term_an_intervention_added(model: Any):
    for change in (sj.add("L0.mlp.out", torch.ones(32)), sj.project_out("L0.mlp.out", torch.randn(32))):
        found = diff(model.circuit, sj.edit(model, change).circuit)
        (one,) = found.changed
        assert one.at == ("L0.mlp.out",)
        assert one.before == "…"
        assert one.after.startswith("… + ")
        assert not one.after.startswith("… + L0")
    found = diff(model.circuit, sj.edit(model, sj.project_out("L0.resid_pre", torch.randn(32))).circuit)
    assert [(one.at, one.before) for one in found.changed] == [(("L0.resid_pre",), "…")]


@pytest.mark.parametrize("kind", [Add, Multiply])
def test_sums_are_laid_side_by_side_by_common_terms(kind: Any):
    named = {each.name: each for each in (A, B, C, D)}

    def told(before: Any, after: Any) -> list[tuple[str, str]]:
        found = diff(Circuit({"y": before}, named), Circuit({"y": after}, named)).changed
        return [(one.before.split(",")[0], one.after.split(",")[0]) for one in found]

    sign = "+" if kind is Add else "*"
    assert told(kind((A, B)), kind((C, A, B))) == [("…", f"… {sign} c")]
    assert told(kind((A, B, C)), kind((C, A))) == [(f"… {sign} b", "…")]
    assert told(A, kind((B, A))) == [("…", f"… {sign} b")]
    assert told(kind((A, B)), kind((kind((A, B)), C))) == [("…", f"… {sign} c")]
    assert told(kind((kind((A, B)), C)), kind((A, B))) == [(f"… {sign} c", "…")]
    assert told(kind((A, Map("sin", (B,)))), kind((Map("sin", (C,)), A))) == [("input(b", "input(c")]
    assert told(kind((A, B)), kind((B, A))) == [(f"a {sign} b", f"b {sign} a")]
    assert told(kind((A, A, B)), kind((A, B, B))) == [("input(a", "input(b")]
    assert sorted(told(kind((A, B)), kind((C, D)))) == [("input(a", "input(c"), ("input(b", "input(d")]


def test_weights_are_compared_by_name_until_stores_are_given(model: Any):
    other = sj.load(families.build("gpt2", 1), cache=None)
    one = diff(model.circuit, other.circuit)
    assert not one
    assert str(one) == "no difference (weights were compared by name: give stores= to compare values)"
    found = diff(model.circuit, other.circuit, stores=(model.stores, other.stores))
    assert found
    assert "transformer.wte.weight" in found.revalued
    assert "weights of other values: " in str(found)
    assert found.to_dict()["revalued"] == list(found.revalued)
    same = diff(model.circuit, model.circuit, stores=(model.stores, model.stores))
    assert not same
    assert str(same) == "no difference"
