"""Explanations: the weights they name are the ones that make a value, and what they say of a family is what it is."""

from __future__ import annotations

import copy
import functools
import json
import re

import pytest
import torch
from torch import nn

import families
import scrubjay as sj
from scrubjay.capture.model import Model
from scrubjay.errors import AddressError
from small_models import FOLDER, batch, build, captured


@functools.cache
def model_of(kind: str) -> Model:
    """Return a small random model of a family."""
    return sj.load(families.build(kind), name=kind, cache=FOLDER.name)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
@pytest.mark.parametrize("address", ["L1.H2.q", "L1.H2.k", "L0.KV1.v", "L1.attn.k", "L1.H3.out", "L0.mlp.pre"])
def test_without_the_weights_named_the_value_is_zero(kind: str, address: str) -> None:
    module = copy.deepcopy(captured(kind)[0])
    model = sj.load(module, cache=FOLDER.name)
    inputs = batch(rows=2, length=6)
    before = sj.run(model, inputs, keep=[address])[address].as_tensor()
    for text in model.explain(address)["weights"].splitlines():
        _clear(module, text)
    after = sj.run(model, inputs, keep=[address])[address].as_tensor()
    assert before.abs().max() > 0.1
    assert after.abs().max() == 0


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_weights_of_one_head_are_no_other_heads(kind: str) -> None:
    module = copy.deepcopy(captured(kind)[0])
    model = sj.load(module, cache=FOLDER.name)
    inputs, heads = batch(rows=2, length=6), ["L1.H0.q", "L1.H1.q", "L1.H3.q", "L1.attn.k", "L1.attn.v"]
    before = sj.run(model, inputs, keep=heads)
    for text in model.explain("L1.H2.q")["weights"].splitlines():
        _clear(module, text)
    after = sj.run(model, inputs, keep=heads)
    assert all(torch.equal(before[head].as_tensor(), after[head].as_tensor()) for head in heads)


def _clear(module: nn.Module, text: str) -> None:
    """Set the stretch of a weight that a text names to zero."""
    found = re.fullmatch(r"([\w.]+)(?:\[(.*)\])?", text)
    assert found, text
    places = tuple(
        slice(None) if place == ":" else slice(*map(int, place.split(":"))) for place in (found[2] or ":").split(", ")
    )
    with torch.no_grad():
        module.get_parameter(found[1])[places] = 0


def test_a_neuron_has_weights_in_and_out() -> None:
    _, model = captured("llama")
    assert model.explain("L1.N7")["weights"].splitlines() == [
        "in: model.layers.1.mlp.gate_proj.weight[7, :]",
        "in: model.layers.1.mlp.up_proj.weight[7, :]",
        "out: model.layers.1.mlp.down_proj.weight[:, 7]",
    ]


def test_neighbours() -> None:
    _, model = captured("gpt2")
    said = model.explain("L1.H2.q")
    assert said["reads"] == "L1.ln1.normalized"
    assert said["read by"] == "L1.H2.scores"
    assert set(model.explain("L1.resid_mid")["reads"].split(", ")) == {"L0.resid_post", "L1.attn.out"}
    assert model.explain("L1.H2.out")["read by"] == "L1.attn.o"
    assert model.explain("L1.H2.k_in")["read by"] == "L1.H2.k, and by nothing else"
    _, grouped = captured("llama")
    assert grouped.explain("L1.KV1.v")["read by"] == "L1.H2..3.z"
    assert "copy of L1.KV1.k, which H2..H3 share" in grouped.explain("L1.H3.k")["also"]


USUAL = "L1.H2.k", "L1.attn.scores", "L1.mlp.post", "L1.attn.out", "L1.resid_post", "L0.resid_pre"


def test_nothing_is_unusual_about_gpt2() -> None:
    _, model = captured("gpt2")
    assert [model.explain(address)["here"] for address in USUAL] == [""] * len(USUAL)


@pytest.mark.parametrize(
    ("kind", "address", "words"),
    [
        ("gpt2", "logits", "own table (tied)"),
        ("llama", "L1.H3.k", "4 query heads share 2 key-value heads"),
        ("llama", "L1.H3.q", "rotary embedding of all places of each head (the two halves turn against each other)"),
        ("llama", "L1.mlp.post", "silu(mlp.gate) * mlp.up"),
        ("bert", "L1.resid_mid", "LayerNorm, after each sum of the stream"),
        ("bert", "L1.attn.pattern", "each position reads all others"),
        ("gptj", "L1.mlp.out", "there is no resid_mid"),
        ("gptj", "L1.H0.q", "the first 4 of 8 places of each head (neighbouring places turn together)"),
        ("gemma2", "L0.attn.scores", "capped softly at 50"),
        ("gemma2", "L0.attn.pattern", "a sliding window: each position reads itself and at most 6 before it"),
        ("gemma2", "L1.attn.out", "norms stand on both sides"),
        ("gemma2", "embed", "multiplied by model.embed_tokens.embed_scale"),
        ("gemma2", "logits", "capped softly"),
        ("bloom", "L1.attn.scores", "alibi"),
        ("olmo2", "L1.attn.out", "norms stand behind each part"),
        ("olmo2", "L1.H0.q", "queries and keys are normalised before they meet"),
    ],
)
def test_what_is_unusual_is_said_where_it_matters(kind: str, address: str, words: str) -> None:
    model = captured(kind)[1] if kind in {"gpt2", "llama", "bert"} else model_of(kind)
    assert words in model.explain(address)["here"]


def test_a_full_layer_of_a_family_with_windows_has_none() -> None:
    assert "window" not in model_of("gemma2").explain("L1.attn.pattern")["here"]
    assert "capped" in model_of("gemma2").explain("L1.attn.pattern")["here"]


def test_multipliers_and_numbers_are_read_off() -> None:
    config = families.config("granite")
    config.residual_multiplier, config.embedding_multiplier, config.logits_scaling = 0.25, 12.0, 4.0
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    model = sj.load(
        AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval(), name="granite", cache=FOLDER.name
    )
    assert "attn.out is attn.o times 0.25" in model.explain("L1.attn.out")["here"]
    assert "embeddings are multiplied by 12" in model.explain("embed")["here"]
    assert "logits are multiplied by 0.25" in model.explain("logits")["here"]


def test_the_eager_and_the_fused_attention_are_explained_alike() -> None:
    model = sj.load(build("llama", "sdpa"), cache=FOLDER.name)
    assert model.explain("L1.H3.k").lines == captured("llama")[1].explain("L1.H3.k").lines


def test_modules_positions_and_several_values() -> None:
    _, model = captured("gpt2")
    said = model.explain("transformer.h.1.mlp")
    assert said["is"] == "output of the module transformer.h.1.mlp"
    assert "the same value as L1.mlp.out" in said["also"]
    assert "transformer.h.1.mlp.c_fc.weight" in said["weights"]
    assert "position -1 of each row" in model.explain("L1.resid_pre@-1")["is"]
    assert "query" not in model.explain("L1.resid_pre@-1")["axes"]
    assert "8 values; told here by the first, L0.H0.z" in model.explain("L*.H*.z")["is"]


def test_notes_and_names_are_said() -> None:
    _, model = captured("gpt2")
    mine = model.annotate("L1.H2", "copies").rename({"L1.H2.z": "copy.z"})
    assert mine.explain("L1.H2.k")["said"] == "copies"
    assert mine.explain("copy.z")["called"] == "copy.z"
    assert mine.explain("copy.z").address == "L1.H2.z"
    assert not mine.explain("L1.H3.k")["said"]


def test_it_prints_narrowly_and_goes_to_json_and_html() -> None:
    _, model = captured("llama")
    said = model.annotate("L1.H3.k", "<b>bold</b>").explain("L1.H3.k")
    assert max(map(len, str(said).splitlines())) <= 100
    assert json.loads(json.dumps(said.to_dict()))["weights"] == ["model.layers.1.self_attn.k_proj.weight[8:16, :]"]
    assert "<b>" not in said._repr_html_()
    assert "&lt;b&gt;" in said._repr_html_()


def test_an_address_that_is_not_there_lists_near_ones() -> None:
    _, model = captured("gpt2")
    with pytest.raises(AddressError, match=r"did you mean .*L1\.resid_pre"):
        model.explain("L1.resid_prf")
    with pytest.raises(AddressError, match="head 9 does not exist"):
        model.explain("L1.H9.z")
