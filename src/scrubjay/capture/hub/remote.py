"""Hub names: fetching a model through the local cache, and the checkpoints over training that a name or a folder has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from scrubjay.capture.hub.opened import first_line, listed
from scrubjay.errors import LoadError

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
WANTED = ["*.json", "model*.safetensors", "adapter_model*.safetensors", "*.jinja", *TOKENIZER_FILES, "merges.txt"]
NUMBER = re.compile(r"(\d+)")


def named(text: str, revision: str | None) -> tuple[str, str | None]:
    """Return a hub name and its revision, which may be written `org/name@revision`.

    >>> named("org/name@step1000", None)
    ('org/name', 'step1000')
    """
    name, at, written = text.partition("@")
    if not at:
        return text, revision
    if not written or (revision is not None and revision != written):
        raise LoadError(f"{text!r} with revision={revision!r}: name one revision, as {name}@step1000 or with revision=")
    return name, written


def downloaded(name: str, revision: str | None, code: bool = False) -> Path:
    """Return the folder in the local cache that holds a model of the hub, fetched first where it can be.

    `code` fetches the model's own Python files too. Raises `LoadError` for what is in neither place.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    wanted = [*WANTED, "*.py"] if code else WANTED
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=["*/*"]))
    except (HfHubHTTPError, OSError, ValueError) as error:
        at = f" at revision {revision!r}" if revision else ""
        known = _in_cache(name)
        have = f"; the local cache has its revisions {', '.join(known[:6])}" if known else ""
        raise LoadError(
            f"{name!r}{at} is no folder here, nothing of it was found in the local Hugging Face cache, and the hub did not give it "
            f"({first_line(error)}){have}. Check the name; without a network, run `huggingface-cli download {name} --local-dir FOLDER` "
            "(`hf download` in newer versions) or `model.save_pretrained(FOLDER)` where there is one, and give FOLDER"
        ) from error


def revisions(name: str) -> tuple[str, ...]:
    """Return the revisions of a hub model that `sj.load(name, revision=...)` takes, checkpoints over training in their order.

    Branches and tags of the hub; without a network, those in the local cache. Names with numbers are ordered by them (step2
    before step10), names without one come first. Raises `LoadError` for a name that is in neither place.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    if not HUB_NAME.fullmatch(name) or name.startswith("."):
        raise LoadError(f"{name!r} is no hub name: give one such as 'org/name'; for a folder, see `checkpoints`")
    try:
        refs = HfApi().list_repo_refs(name)
    except (HfHubHTTPError, OSError) as error:
        found = _in_cache(name)
        if not found:
            raise LoadError(
                f"the revisions of {name!r} are not known: the hub did not give them ({type(error).__name__}), and the local cache has none of it"
            ) from error
        return found
    return _ordered(one.name for one in [*refs.branches, *refs.tags])


def _in_cache(name: str) -> tuple[str, ...]:
    """Return the branches and tags of a model that are in the local cache."""
    from huggingface_hub import constants  # noqa: PLC0415

    refs = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "refs"
    if not refs.is_dir():
        return ()
    return _ordered(
        path.relative_to(refs).as_posix()
        for path in refs.rglob("*")
        if path.is_file() and path.relative_to(refs).parts[0] != "pr"
    )


def checkpoints(folder: str | PathLike[str]) -> tuple[Path, ...]:
    """Return the checkpoints that a training run left in a folder (`checkpoint-100`, `step1000`), in the order of their numbers.

    Each is a path that `sj.load` takes. Raises `LoadError` for a folder without any.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise LoadError(f"there is no folder {str(folder)!r} (looked from {Path.cwd()})")
    inner = {path.name: path for path in place.iterdir() if path.is_dir() and NUMBER.search(path.name)}
    models = {
        name: path
        for name, path in inner.items()
        if (path / "config.json").is_file() or (path / "adapter_config.json").is_file()
    }
    if not models:
        raise LoadError(f"{folder} has no folders of checkpoints, such as checkpoint-100{listed(place)}")
    return tuple(models[name] for name in _ordered(models))


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Return names without numbers, then the others by their text and numbers."""

    def place(name: str) -> tuple[bool, list[tuple[int, str]]]:
        parts = [(int(part), "") if part.isdigit() else (-1, part) for part in NUMBER.split(name) if part]
        return any(number >= 0 for number, _ in parts), parts

    return tuple(sorted(dict.fromkeys(names), key=place))
