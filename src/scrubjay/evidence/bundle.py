"""Bundles: one zip file with records, the data and, if wanted, the model they are about, each file with its size and digest.

    bundle.json            format, version, every file with size and digest, and the digest of all that
    records/NAME/...       records, as `ResultRecord.save` writes them
    data/NAME/...          data sets
    models/NAME/...        models

Two bundles of equal contents are equal bytes. Unpacking writes only files that the manifest names, inside one folder, no more
bytes than it says and than the caller allows; nothing is run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any, cast

from scrubjay.errors import CacheError, EvidenceError
from scrubjay.evidence.digest import digest_json
from scrubjay.evidence.sealed import parsed

MANIFEST = "bundle.json"
FORMAT, VERSION = "scrubjay.bundle", 1
PARTS = ("records", "data", "models")
MOST_FILES = 10_000
MOST_BYTES = 2**36
BLOCK = 2**20
SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".jinja")
"""Files that a bundle may hold, by how their names end."""


@dataclass(frozen=True)
class Bundled:
    """A bundle's manifest: the size and digest of each file by its path, and the digest of the whole."""

    files: Mapping[str, tuple[int, str]]
    digest: str

    def folders(self, part: str) -> list[str]:
        """Return the names of the folders in one part (`"records"`, `"data"`, `"models"`)."""
        return sorted({path.split("/")[1] for path in self.files if path.startswith(f"{part}/")})


def write_bundle(path: str | PathLike[str], folders: Mapping[str, Path], *, overwrite: bool = False) -> Bundled:
    """Write folders into a bundle and return its manifest.

    Args:
        path: the zip file to make; it appears whole or not at all.
        folders: by their place in the bundle, such as `{"records/first": Path("first")}`.
        overwrite: replace a file that is there.

    Raises `EvidenceError` for a file that is there, places outside the parts, links, and files that a bundle does not take;
    `CacheError` where it cannot be written.
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise EvidenceError(f"{target} is there already: give overwrite=True to replace it, or another name")
    found = {place: file for name, folder in folders.items() for place, file in _inside(name, folder)}
    made = _manifest({place: (file.stat().st_size, _digest(file)) for place, file in sorted(found.items())})
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            partial = Path(scratch) / "bundle"
            with zipfile.ZipFile(partial, "w") as archive:
                _add(archive, MANIFEST, _written(made))
                for place, file in sorted(found.items()):
                    _add(archive, place, file)
            partial.replace(target)
    except OSError as error:
        raise CacheError(f"{target} cannot be written: {error}") from error
    return made


def _inside(name: str, folder: Path) -> list[tuple[str, Path]]:
    if len(PurePosixPath(name).parts) != 2 or not _is_place(f"{name}/a.json"):
        raise EvidenceError(f"{name!r} is no place in a bundle: use records/NAME, data/NAME or models/NAME")
    files = sorted(one for one in folder.rglob("*") if one.is_symlink() or not one.is_dir())
    if not files:
        raise EvidenceError(f"{folder} holds no file to put into a bundle")
    made: list[tuple[str, Path]] = []
    for file in files:
        place = f"{name}/{file.relative_to(folder).as_posix()}"
        if file.is_symlink() or not file.is_file() or not _is_place(place):
            raise EvidenceError(f"{file} is no file that a bundle takes: plain files that end in {', '.join(SUFFIXES)}")
        made.append((place, file))
    return made


def _is_place(place: str) -> bool:
    """Tell whether a path is one that a bundle may hold: below a part, no way out, plain characters."""
    parts = place.split("/")
    plain = all(part and part[0] != "." and all(one.isalnum() or one in "._- " for one in part) for part in parts)
    return plain and place.isascii() and 3 <= len(parts) <= 6 and parts[0] in PARTS and place.endswith(SUFFIXES)


def _manifest(files: Mapping[str, tuple[int, str]]) -> Bundled:
    return Bundled(dict(files), digest_json(_body(files)))


def _body(files: Mapping[str, tuple[int, str]]) -> dict[str, object]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "files": {place: {"bytes": size, "digest": digest} for place, (size, digest) in files.items()},
    }


def _written(made: Bundled) -> bytes:
    return json.dumps({**_body(made.files), "digest": made.digest}, indent=1, sort_keys=True).encode()


def _add(archive: zipfile.ZipFile, place: str, content: bytes | Path) -> None:
    """Add a file with nothing in it that differs between two machines: no times, no owners."""
    entry = zipfile.ZipInfo(place, (1980, 1, 1, 0, 0, 0))
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    with archive.open(entry, "w", force_zip64=True) as out:
        if isinstance(content, bytes):
            out.write(content)
            return
        with content.open("rb") as source:
            shutil.copyfileobj(source, out, BLOCK)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"


def unpack_bundle(path: str | PathLike[str], folder: str | PathLike[str], *, most: int = MOST_BYTES) -> Bundled:
    """Check a bundle and unpack it into a new folder; return its manifest.

    `most` bounds the bytes of all files together. Raises `EvidenceError` for a file that is no bundle, was changed, names files
    outside its folder, or holds more than it says; then nothing is left behind. `CacheError` where the folder cannot be written.
    """
    source, target = Path(path), Path(folder)
    if target.exists():
        raise EvidenceError(f"{target} is there already: give the name of a new folder")
    if not source.is_file():
        raise EvidenceError(f"{source} is no file: give the bundle that scrubjay bundle wrote")
    try:
        with zipfile.ZipFile(source) as archive:
            made = _checked_manifest(archive, source, most)
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
                inner = Path(scratch) / "bundle"
                for place, (size, digest) in made.files.items():
                    _unpack(archive, place, inner / place, size, digest)
                inner.rename(target)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise EvidenceError(
            f"{source} is no bundle that can be read ({type(error).__name__}: {str(error)[:100]})"
        ) from error
    except OSError as error:
        raise CacheError(f"{source} cannot be unpacked into {target}: {error}") from error
    return made


def _checked_manifest(archive: zipfile.ZipFile, source: Path, most: int) -> Bundled:
    names = archive.namelist()
    if len(names) > MOST_FILES or len(set(names)) != len(names) or MANIFEST not in names:
        raise EvidenceError(
            f"{source} has {len(names)} entries, and should have {MANIFEST}, no name twice, at most {MOST_FILES}"
        )
    with archive.open(MANIFEST) as content:
        text = content.read(BLOCK * 64 + 1)
    if len(text) > BLOCK * 64:
        raise EvidenceError(f"{source}: {MANIFEST} is larger than any bundle's")
    try:
        found = parsed(text.decode("utf-8"), f"{source}: {MANIFEST}")
    except UnicodeDecodeError as error:
        raise EvidenceError(f"{source}: {MANIFEST} is no UTF-8") from error
    files = _files(found, source)
    made = _manifest(files)
    if (
        set(found) != {"format", "version", "files", "digest"}
        or found["format"] != FORMAT
        or found["version"] != VERSION
    ):
        raise EvidenceError(f"{source}: {MANIFEST} is not of format {FORMAT}, version {VERSION}")
    if found["digest"] != made.digest:
        raise EvidenceError(f"{source}: {MANIFEST} was changed after it was written")
    if set(names) != {MANIFEST, *files}:
        odd = sorted(set(names) ^ {MANIFEST, *files})
        raise EvidenceError(f"{source} and its {MANIFEST} do not name the same files: {', '.join(odd)[:200]}")
    if sum(size for size, _ in files.values()) > most:
        raise EvidenceError(
            f"{source} says it holds {sum(size for size, _ in files.values())} bytes; at most {most} are unpacked"
        )
    return made


def _files(found: Mapping[str, Any], source: Path) -> dict[str, tuple[int, str]]:
    rows = found.get("files")
    if not isinstance(rows, dict):
        raise EvidenceError(f"{source}: {MANIFEST} has no list of files")
    made: dict[str, tuple[int, str]] = {}
    for place, row in cast("dict[str, Any]", rows).items():
        if not _is_place(place):
            raise EvidenceError(f"{source}: {place[:80]!r} is no place in a bundle")
        if not isinstance(row, dict) or set(cast("dict[str, Any]", row)) != {"bytes", "digest"}:
            raise EvidenceError(f"{source}: {place[:80]!r} has no size and digest")
        size, digest = row["bytes"], row["digest"]
        if type(size) is not int or size < 0 or type(digest) is not str:
            raise EvidenceError(f"{source}: {place[:80]!r} has no size and digest")
        made[place] = (size, digest)
    return made


def _unpack(archive: zipfile.ZipFile, place: str, target: Path, size: int, digest: str) -> None:
    """Write one file, no more of it than was said, and compare its digest."""
    target.parent.mkdir(parents=True, exist_ok=True)
    seen, left = hashlib.sha256(), size
    with archive.open(place) as content, target.open("xb") as out:
        while block := content.read(min(BLOCK, left + 1)):
            left -= len(block)
            if left < 0:
                raise EvidenceError(f"{place} holds more than the {size} bytes that the manifest says")
            seen.update(block)
            out.write(block)
    if left or f"sha256:{seen.hexdigest()}" != digest:
        raise EvidenceError(f"{place} is not what was bundled: its size or digest differs")
