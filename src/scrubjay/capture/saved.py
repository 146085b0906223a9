"""Models on disk: a folder of JSON and safetensors that reads back to the same circuit, weights, sites and heads.

    FOLDER/scrubjay.json        what it is: format, version, name, anatomy, the tensors, a digest of each file and of this one
    FOLDER/circuit.json         the circuit
    FOLDER/weights.safetensors  its weights, each once, as stored
    FOLDER/tokenizer/           the tokenizer, where it is one of transformers'

A folder appears whole or not at all. Nothing in it is a pickle, and reading it runs no code; a file that is damaged, or does
not fit the others, is refused.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from scrubjay.capture import hub
from scrubjay.capture.check import verdict_of
from scrubjay.capture.model import Model, Stored
from scrubjay.capture.plain import built, plain
from scrubjay.capture.store import TensorStore
from scrubjay.circuit.address import ModelShape
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import topological
from scrubjay.circuit.ops import Custom, Weight
from scrubjay.circuit.recognisers import Anatomy
from scrubjay.circuit.serial import from_json, to_json
from scrubjay.engine.context import Payload
from scrubjay.engine.module import CircuitModule
from scrubjay.errors import CacheError, CircuitError, InputError, LoadError
from scrubjay.evidence.digest import digest_json

FORMAT = "scrubjay.model"
VERSION = 1
MANIFEST, CIRCUIT, WEIGHTS, TOKENIZER = "scrubjay.json", "circuit.json", "weights.safetensors", "tokenizer"
SOURCE, ADDED = "model", "interventions"
LARGEST_JSON = 2**30
"""A JSON file with more bytes is not read."""

KEYS = frozenset(
    {"format", "version", "scrubjay", "name", "context", "dtype", "facts", "notes", "arguments", "verdict", "anatomy"}
    | {"floating", "sources", "weights", "files", "tokenizer", "digest"}
)


@dataclass(frozen=True)
class _Kept:
    """What the manifest says of one tensor: whose it is, its type and shape, whether it is a parameter."""

    source: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    parameter: bool


def save(model: Model | CircuitModule, folder: str | PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a model into a folder and return the folder: circuit, weights, anatomy, names, notes, verdict and tokenizer.

    Args:
        model: a model, edited or not, or a module that `to_module` made (which has no layers and heads: to keep those, save
            `model.with_weights(module)`).
        folder: where. It is made at once: a reader finds all of it or nothing.
        overwrite: replace a model that was saved there before.

    `sj.load(folder)` reads it. Raises `InputError` for a folder that is there already, and for an intervention that is a Python
    function (`apply`, `splice`), which no file can hold; `CacheError` where the folder cannot be written.
    """
    folder, given = Path(folder), _as_model(model) if isinstance(model, CircuitModule) else model
    if folder.exists() and not (overwrite and is_saved(folder)):
        raise InputError(
            f"{folder} is there already: "
            + (
                "give overwrite=True to replace the model in it"
                if is_saved(folder)
                else "and holds no saved model; give another folder"
            )
        )
    leaves = _leaves(given.circuit)
    renamed = {
        source: ADDED + str(place)
        for place, source in enumerate(s for s in dict.fromkeys(s for s, _ in leaves) if s != SOURCE)
    }
    renamed[SOURCE] = SOURCE
    tensors = {leaf: given.stores[leaf[0]].tensor(leaf[1]).detach() for leaf in leaves}
    rows = {
        _key(renamed[source], name): _Kept(
            renamed[source],
            name,
            str(tensor.dtype).removeprefix("torch."),
            tuple(tensor.shape),
            isinstance(given.stores[source].tensor(name), nn.Parameter),
        )
        for (source, name), tensor in tensors.items()
    }
    if len(rows) != len(tensors):
        raise InputError("two weights of this model have one name when written: rename one")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
        try:
            _write(partial, given, renamed, rows, {_key(renamed[s], n): tensor for (s, n), tensor in tensors.items()})
            _put(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise CacheError(f"the model was to be saved in {folder}, but: {error}; give another folder") from error
    return folder


def is_saved(folder: Path) -> bool:
    """Tell whether a folder holds a saved model (or the remains of one)."""
    return (folder / MANIFEST).is_file()


def _as_model(module: CircuitModule) -> Model:
    circuit = module.circuit
    shape = ModelShape((), frozenset[str](), frozenset(place.removeprefix(".") for place in circuit.table))
    stores: dict[str, Stored] = {
        source: TensorStore(tensors, module.dtype) if source == SOURCE else Payload(tensors, {})
        for source, tensors in module.stored().items()
    }
    notes = ("saved from a module: its layers and heads were not written down",)
    anatomy = Anatomy((), shape, next(iter(circuit.roots)), additive=False, notes=notes)
    return Model("module", circuit, anatomy, stores, arguments=module.input_names)


def _leaves(circuit: Circuit) -> list[tuple[str, str]]:
    """Return (source, name) of every stored tensor that a result or an address reads."""
    nodes = topological([*circuit.roots.values(), *circuit.table.values()])
    functions = [node for node in nodes if isinstance(node, Custom)]
    if functions:
        raise InputError(
            f"this model holds {len(functions)} Python functions that interventions brought along (sj.apply, sj.splice), which no file can "
            "hold: save the model without them, and apply them again after loading"
        )
    return list(dict.fromkeys((node.source, node.name) for node in nodes if isinstance(node, Weight)))


def _key(source: str, name: str) -> str:
    return name if source == SOURCE else f"{source}.{name}"


def _write(
    folder: Path,
    model: Model,
    renamed: Mapping[str, str],
    rows: Mapping[str, _Kept],
    tensors: Mapping[str, torch.Tensor],
) -> None:
    circuit = to_json(from_json(to_json(model.circuit), renamed))
    (folder / CIRCUIT).write_text(json.dumps(circuit, allow_nan=False), encoding="utf-8")
    save_file(_apart(tensors), folder / WEIGHTS)
    if has_tokenizer := hasattr(model.tokenizer, "save_pretrained"):
        model.tokenizer.save_pretrained(folder / TOKENIZER)
    floating = next((found for store in model.stores.values() if (found := getattr(store, "dtype", None))), None)
    body: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "scrubjay": version("scrubjay"),
        "name": model.name,
        "context": model.context,
        "dtype": None if model.dtype is None else str(model.dtype).removeprefix("torch."),
        "floating": str(floating or torch.float32).removeprefix("torch."),
        "facts": dict(model.facts),
        "notes": dict(model.notes),
        "arguments": list(model.arguments),
        "verdict": None if model.verdict is None else model.verdict.to_dict(),
        "anatomy": plain(model.anatomy),
        "sources": sorted(set(renamed.values())),
        "weights": {key: plain(row) for key, row in rows.items()},
        "files": {name: _digest(folder / name) for name in (CIRCUIT, WEIGHTS)},
        "tokenizer": has_tokenizer,
    }
    body = json.loads(json.dumps(body, allow_nan=False))
    (folder / MANIFEST).write_text(json.dumps({**body, "digest": digest_json(body)}, indent=1), encoding="utf-8")


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors as safetensors takes them: on the processor, none sharing memory with another."""
    seen, made = set[int](), dict[str, torch.Tensor]()
    for key, tensor in tensors.items():
        flat = tensor.cpu().contiguous()
        shares = flat.untyped_storage().data_ptr() in seen or flat.untyped_storage().nbytes() != flat.nbytes
        made[key] = flat.clone() if shares else flat
        seen.add(made[key].untyped_storage().data_ptr())
    return made


def _put(partial: Path, folder: Path) -> None:
    """Move a finished folder to its place; an older one is out of the way first, and back if that fails."""
    if not folder.exists():
        partial.rename(folder)
        return
    old = partial.with_suffix(".old")
    folder.rename(old)
    try:
        partial.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"


def load_saved(
    folder: str | PathLike[str],
    *,
    tokenizer: Any = None,
    dtype: torch.dtype | None = None,
    device: str | None = None,
    name: str | None = None,
) -> Model:
    """Return the model that `save` wrote, its weights in memory: sites, heads, names and notes as they were.

    Args:
        folder: where it is.
        tokenizer: used instead of the saved one. A tokenizer of one's own is not saved: give it again.
        dtype: the floating type to run in; the one it was run in if not given.
        device: where to put the weights; the processor if not given.
        name: what to call the model.

    Raises `LoadError` for a file that is missing, damaged, of another version, or does not fit the others.
    """
    folder = Path(folder)
    manifest = _manifest(folder)
    rows: dict[str, _Kept] = {
        key: built(_Kept, row, f"{folder}: weight {key[:80]!r}") for key, row in manifest["weights"].items()
    }
    circuit = _circuit(folder, manifest)
    tensors = _tensors(folder, manifest, rows, device or "cpu")
    _check_leaves(folder, circuit, rows)
    stores = _stores(manifest, rows, tensors)
    own = None
    if manifest["tokenizer"] and tokenizer is None:
        own = hub.open_tokenizer(str(folder / TOKENIZER), False)
    saved_type = manifest["dtype"]
    return Model(
        name or manifest["name"],
        circuit,
        built(Anatomy, manifest["anatomy"], f"{folder}: anatomy"),
        stores,
        own if tokenizer is None else tokenizer,
        manifest["context"],
        dtype or (None if saved_type is None else _type(saved_type, folder)),
        device,
        manifest["facts"],
        manifest["notes"],
        verdict=verdict_of(manifest["verdict"]),
        arguments=tuple(manifest["arguments"]),
    )


def _manifest(folder: Path) -> dict[str, Any]:
    found = _json(folder / MANIFEST)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise LoadError(f"{folder / MANIFEST} does not describe a saved model: {_damaged(folder)}")
    if found.get("version") != VERSION:
        raise LoadError(
            f"{folder} was saved in version {str(found.get('version'))[:20]} of the form; this Scrubjay ({version('scrubjay')}) reads version "
            f"{VERSION}: it was written by Scrubjay {str(found.get('scrubjay'))[:20]}, which can read it"
        )
    body = {key: value for key, value in found.items() if key != "digest"}
    if set(found) != KEYS or found["digest"] != digest_json(body):
        raise LoadError(f"{folder / MANIFEST} was changed after it was written: {_damaged(folder)}")
    if set(found["files"]) != {CIRCUIT, WEIGHTS}:
        raise LoadError(f"{folder} lists other files than {CIRCUIT} and {WEIGHTS}: {_damaged(folder)}")
    for file, digest in found["files"].items():
        if not (folder / file).is_file():
            raise LoadError(f"{folder} lacks {file}: {_damaged(folder)}")
        if _digest(folder / file) != digest:
            raise LoadError(f"{folder / file} is not what was saved (its digest differs): {_damaged(folder)}")
    return found


def _damaged(folder: Path) -> str:
    return f"save the model into {folder.name} again, or fetch the folder anew"


def _json(file: Path) -> Any:
    try:
        if file.stat().st_size > LARGEST_JSON:
            raise LoadError(f"{file} has {file.stat().st_size} bytes, which no saved model has")
        return json.loads(file.read_bytes())
    except (OSError, RecursionError, ValueError) as error:
        if isinstance(error, LoadError):
            raise
        raise LoadError(f"{file} cannot be read ({type(error).__name__}): {_damaged(file.parent)}") from error


def _circuit(folder: Path, manifest: Mapping[str, Any]) -> Circuit:
    try:
        return from_json(_json(folder / CIRCUIT), {source: source for source in manifest["sources"]})
    except CircuitError as error:
        raise LoadError(f"{folder / CIRCUIT}: {error}") from error


def _tensors(
    folder: Path, manifest: Mapping[str, Any], rows: Mapping[str, _Kept], device: str
) -> dict[str, torch.Tensor]:
    try:
        found = load_file(folder / WEIGHTS, device=device)
    except (SafetensorError, OSError, ValueError) as error:
        raise LoadError(
            f"{folder / WEIGHTS} cannot be read ({type(error).__name__}: {str(error)[:100]}): {_damaged(folder)}"
        ) from error
    if set(found) != set(rows):
        odd = sorted(set(found) ^ set(rows))[:5]
        raise LoadError(
            f"{folder / WEIGHTS} and {MANIFEST} do not name the same tensors ({', '.join(odd)[:200]}): {_damaged(folder)}"
        )
    for key, tensor in found.items():
        row = rows[key]
        if (tuple(tensor.shape), str(tensor.dtype)) != (row.shape, f"torch.{row.dtype}") or key != _key(
            row.source, row.name
        ):
            raise LoadError(
                f"{folder}: tensor {key[:80]!r} is {tensor.dtype} of shape {tuple(tensor.shape)}, and {MANIFEST} says {row.dtype} of shape "
                f"{row.shape}: {_damaged(folder)}"
            )
    return found


def _check_leaves(folder: Path, circuit: Circuit, rows: Mapping[str, _Kept]) -> None:
    """Raise `LoadError` where a leaf of the circuit is not among the tensors, or of another shape or kind of number."""
    for node in topological([*circuit.roots.values(), *circuit.table.values()]):
        if isinstance(node, Custom):
            raise LoadError(
                f"{folder / CIRCUIT} holds a Python function ({node.name[:80]!r}), which no saved model does"
            )
        if not isinstance(node, Weight):
            continue
        row = rows.get(_key(node.source, node.name))
        if row is None or row.source != node.source:
            raise LoadError(
                f"{folder}: the circuit reads the weight {node.name[:80]!r}, which {WEIGHTS} lacks: {_damaged(folder)}"
            )
        sizes = [[axis.size for axis in dim] for dim in node.dims]
        fits = len(sizes) == len(row.shape) and all(
            any(isinstance(size, str) for size in dim) or prod(int(size) for size in dim) == has
            for dim, has in zip(sizes, row.shape, strict=True)
        )
        if not fits:
            raise LoadError(
                f"{folder}: weight {node.name[:80]!r} has the shape {row.shape}, and the circuit reads it as {sizes}: {_damaged(folder)}"
            )


def _stores(
    manifest: Mapping[str, Any], rows: Mapping[str, _Kept], tensors: Mapping[str, torch.Tensor]
) -> dict[str, Stored]:
    by_source: dict[str, dict[str, torch.Tensor]] = {source: {} for source in manifest["sources"]}
    for key, row in rows.items():
        tensor = tensors[key]
        if row.source not in by_source:
            raise LoadError(f"tensor {key[:80]!r} is of the source {row.source[:80]!r}, which is not among the sources")
        kept = nn.Parameter(tensor) if row.parameter and tensor.is_floating_point() else tensor
        by_source[row.source][row.name] = kept
    floating = _type(manifest["floating"], Path())
    return {
        source: TensorStore(held, floating) if source == SOURCE else Payload(held, {})
        for source, held in by_source.items()
    }


def _type(name: object, folder: Path) -> torch.dtype:
    found = getattr(torch, name, None) if isinstance(name, str) else None
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise LoadError(f"{folder}: {str(name)[:40]!r} is not a floating type")
    return found
