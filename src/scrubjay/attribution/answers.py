"""Answers as token ids, one for each row: given as ids, or as texts that are one token each."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any, cast

import numpy as np
import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.node import Node
from scrubjay.errors import InputError
from scrubjay.interventions.pair import check_read


def logits_node(model: Model, asked: str) -> Node:
    """Return the node of a model's logits; raise `InputError` where its result is something else."""
    name = model.anatomy.result
    node = model.circuit.roots[name]
    rest = node.axis_names - {"batch", "query"}
    if name != "logits" or "batch" not in node.axis_names or len(rest) != 1:
        axes = ", ".join(map(str, node.axes))
        raise InputError(
            f"{asked} was asked for in {model.name}, whose result is {name!r} ({axes}) and no logits over tokens or classes: "
            "load a model with an unembedding (AutoModelForCausalLM, AutoModelForMaskedLM), or take a site apart by decompose"
        )
    return node


def vocabulary_of(logits: Node) -> tuple[str, int]:
    """Return the axis of tokens or classes of logits, and how many there are."""
    (axis,) = [axis for axis in logits.axes if axis.name not in {"batch", "query"}]
    return axis.name, int(axis.size)


def token_ids(model: Model, given: Any, rows: int, size: int, what: str = "answers") -> torch.Tensor:
    """Return one token id for each row, shape (row,).

    Args:
        model: whose tokenizer reads texts.
        given: an id or text for all rows, or one for each.
        rows: how many rows there are.
        size: of the vocabulary.
        what: what to call them in errors.

    Raises `InputError` for another number of answers than rows, a text that is not one token (with its tokens), an id outside.
    """
    if isinstance(given, torch.Tensor | np.ndarray):
        given = given.tolist()
    alone = isinstance(given, str | int | np.integer)
    if not alone and not isinstance(given, Sequence):
        raise InputError(f"{what} is {given!r}: give a token id or a text for all rows, or one for each row")
    each: list[Any] = [given] if alone else list(cast("Sequence[Any]", given))
    if not alone and len(each) != rows:
        raise InputError(f"{len(each)} {what} were given for {rows} rows: give one for all rows, or one for each row")
    known = {text: _token_of(model, text) for text in dict.fromkeys(one for one in each if isinstance(one, str))}
    for text, found in known.items():
        if not isinstance(found, list):
            check_read(model, text, found, what)
    if several := {text: found for text, found in known.items() if isinstance(found, list)}:
        raise InputError(_several(model, several, what))
    ids: list[int] = []
    for one in each:
        number = known[one] if isinstance(one, str) else one
        if isinstance(number, bool) or not isinstance(number, int | np.integer):
            raise InputError(f"{one!r} among {what} is neither a token id nor a text")
        if not 0 <= number < size:
            raise InputError(f"token {number} among {what} is outside the vocabulary of {model.name}: 0..{size - 1}")
        ids.append(int(number))
    return torch.tensor(ids * rows if alone else ids)


def _token_of(model: Model, text: str) -> int | list[int]:
    """Return the one token that a text is, or the several."""
    if model.tokenizer is None:
        raise InputError(f"{model.name} has no tokenizer, so {text!r} cannot be read: give token ids")
    found = _read(model, text)
    return found[0] if len(found) == 1 else found


def _read(model: Model, text: str) -> list[int]:
    """Return the tokens of a text without those for beginning and end."""
    if "add_special_tokens" in signature(model.tokenizer.__call__).parameters:
        return list(model.tokenizer(text, add_special_tokens=False)["input_ids"])
    around = set(model.tokenizer("")["input_ids"])
    return [token for token in model.tokenizer(text)["input_ids"] if token not in around]


def _several(model: Model, several: dict[str, list[int]], what: str) -> str:
    told: list[str] = []
    for text, ids in list(several.items())[:5]:
        pieces = ", ".join(spelled(model, one) for one in ids) or "nothing"
        spaced = f" {text}"
        hint = f"; {spaced!r}, with a space, is one" if ids and len(_read(model, spaced)) == 1 else ""
        told.append(f"{text!r} is {len(ids)} tokens ({pieces}){hint}")
    more = f", and {len(several) - 5} more" if len(several) > 5 else ""
    return f"{what} must be one token each: {'; '.join(told)}{more}. Give the first token's id, or another word"


def spelled(model: Model, token: int) -> str:
    """Return a token as text in quotes, or its number where there is no tokenizer."""
    return repr(plain(model, token)) if model.tokenizer is not None else str(token)


def plain(model: Model, token: int) -> str:
    """Return a token as text, or its number where there is no tokenizer."""
    return str(model.tokenizer.decode([token])) if model.tokenizer is not None else str(token)
