"""Small models of three families, their weights drawn so that pre-activations and logits have unit scale, captured once.

At a library's own initialisation (weights near 0.02) a wrong activation or epsilon changes logits by less than rounding
does, and a comparison shows nothing. Everything that tests compare with is the torch module itself.
"""

from __future__ import annotations

import atexit
import copy
import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

import scrubjay as sj
from scrubjay.capture.model import Model

os.environ.setdefault("HF_HUB_OFFLINE", "1")

KINDS = ("gpt2", "llama", "bert")
VOCABULARY, CONTEXT, LAYERS, HEADS, WIDTH, HIDDEN = 101, 64, 2, 4, 32, 48
KV_HEADS = {"gpt2": 4, "llama": 2, "bert": 4}
EPSILON = 1e-5

FOLDER = tempfile.TemporaryDirectory(prefix="scrubjay-tests-")
atexit.register(FOLDER.cleanup)


def build(kind: str, attention: str = "eager", seed: int = 0) -> Any:
    """Return a module in evaluation mode; `seed` draws its weights."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, BertConfig, GPT2Config, LlamaConfig  # noqa: PLC0415

    same: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    if kind == "gpt2":
        config: Any = GPT2Config(
            n_layer=LAYERS, n_head=HEADS, n_embd=WIDTH, n_positions=CONTEXT, n_inner=HIDDEN, layer_norm_epsilon=EPSILON, **same
        )
    else:
        same |= {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "hidden_size": WIDTH, "intermediate_size": HIDDEN}
        same |= {"max_position_embeddings": CONTEXT}
        if kind == "llama":
            config = LlamaConfig(num_key_value_heads=KV_HEADS[kind], rms_norm_eps=EPSILON, **same)
        else:
            config = BertConfig(layer_norm_eps=EPSILON, **same)
    auto = AutoModelForMaskedLM if kind == "bert" else AutoModelForCausalLM
    module = auto.from_config(config, attn_implementation=attention).eval()
    redraw(module, seed)
    return module


def redraw(module: nn.Module, seed: int) -> None:
    """Draw every weight anew: matrices that keep the scale of what they read, norms near one, biases that matter."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            noise = torch.randn(weight.shape, generator=draw)
            if weight.dim() > 1:
                # Conv1D of gpt2 stores (in, out), linear maps (out, in); embeddings are read by a tied unembedding
                weight.copy_(noise * (weight.shape[0] if "c_" in name else weight.shape[1]) ** -0.5)
            elif name.endswith("bias"):
                weight.copy_(noise * 0.2)
            else:
                weight.copy_(1 + noise * 0.2)


@functools.cache
def captured(kind: str, attention: str = "eager") -> tuple[Any, Model]:
    """Return a module and the model captured from it, the same pair every time: neither may be changed."""
    module = build(kind, attention)
    return module, load(module, name=kind)


def load(module: nn.Module, **options: Any) -> Model:
    """Return a model captured from a module; circuits are kept for as long as the tests run."""
    return sj.load(module, cache=FOLDER.name, **options)


def batch(rows: int = 3, length: int = 17, padding: str = "both", seed: int = 1) -> dict[str, Tensor]:
    """Return ids, padding mask and real positions; rows are padded by different amounts on the side(s) `padding` names."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCABULARY, (rows, length), generator=draw)
    mask = torch.ones(rows, length, dtype=torch.long)
    for row in range(rows):
        many = min((row * 3 + 2) % 7, length - 1)
        if padding == "left" or (padding == "both" and row % 3 == 0):
            mask[row, :many] = 0
        elif padding == "right" or (padding == "both" and row % 3 == 1):
            mask[row, length - many :] = 0
    return {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}


def logits_of(module: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Return what the module itself gives."""
    with torch.no_grad():
        return module(**inputs, return_dict=True).logits


class Widened(TorchFunctionMode):
    """While on, whatever torch code asks for in a narrower floating type it gets in 64 bits.

    So a module in float64 runs without the casts to float32 that its code writes out, and with no change to that code.
    """

    NARROW = (torch.float32, torch.bfloat16, torch.float16)
    METHODS = (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function with 64 bits wherever a narrower type is named."""
        if func in self.METHODS:
            func = torch.Tensor.double
        kwargs = {name: self.widened(item) for name, item in (kwargs or {}).items()}
        return func(*(self.widened(item) for item in args), **kwargs)

    def widened(self, item: Any) -> Any:
        """Return 64 bits for a narrower floating type, anything else as it is."""
        return torch.float64 if any(item is narrow for narrow in self.NARROW) else item


def wide(module: nn.Module) -> nn.Module:
    """Return a copy of the module in 64 bits, for use inside `Widened()`."""
    return copy.deepcopy(module).double()


@contextmanager
def hooked(table: dict[nn.Module, Any]) -> Iterator[None]:
    """Put a forward hook on each module for a while: `hook(module, args, output)` as torch calls it."""
    handles = [module.register_forward_hook(hook) for module, hook in table.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def first(output: Any) -> Tensor:
    """Return the tensor of a module's output, or the first of several."""
    return output[0] if isinstance(output, tuple) else output


def kept(module: nn.Module, parts: dict[str, nn.Module], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the outputs of parts of a module in one run of it."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _module, _args, output: found.__setitem__(name, first(output).detach())

    with hooked({part: keep(name) for name, part in parts.items()}):
        logits_of(module, inputs)
    return found


def read(module: nn.Module, parts: dict[str, nn.Module], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what parts of a module are given, in one run of it."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, args: Any, kwargs: Any) -> None:
            found[name] = (args[0] if args else kwargs["hidden_states"]).detach()

        return hook

    handles = [part.register_forward_pre_hook(keep(name), with_kwargs=True) for name, part in parts.items()]
    try:
        logits_of(module, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def heads_of(value: Tensor, heads: int) -> Tensor:
    """Return (batch, query, head * d_head) as (batch, query, head, d_head)."""
    return value.unflatten(-1, (heads, -1))


def activation(kind: str, value: Tensor) -> Tensor:
    """Return the family's activation, written out: tanh GELU, SiLU, exact GELU."""
    if kind == "gpt2":
        return 0.5 * value * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (value + 0.044715 * value**3)))
    return functional.silu(value) if kind == "llama" else 0.5 * value * (1 + torch.erf(value / 2**0.5))
