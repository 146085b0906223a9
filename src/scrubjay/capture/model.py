"""A model: a circuit with named sites, the store its weights are in, and what is needed to feed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import torch

from scrubjay.capture.check import Original, Verdict, beyond, refusal
from scrubjay.capture.explain import Explanation, explain
from scrubjay.capture.naming import noted, with_names
from scrubjay.capture.sites import Site, Sites, table_of
from scrubjay.capture.store import ModuleStore, TensorStore
from scrubjay.circuit.address import Address, expand, parse
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.ops import Weight
from scrubjay.circuit.places import read
from scrubjay.circuit.recognisers import Anatomy
from scrubjay.engine.context import Payload, Store
from scrubjay.engine.module import CircuitModule, to_module
from scrubjay.errors import InputError
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
        arguments: the names of its inputs, in order.
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
    notes: Mapping[str, str] = field(default_factory=dict[str, str])
    verdict: Verdict | None = None
    origin: Original | None = None
    arguments: tuple[str, ...] = ()

    @property
    def layers(self) -> int:
        """The number of layers that were recognised."""
        return len(self.anatomy.layers)

    @property
    def heads(self) -> tuple[int, ...]:
        """The number of attention heads of each layer."""
        return tuple(layer.heads for layer in self.anatomy.layers)

    @cached_property
    def sites(self) -> Sites:
        """The table of every named value: address, axes, meaning, module; heads as `H*`. Print it, or index it by a pattern."""
        return table_of(self.circuit, self.anatomy, self.notes)

    def explain(self, text: str) -> Explanation:
        """Return what an address names, in words: its module and weights, what it reads, what reads it, and what is unusual here.

        Raises `AddressError` for an address that the model lacks.
        """
        return explain(self.circuit, self.anatomy, text, self.notes)

    def annotate(self, text: str, note: str) -> Model:
        """Return the model with a note at an address, shown by `sites` and `explain`; an empty note takes one away.

        Raises `AddressError` for an address that the model lacks, `InputError` for a note that is no text.
        """
        return replace(self, notes=noted(self.notes, self.anatomy.shape, text, note))

    def rename(self, names: Mapping[str, str]) -> Model:
        """Return the model in which addresses go by names of the user's own too: `{"L5.H1.z": "induction.z"}`.

        A head without a site names all of it: `{"L5.H1": ".induction"}` makes `induction.q`, `induction.z` and so on. A name has a dot
        inside or in front, and is accepted wherever an address is; the addresses stay. Raises `AddressError` for a name that
        is taken, or reads as an address.
        """
        return replace(self, anatomy=replace(self.anatomy, shape=with_names(self.anatomy.shape, names)))

    def unchecked(self) -> Model:
        """Return the model whose failed check is passed over: nothing refuses it any more, whatever `verdict` says."""
        return self if self.verdict is None else replace(self, verdict=replace(self.verdict, waived=True))

    def require(self, *facts: str, inputs: Mapping[str, Any] | None = None) -> None:
        """Raise `CheckError` where the check at load found that one of `facts` (`exact`, `rows_independent`) does not hold.

        Inputs longer than any that was checked are checked now, against the module, and lengths up to theirs from then on count
        as checked. Raises `LoadError` where a part of the module has been exchanged since the capture.
        """
        for store in self.stores.values():
            if isinstance(store, ModuleStore):
                store.verify()
        if self.verdict is not None:
            refusal(self.name, self.verdict, facts)
            if inputs is not None and self.origin is not None:
                beyond(self.name, self.verdict, self.origin, inputs)

    def addresses(self, text: str | Site) -> tuple[Address, ...]:
        """Return the concrete addresses of a text (or row of `sites`) with wildcards and ranges; raise `AddressError` if it names nothing."""
        return expand(parse(text.address if isinstance(text, Site) else text, self.anatomy.shape), self.anatomy.shape)

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

    def to_module(self, *, share: bool = False) -> CircuitModule:
        """Return a torch module whose forward pass is the circuit, edits included: trainable, called as the model's own module is.

        It takes the inputs by their names and returns the result that was captured, a tensor, in the model's `dtype` and on its
        `device`. Each weight is one parameter under its own name, a copy unless `share` (see `engine.module.to_module`). Raises
        `CheckError` where the circuit is known not to equal its module, `LoadError` where a weight cannot be read, and `InputError`
        for weights that cannot be shared because of a cast.
        """
        self.require("exact")
        return to_module(
            self.circuit, self.stores, inputs=self.arguments, dtype=self.dtype, device=self.device, share=share
        )

    def with_weights(self, module: CircuitModule) -> Model:
        """Return the model with the weights of a module that its `to_module` made, trained since: the module's own, not copies.

        The model has no module of its own to be checked against any more. Raises `InputError` for the module of another circuit.
        """
        if module.circuit is not self.circuit:
            raise InputError(
                f"the module was not made by to_module of this model ({self.name}): its circuit is another, and so are its sites"
            )
        kept = {name: store for name, store in self.stores.items() if isinstance(store, Payload)}
        stores: dict[str, Stored] = {
            source: replace(kept[source], tensors=tensors) if source in kept else TensorStore(tensors, module.dtype)
            for source, tensors in module.stored().items()
        }
        return replace(self, stores={**kept, **stores}, dtype=None, device=None, origin=None)

    def __repr__(self) -> str:
        """Say what it is in one line."""
        heads = sorted(set(self.heads))
        many = "/".join(map(str, heads)) if heads else "no"
        failed = f"; {self.verdict}" if self.verdict is not None and self.verdict.problems else ""
        return f"<Model {self.name}: {self.layers} layers, {many} heads, {len(self.circuit.nodes)} nodes{failed}>"
