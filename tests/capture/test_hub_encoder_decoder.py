"""Models with an encoder and a decoder: logits are the module's, the encoder's positions are an axis of their own."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartModel,
    MarianConfig,
    MarianMTModel,
    PegasusConfig,
    PegasusForConditionalGeneration,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

import scrubjay as sj
from scrubjay.capture.model import Model
from scrubjay.errors import InputError
from small_models import load, redraw

VOCABULARY = 61
SAME: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 2}
BART: dict[str, Any] = {
    **SAME, "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 32,
}  # fmt: skip
T5: dict[str, Any] = {
    **SAME, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_decoder_layers": 2, "num_heads": 2, "n_positions": 40,
}  # fmt: skip
BUILT = {
    "t5": lambda: T5ForConditionalGeneration(T5Config(**T5)),
    "gated t5": lambda: T5ForConditionalGeneration(
        T5Config(**{**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False})
    ),
    "bart": lambda: BartForConditionalGeneration(BartConfig(**BART)),
    "bare bart": lambda: BartModel(BartConfig(**BART)),
    "marian": lambda: MarianMTModel(MarianConfig(**BART)),
    "pegasus": lambda: PegasusForConditionalGeneration(PegasusConfig(**BART)),
}
# rows, source, query, padding of the source, padding of the decoder's side
SIZES = {
    "other sizes": (3, 9, 5, 0, 0),
    "padded source": (3, 9, 5, 4, 0),
    "both padded": (2, 6, 17, 2, 3),
    "one": (1, 1, 1, 0, 0),
}


@functools.cache
def pair(kind: str) -> tuple[Any, Model]:
    module: Any = BUILT[kind]().eval()
    redraw(module, 0)
    return module, load(module)


def batch(rows: int, source: int, query: int, padded: int = 0, decoder_padded: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(rows + source)
    given = {
        "input_ids": torch.randint(3, VOCABULARY, (rows, source), generator=draw),
        "attention_mask": torch.ones(rows, source, dtype=torch.long),
        "decoder_input_ids": torch.randint(3, VOCABULARY, (rows, query), generator=draw),
        "decoder_attention_mask": torch.ones(rows, query, dtype=torch.long),
    }
    given["attention_mask"][0, source - padded :] = 0
    given["decoder_attention_mask"][-1, query - decoder_padded :] = 0
    return given


def expected(module: Any, given: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        made = module(**given, use_cache=False, return_dict=True)
    return made.logits if "logits" in made else made.last_hidden_state


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("kind", BUILT)
def test_results_are_the_modules(kind: str, sizes: tuple[int, ...]) -> None:
    module, model = pair(kind)
    given = batch(*sizes)
    wanted, found = expected(module, given), sj.run(model, given).output
    assert 0.2 <= float(wanted.std()) <= 10
    torch.testing.assert_close(found, wanted, atol=2e-5 * float(wanted.std()), rtol=0)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_the_decoder_is_what_has_sites(kind: str) -> None:
    module, model = pair(kind)
    given = batch(3, 9, 5)
    assert dict(model.facts) == {"decoder_start": 2}
    assert model.verdict is not None
    assert (model.verdict.exact, model.verdict.causal, model.verdict.problems) == (True, True, ())
    assert [str(axis) for axis in model.circuit.inputs["input_ids"].dims] == ["batch", "source"]
    assert [str(axis) for axis in model.circuit.inputs["decoder_input_ids"].dims] == ["batch", "query"]
    path = "encoder.block.0" if kind == "t5" else "model.encoder.layers.0"
    kept = sj.run(model, given, keep=[path])[path]
    assert "source" in kept.names
    assert "query" not in kept.names
    seen: list[Tensor] = []
    hook = module.get_submodule(path).register_forward_hook(
        lambda _m, _i, made: seen.append(made if isinstance(made, Tensor) else made[0])
    )
    expected(module, given)
    hook.remove()
    rest = next(name for name in kept.names if name not in ("batch", "source"))
    torch.testing.assert_close(torch.as_tensor(kept.laid(("batch", "source", rest))), seen[0], atol=1e-5, rtol=1e-5)


def test_masks_are_filled_in_for_both_sides() -> None:
    module, model = pair("t5")
    given = batch(3, 9, 5)
    found = sj.run(model, {key: given[key] for key in ("input_ids", "decoder_input_ids")}).logits
    torch.testing.assert_close(found, expected(module, given), atol=1e-4, rtol=0)


def test_a_missing_decoder_side_is_explained() -> None:
    _, model = pair("t5")
    ids = batch(3, 9, 5)["input_ids"]
    for given in (ids, {"input_ids": ids}, ids.tolist()):
        with pytest.raises(
            InputError,
            match=r"decoder_input_ids is missing: .*\(batch, source\).*\(batch, query\).*begins with token 2",
        ):
            sj.run(model, given)


def test_what_does_not_fit_is_refused_on_both_sides() -> None:
    _, model = pair("bart")
    given = batch(3, 9, 5)
    with pytest.raises(InputError, match=f"token {VOCABULARY} is outside the vocabulary"):
        sj.run(model, {**given, "decoder_input_ids": given["decoder_input_ids"] * 0 + VOCABULARY})
    with pytest.raises(InputError, match="decoder_attention_mask has shape"):
        sj.run(model, {**given, "decoder_attention_mask": torch.ones(3, 4, dtype=torch.long)})
    with pytest.raises(InputError, match="row 1 of the decoder attention mask has no real token"):
        sj.run(model, {**given, "decoder_attention_mask": torch.tensor([[1] * 5, [0] * 5, [1] * 5])})
    for name in ("input_ids", "decoder_input_ids"):
        long = torch.full((3, 33), 5)
        with pytest.raises(InputError, match="takes at most 32"):
            sj.run(model, {key: long if key == name else given[key] for key in ("input_ids", "decoder_input_ids")})


def test_positions_count_the_decoders_real_tokens() -> None:
    """`@-1` is the last real place on the decoder's side, whatever the padding of the source."""
    _, model = pair("bart")
    if not model.layers:
        pytest.skip("no layer of this decoder was recognised")
    given = batch(2, 6, 7, 2, 3)
    made = sj.run(model, given, keep=["L0.resid_pre", "L0.resid_pre@-1"])
    whole, last = made["L0.resid_pre"].as_tensor(), made["L0.resid_pre@-1"].as_tensor()
    assert torch.equal(last, torch.stack([whole[0, 6], whole[1, 3]]))
    changed = sj.run(model, given, keep=["L0.resid_pre"], interventions=[sj.zero("L0.resid_pre@-1")])[
        "L0.resid_pre"
    ].as_tensor()
    gone = (changed == 0).all(-1)
    assert gone.nonzero().tolist() == [[0, 6], [1, 3]]


def test_a_folder_is_loaded_with_its_head(tmp_path: Path) -> None:
    module, _ = pair("t5")
    module.save_pretrained(tmp_path / "t5")
    model = sj.load(tmp_path / "t5", cache=None)
    given = batch(2, 5, 7, 1)
    torch.testing.assert_close(sj.run(model, given).logits, expected(module, given), atol=1e-4, rtol=0)


def test_an_encoder_alone_is_a_model_of_one_side() -> None:
    module: Any = T5EncoderModel(T5Config(**T5)).eval()
    redraw(module, 0)
    model = load(module)
    given = {key: batch(3, 9, 5, 4)[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        wanted = module(**given).last_hidden_state
    torch.testing.assert_close(sj.run(model, given).output, wanted, atol=1e-5, rtol=1e-5)
