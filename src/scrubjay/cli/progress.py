"""A bar on the error stream for work that lasts: what is being done, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

AFTER_SECONDS = 2.0


@contextmanager
def steps_shown(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Give the function that is told each step; nothing is shown before two seconds have passed, or where `quiet`.

    Where the error stream is no terminal, each step is one line.
    """
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task("", total=None)
    begun, said, started = time.monotonic(), "", False

    def show(what: str, done: int, total: int) -> None:
        nonlocal said, started
        if quiet or time.monotonic() - begun < AFTER_SECONDS:
            return
        if not console.is_terminal:
            if what != said:
                console.print(what, markup=False, highlight=False)
        else:
            if not started:
                bar.start()
                started = True
            bar.update(task, description=what.replace("[", r"\["), completed=done, total=total or None)
        said = what

    try:
        yield show
    finally:
        if started:
            bar.stop()
