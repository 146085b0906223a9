"""A model: a circuit with named sites, the store its weights are in, and what is needed to feed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from scrubjay.circuit.address import Address, expand, parse
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.places import read
from scrubjay.circuit.recognisers import Anatomy
from scrubjay.engine.context import Store
from scrubjay.evidence.digest import digest_bytes, digest_json


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
    stores: Mapping[str, Store]
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
        """The fingerprint of the weights: sha256 over the names, types, shapes and bytes of all tensors that are used.

        It is remembered for as long as no tensor is replaced or changed in place.
        """
        tensors = {
            name: self.stores[leaf.source].tensor(name).detach() for name, leaf in sorted(self.circuit.weights.items())
        }
        seen = tuple((name, tensor.data_ptr(), tensor._version) for name, tensor in tensors.items())
        if seen not in self._digests:
            self._digests.clear()
            self._digests[seen] = digest_json({name: _description(tensor) for name, tensor in tensors.items()})
        return self._digests[seen]

    @cached_property
    def _digests(self) -> dict[tuple[tuple[str, int, int], ...], str]:
        """The last digest, by the storage and version of each tensor that it was computed from."""
        return {}

    def exact(self) -> Model:
        """Return the model on the exact form of its circuit (narrow casts widened), run in 64 bits."""
        return replace(self, circuit=self.circuit.exact(), dtype=torch.float64)

    def __repr__(self) -> str:
        """Say what it is in one line."""
        heads = sorted(set(self.heads))
        many = "/".join(map(str, heads)) if heads else "no"
        return f"<Model {self.name}: {self.layers} layers, {many} heads, {len(self.circuit.nodes)} nodes>"


def _description(tensor: torch.Tensor) -> list[object]:
    plain = tensor.cpu().contiguous()
    return [str(plain.dtype), list(plain.shape), digest_bytes(plain.reshape(-1).view(torch.uint8).numpy().tobytes())]


def _starred(site: str) -> str:
    for prefix in ("H", "KV"):
        if site.startswith(f"{prefix}."):
            return site.replace(f"{prefix}.", f"{prefix}*.", 1)
    return "N*" if site == "N" else site
