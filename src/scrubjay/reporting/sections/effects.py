"""How far does each patch move the answer? Tables of effects as heat maps, lists of edges as bars."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from scrubjay.errors import InputError
from scrubjay.interventions import Effects
from scrubjay.viz import Figure, Section, bars, heatmap

_MOST_BARS = 24
_HEAD = re.compile(r"L(\d+)\.H(\d+)\.(\w+)")
_TITLES = {
    "denoise": "Clean values into the counterfactual run",
    "noise": "Counterfactual values into the clean run",
}
_SCALES = {
    "denoise": "0: nothing came back; 1: all of the clean answer",
    "noise": "0: nothing was lost; 1: all of the clean answer",
}


def effects_section(found: Effects) -> Section:
    """Return the section of a sweep, a path patch or an edge patch."""
    ends = f"{found.metric} is {found.clean.mean():.3g} on clean inputs and {found.corrupted.mean():.3g} on counterfactual ones"
    try:
        effect, unit, scale = found.effect, "", _SCALES[found.direction]
    except InputError:  # no gap to normalise by: the raw metric is shown, and the words say why
        effect, unit, scale = (
            found.values.mean(-1),
            found.metric,
            "clean and counterfactual hardly differ: the raw metric, not normalised",
        )
    caption = f"{found.values.shape[-1]} pairs; {ends}. {scale}."
    figure = Figure(_drawn(found, effect, unit), caption)
    finding = f"No effect is given: {found.refusal}." if found.refusal else _finding(found, effect)
    return Section(_TITLES[found.direction], finding, (figure,))


def _finding(found: Effects, effect: np.ndarray) -> str:
    flat = np.where(np.isnan(effect), 0, effect)
    at = np.unravel_index(int(np.abs(flat).argmax()), flat.shape)
    names = [_name(list(given)[place]) for given, place in zip(found.labels.values(), at, strict=True)]
    return f"The greatest effect is {flat[at]:+.2f}, of {' at '.join(names)}."


def _name(label: Any) -> str:
    return " to ".join(map(str, label)) if isinstance(label, tuple) else str(label)


def _drawn(found: Effects, effect: np.ndarray, unit: str) -> Any:
    names = [[_name(one) for one in given] for given in found.labels.values()]
    if effect.ndim == 2:
        return heatmap(effect, names[0], names[1], "Effect", unit=unit)
    heads = [_HEAD.fullmatch(name) for name in names[0]]
    if len(heads) > 3 and all(heads) and len({one[3] for one in heads if one}) == 1:
        places = [(int(one[1]), int(one[2])) for one in heads if one]
        layers = sorted({layer for layer, _ in places})
        grid = np.full((len(layers), max(head for _, head in places) + 1), np.nan)
        for (layer, head), value in zip(places, effect, strict=True):
            grid[layers.index(layer), head] = value
        columns = [f"H{head}" for head in range(grid.shape[1])]
        return heatmap(grid, [f"L{layer}" for layer in layers], columns, f"Effect of each head's {heads[0][3] if heads[0] else ''}", unit=unit)  # fmt: skip
    order = np.argsort(-np.abs(effect))[:_MOST_BARS]
    error = found.error if not unit else np.full(effect.shape, np.nan)
    title = "Effect" if len(order) == len(effect) else f"The {len(order)} greatest effects of {len(effect)}"
    return bars([names[0][place] for place in order], effect[order], error[order], title, places=2)
