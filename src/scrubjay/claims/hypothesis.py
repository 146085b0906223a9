"""Hypotheses: what each part of a model is said to know, as a tree that a scrub can test.

A claim says that a site of the model carries only a feature of its datum: any other datum on which the feature agrees may
take its place there. A claim with further claims below it says the same of what it reads; whatever it reads that no claim
below mentions is said not to matter, and reads an unrelated datum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import cast

from scrubjay.circuit.address import Address, Module, Range, expand, parse
from scrubjay.circuit.address import ModelShape as Shape
from scrubjay.claims.data import Dataset, Feature
from scrubjay.errors import AddressError, HypothesisError, near
from scrubjay.evidence.digest import digest_array, digest_json

EXACT = "exact"
"""In place of a feature: the very same datum as the parent's."""

TAKEN = ("reference", "floor")
"""Names of data that every scrub draws."""

VIA = ("direct", "all")
"""Paths from a claimed site to its reader: `direct` (residual additions and the reader's own norm), or `all` paths."""


@dataclass(frozen=True)
class Claim:
    """One node of a hypothesis: `site` keeps `feature` (a feature's name, `"exact"`, or `None`: nothing at all).

    `via` says by which paths its reader (the parent claim) reads it; `reads` are the claims about what it reads itself.
    """

    name: str
    site: Address
    feature: str | None
    via: str = "direct"
    reads: tuple[Claim, ...] = ()

    def words(self) -> str:
        """Say the claim in words."""
        kept = (
            "is the same datum's"
            if self.feature == EXACT
            else "keeps nothing"
            if self.feature is None
            else f"keeps: {self.feature}"
        )
        rest = "; everything else it reads is another datum's" if self.reads else ""
        through = "" if self.via == "direct" else " (by all paths)"
        return f"{self.site}{through} {kept}{rest}"


@dataclass(eq=False)
class Node:
    """A claim under construction, made by `Hypothesis.node` and `Node.reads`."""

    name: str
    site: Address
    feature: str | None
    via: str
    below: list[Node] = field(default_factory=list["Node"])
    owner: Hypothesis | None = None

    def reads(
        self, name: str, site: str | Address, feature: Feature | str | None = None, *, via: str = "direct"
    ) -> Node:
        """Add a claim about something this node reads, and return it.

        Args:
            name: what to call it; each name once in a hypothesis.
            site: where in the model, one address (`"L1.H0.out@0"`).
            feature: a feature of the data or its name; `"exact"` for the same datum; `None` to claim that it does not matter.
            via: `"direct"` or `"all"` paths from the site to this node.
        """
        if self.owner is None:
            raise HypothesisError(f"{self.name} does not belong to a hypothesis: make nodes with Hypothesis.node(...)")
        if via not in VIA:
            raise HypothesisError(f"{name}: via={via!r} is not a set of paths; use one of {', '.join(VIA)}")
        made = Node(name, _site(name, site), self.owner.keep(feature), via, owner=self.owner)
        self.owner.check_new(name)
        self.below.append(made)
        return made

    def copied(self, owner: Hypothesis) -> Node:
        """Return a copy of this node and all below it that belongs to another hypothesis."""
        top = Node(self.name, self.site, self.feature, self.via, owner=owner)
        stack: list[tuple[Node, Node]] = [(self, top)]
        while stack:
            old, new = stack.pop()
            for item in old.below:
                made = Node(item.name, item.site, item.feature, item.via, owner=owner)
                new.below.append(made)
                stack.append((item, made))
        return top

    def claim(self) -> Claim:
        """Return the claim as a value (children first, without recursion)."""
        made: dict[int, Claim] = {}
        stack: list[tuple[Node, bool]] = [(self, False)]
        while stack:
            node, ready = stack.pop()
            if ready:
                made[id(node)] = Claim(
                    node.name, node.site, node.feature, node.via, tuple(made[id(item)] for item in node.below)
                )
            else:
                stack.append((node, True))
                stack.extend((item, False) for item in node.below)
        return made[id(self)]


class Hypothesis:
    """A named tree of claims, with the features it uses.

    >>> import numpy as np
    >>> hypothesis = Hypothesis("the last head counts")
    >>> root = hypothesis.node("answer", site="logits")
    >>> head = root.reads("counter", site="L1.H0.out@0", feature=Feature("count", np.array([True, False])))
    >>> print(hypothesis)
    the last head counts
    └─ logits is the same datum's; everything else it reads is another datum's
       └─ counter: L1.H0.out@0 keeps: count
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._features: dict[str, Feature] = {}
        self._top: Node | None = None
        self._sealed = False

    def node(self, name: str = "output", site: str | Address = "logits", feature: Feature | str | None = EXACT) -> Node:
        """Set the result whose behaviour is claimed (`"logits"`, `"logits@END"`) and return its node, to add claims below it.

        The result itself is computed for the reference datum, whose label is the right answer; `feature` may name what of it
        matters, and is otherwise exact.
        """
        self._check_open()
        if self._top is not None:
            raise HypothesisError(f"{self.name}: its result is already {self._top.site}; add claims with .reads(...)")
        self.check_new(name)
        self._top = Node(name, _site(name, site), self.keep(feature), "direct", owner=self)
        return self._top

    @property
    def features(self) -> Mapping[str, Feature]:
        """The features given as values, by name."""
        return MappingProxyType(self._features)

    def sealed(self) -> Hypothesis:
        """Return a copy that takes no more claims: what a result keeps of the hypothesis it tested."""
        made = Hypothesis(self.name)
        made._features = dict(self._features)
        if self._top is not None:
            made._top = self._top.copied(made)
        made._sealed = True
        return made

    def _check_open(self) -> None:
        if self._sealed:
            raise HypothesisError(
                f"{self.name}: a result keeps this hypothesis as it was scrubbed: build on the hypothesis that was given, or on "
                "Hypothesis.from_dict(result.hypothesis.to_dict())"
            )

    def keep(self, feature: Feature | str | None) -> str | None:
        """Remember a feature given as a value; return its name."""
        self._check_open()
        if isinstance(feature, Feature):
            known = self._features.setdefault(feature.name, feature)
            if known is not feature and (
                known.values.shape != feature.values.shape or (known.values != feature.values).any()
            ):
                raise HypothesisError(f"{self.name}: two different features are called {feature.name!r}; rename one")
            return feature.name
        return feature

    def check_new(self, name: str) -> None:
        """Refuse a second claim of one name, and names that data of a scrub have already."""
        self._check_open()
        if name in TAKEN or name.endswith("/other") or not name:
            raise HypothesisError(
                f"{self.name}: a claim cannot be called {name!r}: a scrub names its own data so ({', '.join(TAKEN)}, .../other)"
            )
        if any(claim.name == name for claim in self.claims()):
            raise HypothesisError(f"{self.name}: there is a claim called {name!r} already; give this one another name")

    @property
    def root(self) -> Claim:
        """The tree of claims as a value."""
        if self._top is None:
            raise HypothesisError(
                f"{self.name}: nothing is claimed yet; begin with hypothesis.node('output', site='logits')"
            )
        return self._top.claim()

    def claims(self) -> Iterator[Claim]:
        """Give every claim, parents first."""
        if self._top is None:
            return
        stack = [self._top.claim()]
        while stack:
            claim = stack.pop()
            yield claim
            stack.extend(reversed(claim.reads))

    def feature(self, name: str, data: Dataset) -> Feature:
        """Return a feature used here: one given as a value, else the data set's own."""
        if name in self.features:
            return self.features[name]
        if name in data.features:
            return data.features[name]
        known = [*self.features, *data.features]
        raise HypothesisError(
            f"{self.name}: no feature {name!r} in the data {data.name!r}; it has {', '.join(known) or 'none'}{near(name, known)}"
        )

    def to_dict(self) -> dict[str, object]:
        """Return the claims as plain values, ready for JSON; `Hypothesis.from_dict` reads them."""
        return {"version": 1, "name": self.name, "root": _written(self.root)}

    @staticmethod
    def from_dict(data: Mapping[str, object]) -> Hypothesis:
        """Return the hypothesis of `to_dict`'s values; features are then found by name in the data.

        Raises `HypothesisError` for values of another form or version.
        """
        if (
            data.get("version") != 1
            or not isinstance(data.get("name"), str)
            or not isinstance(data.get("root"), Mapping)
        ):
            raise HypothesisError("this is no hypothesis of version 1: it needs 'version': 1, 'name' and 'root'")
        made = Hypothesis(str(data["name"]))
        top = cast("Mapping[str, object]", data["root"])
        name, site, feature, _ = _fields(top)
        stack = [(made.node(name, site, feature), top)]
        while stack:
            node, written = stack.pop()
            for item in cast("list[Mapping[str, object]]", written.get("reads", [])):
                name, site, feature, via = _fields(item)
                stack.append((node.reads(name, site, feature, via=via), item))
        return made

    @property
    def digest(self) -> str:
        """The fingerprint of the claims as they are now, and of the features given as values (those of the data are in its own)."""
        values = {name: digest_array(feature.values) for name, feature in self.features.items()}
        return digest_json({**self.to_dict(), "features": values} if values else self.to_dict())

    def __str__(self) -> str:
        """Draw the tree in words."""
        lines = [self.name]
        top = self.root
        stack = [(top, "", True)]
        while stack:
            claim, before, last = stack.pop()
            label = "" if claim is top else f"{claim.name}: "
            lines.append(f"{before}{'└─' if last else '├─'} {label}{claim.words()}")
            inner = before + ("   " if last else "│  ")
            stack.extend((item, inner, item is claim.reads[-1]) for item in reversed(claim.reads))
        return "\n".join(lines)

    def __repr__(self) -> str:
        """Say the size in one line."""
        return f"<Hypothesis {self.name!r}: {sum(1 for _ in self.claims())} claims>"


def _written(root: Claim) -> dict[str, object]:
    made: dict[int, dict[str, object]] = {}
    stack: list[tuple[Claim, bool]] = [(root, False)]
    while stack:
        claim, ready = stack.pop()
        if not ready:
            stack.append((claim, True))
            stack.extend((item, False) for item in claim.reads)
            continue
        made[id(claim)] = {
            "name": claim.name,
            "site": str(claim.site),
            "feature": claim.feature,
            "via": claim.via,
            "reads": [made[id(item)] for item in claim.reads],
        }
    return made[id(root)]


def _fields(item: Mapping[str, object]) -> tuple[str, str, str | None, str]:
    name, site, feature, via = item.get("name"), item.get("site"), item.get("feature"), item.get("via", "direct")
    if (
        not isinstance(name, str)
        or not isinstance(site, str)
        or not isinstance(via, str)
        or not (feature is None or isinstance(feature, str))
    ):
        raise HypothesisError(
            f"a claim needs texts 'name' and 'site', 'via', and a text or null 'feature'; found {sorted(item)}"
        )
    return name, site, feature, via


def _site(name: str, site: str | Address) -> Address:
    try:
        return parse(site) if isinstance(site, str) else site
    except AddressError as error:
        raise HypothesisError(f"claim {name!r}: {error}") from error


def check_sites(hypothesis: Hypothesis, shape: Shape) -> None:
    """Refuse claims about sites the model lacks, several sites at once, ranges of positions, or one site twice below one parent."""
    top = hypothesis.root.name
    for claim in hypothesis.claims():
        try:
            found = expand(claim.site, shape)
        except AddressError as error:
            raise HypothesisError(f"claim {claim.name!r}: {error}") from error
        if len(found) != 1:
            raise HypothesisError(
                f"claim {claim.name!r}: {claim.site} names {len(found)} sites; make one claim for each"
            )
        if claim.site.position is not None and isinstance(claim.site.position.at, Range):
            raise HypothesisError(
                f"claim {claim.name!r}: {claim.site} names several positions; make one claim for each, or leave the position out"
            )
        if isinstance(found[0].part, Module) and claim.via == "direct" and claim.name != top:
            raise HypothesisError(
                f"claim {claim.name!r}: direct paths are known between named sites only; use via='all' for {claim.site}"
            )
        seen: dict[str, str] = {}
        for item in claim.reads:
            other = seen.setdefault(str(item.site), item.name)
            if other != item.name:
                raise HypothesisError(
                    f"{item.site} is claimed twice below {claim.name!r}, as {other!r} and {item.name!r}: keep one"
                )


def canonical(claim: Claim, shape: Shape) -> Claim:
    """Return a claim, and all below it, with a user's own names for sites as the addresses they stand for."""
    order = [claim]
    for one in order:
        order.extend(one.reads)
    made: dict[int, Claim] = {}
    for one in reversed(order):  # what a claim reads stands behind it
        (site,) = expand(one.site, shape)
        made[id(one)] = replace(one, site=site, reads=tuple(made[id(item)] for item in one.reads))
    return made[id(claim)]
