"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_whole(place: Path, content: bytes) -> None:
    """Write a file at once: a reader finds the old one or the new one, never a part; two writers do not meet.

    Folders are made. Raises `OSError` as the file system does, and leaves nothing behind then.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=".", suffix=".partial", dir=place.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(partial).replace(place)
    except OSError:
        Path(partial).unlink(missing_ok=True)
        raise
