"""A claim as a value: what one site keeps of its datum, by which paths it is read, and what it reads itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from scrubjay.circuit.address import Address, Module, Position, parse
from scrubjay.claims.route import parse_route
from scrubjay.errors import AddressError, HypothesisError

EXACT = "exact"
"""In place of a feature: the very same datum as the parent's."""

NODE, PARENT, GLOBAL = "node", "parent", "global"
OTHERS = (NODE, PARENT, GLOBAL)
"""What a node reads and no claim mentions: one datum for each node, one for each part that is read, or one for all nodes."""

Others = str | int


@dataclass(frozen=True)
class Claim:
    """One node of a hypothesis: `site` keeps `feature` (a feature's name, `"exact"`, or `None`: nothing at all).

    Attributes:
        name: what it is called, once in a hypothesis.
        site: where: an address, perhaps at a position or a range of them, or an input of the model.
        feature: what any other datum must agree on to take the datum's place.
        via: by which paths its reader (the parent claim) reads it: `"direct"`, `"all"`, or as `claims.route` says.
        reads: the claims about what it reads itself.
        part: the part of the site's value that it is about (`"v"`, `"rest of v"`); `None`: all of it.
        each: whether every position (of its range) is a claim of its own, with a datum of its own.
        others: what else it reads: `"node"`, `"parent"`, `"global"`, the number of a row, a feature's name, or `"exact"`; `None`: as
            the hypothesis says.
    """

    name: str
    site: Address
    feature: str | None
    via: str = "direct"
    reads: tuple[Claim, ...] = ()
    part: str | None = None
    each: bool = False
    others: Others | None = None

    @property
    def spoken(self) -> str:
        """Where the claim is, in words: `L0.H0.out at position 1, along v`."""
        return spoken(self.site, self.part, each=self.each)

    def words(self, others: Others = NODE) -> str:
        """Say the claim in words; `others` is what the hypothesis says of what nothing is claimed of."""
        kept = (
            "is the same datum's"
            if self.feature == EXACT
            else "keeps nothing"
            if self.feature is None
            else f"keeps: {self.feature}"
        )
        rest = (
            f"; everything else it reads is {_from(self.others if self.others is not None else others)}"
            if self.reads
            else ""
        )
        through = "" if self.via == "direct" else " (by all paths)" if self.via == "all" else f" ({self.via})"
        return f"{self.spoken}{through} {kept}{rest}"


def _from(others: Others) -> str:
    known = {
        NODE: "from another datum",
        PARENT: "from other data, one for each part",
        GLOBAL: "from the one other datum of this hypothesis",
        EXACT: "from the same datum",
    }
    return (
        f"row {others}'s"
        if isinstance(others, int)
        else known.get(others, f"from another datum with the same {others}")
    )


def spoken(site: Address, part: str | None = None, *, each: bool = False) -> str:
    """Return a site in words.

    >>> spoken(site_of("L2.H1.out@0")), spoken(site_of("attention_mask")), spoken(site_of("embed@2..5"), each=True)
    ('L2.H1.out at position 0', 'attention_mask', 'embed at each of positions 2..5')
    """
    bare = str(Address(site.layer, site.part, site.site)).removeprefix(".")
    at = None if site.position is None else site.position.at
    ranged = isinstance(at, object) and ".." in str(at)
    where = "" if at is None else f" at position{'s' if ranged else ''} {at}"
    if each:
        where = " at each position" if at is None else f" at each of positions {at}"
    return f"{bare}{where}{f', {part}' if part else ''}"


def site_of(text: str | Address) -> Address:
    """Return the address of a site; a word that is no address is an input of the model, as a module's path with one name.

    Raises `AddressError` for a text that is neither.
    """
    if isinstance(text, Address):
        return text
    name, at, position = text.strip().partition("@")
    try:
        return parse(text)
    except AddressError:
        if not name.isidentifier():
            raise
    return Address(None, Module(name), "", parse(f"logits@{position}").position if at else None)


def input_name(site: Address) -> str | None:
    """Return the name of the model's input that a site may be, if it is a single word."""
    return site.part.path if isinstance(site.part, Module) and "." not in site.part.path else None


def written(root: Claim) -> dict[str, object]:
    """Return a claim and all below it as plain values; what is as usual is left out."""
    made: dict[int, dict[str, object]] = {}
    for claim in reversed(below(root)):
        more = {"part": claim.part, "each": claim.each or None, "others": claim.others}
        made[id(claim)] = {
            "name": claim.name,
            "site": str(claim.site),
            "feature": claim.feature,
            "via": claim.via,
            **{key: value for key, value in more.items() if value is not None},
            "reads": [made[id(item)] for item in claim.reads],
        }
    return made[id(root)]


def below(root: Claim) -> list[Claim]:
    """Return a claim and all claims below it, readers before what they read."""
    order = [root]
    for one in order:
        order.extend(one.reads)
    return order


KEYS = {"name", "site", "feature", "via", "reads", "part", "each", "others"}


def fields(item: Mapping[str, object]) -> Claim:
    """Return one written claim without what it reads; raise `HypothesisError` for values of another form."""
    name, site, feature, via = item.get("name"), item.get("site"), item.get("feature"), item.get("via", "direct")
    part, each, others = item.get("part"), item.get("each", False), item.get("others")
    if (
        not isinstance(name, str)
        or not isinstance(site, str)
        or not isinstance(via, str)
        or not isinstance(each, bool)
        or any(not (one is None or isinstance(one, str)) for one in (feature, part))
        or not (others is None or isinstance(others, str | int))
        or set(item) - KEYS
    ):
        raise HypothesisError(
            f"a claim needs texts 'name' and 'site', 'via', and a text or null 'feature'; it may have 'part' (text), 'each' (true or false), "
            f"'others' (text or row number) and 'reads' (claims); found {sorted(item)}"
        )
    return Claim(name, placed(name, site), cast("str | None", feature), via, (), cast("str | None", part), each, others)


def placed(name: str, site: str | Address) -> Address:
    """Return the site of the claim `name`; raise `HypothesisError` for a text that is no address."""
    try:
        return site_of(site)
    except AddressError as error:
        raise HypothesisError(f"claim {name!r}: {error}") from error


def check_claim(claim: Claim) -> None:
    """Refuse a claim whose paths do not parse, or whose open draws are nothing that can be drawn."""
    try:
        parse_route(claim.via)
    except HypothesisError as error:
        raise HypothesisError(f"{claim.name}: {error}") from error
    check_others(claim.name, claim.others)
    if claim.each and isinstance(claim.site.position, Position) and isinstance(claim.site.position.at, int):
        raise HypothesisError(
            f"claim {claim.name!r}: {claim.site} is one position: each=True needs all of them (no position), or a range (@2..5)"
        )


def check_others(name: str, others: Others | None) -> None:
    """Refuse what no row can be drawn by."""
    if others is None or (isinstance(others, str) and others) or (type(others) is int and others >= 0):
        return
    raise HypothesisError(
        f"{name}: others={others!r} says not what is read where nothing is claimed: give {', '.join(map(repr, OTHERS))}, a row number, "
        "the name of a feature that it agrees on, or 'exact'"
    )
