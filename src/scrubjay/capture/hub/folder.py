"""Folders of the Hugging Face form: configuration, weights as safetensors, tokenizer; each checked before it is used."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from scrubjay.capture.hub.adapter import ADAPTER, adapted, base_of
from scrubjay.capture.hub.described import describe
from scrubjay.capture.hub.opened import CONVERT, ENDS_OF_PICKLES, Opened, first_line, listed, quiet, quoted
from scrubjay.capture.hub.remote import HUB_NAME, TOKENIZER_FILES, downloaded, named
from scrubjay.errors import LoadError


@dataclass(frozen=True)
class Reading:
    """How a folder is read.

    Attributes:
        dtype: the type of the weights; as stored if None.
        device: where the weights go; the processor's memory if None.
        trusted: whether code that comes with the checkpoint may run.
    """

    dtype: torch.dtype | None = None
    device: str | torch.device | None = None
    trusted: bool = False


def open_source(
    source: str | PathLike[str],
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
    tokenizer: Any = None,
    *,
    length: int | None = None,
    inputs: Mapping[str, torch.Tensor] | None = None,
    trust_remote_code: bool = False,
) -> Opened:
    """Return the model of a local folder, or of a hub name through the local cache and the hub.

    Args:
        source: a folder with config.json and safetensors, a folder with a PEFT adapter, or a name such as `gpt2`, `org/name` or
            `org/name@revision`.
        dtype: the type of the weights; as stored if not given.
        device: where the weights go; the processor's memory if not given.
        revision: the branch, tag or commit of a hub name.
        tokenizer: a tokenizer, or the folder or name of one; the source's own if not given.
        length: the one length that it will be captured for; see `describe`, as for `inputs`.
        inputs: `{"inputs_embeds": example}` for a model that is to read embeddings.
        trust_remote_code: run the Python code that comes with the checkpoint, where its configuration asks for it.

    Raises `LoadError` for whatever cannot be read, saying what to do, and `CaptureError` as `describe` does.
    """
    folder = _folder(source, revision, trust_remote_code)
    name = Path(str(source)).expanduser().resolve().name if Path(str(source)).expanduser().is_dir() else str(source)
    how = Reading(dtype, device, trust_remote_code)
    module, own = _read(folder, str(source), how)
    given = open_tokenizer(own if tokenizer is None else tokenizer, trust_remote_code)
    return replace(describe(module, name, given, length, inputs), name=name)


def _folder(source: str | PathLike[str], revision: str | None, trusted: bool) -> Path:
    """Return the folder of a source: itself, or where the local cache has it."""
    text = str(source)
    path = Path(text).expanduser()
    if path.is_file():
        raise LoadError(_not_a_folder(path))
    if path.is_dir():
        if revision is not None:
            raise LoadError(
                f"{text} is a folder, which has no revision {revision!r}: give the folder of that checkpoint, such as {text}/checkpoint-100"
            )
        return path
    name, wanted = (text, revision) if isinstance(source, PathLike) else named(text, revision)
    if (
        isinstance(source, PathLike)
        or not HUB_NAME.fullmatch(name)
        or name.startswith(".")
        or name.endswith((*ENDS_OF_PICKLES, ".safetensors"))
    ):
        raise LoadError(
            f"there is no folder {text!r} (looked from {Path.cwd()}): give a folder with config.json and safetensors, or a hub name such as 'gpt2'"
        )
    return downloaded(name, wanted, trusted)


def _not_a_folder(path: Path) -> str:
    if path.suffix in ENDS_OF_PICKLES:
        return f"{path} is a file of pickled tensors: {CONVERT}"
    return f"{path} is a file: give the folder that holds it, with its config.json and its weights as safetensors"


def _read(folder: Path, source: str, how: Reading) -> tuple[nn.Module, Path]:
    """Return the module of a folder, and the folder that its tokenizer is in."""
    if not (folder / ADAPTER).is_file():
        config = _config(folder, source, how.trusted)
        _check_weights(folder, source)
        return _module(folder, config, source, how), folder
    base, revision = base_of(folder, source)
    place = _folder(base, revision, how.trusted)
    if (place / ADAPTER).is_file():
        raise LoadError(
            f"{source} is an adapter of {base}, which is an adapter itself: merge that one first (`merge_and_unload`)"
        )
    module, own = _read(place, base, how)
    with quiet():
        made = adapted(module, folder, source)
    return made, folder if _has_tokenizer(folder) else own


def _config(folder: Path, source: str, trusted: bool) -> Any:
    from transformers import AutoConfig  # noqa: PLC0415

    if not (folder / "config.json").is_file():
        raise LoadError(
            f"{source} has no config.json{listed(folder)}: write the model with `model.save_pretrained(folder)`, and give that folder"
        )
    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted, local_files_only=True)
    except Exception as error:  # a damaged config raises a zoo of types; each becomes one clear error, chained
        raise LoadError(
            f"the configuration {folder / 'config.json'} cannot be used: {first_line(error)}. {_advice(folder)}"
        ) from error
    if getattr(config, "quantization_config", None) is not None:
        raise LoadError(
            f"{source} is quantised: its weights are packed integers, which have no circuit yet; give the unquantised model"
        )
    return config


def _advice(folder: Path) -> str:
    """Return what to do about a configuration that cannot be used."""
    try:
        written = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return "Copy or download it again"
    if isinstance(written, dict) and "auto_map" in written:
        return (
            "It names code that comes with the checkpoint, and Scrubjay runs none unless told to: read that code, and if you trust it, "
            "sj.load(..., trust_remote_code=True)"
        )
    return (
        "Scrubjay runs no code that comes with a checkpoint: for a model of your own, build it yourself and load the module; "
        "for one newer than your transformers, install a newer version"
    )


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
            f"{source} has no model.safetensors{listed(folder)}: write the model with `model.save_pretrained(folder)`, and give that folder"
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
                f"{folder / name} ({size} bytes) is damaged or cut short: {quoted(str(error))}; copy or download it again"
            ) from error


def _shards(index: Path) -> list[str]:
    try:
        table = json.loads(index.read_bytes())["weight_map"]
        names = sorted({str(name) for name in table.values()})
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise LoadError(f"the index {index} cannot be read ({first_line(error)}): copy or download it again") from error
    if outside := [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]:
        raise LoadError(f"the index {index} lists {outside[0]!r}, which is no safetensors file of that folder")
    return names


def _module(folder: Path, config: Any, source: str, how: Reading) -> nn.Module:
    # the default for mixtures of experts is one fused operation; this one is made of plain products
    experts = {"experts_implementation": "batched_mm"} if any("expert" in key for key in config.to_dict()) else {}
    kind = _class(config, source, how.trusted)
    try:
        with quiet():
            module, found = kind.from_pretrained(
                folder,
                config=config,
                dtype="auto" if how.dtype is None else how.dtype,
                use_safetensors=True,
                local_files_only=True,
                attn_implementation="eager",
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **experts,
                **({"trust_remote_code": how.trusted} if kind.__name__.startswith("AutoModel") else {}),
            )
    except Exception as error:  # building a model raises a zoo of types; each becomes one clear error, chained
        raise LoadError(
            f"transformers could not build {source}: {first_line(error)}; check that config.json and the weights belong together"
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
    _check_used(module, found["unexpected_keys"], source)
    return (module if how.device is None else module.to(how.device)).eval()


def _check_used(module: nn.Module, unused: Iterable[str], source: str) -> None:
    """Refuse weights of layers that the configuration leaves out: the model would be a shorter one, and nobody told."""
    numbers = re.compile(r"\d+")
    known = {numbers.sub("#", name) for name in module.state_dict()}
    left = sorted(name for name in map(str, unused) if numbers.search(name) and numbers.sub("#", name) in known)
    if left:
        raise LoadError(
            f"{source} has {len(left)} weights of layers that config.json leaves out ({', '.join(left[:3])}): the model would be a shorter one. "
            "Write in config.json the number of layers that the weights are for"
        )


def _class(config: Any, source: str, trusted: bool) -> Any:
    """Return the class that a configuration names as its architecture, or an Auto class where it names none, or code of its own.

    Raises `LoadError` for a name that transformers lacks, or that is not for this type of configuration.
    """
    import transformers  # noqa: PLC0415

    written = config.architectures or [""]
    name = str(written[0] if isinstance(written, list) else written)
    if trusted and (own := getattr(config, "auto_map", None)):
        kinds = [key for key, where in own.items() if key.startswith("AutoModel") and where.rpartition(".")[2] == name]
        kinds += [key for key in own if key.startswith("AutoModel")]
        if kinds:
            return getattr(transformers, kinds[0])
    if not name:
        return transformers.AutoModel
    found = getattr(transformers, name, None)
    if not isinstance(found, type) or not issubclass(found, transformers.PreTrainedModel):
        raise LoadError(
            f"{source} is for a class {name!r} that transformers {transformers.__version__} lacks. "
            f"{_advice(Path(config.name_or_path)) if getattr(config, 'auto_map', None) else 'Install a version that has it, or name another in config.json (architectures)'}"
        )
    if not isinstance(config, found.config_class or object):
        raise LoadError(
            f"{source}: config.json names the class {name} and the model type {config.model_type!r}, which do not belong together"
        )
    return found


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def open_tokenizer(given: Any, trusted: bool) -> Any:
    """Return the tokenizer of a folder or name (None for a folder without one), or the given tokenizer itself."""
    if not isinstance(given, str | PathLike):
        return given
    folder = Path(given)
    if folder.is_dir() and not _has_tokenizer(folder):
        return None
    from transformers import AutoTokenizer  # noqa: PLC0415

    try:
        with quiet():
            return AutoTokenizer.from_pretrained(given, trust_remote_code=trusted, local_files_only=folder.is_dir())
    except Exception as error:  # tokenizers raise a zoo of types; each becomes one clear error, chained
        raise LoadError(
            f"the tokenizer of {given} cannot be read: {first_line(error)}; give another with tokenizer=..., or take its files out of the folder"
        ) from error
