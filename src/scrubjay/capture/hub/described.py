"""How a transformers model is called: example inputs by argument name, their axes, and what is read off its result."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scrubjay.capture.export import Signature
from scrubjay.capture.hub.opened import Opened
from scrubjay.capture.hub.wrapper import inside, unwrapped
from scrubjay.errors import CaptureError, InputError

BATCH, LENGTH, SOURCE_LENGTH = 2, 12, 11
"""The size of the example that a model is captured with; an encoder's length differs from its decoder's."""

BESIDE_EMBEDDINGS = ("attention_mask", "position_ids")
"""What a model is given beside `inputs_embeds`."""

AS_A_MODULE = "capture it as a plain module with inputs=, dynamic= and output="


def is_pretrained(module: nn.Module) -> bool:
    """Tell whether a module is a transformers model or wraps one.

    >>> is_pretrained(nn.Linear(2, 2))
    False
    """
    transformers = sys.modules.get("transformers")
    return transformers is not None and isinstance(inside(module), transformers.PreTrainedModel)


def describe(
    module: nn.Module,
    name: str | None = None,
    tokenizer: Any = None,
    length: int | None = None,
    inputs: Mapping[str, torch.Tensor] | None = None,
) -> Opened:
    """Return a transformers model in hand with its signature; nothing of the model is changed.

    Its attention implementation stays as it is. Data parallel and PEFT wrappers are taken off (`unwrapped`). A model with an
    encoder and a decoder reads `input_ids` over (batch, source) and `decoder_input_ids` over (batch, query).

    Args:
        module: the model, in evaluation mode.
        name: what to call it; its own name if not given.
        tokenizer: its tokenizer.
        length: the one length that it will be captured for; any length if not given.
        inputs: `{"inputs_embeds": example}`, of shape (batch, query, model), for a model that is to read embeddings.

    Raises `CaptureError` for a model that is compiled, quantised, or takes no token ids, and `InputError` for other inputs.
    """
    given = type(module).__name__
    model: Any = unwrapped(module)
    _check_capturable(model, given)
    config = model.config.get_text_config(decoder=True)
    context = _context(config)
    _check_length(length, context, given)
    takes = inspect.signature(model.forward).parameters
    if inputs is not None:
        examples, axes = _embedded(model, inputs, takes, length)
    elif "input_ids" not in takes and "pixel_values" in takes:
        examples, axes = _pixels(model.config, given)
    elif "input_ids" not in takes:
        raise CaptureError(
            f"{given} takes no input_ids but {', '.join(takes)}: only models of text and of images are described on their own; {AS_A_MODULE}"
        )
    else:
        examples, axes = _tokens(model, config, takes, length or min(LENGTH, context or LENGTH))
    signature = Signature(
        examples,
        axes,
        *_result(model, takes),
        static=frozenset() if length is None else frozenset({"query", "source"}),
    )
    told: dict[str, object] = {} if length is None else {"length": length}
    if "decoder_input_ids" in takes:
        told["decoder_start"] = getattr(model.config, "decoder_start_token_id", None)
    own = name or Path(str(getattr(model, "name_or_path", "") or type(model).__name__)).name
    return Opened(model, signature, own, tokenizer, context, _facts(model), told)


def at_length(opened: Opened, length: int) -> Opened:
    """Return an opened model as it is described for one length only."""
    example = opened.signature.inputs.get("inputs_embeds")
    inputs = None if example is None else {"inputs_embeds": example[:, :1].expand(-1, length, -1).clone()}
    return replace(describe(opened.module, opened.name, opened.tokenizer, length, inputs), facts=opened.facts)


def _tokens(
    model: Any, config: Any, takes: Mapping[str, Any], length: int
) -> tuple[dict[str, torch.Tensor], dict[str, tuple[str | None, ...]]]:
    """Return the example of a model that reads token ids, and the axes of each input."""
    size = _vocabulary(model, config)
    rows = ("batch", "query")
    if "decoder_input_ids" in takes:
        source = max(2, min(SOURCE_LENGTH, length - 1)) if length > 2 else length
        made = {
            "input_ids": (_ids(source, size), ("batch", "source")),
            "attention_mask": (torch.ones(BATCH, source, dtype=torch.long), ("batch", "source")),
            "decoder_input_ids": (_ids(length, size), rows),
            "decoder_attention_mask": (torch.ones(BATCH, length, dtype=torch.long), rows),
        }
    else:
        made = {
            "input_ids": (_ids(length, size), rows),
            "attention_mask": (torch.ones(BATCH, length, dtype=torch.long), rows),
            "position_ids": (_places(length), rows),
        }
    taken = {key: pair for key, pair in made.items() if key in takes}
    return {key: tensor for key, (tensor, _) in taken.items()}, {key: axes for key, (_, axes) in taken.items()}


def _pixels(config: Any, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, tuple[str | None, ...]]]:
    """Return the example of a model that reads images of one size, and its axes."""
    size: Any = getattr(config, "image_size", None)
    channels: Any = getattr(config, "num_channels", None)
    sides: list[Any] = [*size] if isinstance(size, list | tuple) else [size, size]
    if not all(isinstance(one, int) for one in (channels, *sides)):
        raise CaptureError(f"the configuration of {kind} names no image_size and num_channels: {AS_A_MODULE}")
    example = torch.randn([BATCH, channels, *sides], generator=torch.Generator().manual_seed(0))
    return {"pixel_values": example}, {"pixel_values": ("batch", None, None, None)}


def reads_text(module: nn.Module) -> bool:
    """Tell whether a transformers model reads token ids: such a one is described on its own."""
    return "input_ids" in inspect.signature(inside(module).forward).parameters


def facts_of(module: nn.Module) -> dict[str, Any]:
    """Return what the captured circuit of a transformers model depends on beside its structure."""
    return _facts(unwrapped(module))


def _embedded(
    model: Any, inputs: Mapping[str, torch.Tensor], takes: Mapping[str, Any], length: int | None
) -> tuple[dict[str, torch.Tensor], dict[str, tuple[str | None, ...]]]:
    """Return the example of a model that reads embeddings, with mask and positions where it takes them."""
    kind = type(model).__name__
    if set(inputs) != {"inputs_embeds"}:
        raise InputError(
            f"inputs= names {', '.join(inputs) or 'nothing'}: a transformers model knows its own inputs, so leave it out, or give "
            "inputs={'inputs_embeds': example} for one that is to read embeddings; its mask and positions are found without"
        )
    if "inputs_embeds" not in takes or "decoder_input_ids" in takes:
        raise InputError(f"{kind} cannot be captured from inputs_embeds: {AS_A_MODULE} of the part that reads them")
    example = inputs["inputs_embeds"]
    if example.dim() != 3 or not example.is_floating_point() or min(example.shape[:2]) < 2:
        raise InputError(
            f"inputs_embeds is {example.dtype} of shape {tuple(example.shape)}: give floating numbers of shape (batch, query, model), "
            "with two rows or more and two positions or more"
        )
    rows, here = example.shape[:2]
    if length is not None and length != here:
        raise InputError(f"length={length} was asked for, and the example of inputs_embeds has {here} positions")
    beside = {
        "attention_mask": torch.ones(rows, here, dtype=torch.long),
        "position_ids": torch.arange(here).expand(rows, here).clone(),
    }
    made = {"inputs_embeds": example, **{key: beside[key] for key in BESIDE_EMBEDDINGS if key in takes}}
    return made, {key: ("batch", "query", None)[: tensor.dim()] for key, tensor in made.items()}


def _result(model: Any, takes: Mapping[str, Any]) -> tuple[_Pick, dict[str, Any], str]:
    """Return what is read off a model's result, the further arguments of a call, and what the result is."""
    # a base model has no head of its own: it gives its last hidden state
    bare = model.base_model is model and model.get_output_embeddings() is None
    read, result = ("last_hidden_state", "output") if bare else ("logits", "logits")
    fixed: dict[str, Any] = {"use_cache": False} if "use_cache" in takes or "decoder_input_ids" in takes else {}
    if "return_dict" in takes or any(one.kind is one.VAR_KEYWORD for one in takes.values()):
        fixed["return_dict"] = True
    return _Pick(read), fixed, result


def _ids(length: int, size: int) -> torch.Tensor:
    return (torch.arange(BATCH * length) * 7 + 3).remainder(size).reshape(BATCH, length)


def _places(length: int) -> torch.Tensor:
    return torch.arange(length).expand(BATCH, length).clone()


@dataclass(frozen=True)
class _Pick:
    """Read one tensor off what a model returns."""

    name: str

    def __call__(self, result: Any) -> torch.Tensor:
        """Return the tensor; raise `CaptureError` where there is none of that name."""
        if not isinstance(result, Mapping) or not isinstance(result.get(self.name), torch.Tensor):
            found = ", ".join(map(str, result)) if isinstance(result, Mapping) else type(result).__name__
            raise CaptureError(
                f"the model should return {self.name!r} and returned {found}: capture it as a plain module with inputs= and output="
            )
        return result[self.name]


def _check_capturable(model: Any, given: str) -> None:
    kind = type(model).__name__
    if not is_pretrained(model):
        raise CaptureError(f"{given} is not a transformers model: {AS_A_MODULE}")
    if (
        getattr(model, "hf_quantizer", None) is not None
        or getattr(model.config, "quantization_config", None) is not None
    ):
        raise CaptureError(
            f"{kind} is quantised: its weights are packed integers, which have no circuit yet; load it with dtype=torch.bfloat16 and no quantization_config"
        )
    packed = [
        name
        for name, weight in model.named_parameters()
        if not weight.is_floating_point() or type(weight).__module__.startswith("bitsandbytes")
    ]
    if packed:
        raise CaptureError(
            f"{kind} is quantised: {packed[0]} and {len(packed) - 1} more weights are packed integers, which have no circuit yet; load it unquantised"
        )


def _check_length(length: int | None, context: int | None, kind: str) -> None:
    if length is None:
        return
    if not isinstance(length, int) or isinstance(length, bool) or length < 2:
        raise InputError(f"length={length!r}: give a whole number of positions, two or more")
    if context is not None and length > context:
        raise InputError(f"length={length} was asked for; {kind} takes at most {context} positions")


def _context(config: Any) -> int | None:
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length"):
        found = getattr(config, name, None)
        if isinstance(found, int) and found > 0:
            return found
    return None


def _vocabulary(model: Any, config: Any) -> int:
    table = model.get_input_embeddings()
    return int(table.num_embeddings if isinstance(table, nn.Embedding) else config.vocab_size)


def _facts(model: Any) -> dict[str, Any]:
    config = json.loads(model.config.to_json_string(use_diff=False))
    for key in ("_name_or_path", "transformers_version", "dtype"):
        config.pop(key, None)
    return {
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "config": config,
        "attention": getattr(model.config, "_attn_implementation", None),
        "experts": getattr(model.config, "_experts_implementation", None),
    }
