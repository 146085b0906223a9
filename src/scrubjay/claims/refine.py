"""Hypotheses from hypotheses: a claim replaced, left out, cut short or added. Each is a new value that names its parent's digest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from scrubjay.claims.claim import EXACT, Others
from scrubjay.claims.data import Feature
from scrubjay.claims.hypothesis import Hypothesis
from scrubjay.errors import HypothesisError, near

Written = dict[str, Any]
"""A claim as plain values, as `Hypothesis.to_dict` writes it."""

_KEEP = "\0as it is"


def rewritten(
    hypothesis: Hypothesis,
    change: Callable[[Written], Written | None],
    name: str,
    features: Mapping[str, Feature] | None = None,
    *,
    others: Others | None = None,
) -> Hypothesis:
    """Return a hypothesis with every claim replaced by what a function makes of it, from the leaves up; `None` leaves it out.

    The function is given a claim as plain values whose `reads` are changed already; `others` replaces what the whole hypothesis says of
    what is not claimed. Raises `HypothesisError` where the root is left out.
    """
    whole = {**hypothesis.to_dict("digests"), "version": 2}
    whole["features"] = {
        key: one for key, one in cast("Written", whole.get("features", {})).items() if key not in hypothesis.features
    }
    if others is not None:
        whole["others"] = others
    top = change_all(cast("Written", whole["root"]), change)
    if top is None:
        raise HypothesisError(
            f"{hypothesis.name}: without its result a hypothesis claims nothing: leave out what it reads"
        )
    made = Hypothesis.from_dict({**whole, "name": name, "root": top})
    for feature in {**hypothesis.features, **(features or {})}.values():
        made.keep(feature)
    made.parent = hypothesis.digest
    return made


def change_all(top: Written, change: Callable[[Written], Written | None]) -> Written | None:
    """Return a written tree of claims changed from the leaves up."""
    order = [top]
    for one in order:
        order.extend(one["reads"])
    made: dict[int, Written | None] = {}
    for one in reversed(order):
        below = [made[id(item)] for item in one["reads"]]
        made[id(one)] = change({**one, "reads": [item for item in below if item is not None]})
    return made[id(top)]


def replaced(
    hypothesis: Hypothesis,
    claim: str,
    *,
    site: str | None = None,
    feature: Feature | str | None = _KEEP,
    via: str | None = None,
    others: Others | None = None,
    name: str | None = None,
) -> Hypothesis:
    """Return the hypothesis with one claim's site, feature, paths or others replaced; what is not given stays.

    Raises `HypothesisError` for a claim that is not there.

    >>> made = Hypothesis("the last head counts")
    >>> _ = made.node("answer").reads("counter", "L1.H0.out@0", "count")
    >>> other = replaced(made, "counter", feature="start")
    >>> other.root.reads[0].feature, other.parent == made.digest
    ('start', True)
    """
    _known(hypothesis, claim)
    kept = feature.name if isinstance(feature, Feature) else feature
    given = {"site": site, "via": via, "others": others}
    changes: Written = {key: value for key, value in given.items() if value is not None}
    if kept != _KEEP:
        changes["feature"] = kept
    spoken = {"site": "at", "feature": "keeps", "via": "by", "others": "others"}
    told = ", ".join(f"{spoken[key]} {value or 'nothing'}" for key, value in changes.items()) or "as it was"
    new = {feature.name: feature} if isinstance(feature, Feature) else {}
    return rewritten(
        hypothesis, lambda one: {**one, **changes} if one["name"] == claim else one, name or f"{hypothesis.name}, {claim}: {told}", new
    )  # fmt: skip


def without(hypothesis: Hypothesis, *claims: str, name: str | None = None) -> Hypothesis:
    """Return the hypothesis without these claims and all below them: what they are about is said not to matter to their readers."""
    for claim in claims:
        _known(hypothesis, claim)
    return rewritten(
        hypothesis, lambda one: None if one["name"] in claims else one, name or f"{hypothesis.name}, without {', '.join(claims)}"
    )  # fmt: skip


def cut(hypothesis: Hypothesis, claim: str, name: str | None = None) -> Hypothesis:
    """Return the hypothesis with nothing said of what one claim reads: its site is then the one datum's, whole."""
    _known(hypothesis, claim)
    return rewritten(
        hypothesis, lambda one: {**one, "reads": []} if one["name"] == claim else one, name or f"{hypothesis.name}, nothing below {claim}"
    )  # fmt: skip


def extended(
    hypothesis: Hypothesis,
    reader: str,
    claim: str,
    site: str,
    feature: Feature | str | None = None,
    *,
    via: str = "direct",
    name: str | None = None,
) -> Hypothesis:
    """Return the hypothesis with one claim more, about something that the claim `reader` reads."""
    _known(hypothesis, reader)
    kept = feature.name if isinstance(feature, Feature) else feature
    new: Written = {"name": claim, "site": site, "feature": kept, "via": via, "reads": []}
    return rewritten(
        hypothesis,
        lambda one: {**one, "reads": [*one["reads"], new]} if one["name"] == reader else one,
        name or f"{hypothesis.name}, and {claim}",
        {feature.name: feature} if isinstance(feature, Feature) else {},
    )


def with_features(hypothesis: Hypothesis, features: Mapping[str, Feature], name: str) -> Hypothesis:
    """Return the hypothesis with features exchanged for others, by the names that claims keep now."""

    def change(one: Written) -> Written:
        other = features.get(str(one["feature"]))
        return one if other is None else {**one, "feature": other.name}

    return rewritten(hypothesis, change, name, {feature.name: feature for feature in features.values()})


def kept_features(hypothesis: Hypothesis) -> list[str]:
    """Return the names of the features that claims keep, each once, in order."""
    names = [claim.feature for claim in hypothesis.claims() if claim.feature not in {None, EXACT}]
    return list(dict.fromkeys(name for name in names if name is not None))


def _known(hypothesis: Hypothesis, claim: str) -> None:
    names = [one.name for one in hypothesis.claims()]
    if claim not in names:
        raise HypothesisError(
            f"{hypothesis.name}: there is no claim {claim!r}; its claims are {', '.join(names)}{near(claim, names)}"
        )
