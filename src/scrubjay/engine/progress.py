"""Progress of long work, on the terminal, only where it lasts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

Progress = Callable[[int, int], None]


@contextmanager
def progress_after(seconds: float, what: str) -> Generator[Progress]:
    """Give a function of (done, of how many) that shows a bar once the work has lasted `seconds`, on a terminal or notebook."""
    from rich.console import Console  # noqa: PLC0415 - not needed by short runs
    from rich.progress import Progress as Bar  # noqa: PLC0415

    begun = time.monotonic()
    bar: Bar | None = None
    task = None

    def report(done: int, total: int) -> None:
        nonlocal bar, task
        if bar is None:
            if time.monotonic() - begun < seconds:
                return
            console = Console(file=sys.stderr)
            bar = Bar(console=console, transient=True, disable=not (console.is_terminal or console.is_jupyter))
            bar.start()
            task = bar.add_task(what, total=total)
        if task is not None:
            bar.update(task, completed=done, total=total)

    try:
        yield report
    finally:
        if bar is not None:
            bar.stop()
