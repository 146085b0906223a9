"""Parents: what writes to the stream before a reader, each of which may have a datum of its own."""

from __future__ import annotations

from collections.abc import Mapping

from scrubjay.circuit.address import Address, Head, KeyValueHead, expand, parse
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Einsum, Input
from scrubjay.circuit.places import read
from scrubjay.circuit.recognisers import Anatomy
from scrubjay.errors import AddressError, HypothesisError
from scrubjay.scrubbing.route import check_gaps
from scrubjay.scrubbing.sources import READ


def parents(circuit: Circuit, anatomy: Anatomy, reader: Address) -> dict[str, Node]:
    """Return leaves for what a reader's stream is made of, by address: the embeddings, each head and MLP before it, and inputs.

    Raises `HypothesisError` where the stream is not known to be a sum of such parts.
    """
    check_gaps(anatomy, reader, Address(None, None, "embed"))
    if "L0.resid_pre" not in circuit.table:
        raise HypothesisError(
            f"others='parent': this model has no residual stream that is known to be a sum, so what {reader} reads has no parts to draw apart: "
            "use others='node' or 'global'"
        )
    last = reader.layer if isinstance(reader.layer, int) else len(anatomy.layers)
    inner = isinstance(reader.part, Head | KeyValueHead) or reader.site.partition(".")[0] in {
        "attn",
        "ln1",
        "resid_pre",
    }
    found: dict[str, Node] = {"L0.resid_pre": circuit.node("L0.resid_pre")}
    for number, layer in enumerate(anatomy.layers[: last + 1]):
        here = f"L{number}."
        if number < last or not inner:
            shares = layer.head_shares and isinstance(circuit.table.get(f"{here}attn._product"), Einsum)
            heads = [f"{here}H{head}.out" for head in range(layer.heads)] if shares else [f"{here}attn.out"]
            kinds = [*heads, *(f"{here}{kind}.out" for kind in ("cross", "mixer"))]
            if number < last:
                kinds.append(f"{here}mlp.out")
            found |= {one: node for one in kinds if (node := _node(circuit, anatomy, one)) is not None}
    found |= {name: node for name, node in circuit.table.items() if name.startswith(READ)}
    return {address: Input(f"parent.{address}", node.axes) for address, node in found.items()}


def parent(circuit: Circuit, anatomy: Anatomy, address: str) -> Node:
    """Return what one parent writes."""
    return circuit.table[address] if address.startswith(READ) else read(circuit, anatomy, parse(address))


def _node(circuit: Circuit, anatomy: Anatomy, address: str) -> Node | None:
    try:
        expand(parse(address), anatomy.shape)
    except AddressError:
        return None
    return parent(circuit, anatomy, address)


def with_parents(circuit: Circuit, anatomy: Anatomy, leaves: Mapping[str, Node]) -> Circuit:
    """Return a circuit with leaves for all that writes to the stream, and for inputs."""
    changes: dict[Node, Node] = {}
    names: dict[str, Node] = {}
    for address, leaf in leaves.items():
        layer, _, site = address.partition(".")
        if site.startswith("H"):
            continue
        changes[circuit.table[address]] = leaf
    for number, layer in enumerate(anatomy.layers):
        heads = [leaves[f"L{number}.H{head}.out"] for head in range(layer.heads) if f"L{number}.H{head}.out" in leaves]
        if heads:
            product = circuit.table[f"L{number}.attn._product"]
            changes[product] = Add(tuple(heads)) if len(heads) > 1 else heads[0]
            names |= {f"L{number}.H{head}.out": leaf for head, leaf in enumerate(heads)}
    made = circuit.rewrite(changes, "each parent's own datum")
    kept = {address: node for address, node in circuit.table.items() if address.startswith("_in.")}
    return made.with_table({**made.table, **names, **kept})
