"""Models whose code has a step for each position (state spaces): captured for one length, exact there, and they say so."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    JambaConfig,
    Mamba2Config,
    MambaConfig,
    RecurrentGemmaConfig,
    RwkvConfig,
)

import scrubjay as sj
from scrubjay.capture import cache
from scrubjay.capture import load as loading
from scrubjay.capture.model import Model
from scrubjay.errors import CaptureError, FixedSizeError, InputError
from small_models import redraw

LENGTH, VOCABULARY = 6, 31
SAME: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "mamba": MambaConfig(**SAME, state_size=4, time_step_rank=2),
    "mamba2": Mamba2Config(**SAME, state_size=4, num_heads=4, head_dim=8, n_groups=1, chunk_size=4),
    "recurrent_gemma": RecurrentGemmaConfig(
        **{**SAME, "num_hidden_layers": 2}, intermediate_size=24, num_attention_heads=2, num_key_value_heads=1, lru_width=16,
        block_types=("recurrent", "attention"),
    ),
}  # fmt: skip


def build(kind: str) -> Any:
    module: Any = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[kind]), attn_implementation="eager").eval()
    redraw(module, 0)
    return module


@functools.cache
def pair(kind: str) -> tuple[Any, Model]:
    module = build(kind)
    return module, sj.load(module, length=LENGTH, cache=None)


def batch(rows: int, length: int = LENGTH, padded: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(rows)
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[0, :padded] = 0
    return {"input_ids": torch.randint(3, VOCABULARY, (rows, length), generator=draw), "attention_mask": mask}


@pytest.mark.parametrize("sizes", [(3, 0), (1, 0), (2, 2)], ids=["other rows", "one row", "padded"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_logits_are_the_modules_at_that_length(kind: str, sizes: tuple[int, int]) -> None:
    module, model = pair(kind)
    given = batch(sizes[0], padded=sizes[1])
    places = {"position_ids": (given["attention_mask"].cumsum(1) - 1).clamp(min=0)} if "gemma" in kind else {}
    with torch.no_grad():
        wanted = module(**given, **places, use_cache=False).logits
    found, real = sj.run(model, given).logits, given["attention_mask"].bool()
    torch.testing.assert_close(found[real], wanted[real], atol=3e-5 * float(wanted.std()), rtol=0)


def test_the_length_is_an_axis_like_any_other() -> None:
    _, model = pair("mamba")
    assert {str(axis) for axis in model.circuit.roots["logits"].axes} >= {"batch", f"query={LENGTH}"}
    assert dict(model.facts) == {"length": LENGTH}
    assert model.anatomy.notes[-1] == f"captured for inputs of {LENGTH} positions, as length= asked"
    made = sj.run(model, batch(3), keep=["backbone.layers.0.mixer", "backbone.layers.0.mixer@-1"])
    whole, last = (made[name].as_tensor() for name in ("backbone.layers.0.mixer", "backbone.layers.0.mixer@-1"))
    assert torch.equal(last, whole[:, -1])


@pytest.mark.parametrize("length", [1, LENGTH - 1, LENGTH + 3])
def test_another_length_is_refused(length: int) -> None:
    _, model = pair("mamba")
    with pytest.raises(
        InputError,
        match=rf"{length} places along 'query'.*captured for {LENGTH} alone: load it with length={length}, or pad",
    ):
        sj.run(model, batch(2, length))


def test_text_is_padded_to_that_length() -> None:
    module = build("mamba")

    class Letters:
        padding_side = "left"
        pad_token_id = 0

        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": [ord(letter) - 94 for letter in text]}

    model = sj.load(module, length=LENGTH, cache=None, tokenizer=Letters())
    made = sj.run(model, ["abc", "abcd"])
    with torch.no_grad():
        wanted = module(torch.tensor([[3, 4, 5]])).logits[0, -1]
    torch.testing.assert_close(made.logits[0, -1], wanted, atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match="load it with length=7"):
        sj.run(model, "abcdefg")


def test_without_a_length_one_is_chosen_and_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loading, "FALLBACK", LENGTH)
    module = build("mamba")
    model = sj.load(module, cache=tmp_path)
    assert (
        "a step for each position: captured for inputs of 6 positions; load it with length=N" in model.anatomy.notes[-1]
    )
    given = batch(3)
    with torch.no_grad():
        torch.testing.assert_close(sj.run(model, given).logits, module(**given).logits, atol=1e-5, rtol=1e-5)
    # the second load tries nothing again
    monkeypatch.setattr(cache, "capture", lambda *_: pytest.fail("captured again"))
    again = sj.load(module, cache=tmp_path)
    assert (again.anatomy.notes, again.facts) == (model.anatomy.notes, model.facts)
    torch.testing.assert_close(sj.run(again, given).logits, sj.run(model, given).logits, atol=0, rtol=0)


def test_a_model_that_takes_any_length_can_be_fixed_too() -> None:
    config = GPT2Config(
        n_layer=1, n_head=2, n_embd=8, vocab_size=VOCABULARY, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    module: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    redraw(module, 0)
    model = sj.load(module, length=LENGTH, cache=None)
    given = batch(3, padded=2)
    found = sj.run(model, given, keep=["L0.attn.pattern", "L0.attn.z@-1"])
    positions = (given["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        wanted = module(**given, position_ids=positions).logits
    real = given["attention_mask"].bool()
    torch.testing.assert_close(found.logits[real], wanted[real], atol=1e-5, rtol=1e-5)
    assert found["L0.attn.pattern"].as_tensor().shape == (3, 2, LENGTH, LENGTH)
    changed = sj.run(model, given, interventions=[sj.zero("L0.attn.z@0")]).logits
    assert (changed != found.logits).any(-1).nonzero().tolist()[0] == [0, 2]
    for length, said in ((1, "two or more"), (2.0, "two or more"), (True, "two or more"), (17, "at most 16")):
        with pytest.raises(InputError, match=said):
            sj.load(module, length=length, cache=None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="length= is for transformers models"):
        sj.load(torch.nn.Linear(2, 2).eval(), length=3, inputs={"x": torch.zeros(2, 2)})


def test_a_plain_module_is_never_given_a_length_of_our_own() -> None:
    class Stepping(torch.nn.Module):
        def forward(self, input_ids: Tensor) -> Tensor:
            return sum((input_ids[:, at] for at in range(input_ids.shape[1])), torch.zeros(()))  # pyright: ignore[reportReturnType]

    with pytest.raises(FixedSizeError, match="in truth fixed"):
        sj.load(Stepping().eval(), inputs={"input_ids": torch.zeros(2, 5, dtype=torch.long)}, cache=None)


def test_a_model_that_changes_its_weights_when_first_run_is_refused() -> None:
    config = RwkvConfig(
        vocab_size=VOCABULARY, hidden_size=8, num_hidden_layers=2, context_length=16, attention_hidden_size=8
    )
    module: Any = AutoModelForCausalLM.from_config(config).eval()
    redraw(module, 0)
    with pytest.raises(CaptureError, match=r"changes its own weights when it is first run.*run it once on any input"):
        sj.load(module, length=LENGTH, cache=None)
    ids = batch(3)["input_ids"]
    with torch.no_grad():
        wanted = module(ids, use_cache=False).logits
    model = sj.load(module, length=LENGTH, cache=None)
    torch.testing.assert_close(sj.run(model, ids).logits, wanted, atol=1e-5, rtol=1e-5)


def test_jamba_has_attention_and_states_and_experts() -> None:
    config = JambaConfig(
        **{**SAME, "num_hidden_layers": 2}, intermediate_size=24, num_attention_heads=2, num_key_value_heads=1, num_experts=4, num_experts_per_tok=2,
        mamba_d_state=4, mamba_dt_rank=2, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1, use_mamba_kernels=False,
    )  # fmt: skip
    module: Any = AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", experts_implementation="batched_mm"
    ).eval()
    redraw(module, 0)
    model = sj.load(module, length=LENGTH, cache=None)
    given = batch(3)
    with torch.no_grad():
        wanted = module(**given, use_cache=False).logits
    torch.testing.assert_close(sj.run(model, given).logits, wanted, atol=3e-5 * float(wanted.std()), rtol=0)
