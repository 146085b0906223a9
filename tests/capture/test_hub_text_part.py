"""The text part of models that also see, and models that read embeddings: results are the wrapper's own, on text alone."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

import scrubjay as sj
from scrubjay.capture import hub
from scrubjay.capture.model import Model
from scrubjay.errors import CaptureError, InputError
from small_models import batch, build, load, redraw

TEXT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "vocab_size": 101, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
SEEN: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8
}  # fmt: skip
SEEING: dict[str, Any] = {"gemma3": Gemma3Config, "paligemma": PaliGemmaConfig}
GEMMA3 = {**TEXT, "model_type": "gemma3_text", "sliding_window": 7}
BUILT = {
    "llava": lambda: LlavaForConditionalGeneration(
        LlavaConfig(text_config=LlamaConfig(**TEXT), vision_config=CLIPVisionConfig(**SEEN), image_token_index=99)
    ),
    "gemma3": lambda: Gemma3ForConditionalGeneration(
        SEEING["gemma3"](
            text_config=GEMMA3, vision_config={**SEEN, "model_type": "siglip_vision_model"}, mm_tokens_per_image=4, image_token_id=99
        )
    ),
    "paligemma": lambda: PaliGemmaForConditionalGeneration(
        SEEING["paligemma"](
            text_config={**TEXT, "model_type": "gemma"}, vision_config={**SEEN, "model_type": "siglip_vision_model"}, projection_dim=32,
            image_token_id=99,
        )
    ),
    "qwen2_vl": lambda: Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(
            text_config={**TEXT, "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}},
            vision_config={"embed_dim": 32, "depth": 1, "num_heads": 2, "hidden_size": 32, "patch_size": 4}, image_token_id=99, video_token_id=98,
            vision_start_token_id=97, vision_end_token_id=96,
        )
    ),
}  # fmt: skip


@functools.cache
def pair(kind: str) -> tuple[Any, Model]:
    module: Any = BUILT[kind]().eval()
    module.set_attn_implementation("eager")
    redraw(module, 0)
    return module, load(module)


def text(rows: int, length: int, padding: str) -> dict[str, Tensor]:
    given = batch(rows, length, padding)
    return {**given, "input_ids": given["input_ids"] % 90}


@pytest.mark.parametrize("sizes", [(3, 17, "left"), (2, 9, "right"), (1, 1, "none")], ids=str)
@pytest.mark.parametrize("kind", BUILT)
def test_logits_are_the_wrappers_own_on_text(kind: str, sizes: tuple[int, int, str]) -> None:
    module, model = pair(kind)
    given = text(*sizes)
    taken = {
        key: given[key]
        for key in ("input_ids", "attention_mask", "position_ids")
        if key in inspect.signature(module.forward).parameters
    }
    with torch.no_grad():
        wanted = module(**taken, return_dict=True).logits
    real = given["attention_mask"].bool()
    found = sj.run(model, {key: given[key] for key in ("input_ids", "attention_mask")})
    torch.testing.assert_close(found.logits[real], wanted[real], atol=1e-5 * float(wanted.std()) + 1e-6, rtol=1e-5)
    assert (model.layers, set(model.circuit.inputs)) == (1, set(taken))


def test_a_wrapper_is_loaded_from_a_folder(tmp_path: Path) -> None:
    module, _ = pair("llava")
    module.save_pretrained(tmp_path / "llava")
    opened = hub.open_source(tmp_path / "llava")
    assert (type(opened.module).__name__, opened.context) == ("LlavaForConditionalGeneration", 64)
    assert sorted(opened.signature.inputs) == ["attention_mask", "input_ids", "position_ids"]


# --- embeddings in place of ids ---


@functools.cache
def embedded(kind: str) -> tuple[Any, Model]:
    module = build(kind)
    return module, load(module, inputs={"inputs_embeds": torch.zeros(2, 12, 32)})


@pytest.mark.parametrize("sizes", [(3, 17, "left"), (2, 9, "right"), (1, 1, "none")], ids=str)
@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_embeddings_are_read_in_place_of_ids(kind: str, sizes: tuple[int, int, str]) -> None:
    module, model = embedded(kind)
    given = batch(*sizes)
    values = torch.randn(*given["input_ids"].shape, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        wanted = module(
            inputs_embeds=values, attention_mask=given["attention_mask"], position_ids=given["position_ids"]
        ).logits
    made = sj.run(model, {"inputs_embeds": values, "attention_mask": given["attention_mask"]}, keep=["L1.attn.z@-1"])
    real = given["attention_mask"].bool()
    torch.testing.assert_close(made.logits[real], wanted[real], atol=1e-5, rtol=1e-5)
    assert made["L1.attn.z@-1"].as_tensor().shape == (sizes[0], 4, 8)


def test_embeddings_of_ids_give_what_ids_give() -> None:
    module, model = embedded("llama")
    given = batch(3, 9, "none")
    ours = sj.run(model, {"inputs_embeds": module.get_input_embeddings()(given["input_ids"]).detach()}).logits
    with torch.no_grad():
        torch.testing.assert_close(ours, module(given["input_ids"]).logits, atol=1e-5, rtol=1e-5)


def test_embeddings_that_do_not_fit_are_refused() -> None:
    module, model = embedded("llama")
    for example, said in (
        (torch.zeros(2, 12), r"of shape \(2, 12\)"),
        (torch.zeros(2, 12, 32, dtype=torch.long), "is torch.int64"),
        (torch.zeros(2, 1, 32), "two positions or more"),
    ):
        with pytest.raises(InputError, match=said):
            sj.load(module, inputs={"inputs_embeds": example}, cache=None)
    with pytest.raises(InputError, match="knows its own inputs"):
        sj.load(module, inputs={"input_ids": torch.zeros(2, 12, dtype=torch.long)}, cache=None)
    with pytest.raises(InputError, match="leave out dynamic="):
        sj.load(module, dynamic={"input_ids": ("batch", "query")}, cache=None)
    with pytest.raises(InputError, match="leave out dynamic= and output="):
        sj.load("org/name", output="logits", cache=None)
    with pytest.raises(InputError, match="does not read token ids"):
        sj.run(model, [[1, 2, 3]])
    with pytest.raises(InputError, match=r"attention_mask has shape \(3, 8\) and the embeddings \(3, 9, 32\)"):
        sj.run(model, {"inputs_embeds": torch.zeros(3, 9, 32), "attention_mask": torch.ones(3, 8, dtype=torch.long)})
    with pytest.raises(InputError, match="takes at most 64"):
        sj.run(model, {"inputs_embeds": torch.zeros(1, 65, 32)})
    with pytest.raises(InputError, match="31 places along"):
        sj.run(model, {"inputs_embeds": torch.zeros(1, 5, 31)})


def test_a_model_without_text_reads_its_images() -> None:
    from transformers import CLIPVisionModel  # noqa: PLC0415

    module = CLIPVisionModel(CLIPVisionConfig(**SEEN)).eval()
    redraw(module, 0)
    model = sj.load(module, cache=None)
    image = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = module(pixel_values=image).last_hidden_state
    assert model.heads == (2,)
    assert torch.allclose(sj.run(model, {"pixel_values": image}).output, wanted, atol=1e-5)


def test_a_model_of_sound_is_refused() -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2Model  # noqa: PLC0415

    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    sizes |= {
        "conv_dim": (8,),
        "conv_kernel": (4,),
        "conv_stride": (2,),
        "num_feat_extract_layers": 1,
        "num_conv_pos_embeddings": 4,
    }
    sizes |= {"num_conv_pos_embedding_groups": 2}
    with pytest.raises(CaptureError, match="takes no input_ids but input_values"):
        sj.load(Wav2Vec2Model(Wav2Vec2Config(**sizes)).eval(), cache=None)
