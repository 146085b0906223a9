"""The difference of two circuits: what changed, where, and nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

import scrubjay as sj
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Constant, Input, Map, Multiply, Weight
from scrubjay.circuit.printing import Change, Difference, diff
from scrubjay.circuit.rules.places import split_heads
from scrubjay.circuit.rules.rewriting import rewrite
from scrubjay.circuit.rules.simplify import simplify
from scrubjay.errors import CircuitError
from scrubjay.testing.circuits import Example, circuits
from small_models import KINDS, LAYERS, captured

MODEL = Axis("model", 4)
X, Y = Input("x", (MODEL,)), Input("y", (MODEL,))


def layered(layers: int = 12, *, source: str = "model", op: str = "relu", odd: int | None = None) -> Circuit:
    table: dict[str, Node] = {"in.x": X}
    stream: Node = X
    for layer in range(layers):
        weight = Weight(source, f"h.{layer}.up", ((MODEL,),))
        here = "tanh" if layer == odd else op
        table[f"L{layer}.mlp.out"] = Map(here, (Multiply((stream, weight)),))
        table[f"L{layer}.resid_post"] = stream = Add((stream, table[f"L{layer}.mlp.out"]))
    return Circuit({"output": stream}, table)


def test_an_ablation_is_exactly_that() -> None:
    model = captured("gpt2")[1]
    found = diff(model.circuit, sj.edit(model, sj.zero("L1.mlp.out")).circuit)
    assert [one.at for one in found.changed] == [("L1.mlp.out",)]
    assert found.changed[0].before.startswith("einsum(")
    assert "constant(0.0" in found.changed[0].after
    assert found.rewrites == ("<zero L1.mlp.out>",)
    assert "L1.mlp.post" in found.cut_off
    assert "logits" in found.depends
    assert not [name for name in found.depends if name.startswith("L0")]
    assert not any([found.undone, found.rebound, found.appeared, found.vanished, found.inputs_added])


@pytest.mark.parametrize("kind", KINDS)
def test_an_equality_shows_where_it_was_applied(kind: str) -> None:
    circuit = captured(kind)[1].circuit
    found = diff(circuit, split_heads(circuit))
    assert [one.at for one in found.changed] == [tuple(f"L{layer}.attn.out" for layer in range(LAYERS))]
    assert str(found).startswith("rewritten: equality: split_places")
    assert "L0..1.attn.out   (as at L0.attn.out)\n  - einsum(" in str(found)
    back = diff(split_heads(circuit), circuit)
    assert back.undone == found.rewrites
    assert back.changed == (Change(found.changed[0].at, found.changed[0].after, found.changed[0].before),)


@given(circuits())
def test_a_circuit_does_not_differ_from_itself(example: Example) -> None:
    circuit = example.circuit
    again = Circuit(dict(circuit.roots), dict(circuit.table), dict(circuit.removed), circuit.history)
    assert diff(circuit, again) == Difference()
    assert str(diff(circuit, again)).startswith("no difference")


@given(circuits(), circuits())
def test_circuits_that_differ_are_told_apart(one: Example, two: Example) -> None:
    a, b = one.circuit, two.circuit
    found = diff(a, b)
    if a.roots != b.roots:
        assert found.changed or found.rebound
    if a.table != b.table:
        assert found
    json.dumps(found.to_dict(), allow_nan=False)
    assert str(found).startswith("no difference") == (not found)


@given(circuits())
def test_a_rewritten_circuit_differs_at_least_in_its_history(example: Example) -> None:
    try:
        made = simplify(example.circuit)
    except CircuitError:
        return
    assert bool(diff(example.circuit, made)) == (made.history != example.circuit.history)


def test_layers_alike_are_told_once() -> None:
    found = diff(layered(), layered(op="gelu"))
    assert str(found).split("\nother values")[0] == (
        "L0.mlp.out\n  - relu(in.x * h.0.up)\n  + gelu(in.x * h.0.up)\n"
        "L1..11.mlp.out   (as at L1.mlp.out)\n  - relu(L0.resid_post * h.1.up)\n  + gelu(L0.resid_post * h.1.up)"
    )
    assert found.depends == tuple(f"L{layer}.resid_post" for layer in range(12))


def test_layers_with_longer_numbers_are_alike_too() -> None:
    """The texts are cut to a length, at another place where a layer's number has two digits."""
    many = tuple(Constant(place / 7) for place in range(40))

    def wide(*, split: bool) -> Circuit:
        table = dict(layered().table)
        for layer in range(12):
            stream = table[f"L{layer}.resid_post"]
            terms = Add(tuple(Map("relu", (Multiply((stream, one)),)) for one in many))
            table[f"L{layer}.mlp.post"] = terms if split else Map("relu", (stream,))
        return Circuit({"output": table["L11.mlp.post"]}, table)

    found = diff(wide(split=False), wide(split=True))
    assert [one.at for one in found.changed] == [tuple(f"L{layer}.mlp.post" for layer in range(12))]
    assert max(map(len, (found.changed[0].before, found.changed[0].after))) < 250


def test_a_layer_that_differs_is_told_apart() -> None:
    found = diff(layered(), layered(op="gelu", odd=5))
    assert "L1..4.mlp.out, L6..11.mlp.out   (as" in str(found)
    assert "L5.mlp.out\n  - relu(L4.resid_post * h.5.up)\n  + tanh(" in str(found)


def test_swapped_results() -> None:
    one, two = Map("relu", (X,)), Map("tanh", (X,))
    found = diff(Circuit({"a": one, "b": two}), Circuit({"a": two, "b": one}))
    assert str(found) == "a\n  - relu(x)\n  + tanh(x)\nb\n  - tanh(x)\n  + relu(x)"


def test_weights_that_are_found_elsewhere() -> None:
    found = diff(layered(), layered(source="sha256:12"))
    assert not found.changed
    assert [name for name, _, _ in found.rebound] == [f"h.{layer}.up" for layer in range(12)]
    assert "weights rebound: h.0.up, h.1.up, h.2.up, h.3.up, h.4.up and 7 more\n  - model\n  + sha256:12" in str(found)


def test_inputs_addresses_and_terms() -> None:
    old = Circuit({"output": Add((X, Constant(1.0)))}, {"in.x": X, "old": X, "_note": X})
    new = Circuit({"output": Add((X, Y, Constant(1.0)))}, {"in.x": X, "in.y": Y, "_note": Y})
    assert str(diff(old, new)) == (
        "output\n  - …\n  + … + in.y\ninputs added: y\nappeared: in.y\nvanished: old\nnotes of the recognisers that differ: 1"
    )
    assert diff(new, old).inputs_removed == ("y",)


def test_numbers_of_another_type_differ() -> None:
    assert diff(Circuit({"output": Add((X, Constant(1)))}), Circuit({"output": Add((X, Constant(1.0)))})).changed
    old, new = (Circuit({"o": Map("leaky_relu", (X,), (one,))}) for one in (1, True))
    assert diff(old, new).changed


def test_a_difference_deep_in_a_long_chain_is_found_without_recursion() -> None:
    def chain(first: Node) -> Circuit:
        for _ in range(20_000):
            first = Map("relu", (first,))
        return Circuit({"output": first})

    found = diff(chain(X), chain(Y))
    assert [(one.at, one.before, one.after) for one in found.changed] == [
        (("output",), "input(x, dims=[model=4])", "input(y, dims=[model=4])")
    ]


def test_a_rewrite_by_hand_in_a_history() -> None:
    circuit = layered(2)
    same = rewrite(circuit, [])
    assert not diff(circuit, same)
    named = circuit.rewrite({}, "looked at")
    assert str(diff(circuit, named)) == "rewritten: looked at"
    assert str(diff(named, circuit)) == "not rewritten: looked at"
