"""How long work says where it is: a function told what is done and how far, and the story that comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from scrubjay.reporting.words import Chapter

Steps = Callable[[str, int, int], None]
"""Called with what is being done, how many parts of it are done, and how many there are (0 where unknown)."""


@dataclass(frozen=True, eq=False)
class Story:
    """A tour's text: title, summary, chapters, the main findings, and facts that repeat it."""

    title: str
    summary: str
    chapters: tuple[Chapter, ...]
    main: tuple[str, ...]
    facts: dict[str, object] = field(default_factory=dict[str, object])


def silent(what: str, done: int, total: int) -> None:
    """Say nothing."""


def within(steps: Steps, what: str) -> Callable[[int, int], None]:
    """Return the progress function of one piece of work.

    >>> within(lambda *said: print(*said), "patching")(1, 2)
    patching 1 2
    """
    return lambda done, total: steps(what, done, total)
