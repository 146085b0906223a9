"""Folders with a PEFT adapter: the model that it adapts, and the adapter's layers put into it."""

from __future__ import annotations

import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from scrubjay.capture.hub.opened import CONVERT, ENDS_OF_PICKLES, first_line, listed, quoted
from scrubjay.errors import LoadError

ADAPTER = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def base_of(folder: Path, source: str) -> tuple[str, str | None]:
    """Return the folder or hub name of the model that an adapter was made for, and its revision.

    A relative path is looked for from the adapter's folder too. Raises `LoadError` where peft is not installed, and for an
    adapter whose files cannot be used.
    """
    if find_spec("peft") is None:
        raise LoadError(
            f"{source} holds a PEFT adapter, and peft is not installed: `pip install peft`; or, where it is, write "
            "`model.merge_and_unload().save_pretrained(folder)`, and give that folder"
        )
    try:
        written: Any = json.loads((folder / ADAPTER).read_bytes())
        base, revision = written["base_model_name_or_path"], written.get("revision")
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise LoadError(
            f"{folder / ADAPTER} cannot be used as the configuration of a PEFT adapter ({first_line(error)}): copy or download it again"
        ) from error
    if not isinstance(base, str) or not base:
        raise LoadError(
            f"{folder / ADAPTER} does not say which model it adapts (base_model_name_or_path is {base!r}): write the folder or name there"
        )
    _check(folder, source)
    beside = folder / Path(base).expanduser()
    if not Path(base).expanduser().exists() and beside.is_dir():
        base = str(beside)
    return base, revision if isinstance(revision, str) else None


def _check(folder: Path, source: str) -> None:
    place = folder / WEIGHTS
    if not place.is_file():
        if pickles := sorted(path.name for path in folder.iterdir() if path.suffix in ENDS_OF_PICKLES):
            raise LoadError(f"{source} has its weights only as {', '.join(pickles[:3])}: {CONVERT}")
        raise LoadError(
            f"{source} has no {WEIGHTS}{listed(folder)}: write it with `peft_model.save_pretrained(folder)`"
        )
    try:
        with safe_open(place, "pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise LoadError(
            f"{place} ({place.stat().st_size} bytes) is damaged or cut short: {quoted(str(error))}; copy or download it again"
        ) from error


def adapted(module: nn.Module, folder: Path, source: str) -> nn.Module:
    """Return a model with the adapter of a folder in it, active, its weights of the type they are stored in."""
    from peft import PeftModel  # noqa: PLC0415

    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            made = PeftModel.from_pretrained(module, str(folder), autocast_adapter_dtype=False)  # pyright: ignore[reportArgumentType]
    except Exception as error:  # peft raises a zoo of types; each becomes one clear error, chained
        raise LoadError(
            f"peft could not put the adapter {source} into {type(module).__name__}: {first_line(error)}; check that they belong together"
        ) from error
    if lacking := next((str(one.message) for one in seen if "missing adapter keys" in str(one.message)), None):
        raise LoadError(
            f"{folder / WEIGHTS} lacks weights that its configuration names: {quoted(lacking)}; give the whole adapter"
        )
    return made.eval()
