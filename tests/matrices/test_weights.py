"""Every weight by name is the one that the model's own run multiplies with, in every family."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import families
import scrubjay as sj
from scrubjay.capture.model import Model
from scrubjay.engine.array import Array
from scrubjay.errors import AddressError, CircuitError
from scrubjay.matrices import names, product, weights

BIASED = {"gpt2", "gpt_neox", "bloom", "bert", "phi", "gpt_oss", "opt"}
KINDS = ("gpt2", "llama", "gpt_neox", "bloom", "bert", "gemma", "phi", "falcon", "mixtral", "gpt_oss", "qwen3")
ROTARY = ("llama", "gemma", "falcon", "phi", "qwen3")
SITES = (
    "attn.q",
    "attn.k",
    "attn.v",
    "attn.z",
    "attn.o",
    "resid_pre",
    "mlp.in",
    "mlp.pre",
    "mlp.gate",
    "mlp.up",
    "mlp.post",
    "mlp.out",
)
MORE = ("ln1.normalized", "ln2.normalized", "mlp.router.logits", "attn.q_rot", "attn.k_rot")


def small(kind: str, biases: bool = True) -> tuple[Model, Any]:
    """Return a model of a family on its exact form, and a run with all that layer 1 has."""
    return _small(kind, biases or kind not in BIASED)


@cache
def _small(kind: str, biases: bool) -> tuple[Model, Any]:
    module = families.build(kind)
    if not biases:
        with torch.no_grad():
            for name, one in module.named_parameters():
                if "bias" in name:
                    one.zero_()
    model = sj.load(module, name=kind, cache=None).exact()
    have = model.circuit.table
    sites = [f"L1.{site}" for site in (*SITES, *MORE)] + ["embed", "pos_embed", "ln_f.normalized"]
    return model, sj.run(model, families.batch(module, 3, 9), keep=[site for site in sites if site in have])


def array(model: Model, name: str, **options: Any) -> Tensor:
    found = weights(model, name, **options)
    assert isinstance(found, Array)
    return found.as_tensor()


def normed(run: Any, norm: str) -> Tensor:
    """Return what a norm of layer 1 gives before its weights; two norms of one value are one."""
    site = f"L1.{norm}.normalized"
    return run[site if site in run.values else "L1.ln1.normalized"].as_tensor()


def read(model: Model, run: Any, norm: str) -> Tensor:
    """Return what the linear maps after a norm read: the stream itself where norms follow its sums."""
    if model.anatomy.layers[1].post_norm:
        return run["L1.resid_pre" if norm == "ln1" else "L1.mlp.in"].as_tensor()
    return normed(run, norm) * array(model, f"L1.{norm}.w") + array(model, f"L1.{norm}.b")


def same(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-9)


READERS = {"attn.q": ("ln1", "attn.W_Q"), "attn.k": ("ln1", "attn.W_K"), "attn.v": ("ln1", "attn.W_V"), "mlp.pre": ("ln2", "mlp.W_in"), "mlp.gate": ("ln2", "mlp.W_gate"), "mlp.up": ("ln2", "mlp.W_in"), "mlp.router.logits": ("ln2", "mlp.router.W")}  # fmt: skip


def readers(run: Any) -> list[tuple[str, str, str, str]]:
    """Return the sites of layer 1 that read the stream: address, norm, weight, bias."""
    gated = "L1.mlp.gate" in run.values
    found = []
    for site, (norm, weight) in READERS.items():
        if f"L1.{site}" in run.values and not (gated and site == "mlp.pre"):
            part, _, leaf = weight.rpartition(".")
            found.append((f"L1.{site}", norm, f"L1.{weight}", f"L1.{part}.b{leaf[1:]}"))
    return found


def times(x: Tensor, matrix: Tensor) -> Tensor:
    """Return x @ W for W of (model, ...) or (head, model, d_head)."""
    return torch.einsum("bqm,hmd->bqhd", x, matrix) if matrix.dim() == 3 else x @ matrix


@pytest.mark.parametrize("kind", KINDS)
def test_what_reads_the_stream_is_its_weight_applied(kind: str) -> None:
    model, run = small(kind)
    assert len(readers(run)) >= 4
    for site, norm, weight, bias in readers(run):
        same(times(read(model, run, norm), array(model, weight)) + array(model, bias), run[site].as_tensor())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bert"])
def test_a_folded_weight_reads_the_normalized_value(kind: str) -> None:
    model, run = small(kind)
    for site, norm, weight, bias in readers(run):
        folded = array(model, weight, fold=True)
        same(times(normed(run, norm), folded) + array(model, bias, fold=True), run[site].as_tensor())
        if model.anatomy.layers[1].norm == "layer":
            assert folded.mean(-2).abs().max() < 1e-12
    logits = run["ln_f.normalized"].as_tensor() @ array(model, "W_U", fold=True) + array(model, "b_U", fold=True)
    same(logits, run.output)


@pytest.mark.parametrize("kind", KINDS)
def test_what_writes_to_the_stream_is_its_weight_applied(kind: str) -> None:
    model, run = small(kind)
    z, w = run["L1.attn.z"].as_tensor(), array(model, "L1.attn.W_O")
    same(torch.einsum("bqhd,hdm->bqm", z, w) + array(model, "L1.attn.b_O"), run["L1.attn.o"].as_tensor())
    if "L1.mlp.post" in run.values:
        out = run["L1.mlp.post"].as_tensor() @ array(model, "L1.mlp.W_out") + array(model, "L1.mlp.b_out")
        same(out, run["L1.mlp.out"].as_tensor())


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_are_rows_of_their_tables(kind: str) -> None:
    model, run = small(kind)
    ids, places = run.inputs["input_ids"], run.inputs.get("position_ids", torch.arange(9)[None])
    table = array(model, "W_E")
    if kind == "bloom":  # whose embedding passes a norm
        table = torch.nn.functional.layer_norm(table, (32,), eps=1e-3)
        given = dict(families.build(kind).named_parameters())
        norm = "transformer.word_embeddings_layernorm"
        table = table * given[f"{norm}.weight"].double() + given[f"{norm}.bias"].double()
    same(table[ids], run["embed"].as_tensor())
    if "pos_embed" in run.values:
        same(array(model, "W_pos")[places].expand(3, -1, -1), run["pos_embed"].as_tensor().expand(3, -1, -1))


@pytest.mark.parametrize("kind", KINDS)
def test_ov_is_what_a_head_writes_of_what_it_reads(kind: str) -> None:
    model, run = small(kind)
    kept = sj.run(model, run.inputs, keep=["L1.attn.pattern", "L1.H*.out"])
    x, ov, pattern = read(model, run, "ln1"), product(model, "L1.H*.OV"), kept["L1.attn.pattern"].as_tensor()
    assert ov.names == ("head", "model_in", "model_out")
    wanted = torch.einsum("bhqk,bkm,hmn->bqhn", pattern, x, ov.dense().as_tensor())
    bias = torch.einsum("hd,hdm->hm", array(model, "L1.H*.b_V"), array(model, "L1.H*.W_O"))
    wanted += torch.einsum("bhq,hm->bqhm", pattern.sum(-1), bias)
    same(wanted, kept["L1.H*.out"].dense(("batch", "query", "head", "model")))


@pytest.mark.parametrize("kind", ROTARY)
@pytest.mark.parametrize("offset", [0, 1, 5])
def test_qk_is_the_product_of_queries_and_keys_at_an_offset(kind: str, offset: int) -> None:
    model, run = small(kind, biases=False)
    layer = model.anatomy.layers[1]
    x, qk = read(model, run, "ln1"), product(model, "L1.H*.QK", offset=offset).dense().as_tensor()
    q, k = run["L1.attn.q_rot"].as_tensor(), run["L1.attn.k_rot"].as_tensor()
    if k.dim() == 3:
        k = k[:, :, None]
    k = k.repeat_interleave(layer.heads // k.shape[2], dim=2)
    wanted = torch.einsum("bqhd,bqhd->bqh", q[:, offset:], k[:, : 9 - offset])
    found = torch.einsum("bqm,hmn,bqn->bqh", x[:, offset:], qk, x[:, : 9 - offset])
    if layer.qk_norm:
        scales = [
            one.square().mean(-1).add(1e-3).sqrt()
            for one in (run["L1.attn.q"].as_tensor(), run["L1.attn.k"].as_tensor())
        ]
        many = layer.heads // scales[1].shape[2]
        found = found / scales[0][:, offset:] / scales[1].repeat_interleave(many, dim=2)[:, : 9 - offset]
    same(found, wanted)
    if layer.rotary and offset:
        assert not torch.allclose(product(model, "L1.H*.QK").dense().as_tensor(), qk)


@pytest.mark.parametrize(("kind", "offsets"), [("llama", (0, 1, 2, 3)), ("gpt2", (0, 3))])
def test_qk_gives_the_scores_of_the_model(kind: str, offsets: tuple[int, ...]) -> None:
    model, run = small(kind)
    scores = sj.run(model, run.inputs, keep="L1.H2.scores")["L1.H2.scores"].as_tensor()
    x, (q, k) = read(model, run, "ln1"), (array(model, f"L1.H2.b_{one}") for one in "QK")
    for offset in offsets:
        reads, read_ = x[:, offset:], x[:, : 9 - offset]
        found = torch.einsum(
            "bqm,mn,bqn->bq", reads, product(model, "L1.H2.QK", offset=offset).dense().as_tensor(), read_
        )
        found += reads @ array(model, "L1.H2.W_Q") @ k + read_ @ array(model, "L1.H2.W_K") @ q + q @ k
        same(found * 8**-0.5, scores.diagonal(-offset, 1, 2))


@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_experts_are_their_weights_applied(kind: str) -> None:
    model, run = small(kind)
    kept = sj.run(model, run.inputs, keep=["L1.mlp.router.chosen", "L1.mlp.router.weights", "L1.mlp.out"])
    x = read(model, run, "ln2")
    up, gate, out = (array(model, f"L1.mlp.E*.W_{name}") for name in ("in", "gate", "out"))
    up, gate = (torch.einsum("bqm,emh->bqeh", x, one) for one in (up, gate))
    up, gate = up + array(model, "L1.mlp.E*.b_in"), gate + array(model, "L1.mlp.E*.b_gate")
    if kind == "mixtral":
        post = torch.nn.functional.silu(gate) * up
    else:
        gate, up = gate.clamp(max=7), up.clamp(-7, 7)
        post = (up + 1) * gate * torch.sigmoid(gate * 1.702)
    each = torch.einsum("bqeh,ehm->bqem", post, out) + array(model, "L1.mlp.E*.b_out")
    chosen = kept["L1.mlp.router.chosen"].dense(("batch", "query", "chosen"))
    weight = kept["L1.mlp.router.weights"].dense(("batch", "query", "chosen"))
    taken = each.gather(2, chosen[..., None].expand(*chosen.shape, 32))
    same((taken * weight[..., None]).sum(2), kept["L1.mlp.out"].as_tensor())
    same(array(model, "L1.mlp.E3.W_in"), array(model, "L1.mlp.E*.W_in")[3])


def test_full_products_go_from_token_to_token() -> None:
    model, _ = small("gpt2")
    e, u = array(model, "W_E"), array(model, "W_U")
    same(product(model, "L1.H3.full_OV").dense().as_tensor(), e @ product(model, "L1.H3.OV").dense().as_tensor() @ u)
    same(product(model, "L1.H3.full_QK").dense().as_tensor(), e @ product(model, "L1.H3.QK").dense().as_tensor() @ e.T)
    folded = e @ array(model, "L1.H3.W_V", fold=True) @ array(model, "L1.H3.W_O") @ array(model, "W_U", fold=True)
    same(product(model, "L1.H3.full_OV", fold=True).dense().as_tensor(), folded)
    assert product(model, "L*.H*.full_OV").names == ("layer", "head", "vocab_in", "vocab_out")


def test_names_of_norms_mean_what_acts() -> None:
    gemma, bert = families.build("gemma"), families.build("bert")
    stored = gemma.model.layers[1].input_layernorm.weight.detach().double()
    same(array(small("gemma")[0], "L1.ln1.w"), 1 + stored)
    same(array(small("gemma")[0], "L1.ln1.b"), torch.zeros(32, dtype=torch.float64))
    after = bert.bert.encoder.layer[1].attention.output.LayerNorm
    same(array(small("bert")[0], "L1.ln1.w"), after.weight.detach().double())
    same(array(small("bert")[0], "L1.ln1.b"), after.bias.detach().double())
    with pytest.raises(AddressError, match=r"bert has no recognised ln_f.normalized"):
        weights(small("bert")[0], "ln_f.w")
    mlp = families.build("gpt_neox").gpt_neox.layers[1].post_attention_layernorm
    same(array(small("gpt_neox")[0], "L1.ln2.w"), mlp.weight.detach().double())  # of the value that ln1 norms too


def test_one_weight_has_many_spellings() -> None:
    model, _ = small("llama")
    one = array(model, "L1.H3.W_Q")
    for text in ("W_Q[1, 3]", "W_Q[1,3]", "L1H3.W_Q", "1.3.W_Q", "a1.h3.W_Q", "blocks.1.H3.W_Q"):
        same(array(model, text), one)
    same(array(model, "blocks.1.attn.W_Q")[3], one)
    same(array(model, "W_Q")[1, 3], one)
    same(array(model, "W_Q[1]")[3], one)
    same(array(model, "L*.H2..3.W_Q")[1, 1], one)
    same(array(model, "W_in")[1], array(model, "blocks.1.mlp.W_in"))
    same(array(model, "L1.H3.W_K"), array(model, "L1.KV1.W_K"))
    same(array(model, "L1.H2.W_V"), array(model, "L1.KV1.W_V"))
    same(array(model, "L1.H1.W_V"), array(model, "L1.KV0.W_V"))
    same(array(model, "L1.attn.W_K")[1], array(model, "L1.KV1.W_K"))
    assert weights(model, "L*.H2..3.W_Q").names == ("layer", "head", "model", "d_head")
    assert weights(model, "L*.KV*.W_V").names == ("layer", "kv", "model", "d_head")
    assert weights(model, "L1.attn.W_K").names == ("kv", "model", "d_head")
    assert product(model, "L*.H2.OV").names == ("layer", "model_in", "model_out")
    same(product(model, "OV[1,3]").dense().as_tensor(), product(model, "L*.H*.OV")[1, 3].dense().as_tensor())


def test_every_listed_name_is_found() -> None:
    model, _ = small("llama")
    found = names(model)
    assert {"W_E", "W_U", "ln_f.w", "L1.H*.OV", "L1.KV*.W_K", "L0.mlp.W_gate", "L0.ln1.w"} <= set(found)
    assert not {"W_pos", "b_U", "L1.attn.b_Q", "L1.ln1.b"} & set(found)
    for name in found:
        weights(model, name)
    assert "L1.mlp.E*.W_gate" in names(small("mixtral")[0])
    assert "L1.H*.full_OV" not in names(small("bert")[0])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("L1.H3.W_X", "did you mean .*L1.H3.W_"),
        ("L7.H3.W_Q", "layer 7 does not exist; there are L0..L1"),
        ("L1.H9.OV", "head 9 does not exist; there are H0..H3"),
        ("L1.KV3.W_K", "kv 3 does not exist; there are KV0..KV1"),
        ("W_Q[1,9]", "head 9 does not exist"),
        ("embed", "names no weight"),
        ("L1.attn.OV", "L1.H\\*.OV"),
        ("L1.mlp.E0.W_in", "this has no expert: none was recognised"),
        ("L1.H3..1.W_Q", "does not exist"),
        ("W_pos", "no recognised pos_embed"),
        ("L1.mlp.router.W", "no recognised L1.mlp.router.logits"),
    ],
)
def test_a_name_that_is_none_is_refused(name: str, said: str) -> None:
    with pytest.raises(AddressError, match=said):
        weights(small("llama")[0], name)


def test_what_is_not_linear_is_refused() -> None:
    model, run = small("gpt2")
    changed = sj.edit(model, sj.zero("L1.attn.q"))
    with pytest.raises(CircuitError, match=r"L1.attn.W_Q: the value is no linear map"):
        weights(changed, "L1.H0.W_Q")
    with pytest.raises(CircuitError, match=r"L1.H.*OV: attention does not mix the values"):
        weights(sj.edit(model, sj.zero("L1.attn.z")), "L1.H0.OV")
    with pytest.raises(CircuitError, match=r"there is no norm to fold"):
        weights(small("bert")[0], "L1.H0.W_Q", fold=True)
    with pytest.raises(CircuitError, match=r"no map from token to token"):
        weights(small("bert")[0], "L1.H0.full_OV")
    with pytest.raises(AddressError, match=r"no gate"):
        weights(model, "L1.mlp.W_gate")
    with pytest.raises(AddressError, match=r"is one weight and no product"):
        product(model, "W_E")
    with pytest.raises(AddressError, match=r"mixture of experts: name one, L1.mlp.E0.W_in"):
        weights(small("mixtral")[0], "L1.mlp.W_in")
    with pytest.raises(sj.errors.InputError, match=r"L1.H0.OV does not depend"):
        weights(model, "L1.H0.OV", offset=2)
    for offset in (-1, 64):
        with pytest.raises(sj.errors.InputError, match=r"offset="):
            weights(small("llama")[0], "L1.H0.QK", offset=offset)
    assert run is not None
