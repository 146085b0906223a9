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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import scrubjay as sj
from scrubjay.capture.model import Model

os.environ.setdefault("HF_HUB_OFFLINE", "1")

KINDS = ("gpt2", "llama", "bert")
VOCABULARY, CONTEXT, LAYERS, HEADS, WIDTH, HIDDEN = 101, 64, 2, 4, 32, 48
KV_HEADS = {"gpt2": 4, "llama": 2, "bert": 4}
EPSILON = 1e-5

Change = Callable[[Tensor], Tensor]

FOLDER = tempfile.TemporaryDirectory(prefix="scrubjay-tests-")
atexit.register(FOLDER.cleanup)


def build(kind: str, attention: str = "eager", seed: int = 0) -> Any:
    """Return a module in evaluation mode; `seed` draws its weights."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, BertConfig, GPT2Config, LlamaConfig  # noqa: PLC0415

    same: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    if kind == "gpt2":
        config: Any = GPT2Config(
            n_layer=LAYERS,
            n_head=HEADS,
            n_embd=WIDTH,
            n_positions=CONTEXT,
            n_inner=HIDDEN,
            layer_norm_epsilon=EPSILON,
            **same,
        )
    else:
        same |= {
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "hidden_size": WIDTH,
            "intermediate_size": HIDDEN,
        }
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


@dataclass(frozen=True, eq=False)
class Spot:
    """Where a torch module has a value: the input or output of one of its parts, or some columns of it."""

    part: Any
    of_input: bool = False
    columns: tuple[int, int] | None = None


def spots(kind: str, module: Any) -> dict[str, Spot]:
    """Return the spots of the whole values of a model, by address; q, k, v and z have their heads side by side."""
    find = {"gpt2": _gpt2, "llama": _llama, "bert": _bert}[kind]
    return find(module)


def _gpt2(module: Any) -> dict[str, Spot]:
    base = module.transformer
    found = {"embed": Spot(base.wte), "pos_embed": Spot(base.wpe), "ln_f": Spot(base.ln_f, of_input=True)}
    for layer, block in enumerate(base.h):
        stretch = {name: (place * WIDTH, (place + 1) * WIDTH) for place, name in enumerate("qkv")}
        found |= {
            f"L{layer}.attn.{name}": Spot(block.attn.c_attn, columns=columns) for name, columns in stretch.items()
        }
        found |= _layer(layer, block, block.attn, block.attn.c_proj, block.ln_1, block.ln_2)
        found |= _mlp(layer, block.mlp, block.mlp.c_fc, block.mlp.c_proj, block.ln_2)
    return found


def _llama(module: Any) -> dict[str, Spot]:
    base = module.model
    found = {"embed": Spot(base.embed_tokens), "ln_f": Spot(base.norm, of_input=True)}
    for layer, block in enumerate(base.layers):
        attention, norm, mlp = block.self_attn, block.post_attention_layernorm, block.mlp
        found |= {f"L{layer}.attn.{name}": Spot(getattr(attention, f"{name}_proj")) for name in "qkv"}
        found |= _layer(layer, block, attention, attention.o_proj, block.input_layernorm, norm)
        found |= _mlp(layer, mlp, mlp.gate_proj, mlp.down_proj, norm)
        found |= {f"L{layer}.mlp.gate": Spot(mlp.gate_proj), f"L{layer}.mlp.up": Spot(mlp.up_proj)}
    return found


def _layer(layer: int, block: Any, attention: Any, o: Any, ln1: Any, ln2: Any) -> dict[str, Spot]:
    """Return the spots of a layer whose norms stand before what reads them."""
    sites = {
        "resid_pre": Spot(block, of_input=True),
        "resid_mid": Spot(ln2, of_input=True),
        "resid_post": Spot(block),
        "attn.z": Spot(o, of_input=True),
        "attn.o": Spot(o),
        "attn.out": Spot(attention),
        "ln1": Spot(ln1, of_input=True),
        "ln2": Spot(ln2, of_input=True),
    }
    return {f"L{layer}.{site}": spot for site, spot in sites.items()}


def _mlp(layer: int, mlp: Any, up: Any, down: Any, reads: Any) -> dict[str, Spot]:
    sites = {"in": Spot(reads, of_input=True), "pre": Spot(up), "post": Spot(down, of_input=True), "out": Spot(mlp)}
    return {f"L{layer}.mlp.{site}": spot for site, spot in sites.items()}


def _bert(module: Any) -> dict[str, Spot]:
    base = module.bert
    found = {"embed": Spot(base.embeddings.word_embeddings), "pos_embed": Spot(base.embeddings.position_embeddings)}
    for layer, block in enumerate(base.encoder.layer):
        attention, close = block.attention, block.output
        names = {"q": attention.self.query, "k": attention.self.key, "v": attention.self.value}
        found |= {f"L{layer}.attn.{name}": Spot(part) for name, part in names.items()}
        dense, norm = attention.output.dense, attention.output.LayerNorm
        found |= _layer(layer, block, dense, dense, norm, close.LayerNorm)
        # the norms follow the sums: resid_mid and resid_post are the sums themselves
        found |= {
            f"L{layer}.resid_mid": Spot(norm, of_input=True),
            f"L{layer}.resid_post": Spot(close.LayerNorm, of_input=True),
        }
        found |= _mlp(layer, close.dense, block.intermediate.dense, close.dense, block.intermediate.dense)
    return found


def values(module: nn.Module, table: dict[str, Spot], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the values at spots, in one run of the module."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Change:
        return lambda value: found.__setitem__(name, value.detach()) or value

    with_changes(module, [(spot, keep(name)) for name, spot in table.items()], inputs)
    return found


def with_changes(
    module: nn.Module, changes: Sequence[tuple[Spot, Change]], inputs: dict[str, Tensor], *, gradients: bool = False
) -> Tensor:
    """Return the logits of the module with values at spots changed by functions, in order, as hooks see them."""
    handles = [_hook(spot, change) for spot, change in changes]
    try:
        with torch.set_grad_enabled(gradients):
            return module(**inputs, return_dict=True).logits
    finally:
        for handle in handles:
            handle.remove()


def _hook(spot: Spot, change: Change) -> Any:
    def new(value: Tensor) -> Tensor:
        if spot.columns is None:
            return change(value)
        first, end = spot.columns
        return torch.cat([value[..., :first], change(value[..., first:end]), value[..., end:]], -1)

    if not spot.of_input:
        return spot.part.register_forward_hook(
            lambda _part, _args, output: (new(output[0]), *output[1:]) if isinstance(output, tuple) else new(output)
        )

    def before(_part: Any, args: Any, kwargs: Any) -> Any:
        if args:
            return (new(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": new(kwargs["hidden_states"])}

    return spot.part.register_forward_pre_hook(before, with_kwargs=True)


def by_head(value: Tensor, heads: int) -> Tensor:
    """Return (batch, query, head * d_head) as (batch, query, head, d_head)."""
    return value.unflatten(-1, (heads, -1))


def activation(kind: str, value: Tensor) -> Tensor:
    """Return the family's activation, written out: tanh GELU, SiLU, exact GELU."""
    if kind == "gpt2":
        return 0.5 * value * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (value + 0.044715 * value**3)))
    return value * torch.sigmoid(value) if kind == "llama" else 0.5 * value * (1 + torch.erf(value / 2**0.5))
