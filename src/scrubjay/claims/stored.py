"""Data sets on disk: a sealed folder of JSON and safetensors that reads back to a data set of the same digest."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from scrubjay.claims.data import Dataset, Feature
from scrubjay.errors import EvidenceError, InputError
from scrubjay.evidence.sealed import Form, read_sealed, write_sealed

FORM = Form("data.json", "scrubjay.data", 1)
INPUT, FEATURE, LABELS = "input.", "feature.", "labels"


def save_data(data: Dataset, folder: str | PathLike[str], *, overwrite: bool = False) -> str:
    """Write a data set into a folder and return the digest of the data.

    Raises `EvidenceError` for a folder that is there already, `CacheError` where it cannot be written.
    """
    arrays = {LABELS: data.labels}
    arrays |= {f"{INPUT}{name}": array for name, array in data.inputs.items()}
    arrays |= {f"{FEATURE}{name}": feature.values for name, feature in data.features.items()}
    body: dict[str, object] = {
        "name": data.name,
        "digest": data.digest,
        "texts": list(data.texts),
        "features": {
            name: {"description": feature.description, "tie_rule": feature.tie_rule}
            for name, feature in data.features.items()
        },
    }
    write_sealed(Path(folder), FORM, body, arrays, overwrite=overwrite)
    return data.digest


def load_data(folder: str | PathLike[str]) -> Dataset:
    """Return the data set that `save_data` wrote; raise `EvidenceError` for a folder that is damaged or was changed."""
    body, arrays, _ = read_sealed(Path(folder), FORM)
    if set(body) != {"name", "digest", "texts", "features"} or LABELS not in arrays:
        raise EvidenceError(f"{folder} is damaged: it has the fields {', '.join(body)[:200]}")
    try:
        found = Dataset(
            str(body["name"]),
            {name.removeprefix(INPUT): array for name, array in arrays.items() if name.startswith(INPUT)},
            arrays[LABELS],
            {
                name.removeprefix(FEATURE): _feature(name.removeprefix(FEATURE), array, body["features"])
                for name, array in arrays.items()
                if name.startswith(FEATURE)
            },
            tuple(map(str, body["texts"])),
        )
    except (InputError, TypeError, KeyError, AttributeError) as error:
        raise EvidenceError(f"{folder} holds no data set: {error}") from error
    if found.digest != body["digest"]:
        raise EvidenceError(f"{folder}: the data have the digest {found.digest}, and were saved as {body['digest']}")
    return found


def _feature(name: str, values: np.ndarray, said: Any) -> Feature:
    return Feature(name, values, str(said[name]["description"]), str(said[name]["tie_rule"]))
