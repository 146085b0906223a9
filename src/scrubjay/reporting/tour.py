"""The tour: one model from capture to scrubbed hypotheses, as a page and as numbers."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from os import PathLike
from pathlib import Path

import scrubjay
from scrubjay.errors import InputError
from scrubjay.reporting.bracket_tour import bracket_chapters
from scrubjay.reporting.file import check_writable, write_page
from scrubjay.reporting.opened import Pair, open_pair
from scrubjay.reporting.steps import Steps, silent
from scrubjay.reporting.text_tour import text_chapters
from scrubjay.reporting.words import Chapter
from scrubjay.viz import page


@dataclass(frozen=True, eq=False)
class Tour:
    """What a tour found.

    Attributes:
        path: the page.
        model: the model's name.
        chapters: sections with findings and numbers, in order.
        main: the main findings, at most three.
        facts: fingerprints and settings that repeat it.
        seconds: how long it took.
    """

    path: Path
    model: str
    chapters: tuple[Chapter, ...]
    main: tuple[str, ...]
    facts: dict[str, object]
    seconds: float

    def to_dict(self) -> dict[str, object]:
        """Return findings and numbers as plain values, ready for JSON."""
        return {
            "report": str(self.path),
            "model": self.model,
            "findings": list(self.main),
            "sections": [
                {"title": one.section.title, "finding": one.finding, "numbers": one.numbers} for one in self.chapters
            ],
            "facts": self.facts,
            "seconds": round(self.seconds, 2),
        }

    def __repr__(self) -> str:
        """Say what was toured and where the page is."""
        return f"<Tour of {self.model}: {len(self.chapters)} sections, {self.path}>"


def tour(
    model: str | PathLike[str] = "zoo/brackets",
    out: str | PathLike[str] = "report.html",
    *,
    seed: int = 0,
    samples: int = 1500,
    rows: int = 2000,
    texts: Sequence[str] = (),
    steps: Steps = silent,
) -> Tour:
    """Look through a model and write what was found as one self-contained page.

    Args:
        model: `zoo/NAME`, a local folder, or a hub name.
        out: the page to write.
        seed: of all data that are drawn.
        samples: reference strings for each of two seeds of a scrub (models with a task).
        rows: strings to draw from (models with a task).
        texts: texts to look at, the first two of them to patch between (models of language).
        steps: told what is being done, and how far it is.

    Raises `CacheError` before any work if the page cannot be written, `InputError` for unsuitable numbers and texts, and
    `LoadError` for a model that cannot be read.
    """
    if samples < 2 or rows < 50:
        raise InputError(f"samples={samples}, rows={rows}: a tour needs at least 2 samples and 50 rows")
    if seed < 0:
        raise InputError(f"seed={seed}: a seed is 0 or more")
    path = check_writable(out)
    begun = time.perf_counter()
    steps(f"loading {model}", 0, 0)
    pair = open_pair(model)
    if pair.task == "brackets":
        if texts:
            raise InputError(f"{pair.model.name} reads brackets of its task, so texts are not used: leave them out")
        story = bracket_chapters(pair, seed, samples, rows, steps)
    else:
        story = text_chapters(pair, texts, seed, steps)
    steps("writing the page", 0, 0)
    facts = {**_facts(pair, seed), **story.facts}
    seconds = time.perf_counter() - begun
    shown = {name: _written(value) for name, value in facts.items()} | {"time taken": f"{seconds:.0f} s"}
    content = page(story.title, [chapter.section for chapter in story.chapters], story.summary, shown, kind="Tour")
    write_page(path, content)
    return Tour(path, pair.model.name, story.chapters, story.main, facts, seconds)


def _written(value: object) -> str:
    """Return a fact as the page shows it: digests of a table are cut to what tells them apart."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {str(item).removeprefix('sha256:')[:12]}" for name, item in value.items())
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


def _facts(pair: Pair, seed: int) -> dict[str, object]:
    return {
        "model": pair.model.name,
        "weights": pair.model.digest,
        "seed": seed,
        "scrubjay": scrubjay.__version__,
        "torch": version("torch").split("+")[0],
        "transformers": version("transformers"),
        "numpy": version("numpy"),
        "python": platform.python_version(),
    }
