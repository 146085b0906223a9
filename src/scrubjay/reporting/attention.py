"""Attention, measured: patterns on chosen rows, their mean over rows of one length, and what one position reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scrubjay.capture.model import Model
from scrubjay.errors import InputError
from scrubjay.interventions import run


@dataclass(frozen=True, eq=False)
class Patterns:
    """Attention weights of every head, (head, query, key), in the order of `heads`."""

    heads: tuple[str, ...]
    weights: np.ndarray


@dataclass(frozen=True, eq=False)
class Reading:
    """How one position's attention is shared among kinds of tokens, averaged over rows.

    Attributes:
        heads: names. kinds: names of the kinds of tokens.
        shares: shape (head, kind). even: shape (kind,): what attention spread evenly over real tokens would give.
    """

    heads: tuple[str, ...]
    kinds: tuple[str, ...]
    shares: np.ndarray
    even: np.ndarray


def head_names(model: Model) -> tuple[str, ...]:
    """Return the names of all heads whose attention pattern is known.

    >>> from scrubjay.zoo.load import load
    >>> head_names(load("zoo/brackets"))[-1]
    'L2.H1'
    """
    return tuple(
        f"L{layer}.H{head}"
        for layer, count in enumerate(model.heads)
        for head in range(count)
        if f"L{layer}.attn.pattern" in model.circuit.table
    )


def mean_patterns(model: Model, inputs: Any, heads: tuple[str, ...] | None = None) -> Patterns:
    """Return each head's attention averaged over rows, which must have no padding (one row: its own pattern).

    Raises `InputError` for rows of different lengths.
    """
    names = head_names(model) if heads is None else heads
    kept = run(model, inputs, keep=[f"{name}.pattern" for name in names])
    mask = kept.inputs.get("attention_mask")
    if mask is not None and not bool(mask.ne(0).all()):
        raise InputError("a mean of attention patterns was asked for over padded rows; choose rows of one length")
    found = [
        np.asarray(kept.values[f"{name}.pattern"].dense(("batch", "query", "key")).double()).mean(0) for name in names
    ]
    return Patterns(names, np.stack(found))


def reading(model: Model, inputs: Any, position: int, kinds: Mapping[str, int]) -> Reading:
    """Return what every head reads from one position, by kind of token.

    Args:
        model: the model.
        inputs: anything `sj.run` reads; padding counts as no kind.
        position: a column of the inputs.
        kinds: token ids by name.
    """
    names = head_names(model)
    kept = run(model, inputs, keep=[f"{name}.pattern" for name in names])
    ids, mask = kept.inputs["input_ids"].numpy(), kept.inputs.get("attention_mask")
    real = np.ones_like(ids, dtype=bool) if mask is None else mask.ne(0).numpy()
    here = {kind: (ids == token) & real for kind, token in kinds.items()}
    shares = np.zeros((len(names), len(kinds)))
    for number, name in enumerate(names):
        row = np.asarray(kept.values[f"{name}.pattern"].dense(("batch", "query", "key"))[:, position].double())
        shares[number] = [float((row * there).sum(1).mean()) for there in here.values()]
    even = np.array([float((there.sum(1) / real.sum(1)).mean()) for there in here.values()])
    return Reading(names, tuple(kinds), shares, even)
