"""What was tried against a hypothesis, what each of its claims costs, and what it predicted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scrubjay.evidence.verdict import FLOORS
from scrubjay.scrubbing import Challenge, Checked, Costs, Prediction, ScrubResult
from scrubjay.scrubbing.challenge import HEADINGS
from scrubjay.scrubbing.costs import KINDS
from scrubjay.scrubbing.counterexample import Example, text_of
from scrubjay.scrubbing.variant import Compared
from scrubjay.viz import Detail, Figure, Markup, ScrubRow, Section, recovered, table

_MOST = 12
LIMITS = "None of this can show that a hypothesis is right: each attack is a way for it to fail that was tried."


def challenge_section(found: Challenge) -> Section:
    """Return the section of a challenge: the rivals on one line, the inputs that suffered, and what was found."""
    base = found.base
    rows = [
        _row(
            base,
            "as stated",
            base.recovered,
            base.estimate.low,
            base.estimate.high,
            base.recovered_error,
            base.scrubbed,
        )
    ]
    for kind, heading in HEADINGS.items():
        rows += [
            _row(
                base,
                one.words,
                one.recovered.value,
                one.recovered.low,
                one.recovered.high,
                one.recovered.error,
                one.scrubbed,
                heading,
            )
            for one in found.kind(kind)
        ]
    body: list[Figure | Markup | Detail | str] = [
        *found.findings(),
        Figure(
            recovered(rows, "The hypothesis and its rivals", unit=unit_of(base)),
            f"All on the same {len(base.per_example)} reference samples; intervals are 95%. {LIMITS}",
        ),
    ]
    refused = [f"{one.words}: {one.refused}" for one in found.rivals if one.refused]
    if refused:
        body.append(Detail("Rivals that do not fit the model", ("\n\n".join(refused),)))
    if found.search.examples:
        body.append(
            Figure(
                _examples(found.search.examples, "Fresh inputs that fared worst"),
                f"Of {found.search.tried} fresh inputs.",
            )
        )
    if found.worst:
        body.append(
            Figure(
                _examples(found.worst, "Inputs of the data that suffered most"),
                "Measured on draws that they were not chosen by.",
            )
        )
    return Section(
        f"Challenge to {found.result.hypothesis.name}", f"{found.verdict[:1].upper()}{found.verdict[1:]}.", tuple(body)
    )


def costs_section(found: Costs) -> Section:
    """Return the section of what each claim costs: the table of versions."""
    heads = ["claim", "site", "keeps", *list(KINDS.values())[:4]]
    others = [(f"per {one.about}", _change(one)) for one in found.variants if one.kind == "others"]
    body: list[Figure | Markup | Detail | str] = [
        Figure(
            table(
                heads,
                found.rows(),
                "l" * len(heads),
                caption="Recovered by each version, and the difference from the whole",
            ),
            f"The whole recovers {found.whole.recovered:.3f}. All versions on the same {len(found.whole.per_example)} reference samples; ± is a standard error.",
        )
    ]
    if others:
        body.append(
            Figure(
                table(["others drawn", "recovered"], others, "ll", caption="What is not claimed, drawn otherwise"),
                "On the same reference samples.",
            )
        )
    return Section(f"What each claim of {found.whole.hypothesis.name} costs", " ".join(found.findings()), tuple(body))


def prediction_section(found: Prediction | Checked) -> Section:
    """Return the section of a prediction: what was said to go wrong, and where it was held against a model, what did."""
    said = found if isinstance(found, Prediction) else found.prediction
    rows = [
        (
            text_of(said.inputs, row),
            int(said.inputs.labels[row]),
            int(said.answers[row]),
            float(said.distribution[row, said.answers[row]]),
            *_own(found, row),
        )
        for row in np.flatnonzero(said.wrong)[:_MOST].tolist()
    ]
    heads = [
        "input",
        "label",
        "predicted answer",
        "share of rows that agree",
        *(["the model's answer"] if isinstance(found, Checked) else []),
    ]
    many = int(said.wrong.sum())
    finding = (
        f"{found.verdict[:1].upper()}{found.verdict[1:]}."
        if isinstance(found, Checked)
        else f"If the result knows {' and '.join(said.features) or 'nothing'}, {many} of {len(said.inputs)} inputs are answered wrongly."
    )
    caption = f"{min(many, _MOST)} of the {many} inputs that were predicted wrong, before the model was run on them ({said.declared})."
    body = (Figure(table(heads, rows, caption="Predicted to go wrong"), caption),) if rows else ()
    return Section(f"What {said.hypothesis.name} predicts", finding, body)


def floors_table(results: Sequence[ScrubResult]) -> Figure:
    """Return what each result recovers above each floor that was computed."""
    rows = [
        (
            one.hypothesis.name,
            FLOORS[name],
            float(one.losses[name].mean()),
            f"{found.value:.3f}",
            f"{found.low:.3f} to {found.high:.3f}",
        )
        for one in results
        for name, found in one.floors.items()
    ]
    heads = ["hypothesis", "floor", "its loss", "recovered", "95% interval"]
    return Figure(
        table(heads, rows, "llrrr", caption="Recovered above each floor", places=3),
        "The first floor of each is the one its verdict is about.",
    )


def seeds_table(results: Sequence[ScrubResult]) -> Figure | None:
    """Return what each seed alone recovers, where results were drawn."""
    rows = [
        (one.hypothesis.name, ", ".join(f"{value:.3f}" for value in one.by_seed.values()))
        for one in results
        if one.by_seed
    ]
    return (
        Figure(table(["hypothesis", "recovered by each seed"], rows, "ll"), "Seeds differ in nothing but the draws.")
        if rows
        else None
    )


def _own(found: Prediction | Checked, row: int) -> tuple[int, ...]:
    return (int(found.answers[row]),) if isinstance(found, Checked) else ()


def _row(
    base: ScrubResult, name: str, value: float, low: float, high: float, error: float, scrubbed: float, remark: str = ""
) -> ScrubRow:
    return ScrubRow(name, value, error, low, high, base.original, base.floor, scrubbed, base.constant, remark)


def unit_of(base: ScrubResult) -> str:
    """Return the unit of a result's losses."""
    return "nats" if base.measure in {"cross_entropy", "log_probability", "kl"} else base.measure.replace("_", " ")


def _change(one: Compared) -> str:
    return (
        "refused"
        if one.refused
        else f"{one.recovered.value:.3f} ({one.difference.value:+.3f} ± {one.difference.error:.3f})"
    )


def _examples(found: Sequence[Example], caption: str) -> Markup:
    rows = [
        (
            one.text,
            one.label,
            one.original,
            one.scrubbed,
            "" if np.isnan(one.other) else f"{one.other:.0%} of {one.draws}",
        )
        for one in found[:_MOST]
    ]
    return table(
        ["input", "label", "original", "scrubbed", "answered otherwise"], rows, "llrrr", caption=caption, places=3
    )
