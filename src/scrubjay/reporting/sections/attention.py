"""Where does the model look?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scrubjay.reporting.attention import Patterns, Reading
from scrubjay.reporting.words import Chapter, listed, share
from scrubjay.viz import Detail, Figure, Section, heatmap
from scrubjay.viz import attention as drawn

EVEN = 0.05
"""A head whose shares all lie this close to even ones counts as spread evenly."""


def bracket_attention(
    singles: Sequence[tuple[str, Sequence[str], Patterns]], mean: Patterns, places: Sequence[str], found: Reading
) -> Chapter:
    """Return the section of attention for the bracket model.

    Args:
        singles: for single strings: title, tokens, patterns.
        mean: patterns averaged over balanced strings of one length.
        places: names of their positions.
        found: what the answer's position reads.
    """
    excess = found.shares - found.even
    finding = _reads(found, excess)
    quiet = [head for head, row in zip(found.heads, excess, strict=True) if np.abs(row).max() <= EVEN]
    if quiet:
        finding += f" {listed(quiet)} {'spreads' if len(quiet) == 1 else 'spread'} nearly evenly, which is all that counting needs."
    grid = heatmap(
        np.vstack([found.shares, found.even]),
        [*found.heads, "even"],
        list(found.kinds),
        "What the answer's position reads",
        signed=False,
    )
    body: list[Figure | Detail | str] = [
        "The answer is read at the first position, [start]. Attention there says what a head could use, not what it does use.",
        Figure(
            grid,
            "Share of attention from the first position, by kind of token, averaged over strings. Last row: even attention.",
        ),
    ]
    for title, tokens, patterns in singles:
        body.append(
            Figure(
                drawn(patterns.weights, list(tokens), list(patterns.heads), title),
                "Hover over a row for its strongest keys.",
            )
        )
    folded = Figure(
        drawn(mean.weights, list(places), list(mean.heads), "Averaged over balanced strings of one length"),
        "What remains after averaging does not depend on the particular string.",
    )
    body.append(Detail("Attention averaged over strings", (folded,)))
    numbers: dict[str, object] = {
        "heads": list(found.heads),
        "kinds": list(found.kinds),
        "shares": found.shares.tolist(),
        "even": found.even.tolist(),
    }
    return Chapter(Section("Where does it look?", finding, tuple(body)), finding, numbers)


def _reads(found: Reading, excess: np.ndarray) -> str:
    head, kind = np.unravel_index(int(np.argmax(excess)), excess.shape)
    most, even = found.shares[head, kind], found.even[kind]
    name, token = found.heads[int(head)], found.kinds[int(kind)]
    if most - even <= EVEN:
        return "From the answer's position every head reads all kinds of tokens about evenly."
    return f"From the answer's position, {name} stands out: {share(most)} of its attention is on {token!r}, where an even spread would put {share(even)}."


def text_attention(singles: Sequence[tuple[str, Sequence[str], Patterns]], shown: int) -> Chapter:
    """Return the section of attention for texts; `shown` heads of each text are drawn, the most focused first."""
    body: list[Figure | Detail | str] = []
    numbers: list[dict[str, object]] = []
    sentences: list[str] = []
    for title, tokens, patterns in singles:
        focus = patterns.weights.max(2).mean(1)
        order = np.argsort(-focus, kind="stable")[:shown]
        names = [patterns.heads[index] for index in order]
        count = (
            f"{len(order)} of {len(patterns.heads)} heads, those whose queries look at the fewest keys"
            if len(order) < len(patterns.heads)
            else "all heads"
        )
        body.append(Figure(drawn(patterns.weights[order], list(tokens), names, title), f"Attention of {count}."))
        numbers.append(
            {"text": title, "tokens": list(tokens), "focus": dict(zip(patterns.heads, focus.tolist(), strict=True))}
        )
        if not sentences:
            sentences.append(
                f"The most focused head is {names[0]}: on average its queries put {share(float(focus[order[0]]))} of their weight on a single token."
            )
    finding = " ".join(sentences)
    return Chapter(Section("Where does it look?", finding, tuple(body)), finding, {"texts": numbers})
