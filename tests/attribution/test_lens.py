"""The logit lens, against the module's own norm and unembedding, and what it holds in memory."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import scrubjay as sj
import small_models as small
from scrubjay.attribution import Lens, direct_logit_attribution, lens, lens_logits, logit_lens
from scrubjay.errors import InputError
from scrubjay.reporting.notebook import drawn


@pytest.mark.parametrize("kind", small.KINDS)
def test_the_last_place_gives_the_logits_of_the_model_bit_for_bit(kind: str) -> None:
    _, model = small.captured(kind)
    inputs = small.batch()
    assert torch.equal(lens_logits(model, inputs, "L1.resid_post").as_tensor(), sj.run(model, inputs).logits)


def finish(kind: str, module: Any, stream: Tensor) -> Tensor:
    """What the module makes of a value of the stream, as if it were the last."""
    if kind == "gpt2":
        return module.lm_head(module.transformer.ln_f(stream))
    if kind == "llama":
        return module.lm_head(module.model.norm(stream))
    return module.cls(module.bert.encoder.layer[-1].output.LayerNorm(stream))


@pytest.mark.parametrize("kind", small.KINDS)
@torch.no_grad()
def test_every_place_is_normed_and_unembedded_as_the_module_does(kind: str) -> None:
    module, model = small.captured(kind)
    inputs = small.batch()
    answers = torch.tensor([[3, 14], [15, 92], [65, 35]])
    found = logit_lens(model, inputs, top_k=7, answers=answers, sites=["resid_mid", "resid_post", "attn.out"])
    assert found.places == tuple(
        f"L{layer}.{site}" for layer in (0, 1) for site in ("resid_mid", "resid_post", "attn.out")
    )
    seen = small.values(module, small.spots(kind, module), inputs)
    real = inputs["attention_mask"].bool()
    np.testing.assert_array_equal(found.real, real.numpy())
    for number, place in enumerate(found.places):
        logits = finish(kind, module, seen[place])
        torch.testing.assert_close(lens_logits(model, inputs, place).as_tensor()[real], logits[real], atol=1e-4, rtol=0)
        logprob = logits.log_softmax(-1)
        top = logprob.topk(7, -1)
        assert found.logprob is not None
        assert found.rank is not None
        np.testing.assert_allclose(found.probabilities[number][real], top.values.exp()[real], atol=1e-5)
        picked = np.take_along_axis(logprob.numpy(), found.tokens[number], -1)
        np.testing.assert_allclose(np.exp(picked)[real], top.values.exp()[real], atol=1e-5)
        for one in range(2):
            own = logprob.gather(-1, answers[:, one, None, None].expand(3, 17, 1))
            np.testing.assert_allclose(found.logprob[number, ..., one][real], own[..., 0][real], atol=1e-4)
            rank = (logprob > own).sum(-1)
            assert float((torch.as_tensor(found.rank[number, ..., one])[real] != rank[real]).float().mean()) < 0.02


class Largest(TorchDispatchMode):
    """Remembers the most logits that any operation makes: numbers over the vocabulary that are no weights."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else (made,):
            if isinstance(one, Tensor) and small.VOCABULARY in one.shape and small.WIDTH not in one.shape:
                self.most = max(self.most, one.numel())
        return made


@pytest.mark.parametrize("kind", small.KINDS)
def test_few_logits_are_held_at_once_and_parts_give_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = small.captured(kind)
    inputs = small.batch(5, 40)
    whole = logit_lens(model, inputs, answers=7)
    assert whole.most == 5 * 40 * small.VOCABULARY
    monkeypatch.setattr(lens, "MOST_LOGITS", 700)
    with Largest() as seen:
        parts = logit_lens(model, inputs, answers=7)
    assert parts.most == seen.most == 6 * small.VOCABULARY
    np.testing.assert_allclose(parts.probabilities, whole.probabilities, atol=1e-6)
    assert parts.logprob is not None
    assert whole.logprob is not None
    np.testing.assert_allclose(parts.logprob, whole.logprob, atol=1e-5)


def test_left_padded_rows_are_what_they_are_alone() -> None:
    _, model = small.captured("llama")
    inputs = small.batch(padding="left")
    found = logit_lens(model, inputs)
    for row, real in enumerate(inputs["attention_mask"].bool()):
        alone = logit_lens(model, inputs["input_ids"][row][real])
        np.testing.assert_allclose(found.probabilities[:, row][:, real], alone.probabilities[:, 0], atol=1e-5)
        assert found.words(row) == alone.words()


def test_layers_places_and_words() -> None:
    _, model = small.captured("gpt2")
    inputs = small.batch()
    last = int(small.logits_of(small.captured("gpt2")[0], inputs)[0, -1].argmax())
    found = logit_lens(model, inputs, layers=[-1], answers=[last, 1, 2])
    assert found.places == ("L1.resid_post",)
    assert found.first_rank(0) == "L1.resid_post"
    assert found.words(0)[0][-1] == str(last)
    assert logit_lens(model, inputs, layers=[-1], answers=[(last + 1) % 101, 1, 2]).first_rank(0) is None
    made = json.loads(json.dumps(found.to_dict()))
    assert made["tokens"][0][0][-1][0] == last
    assert "\n" not in repr(found)
    assert "1 places, 3 x 17 positions" in repr(found)
    assert str(found).startswith("row 0, position 14\nL1.resid_post")
    assert logit_lens(model, inputs, sites="resid_pre").places == ("L0.resid_pre", "L1.resid_pre")


def test_refusals() -> None:
    _, model = small.captured("gpt2")
    inputs = small.batch()
    for words, options in (
        ("layer 2 was asked for; gpt2 has layers 0..1", {"layers": [2]}),
        ("top_k is 0", {"top_k": 0}),
        ("2 answers were given for 3 rows", {"answers": [1, 2]}),
        ("answers has 2 rows, and the input 3", {"answers": torch.zeros(2, 4, dtype=torch.long)}),
        ("'ln_f' is no place that a lens reads", {"sites": "ln_f"}),
    ):
        with pytest.raises(InputError, match=words):
            logit_lens(model, inputs, **options)  # pyright: ignore[reportArgumentType]
    found = logit_lens(model, inputs)
    with pytest.raises(InputError, match="no answers were asked for"):
        found.first_rank()
    with pytest.raises(InputError, match=r"row 3 was asked for; there are rows 0\.\.2"):
        found.words(3)
    with pytest.raises(InputError, match="a lens reads a value of the stream"):
        lens_logits(model, inputs, "L0.H1.z")
    base = small.load(small.build("gpt2").transformer, name="gpt2 base")
    with pytest.raises(InputError, match="a logit lens was asked for in gpt2 base"):
        logit_lens(base, inputs)


class Hostile:
    """Every token is markup."""

    def decode(self, ids: list[int]) -> str:
        return f"<b onload='x'>&{ids[0]}\n"


def test_drawings_escape_tokens_and_parse() -> None:
    _, plain = small.captured("gpt2")
    model = replace(plain, tokenizer=Hostile())
    inputs = small.batch()
    found: Lens = logit_lens(model, inputs)
    page = drawn(found)
    assert "<b " not in page
    assert "&lt;b·onload" in page
    assert "L1.resid_post" in page
    ET.fromstring(f"<p>{page}</p>")
    effect = drawn(direct_logit_attribution(model, inputs, 5, [1, 2, 3]))
    assert "<b " not in effect
    assert "L1.H3.out" in effect
    assert "by head" in effect
    ET.fromstring(f"<p>{effect}</p>")
