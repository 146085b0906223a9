"""In each floating type a run is as near to the module in 64 bits as the module itself is in that type.

How much rounding is, only the module can say: its own error against 64 bits. Ours may be three times that: sums are taken in another order,
and where torch has one call that rounds at its end (a layer norm, x W + b), each step of it is rounded.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import families
import scrubjay as sj
import small_models
from pairs import difference, task_of
from scrubjay.errors import InputError

TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
every_type = pytest.mark.parametrize("dtype", TYPES, ids=str)
PADDING = {"gpt2": "left", "llama": "left", "bert": "both", "gemma2": "left"}


def build(kind: str) -> Any:
    return small_models.build(kind) if kind in small_models.KINDS else families.build(kind)


def narrowed(module: Any, dtype: torch.dtype) -> Any:
    """A copy of a module in a floating type, with the buffers that transformers keeps in 32 bits (rotary frequencies) left so."""
    made = copy.deepcopy(module)
    for weight in made.parameters():
        weight.data = weight.data.to(dtype)
    return made


def given(kind: str) -> dict[str, torch.Tensor]:
    made = small_models.batch(3, 11, PADDING[kind])
    made["input_ids"] = made["input_ids"].clamp(min=families.FIRST_ID)
    return made


def apart(one: torch.Tensor, two: torch.Tensor, real: torch.Tensor) -> float:
    return float((one.double() - two.double())[real].abs().max())


@pytest.mark.parametrize("kind", PADDING)
def test_a_run_is_as_near_to_the_truth_as_the_module(kind: str) -> None:
    module, inputs = build(kind), given(kind)
    real = inputs["attention_mask"].bool()
    with torch.no_grad(), small_models.Widened():
        truth = small_models.wide(module)(**inputs).logits
    for dtype in TYPES[1:]:
        narrow = narrowed(module, dtype)
        theirs = small_models.logits_of(narrow, inputs)
        allowed = 3 * apart(theirs, truth, real)
        for model in (small_models.load(narrow), small_models.load(module, dtype=dtype)):
            for fused in (False, True):
                made = sj.run(model, inputs, keep="L1.resid_post", fused=fused)
                assert made.logits.dtype == made["L1.resid_post"].as_tensor().dtype == dtype
                assert apart(made.logits, truth, real) <= allowed
    wide = sj.run(small_models.load(module).exact(), inputs).logits
    assert wide.dtype == torch.float64
    assert apart(wide, truth, real) < 1e-10


@every_type
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_sweeps_gradients_and_generation_in_each_type(kind: str, dtype: torch.dtype) -> None:
    module, wide = small_models.captured(kind)
    model, task = small_models.load(module, dtype=dtype), task_of(length=9)
    inputs = {name: torch.tensor(one) for name, one in task.clean.items()}
    # llama's own code takes its norms and its softmax in 32 bits whatever the type
    eps = torch.finfo(torch.float32 if kind == "llama" and dtype == torch.float64 else dtype).eps
    scale = float(sj.run(wide, inputs).logits.abs().max())

    right = sj.sweep(wide.exact(), task, ["L*.resid_pre", "L1.H2.z"], positions="each")
    made = sj.sweep(model, task, ["L*.resid_pre", "L1.H2.z"], positions="each")
    # a forward of two layers rounds some tens of times, each time by at most eps / 2 of values of the logits' size
    assert np.abs(made.values - right.values).max() < 20 * eps * scale
    assert np.abs(made.clean - difference(sj.run(model, inputs).logits.double(), task)).max() < 20 * eps * scale

    def slope(one: Any) -> torch.Tensor:
        run = sj.run(one, inputs, "L0.resid_post", scalar=lambda run: run.logits[:, -1, 5].sum())
        return run.grad["L0.resid_post"].as_tensor()

    mine, theirs = slope(model), slope(wide.exact())
    assert mine.dtype == dtype
    assert float((mine.double() - theirs).abs().max()) < 40 * eps * float(theirs.abs().max())

    prompt = {name: one[:, :4] for name, one in inputs.items()}
    written = sj.generate(model, prompt, tokens=4)
    whole = dict(written.inputs)
    logits = sj.run(model, whole).logits[:, 3:-1].double()
    taken = logits.gather(-1, written.tokens[:, :, None])[..., 0]
    assert float((logits.amax(-1) - taken).max()) < 20 * eps * scale  # the most probable one, up to rounding
    assert written.positions == (4, 1, 1, 1)


def test_a_type_or_device_that_is_none_is_refused() -> None:
    module = small_models.build("gpt2")
    for dtype in ("float8", torch.int64, "int32", "nothing"):
        with pytest.raises(InputError, match="is not a floating type: use float32"):
            small_models.load(module, dtype=dtype)
    for device in ("nowhere", "cuda:x", "gpu"):
        with pytest.raises(InputError, match="is none: give 'cpu'"):
            small_models.load(module, device=device)
    if not torch.cuda.is_available():
        for device in ("cuda", "cuda:0"):
            with pytest.raises(InputError, match="this torch finds no CUDA device; leave device= out"):
                small_models.load(module, device=device)
    if not torch.backends.mps.is_available():
        with pytest.raises(InputError, match="cannot be used here"):
            small_models.load(module, device="mps")
    with pytest.raises(InputError, match="has shapes and no numbers"):
        small_models.load(module, device="meta")
