"""Captured circuits on disk, so that the second load of a model costs no capture.

    FOLDER/KEY.json           the circuit, the limits of its dimensions, and a digest of all that
    FOLDER/KEY.safetensors    the tensors that the module makes of plain numbers, where it makes any
    FOLDER/KEY.fixed          in place of both: why the module cannot be captured for every size, which took a while to find out

The key is a digest of everything that a capture depends on. A file that is damaged, or was written in another version of the
form, is captured again and replaced. No file holds a weight of the model, and reading one runs no code.
"""

from __future__ import annotations

import functools
import json
import platform
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import platformdirs
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from scrubjay.capture.export import Captured, Signature, capture
from scrubjay.capture.structure import Description
from scrubjay.circuit.serial import from_json, to_json
from scrubjay.errors import CacheError, CircuitError, FixedSizeError
from scrubjay.evidence.digest import digest_bytes, digest_json
from scrubjay.evidence.files import write_whole

FORMAT = "scrubjay.captured"
VERSION = 1
SOURCE = "model"
PACKAGES = ("scrubjay", "torch", "transformers")


def default_folder() -> Path:
    """Return the user's cache folder for captured circuits.

    >>> default_folder().name
    'circuits'
    """
    return Path(platformdirs.user_cache_dir("scrubjay")) / "circuits"


def key(module: nn.Module, signature: Signature, facts: Mapping[str, object] | None = None) -> str | None:
    """Return the digest of everything that a capture of the module depends on, or None where that cannot be told.

    Args:
        module: the module; the values of its weights play no part.
        signature: how it is called.
        facts: what else is known of it, as JSON: its configuration, its attention implementation.

    None comes back for a module with an attribute that has no description (an open file, an object in C): it is captured anew
    each time, which is slow and right.
    """
    seen = Description(module)
    described = {
        "versions": {
            "python": platform.python_version(),
            "code": _own_code(),
            **{name: version(name) for name in PACKAGES},
        },
        "format": VERSION,
        "default": str(torch.get_default_dtype()),
        "modules": seen.modules(),
        "inputs": [
            [name, str(tensor.dtype), list(tensor.shape), list(signature.dynamic[name])]
            for name, tensor in signature.inputs.items()
        ],
        "static": sorted(signature.static),
        "fixed": seen.value(dict(signature.fixed), "fixed"),
        "pick": seen.value(signature.pick, "pick"),
        "result": signature.result,
        "facts": seen.value(dict(facts or {}), "facts"),
    }
    return None if seen.unknown else digest_json(described)


@functools.cache
def _own_code() -> str:
    """Return the digest of the code that makes circuits: between releases it changes and the version does not."""
    package = Path(__file__).parents[1]
    files = sorted(path for folder in ("capture", "circuit") for path in (package / folder).rglob("*.py"))
    return digest_json({path.relative_to(package).as_posix(): digest_bytes(path.read_bytes()) for path in files})


def cached(
    module: nn.Module,
    signature: Signature,
    folder: Path | None,
    facts: Mapping[str, object] | None = None,
    source: str = SOURCE,
) -> Captured:
    """Return the captured circuit of a module, from the folder if it is there, else captured and put there.

    Args:
        module: any module in evaluation mode.
        signature: how it is called.
        folder: where captured circuits are kept; None for nowhere.
        facts: what else is known of the module; see `key`.
        source: the name of the store its weights will be found in.

    Raises:
        CaptureError: see `capture`.
        CacheError: if the folder cannot be written to.
    """
    training = any(part.training for part in module.modules())
    name = None if folder is None or training else key(module, signature, facts)
    if folder is None or name is None:
        return capture(module, signature, source)
    place = folder / f"{name.removeprefix('sha256:')}.json"
    found = _read(place, source)
    if found is None:
        refused = place.with_suffix(".fixed")
        if refused.is_file():
            raise FixedSizeError(refused.read_text("utf-8", "replace"))
        try:
            found = capture(module, signature, source)
        except FixedSizeError as error:
            put(refused, str(error).encode())
            raise
        _write(place, found, source)
    return replace(found, place=place)


def _read(place: Path, source: str) -> Captured | None:
    """Return what a file holds, or None where there is no file, or it is damaged and to be replaced."""
    try:
        data = json.loads(place.read_bytes())
        if (
            not isinstance(data, dict)
            or data.get("format") != FORMAT
            or data.get("version") != VERSION
            or _digest(data.get("body")) != data.get("digest")
        ):
            return None
        body: dict[str, Any] = data["body"]
        constants: dict[str, torch.Tensor] = {}
        if body["constants"] is not None:
            content = place.with_suffix(".safetensors").read_bytes()
            if digest_bytes(content) != body["constants"]:
                return None
            constants = load(content)
        return Captured(from_json(body["circuit"], {SOURCE: source}), body["limits"], constants)
    except (OSError, ValueError, RecursionError, SafetensorError, CircuitError):
        # Missing or damaged: the caller captures again, and the new file takes this one's place.
        return None


def _write(place: Path, captured: Captured, source: str) -> None:
    content = (
        save({name: tensor.contiguous() for name, tensor in captured.constants.items()}) if captured.constants else None
    )
    circuit = (
        to_json(captured.circuit)
        if source == SOURCE
        else to_json(from_json(to_json(captured.circuit), {source: SOURCE}))
    )
    body = {
        "circuit": circuit,
        "limits": dict(captured.limits),
        "constants": None if content is None else digest_bytes(content),
    }
    data = {"format": FORMAT, "version": VERSION, "digest": _digest(body), "body": body}
    if content is not None:
        put(place.with_suffix(".safetensors"), content)
    put(place, json.dumps(data, allow_nan=False).encode())


def _digest(body: object) -> str:
    return digest_bytes(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())


def put(place: Path, content: bytes) -> None:
    """Write a file at once: a reader finds the old one or the new one, never a part; two writers do not meet."""
    try:
        write_whole(place, content)
    except OSError as error:
        raise CacheError(
            f"the captured circuit was to be kept in {place.parent}, but: {error}; give another folder with cache=..., "
            "or cache=None to keep no circuits"
        ) from error
