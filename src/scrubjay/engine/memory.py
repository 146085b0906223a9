"""How much memory there is, how much may be used, and going on in smaller pieces where it runs out."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import ceil, isfinite
from pathlib import Path
from typing import TypeVar

import torch

from scrubjay.errors import InputError

Piece = TypeVar("Piece")
Made = TypeVar("Made")

SHARE = {"cpu": 0.5, "cuda": 0.8}
"""The part of free memory that is used where no budget is given."""
UNITS: Mapping[str, int] = {
    "": 1,
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}IB": 1024**power for power, letter in enumerate("KMGT", 1)},
}


def budget_bytes(given: int | str | None, device: torch.device | str | None = None) -> int:
    """Return a budget in bytes: a number of bytes, a text such as `"2 GB"` or `"512 MiB"`, or a share of what is free on a device.

    Raises `InputError` for what is no amount of memory.

    >>> budget_bytes("1.5 GB"), budget_bytes("2MiB"), budget_bytes(300)
    (1500000000, 2097152, 300)
    """
    if given is None:
        kind = torch.device(device or "cpu").type
        return int(free_bytes(device) * SHARE.get(kind, 0.5))
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", given) if isinstance(given, str) else None
    if found is not None and found[2].upper() in UNITS:
        size = float(found[1]) * UNITS[found[2].upper()]
    elif isinstance(given, int) and not isinstance(given, bool):
        size = given
    else:
        raise InputError(f"budget={given!r} is no amount of memory: give bytes, or a text such as '2 GB' or '512 MiB'")
    if not isfinite(size) or size < 1:
        raise InputError(f"budget={given!r} is {size} bytes: give at least one byte")
    return int(size)


def free_bytes(device: torch.device | str | None = None) -> int:
    """Return the free memory of a device in bytes: what the system says is available, within the limit of the process's group."""
    device = torch.device(device or "cpu")
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_system_bytes(), _group_bytes())


def _system_bytes() -> int:
    """Return what the system has available; half of all there is where it does not say."""
    table = Path("/proc/meminfo")
    if table.is_file() and (found := re.search(r"MemAvailable:\s+(\d+) kB", table.read_text("ascii", "replace"))):
        return int(found[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):  # a system that does not tell: little enough for any
        return 2**31


def _group_bytes(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """Return what the control group of the process (a container's, say) has left; file pages can be given up."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        pages = re.search(r"^inactive_file (\d+)", (folder / "memory.stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):  # no such group
        return 2**62
    return 2**62 if limit == "max" else max(0, int(limit) - used + (int(pages[1]) if pages else 0))


def in_words(size: float) -> str:
    """Return bytes as people write them.

    >>> in_words(1_530_000), in_words(12)
    ('1.53 MB', '12 bytes')
    """
    for name in ("TB", "GB", "MB", "KB"):
        if size >= UNITS[name]:
            return f"{size / UNITS[name]:.3g} {name}"
    return f"{int(size)} bytes"


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out: torch's own on a GPU, its allocator's on a processor, or Python's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "not enough memory" in text)


def halving(
    pieces: Iterable[list[Piece]], call: Callable[[list[Piece]], Made], splits: bool = True
) -> Iterator[tuple[list[Piece], Made]]:
    """Give each piece of work with what was made of it; where memory runs out, all that is left is done in pieces half as large.

    Raises the error itself for a piece of one (any piece, where they may not be split).

    >>> [(piece, made) for piece, made in halving([[1, 2], [3]], sum)]
    [([1, 2], 3), ([3], 3)]
    """
    waiting = deque(pieces)
    while waiting:
        piece = waiting.popleft()
        try:
            made = call(piece)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(piece) < 2 or not splits:
                raise
            most = ceil(len(piece) / 2)
            made = None
        else:
            yield piece, made
            continue
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        left = [piece, *waiting]
        waiting = deque(one[at : at + most] for one in left for at in range(0, len(one), most))
