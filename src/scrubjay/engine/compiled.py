"""Compilation: what is asked for as one function that torch.compile makes faster, kept for as long as its circuit and shapes come again.

The expression is traced once into a graph of plain torch operations, which reads the weights and the inputs as its arguments: a
weight that is changed later is seen. Compiling takes from seconds to minutes, and pays where the same circuit runs often.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Custom, Experts, Input, Weight
from scrubjay.engine.array import Array
from scrubjay.engine.compute import compute
from scrubjay.engine.context import Payload, Store
from scrubjay.engine.evaluate import Evaluated, home, input_sizes
from scrubjay.errors import InputError

BACKEND = "inductor"
"""What torch.compile is given."""

KEPT = 16
"""How many compiled functions are kept; the one used longest ago goes first."""

_MADE: OrderedDict[object, _Compiled] = OrderedDict()
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class _Compiled:
    """A compiled function of (weights, inputs), and the axes of what it gives."""

    function: Callable[[Tensors, Tensors], Sequence[torch.Tensor]]
    names: Sequence[tuple[str, ...]]
    evaluated: int


@dataclass(frozen=True, eq=False)
class _Given:
    """The weights of one source as a traced function has them."""

    tensors: Tensors
    source: str
    dtype: torch.dtype | None

    def tensor(self, name: str) -> torch.Tensor:
        """Return a weight."""
        return self.tensors[f"{self.source}/{name}"]


@dataclass(eq=False)
class _Told:
    """What a trace found: in an object of its own, for tracing puts the attributes of a module back."""

    names: Sequence[tuple[str, ...]] = ()
    evaluated: int = 0


class _Traced(torch.nn.Module):
    """What is asked for, as a function of weights and inputs."""

    def __init__(
        self, nodes: Sequence[Node], types: Mapping[str, torch.dtype | None], options: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.nodes, self.types, self.options = nodes, types, options
        self.told = _Told()

    def forward(self, weights: Tensors, inputs: Tensors) -> list[torch.Tensor]:
        """Return the values, and remember their axes."""
        stores = {source: _Given(weights, source, dtype) for source, dtype in self.types.items()}
        done = compute(self.nodes, inputs, stores, **self.options)
        self.told.names, self.told.evaluated = [done[node].names for node in self.nodes], done.evaluated
        return [done[node].as_tensor() for node in self.nodes]


def compiled(
    nodes: Sequence[Node], inputs: Mapping[str, torch.Tensor], stores: Mapping[str, Store], *,
    dtype: torch.dtype | None = None, device: torch.device | str | None = None, sizes: Mapping[str, int] | None = None, across: bool = True,
) -> Evaluated:  # fmt: skip
    """Return what `compute` does, to rounding, by a function that torch.compile made for these nodes, shapes and types.

    Values carry no gradients, and the work is not counted. Raises `InputError` where torch cannot compile: without a C++ compiler (on
    a processor) or Triton (on a GPU), and for a circuit whose course depends on values (experts, a function of one's own).
    """
    nodes, order = list(dict.fromkeys(nodes)), topological(nodes)
    if odd := next((node for node in order if isinstance(node, Experts | Custom)), None):
        raise InputError(f"compile=True: {odd!r} cannot be part of a compiled function: leave out compile=")
    place = torch.device(device) if device is not None else home(order, stores, {})
    leaves = {(node.source, node.name): node for node in order if isinstance(node, Weight)}
    weights = {f"{source}/{name}": stores[source].tensor(name).detach() for source, name in leaves}
    read = {node.name for node in order if isinstance(node, Input)}
    given = {name: tensor if place is None else tensor.to(place) for name, tensor in inputs.items() if name in read}
    known = {**(sizes or {}), **input_sizes(order, inputs)}
    types = {source: _type(store) for source, store in stores.items()}
    options: dict[str, Any] = {"dtype": dtype, "device": place, "sizes": known, "across": across}
    shapes = [(name, one.shape, one.dtype, str(one.device)) for part in (weights, given) for name, one in part.items()]
    key = (tuple(nodes), tuple(shapes), tuple(known.items()), tuple(types.items()), dtype, str(place), across, BACKEND)
    with torch.no_grad():
        if key not in _MADE:
            _MADE[key] = _made(_Traced(nodes, types, options), weights, given)
        _MADE.move_to_end(key)
        while len(_MADE) > KEPT:
            _MADE.popitem(last=False)
        made = _MADE[key]
        found = made.function(weights, given)
    values = {node: Array(one, names) for node, one, names in zip(nodes, found, made.names, strict=True)}
    return Evaluated(values, made.evaluated)


def _type(store: Store) -> torch.dtype | None:
    return None if isinstance(store, Payload) else getattr(store, "dtype", None)


def _made(traced: _Traced, weights: Tensors, inputs: Tensors) -> _Compiled:
    """Return the compiled function; it has run once."""
    try:
        graph = torch.export.export(traced, (weights, inputs), strict=False).module()
        function: Any = cast("Any", torch).compile(graph, backend=BACKEND, dynamic=False)
        function(weights, inputs)
    except Exception as error:  # torch raises whatever its compilers raise
        raise InputError(
            f"compile=True: torch could not compile this ({type(error).__name__}: {' '.join(str(error).split())[:300]}). It needs a C++ compiler "
            "on a processor and Triton on a GPU: leave out compile= to run without"
        ) from error
    return _Compiled(function, traced.told.names, traced.told.evaluated)
