"""Rivals of a hypothesis, made from it: wrong ones of the same shape, ones that it implies, and ones that say more.

A wrong hypothesis of the same shape should recover less; one that does not is not told apart by this test. What a hypothesis says does not
matter may be drawn in any way, so a refinement of that kind which scores less counts against it. A coarser feature that scores as well
shows that the hypothesis says more than the data asked for, or that the data cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace as with_fields
from itertools import combinations

import numpy as np

from scrubjay.capture.model import Model
from scrubjay.circuit.address import Address, Head, Module, parse
from scrubjay.claims.claim import EXACT, OTHERS, Claim
from scrubjay.claims.data import Dataset, Feature
from scrubjay.claims.hypothesis import Hypothesis
from scrubjay.claims.refine import Written, kept_features, replaced, rewritten, with_features
from scrubjay.errors import HypothesisError
from scrubjay.scrubbing.scrub import treed
from scrubjay.scrubbing.variant import Variant, with_others

WRONG = ("permuted", "swapped", "sites")
"""Kinds of wrong hypotheses of the same shape."""

MOST = 6
"""How many of one kind are made at most."""

_TRIES = 40


def permuted(hypothesis: Hypothesis, data: Dataset, seed: int) -> list[Variant]:
    """Return the hypothesis with the features' values dealt out to other rows: all of them, and where there are several each alone."""
    names = kept_features(hypothesis)
    made: dict[str, Feature] = {}
    for name in names:
        values = hypothesis.feature(name, data).values
        order = np.random.default_rng([seed, *name.encode()]).permutation(len(values))
        made[name] = Feature(f"{name}, permuted", values[order], f"{name}, dealt out to other rows")
    found: list[Variant] = []
    for chosen in [names, *([name] for name in names if len(names) > 1)][: 1 + MOST]:
        if chosen:
            told = ", ".join(chosen)
            other = with_features(
                hypothesis, {name: made[name] for name in chosen}, f"{hypothesis.name}, {told} permuted"
            )
            found.append(Variant("permuted", told, f"{told} dealt out to other rows", other))
    return found


def unimportant(hypothesis: Hypothesis) -> Variant | None:
    """Return the hypothesis with no feature kept: what a permuted one is not to beat."""
    names = kept_features(hypothesis)
    root = hypothesis.root.name

    def change(one: Written) -> Written:
        return {**one, "feature": None} if one["feature"] in names and one["name"] != root else one

    if not any(claim.feature in names for claim in hypothesis.claims() if claim.name != root):
        return None
    return Variant(
        "unimportant",
        ", ".join(names),
        "no feature kept",
        rewritten(hypothesis, change, f"{hypothesis.name}, no feature kept"),
    )


def swapped(hypothesis: Hypothesis) -> list[Variant]:
    """Return the hypothesis with what two claims keep exchanged, for each pair of claims that keep different things."""
    _, *claims = hypothesis.claims()
    found: list[Variant] = []
    for one, other in combinations(claims, 2):
        if one.feature == other.feature or one.each != other.each or len(found) == MOST:
            continue
        exchanged = {one.name: other.feature, other.name: one.feature}
        made = rewritten(hypothesis, lambda item, e=exchanged: {**item, "feature": e.get(item["name"], item["feature"])}, f"{hypothesis.name}, {one.name} and {other.name} swapped")  # fmt: skip
        found.append(
            Variant("swapped", f"{one.name}, {other.name}", f"what {one.name} and {other.name} keep, exchanged", made)
        )
    return found


def elsewhere(model: Model, hypothesis: Hypothesis, data: Dataset, count: int, seed: int) -> list[Variant]:
    """Return the hypothesis with its sites moved to random sites of the same kind, `count` times; fewer where none fit.

    A head goes to another head, an MLP to another layer's, a module to another with results of the same axes; positions stay.
    """
    generator = np.random.default_rng([seed, *b"sites"])
    found: list[Variant] = []
    seen = {tuple(str(claim.site) for claim in hypothesis.claims())}
    for _ in range(_TRIES):
        moved = {
            claim.name: _moved(model, claim, generator)
            for claim in hypothesis.claims()
            if claim.name != hypothesis.root.name
        }
        sites = (str(hypothesis.root.site), *moved.values())
        if sites in seen or len(found) == count:
            continue
        seen.add(sites)
        told = ", ".join(f"{name} at {site}" for name, site in moved.items())
        made = rewritten(hypothesis, lambda one, m=moved: {**one, "site": m.get(one["name"], one["site"])}, f"{hypothesis.name}, elsewhere {len(found) + 1}")  # fmt: skip
        if fits(model, made, data):
            found.append(Variant("sites", told, f"the same claims about other sites: {told}", made))
    return found


def fits(model: Model, hypothesis: Hypothesis, data: Dataset) -> bool:
    """Return whether a hypothesis is about sites that the model has, read as it says."""
    try:
        treed(model, hypothesis, data)
    except HypothesisError:
        return False
    return True


def _moved(model: Model, claim: Claim, generator: np.random.Generator) -> str:
    """Return a random site of the same kind as a claim's."""
    site = claim.site
    options: list[Address] = []
    if isinstance(site.part, Head):
        options = [with_fields(site, layer=layer, part=Head(head)) for layer, heads in enumerate(model.heads) for head in range(heads)]  # fmt: skip
    elif isinstance(site.part, Module):
        options = [with_fields(site, part=other) for other in _modules(model, site.part)]
    elif isinstance(site.layer, int):
        options = [with_fields(site, layer=layer) for layer in range(model.layers)]
    return str(options[generator.integers(len(options))] if options else site)


def _modules(model: Model, part: Module) -> Iterator[Module]:
    """Give the modules whose results have the axes of this one's."""
    rows = [(row, parse(row.address).part) for row in model.sites if not row.address.startswith("L")]
    mine = next((row.axes for row, other in rows if other == part), None)
    for row, other in rows:
        if isinstance(other, Module) and row.axes == mine and row.address != model.anatomy.result:
            yield other


def implied(hypothesis: Hypothesis) -> list[Variant]:
    """Return what the hypothesis says as well: that what is not claimed may be drawn in other ways too."""
    return [
        Variant("implied", f"others per {way}", f"what is not claimed drawn {words}", with_others(hypothesis, way))
        for way, words in zip(OTHERS, ("once for each node", "apart for each part that a node reads", "once for all nodes"), strict=True)
        if way != hypothesis.others
    ]  # fmt: skip


def coarser(hypothesis: Hypothesis, data: Dataset) -> list[Variant]:
    """Return the hypothesis with one claim keeping less: a feature of the data that what it keeps determines, or nothing.

    At most `MOST` for each claim, those with the most classes first: they keep most.
    """
    found: list[Variant] = []
    _, *claims = hypothesis.claims()
    for claim in claims:
        if claim.feature is None:
            continue
        for name in [*_determined(hypothesis, claim, data)[: MOST - 1], None]:
            words = f"{claim.name} keeps {name or 'nothing'} in place of {claim.feature}"
            found.append(
                Variant(
                    "coarser",
                    f"{claim.name}: {name or 'nothing'}",
                    words,
                    replaced(hypothesis, claim.name, feature=name),
                )
            )
    return found


def _determined(hypothesis: Hypothesis, claim: Claim, data: Dataset) -> list[str]:
    """Return the features of the data with one value for each row that are functions of what a claim keeps, and keep less."""
    mine = np.arange(len(data))
    if claim.feature != EXACT:
        values = hypothesis.feature(str(claim.feature), data).values
        if values.ndim != 1:
            return []
        _, mine = np.unique(values, return_inverse=True)
    sizes: dict[str, int] = {}
    for name, feature in data.features.items():
        if feature.values.ndim != 1 or name == claim.feature:
            continue
        _, other = np.unique(feature.values, return_inverse=True)
        pairs = len(np.unique(mine.astype(np.int64) * len(data) + other))
        classes = int(other.max()) + 1
        if pairs == int(mine.max()) + 1 and 1 < classes < pairs:
            sizes[name] = classes
    return sorted(sizes, key=lambda name: -sizes[name])
