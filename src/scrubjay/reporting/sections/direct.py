"""Which sources write the answer, and when does the stream know it? Direct attributions and logit lenses, drawn."""

from __future__ import annotations

import numpy as np

from scrubjay.attribution.answers import plain
from scrubjay.attribution.decomposition import Decomposition
from scrubjay.attribution.effect import Attribution
from scrubjay.attribution.lens import Lens
from scrubjay.reporting.words import listed
from scrubjay.viz import Figure, Markup, Section, bars, heatmap, tag
from scrubjay.viz.colour import ink, sequential
from scrubjay.viz.escape import token
from scrubjay.viz.frame import chart, scrolling, sequential_legend

_MOST_BARS = 24
_MOST_POSITIONS = 24


def attribution_section(found: Attribution) -> Section:
    """Return the section of a direct logit attribution: the largest sources as bars, heads as a map of layers."""
    chosen = [name for name, _, _ in found.top(_MOST_BARS)]
    order = [place for place, name in enumerate(found.sources) if name in set(chosen)]
    errors = found.standard_error[order] if len(found.total) > 1 else None
    many = (
        "All sources"
        if len(order) == len(found.sources)
        else f"The {len(order)} largest of {len(found.sources)} sources"
    )
    rows = f"mean over {len(found.total)} rows" if len(found.total) > 1 else "one row"
    caption = f"{many}, in the order of computation, {rows}. {'; '.join(found.notes)}."
    title = f"Direct contributions to the {found.name}"
    figures = [Figure(bars([found.sources[one] for one in order], found.mean[order], errors, title, "logits"), caption)]
    if any(".H" in one for one in found.sources):
        table = found.by_head()
        layers, heads = [f"L{layer}" for layer in range(len(table))], [f"H{head}" for head in range(table.shape[1])]
        figures.append(Figure(heatmap(table, layers, heads, f"{title}, by head", unit="logits"), "Each head's share."))
    first = listed([f"{name} ({mean:+.2f})" for name, mean, _ in found.top(3)])
    finding = f"The {found.name} is {float(found.total.mean()):+.2f}; the largest sources are {first}. They add up to within {found.error:.1e}."
    return Section(f"Direct logit attribution: {found.name}", finding, tuple(figures))


def lens_section(found: Lens, row: int = 0) -> Section:
    """Return the section of a logit lens: places of the stream by positions of a row, each with its likeliest token."""
    columns = np.flatnonzero(found.real[row])
    shown = columns[-_MOST_POSITIONS:]
    told = found.read is not None and not found.classes
    read = [
        plain(found.model, int(found.read[row, one])) if told and found.read is not None else str(one) for one in shown
    ]
    words = [
        [str(one) if found.classes else plain(found.model, int(one)) for one in line]
        for line in found.tokens[:, row, shown, 0]
    ]
    likely = found.probabilities[:, row, shown, 0]
    part = "" if len(shown) == len(columns) else f", the last {len(shown)} of {len(columns)} positions"
    grid = lens_grid(found.places, read, words, likely, f"Logit lens of {found.model.name}")
    caption = f"The likeliest token at each place of the stream, row {row}{part}; colour is its probability."
    answers = _answer_figure(found, row, shown, read)
    return Section(f"Logit lens of {found.model.name}", _when(found, row), (Figure(grid, caption), *answers))


def _when(found: Lens, row: int) -> str:
    """Return in words from where on each answer is the likeliest at the last position of a row."""
    if found.answers is None or found.rank is None or found.logprob is None:
        return ""
    last = int(np.flatnonzero(found.real[row])[-1])
    said: list[str] = []
    for number, answer in enumerate(found.answers[row]):
        place = found.first_rank(row, -1, number)
        end, likely = int(found.rank[-1, row, last, number]) + 1, float(np.exp(found.logprob[-1, row, last, number]))
        since = f"is the likeliest from {place} on" if place is not None else f"is number {end} at {found.places[-1]}"
        said.append(
            f"At the last position the answer {found.spelled(int(answer))} {since}, with probability {likely:.3f}."
        )
    return " ".join(said)


def lens_grid(
    places: tuple[str, ...], columns: list[str], words: list[list[str]], values: np.ndarray, title: str
) -> Markup:
    """Return a grid of tokens, the last place on top, each coloured by its probability; all text is escaped."""
    head = tag("tr", tag("th", ""), *(tag("th", token(one), scope="col") for one in columns))
    lines: list[Markup] = []
    for number in reversed(range(len(places))):
        cells = [_cell(word, float(value)) for word, value in zip(words[number], values[number], strict=True)]
        lines.append(tag("tr", tag("th", places[number], scope="row"), *cells))
    body = tag("table", tag("thead", head), tag("tbody", *lines), class_="sj-table")
    return chart(title, scrolling(body, title), sequential_legend(1.0, "probability", 2), kind="lens")


def _cell(word: str, value: float) -> Markup:
    shown = token(word, 14)
    if np.isnan(value):
        return tag("td", shown, title=f"{shown}: no value")
    colour = sequential(value, 1.0)
    return tag("td", shown, style=f"background:{colour};color:{ink(colour)}", title=f"{shown}: {value:.3f}")


def decomposition_section(found: Decomposition) -> Section:
    """Return the section of a value taken apart: the mean length of what each source adds, the longest as bars."""
    lengths = found.norms.detach().double().cpu().numpy()
    chosen = set(np.argsort(-lengths, kind="stable")[:_MOST_BARS].tolist())
    order = [place for place in range(len(lengths)) if place in chosen]
    many = "All sources" if len(order) == len(lengths) else f"The {len(order)} longest of {len(lengths)} sources"
    notes = f" {'; '.join(found.notes)}." if found.notes else ""
    caption = f"{many}, in the order of computation; mean length over rows and real positions.{notes}"
    title = f"What each source adds to {found.site}"
    figure = Figure(bars([found.sources[one] for one in order], lengths[order], title=title), caption)
    longest = listed([f"{found.sources[one]} ({lengths[one]:.2f})" for one in np.argsort(-lengths, kind="stable")[:3]])
    finding = f"The longest are {longest}. They add up to within {found.error:.1e}."
    return Section(f"Sources of {found.site}", finding, (figure,))


def _answer_figure(found: Lens, row: int, shown: np.ndarray, read: list[str]) -> list[Figure]:
    """Return how likely the answers are at each place and position of a row, with their ranks."""
    if found.answers is None or found.logprob is None or found.rank is None:
        return []
    figures: list[Figure] = []
    for number, answer in enumerate(found.answers[row]):
        ranks = [[f"#{int(one) + 1}" for one in line] for line in found.rank[:, row, shown, number]]
        likely = np.exp(found.logprob[:, row, shown, number])
        said = found.spelled(int(answer))
        grid = lens_grid(found.places, read, ranks, likely, f"The answer {said}")
        words = (
            f"The rank of the answer {said} among all tokens, #1 the likeliest, row {row}; colour is its probability."
        )
        figures.append(Figure(grid, words))
    return figures
