"""Attention patterns: one small heat map for each head, queries downwards, keys from left to right.

Cells of one colour are drawn as one stroke path, neighbours in a row as one dash, and weights below
`FAINTEST` of the scale are left out, so six heads of 42 by 42 take about 100 kB. Hovering shows the strongest
keys of a query; the strongest cells of the figure have a line of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from scrubjay.errors import InputError
from scrubjay.viz.array import labels, largest, numbers
from scrubjay.viz.colour import LEVELS, level
from scrubjay.viz.escape import Markup, brief, join, tag, token
from scrubjay.viz.frame import GREY, chart, drawing, level_legend
from scrubjay.viz.number import written

if TYPE_CHECKING:
    from jaxtyping import Float, Int

FAINTEST = 0.004
"""Weights below this share of the scale are not drawn."""
MOST_TOKENS = 256
"""The longest text whose pattern is still readable as a picture."""
_MOST_NAMED_CELLS = 500
_NAMED_KEYS = 3
_LABEL_CHARACTERS = 12


def attention(
    patterns: Float[np.ndarray, "head query key"],
    tokens: Sequence[str],
    titles: Sequence[str],
    title: str = "",
) -> Markup:
    """Return a grid of attention patterns, one for each head.

    `patterns` holds weights (not negative) with axes (head, query, key); `tokens` names the places of both query
    and key; `titles` names the heads. The colour runs from 0 to 1, or to the largest weight where that exceeds 1,
    and is the same for all heads. NaN is hatched.

    Raises `InputError` where the sizes disagree, a weight is negative, or there are more than 256 tokens.

    >>> figure = attention(np.eye(2)[None], ["<b>", " the"], ["L0.H1"])
    >>> "·the" in figure and "<b>" not in figure
    True
    """
    weights = numbers(patterns, "head query key", "patterns")
    names = _checked(weights, tokens)
    heads = labels(titles, len(weights), "titles", "head")
    top = max(1.0, largest(weights))
    shares = np.clip(weights, 0, None) / top
    grid = _grid([token(name, _LABEL_CHARACTERS) for name in names])
    named = _strongest(np.nan_to_num(shares, nan=0.0, posinf=1.0))
    maps = [
        tag("div", tag("p", head, class_="sj-head"), _map(share, grid, head, named[index], top), class_="sj-map")
        for index, (head, share) in enumerate(zip(heads, shares, strict=True))
    ]
    size = f"grid-template-columns:repeat(auto-fill,minmax(min(100%,{brief(min(grid.width, 420) * 0.78)}px),1fr))"
    note = (
        f"attention weight; below {brief(100 * FAINTEST)}" + "% of the scale not drawn. Queries run down, keys across."
    )
    legend = level_legend(top, 0 if top == 1 else 2, note)
    return chart(title, tag("div", *maps, class_="sj-maps", style=size), legend, kind="attention")


@dataclass(frozen=True, slots=True)
class _Grid:
    """The places in one map: shown labels, cell size, margin for labels, font size, label spacing (pixels)."""

    names: list[str]
    cell: float
    margin: float
    font: float
    every: int

    @property
    def width(self) -> float:
        return self.margin + self.cell * len(self.names) + 2


def _checked(weights: Float[np.ndarray, "head query key"], tokens: Sequence[str]) -> list[str]:
    _, queries, keys = weights.shape
    if isinstance(tokens, str) or not queries == keys == len(tokens):
        given = "one string" if isinstance(tokens, str) else f"{len(tokens)} tokens"
        raise InputError(
            f"patterns has {queries} queries and {keys} keys for each head, but {given} were given;"
            " both axes need exactly one token for each place."
        )
    if queries > MOST_TOKENS:
        raise InputError(
            f"patterns has {queries} tokens; at most {MOST_TOKENS} can be drawn. Slice it: patterns[:, a:b, a:b]."
        )
    if np.nanmin(weights, initial=0.0) < -1e-6:
        raise InputError(
            f"Attention weights are not negative, but patterns goes down to {float(np.nanmin(weights)):.3g};"
            " draw signed values with `heatmap`."
        )
    return labels(tokens, queries, "tokens", "query")


def _grid(names: list[str]) -> _Grid:
    cell = min(max(400 / len(names), 3), 20)
    font = min(max(0.92 * cell, 7.0), 11.0)
    every = int(np.ceil(font / (1.12 * cell)))
    return _Grid(names, cell, 8 + 0.62 * font * max(len(name) for name in names), font, every)


def _strongest(shares: Float[np.ndarray, "head query key"]) -> list[Int[np.ndarray, "cell 2"]]:
    """Return for each head the (query, key) of its cells among the strongest of the whole figure."""
    count = min(_MOST_NAMED_CELLS, shares.size)
    order = np.argsort(-shares, axis=None, kind="stable")[:count]
    chosen = np.zeros(shares.shape, dtype=bool)
    chosen.flat[order] = True
    return [np.argwhere(cells) for cells in chosen & (shares >= FAINTEST)]


def _map(
    shares: Float[np.ndarray, "query key"], grid: _Grid, head: str, named: Int[np.ndarray, "cell 2"], top: float
) -> Markup:
    count = len(grid.names)
    size = grid.cell * count
    plate = tag("rect", x=grid.margin, y=1, width=size, height=size, class_="sj-plate", fill="#fff", stroke="#c9d0d5")
    scaled = tag(
        "g",
        *_paint(shares),
        tag(
            "g",
            *_row_hints(shares, grid.names, top),
            *_cell_hints(shares, grid.names, named, top),
            class_="sj-hit",
            fill="transparent",
        ),
        transform=f"translate({brief(grid.margin)} 1) scale({grid.cell:.4f})",
    )
    description = f"Attention of {head}: {count} queries (rows) by {count} keys (columns)."
    parts = [plate, scaled, *_labels(grid)]
    return drawing(grid.width, size + grid.margin + 1, f"Attention pattern of {head}", description, parts)


def _paint(shares: Float[np.ndarray, "query key"]) -> list[Markup]:
    """Return one stroke path for each colour level, in units of one cell, and one for the hatching of NaN."""
    capped = np.minimum(np.nan_to_num(shares, nan=0.0, posinf=1.0), 1.0)
    levels = np.where(capped >= FAINTEST, np.ceil(capped * LEVELS), 0).astype(int)
    dashes: dict[int, list[str]] = {}
    for query, row in enumerate(levels):
        starts = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), len(row)]
        for start, stop in pairwise(starts):
            if row[start]:
                dashes.setdefault(int(row[start]), []).append(f"M{start} {query}.5h{stop - start}")
    paths = [
        tag("path", d="".join(parts), stroke=level(step), class_=f"sj-s{step}")
        for step, parts in sorted(dashes.items())
    ]
    missing = "".join(f"M{key} {query + 1}l1-1" for query, key in np.argwhere(np.isnan(shares)))
    hatch = [tag("path", d=missing, stroke=GREY, stroke_width=0.12)] if missing else []
    return [tag("g", *paths, stroke_width=1, shape_rendering="crispEdges"), *hatch]


def _quoted(name: str) -> str:
    return f"\N{LEFT SINGLE QUOTATION MARK}{name}\N{RIGHT SINGLE QUOTATION MARK}"


def _row_hints(shares: Float[np.ndarray, "query key"], names: list[str], top: float) -> list[Markup]:
    hints = []
    for query, row in enumerate(np.nan_to_num(shares, nan=-1.0, posinf=1.0)):
        keys = [key for key in np.argsort(-row)[:_NAMED_KEYS] if row[key] >= FAINTEST]
        listed = ", ".join(f"{key} {_quoted(names[key])} {written(float(shares[query, key]) * top)}" for key in keys)
        hint = f"query {query} {_quoted(names[query])} → {listed or 'nothing'}"
        hints.append(tag("path", tag("title", hint), d=f"M0 {query}h{len(names)}v1h-{len(names)}z"))
    return hints


def _cell_hints(
    shares: Float[np.ndarray, "query key"], names: list[str], named: Int[np.ndarray, "cell 2"], top: float
) -> list[Markup]:
    hints = []
    for query, key in named.tolist():
        weight = written(float(shares[query, key]) * top)
        hint = f"query {query} {_quoted(names[query])} → key {key} {_quoted(names[key])}: {weight}"
        hints.append(tag("path", tag("title", hint), d=f"M{key} {query}h1v1h-1z"))
    return hints


def _labels(grid: _Grid) -> list[Markup]:
    """Return the token names: queries at the left, keys below, turned upright where cells are narrow."""
    size = grid.cell * len(grid.names)
    lower = 0.34 * grid.font
    turn = -90 if grid.cell < 14 else -45
    rows, columns = [], []
    for index in range(0, len(grid.names), grid.every):
        middle = grid.cell * (index + 0.5)
        rows.append(tag("text", grid.names[index], y=middle + lower))
        if turn == -90:
            columns.append(tag("text", grid.names[index], y=middle + lower))
        else:
            place = f"translate({brief(middle + lower)} 0) rotate({turn})"
            columns.append(tag("text", grid.names[index], transform=place))
    left, below = f"translate({brief(grid.margin - 5)} 1)", f"translate({brief(grid.margin)} {brief(size + 7)})"
    style = {"font_size": grid.font, "text_anchor": "end", "fill": GREY, "class_": "sj-axis"}
    return [
        tag("g", join(rows), transform=left, **style),
        tag("g", join(columns), transform=below + (" rotate(-90)" if turn == -90 else ""), **style),
    ]
