"""A circuit as a torch module: one parameter for each weight that it reads, its expression evaluated at each call.

What is computed from weights (a product of W_V and W_O, a norm folded in, a head cut out) stays an expression of them, so
gradients reach the weights themselves. Names are those of the weights in the captured module, so its `state_dict` fits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
from torch import nn

from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.ops import Weight
from scrubjay.engine.context import Payload, Store
from scrubjay.engine.evaluate import evaluate
from scrubjay.errors import InputError

SOURCE = "model"
"""The store whose weights keep their names; those of other stores go under `INTERVENTIONS` and a number."""

INTERVENTIONS = "interventions"

Leaf = tuple[str, str]
Place = tuple[str, ...]


class Part(nn.Module):
    """A part of a circuit's module that only holds weights, so that they have the names they had."""


@dataclass(frozen=True, eq=False, slots=True)
class _Plan:
    """What a circuit's module computes, and where in it each weight is. Shared by copies of the module."""

    circuit: Circuit
    inputs: tuple[str, ...]
    places: Mapping[Leaf, Place]
    payloads: Mapping[str, Mapping[str, Callable[[torch.Tensor], torch.Tensor]]]
    dtype: torch.dtype
    own: frozenset[Leaf]

    def __deepcopy__(self, memo: object) -> _Plan:
        return self


@dataclass(frozen=True, eq=False)
class _Held:
    """The weights of one source as a circuit's module has them now."""

    module: CircuitModule
    source: str
    dtype: torch.dtype

    def tensor(self, name: str) -> torch.Tensor:
        """Return a weight."""
        return self.module._weight(self.source, name)  # pyright: ignore[reportPrivateUsage]


class CircuitModule(nn.Module):
    """A circuit's torch module; `to_module` makes one. It is called as the captured module is, by the circuit's input names."""

    def __init__(self, plan: _Plan, tensors: Mapping[Leaf, torch.Tensor]) -> None:
        super().__init__()
        self._plan = plan
        for leaf, place in plan.places.items():
            owner: nn.Module = self
            for part in place[:-1]:
                if part not in owner._modules:
                    owner.add_module(part, Part())
                owner = cast("nn.Module", owner._modules[part])
            tensor = tensors[leaf]
            if isinstance(tensor, nn.Parameter):
                owner.register_parameter(place[-1], tensor)
            else:
                owner.register_buffer(place[-1], tensor)

    @property
    def circuit(self) -> Circuit:
        """The circuit that is computed."""
        return self._plan.circuit

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the arguments, in order."""
        return self._plan.inputs

    @property
    def weight_names(self) -> Mapping[str, Leaf]:
        """The (source, name) of each weight by its name in `state_dict`."""
        return {".".join(place): leaf for leaf, place in self._plan.places.items()}

    def _weight(self, source: str, name: str) -> torch.Tensor:
        """Return the parameter or buffer of a weight leaf."""
        owner, last = self._owner((source, name))
        return getattr(owner, last)

    def stored(self) -> Mapping[str, Mapping[str, torch.Tensor]]:
        """Return the tensors as they are now, by source and name: the module's own, not copies."""
        found: dict[str, dict[str, torch.Tensor]] = {}
        for source, name in self._plan.places:
            found.setdefault(source, {})[name] = self._weight(source, name)
        return found

    @property
    def dtype(self) -> torch.dtype:
        """The floating type that the module computes in now: that of the weights which follow the circuit's own."""
        for leaf in self._plan.places:
            if leaf not in self._plan.own and leaf[0] not in self._plan.payloads:
                found = self._weight(*leaf)
                if found.is_floating_point():
                    return found.dtype
        return self._plan.dtype

    def forward(self, *values: torch.Tensor, **named: torch.Tensor | None) -> Any:
        """Return the circuit's result, its dimensions as the captured module has them; of several results, a mapping by name.

        Args:
            values: inputs in the order of `input_names`.
            named: inputs by name; one that the circuit does not read may be given too, or be None.

        Raises `InputError` for an input of another name, or given twice, and `EvaluationError` for one that is missing or of a
        size that the circuit does not take.
        """
        plan = self._plan
        inputs = _bound(plan.inputs, values, named)
        roots = plan.circuit.roots
        stores: dict[str, Store] = {}
        for source in dict.fromkeys(source for source, _ in plan.places) | dict.fromkeys(plan.payloads):
            if source in plan.payloads:
                mine = {name: self._weight(source, name) for origin, name in plan.places if origin == source}
                stores[source] = Payload(mine, plan.payloads[source])
            else:
                stores[source] = _Held(self, source, self.dtype)
        found = evaluate(
            list(roots.values()), inputs, stores, dtype=None if stores else plan.dtype, sizes=_sizes(plan, inputs)
        )
        results = {name: found[node].in_dims(plan.circuit.layout(name)) for name, node in roots.items()}
        return results if len(results) > 1 else next(iter(results.values()))

    def extra_repr(self) -> str:
        """Say what goes in and what comes out."""
        return f"{', '.join(self._plan.inputs)} -> {', '.join(self._plan.circuit.roots)}"

    def _owner(self, leaf: Leaf) -> tuple[nn.Module, str]:
        owner: nn.Module = self
        *path, last = self._plan.places[leaf]
        for part in path:
            owner = cast("nn.Module", owner._modules[part])
        return owner, last

    def _apply(self, fn: Any, recurse: bool = True) -> CircuitModule:
        """Move or cast the weights (`to`, `double`, `cuda`); those of a type of their own keep it, to the last bit."""
        before = {leaf: self._weight(*leaf).detach() for leaf in self._plan.own}
        super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType]
        for leaf, old in before.items():
            owner, last = self._owner(leaf)
            new = self._weight(*leaf)
            if new.dtype != old.dtype:
                again = torch.empty_like(new, dtype=old.dtype) if new.is_meta else old.to(new.device)
                if isinstance(new, nn.Parameter):
                    again = nn.Parameter(again, new.requires_grad)
                    owner.register_parameter(last, again)
                else:
                    owner.register_buffer(last, again)
        return self


def to_module(
    circuit: Circuit,
    stores: Mapping[str, Store],
    *,
    inputs: Sequence[str] = (),
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    share: bool = False,
) -> CircuitModule:
    """Return a torch module whose forward pass is the circuit: `module(input_ids=..., attention_mask=...)`.

    Args:
        circuit: what is computed.
        stores: where its weights are found, by source.
        inputs: names of arguments in order, of which the circuit need not read all; those it reads come after, if not among them.
        dtype: the floating type of its weights; as stored if not given. A weight that the circuit reads in a type of its own keeps it.
        device: where its weights are put; where they are if not given.
        share: let the parameters share the memory of the stored weights, so that training the one trains the other. By default
            they are copies.

    Every stored parameter below the results is one `nn.Parameter` (tied ones are one), and asks for gradients; what else is
    stored, and what interventions brought along, is a buffer. Names are the weights' own; a part of a name that torch takes for
    itself (`type`) gets a `_` behind it. The module can be trained, copied, moved and exported again, but not pickled. Raises
    `InputError` for weights that cannot be shared, and what `stores` raise for one that is not there.

    >>> from scrubjay.circuit.axes import Axis
    >>> from scrubjay.circuit.ops import Einsum, Input
    >>> x, w = Input("x", (Axis("i", 3),)), Weight("model", "proj.weight", ((Axis("o", 2),), (Axis("i", 3),)))
    >>> made = to_module(Circuit({"output": Einsum((x, w), ("i",))}), {"model": Payload({"proj.weight": torch.ones(2, 3)}, {})})
    >>> made(x=torch.ones(3)), list(made.state_dict())
    (tensor([3., 3.]), ['proj.weight'])
    """
    leaves = {(node.source, node.name): node for node in circuit.nodes if isinstance(node, Weight)}
    payloads = {name: store.functions for name, store in stores.items() if isinstance(store, Payload)}
    tensors: dict[Leaf, torch.Tensor] = {}
    for (source, name), leaf in leaves.items():
        if source not in stores:
            raise InputError(
                f"weight {name!r} is in {source!r}, and the stores given are {', '.join(stores) or 'none'}: give that too"
            )
        stored = stores[source].tensor(name)
        follows = leaf.dtype == "model" and stored.is_floating_point()
        wanted = dtype if dtype is not None and follows else stored.dtype
        tensors[source, name] = _held(stored, name, wanted, None if device is None else torch.device(device), share)
    own = frozenset(
        leaf for leaf, node in leaves.items() if node.dtype != "model" and tensors[leaf].is_floating_point()
    )
    order = tuple(dict.fromkeys([*inputs, *circuit.inputs]))
    main = dtype or next((found for store in stores.values() if (found := _type_of(store)) is not None), torch.float32)
    return CircuitModule(_Plan(circuit, order, _places(list(leaves)), payloads, main, own), tensors)


def _type_of(store: Store) -> torch.dtype | None:
    found = getattr(store, "dtype", None)
    return found if isinstance(found, torch.dtype) else None


def _held(
    stored: torch.Tensor, name: str, dtype: torch.dtype, device: torch.device | None, share: bool
) -> torch.Tensor:
    """Return a stored tensor as the module holds it: a parameter if it was one."""
    place = device or stored.device
    if share and (dtype != stored.dtype or place != stored.device):
        raise InputError(
            f"share=True: weight {name!r} is {stored.dtype} on {stored.device} and was asked for as {dtype} on {place}, which takes a copy: "
            "leave out share=, or load the model in that type and on that device"
        )
    value = stored.detach() if share else stored.detach().to(device=place, dtype=dtype, copy=True)
    return nn.Parameter(value) if isinstance(stored, nn.Parameter) and value.is_floating_point() else value


def _bound(
    names: Sequence[str], values: Sequence[torch.Tensor], named: Mapping[str, torch.Tensor | None]
) -> dict[str, torch.Tensor]:
    """Return the inputs by name."""
    if len(values) > len(names):
        raise InputError(f"{len(values)} inputs were given, and the circuit has {len(names)}: {', '.join(names)}")
    found = {
        **dict(zip(names, values, strict=False)),
        **{name: item for name, item in named.items() if item is not None},
    }
    if twice := [name for name in names[: len(values)] if name in named]:
        raise InputError(f"input {', '.join(twice)} was given twice, by place and by name")
    if unknown := [name for name in named if name not in names]:
        raise InputError(f"the circuit has no input {', '.join(unknown)}; it has {', '.join(names) or 'none'}")
    return found


def _sizes(plan: _Plan, inputs: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Return the sizes that inputs tell which the results do not read any more."""
    return {
        axis.size: size
        for name, node in plan.circuit.inputs.items()
        if name in inputs and inputs[name].dim() == len(node.dims)
        for axis, size in zip(node.dims, inputs[name].shape, strict=True)
        if isinstance(axis.size, str)
    }


def _places(leaves: Sequence[Leaf]) -> dict[Leaf, Place]:
    """Return where in the module each weight is: its own name cut at the dots, each part one that torch accepts."""
    others = list(dict.fromkeys(source for source, _ in leaves if source != SOURCE))
    made: dict[Leaf, Place] = {}
    full, inner = set[Place](), set[Place]()
    for source, name in sorted(leaves, key=lambda leaf: leaf[0] != SOURCE):
        above = () if source == SOURCE else (INTERVENTIONS, str(others.index(source)))
        place = tuple(_accepted(part, top=not at) for at, part in enumerate((*above, *name.split("."))))
        while place in full | inner or any(place[:many] in full for many in range(1, len(place))):
            place = (*place[:-1], f"{place[-1]}_") if place in full | inner else (f"{place[0]}_", *place[1:])
        full.add(place)
        inner.update(place[:many] for many in range(1, len(place)))
        made[source, name] = place
    return {leaf: made[leaf] for leaf in leaves}


@cache
def _taken(*, top: bool) -> frozenset[str]:
    return frozenset(dir(CircuitModule if top else nn.Module)) | frozenset(nn.Module().__dict__) | {"_plan"}


def _accepted(part: str, *, top: bool) -> str:
    """Return a part of a name as torch accepts it for an attribute of a module."""
    return f"{part}_" if not part or part in _taken(top=top) else part
