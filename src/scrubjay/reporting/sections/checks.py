"""Is what we look at the model itself, and does the model do its task?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scrubjay.capture.model import Model
from scrubjay.reporting.check import Check
from scrubjay.reporting.words import Chapter, listed, share, size
from scrubjay.viz import Detail, Figure, Markup, Section, table


@dataclass(frozen=True)
class Score:
    """How well a classifier does on fresh data; losses are means, in nats."""

    rows: int
    accuracy: float
    loss: float
    constant: float
    floor: float


def checks(model: Model, found: Sequence[Check], score: Score | None = None) -> Chapter:
    """Return the section of checks; `score` where the model has a task."""
    judged = [check for check in found if check.holds is not None]
    failed = [check.name for check in judged if not check.holds]
    if failed:
        finding = (
            f"{len(failed)} of {len(judged)} checks FAILED: {listed(failed)}. What follows is not to be relied on."
        )
    else:
        worst = max((check.error or 0.0 for check in judged), default=0.0)
        finding = f"The circuit computes what the module computes: all {len(judged)} checks hold, the worst error being {size(worst)}."
    rows = [
        (check.name, _outcome(check), "" if check.error is None else size(check.error), check.words) for check in found
    ]
    body: list[Figure | Detail | str] = [
        (
            f"{model.name} was captured from its own code as a circuit of {len(model.circuit.nodes)} operations, in which "
            f"{model.layers} layers with {_heads(model)} were recognised by their structure. Each check compares two ways to the same number."
        ),
        Figure(
            table(["check", "outcome", "error", "what is compared"], rows, "llrl"),
            "Checks of the capture, on data drawn for this page.",
        ),
    ]
    if score is not None:
        finding += " " + _scored(score)
        body.append(
            Figure(
                _score_table(score),
                "The task. Lower loss is better; the floor is the model judged by unrelated labels.",
            )
        )
    notes = model.anatomy.notes
    if notes:
        body.append(f"Not recognised, so not named: {'; '.join(notes)}.")
    body.append(Detail(f"All {len(model.sites)} named sites", (", ".join(model.sites.addresses),)))
    numbers: dict[str, object] = {"checks": [check.to_dict() for check in found]}
    if score is not None:
        numbers["score"] = vars(score)
    return Chapter(Section("Is this the model?", finding, tuple(body)), finding, numbers)


def _outcome(check: Check) -> str:
    return "does not apply" if check.holds is None else "holds" if check.holds else "FAILS"


def _heads(model: Model) -> str:
    counts = sorted(set(model.heads))
    return f"{' or '.join(map(str, counts))} heads each" if counts else "no heads"


def _scored(score: Score) -> str:
    start = f"The model is right on {share(score.accuracy)} of {score.rows} fresh strings, with a loss of {size(score.loss)} nats"
    if score.loss < score.constant:
        return f"{start} where the best constant answer has {score.constant:.3f}."
    return f"{start}: worse than the best constant answer, {score.constant:.3f}, so there is little to explain."


def _score_table(score: Score) -> Markup:
    rows = [
        ("right answers", share(score.accuracy)),
        ("loss of the model", f"{size(score.loss)} nats"),
        ("loss of the best constant answer", f"{score.constant:.3f} nats"),
        ("loss with unrelated labels (floor)", f"{score.floor:.3f} nats"),
    ]
    return table(["on fresh strings", "value"], rows, "lr")
