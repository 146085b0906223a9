"""Where does the deciding information flow?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scrubjay.errors import InputError
from scrubjay.reporting.patching import Patching
from scrubjay.reporting.variant import bare, part_name
from scrubjay.reporting.words import Chapter, share
from scrubjay.viz import Figure, Section, heatmap


@dataclass(frozen=True, eq=False)
class PatchedKind:
    """The patches of one kind of pair.

    `here` patches each part at the answer's position alone, `everywhere` at all positions, each restoring (clean values
    into the corrupted run) and breaking; `stream` patches the residual stream, sites in the order (layer, position).
    """

    example: tuple[str, str]
    count: int
    here: tuple[Patching, Patching]
    everywhere: tuple[Patching, Patching]
    stream: Patching


def bracket_patching(kinds: Mapping[str, PatchedKind], layers: Sequence[str], places: Sequence[str]) -> Chapter:
    """Return the section of patching for pairs of strings, by the test that alone fails in the corrupted one."""
    sentences, numbers = [], {}
    body: list[Figure | str] = [
        (
            "In each pair one string is balanced and the other, of the same length, fails exactly one test. Restoring puts a value of "
            "the balanced string into the run of the unbalanced one; breaking does the reverse. 0: the answer stays; 1: it moves all the way."
        ),
    ]
    leaders = {}
    for kind, made in kinds.items():
        leader, effect = _leader(made.here[1])
        leaders[kind] = part_name(leader)
        others = [
            f"{share(_effect_of(other.here[1], leader))} where the {_said(name)} fails"
            for name, other in kinds.items()
            if name != kind
        ]
        against = f" (and {others[0]})" if others else ""
        sentences.append(
            f"Where only the {_said(kind)} fails, the answer breaks most through {part_name(leader)}: {share(effect)} of the way{against}."
        )
        body.append(f"The {_said(kind)} fails: {made.count} pairs such as {made.example[0]} and {made.example[1]}.")
        body.append(_parts_figure(kind, made))
        body.append(_stream_figure(kind, made, layers, places))
        numbers[kind] = _numbers(made)
    if len(kinds) > 1:
        apart = len(set(leaders.values())) == len(leaders)
        sentences.append(
            "So the two tests travel through different parts."
            if apart
            else "So one part is the bottleneck of both tests."
        )
    finding = " ".join(sentences)
    return Chapter(Section("Where does the deciding information flow?", finding, tuple(body)), finding, numbers)


def _said(kind: str) -> str:
    """Return the name of a test in running text."""
    return kind.replace("_", " ")


def _leader(found: Patching) -> tuple[str, float]:
    effect = found.effect
    index = int(np.argmax(effect))
    return found.sites[index], float(effect[index])


def _effect_of(found: Patching, part: str) -> float:
    return float(found.effect[[bare(site) for site in found.sites].index(bare(part))])


def _parts_figure(kind: str, made: PatchedKind) -> Figure:
    columns = ["restore", "break", "restore-all", "break-all"]
    values = np.stack([part.effect for part in (*made.here, *made.everywhere)], 1)
    rows = [part_name(site) for site in made.here[0].sites]
    error = max(float(np.nanmax(part.error)) for part in (*made.here, *made.everywhere))
    caption = f"Share of the answer's difference that moves; standard errors over pairs up to {error:.2f}. First at the answer's position alone, then at all positions."
    return Figure(
        heatmap(values, rows, columns, f"Patching each part where the {_said(kind)} fails", limit=1.0), caption
    )


def _stream_figure(kind: str, made: PatchedKind, layers: Sequence[str], places: Sequence[str]) -> Figure:
    values = made.stream.effect.reshape(len(layers), len(places))
    chart = heatmap(
        values, list(layers), list(places), f"Restoring the residual stream where the {_said(kind)} fails", limit=1.0
    )
    return Figure(
        chart,
        "One position of the stream at a time. A column that is dark only in late rows: the information arrives there late.",
    )


def _numbers(made: PatchedKind) -> dict[str, object]:
    return {
        "pairs": made.count,
        "example": list(made.example),
        "sites": [bare(site) for site in made.here[0].sites],
        **{
            f"{verb}_{where}": {"effect": one.effect.tolist(), "standard_error": _finite(one.error), "gap": one.gap}
            for where, pair in (("here", made.here), ("everywhere", made.everywhere))
            for verb, one in zip(("restore", "break"), pair, strict=True)
        },
        "stream": {"sites": list(made.stream.sites), "effect": made.stream.effect.tolist()},
    }


def _finite(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


@dataclass(frozen=True, eq=False)
class TextPair:
    """Patches from one text into another: clean and corrupted with their tokens, and the number that moves."""

    clean: Sequence[str]
    corrupted: Sequence[str]
    metric: str
    parts: Patching
    stream: Patching


def text_patching(found: TextPair | str, layers: Sequence[str]) -> Chapter:
    """Return the section of patching between two texts, or why there is none (a text)."""
    title = "Where does the deciding information flow?"
    if isinstance(found, str):
        return Chapter(Section(title, found), found, {"refused": found})
    try:
        effect, stream = found.parts.effect, found.stream.effect
    except InputError as error:
        words = f"No effect is given: {error}."
        return Chapter(Section(title, words), words, {"refused": str(error)})
    places = [one if one == two else f"{one}/{two}" for one, two in zip(found.clean, found.corrupted, strict=True)]
    lead = int(np.argmax(effect))
    finding = f"Taken alone, {part_name(found.parts.sites[lead])} from the first text moves the second text's answer furthest: {share(float(effect[lead]))} of the way."
    grid = heatmap(
        stream.reshape(len(layers), len(places)), list(layers), places, "Restoring the residual stream", limit=1.0
    )
    order = np.sort(np.argsort(-np.abs(effect), kind="stable")[:40])
    parts = heatmap(
        effect[order][:, None],
        [part_name(found.parts.sites[index]) for index in order],
        ["effect"],
        "Restoring one part at all positions",
        limit=1.0,
    )
    body = (
        (
            f"The number that moves is {found.metric}; it is {found.parts.clean[0]:+.2f} on the first text and {found.parts.corrupted[0]:+.2f} on the second. "
            "A value of the first text is put into the run of the second. One pair of texts is an example and carries no error."
        ),
        Figure(grid, "One position of the stream at a time: 0 nothing moves, 1 the first text's number is reached."),
        Figure(parts, f"The {len(order)} parts with the largest effect, of {len(effect)}."),
    )
    numbers: dict[str, object] = {
        "metric": found.metric,
        "gap": found.parts.gap,
        "sites": list(found.parts.sites),
        "effect": effect.tolist(),
        "stream": {"sites": list(found.stream.sites), "effect": stream.tolist()},
    }
    return Chapter(Section(title, finding, body), finding, numbers)
