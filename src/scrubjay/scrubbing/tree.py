"""Treeify: from a model and a hypothesis to one circuit in which every claim reads its own datum.

The data set is an input with the axis `row`; "reads row i" is a `Gather` of it by an index input over (batch). A claim is
built by giving the whole circuit the datum of what it leaves open, and then putting the values of the claims below it in
their place, on the claimed paths only. Two paths to one site may so see two data; what they share is one node.
"""

from __future__ import annotations

from dataclasses import dataclass

from scrubjay.capture.model import Model
from scrubjay.circuit.address import Address, Head
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import substitute, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Gather, Input
from scrubjay.circuit.places import place, read, write
from scrubjay.circuit.recognisers import Anatomy
from scrubjay.claims.hypothesis import Claim, Hypothesis, check_sites
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


def treeify(model: Model, hypothesis: Hypothesis) -> Treeified:
    """Return the scrubbed circuit of a hypothesis.

    Raises `HypothesisError` for a site the model lacks, a claim that its reader cannot read, and paths that do not exist.
    """
    check_sites(hypothesis, model.anatomy.shape)
    root = hypothesis.root
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
    scrubbed = _Builder(model.circuit, model.anatomy, sources).value(root, top)
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
    """Builds claims from the root down; collects the data they read."""

    def __init__(self, circuit: Circuit, anatomy: Anatomy, sources: list[Source]) -> None:
        self.circuit, self.anatomy, self.sources = circuit, anatomy, sources

    def value(self, claim: Claim, datum: str) -> Node:
        """Return the value of a claim's site, given the datum drawn for it."""
        if not claim.reads:
            return read(sourced(self.circuit, datum), self.anatomy, claim.site)
        other = f"{claim.name}/other"
        self.sources.append(Source(other, None, None))
        here = sourced(self.circuit, other)
        made = [(item, self._below(item, datum)) for item in claim.reads]
        self._check_apart(here, made)
        for item, value in made:
            if item.via == "all":
                here = self._put(here, item, value, claim)
        direct = [(item, value) for item, value in made if item.via == "direct"]
        if not direct:
            return self._checked(read(here, self.anatomy, claim.site), made)
        frozen, thaw = freeze(here, self.anatomy, claim.site)
        for item, value in direct:
            frozen = self._put(frozen, item, value, claim)
        node = read(frozen, self.anatomy, claim.site)
        return self._checked(substitute([node], thaw)[node], made)

    def _check_apart(self, circuit: Circuit, made: list[tuple[Claim, Node]]) -> None:
        """Refuse two claims about one place that has two names (the stream after a layer and before the next)."""
        seen: dict[tuple[Node, Node], Claim] = {}
        for item, _ in made:
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

    def _checked(self, node: Node, made: list[tuple[Claim, Node]]) -> Node:
        """Return a claim's value; refuse a claim below it whose value another one has replaced altogether."""
        read_now = set(topological([node]))
        for item, value in made:
            if value not in read_now:
                raise HypothesisError(
                    f"claim {item.name!r}: another claim takes the place of all that reads {item.site}; leave one of them out, or put it below the other"
                )
        return node

    def _below(self, item: Claim, datum: str) -> Node:
        if item.feature == "exact":
            return self.value(item, datum)
        self.sources.append(Source(item.name, datum, item.feature))
        return self.value(item, item.name)

    def _put(self, circuit: Circuit, item: Claim, value: Node, reader: Claim) -> Circuit:
        try:
            before = read(circuit, self.anatomy, reader.site)
            changed = write(circuit, self.anatomy, item.site, lambda _: value, f"claim {item.name}")
        except AddressError as error:
            raise HypothesisError(f"claim {item.name!r}: {error}") from error
        if read(changed, self.anatomy, reader.site) is before:
            advice = (
                "claim the head's out or the MLP's out, or use via='all'"
                if item.via == "direct"
                else "claim a site that comes before it"
            )
            raise HypothesisError(
                f"claim {item.name!r}: {reader.site} does not read {item.site} by {item.via} paths; {advice}"
            )
        return changed


def freeze(circuit: Circuit, anatomy: Anatomy, reader: Address) -> tuple[Circuit, dict[Node, Node]]:
    """Return the circuit with the inside of every component but the reader's own replaced by leaves, and how to undo it.

    What is left between a site and the reader are direct paths: residual additions (with the norms that belong to the
    stream), output projections, and the reader's own norm and computation.
    """
    own = _component(reader)
    names: dict[str, Node] = {}
    for number, _ in enumerate(anatomy.layers):
        for site in ("attn.z", "mlp.post"):
            address = f"L{number}.{site}"
            if address in circuit.table and own != (number, site.split(".")[0]):
                names[address] = circuit.table[address]
    leaves: dict[Node, Node] = {}
    for address, node in names.items():
        leaves.setdefault(node, Input(f"frozen.{address}", node.axes))
    return circuit.rewrite(leaves, "direct paths only"), {leaf: node for node, leaf in leaves.items()}


def _component(reader: Address) -> tuple[int, str] | None:
    """Return the layer and kind of the component a reader belongs to, if any."""
    if not isinstance(reader.layer, int):
        return None
    if isinstance(reader.part, Head) or reader.site.startswith(("attn.", "ln1")):
        return reader.layer, "attn"
    if reader.part is not None or reader.site.startswith(("mlp.", "ln2")):
        return reader.layer, "mlp"
    return None
