"""Treeify: from a model and a hypothesis to one circuit in which every claim reads its own datum.

The data set is an input with the axis `row`; "reads row i" is a `Gather` of it by an index input over (batch). A claim is
built by giving the whole circuit the datum of what it leaves open, and then putting the values of the claims below it in
their place, on the claimed paths only. Two paths to one site may so see two data; what they share is one node.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from scrubjay.capture.model import Model
from scrubjay.circuit.address import Address, Head, KeyValueHead
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.flow import depends
from scrubjay.circuit.graph import substitute, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Gather, Input
from scrubjay.circuit.places import place, read, single_positions, written
from scrubjay.circuit.recognisers import Anatomy
from scrubjay.claims.hypothesis import Claim, Hypothesis, canonical, check_sites
from scrubjay.errors import AddressError, HypothesisError

ROWS = "rows."
INDEX = "datum."


@dataclass(frozen=True, eq=False)
class Source:
    """One independent datum of a scrub: the index input `name`, drawn to agree with `parent`'s datum on `feature`.

    `feature` is a name, `"exact"`, or `None` for an unconditional draw.
    """

    name: str
    parent: str | None
    feature: str | None


@dataclass(frozen=True, eq=False)
class Treeified:
    """The scrubbed circuit's result, the plain model's result for the reference datum, and the data they read."""

    scrubbed: Node
    reference: Node
    floor: Node
    sources: tuple[Source, ...]


def treeify(model: Model, hypothesis: Hypothesis, lengths: Collection[int] = ()) -> Treeified:
    """Return the scrubbed circuit of a hypothesis; `lengths` are the numbers of real tokens that rows have, where known.

    Raises `HypothesisError` for a site the model lacks, a claim that its reader cannot read, and paths that do not exist.
    """
    check_sites(hypothesis, model.anatomy.shape)
    root = canonical(hypothesis.root, model.anatomy.shape)
    if str(Address(root.site.layer, root.site.part, root.site.site)) != model.anatomy.result:
        raise HypothesisError(
            f"a hypothesis begins with the model's result {model.anatomy.result!r}; this one begins with {root.site}"
        )
    if root.site.position is not None and "query" not in model.circuit.roots[model.anatomy.result].axis_names:
        raise HypothesisError(
            f"{root.site}: this model's result has no positions; begin the hypothesis with site={model.anatomy.result!r}"
        )
    sources = [Source("reference", None, None), Source("floor", None, None)]
    top = "reference" if root.feature == "exact" else root.name
    if root.feature != "exact":
        sources.append(Source(root.name, "reference", root.feature))
    scrubbed = _Builder(model.circuit, model.anatomy, sources, lengths).value(root, top)
    return Treeified(
        scrubbed,
        read(sourced(model.circuit, "reference"), model.anatomy, root.site),
        read(sourced(model.circuit, "floor"), model.anatomy, root.site),
        tuple(sources),
    )


def sourced(circuit: Circuit, source: str) -> Circuit:
    """Return the circuit with every input read from the data set, at the rows that `source` draws."""
    index = Input(f"{INDEX}{source}", (Axis("batch", "batch"),), "int64")
    changes: dict[Node, Node] = {}
    for name, node in circuit.inputs.items():
        dims = tuple(Axis("row", "row") if axis.name == "batch" else axis for axis in node.dims)
        if dims == node.dims:
            raise HypothesisError(f"input {name!r} has no batch axis, so a data set cannot stand in for it")
        changes[node] = Gather(Input(f"{ROWS}{name}", dims, node.dtype), "row", index)
    return circuit.rewrite(changes, f"reads {source}")


class _Builder:
    """Builds claims from the root down; collects the data they read.

    A claim's value is first put in place as a leaf of its own, so that what depends on it can be told from what the same
    datum's other values are.
    """

    def __init__(self, circuit: Circuit, anatomy: Anatomy, sources: list[Source], lengths: Collection[int]) -> None:
        self.circuit, self.anatomy, self.sources, self.lengths = circuit, anatomy, sources, lengths

    def value(self, claim: Claim, datum: str) -> Node:
        """Return the value of a claim's site, given the datum drawn for it."""
        if not claim.reads:
            return read(sourced(self.circuit, datum), self.anatomy, claim.site)
        other = f"{claim.name}/other"
        self.sources.append(Source(other, None, None))
        here = sourced(self.circuit, other)
        values = {item.name: self._below(item, datum) for item in claim.reads}
        leaves = {name: Input(f"claim.{name}", value.axes) for name, value in values.items()}
        self._check_apart(here, claim.reads)
        for item in claim.reads:
            if item.via == "all":
                here = self._put(here, item, leaves[item.name], claim)
        direct = [item for item in claim.reads if item.via == "direct"]
        node, positions = read(here, self.anatomy, claim.site), self._positions(here, claim)
        if direct:
            frozen, thaw = freeze(here, self.anatomy, claim.site, [item.site for item in direct])
            for item in direct:
                frozen = self._put(frozen, item, leaves[item.name], claim)
            node = read(frozen, self.anatomy, claim.site)
            node = substitute([node], thaw)[node]
        for item in claim.reads:
            if not depends([node], leaves[item.name], positions, self._are_apart):
                raise HypothesisError(
                    f"claim {item.name!r}: another claim takes the place of all that reads {item.site}; leave one of them out, or put it below the other"
                )
        return substitute([node], {leaves[name]: value for name, value in values.items()})[node]

    def _positions(self, circuit: Circuit, claim: Claim) -> Mapping[Node, int]:
        """Return the nodes for the positions that a claim and those below it are at."""
        sites = [claim.site, *(item.site for item in claim.reads)]
        ats = {-1 if site.position.at == "END" else site.position.at for site in sites if site.position is not None}
        return single_positions(circuit, [at for at in ats if isinstance(at, int)])

    def _are_apart(self, one: int, two: int) -> bool:
        """Tell whether two positions of a row are never the same place."""
        if (one < 0) == (two < 0):
            return one != two
        return bool(self.lengths) and all(one % length != two % length for length in self.lengths)

    def _check_apart(self, circuit: Circuit, claims: Collection[Claim]) -> None:
        """Refuse two claims about one place that has two names (the stream after a layer and before the next)."""
        seen: dict[tuple[Node, Node], Claim] = {}
        for item in claims:
            try:
                bare = Address(item.site.layer, item.site.part, item.site.site)
                spot = read(circuit, self.anatomy, item.site), place(circuit, self.anatomy, bare).target
            except AddressError as error:
                raise HypothesisError(f"claim {item.name!r}: {error}") from error
            other = seen.setdefault(spot, item)
            if other is not item:
                raise HypothesisError(
                    f"claims {other.name!r} and {item.name!r} are about one place: {other.site} is {item.site}; keep one"
                )

    def _below(self, item: Claim, datum: str) -> Node:
        if item.feature != "exact":
            self.sources.append(Source(item.name, datum, item.feature))
            datum = item.name
        value = self.value(item, datum)
        if not any(isinstance(node, Input) and node.name.startswith(INDEX) for node in topological([value])):
            raise HypothesisError(
                f"claim {item.name!r}: {item.site} is the same for every datum (no input is read on the way to it), so there is nothing to "
                "resample; claim what depends on the datum: embed, or the stream that this is a part of"
            )
        return value

    def _put(self, circuit: Circuit, item: Claim, leaf: Node, reader: Claim) -> Circuit:
        """Return the circuit with a leaf at a claim's site; refuse a site that the reader does not depend on."""
        try:
            changed, _ = written(circuit, self.anatomy, item.site, lambda _: leaf, f"claim {item.name}")
        except AddressError as error:
            raise HypothesisError(f"claim {item.name!r}: {error}") from error
        node = read(changed, self.anatomy, reader.site)
        if depends([node], leaf, self._positions(circuit, reader), self._are_apart):
            return changed
        if depends([node], leaf):
            advice = (
                f"{item.via} paths carry it to its own position alone: claim the position that {reader.name!r} reads"
            )
        elif item.via == "direct":
            advice = "claim the head's out or the MLP's out, or use via='all'"
        else:
            advice = "claim a site that comes before it"
        raise HypothesisError(
            f"claim {item.name!r}: {reader.site} does not read {item.site} by {item.via} paths; {advice}"
        )


_CUT = re.compile(r"L(\d+)\.(\w+)\._cut")


def freeze(
    circuit: Circuit, anatomy: Anatomy, reader: Address, senders: Sequence[Address] = ()
) -> tuple[Circuit, dict[Node, Node]]:
    """Return the circuit with the inside of every component but the reader's own replaced by leaves, and how to undo it.

    What is left between a site and the reader are direct paths: residual additions (with the norms that belong to the
    stream), output projections, and the reader's own norm and computation. A component whose inside is not understood is
    replaced as a whole. Raises `HypothesisError` where something that is no addition stands between a sender and the reader.
    """
    _check_gaps(anatomy, reader, senders)
    own = _component(anatomy, reader)
    leaves: dict[Node, Node] = {}
    for address, node in circuit.table.items():
        found = _CUT.fullmatch(address)
        if found is not None and own != (int(found[1]), found[2]):
            leaves.setdefault(node, Input(f"frozen.{address.removesuffix('._cut')}", node.axes))
    return circuit.rewrite(leaves, "direct paths only"), {leaf: node for node, leaf in leaves.items()}


def _check_gaps(anatomy: Anatomy, reader: Address, senders: Sequence[Address]) -> None:
    end = reader.layer if isinstance(reader.layer, int) else len(anatomy.layers)
    for sender in senders:
        start = sender.layer if isinstance(sender.layer, int) else -1
        crossed = [gap for gap in sorted(anatomy.gaps) if start < gap <= end]
        if crossed:
            raise HypothesisError(
                f"{sender} is to be read by {reader} by direct paths, and between L{crossed[0] - 1}.resid_post and "
                f"L{crossed[0]}.resid_pre stands something that is no residual addition, so it is not known which paths "
                "are direct: use via='all'"
            )


def _component(anatomy: Anatomy, reader: Address) -> tuple[int, str] | None:
    """Return the layer and kind of the component a reader belongs to, if any."""
    if not isinstance(reader.layer, int):
        return None
    kind = reader.site.partition(".")[0]
    if isinstance(reader.part, Head | KeyValueHead):
        return reader.layer, "attn"
    if kind == "ln1":
        return reader.layer, "attn" if "attn" in anatomy.layers[reader.layer].kinds else "mixer"
    if reader.part is not None or kind == "ln2":
        return reader.layer, "mlp"
    return (reader.layer, kind) if kind in {"attn", "mlp", "mixer", "cross"} else None
