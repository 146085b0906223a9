"""Checks of a hypothesis against what a model has, before anything is run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from scrubjay.circuit.address import Address, ModelShape, Module, Range, expand
from scrubjay.claims.claim import Claim, below, input_name
from scrubjay.claims.hypothesis import Hypothesis
from scrubjay.claims.parts import base
from scrubjay.claims.route import expanded, parse_route
from scrubjay.errors import AddressError, HypothesisError


def check_sites(hypothesis: Hypothesis, shape: ModelShape, inputs: Collection[str] = ()) -> None:
    """Refuse claims about sites the model lacks, several sites at once, unknown parts, or one site twice below one parent.

    `inputs` are the names of the model's inputs, which can be claimed too. Raises `HypothesisError`.
    """
    root = hypothesis.root
    for claim in below(root):
        found = _found(claim, shape, inputs)
        if claim.part is not None:
            hypothesis.part(claim.part)
        expanded(parse_route(claim.via), claim.via, shape)
        if found is not None and isinstance(found.part, Module) and claim.via != "all" and claim is not root:
            raise HypothesisError(
                f"claim {claim.name!r}: direct paths are known between named sites only; use via='all' for {claim.site}"
            )
        _check_twice(claim)
    if root.each or (root.site.position is not None and isinstance(root.site.position.at, Range)):
        raise HypothesisError(
            f"claim {root.name!r}: {root.site} names several positions: begin a hypothesis at one, or at all of them"
        )


def _found(claim: Claim, shape: ModelShape, inputs: Collection[str]) -> Address | None:
    """Return the one site of the model that a claim is about; `None` for an input."""
    if input_name(claim.site) in inputs:
        return None
    try:
        found = expand(claim.site, shape)
    except AddressError as error:
        hint = f"; its inputs are {', '.join(inputs)}" if input_name(claim.site) and inputs else ""
        raise HypothesisError(f"claim {claim.name!r}: {error}{hint}") from error
    if len(found) != 1:
        raise HypothesisError(f"claim {claim.name!r}: {claim.site} names {len(found)} sites; make one claim for each")
    return found[0]


def _check_twice(reader: Claim) -> None:
    """Refuse two claims below one about the same place: one site, or ranges of positions that meet."""
    for number, one in enumerate(reader.reads):
        for other in reader.reads[:number]:
            same = replace(one.site, position=None) == replace(other.site, position=None)
            if not same or not _meet(one, other):
                continue
            if one.part and other.part and base(one.part) == base(other.part) and one.part != other.part:
                continue
            twice = (one.site, one.part) == (other.site, other.part)
            what = str(one.site) if twice else f"what {one.spoken} and {other.spoken} have in common"
            raise HypothesisError(
                f"{what} is claimed twice below {reader.name!r}, as {other.name!r} and {one.name!r}: keep one"
            )


def _meet(one: Claim, other: Claim) -> bool:
    """Tell whether two claims about one site are certainly about a common position."""
    ends: list[tuple[int, int]] = []
    for claim in (one, other):
        at = claim.site.position.at if claim.site.position is not None else None
        if at is None:
            return one.site == other.site
        if isinstance(at, Range):
            ends.append((at.first, at.last))
        else:
            ends.append((-1, -1) if isinstance(at, str) else (at, at))
    (low, high), (first, last) = ends
    if {low < 0, high < 0, first < 0, last < 0} != {low < 0}:
        return one.site == other.site
    return low <= last and first <= high


def canonical(claim: Claim, shape: ModelShape, inputs: Collection[str] = ()) -> Claim:
    """Return a claim, and all below it, with a user's own names for sites as the addresses they stand for."""
    made: dict[int, Claim] = {}
    for one in reversed(below(claim)):  # what a claim reads stands behind it
        site = one.site if input_name(one.site) in inputs else expand(one.site, shape)[0]
        made[id(one)] = replace(one, site=site, reads=tuple(made[id(item)] for item in one.reads))
    return made[id(claim)]
