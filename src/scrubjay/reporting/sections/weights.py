"""What do heads write, and who could read it? Composition scores, copying scores and factored products, drawn."""

from __future__ import annotations

import numpy as np
import torch

from scrubjay.engine.array import Array
from scrubjay.matrices import Composition, Copying, Factored
from scrubjay.matrices.composition import KINDS
from scrubjay.reporting.words import listed
from scrubjay.viz import Figure, Markup, Section, bars, heatmap, table

_MOST_HEADS = 32
_MOST_BARS = 24
_READS = {"Q": "queries", "K": "keys", "V": "values"}


def composition_section(found: Composition) -> Section:
    """Return the section of composition scores: head by head how far each is above chance, by layers where heads are many."""
    z = ((found.scores.as_tensor() - found.expected.as_tensor()) / found.deviation.as_tensor()).numpy()
    best = found.top(10)
    rows = [[f"{one.writer} to {one.reader}", one.kind, one.score, one.expected, one.z] for one in best]
    figures = [
        Figure(
            table(["heads", "kind", "score", "chance", "z"], rows, "llrrr"),
            "The pairs furthest above chance: z is the score's distance from random heads of the same shapes, in standard deviations.",
        )
    ]
    layers = [name.partition(".")[0] for name in found.heads]
    many = len(found.heads) > _MOST_HEADS
    names = list(dict.fromkeys(layers)) if many else list(found.heads)
    for kind, values in zip(KINDS, z, strict=True):
        grid = _by_layer(values, layers, names) if many else values
        writers, readers = np.atleast_1d(np.isfinite(grid).any(1)), np.atleast_1d(np.isfinite(grid).any(0))
        title = f"{kind}-composition: what {_READS[kind]} read"
        caption = f"Rows write, columns read their {_READS[kind]}; z{', the greatest of each pair of layers' if many else ''}."
        rest = grid[writers][:, readers]
        figures.append(Figure(heatmap(rest, _kept(names, writers), _kept(names, readers), title, unit="z"), caption))
    first = listed([f"{one.writer} to {one.reader}'s {_READS[one.kind]} ({one.z:+.1f})" for one in best[:3]])
    told = f"{' '.join(_sentence(one) for one in found.notes)}"
    return Section(
        f"Composition of {len(found.heads)} heads", f"Furthest above chance: {first}. {told}".strip(), tuple(figures)
    )


def _by_layer(values: np.ndarray, layers: list[str], names: list[str]) -> np.ndarray:
    grid = np.full((len(names), len(names)), np.nan)
    place = np.array([names.index(one) for one in layers])
    for row in range(len(names)):
        for column in range(len(names)):
            here = values[np.ix_(place == row, place == column)]
            if np.isfinite(here).any():
                grid[row, column] = np.nanmax(here)
    return grid


def _kept(names: list[str], keep: np.ndarray) -> list[str]:
    return [name for name, one in zip(names, keep, strict=True) if one]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def copying_section(found: Copying) -> Section:
    """Return the section of copying scores: layers by heads."""
    flat = found.as_tensor().flatten()
    best = flat.argsort(descending=True)[:3].tolist()
    first = listed([f"{found.heads[one]} ({float(flat[one]):+.2f})" for one in best])
    caption = "Sum of the eigenvalues of each head's map from token to token, over the sum of their sizes: 1 copies, -1 speaks against."
    notes = " ".join(_sentence(one) for one in found.notes)
    return Section(
        "Copying scores",
        f"The greatest: {first}. {notes}".strip(),
        (Figure(_grid(found.values, "Copying score", signed=True), caption),),
    )


def factored_section(found: Factored) -> Section:
    """Return the section of a product of weights: its singular values, or of a stack the norms and the signs of eigenvalues."""
    stack = found.names[:-2]
    notes = " ".join(_sentence(one) for one in found.notes)
    if not stack:
        values = found.svd().S.as_tensor().detach().double().cpu().numpy()
        shown = values[:_MOST_BARS]
        part = "All" if len(shown) == len(values) else f"The {len(shown)} greatest of {len(values)}"
        drawn = bars([f"{number}" for number in range(len(shown))], shown, title=f"Singular values of {found.said}")
        return Section(found.said, notes, (Figure(drawn, f"{part} singular values; {found!r}."),))
    figures = [Figure(_grid(found.norm, f"Norms of {found.said}", signed=False), "The Frobenius norm of each.")]
    if found.shape[-1] == found.shape[-2]:
        caption = (
            "Sum of the eigenvalues over the sum of their sizes: 1 where all are positive, -1 where all are negative."
        )
        figures.append(Figure(_grid(found.copying, f"Signs of eigenvalues of {found.said}", signed=True), caption))
    return Section(found.said, notes, tuple(figures))


def _grid(values: Array, title: str, *, signed: bool) -> Markup:
    """Draw one number for each of a stack: its last axis across, the others down."""
    tensor = torch.as_tensor(values.as_tensor()).detach().double().cpu()
    tensor = tensor.reshape(-1, tensor.shape[-1]) if tensor.dim() else tensor.reshape(1, 1)
    names = list(values.names) or ["head"]
    mark = {"layer": "L", "head": "H"}
    down = names[-2] if len(names) > 1 else ""
    rows = [f"{mark.get(down, down)}{number}" if down else "all" for number in range(tensor.shape[0])]
    columns = [f"{mark.get(names[-1], names[-1])}{number}" for number in range(tensor.shape[1])]
    return heatmap(tensor.numpy(), rows, columns, title, signed=signed)
