"""Which claim costs how much: the hypothesis beside versions of it in which one thing is different.

A feature made exact shows what that feature leaves out; a claim left out, what it is worth; a claim alone, what a test of a single site
would have said. Single sites do not add up: in each of them the untouched parts make up for what is taken away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scrubjay.capture.model import Model
from scrubjay.claims.claim import EXACT, OTHERS
from scrubjay.claims.data import Dataset
from scrubjay.claims.hypothesis import Hypothesis
from scrubjay.claims.refine import cut, replaced, without
from scrubjay.claims.task import Task
from scrubjay.engine.cache import Cache
from scrubjay.engine.progress import progress_after
from scrubjay.errors import HypothesisError, near
from scrubjay.scrubbing.measure import Loss, Measure
from scrubjay.scrubbing.options import Way
from scrubjay.scrubbing.result import ScrubResult
from scrubjay.scrubbing.scrub import setting_of
from scrubjay.scrubbing.variant import Compared, Variant, alone, compared, scrubbed_alike, with_others

KINDS = {
    "exact": "its feature exact",
    "without": "without it",
    "cut": "nothing said below it",
    "alone": "alone",
    "others": "others drawn",
}
"""The kinds of variants, as columns of the table."""


@dataclass(frozen=True, eq=False)
class Costs:
    """What each claim of a hypothesis costs, as fractions recovered by versions of it.

    Attributes:
        whole: the hypothesis as it is stated, scrubbed.
        variants: the versions, each with its difference from the whole on the same reference data.
    """

    whole: ScrubResult
    variants: tuple[Compared, ...]

    def of(self, kind: str, about: str) -> Compared:
        """Return one variant: `kind` of `KINDS`, `about` a claim's name or a way of drawing others.

        Raises `HypothesisError` where there is none.
        """
        for one in self.variants:
            if (one.kind, one.about) == (kind, about):
                return one
        known = [f"{one.kind} {one.about}" for one in self.variants]
        raise HypothesisError(
            f"there is no variant {kind!r} of {about!r}{near(f'{kind} {about}', known)}; there are {', '.join(known)}"
        )

    @property
    def joint(self) -> float:
        """What the whole hypothesis loses: 1 - recovered."""
        return 1 - self.whole.recovered

    @property
    def summed(self) -> float:
        """What the claims that the result reads lose one at a time, added up."""
        names = {claim.name for claim in self.whole.hypothesis.root.reads}
        found = [one.recovered.value for one in self.variants if one.kind == "alone" and one.about in names]
        return float(sum(1 - value for value in found))

    def findings(self) -> list[str]:
        """Return what the table says, in sentences."""
        said: list[str] = []
        tightened = [one for one in self.variants if one.kind == "exact" and not one.refused]
        dear = max(tightened, key=lambda one: one.difference.value, default=None)
        if dear is not None and dear.difference.low > 0:
            said.append(
                f"The claim that costs most is {dear.about!r}: with its feature exact {dear.difference.value:+.3f} would be recovered."
            )
        elif tightened:
            said.append("No feature alone costs anything that these samples can tell.")
        idle = [
            one.about
            for one in self.variants
            if one.kind == "without" and one.difference.low <= 0 <= one.difference.high
        ]
        if idle:
            said.append(f"Left out, these change nothing that these samples can tell: {', '.join(idle)}.")
        named = sum(1 for one in self.variants if one.kind == "alone" and not one.refused)
        if named > 1:
            tail = (
                " Single sites do not add up: the untouched parts make up for what is taken away."
                if self.joint > self.summed + 0.02
                else ""
            )
            said.append(
                f"One at a time the sites of the result lose {self.summed:.3f} in all; jointly, with the rest open too, {self.joint:.3f}.{tail}"
            )
        drawn = [one for one in self.variants if one.kind == "others" and not one.refused]
        if drawn:
            said.append(
                "Drawn otherwise, what is not claimed changes the score by "
                + ", ".join(f"{one.difference.value:+.3f} (per {one.about})" for one in drawn)
                + "."
            )
        return said

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table, a row for each claim: its name, site and feature, and what each version recovers."""
        _, *claims = self.whole.hypothesis.claims()
        by = {(one.kind, one.about): one for one in self.variants}
        made: list[tuple[str, ...]] = []
        for claim in claims:
            cells = [_cell(by.get((kind, claim.name))) for kind in ("exact", "without", "cut", "alone")]
            made.append((claim.name, str(claim.site), claim.feature or "nothing", *cells))
        return made

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON."""
        return {
            "whole": {**self.whole.to_dict(), "fingerprint": self.whole.fingerprint},
            "variants": [one.to_dict() for one in self.variants],
            "joint": self.joint,
            "summed": self.summed,
            "findings": self.findings(),
        }

    def __str__(self) -> str:
        """Return the table and what it says."""
        heads = ("claim", "site", "keeps", *list(KINDS.values())[:4])
        lines = [heads, *self.rows()]
        widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
        body = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        drawn = [f"others drawn per {one.about}: {_cell(one)}" for one in self.variants if one.kind == "others"]
        top = f"{self.whole.hypothesis.name}: recovered {self.whole.recovered:.3f} as stated; in the table, what each version recovers"
        return "\n".join([top, *body, *drawn, *self.findings()])

    def __repr__(self) -> str:
        """Say the size in one line."""
        return f"<Costs of {self.whole.hypothesis.name!r}: recovered {self.whole.recovered:.3f}, {len(self.variants)} versions>"


def _cell(one: Compared | None) -> str:
    if one is None:
        return "-"
    return (
        "refused"
        if one.refused
        else f"{one.recovered.value:.3f} ({one.difference.value:+.3f} ± {one.difference.error:.3f})"
    )


def costs(
    model: Model,
    hypothesis: Hypothesis,
    data: Dataset | Task,
    samples: int = 1000,
    seeds: int | Sequence[int] = 2,
    loss: Loss | Measure | str | None = None,
    *,
    floor: str = "all",
    cache: Cache | None = None,
) -> Costs:
    """Return what each claim of a hypothesis costs: the hypothesis beside versions in which one thing is different.

    For every claim: with its feature exact, without it, with nothing said of what it reads, and alone (a single site, everything else the
    reference datum's). And with what is not claimed drawn one for each node, one for each part that a node reads, and one for all. All are
    scrubbed on the same reference data, so that differences have intervals of their own. The arguments are those of `sj.scrub`; what the versions
    have in common is computed once and held in `cache`, or in one of this call's own.

    Raises what `sj.scrub` raises; a version that does not fit the model says so in its row.
    """
    which = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    setting = setting_of(model, data, loss, floor, way=Way(cache or Cache()))
    with progress_after(2.0, f"costs of {hypothesis.name}") as progress:
        whole = scrubbed_alike(setting, hypothesis, samples, which, lambda done, total: None)
        found = compared(setting, whole, variants_of(hypothesis), samples, which, progress)
    return Costs(whole, found)


def variants_of(hypothesis: Hypothesis) -> list[Variant]:
    """Return the versions of a hypothesis that the table compares."""
    made: list[Variant] = []
    _, *claims = hypothesis.claims()
    for claim in claims:
        name = claim.name
        if claim.feature != EXACT:
            made.append(Variant("exact", name, f"{claim.spoken} exact", replaced(hypothesis, name, feature=EXACT)))
        made.append(Variant("without", name, f"nothing claimed of {claim.spoken}", without(hypothesis, name)))
        if claim.reads:
            made.append(Variant("cut", name, f"nothing said of what {claim.spoken} reads", cut(hypothesis, name)))
        made.append(Variant("alone", name, f"{claim.spoken} alone", alone(hypothesis, name)))
    made += [
        Variant("others", way, f"others drawn per {way}", with_others(hypothesis, way))
        for way in OTHERS
        if way != hypothesis.others
    ]
    return made
