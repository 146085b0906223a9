"""Composition scores are those of the dense products, chance is what theory says, and planted heads are found."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

import families
import scrubjay as sj
from scrubjay.capture.model import Model
from scrubjay.circuit.rules import split_heads
from scrubjay.errors import AddressError, CircuitError, InputError
from scrubjay.matrices import chance, composition, copying, product, weights
from small_models import build


def loaded(module: Any) -> Model:
    return sj.load(module, name="model", cache=None).exact()


@cache
def small(kind: str) -> Model:
    return loaded(build(kind))


@pytest.fixture(scope="module")
def gpt2() -> Model:
    return small("gpt2")


def dense(model: Model, name: str, **options: Any) -> torch.Tensor:
    return product(model, name, **options).dense().as_tensor()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("fold", [False, True])
def test_scores_are_those_of_the_dense_products(kind: str, fold: bool) -> None:
    model = small(kind)
    offset = 2 if kind == "llama" else 0
    found = composition(model, fold=fold, offset=offset, samples=4)
    assert found.heads == tuple(f"L{layer}.H{head}" for layer in (0, 1) for head in range(4))
    assert len(found) == 3 * 16
    for pair in found:
        one = dense(model, f"{pair.writer}.OV", fold=fold)
        qk, ov = (
            dense(model, f"{pair.reader}.QK", fold=fold, offset=offset),
            dense(model, f"{pair.reader}.OV", fold=fold),
        )
        two = {"Q": qk, "K": qk.T, "V": ov}[pair.kind]
        norm = torch.linalg.matrix_norm
        assert pair.score == pytest.approx(float(norm(one @ two) / norm(one) / norm(two)), rel=1e-10)
        assert pair.ratio == pair.score / pair.expected


def test_chance_is_what_theory_says() -> None:
    for model, rank, other in ((64, 4, 4), (64, 16, 16), (256, 8, 32)):
        mean, deviation = chance(model, rank, other, samples=16)
        assert mean == pytest.approx(model**-0.5, rel=0.03)
        assert 0 < deviation < mean / 4
    assert chance(64, 4, 4, seed=1) == chance(64, 4, 4, seed=1) != chance(64, 4, 4, seed=2)


def test_random_heads_are_at_chance(gpt2: Model) -> None:
    found = composition(gpt2)
    z = torch.tensor([pair.z for pair in found])
    assert abs(float(z.mean())) < 0.7
    assert 0.6 < float(z.std()) < 1.6


def test_a_planted_pair_is_at_the_top() -> None:
    module = build("gpt2")
    with torch.no_grad():
        first, second = (block.attn for block in module.transformer.h)
        reads, writes = slice(32 + 16, 32 + 24), slice(8, 16)  # L1.H2's keys, L0.H1's output
        second.c_attn.weight[:, reads] = torch.linalg.pinv(first.c_proj.weight[writes])
    model = loaded(module)
    best = composition(model).top(1)[0]
    assert (best.writer, best.reader, best.kind) == ("L0.H1", "L1.H2", "K")
    assert best.z > 5
    assert "L0.H1    L1.H2    K" in str(composition(model)).splitlines()[2]


def test_planted_copying_heads_score_one() -> None:
    module = build("gpt2")
    with torch.no_grad():
        attn = module.transformer.h[1].attn
        for head, sign in ((0, 1), (1, -1)):
            place = slice(8 * head, 8 * head + 8)
            attn.c_proj.weight[place] = sign * attn.c_attn.weight[:, 64 + 8 * head : 72 + 8 * head].T
    found = copying(loaded(module), "L1.H*")
    assert found.names == ("head",)
    one, two, three, _ = found.as_tensor().tolist()
    assert (one, two) == (pytest.approx(1), pytest.approx(-1))
    assert abs(three) < 0.9


@pytest.mark.parametrize("fold", [False, True])
def test_copying_is_that_of_the_map_between_tokens(gpt2: Model, fold: bool) -> None:
    found = copying(gpt2, fold=fold)
    assert found.names == ("layer", "head")
    full = product(gpt2, "L*.H*.full_OV", fold=fold)
    torch.testing.assert_close(found.as_tensor(), full.copying.as_tensor(), atol=1e-10, rtol=1e-8)
    values = torch.linalg.eigvals(dense(gpt2, "L1.H2.full_OV", fold=fold))
    assert float(found.as_tensor()[1, 2]) == pytest.approx(float(values.real.sum() / values.abs().sum()))


def test_what_cannot_be_asked_is_refused(gpt2: Model) -> None:
    found = composition(gpt2, samples=2)
    assert found["L0.H3", "L1.H1", "K"].kind == "K"
    with pytest.raises(AddressError, match=r"L1.H3 does not compose with L0.H1: it is in no earlier layer"):
        found["L1.H3", "L0.H1", "Q"]
    with pytest.raises(AddressError, match=r"in no earlier layer"):
        found["L1.H3", "L1.H1", "Q"]
    with pytest.raises(AddressError, match=r"no head of this table"):
        found["L0.H7", "L1.H1", "Q"]
    with pytest.raises(AddressError, match=r"no kind of composition"):
        found["L0.H3", "L1.H1", "O"]
    with pytest.raises(InputError, match=r"samples=1"):
        composition(gpt2, samples=1)
    with pytest.raises(CircuitError, match=r"0 layers with heads that can compose.*latent attention"):
        composition(loaded(families.build("deepseek_v3")), samples=2)
    with pytest.raises(CircuitError, match=r"no map from token to token"):
        copying(loaded(build("bert")))
    assert weights(gpt2, "W_E") is not None


POST = {
    "gemma2": "post_attention_layernorm",
    "glm4": "post_self_attn_layernorm",
    "olmo2": "post_attention_layernorm",
}


@pytest.mark.parametrize("kind", list(POST))
def test_fold_takes_in_the_norm_after_attention(kind: str) -> None:
    module = families.build(kind)
    model = loaded(module)
    own = getattr(module.model.layers[0], POST[kind]).weight.detach().double() + (kind == "gemma2")
    read = dense(model, "L0.H1.OV", fold=False)
    bare = weights(model, "L0.H1.W_V", fold=kind != "olmo2").as_tensor() @ weights(model, "L0.H1.W_O").as_tensor()
    wanted = bare * own
    torch.testing.assert_close(dense(model, "L0.H1.OV", fold=True), wanted, atol=1e-10, rtol=1e-8)
    assert (read - wanted).abs().max() > 0.01
    ends = weights(model, "W_E").as_tensor(), weights(model, "W_U", fold=True).as_tensor()
    values = torch.linalg.eigvals(ends[0] @ wanted @ ends[1])
    found = copying(model, fold=True)
    assert found["L0.H1"] == pytest.approx(float(values.real.sum() / values.abs().sum()), abs=1e-8)
    assert any("folded into what is written" in note for note in found.notes)
    norm = torch.linalg.matrix_norm
    scores = composition(model, fold=True, samples=2)
    qk = dense(model, "L1.H3.QK", fold=True)
    assert scores["L0.H1", "L1.H3", "K"].score == pytest.approx(float(norm(wanted @ qk.T) / norm(wanted) / norm(qk)), rel=1e-8)  # fmt: skip
    for left in (composition(model, samples=2), copying(model)):
        assert any("own weights are left out: fold=True" in note for note in left.notes)


def test_norms_between_sums_are_told() -> None:
    assert any("norm after each sum" in note for note in composition(loaded(build("bert")), samples=2).notes)


def test_no_tensor_that_wants_gradients_is_left() -> None:
    model = sj.load(families.build("olmo2"), name="model", cache=None)
    assert not composition(model, samples=2).scores.as_tensor().requires_grad


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_split_heads_have_the_same_weights(kind: str) -> None:
    model = small(kind)
    split = replace(model, circuit=split_heads(model.circuit))
    for name in ("L0.H1.W_O", "L1.attn.W_O", "L*.H*.OV", "L0.attn.b_O"):
        torch.testing.assert_close(
            weights(split, name).as_tensor(), weights(model, name).as_tensor(), atol=1e-12, rtol=0
        )
    same = composition(split, samples=2).scores.as_tensor()
    torch.testing.assert_close(same, composition(model, samples=2).scores.as_tensor(), equal_nan=True)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_changed_head_keeps_its_weight_and_composes_with_none(kind: str) -> None:
    model = small(kind)
    for edit in (sj.edit(model, sj.zero("L0.H1.out")), sj.edit(model, sj.apply("L0.H1.out", lambda x: x * 2))):
        for name in ("L0.H1.W_O", "L0.H3.W_O", "L0.attn.b_O"):
            assert torch.equal(weights(edit, name).as_tensor(), weights(model, name).as_tensor())
        torch.testing.assert_close(dense(edit, "L0.H2.OV"), dense(model, "L0.H2.OV"))
        with pytest.raises(CircuitError, match=r"L0.H1.out was replaced by an intervention"):
            product(edit, "L0.H*.OV")
        found = composition(edit, samples=2)
        assert "L0.H1" not in found.heads
        assert found.notes[0].startswith("L0.H1 is left out")
        assert found["L0.H2", "L1.H3", "K"].score == pytest.approx(
            composition(model, samples=2)["L0.H2", "L1.H3", "K"].score
        )
