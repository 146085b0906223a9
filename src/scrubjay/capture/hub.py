"""Hugging Face models: from a model in hand, a local folder or a hub name to a module and how it is called.

The only module that imports transformers, and only inside functions. Weights are read from safetensors alone: a pickle can
run code when it is read, so it is refused, as is code that comes with a checkpoint.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from scrubjay.capture.export import Signature
from scrubjay.errors import CaptureError, LoadError

SILENT = 100
BATCH, LENGTH = 2, 12
"""The size of the example that a model is captured with."""

ENDS_OF_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
CONVERT = (
    "a pickle can run code when it is read, so Scrubjay never reads one: if you trust it, load it yourself and write it with "
    "`model.save_pretrained(folder, safe_serialization=True)`, then give that folder"
)


@dataclass(frozen=True, eq=False)
class Opened:
    """A module that is ready to be captured.

    Attributes:
        module: in evaluation mode.
        signature: how it is called.
        name: what to call it.
        tokenizer: its tokenizer, or None.
        context: the longest input it says it takes, or None.
        facts: what a captured circuit depends on beside the module's structure, as JSON.
    """

    module: nn.Module
    signature: Signature
    name: str
    tokenizer: Any
    context: int | None
    facts: Mapping[str, Any]


def is_pretrained(module: nn.Module) -> bool:
    """Tell whether a module is a transformers model or wraps one (`describe` says how to unwrap it).

    >>> is_pretrained(nn.Linear(2, 2))
    False
    """
    transformers = sys.modules.get("transformers")
    if transformers is None:
        return False
    inner = _wrapped(module)
    return isinstance(inner[0] if inner else module, transformers.PreTrainedModel)


def describe(module: nn.Module, name: str | None = None, tokenizer: Any = None) -> Opened:
    """Return a transformers model in hand with its signature; nothing of the model is changed.

    Its attention implementation stays as it is. Raises `CaptureError` for a model that is wrapped, quantised, in training
    mode, an encoder-decoder, or takes no token ids.
    """
    model: Any = module
    _check_capturable(model)
    config = model.config.get_text_config()
    context = _context(config)
    length = min(LENGTH, context or LENGTH)
    takes = inspect.signature(model.forward).parameters
    if "input_ids" not in takes:
        raise CaptureError(
            f"{type(model).__name__} takes no input_ids but {', '.join(takes)}: only models of text are described on their own; "
            "capture it as a plain module with inputs=, dynamic= and output="
        )
    examples = {
        "input_ids": (torch.arange(BATCH * length) * 7 + 3)
        .remainder(_vocabulary(model, config))
        .reshape(BATCH, length),
        "attention_mask": torch.ones(BATCH, length, dtype=torch.long),
        "position_ids": torch.arange(length).expand(BATCH, length).clone(),
    }
    inputs = {key: tensor for key, tensor in examples.items() if key in takes}
    # a base model has no head of its own: it gives its last hidden state
    bare = model.base_model is model
    read, result = ("last_hidden_state", "output") if bare else ("logits", "logits")
    fixed = {"use_cache": False} if "use_cache" in takes else {}
    if "return_dict" in takes or any(one.kind is one.VAR_KEYWORD for one in takes.values()):
        fixed["return_dict"] = True
    signature = Signature(inputs, dict.fromkeys(inputs, ("batch", "query")), _Pick(read), fixed, result)
    own = name or Path(str(getattr(model, "name_or_path", "") or type(model).__name__)).name
    return Opened(module, signature, own, tokenizer, context, _facts(model))


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


def _check_capturable(model: Any) -> None:
    kind, inner = type(model).__name__, _wrapped(model)
    if inner is not None:
        raise CaptureError(f"{kind} wraps the model that is to be captured: give the model inside it, {inner[1]}")
    if not is_pretrained(model):
        raise CaptureError(
            f"{kind} is not a transformers model: capture it as a plain module with inputs=, dynamic= and output="
        )
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
    if model.config.is_encoder_decoder:
        raise CaptureError(
            f"{kind} is an encoder-decoder, which cannot be loaded yet: capture its encoder, `model.get_encoder()`, as a plain module"
        )


def _wrapped(module: Any) -> tuple[Any, str] | None:
    """Return the model inside a wrapper and how to write it, or None for a module that is no wrapper."""
    kind = type(module)
    if kind.__name__ == "OptimizedModule" and kind.__module__.startswith("torch._dynamo"):
        return module._orig_mod, "`module._orig_mod`"
    if kind.__module__.partition(".")[0] == "peft":
        return _peft_inside(
            module
        ), "`peft_model.base_model.model` with the adapter as it is, or `peft_model.merge_and_unload()`"
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return module.module, "`module.module`"
    return None


def _peft_inside(module: Any) -> Any:
    base = getattr(module, "base_model", module)
    return getattr(base, "model", base)


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


def open_source(
    source: str | PathLike[str],
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
    tokenizer: Any = None,
) -> Opened:
    """Return the model of a local folder, or of a hub name through the local cache and the hub.

    Args:
        source: a folder with config.json and safetensors, or a name such as `gpt2` or `org/name`.
        dtype: the type of the weights; as stored if not given.
        device: where the weights go; the processor's memory if not given.
        revision: the branch, tag or commit of a hub name.
        tokenizer: a tokenizer, or the folder or name of one; the source's own if not given.

    Raises `LoadError` for whatever cannot be read, saying what to do, and `CaptureError` as `describe` does.
    """
    text = str(source)
    path = Path(text).expanduser()
    if path.is_file():
        raise LoadError(_not_a_folder(path))
    if path.is_dir():
        folder = path
    elif (
        isinstance(source, PathLike)
        or not HUB_NAME.fullmatch(text)
        or text.startswith(".")
        or text.endswith((*ENDS_OF_PICKLES, ".safetensors"))
    ):
        raise LoadError(
            f"there is no folder {text!r} (looked from {Path.cwd()}): give a folder with config.json and safetensors, or a hub name such as 'gpt2'"
        )
    else:
        folder = _downloaded(text, revision)
    config = _config(folder, text)
    _check_weights(folder, text)
    module = _module(folder, config, text, dtype, device)
    given = _tokenizer(folder if tokenizer is None else tokenizer)
    return describe(module, path.resolve().name if path.is_dir() else text, given)


def _not_a_folder(path: Path) -> str:
    if path.suffix in ENDS_OF_PICKLES:
        return f"{path} is a file of pickled tensors: {CONVERT}"
    return f"{path} is a file: give the folder that holds it, with its config.json and its weights as safetensors"


def _downloaded(name: str, revision: str | None) -> Path:
    """Return the folder in the local cache that holds a model of the hub, fetched first where it can be."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    wanted = ["*.json", "model*.safetensors", *TOKENIZER_FILES, "merges.txt"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=["*/*"]))
    except (HfHubHTTPError, OSError, ValueError) as error:
        first = str(error).strip().split("\n")[0][:200]
        at = f" at revision {revision!r}" if revision else ""
        raise LoadError(
            f"{name!r}{at} is no folder here, nothing of it was found in the local Hugging Face cache, and the hub did not give it "
            f"({type(error).__name__}: {first}). Check the name; without a network, run `huggingface-cli download {name} --local-dir FOLDER` "
            "(`hf download` in newer versions) or `model.save_pretrained(FOLDER)` where there is one, and give FOLDER"
        ) from error


def _config(folder: Path, source: str) -> Any:
    from transformers import AutoConfig  # noqa: PLC0415

    if (folder / "adapter_config.json").is_file():
        raise LoadError(
            f"{source} holds a PEFT adapter: load it with peft, write `model.merge_and_unload().save_pretrained(folder)`, and give that folder"
        )
    if not (folder / "config.json").is_file():
        raise LoadError(
            f"{source} has no config.json{_listed(folder)}: write the model with `model.save_pretrained(folder)`, and give that folder"
        )
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # a damaged config raises a zoo of types; each becomes one clear error, chained
        raise LoadError(
            f"the configuration {folder / 'config.json'} cannot be used: {_first_line(error)}. Scrubjay runs no code that comes with a checkpoint: "
            "for a model of your own, build it yourself and load the module"
        ) from error
    if getattr(config, "quantization_config", None) is not None:
        raise LoadError(
            f"{source} is quantised: its weights are packed integers, which have no circuit yet; give the unquantised model"
        )
    if config.is_encoder_decoder:
        raise LoadError(
            f"{source} is an encoder-decoder ({config.model_type}), which cannot be loaded yet: capture its encoder as a plain module"
        )
    return config


def _check_weights(folder: Path, source: str) -> None:
    """Refuse pickles, and safetensors that are missing or cut short, before anything is built."""
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.is_file():
        names = [single.name]
    elif index.is_file():
        names = _shards(index)
    else:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in ENDS_OF_PICKLES)
        if pickles:
            raise LoadError(f"{source} has its weights only as {', '.join(pickles[:3])}: {CONVERT}")
        raise LoadError(
            f"{source} has no model.safetensors{_listed(folder)}: write the model with `model.save_pretrained(folder)`, and give that folder"
        )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise LoadError(
            f"{source} lacks {len(missing)} of the {len(names)} files that {index.name} lists: {', '.join(missing[:5])}; copy or download them again"
        )
    for name in names:
        try:
            with safe_open(folder / name, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            size = (folder / name).stat().st_size
            raise LoadError(
                f"{folder / name} ({size} bytes) is damaged or cut short: {error}; copy or download it again"
            ) from error


def _shards(index: Path) -> list[str]:
    try:
        table = json.loads(index.read_bytes())["weight_map"]
        names = sorted({str(name) for name in table.values()})
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise LoadError(
            f"the index {index} cannot be read ({_first_line(error)}): copy or download it again"
        ) from error
    if outside := [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]:
        raise LoadError(f"the index {index} lists {outside[0]!r}, which is no safetensors file of that folder")
    return names


def _module(
    folder: Path, config: Any, source: str, dtype: torch.dtype | None, device: str | torch.device | None
) -> nn.Module:
    # the default for mixtures of experts is one fused operation; this one is made of plain products
    experts = {"experts_implementation": "batched_mm"} if any("expert" in key for key in config.to_dict()) else {}
    try:
        with _quiet():
            module, found = _auto_class(config).from_pretrained(
                folder,
                config=config,
                dtype="auto" if dtype is None else dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                attn_implementation="eager",
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **experts,
            )
    except Exception as error:  # building a model raises a zoo of types; each becomes one clear error, chained
        raise LoadError(
            f"transformers could not build {source}: {_first_line(error)}; check that config.json and the weights belong together"
        ) from error
    if mismatched := sorted(map(str, found["mismatched_keys"])):
        raise LoadError(
            f"{source}: {len(mismatched)} weights have another shape than config.json says ({'; '.join(mismatched[:3])}): they do not belong together"
        )
    if missing := sorted(found["missing_keys"]):
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        raise LoadError(
            f"{source} lacks {len(missing)} weights that {type(module).__name__} needs: {', '.join(missing[:8])}{more}. They would be random numbers; "
            "give the whole checkpoint, or write in config.json the architecture that the weights are for"
        )
    return (module if device is None else module.to(device)).eval()


def _auto_class(config: Any) -> Any:
    """Return the Auto class for the architecture that a configuration names."""
    import transformers  # noqa: PLC0415
    from transformers.models.auto import modeling_auto  # noqa: PLC0415

    tasks = (
        (modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, transformers.AutoModelForCausalLM),
        (modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, transformers.AutoModelForMaskedLM),
        (
            modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
            transformers.AutoModelForSequenceClassification,
        ),
    )
    named = (config.architectures or [""])[0]
    for table, auto in tasks:
        # the Auto class looks up by model type: another class's name under that type is not what it would build
        if table.get(config.model_type) == named:
            return auto
    return transformers.AutoModel


def _tokenizer(given: Any) -> Any:
    """Return the tokenizer of a folder or name (None for a folder without one), or the given tokenizer itself."""
    if not isinstance(given, str | PathLike):
        return given
    folder = Path(given)
    if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return None
    from transformers import AutoTokenizer  # noqa: PLC0415

    try:
        with _quiet():
            return AutoTokenizer.from_pretrained(given, trust_remote_code=False, local_files_only=folder.is_dir())
    except Exception as error:  # tokenizers raise a zoo of types; each becomes one clear error, chained
        raise LoadError(
            f"the tokenizer of {given} cannot be read: {_first_line(error)}; give another with tokenizer=..., or take its files out of the folder"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from reporting its progress; what was set before is set again."""
    from transformers.utils import logging  # noqa: PLC0415

    level = logging.get_verbosity()
    hook = logging.set_tqdm_hook(lambda _factory, args, kwargs: logging.EmptyTqdm(*args, **kwargs))
    logging.set_verbosity(SILENT)
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.set_tqdm_hook(hook)


def _listed(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return f" (it holds {', '.join(names[:6])}{', ...' if len(names) > 6 else ''})" if names else " (it is empty)"


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).strip().split("\n") if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"
