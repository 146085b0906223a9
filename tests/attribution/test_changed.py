"""Direct effects of models that were changed or rewritten, words that a tokenizer does not know, and what is asked for wrongly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import scrubjay as sj
import small_models as small
from scrubjay.attribution import decompose, direct_logit_attribution, logit_lens
from scrubjay.circuit.rules import split_heads
from scrubjay.errors import InputError
from scrubjay.matrices import product, weights


def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("at", ["L0.mlp.out", "L0.H1.out", "L1.mlp.out"])
def test_what_a_function_returns_is_a_source(kind: str, at: str) -> None:
    _, model = small.captured(kind)
    inputs, changed = small.batch(), sj.edit(model, sj.apply(at, twice))
    found = direct_logit_attribution(changed, inputs, 3, 5)
    logits = sj.run(changed, inputs).logits
    last = [int(row.nonzero()[-1]) for row in inputs["attention_mask"]]
    wanted = [float(logits[row, place, 3] - logits[row, place, 5]) for row, place in enumerate(last)]
    np.testing.assert_allclose(found.values.sum(1), wanted, atol=1e-4)
    assert at in found.sources
    stream = decompose(changed, inputs, "L1.resid_post")
    torch.testing.assert_close(stream[at].as_tensor(), sj.run(changed, inputs, keep=[at])[at].as_tensor())


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_split_heads_are_sources(kind: str) -> None:
    _, model = small.captured(kind)
    inputs, split = small.batch(), replace(model, circuit=split_heads(model.circuit))
    one, two = (direct_logit_attribution(each, inputs, 3, 5) for each in (model, split))
    assert one.sources == two.sources
    np.testing.assert_allclose(one.values, two.values, atol=1e-5)
    zeroed = direct_logit_attribution(sj.edit(split, sj.zero("L1.H2.out")), inputs, 3, 5)
    assert not zeroed["L1.H2.out"].any()
    assert zeroed.error < 1e-4


def test_a_pattern_is_the_sum_of_what_fits() -> None:
    _, model = small.captured("gpt2")
    found = direct_logit_attribution(model, small.batch(), 3)
    np.testing.assert_allclose(found["L1.H*.out"], sum(found[f"L1.H{head}.out"] for head in range(4)))
    with pytest.raises(InputError, match=r"has no source 'L1.H\*.outt'"):
        found["L1.H*.outt"]


def test_what_is_asked_for_wrongly_is_refused_in_words() -> None:
    _, model = small.captured("gpt2")
    inputs: Any = small.batch()
    with pytest.raises(InputError, match="give one number"):
        direct_logit_attribution(model, inputs, 3, position=[0, 1])  # pyright: ignore[reportArgumentType]
    assert logit_lens(model, inputs, layers=1).places == ("L1.resid_post",)
    with pytest.raises(InputError, match="give numbers"):
        logit_lens(model, inputs, layers=["L1"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"'L1.H3' is no place"):
        product(model, "L*.H*.OV")["L1.H3"]  # pyright: ignore[reportArgumentType]
    assert weights(model, "L0..1.H*.W_Q").as_tensor().shape == (2, 4, 32, 8)
    assert weights(model, "L0..1.attn.W_Q").as_tensor().shape == (2, 4, 32, 8)


class Closed:
    """A tokenizer of whole words, which reads all others as one."""

    words = ("[UNK]", "paris", "rome")
    unk_token_id = 0

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        found = [self.words.index(one) if one in self.words else 0 for one in text.lower().split()]
        return {"input_ids": found}

    def decode(self, ids: list[int]) -> str:
        return " ".join(self.words[one] for one in ids)


def test_a_word_that_the_tokenizer_does_not_know_is_no_answer() -> None:
    _, plain = small.captured("gpt2")
    model, inputs = replace(plain, tokenizer=Closed()), small.batch()
    assert direct_logit_attribution(model, inputs, "Paris", "rome").answers[0].tolist() == [1, 2]
    assert direct_logit_attribution(model, inputs, "[UNK]").answers[0].tolist() == [0]
    with pytest.raises(InputError, match="'berlin' is unknown to the tokenizer"):
        direct_logit_attribution(model, inputs, "berlin", "madrid")
    with pytest.raises(InputError, match="'madrid' is unknown"):
        logit_lens(model, inputs, answers="madrid")
    ids = inputs["input_ids"]
    with pytest.raises(InputError, match="'berlin' is unknown"):
        sj.pair(model, ids, ids, ["berlin"] * 3, ["madrid"] * 3)
