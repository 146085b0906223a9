"""The table that `sweeps.py` prints: for each row who took how long, and how that compares."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

CLOCKS = ("seconds", "processor")


@dataclass(frozen=True)
class Line:
    """One tool's seconds for all cells of a row, of the clock and of the processor, and how they were found."""

    who: str
    seconds: float
    processor: float
    how: str = ""


@dataclass
class Row:
    """What was measured: its lines, the one that the others are compared with, remarks, and goals with whether they were met."""

    name: str
    title: str
    lines: list[Line]
    base: str
    clock: str = "seconds"
    notes: list[str] = field(default_factory=list)
    goals: list[tuple[str, bool]] = field(default_factory=list)

    def of(self, who: str) -> float:
        return next(getattr(line, self.clock) for line in self.lines if line.who == who)

    def ratio(self, who: str) -> float:
        return self.of(who) / self.of(self.base)

    def goal(self, text: str, met: bool) -> None:
        self.goals.append((text, bool(met)))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        lines = [self.title + (", of one thread's processor time" if self.clock == "processor" else "")]
        for line in self.lines:
            took = getattr(line, self.clock)
            other = line.processor if self.clock == "seconds" else line.seconds
            base = next(one for one in self.lines if one.who == self.base)
            beside = other / max(base.processor if self.clock == "seconds" else base.seconds, 1e-9)
            lines.append(
                f"  {line.who:32}{spoken(took):>12}{took / self.of(self.base):9.2f}x{beside:9.2f}x  {line.how}"
            )
        lines += [f"  {note}" for note in self.notes]
        lines += [f"  {'met   ' if met else 'MISSED'} {text}" for text, met in self.goals]
        return "\n".join(lines)


def spoken(seconds: float) -> str:
    """Return a time as people write it.

    >>> spoken(0.0123), spoken(95.2), spoken(9000)
    ('12.3 ms', '95.2 s', '150 min')
    """
    if seconds < 2:
        return f"{seconds * 1e3:.1f} ms" if seconds < 0.1 else f"{seconds * 1e3:.0f} ms"
    return (
        f"{seconds:.1f} s"
        if seconds < 600
        else f"{seconds / 60:.0f} min"
        if seconds < 36000
        else f"{seconds / 3600:.1f} h"
    )


def processor_name() -> str:
    """Return what the processor calls itself."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []  # fmt: skip
    return names[0] if names else platform.processor() or platform.machine()


def machine(threads: int, device: str) -> dict[str, Any]:
    """Return what the numbers hang on: the processor, its cores, threads, versions, the load now."""
    name = torch.cuda.get_device_name() if device != "cpu" else ""
    return {
        "processor": processor_name(), "cores": os.cpu_count(), "threads": threads, "device": name or device, "python": platform.python_version(),
        "torch": torch.__version__, "load": [round(one, 2) for one in os.getloadavg()],
    }  # fmt: skip
