"""Terms of a reader: names that are unique and canonical, masks of choices, and what is refused with a reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import families
import scrubjay as sj
from scrubjay.capture.model import Model
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add
from scrubjay.circuit.rules import FACTOR_OV, expand_residual, explain, fold_norms, path_terms, rewrite, split_heads
from scrubjay.engine import evaluate
from scrubjay.errors import AddressError, CircuitError
from small_models import batch, captured


def values(model: Model, nodes: list[Node], given: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    inputs = {name: value for name, value in given.items() if name in model.circuit.inputs}
    made = evaluate(nodes, inputs, model.stores, dtype=torch.float64)
    return [made[node].dense([axis.name for axis in node.axes]).detach() for node in nodes]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def usual(request: pytest.FixtureRequest) -> Model:
    """A model loaded with no word on how its attention is computed."""
    torch.manual_seed(0)
    if request.param == "gpt2":
        module = GPT2LMHeadModel(GPT2Config(vocab_size=101, n_layer=2, n_head=2, n_embd=16, n_positions=32))
    else:
        module = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=101,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                hidden_size=16,
                intermediate_size=24,
            )
        )
    return sj.load(module.eval(), cache=None).exact()


def test_scores_of_a_model_as_it_is_loaded_are_terms_of_pairs_and_a_mask(usual: Model) -> None:
    given = batch(2, 6, padding="left")
    terms = path_terms(usual.circuit, "L1.H1.scores", depth=1)
    assert len({term.name for term in terms}) == len(terms)
    assert [term.name for term in terms if len(term.routes) == 1][-1:] == ["mask -> L1.H1.scores"]
    (pattern,) = (sj.run(usual, given, keep=["L1.H1.pattern"])["L1.H1.pattern"],)
    (found,) = values(usual, [Add(tuple(term.node for term in terms))], given)
    real = given["attention_mask"].bool()
    wanted = torch.as_tensor(pattern.as_tensor()).double().detach()
    torch.testing.assert_close(torch.softmax(found, -1)[real], wanted[real], rtol=0, atol=1e-9)
    # before the mask nothing is left out
    (pairs,) = values(usual, [Add(tuple(term.node for term in terms if len(term.routes) == 2))], given)
    assert torch.isfinite(pairs).all()
    assert not torch.isfinite(found).all()


@pytest.mark.parametrize("kind", ["t5", "gemma2"])
def test_names_of_terms_are_unique_and_canonical(kind: str) -> None:
    model = sj.load(families.build(kind, 0), name=kind, cache=None).exact()
    terms = path_terms(model.circuit, "L1.H1.q", depth=1)
    names = [term.name for term in terms]
    assert len(set(names)) == len(names)
    assert "L0.mlp.out -> L1.H1.q" in names
    assert not any("?" in name or "model." in name or "encoder" in name for name in names)
    assert ("L0.cross.out -> L1.H1.q" in names) == (kind == "t5")
    given = families.batch(families.build(kind, 0), 2, 6)
    model_q = sj.run(model, given, keep=["L1.H1.q"])["L1.H1.q"]
    (found,) = values(model, [Add(tuple(term.node for term in terms))], given)
    torch.testing.assert_close(found, torch.as_tensor(model_q.as_tensor()).double().detach(), rtol=1e-8, atol=1e-8)
    if kind == "gemma2":  # a norm that multiplies by 1 + w is folded too
        folded = replace(model, circuit=fold_norms(model.circuit))
        torch.testing.assert_close(sj.run(folded, given).logits, sj.run(model, given).logits, rtol=0, atol=1e-9)


def test_places_are_given_by_address_and_through_a_bias() -> None:
    circuit = captured("gpt2")[1].exact().circuit
    by_address = rewrite(circuit, FACTOR_OV, where="L1.attn.o")
    assert explain(by_address).endswith("factor_ov x1")
    assert rewrite(circuit, FACTOR_OV, where=[circuit.node("L1.attn.o")]).roots == by_address.roots
    with pytest.raises(AddressError, match=r"L9\.attn\.o"):
        rewrite(circuit, FACTOR_OV, where=["L9.attn.o"])


def test_what_cannot_be_done_says_why() -> None:
    model = captured("llama")[1]
    with pytest.raises(CircuitError, match="number from 0 on"):
        path_terms(model.circuit, "logits", depth=-1)
    with pytest.raises(CircuitError, match=r"model\.exact\(\)\.circuit"):
        expand_residual(model.circuit)
    with pytest.raises(CircuitError, match="no heads, or they are split"):
        split_heads(split_heads(model.circuit))
    with pytest.raises(CircuitError, match="folded already"):
        fold_norms(fold_norms(model.exact().circuit))


def test_sweeps_and_changes_are_refused_where_readers_go_around() -> None:
    model = captured("gpt2")[1].exact()
    around = replace(model, circuit=expand_residual(model.circuit))
    given = batch(1, 5)
    with pytest.raises(AddressError, match="by_source"):
        sj.run(around, given, interventions=[sj.zero("L0.mlp.out")])
    with pytest.raises(AddressError, match="by_source"):
        sj.edit(around, sj.zero("L1.resid_pre"))
    assert sj.run(around, given, keep=["L0.mlp.out"])["L0.mlp.out"].names == (
        "batch",
        "query",
        "model",
    )  # read it may be
    again = sj.edit(around, sj.zero("L0.H1.out"))
    assert again.circuit.is_bypassed("L0.mlp.out")
    assert "readers go around" in str(around.circuit)
