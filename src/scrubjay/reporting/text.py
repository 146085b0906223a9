"""Texts for a model of language: read from the user, or a pair of our own, or token ids where there is no tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from scrubjay.capture.model import Model
from scrubjay.errors import InputError
from scrubjay.interventions.inputs import tokens_of, vocabulary

DEFAULT = (
    "When Mary and John went to the store, John gave a drink to",
    "When Mary and John went to the store, Mary gave a drink to",
)
_RANDOM_LENGTH = 10
MOST_TOKENS = 48
"""The longest text that the tour draws."""


@dataclass(frozen=True, eq=False)
class Text:
    """One text: what to call it, its tokens to show, and the inputs of one row."""

    title: str
    tokens: tuple[str, ...]
    inputs: dict[str, torch.Tensor]


def texts_of(model: Model, given: Sequence[str], seed: int) -> list[Text]:
    """Return the texts to look at; without any given, two of our own (or two rows of random ids that differ in one place).

    Without a tokenizer a text is token ids with spaces between them.

    Raises `InputError` for other text without a tokenizer, and a text too long to draw.
    """
    if model.tokenizer is not None:
        return [_checked(_encoded(model, text)) for text in (given or DEFAULT)]
    rows = [_ids(model, text) for text in given] if given else _random_rows(model, seed)
    return [
        _checked(Text(f"token ids {' '.join(map(str, row))}", tuple(map(str, row)), {"input_ids": torch.tensor([row])}))
        for row in rows
    ]


def _encoded(model: Model, text: str) -> Text:
    found = tokens_of(model, [text])
    names = tuple(model.tokenizer.decode([token]) for token in found["input_ids"][0].tolist())
    return Text(f"\u201c{text}\u201d", names, found)


def _checked(text: Text) -> Text:
    if len(text.tokens) > MOST_TOKENS:
        raise InputError(
            f"a text of {len(text.tokens)} tokens was given; the tour draws at most {MOST_TOKENS}: shorten {text.title[:60]}"
        )
    return text


def _ids(model: Model, text: str) -> list[int]:
    pieces = text.replace(",", " ").split()
    if not pieces or not all(piece.isdigit() for piece in pieces):
        raise InputError(f"{model.name} has no tokenizer, so a text is token ids such as '5 17 3'; {text!r} was given")
    return [int(piece) for piece in pieces]


def _random_rows(model: Model, seed: int) -> list[list[int]]:
    size = vocabulary(model, "input_ids") or 2
    length = min(_RANDOM_LENGTH, model.context or _RANDOM_LENGTH)
    generator = np.random.default_rng(seed)
    row = generator.integers(size, size=length).tolist()
    place = length // 2
    other = [*row[:place], (row[place] + 1 + int(generator.integers(max(size - 1, 1)))) % size, *row[place + 1 :]]
    return [row, other]


def fresh_batches(model: Model, seed: int) -> list[dict[str, torch.Tensor]]:
    """Return random rows to check a model on: unpadded, and padded at either end where it reads a padding mask."""
    size = vocabulary(model, "input_ids") or 2
    length = min(15, model.context or 15)
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(size, (3, length), generator=draw)
    batches = [{"input_ids": ids}]
    if "attention_mask" in model.circuit.inputs and length > 3:
        for left in (True, False):
            mask = torch.ones_like(ids)
            for row, cut in enumerate((0, 1, length // 2)):
                mask[row, slice(0, cut) if left else slice(length - cut, length)] = 0
            batches.append({"input_ids": torch.randint(size, ids.shape, generator=draw), "attention_mask": mask})
    return batches
