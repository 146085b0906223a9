"""Verdicts kept beside cached circuits, so that the second load of a model is not checked again.

    FOLDER/KEY.TYPE.verdict.json    what the check found for a floating type, and a digest of that

KEY is the circuit's own: versions, code, configuration. The values of weights play no part, as they play none in the circuit: a
weight that is not a number is found when the model is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from scrubjay.capture.cache import put
from scrubjay.capture.check import Original, Verdict, checked, verdict_of
from scrubjay.capture.export import model_dtype
from scrubjay.circuit.recognisers import Anatomy
from scrubjay.evidence.digest import digest_json

FORMAT = "scrubjay.verdict"


def verdict_for(
    place: Path | None, original: Original, anatomy: Anatomy, config: Mapping[str, object] | None = None
) -> Verdict:
    """Return the verdict on a captured model: the one kept beside its circuit, else that of a check made now and kept.

    Args:
        place: the file of the cached circuit; None where none is kept, and then the check is made at each load.
        original: the module and its circuit.
        anatomy: what was recognised.
        config: the module's configuration, where it has one.

    What could not be checked is not kept. Raises `CacheError` if the folder cannot be written to.
    """
    if place is None:
        return checked(original, anatomy, config)
    file = place.with_suffix(f".{str(model_dtype(original.module)).removeprefix('torch.')}.verdict.json")
    found = _read(file)
    if found is None:
        found = checked(original, anatomy, config)
        if found.exact is not None:
            body = json.loads(json.dumps(found.to_dict(), allow_nan=False))
            put(file, json.dumps({"format": FORMAT, "digest": digest_json(body), "body": body}).encode())
    return found


def _read(file: Path) -> Verdict | None:
    """Return the verdict in a file, or None where there is none, or it is damaged and to be made anew."""
    try:
        data = json.loads(file.read_bytes())
        if (
            not isinstance(data, dict)
            or data.get("format") != FORMAT
            or digest_json(data.get("body")) != data.get("digest")
        ):
            return None
        return verdict_of(data["body"])
    except (OSError, ValueError, RecursionError):
        return None
