"""A circuit as a torch module: the captured module's results and gradients, by its own names, edited and rewritten or not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scrubjay as sj
from scrubjay.capture.model import Model
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.ops import Add, Einsum, Input, Weight
from scrubjay.circuit.rules import expand_residual, fold_norms, split_heads
from scrubjay.engine.context import Payload
from scrubjay.engine.module import CircuitModule, to_module
from scrubjay.errors import EvaluationError, InputError, LoadError
from small_models import HEADS, KINDS, WIDTH, batch, build, load

every_kind = pytest.mark.parametrize("kind", KINDS)


def pair(kind: str, dtype: torch.dtype = torch.float64) -> tuple[Any, Model, dict[str, Tensor]]:
    module = build(kind).to(dtype)
    return module, load(module, name=kind), batch(3, 9, padding="right")


def logits(module: Any, inputs: dict[str, Tensor]) -> Tensor:
    return module(**inputs, return_dict=True).logits


def gradients(module: nn.Module, result: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """The slopes of a fixed mixture of logits, by the names of parameters."""
    module.zero_grad()
    (result * weights).sum().backward()
    return {name: weight.grad.clone() for name, weight in module.named_parameters() if weight.grad is not None}


def mixture(result: Tensor) -> Tensor:
    return torch.randn(result.shape, generator=torch.Generator().manual_seed(1), dtype=result.dtype)


def close(one: Tensor, two: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance)


@every_kind
def test_results_and_gradients_are_the_modules_own(kind: str) -> None:
    module, model, inputs = pair(kind)
    made = model.to_module()
    assert {name for name, _ in made.named_parameters()} == {name for name, _ in module.named_parameters()}
    theirs, ours = logits(module, inputs), made(**inputs)
    close(ours, theirs)
    want = gradients(module, theirs, mixture(theirs))
    found = gradients(made, ours, mixture(theirs))
    assert found.keys() == want.keys()
    for name, slope in want.items():
        close(found[name], slope)
    close(made(*(inputs[name] for name in made.input_names)), theirs)


@every_kind
def test_steps_of_training_are_the_modules_own(kind: str) -> None:
    module, model, inputs = pair(kind)
    before = {name: weight.detach().clone() for name, weight in module.named_parameters()}
    made = model.to_module()
    labels = inputs["input_ids"].roll(-1, 1)
    for each in (module, made):
        steps = torch.optim.SGD(each.parameters(), lr=0.1)
        for _ in range(3):
            steps.zero_grad()
            result = logits(each, inputs) if each is module else each(**inputs)
            nn.functional.cross_entropy(result.flatten(0, 1), labels.flatten()).backward()
            steps.step()
    trained = dict(made.named_parameters())
    for name, weight in module.named_parameters():
        close(trained[name].detach(), weight.detach())
    moved = max(float((weight.detach() - before[name]).abs().max()) for name, weight in module.named_parameters())
    assert moved > 1e-3


@every_kind
def test_rewritten_circuits_have_the_same_gradients(kind: str) -> None:
    module, model, inputs = pair(kind)
    theirs = logits(module, inputs)
    want = gradients(module, theirs, mixture(theirs))
    circuits = [split_heads(model.circuit), fold_norms(model.circuit)]
    if kind != "llama":  # whose stream is read through products with the norms' weights only
        circuits.append(expand_residual(model.circuit))
    for circuit in circuits:
        made = to_module(circuit, model.stores, inputs=model.arguments)
        assert len(circuit.nodes) != len(model.circuit.nodes)
        ours = made(**inputs)
        close(ours, theirs)
        found = gradients(made, ours, mixture(theirs))
        assert found.keys() == want.keys()
        for name, slope in want.items():
            close(found[name], slope, 1e-9)


@every_kind
def test_a_head_that_was_taken_out_has_no_gradient(kind: str) -> None:
    module, model, inputs = pair(kind)
    edited = sj.edit(model, sj.zero("L1.H2.z"))
    made = edited.to_module()
    ours = made(**inputs)
    close(ours.detach(), sj.run(edited, inputs).logits)
    found = gradients(made, ours, mixture(ours))
    size = WIDTH // HEADS
    values = slice(2 * WIDTH, 3 * WIDTH) if kind == "gpt2" else slice(0, WIDTH)
    name = {
        "gpt2": "transformer.h.1.attn.c_attn.weight",
        "llama": "model.layers.1.self_attn.q_proj.weight",
        "bert": "bert.encoder.layer.1.attention.self.value.weight",
    }[kind]
    heads = (found[name].T if kind == "gpt2" else found[name])[values].unflatten(0, (HEADS, size))
    still = [bool(head.abs().max() == 0) for head in heads]
    assert still == [False, False, True, False]
    out = {"gpt2": "c_proj.weight", "llama": "o_proj.weight", "bert": "attention.output.dense.weight"}[kind]
    whole = next(slope for name, slope in found.items() if name.endswith(out) and ".1." in name)
    columns = (whole if kind == "gpt2" else whole.T).unflatten(0, (HEADS, size))
    assert [bool(head.abs().max() == 0) for head in columns] == still
    assert len(found) == len(list(module.parameters()))


@every_kind
def test_the_module_is_captured_again(kind: str) -> None:
    module, model, inputs = pair(kind)
    made = model.to_module().eval()
    again = load(made, inputs=inputs, dynamic=dict.fromkeys(inputs, ("batch", "query")))
    assert again.verdict is not None
    assert again.verdict.exact is True
    other = batch(2, 13, padding="right", seed=4)
    close(sj.run(again, other).output, logits(module, other).detach())
    close(again.to_module()(**other), logits(module, other))
    assert {name for name, _ in again.to_module().named_parameters()} == {name for name, _ in module.named_parameters()}


@every_kind
def test_torch_exports_it(kind: str) -> None:
    _, model, inputs = pair(kind, torch.float32)
    made = model.to_module().eval()
    tensors = tuple(inputs[name] for name in made.input_names)
    program = torch.export.export(made, tensors, strict=False)
    close(program.module()(*tensors), made(*tensors), 1e-6)


def test_copies_are_apart_and_shared_weights_are_not() -> None:
    module, model, inputs = pair("gpt2")
    copied, shared = model.to_module(), model.to_module(share=True)
    before = logits(module, inputs).detach()
    twin = copy.deepcopy(copied)
    with torch.no_grad():
        for weight in copied.parameters():
            weight.mul_(2)
    close(logits(module, inputs), before)
    close(twin(**inputs), before)
    doubled = sj.run(model.with_weights(copied), inputs).logits
    close(doubled, copied(**inputs).detach())
    assert float((doubled - before).abs().max()) > 1e-2
    with torch.no_grad():
        for weight in shared.parameters():
            weight.mul_(1.25)
    after = logits(module, inputs).detach()
    assert float((after - before).abs().max()) > 1e-2
    close(sj.run(model, inputs).logits, after)
    with pytest.raises(
        InputError, match=r"share=True: weight .* is torch.float64 on cpu and was asked for as torch.float32"
    ):
        load(module, dtype="float32").to_module(share=True)


def test_state_dict_fits_the_module_and_back() -> None:
    _, model, inputs = pair("llama")
    made = model.to_module()
    other = build("llama", seed=5).double()
    own = other.state_dict() | {name: value for name, value in made.state_dict().items() if "inv_freq" in name}
    made.load_state_dict(own)
    close(made(**inputs), logits(other, inputs))
    assert dict(made.named_buffers()).keys() == {"model.rotary_emb.inv_freq"}


def test_type_and_moves() -> None:
    _, model, inputs = pair("llama", torch.float32)
    made = model.to_module()
    assert made.dtype == torch.float32
    assert made(**inputs).dtype == torch.float32
    turns = made.get_buffer("model.rotary_emb.inv_freq").clone()
    half = copy.deepcopy(made).to(torch.bfloat16).to(torch.float64)
    assert half.dtype == torch.float64
    assert half(**inputs).dtype == torch.float64
    assert torch.equal(
        half.get_buffer("model.rotary_emb.inv_freq"), turns
    )  # of a type of its own: kept to the last bit
    wide = load(build("llama"), dtype="float64")
    assert {weight.dtype for weight in wide.to_module().parameters()} == {torch.float64}
    close(wide.to_module()(**inputs), sj.run(wide, inputs).logits)
    assert made.train().training
    assert torch.equal(made(**inputs), made.eval()(**inputs))
    assert made.to("meta").get_parameter("model.norm.weight").is_meta


def test_interventions_with_tensors_and_functions() -> None:
    _, model, inputs = pair("bert")
    edited = sj.edit(model, sj.replace("L0.mlp.out", torch.arange(float(WIDTH))), sj.apply("L1.attn.out", torch.tanh))
    made = edited.to_module()
    assert [name for name, _ in made.named_buffers() if name.startswith("interventions.")] == ["interventions.0.t0"]
    ours = made(**inputs)
    close(ours.detach(), sj.run(edited, inputs).logits)
    assert "bert.encoder.layer.0.output.dense.weight" not in dict(made.named_parameters())


def leaf(name: str, source: str = "model") -> Weight:
    return Weight(source, name, ((Axis("o", 2),), (Axis("i", 3),)))


def test_names_that_torch_takes_for_itself() -> None:
    x = Input("x", (Axis("i", 3),))
    names = ["type", "to.forward", "a", "a.b", "circuit.weight", "interventions.0.a", "..", "../up", "parameters.0"]
    leaves = [*(leaf(name) for name in names), leaf("a", "other")]
    store = Payload({name: torch.full((2, 3), float(place)) for place, name in enumerate(names, start=1)}, {})
    circuit = Circuit({"output": Add(tuple(Einsum((x, one), ("i",)) for one in leaves))})
    made = to_module(circuit, {"model": store, "other": Payload({"a": torch.full((2, 3), 100.0)}, {})})
    assert len(made.state_dict()) == len(leaves)
    assert made(x=torch.ones(3)).tolist() == [3 * (100 + sum(range(10)))] * 2
    assert set(made.weight_names.values()) == {(one.source, one.name) for one in leaves}
    again = to_module(circuit, {"model": store, "other": Payload({"a": torch.zeros(2, 3)}, {})})
    again.load_state_dict(made.state_dict())
    assert torch.equal(again(x=torch.ones(3)), made(x=torch.ones(3)))


def test_several_results_come_by_name() -> None:
    x = Input("x", (Axis("i", 3),))
    both = Circuit({"one": Einsum((x, leaf("w")), ("i",)), "two": x})
    found = to_module(both, {"model": Payload({"w": torch.ones(2, 3)}, {})})(torch.ones(3))
    assert found["one"].tolist() == [3, 3]
    assert found["two"].tolist() == [1, 1, 1]


def test_what_does_not_fit_is_refused() -> None:
    _, model, inputs = pair("gpt2")
    made = model.to_module()
    ids = inputs["input_ids"]
    with pytest.raises(EvaluationError, match="reads an input"):
        made(ids)
    with pytest.raises(InputError, match="has no input inputs_ids; it has input_ids"):
        made(inputs_ids=ids)
    with pytest.raises(InputError, match="input_ids was given twice"):
        made(ids, input_ids=ids)
    with pytest.raises(InputError, match="4 inputs were given, and the circuit has 3"):
        made(ids, ids, ids, ids)
    with pytest.raises(InputError, match="stores given are none"):
        to_module(model.circuit, {})
    with pytest.raises(InputError, match="was not made by to_module of this model"):
        sj.edit(model, sj.zero("L0.H0.z")).with_weights(made)
    empty = load(build("gpt2"))
    torch.nn.init.constant_(empty.origin.module.transformer.ln_f.weight, float("nan"))  # type: ignore[union-attr]
    with pytest.raises(LoadError, match="not finite"):
        empty.to_module()


def test_it_says_what_it_is() -> None:
    made = pair("gpt2")[1].to_module()
    assert isinstance(made, CircuitModule)
    assert "input_ids, attention_mask, position_ids -> logits" in repr(made)
