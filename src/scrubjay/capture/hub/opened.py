"""What opening a model gives, and what every part of the opening shares: words, quiet, how an error is quoted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from scrubjay.capture.export import Signature

SILENT = 100
ENDS_OF_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
CONVERT = (
    "a pickle can run code when it is read, so Scrubjay never reads one: if you trust it, load it yourself and write it with "
    "`model.save_pretrained(folder)`, then give that folder"
)


@dataclass(frozen=True, eq=False)
class Opened:
    """A module that is ready to be captured.

    Attributes:
        module: in evaluation mode.
        signature: how it is called.
        name: what to call it.
        tokenizer: its tokenizer, or None.
        context: the longest input it says it takes, or None.
        facts: what a captured circuit depends on beside the module's structure, as JSON.
        told: what running it needs to know and no circuit says: the token that a decoder begins with.
    """

    module: nn.Module
    signature: Signature
    name: str
    tokenizer: Any
    context: int | None
    facts: Mapping[str, Any]
    told: Mapping[str, object] = field(default_factory=dict[str, object])


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from reporting its progress; what was set before is set again."""
    from transformers.utils import logging  # noqa: PLC0415

    level = logging.get_verbosity()
    hook = logging.set_tqdm_hook(lambda _factory, args, kwargs: logging.EmptyTqdm(*args, **kwargs))
    logging.set_verbosity(SILENT)
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.set_tqdm_hook(hook)


def listed(folder: Path) -> str:
    """Return `" (it holds a, b)"` for a folder."""
    names = sorted(path.name for path in folder.iterdir())
    return f" (it holds {', '.join(names[:6])}{', ...' if len(names) > 6 else ''})" if names else " (it is empty)"


def first_line(error: Exception) -> str:
    """Return the type of an error and the first line of what it says."""
    return f"{type(error).__name__}: {quoted(str(error)) or 'no message'}"


def quoted(text: str, most: int = 300) -> str:
    r"""Return the first line of a foreign text to stand in a sentence: without its last punctuation, cut between words.

    >>> quoted("the sizes differ.\nTry again."), quoted("one two three", most=9)
    ('the sizes differ', 'one two ...')
    """
    line = text.strip().partition("\n")[0].rstrip(" .,;:!\r")
    return line if len(line) <= most else f"{line[:most].rpartition(' ')[0] or line[:most]} ..."
