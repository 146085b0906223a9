"""What `sweeps.py` measures on: the sizes, the models and pairs of inputs, the folder that other tools are given, and the arithmetic that is needed.

Multiply-adds are counted here from the sizes alone, and not by Scrubjay: what a sweep cannot do without.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import scrubjay as sj


@dataclass(frozen=True)
class Sizes:
    """The sizes of the models and of the batch; GPT-2 small's unless told otherwise."""

    layers: int = 12
    heads: int = 12
    groups: int = 4
    width: int = 768
    hidden: int = 3072
    vocabulary: int = 50257
    batch: int = 8
    length: int = 64
    edge_length: int = 17
    harvest: int = 48

    @property
    def shared(self) -> int:
        """Tokens at the start that clean and corrupted rows of the edges' inputs have in common."""
        return 2


SMALL = Sizes(2, 4, 2, 96, 256, 500, 3, 8, 6, 9)
SPREAD = 0.06
"""The standard deviation of the weights: three times the usual, so that patches move the metric well beyond rounding; of a llama, which
scales down nothing that is written to the stream, two thirds of it."""


def gpt2(sizes: Sizes, device: str) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=sizes.layers, n_head=sizes.heads, n_embd=sizes.width, n_inner=sizes.hidden, vocab_size=sizes.vocabulary, use_cache=False,
        initializer_range=SPREAD, attn_implementation="eager", bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval().to(device)


def llama(sizes: Sizes, device: str) -> LlamaForCausalLM:
    torch.manual_seed(1)
    config = LlamaConfig(
        num_hidden_layers=sizes.layers, num_attention_heads=sizes.heads, num_key_value_heads=sizes.groups, hidden_size=sizes.width,
        intermediate_size=sizes.hidden * 2 // 3, vocab_size=sizes.vocabulary, use_cache=False, initializer_range=SPREAD * 2 / 3,
        attn_implementation="eager", bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval().to(device)


def pairs(sizes: Sizes, length: int, shared: int = 0) -> sj.Task:
    """Return random rows in pairs that begin with `shared` equal tokens; the same answers for every length."""
    draw = np.random.default_rng(0)
    answers = draw.integers(0, sizes.vocabulary // 2, sizes.batch)
    wrong = draw.integers(sizes.vocabulary // 2, sizes.vocabulary, sizes.batch)
    clean, corrupted = (draw.integers(0, sizes.vocabulary, (sizes.batch, length)) for _ in range(2))
    corrupted[:, :shared] = clean[:, :shared]
    return sj.Task("random pairs", {"input_ids": clean}, {"input_ids": corrupted}, answers, wrong)


def handed(folder: Path, sizes: Sizes, modules: dict[str, Any]) -> None:
    """Write what other tools are given: weights as safetensors, a tokenizer, inputs and answers."""
    from tokenizers import Tokenizer, models  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()
    for name, module in modules.items():
        module.save_pretrained(folder / name)
        PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")), bos_token="a", eos_token="a", pad_token="a"
        ).save_pretrained(folder / name)  # fmt: skip
    given: dict[str, Any] = {"sizes": np.array([sizes.layers, sizes.heads])}
    for length, shared in ((sizes.length, 0), (sizes.edge_length, sizes.shared)):
        task = pairs(sizes, length, shared)
        given |= {f"clean.{length}": task.clean["input_ids"], f"corrupted.{length}": task.counterfactual["input_ids"]}
        given |= {"answers": task.answers, "wrong": task.wrong}
    save_file({name: torch.tensor(np.array(value)) for name, value in given.items()}, folder / "inputs.safetensors")


# --- the arithmetic that is needed ---


def settled(device: str) -> None:
    """Wait until a device has done what it was given."""
    if device != "cpu":
        torch.cuda.synchronize()


def rate(rows: int, inner: int, outer: int, device: str) -> float:
    """Return torch.mm's multiply-adds a second at a shape, the median of several."""
    a, b = torch.randn(rows, inner, device=device), torch.randn(inner, outer, device=device)
    taken: list[float] = []
    for _ in range(9):
        settled(device)
        begun = time.perf_counter()
        torch.mm(a, b)
        settled(device)
        taken.append(time.perf_counter() - begun)
    return rows * inner * outer / statistics.median(taken[2:])


def layer_work(sizes: Sizes, rows: int, last: bool) -> float:
    """Return the multiply-adds of a layer for the last `rows` positions of each row.

    In the last layer one query is read: its keys and values need not be made, where the query goes through the keys' weights and the mean of
    the stream through the values'.
    """
    square, mlp = sizes.width**2, 2 * sizes.width * sizes.hidden
    made = rows * 2 * square
    if not last:
        return sizes.batch * (made + rows * (2 * square + mlp + 2 * sizes.length * sizes.width))
    attended = min(made + 2 * sizes.length * sizes.width, 2 * square + 2 * sizes.heads * sizes.length * sizes.width)
    return sizes.batch * (attended + 2 * square + mlp)


def forward_work(sizes: Sizes) -> float:
    """Return the multiply-adds of a plain forward, logits at every position."""
    unembedded = sizes.batch * sizes.length * sizes.width * sizes.vocabulary
    return sizes.layers * layer_work(sizes, sizes.length, last=False) + unembedded


def above(sizes: Sizes, layer: int, rows: int) -> float:
    """Return the multiply-adds of the layers from one on, and of the read-out of two tokens."""
    whole = sum(layer_work(sizes, rows, later == sizes.layers - 1) for later in range(layer, sizes.layers))
    return whole + sizes.batch * 2 * sizes.width


def resid_work(sizes: Sizes) -> float:
    """Return the multiply-adds of the sweep of resid_pre: each layer and position, the positions from the patch on."""
    return sum(
        above(sizes, layer, sizes.length - place) for layer in range(sizes.layers) for place in range(sizes.length)
    )


def head_work(sizes: Sizes) -> float:
    """Return the multiply-adds of patching every head's z at all positions: its projection, the MLP, and the later layers."""
    total = 0.0
    for layer in range(sizes.layers):
        read = 1 if layer == sizes.layers - 1 else sizes.length
        own = sizes.batch * read * (sizes.width**2 / sizes.heads + 2 * sizes.width * sizes.hidden)
        total += sizes.heads * (own + above(sizes, layer + 1, sizes.length))
    return total


def path_work(sizes: Sizes) -> float:
    """Return the multiply-adds of all paths from a head to a later head's queries: what that head does anew, the MLP, the later layers."""
    total = 0.0
    for layer in range(sizes.layers):
        read = 1 if layer == sizes.layers - 1 else sizes.length
        head = 2 * sizes.width**2 / sizes.heads + 2 * sizes.length * sizes.width / sizes.heads
        own = sizes.batch * read * (head + 2 * sizes.width * sizes.hidden)
        total += sizes.heads**2 * layer * (own + above(sizes, layer + 1, sizes.length))
    return total


def kept_bytes(sizes: Sizes) -> int:
    """Return the bytes of the kept values and the logits, each once: one layer's resid_post is the next one's resid_pre."""
    stream, hidden = sizes.length * sizes.width, sizes.length * sizes.hidden
    layer = (
        7 * stream + 2 * hidden + sizes.heads * sizes.length**2
    )  # mid, post, q, k, v, z, mlp out; mlp pre and post; pattern
    return 4 * sizes.batch * (sizes.layers * layer + stream + sizes.length * sizes.vocabulary)


def timed(work: Callable[[], Any], device: str) -> tuple[Any, float, float]:
    """Return what a piece of work gives, its seconds, and those of the processor."""
    settled(device)
    wall, processor = time.perf_counter(), time.process_time()
    made = work()
    settled(device)
    return made, time.perf_counter() - wall, time.process_time() - processor
