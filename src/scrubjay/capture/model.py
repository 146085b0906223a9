"""A model: a circuit with named sites, the store its weights are in, and what is needed to feed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from scrubjay.circuit.address import Address, expand, parse
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.ops import Weight
from scrubjay.circuit.places import read
from scrubjay.circuit.recognisers import Anatomy
from scrubjay.engine.context import Store
from scrubjay.evidence.digest import digest_json


class Stored(Store, Protocol):
    """A store that can also say what its tensors are."""

    def digest(self, name: str) -> str:
        """Return the fingerprint of a stored tensor's type, shape and bytes as they are now."""
        ...


@dataclass(frozen=True, eq=False)
class Model:
    """A captured model. Nothing in it changes: an intervention or an edit makes another one.

    Attributes:
        name: what to call it in reports.
        circuit: its computation, with a table of addresses.
        anatomy: its layers and heads, and notes on what was not recognised.
        stores: where its weights are found, by source.
        tokenizer: the tokenizer, if it has one.
        context: the longest input it takes, if it says so.
        dtype: the floating type it is run in (`None`: as stored). device: where (`None`: where the weights are).
    """

    name: str
    circuit: Circuit
    anatomy: Anatomy
    stores: Mapping[str, Stored]
    tokenizer: Any = None
    context: int | None = None
    dtype: torch.dtype | None = None
    device: str | None = None
    facts: Mapping[str, object] = field(default_factory=dict[str, object])

    @property
    def layers(self) -> int:
        """The number of layers that were recognised."""
        return len(self.anatomy.layers)

    @property
    def heads(self) -> tuple[int, ...]:
        """The number of attention heads of each layer."""
        return tuple(layer.heads for layer in self.anatomy.layers)

    @property
    def sites(self) -> tuple[str, ...]:
        """Every named place, canonical, heads as `H*`: what `sj.run(..., keep=...)` takes."""
        shape = self.anatomy.shape
        inner = [
            f"L{number}.{_starred(site)}" for number, layer in enumerate(shape.layers) for site in sorted(layer.sites)
        ]
        return (*sorted(shape.sites), *inner)

    def addresses(self, text: str) -> tuple[Address, ...]:
        """Return the concrete addresses of a text with wildcards and ranges; raise `AddressError` if it names nothing."""
        return expand(parse(text), self.anatomy.shape)

    def node(self, address: Address) -> Any:
        """Return the node of one concrete address."""
        return read(self.circuit, self.anatomy, address)

    @property
    def digest(self) -> str:
        """The fingerprint of the weights as they are now: sha256 over names, types, shapes and bytes of all that are used."""
        leaves = [node for node in self.circuit.nodes if isinstance(node, Weight)]
        return digest_json(sorted([leaf.name, self.stores[leaf.source].digest(leaf.name)] for leaf in leaves))

    def exact(self) -> Model:
        """Return the model on the exact form of its circuit (narrow casts widened), run in 64 bits."""
        return replace(self, circuit=self.circuit.exact(), dtype=torch.float64)

    def __repr__(self) -> str:
        """Say what it is in one line."""
        heads = sorted(set(self.heads))
        many = "/".join(map(str, heads)) if heads else "no"
        return f"<Model {self.name}: {self.layers} layers, {many} heads, {len(self.circuit.nodes)} nodes>"


def _starred(site: str) -> str:
    for prefix in ("H", "KV"):
        if site.startswith(f"{prefix}."):
            return site.replace(f"{prefix}.", f"{prefix}*.", 1)
    return "N*" if site == "N" else site
