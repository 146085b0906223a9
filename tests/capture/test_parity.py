"""A captured model computes what its torch module computes, and wrong ones are told apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import scrubjay as sj
from scrubjay.capture.model import Model
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import above, rebuild, substitute
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Along, Constant, Einsum, Map, Multiply, Opaque, Weight
from small_models import (
    EPSILON,
    HIDDEN,
    KINDS,
    LAYERS,
    WIDTH,
    Widened,
    batch,
    build,
    captured,
    load,
    logits_of,
    spots,
    values,
    wide,
)

TOLERANCE = {"float32": 1e-5, "float64": 1e-10, "bfloat16": 0.1}
"""The greatest difference of a logit, in units of the logits' standard deviation."""

every_kind = pytest.mark.parametrize("kind", KINDS)
every_attention = pytest.mark.parametrize("attention", ["eager", "sdpa"])

# The capture's own example has 2 rows of 12 places and no padding.
BATCHES = {
    "other sizes": (5, 23, "none"),
    "one row": (1, 9, "none"),
    "length one": (4, 1, "none"),
    "one row of length one": (1, 1, "none"),
    "left padding": (3, 17, "left"),
    "right padding": (3, 17, "right"),
    "padding on both sides": (3, 17, "both"),
    "one padded row": (1, 12, "left"),
    "the whole context": (2, 64, "right"),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def distance(got: Tensor, expected: Tensor, mask: Tensor) -> float:
    """Return the greatest difference on real rows, in units of the expected values' standard deviation there."""
    real = mask.bool() & torch.isfinite(expected).all(-1)  # in 64 bits, a llama's own padded rows are NaN
    assert real.any()
    assert torch.isfinite(got[real]).all()
    return float((got - expected)[real].abs().max() / expected[real].std())


def error(module: Any, model: Model, inputs: dict[str, Tensor], dtype: str) -> float:
    """Return how far a model is from the module: as they are, or its exact form from a module that never narrows."""
    mask = inputs["attention_mask"]
    if dtype == "float64":
        with Widened():
            expected = logits_of(wide(module), inputs)
        return distance(sj.run(model.exact(), inputs).logits, expected, mask)
    expected = logits_of(module, inputs)
    found = sj.run(model, inputs).logits
    assert found.dtype == expected.dtype
    return distance(found.float(), expected.float(), mask)


@every_kind
def test_the_weights_are_drawn_so_that_errors_show(kind):
    module, _ = captured(kind)
    wanted = {name: spot for name, spot in spots(kind, module).items() if name.endswith("mlp.pre")}
    found = values(module, wanted, batch())
    assert len(found) == LAYERS
    assert all(pre.shape[-1] == HIDDEN and 0.3 <= float(pre.std()) <= 3 for pre in found.values())
    assert 0.3 <= float(logits_of(module, batch()).std()) <= 3


@pytest.mark.parametrize("sizes", BATCHES.values(), ids=BATCHES)
@every_attention
@every_kind
def test_logits_are_the_modules(kind, attention, sizes):
    module, model = captured(kind, attention)
    rows, length, padding = sizes
    inputs = batch(rows, length, padding)
    assert error(module, model, inputs, "float32") <= TOLERANCE["float32"]
    assert error(module, model, inputs, "float64") <= TOLERANCE["float64"]


@every_kind
def test_logits_are_the_modules_in_bfloat16(kind):
    module = build(kind).to(torch.bfloat16)
    model = load(module)
    assert error(module, model, batch(), "bfloat16") <= TOLERANCE["bfloat16"]


def test_a_module_in_64_bits_is_captured_as_it_is():
    """With the casts to float32 that a llama's own code writes out, and the same casts in the circuit."""
    module = build("llama").double()
    model = load(module)
    assert error(module, model, batch(padding="right"), "as it is") <= 1e-6


@every_attention
@every_kind
def test_nothing_is_opaque_and_nothing_is_left_unnamed(kind, attention):
    _, model = captured(kind, attention)
    assert not [node for node in model.circuit.nodes if isinstance(node, Opaque)]
    assert model.anatomy.notes == ()
    assert model.layers == LAYERS


@every_kind
def test_positions_follow_from_the_padding_mask(kind):
    """Given ids and mask alone, real positions are filled in: those that count real tokens."""
    module, model = captured(kind)
    inputs = batch()
    logits = sj.run(model, {key: inputs[key] for key in ("input_ids", "attention_mask")}).logits
    assert distance(logits, logits_of(module, inputs), inputs["attention_mask"]) <= TOLERANCE["float32"]


@every_kind
def test_what_padding_holds_does_not_matter(kind):
    _, model = captured(kind)
    inputs = batch()
    real = inputs["attention_mask"].bool()
    other = {**inputs, "input_ids": torch.where(real, inputs["input_ids"], 7)}
    assert torch.equal(sj.run(model, inputs).logits[real], sj.run(model, other).logits[real])


# --- the module is left alone, and its weights are shared ---


@every_kind
def test_the_module_is_not_changed(kind):
    module = build(kind)
    before = {
        name: (tensor, tensor.clone(), tensor._version) for name, tensor in module.state_dict(keep_vars=True).items()
    }
    config, own = module.config.to_dict(), {name: set(vars(part)) for name, part in module.named_modules()}
    sj.run(sj.load(module, cache=None), batch())
    after = module.state_dict(keep_vars=True)
    assert after.keys() == before.keys()
    for name, (tensor, copy, version) in before.items():
        assert after[name] is tensor
        assert torch.equal(tensor, copy)
        assert tensor._version == version
        assert tensor.requires_grad == (name in dict(module.named_parameters(remove_duplicate=False)))
    assert module.config.to_dict() == config
    assert not any(part.training for part in module.modules())
    assert {name: set(vars(part)) for name, part in module.named_modules()} == own
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


@every_kind
def test_weights_are_shared_and_never_copied(kind):
    module, model = captured(kind)
    tensors = {tensor.data_ptr() for tensor in [*module.parameters(), *module.buffers()]}
    leaves = [node for node in model.circuit.nodes if isinstance(node, Weight)]
    assert leaves
    assert {model.stores[leaf.source].tensor(leaf.name).data_ptr() for leaf in leaves} <= tensors
    # a weight that is tied to another is one leaf
    assert len({model.stores[leaf.source].tensor(leaf.name).data_ptr() for leaf in leaves}) == len(leaves)


@every_kind
def test_a_change_of_a_weight_is_seen_by_the_next_run(kind):
    module = build(kind)
    model, inputs = load(module), batch()
    before, digest = sj.run(model, inputs).logits, model.digest
    with torch.no_grad():
        next(weight for name, weight in module.named_parameters() if "0." in name and weight.dim() == 2).mul_(1.5)
    assert distance(before, logits_of(module, inputs), inputs["attention_mask"]) > 0.01
    assert error(module, model, inputs, "float32") <= TOLERANCE["float32"]
    assert model.digest != digest


def test_a_capture_needs_no_weights():
    """A module on the meta device gives the same circuit as one that holds its weights."""
    with torch.device("meta"):
        empty = build_empty()
    _, model = captured("llama")
    assert {name: node.dims for name, node in sj.load(empty, cache=None).circuit.weights.items()} == {
        name: node.dims for name, node in model.circuit.weights.items()
    }


def build_empty() -> Any:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    module, _ = captured("llama")
    return AutoModelForCausalLM.from_config(module.config, attn_implementation="eager").eval()


# --- mutations: each of these small mistakes of a lifter must make the comparison fail ---


def everywhere(circuit: Circuit, site: str, change: Any) -> Circuit:
    """Return the circuit with `change(layer, node)` for the node at a site of every layer."""
    nodes = {circuit.table[f"L{layer}.{site}"]: layer for layer in range(LAYERS)}
    return circuit.rewrite({node: change(layer, node) for node, layer in nodes.items()}, "mutation")


def wrong_activation(kind: str, circuit: Circuit) -> Circuit:
    """GELU by the error function for GELU by tanh, and the other way round; SiLU's slope of a quick GELU."""
    op = {"gpt2": "gelu", "bert": "gelu_tanh", "llama": "quick_gelu"}[kind]
    changes: dict[Node, Node] = {}
    for layer in range(LAYERS):
        pre, post = circuit.table[f"L{layer}.mlp.pre"], circuit.table[f"L{layer}.mlp.post"]
        made = Map(op, (pre,))
        up = circuit.table.get(f"L{layer}.mlp.up")
        changes[post] = made if up is None else Multiply((made, up))
    return circuit.rewrite(changes, "wrong activation")


def tenfold_epsilon(_: str, circuit: Circuit) -> Circuit:
    changed: list[float] = []

    def change(node: Node, operands: tuple[Node, ...]) -> Node:
        if isinstance(node, Along) and node.op == "rms":  # layer norm: sqrt(mean(x^2) + epsilon)
            changed.append(float(node.parameters[0]))
            return Along("rms", operands[0], node.over, (changed[-1] * 10,))
        if isinstance(node, Map) and node.op == "rsqrt":  # RMS norm, written out
            (inside,) = operands
            (epsilon,) = (term for term in inside.operands if isinstance(term, Constant))
            changed.append(float(epsilon.value))
            return Map("rsqrt", (substitute([inside], {epsilon: Constant(changed[-1] * 10)})[inside],))
        return node.with_operands(operands)

    made = rebuild([*circuit.roots.values(), *circuit.table.values()], change)
    assert len(changed) > 2 * LAYERS
    assert changed == pytest.approx([EPSILON] * len(changed))
    return Circuit({name: made[node] for name, node in circuit.roots.items()})


def no_mask(_: str, circuit: Circuit) -> Circuit:
    """Scores without what is added to them or chosen for them by position."""

    def bare(layer: int, scores: Node) -> Node:
        q = circuit.table[f"L{layer}.attn.q"]
        while not isinstance(scores, Einsum | Multiply) and not (isinstance(scores, Map) and scores.op == "divide"):
            (scores,) = [item for item in scores.operands if item in above([item], [q])]
        return scores

    return everywhere(circuit, "attn.scores", bare)


def no_padding(_: str, circuit: Circuit) -> Circuit:
    """Padding taken for real tokens."""
    mask = circuit.inputs["attention_mask"]
    return circuit.rewrite({mask: Map("where", (Constant(value=True), Constant(1, "int64"), mask))}, "mask dropped")


def positions_off_by_one(_: str, circuit: Circuit) -> Circuit:
    """For a rotary embedding on the side of the queries alone: one that moves queries and keys together changes nothing."""
    place = circuit.inputs["position_ids"]
    moved: dict[Node, Node] = {place: Add((place, Constant(1)))}
    sites = [circuit.table[f"L{layer}.attn.q_rot"] for layer in range(LAYERS)]
    if sites[0] is circuit.table["L0.attn.q"]:
        return circuit.rewrite(moved, "positions off by one")
    still = {q: q for q in (circuit.table[f"L{layer}.attn.q"] for layer in range(LAYERS))}
    return circuit.rewrite({node: substitute([node], {**still, **moved})[node] for node in sites}, "rotary off by one")


def softmax_scale(_: str, circuit: Circuit) -> Circuit:
    """Scores divided by the square root of the width and not of one head's."""
    factor = (8 / WIDTH) ** 0.5
    return everywhere(circuit, "attn.q_rot", lambda _layer, q: Multiply((q, Constant(factor))))


def softmax_scale_slightly(_: str, circuit: Circuit) -> Circuit:
    return everywhere(circuit, "attn.q_rot", lambda _layer, q: Multiply((q, Constant(1.001))))


MUTATIONS = {
    change.__name__: change
    for change in (
        wrong_activation,
        tenfold_epsilon,
        no_mask,
        no_padding,
        positions_off_by_one,
        softmax_scale,
        softmax_scale_slightly,
    )
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mutation", MUTATIONS)
@every_kind
def test_each_mutation_makes_the_comparison_fail(kind, mutation, dtype):
    module, model = captured(kind)
    inputs = batch()
    assert error(module, model, inputs, dtype) <= TOLERANCE[dtype]
    mutant = replace(model, circuit=MUTATIONS[mutation](kind, model.circuit))
    assert error(module, mutant, inputs, dtype) > TOLERANCE[dtype]
