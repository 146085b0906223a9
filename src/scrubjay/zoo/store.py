"""Read and write the zoo's models: weights as safetensors, and a card that says what they are.

    FOLDER/NAME.safetensors    float32 weights
    FOLDER/NAME.json           the card: configuration, recipe, data, figures, licence, digest of the weights

Nothing here can run code from a file: pickles are refused, and weights whose digest is not the card's are not loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from scrubjay.errors import AddressError, LoadError, near
from scrubjay.evidence.digest import digest_bytes
from scrubjay.zoo.checkpoint import write_file
from scrubjay.zoo.transformer import Config, Transformer

SHIPPED = ("brackets", "induction")
"""The models that come with the package."""

FOLDER = Path(__file__).parent / "models"
PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How files of `torch.save` begin (a zip archive holding a pickle) and bare pickles."""


def models() -> tuple[str, ...]:
    """Return the names of the models that come with the package.

    >>> models()
    ('brackets', 'induction')
    """
    return SHIPPED


def read(name: str, folder: Path | None = None) -> tuple[Transformer, dict[str, Any]]:
    """Return a model in eval mode, and its card.

    Args:
        name: one of `models()`, or the name of a model in `folder`.
        folder: where `write` put it; by default the models that come with the package.

    Raises:
        AddressError: if there is no such model; the message lists near names.
        LoadError: if its files are damaged, are pickles, or do not belong together.

    >>> model, card = read("brackets")
    >>> model.config.layers, card["licence"]
    (3, 'Apache-2.0')
    """
    known = SHIPPED if folder is None else tuple(sorted(path.stem for path in folder.glob("*.json")))
    if name not in known:
        where = "that come with the package" if folder is None else f"in {folder}"
        raise AddressError(
            f"model {name!r} was asked for; the models {where} are {', '.join(known) or 'none'}{near(name, known)}"
        )
    place = FOLDER if folder is None else folder
    card = _read_card(place / f"{name}.json")
    return _read_model(place / f"{name}.safetensors", card), card


def write(model: Transformer, card: Mapping[str, object], folder: Path) -> dict[str, Any]:
    """Write a model and its card to `folder`; return the card with its configuration and weights filled in.

    Args:
        model: its weights are written as float32.
        card: at least a `name`, which names the files.
        folder: made where it does not exist.

    Raises:
        CacheError: if the file system refuses.
    """
    content = save({name: weight.detach().float().contiguous() for name, weight in model.named_parameters()})
    full = {
        **card,
        "config": model.config.to_dict(),
        "weights": {"digest": digest_bytes(content), "bytes": len(content), "dtype": "float32"},
    }
    name = str(card["name"])
    write_file(folder / f"{name}.safetensors", content)
    write_file(folder / f"{name}.json", (json.dumps(full, indent=2, allow_nan=False) + "\n").encode("utf-8"))
    return full


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise LoadError(f"the card {path} cannot be read: {error}; install the package again, or restore it") from error
    missing = [key for key in ("name", "config", "weights") if key not in card] if isinstance(card, dict) else ["keys"]
    if missing:
        raise LoadError(f"the card {path} has no {', '.join(missing)}; it is not one that Scrubjay wrote: restore it")
    return card


def _read_model(path: Path, card: Mapping[str, Any]) -> Transformer:
    config, weights = card["config"], card["weights"]
    if not isinstance(config, dict) or not isinstance(weights, dict) or "digest" not in weights:
        raise LoadError(f"the card of {path} describes no configuration or no weights with a digest; restore it")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LoadError(f"the weights {path} cannot be read: {error}; restore the file") from error
    if content.startswith(PICKLES):
        raise LoadError(
            f"the weights {path} are a pickle, and reading one can run code; only safetensors are read: convert it with "
            "a program you trust"
        )
    if digest_bytes(content) != weights["digest"]:
        raise LoadError(
            f"the weights {path} have the digest {digest_bytes(content)}, but their card says {weights['digest']}; "
            "restore the file, or train it again"
        )
    model = Transformer(Config.from_dict(config))
    try:
        model.load_state_dict(load(content))
    except (SafetensorError, RuntimeError) as error:
        raise LoadError(f"the weights {path} do not fit their card's configuration: {error}") from error
    return model.to(torch.float32).eval()
