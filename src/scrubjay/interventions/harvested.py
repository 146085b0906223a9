"""Reading a harvest: shards of activations on disk, checked against their manifest, one site of one shard at a time.

FOLDER/manifest.json           format, version, settings, sites, and for each shard its file, digest, rows and inputs
FOLDER/shard-00000.safetensors tensors by address, and where each row comes from
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open

from scrubjay.engine.array import Array
from scrubjay.errors import AddressError, InputError, LoadError, near
from scrubjay.evidence.digest import digest_json

MANIFEST, FORMAT, VERSION = "manifest.json", "scrubjay.harvest", 1
ROW, POSITION, TOKEN, ROWS = "_row", "_position", "_token", "_rows"
"""Where token rows come from: row of the input, real position, token id; and where the rows of values without positions do."""


@dataclass(frozen=True, eq=False)
class Shard:
    """One file of a harvest; a tensor is read when it is asked for."""

    file: Path
    sites: Mapping[str, Sequence[str]]

    def __getitem__(self, address: str) -> Array:
        """Return the values of a site: axes `token` or `row` (or a block's own), then those of the value; `AddressError` where it was not kept."""
        return Array(_read(self.file, named(address, self.sites)), tuple(self.sites[named(address, self.sites)]))

    @property
    def rows(self) -> torch.Tensor:
        """The row of the input, counted over all of it, that each token is of: (token,)."""
        return _read(self.file, ROW)

    @property
    def positions(self) -> torch.Tensor:
        """The position of each token among the real tokens of its row: (token,)."""
        return _read(self.file, POSITION)

    @property
    def tokens(self) -> torch.Tensor:
        """The id of each token: (token,)."""
        return _read(self.file, TOKEN)

    @property
    def row_numbers(self) -> torch.Tensor:
        """The row of the input that each row of a value without positions is of: (row,)."""
        return _read(self.file, ROWS)

    @property
    def blocks(self) -> Iterator[Mapping[str, Array]]:
        """The batches as they were run, of a harvest of padded blocks: the model's inputs and the sites, each (batch, query, ...)."""
        number = 0
        while f"{number}/{ROWS}" in (names := _names(self.file)):
            mine = [name for name in names if name.startswith(f"{number}/")]
            found: dict[str, Array] = {}
            for name in mine:
                key = name.partition("/")[2]
                tensor = _read(self.file, name)
                plain = ("batch",) if key == ROWS else ("batch", "query")[: tensor.dim()]
                found[key] = Array(tensor, tuple(self.sites.get(key, plain)))
            yield found
            number += 1


@dataclass(frozen=True, eq=False)
class Harvest:
    """Activations on disk: `for shard in harvest` goes through them, `harvest["L3.resid_post"]` reads all of one site.

    A shard is compared with its digest when it is first read. `settings` say how it was made, `sites` the axes of each site; `counts` what the
    call that gave it computed, as `sj.plan` tells before: batches, rows, tokens, nodes, multiply-adds, bytes.
    """

    folder: Path
    manifest: Mapping[str, Any]
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    seen: set[str] = field(default_factory=set[str])

    @property
    def settings(self) -> Mapping[str, Any]:
        """How it was made: model, weights, sites, positions, type, batch size, interventions."""
        return self.manifest["settings"]

    @property
    def sites(self) -> Mapping[str, tuple[str, ...]]:
        """The axes of each kept site, by address."""
        return {name: tuple(axes) for name, axes in self.manifest["sites"].items()}

    @property
    def complete(self) -> bool:
        """Whether the input was gone through to its end."""
        return bool(self.manifest["complete"])

    @property
    def tokens(self) -> int:
        """The number of token rows in all."""
        return sum(one["tokens"] for one in self.manifest["shards"])

    def __len__(self) -> int:
        """Return the number of shards."""
        return len(self.manifest["shards"])

    def __iter__(self) -> Iterator[Shard]:
        """Give the shards in order; raise `LoadError` at one that is missing or damaged."""
        for row in self.manifest["shards"]:
            if row["file"] not in self.seen:
                if problem := damage(self.folder, row):
                    raise LoadError(
                        f"{problem}: call sj.harvest again with the same settings, and this shard alone is made anew"
                    )
                self.seen.add(row["file"])
            yield Shard(self.folder / row["file"], self.sites)

    def __getitem__(self, address: str) -> Array:
        """Return the values of a site from all shards, which must fit into memory; raise `AddressError` where it was not kept."""
        if self.settings["positions"] == "padded":
            raise InputError("a harvest of padded blocks has blocks of several widths: go through shard.blocks")
        name = named(address, self.sites)
        return Array(torch.cat([shard[name].as_tensor() for shard in self]), self.sites[name])

    def __repr__(self) -> str:
        """Say what there is in one line."""
        state = "" if self.complete else ", unfinished"
        return f"<Harvest of {self.settings['model']}: {len(self.sites)} sites, {self.tokens} tokens in {len(self)} shards{state}>"


def harvested(folder: str | PathLike[str], *, unfinished: bool = False) -> Harvest:
    """Return the harvest in a folder, to be read lazily.

    Args:
        folder: where `sj.harvest` wrote it.
        unfinished: take one that was cut off too.

    Raises `LoadError` where there is none, its manifest is damaged or of another version, or it is not finished. A damaged shard is
    found when it is read.
    """
    place = Path(folder)
    found = manifest_of(place)
    if found is None:
        raise LoadError(f"{place} holds no harvest: there is no {MANIFEST} in it")
    if not found["complete"] and not unfinished:
        raise LoadError(
            f"the harvest in {place} was cut off after {len(found['shards'])} shards: call sj.harvest again with the same settings to go on, or "
            "read what there is by harvested(folder, unfinished=True)"
        )
    return Harvest(place, found)


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """Return the manifest in a folder, `None` where there is none; raise `LoadError` for one that is damaged or of another version."""
    file = folder / MANIFEST
    try:
        if not file.is_file():
            return None
        found: Any = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise LoadError(
            f"{file} cannot be read ({type(error).__name__}: {str(error)[:100]}): harvest into another folder"
        ) from error
    if not isinstance(found, dict) or cast("dict[str, Any]", found).get("format") != FORMAT:
        raise LoadError(f"{file} does not describe a harvest: harvest into another folder")
    table = cast("dict[str, Any]", found)
    if table.get("version") != VERSION:
        raise LoadError(f"{file} is of version {str(table.get('version'))[:20]}; this Scrubjay reads version {VERSION}")
    body = {key: value for key, value in table.items() if key != "digest"}
    if table.get("digest") != digest_json(body):
        raise LoadError(f"{file} was changed after it was written: harvest into another folder")
    return body


def damage(folder: Path, row: Mapping[str, Any]) -> str:
    """Return what is wrong with a shard's file, empty where its digest is that of the manifest."""
    file = folder / row["file"]
    try:
        if file.stat().st_size != row["bytes"]:
            return f"{file} has {file.stat().st_size} bytes, and {MANIFEST} says {row['bytes']}"
        found = file_digest(file)
    except OSError as error:
        return f"{file} cannot be read ({type(error).__name__})"
    return "" if found == row["digest"] else f"{file} is not what was written (its digest differs)"


def file_digest(file: Path) -> str:
    """Return the digest of a file's bytes."""
    with file.open("rb") as content:
        return f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"


def named(address: str, sites: Mapping[str, object]) -> str:
    """Return the name a site is kept under; raise `AddressError` for one that is not there."""
    for name in (address, f".{address}"):
        if name in sites:
            return name
    raise AddressError(f"{address} is not in this harvest; it has {', '.join(sites)}{near(address, sites)}")


def _read(file: Path, name: str) -> torch.Tensor:
    try:
        with safe_open(str(file), framework="pt") as content:
            if name not in content.keys():  # noqa: SIM118 - it is no mapping
                raise InputError(
                    f"{file} holds no {name!r}: the harvest has no such values (blocks have shard.blocks, others have not)"
                )
            return content.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise LoadError(f"{file} cannot be read ({type(error).__name__}: {str(error)[:100]})") from error


def _names(file: Path) -> list[str]:
    with safe_open(str(file), framework="pt") as content:
        return list(content.keys())
