"""Records of runs, what came of running them again, and hypotheses carried to other models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from scrubjay.evidence.record import ResultRecord
from scrubjay.reporting.sections.scrubbing import branch
from scrubjay.scrubbing.recording import Replayed
from scrubjay.scrubbing.roles import Roles
from scrubjay.scrubbing.transfer import Transfer
from scrubjay.viz import Detail, Figure, ScrubRow, Section, heatmap, recovered, table, tree


def record_section(found: ResultRecord) -> Section:
    """Return the section of a record: what was declared, on what it was run, what it gave."""
    spec = found.spec
    declared = [
        ("model", f"{spec.model.name}, {spec.model.weights}"),
        ("data", f"{spec.data.name}, {spec.data.digest}"),
        ("hypothesis", str(spec.hypothesis.get("name"))),
        *(
            (name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
            for name, value in spec.parameters.items()
        ),
        ("criterion", ", ".join(f"{name} {text}" for name, text in (spec.criterion or {}).items()) or "none declared"),
        ("declared", found.declared),
        ("started", found.started),
        ("finished", found.finished),
        *((name, str(value)) for name, value in found.environment.items()),
        ("record", found.digest),
    ]
    figures = [
        (name, found.figures[name])
        for name in ("original", "scrubbed", "floor", "recovered", "constant")
        if name in found.figures
    ]
    unsaid = " No criterion was declared." if found.criterion_met is None else ""
    body = (
        Figure(table(["figure", "value"], figures, "lr", caption="Figures", places=4)),
        Figure(table(["what", "value"], declared, "ll", caption="Declared, run, kept")),
    )
    return Section(f"Record {found.digest[7:17]}", f"{found.verdict[:1].upper()}{found.verdict[1:]}.{unsaid}", body)


def replayed_section(found: Replayed) -> Section:
    """Return the section of a replay: each thing that was compared."""
    rows = [
        (
            "agrees" if one.ok else "MISMATCH",
            one.name,
            _written(one.said),
            _written(one.found),
            "" if one.tolerance is None else f"{one.tolerance:g}",
        )
        for one in found.checks
    ]
    wrong = sum(not one.ok for one in found.checks)
    finding = f"{found.verdict[:1].upper()}{found.verdict[1:]}: {len(rows) - wrong} of {len(rows)} checks agree."
    heads = ["outcome", "what", "said", "found", "may differ by"]
    return Section(f"Replay {found.tier}", finding, (Figure(table(heads, rows, "lllll", caption="What was compared")),))


def _written(value: object) -> str:
    """Return a value in few characters: digests by their first ten digits, structures by their size."""
    if isinstance(value, str) and value.startswith("sha256:"):
        return f"{value[:17]}…"
    if isinstance(value, Mapping):
        return f"{len(cast('Mapping[object, object]', value))} fields"
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:30]


def roles_section(found: Roles) -> Section:
    """Return the section of roles: every score of every head."""
    names = list(found.scores)
    heads = [f"L{layer}.H{head}" for layer, head in found.heads]
    values = np.stack([found.scores[name] for name in names], 1) if names else np.zeros((len(heads), 0))
    best = [f"{name}: {heads[int(np.argmax(found.scores[name]))]}" for name in names if name != "spread"]
    notes = tuple(found.notes)
    if not values.size:
        return Section(f"Roles of heads of {found.model}", "No head could be measured.", notes)
    chart = Figure(
        heatmap(values, heads, names, "Roles of heads"), "Shares of attention from 0 to 1; copying from -1 to 1."
    )
    return Section(
        f"Roles of heads of {found.model}", f"The strongest by each score: {'; '.join(best)}.", (chart, *notes)
    )


def transfer_section(found: Transfer) -> Section:
    """Return the section of a transfer: the scrubs side by side, and which part stands for which."""
    named = [("as stated", found.here), ("carried", found.there), *(("at random", one) for one in found.controls)]
    rows = [
        ScrubRow(
            f"{one.facts['model']}, {how}", one.recovered, one.recovered_error, one.estimate.low, one.estimate.high, one.original, one.floor,
            one.scrubbed, one.constant, one.verdict,
        )
        for how, one in named
    ]  # fmt: skip
    parts = [
        (one.part, one.to, one.distance, "" if one.second is None else f"{one.second} at {one.second_distance:.3f}")
        for one in found.matches
    ]
    drawn = [one.recovered for one in found.controls]
    beside = f" Carried to parts drawn at random it recovers {min(drawn):.3f} to {max(drawn):.3f}." if drawn else ""
    finding = (
        f"It recovers {found.here.recovered:.3f} in {found.here.facts['model']}, and carried by roles {found.there.recovered:.3f} in "
        f"{found.there.facts['model']}.{beside}"
    )
    body = (
        Figure(recovered(rows, "The same hypothesis in two models"), "Intervals are 95%. Where random parts do as well, the match says nothing."),
        Figure(table(["part", "stands for it", "distance of roles", "nearest other"], parts, "llrl", caption="Which part for which", places=3)),
        Detail("The hypothesis as it was carried", (Figure(tree(branch(found.hypothesis), found.hypothesis.name)),)),
        *found.notes,
    )  # fmt: skip
    return Section(f"Carried over: {found.here.hypothesis.name}", finding, body)
