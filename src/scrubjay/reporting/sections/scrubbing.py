"""What does each part carry, and does the whole story hold together?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from scrubjay.claims.claim import Claim, Others
from scrubjay.claims.hypothesis import Hypothesis
from scrubjay.reporting.brackets import FINER, FIVE_PARTS, FROM_THE_RIGHT, TWO_HEADS, UNTOUCHED, Stated
from scrubjay.reporting.part import Parts
from scrubjay.reporting.variant import part_name
from scrubjay.reporting.words import Chapter, listed, share
from scrubjay.scrubbing import ScrubResult
from scrubjay.viz import Branch, Detail, Figure, Markup, ScrubRow, Section, heatmap, recovered, tree

NOT_TOLD_APART = 0.02
"""Two fractions closer than this are not told apart in words."""


def one_at_a_time(found: Parts, described: Mapping[str, str]) -> Chapter:
    """Return the section on resampling one part at a time; `described` says what each feature is."""
    columns = ["any" if name is None else name for name in found.features]
    best = []
    for number, site in enumerate(found.sites):
        row = found.recovered[number]
        if row[0] > 1 - NOT_TOLD_APART:
            continue
        named = [index for index, name in enumerate(found.features) if name not in {None, "is_balanced"}]
        top = max(named, key=lambda index: float(row[index]))
        best.append((1 - float(row[0]), part_name(site), columns[top], float(row[top]), float(row[0])))
    best.sort(reverse=True)
    told = [
        f"{site} keeps {share(low)} of the behaviour, and {share(top)} if the two strings agree on {name.replace('_', ' ')}"
        for _, site, name, top, low in best[:3]
    ]
    calm = len(found.sites) - len(best)
    finding = (
        f"Taken from any other string, one part at a time: {listed(told)}."
        if told
        else "No part matters when it alone is resampled."
    )
    if calm:
        finding += f" {calm} of {len(found.sites)} parts hardly {'matters' if calm == 1 else 'matter'} alone."
    error = float(found.error.max())
    chart = heatmap(
        1 - found.recovered,
        [part_name(site) for site in found.sites],
        columns,
        "Behaviour lost with one part resampled",
    )
    features = Detail("What the features are", (_descriptions(described),))
    body = (
        (
            "One part's value, at the answer's position, is replaced by its value in another string that agrees with this one on the "
            "feature named above the column; all else stays. If nothing is lost, the part carries nothing else that is used, or nothing that the other parts cannot make up for."
        ),
        Figure(
            chart,
            f"0: nothing is lost; 1: as bad as answering for an unrelated string. Standard errors up to {error:.2f}.",
        ),
        features,
    )
    numbers: dict[str, object] = {
        "sites": list(found.sites),
        "features": columns,
        "recovered": found.recovered.tolist(),
        "standard_error": found.error.tolist(),
    }
    return Chapter(Section("What does each part carry?", finding, body), finding, numbers)


def hypotheses(stated: Sequence[Stated], results: Sequence[ScrubResult], parts: Parts) -> Chapter:
    """Return the section on the hypotheses: what each says, and how its scrub came out."""
    by_name = {one.hypothesis.name: result for one, result in zip(stated, results, strict=True)}
    sentences = [_best(stated, results), _wrong(stated, results)]
    composed = _composition(by_name, parts)
    right = _direction(by_name)
    finding = " ".join(sentence for sentence in (*sentences, right) if sentence)
    order = {"claim": "meant to fit", "yardstick": "a yardstick", "wrong": "meant to fail"}
    rows = [_row(result, order[one.side]) for one, result in zip(stated, results, strict=True)]
    body: list[Figure | Detail | Markup | str] = [
        (
            "A hypothesis says which sites the answer depends on and which feature each of them carries. The scrub takes it at its word: every "
            "site gets the value of another string that agrees on its feature, all at once, and everything not named gets an unrelated string's. "
            "The behaviour that is left over is what the hypothesis accounts for. A scrub can reject; it can never show that a hypothesis is true."
            " Our claims were written after looking at this model on other strings of the same kind, so they are no predictions."
        ),
    ]
    for one, result in zip(stated, results, strict=True):
        if one.side == "claim":
            body.append(Figure(tree(branch(one.hypothesis), one.hypothesis.name), f"{one.words} {_verdict(result)}"))
    rest = [(one, result) for one, result in zip(stated, results, strict=True) if one.side != "claim"]
    folded = tuple(
        Figure(tree(branch(one.hypothesis), one.hypothesis.name), f"{one.words} {_verdict(result)}")
        for one, result in rest
    )
    body.append(Detail(f"The other {len(rest)} hypotheses: yardsticks, and versions meant to fail", folded))
    body.append(
        Figure(
            recovered(rows, "Loss recovered by each hypothesis"),
            "Every hypothesis, on the same strings. Intervals are 95%, by a bootstrap over strings.",
        )
    )
    body += [
        sentence
        for sentence in (_shallow(stated, results), composed, _remainder(by_name), _limits(results))
        if sentence
    ]
    numbers: dict[str, object] = {
        "results": [
            {"side": one.side, "words": one.words, **result.to_dict(), "fingerprint": result.fingerprint}
            for one, result in zip(stated, results, strict=True)
        ],
        "composition": composed,
    }
    return Chapter(Section("Does a hypothesis hold?", finding, tuple(body)), finding, numbers)


def branch(hypothesis: Hypothesis) -> Branch:
    """Return a hypothesis as a tree to draw.

    >>> made = Hypothesis("h")
    >>> answer = made.node("answer", site="logits")
    >>> _ = answer.reads("counter", "L1.H0.out@0", "count", via="all")
    >>> branch(made).children[0].words
    'keeps only count; read by all paths'
    """
    return _branch(hypothesis.root, hypothesis.others, top=True)


def _branch(claim: Claim, others: Others, top: bool = False) -> Branch:
    if top:
        words = "is this string's own" if claim.feature == "exact" else f"keeps only {claim.feature}"
    else:
        kept = (
            "may be anything"
            if claim.feature is None
            else "is this string's own"
            if claim.feature == "exact"
            else f"keeps only {claim.feature}"
        )
        paths = {"direct": "directly", "all": "by all paths"}.get(claim.via, f"by paths {claim.via}")
        words = f"{kept}; read {paths}"
    if claim.reads:
        rest = others if claim.others is None else claim.others
        known = f"row {rest}'s" if isinstance(rest, int) else _FROM.get(rest, f"that of a string with the same {rest}")
        words += f"; whatever else it reads is {known}"
    label = f"{str(claim.site).removeprefix('.')}{f', {claim.part}' if claim.part else ''}{', each position' if claim.each else ''}"
    return Branch(label, words, tuple(_branch(item, others) for item in claim.reads))


_FROM = {
    "node": "an unrelated string's",
    "parent": "unrelated strings', one for each part",
    "global": "that of the one unrelated string",
    "exact": "this string's own",
}
"""Whose values are read where nothing is claimed."""


def scrub_row(result: ScrubResult, remark: str = "") -> ScrubRow:
    """Return what the chart of recovered fractions draws of a result."""
    low, high = result.interval
    return ScrubRow(
        result.hypothesis.name, result.recovered, result.recovered_error, low, high, result.original, result.floor, result.scrubbed,
        result.constant, remark,
    )  # fmt: skip


def _row(result: ScrubResult, side: str) -> ScrubRow:
    return scrub_row(
        result,
        f"{side}: {result.verdict.split(':')[0]}{'; worse than a constant answer' if result.worse_than_constant else ''}",
    )


def _verdict(result: ScrubResult) -> str:
    return f"Outcome: {result.verdict}."


def _word(result: ScrubResult) -> str:
    return result.verdict.split(":")[0]


def _best(stated: Sequence[Stated], results: Sequence[ScrubResult]) -> str:
    claims = [result for one, result in zip(stated, results, strict=True) if one.side == "claim"]
    best = max(claims, key=lambda result: result.recovered)
    start = f"The best claim, \u201c{best.hypothesis.name}\u201d, recovers {share(best.recovered)} of the loss: {_word(best)}"
    if _word(best) == "rejected":
        return f"{start}. None of our {len(claims)} claims about this model survives."
    lost = [
        f"\u201c{result.hypothesis.name}\u201d ({share(result.recovered)})"
        for result in claims
        if _word(result) == "rejected"
    ]
    return f"{start}{f'; rejected on the way: {listed(lost)}' if lost else ''}."


def _wrong(stated: Sequence[Stated], results: Sequence[ScrubResult]) -> str:
    wrong = [result for one, result in zip(stated, results, strict=True) if one.side == "wrong"]
    passed = [result for result in wrong if _word(result) != "rejected"]
    if passed:
        return f"Of {len(wrong)} versions meant to fail, {listed([result.hypothesis.name for result in passed])} did not: this test does not tell them apart."
    top = max(wrong, key=lambda result: result.recovered)
    return f"All {len(wrong)} versions meant to fail are rejected, though one of them still recovers {share(top.recovered)}."


def _direction(by_name: Mapping[str, ScrubResult]) -> str:
    """Compare the horizon read from the left with the one read from the right."""
    left, right = by_name.get(FIVE_PARTS), by_name.get(FROM_THE_RIGHT)
    if left is None or right is None:
        return ""
    one, two = share(left.recovered), share(right.recovered)
    if left.interval[0] > right.interval[1]:
        return f"A horizon read from the left accounts for more of this model ({one}) than one read from the right, as published for another ({two})."
    if right.interval[0] > left.interval[1]:
        return f"A horizon read from the right, as published for another model, accounts for more of this one ({two}) than one read from the left ({one})."
    return "The scrub does not tell whether the horizon is read from the left or from the right."


def _composition(by_name: Mapping[str, ScrubResult], parts: Parts) -> str:
    """Say, for two of our claims, what resampling their parts one at a time costs, added up, and what the joint test costs."""
    told = []
    for name in (TWO_HEADS, FIVE_PARTS):
        joint = by_name.get(name)
        costs = {} if joint is None else _costs(joint, parts)
        if joint is not None and len(costs) > 1:
            told.append(_composed(joint, costs))
    return " ".join(told)


def _costs(joint: ScrubResult, parts: Parts) -> dict[str, float]:
    """Return what resampling each part of a hypothesis alone, by its feature, costs."""
    return {
        part_name(str(claim.site)): parts.cost(str(claim.site), claim.feature)
        for claim in joint.hypothesis.root.reads
        if str(claim.site) in parts.sites and claim.feature in parts.features
    }


def _composed(joint: ScrubResult, costs: Mapping[str, float]) -> str:
    total = sum(costs.values())
    each = listed([f"{site} {share(1 - cost)}" for site, cost in costs.items()])
    start = (
        f"Resampled one at a time by the features of \u201c{joint.hypothesis.name}\u201d, its parts keep {each}; added up, such losses "
        f"leave {share(1 - total)}. All at once, with the rest of the model unrelated too, {share(joint.recovered)} is left"
    )
    if 1 - joint.recovered > total + NOT_TOLD_APART:
        return f"{start}: single tests do not compose, because in each of them the untouched parts make up for what is taken away."
    return f"{start}: here the joint test costs no more than the single ones together."


def _remainder(by_name: Mapping[str, ScrubResult]) -> str:
    """Say how much of what is missing is due to the choice of parts and how much to their features."""
    ceiling, two, five, finer = (by_name.get(name) for name in (UNTOUCHED, TWO_HEADS, FIVE_PARTS, FINER))
    if ceiling is None or two is None or five is None or finer is None:
        return ""
    best = max((two, five, finer), key=lambda result: result.recovered)
    text = f"What is left unexplained: with the same five parts and nothing resampled inside them {share(ceiling.recovered)} is recovered, so of the {share(1 - best.recovered)} that \u201c{best.hypothesis.name}\u201d loses, "
    part = min(1 - ceiling.recovered, 1 - best.recovered)
    text += f"{share(part)} is due to parts it leaves out and the rest to features it leaves out."
    ratio = best.scrubbed / best.original if best.original > 0 else math.inf
    if ratio > 2:
        text += f" Its loss, {best.scrubbed:.3f} nats, is still far above the model's own, {best.original:.1e}: on some strings the parts carry more than these features."
    return text


def _shallow(stated: Sequence[Stated], results: Sequence[ScrubResult]) -> str:
    """Say which yardsticks pass: a high fraction is no measure of how much is explained."""
    passed = [
        f"\u201c{one.hypothesis.name}\u201d ({share(result.recovered)})"
        for one, result in zip(stated, results, strict=True)
        if one.side == "yardstick" and _word(result) == "not rejected"
    ]
    if not passed:
        return "Even the yardsticks, which say little on purpose, do not pass: something outside the parts named here matters."
    return f"A high fraction is no measure of insight: {listed(passed)} {'passes' if len(passed) == 1 else 'pass'} too, and say little or nothing about how the answer is reached."


def _limits(results: Sequence[ScrubResult]) -> str:
    if not results:
        return ""
    constant = results[0].constant
    worse = sum(result.worse_than_constant for result in results)
    return (
        f"Read the fractions beside the constant answer ({constant:.3f} nats): {worse} of {len(results)} hypotheses leave a model that does worse than "
        "ignoring the string. A scrub swaps strings that agree on a feature, so it cannot tell apart features that agree on all of these strings, and "
        "it says nothing about how a part computes its feature: these hypotheses stop at the five parts and do not describe the layers below."
    )


def _descriptions(described: Mapping[str, str]) -> str:
    """Return descriptions as one paragraph for each."""
    return "\n\n".join(f"{name}: {words}." for name, words in described.items())
