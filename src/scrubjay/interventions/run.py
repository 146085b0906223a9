"""Run a model: its result, and any values on the way, with interventions on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.address import Address, Expert, Head, KeyValueHead, Module, Neuron, Position, Range, expand, parse
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Index, Map, Merge
from scrubjay.circuit.places import at_position, place
from scrubjay.engine.array import Array
from scrubjay.engine.compute import compute
from scrubjay.engine.evaluate import evaluate, input_sizes
from scrubjay.engine.progress import progress_after
from scrubjay.errors import AddressError, InputError
from scrubjay.interventions.apply import applied
from scrubjay.interventions.change import Intervention
from scrubjay.interventions.inputs import Given, lengths, prepare
from scrubjay.interventions.shown import shown


@dataclass(frozen=True, eq=False)
class Run:
    """What a run gave: the result, and the values that were kept, with named axes.

    `run["L5.H1.pattern"]` is one value; `run["L*.H*.z"]` stacks the matching ones, outermost axes `layer` and `head`; an axis that
    the address gives one number for is not there.
    """

    model: Model
    inputs: Mapping[str, torch.Tensor]
    values: Mapping[str, Array]
    nodes: Mapping[str, tuple[Node, Array]]
    evaluated: int

    @property
    def output(self) -> torch.Tensor:
        """The result as the module gives it: (batch, query, vocab) logits of a language model, whatever else it returns."""
        result = self.model.anatomy.result
        return self.values[result].in_dims(self.model.circuit.layout(result))

    @property
    def logits(self) -> torch.Tensor:
        """The result, of a model whose result is logits."""
        if self.model.anatomy.result != "logits":
            raise InputError(
                f"the result of {self.model.name} is {self.model.anatomy.result!r}, not logits: use run.output"
            )
        return self.output

    def __getitem__(self, text: str) -> Array:
        """Return a kept value (or the stack of the values a wildcard names); raise `AddressError` if it was not kept."""
        wanted = expand(parse(text), self.model.anatomy.shape)
        missing = [str(one) for one in wanted if str(one) not in self.values]
        if missing:
            raise AddressError(
                f"{missing[0]} was not kept by this run: sj.run(..., keep=[{text!r}]); kept: {', '.join(self.values)}"
            )
        return _stacked(parse(text), wanted, [self.values[str(one)] for one in wanted])

    def gradient(self, scalar: torch.Tensor, text: str) -> Array:
        """Return the gradient of a scalar, computed from this run's values, at one kept address.

        The run must have been made with `differentiable=True`. Raises `AddressError` where no gradient of its own exists: at
        what one reader sees of the stream.
        """
        (address,) = self.model.addresses(text)
        if not self.nodes:
            raise InputError(
                f"{address}: this run keeps no gradients: sj.run(..., differentiable=True, keep=[{text!r}])"
            )
        if str(address) not in self.nodes:
            raise AddressError(
                f"{address} was not kept by this run, so no gradient can be taken there: sj.run(..., keep=[{text!r}]); kept: {', '.join(self.nodes)}"
            )
        node, value = self.nodes[str(address)]
        bare = Address(address.layer, address.part, address.site)
        where = place(self.model.circuit, self.model.anatomy, bare)
        if isinstance(address.part, Head) and where.terms is None and self._is_shared(address, node):
            raise AddressError(
                f"{address}: this value is shared by the heads of a group, so one head's copy has no gradient of its own: take that of the key-value head"
            )
        (slope,) = torch.autograd.grad(scalar, value.as_tensor(), retain_graph=True)
        if isinstance(where.value, Map) and where.value.op == "reciprocal":  # d(1 / s) = -1 / s^2 ds
            slope, view = -slope * value.as_tensor().detach() ** 2, node
        elif where.terms is not None:  # a term of a sum has the gradient of the sum
            view = node
        else:
            view = where.value
        if not _is_view(view, node):
            raise AddressError(
                f"{address}: a gradient is taken at a value, not at what one reader sees of it; take it at what is read, or at what the reader gives"
            )
        if address.position is not None:
            view = at_position(self.model.circuit, view, address.position)
        seen = evaluate(
            [view], self.inputs, self.model.stores, known={node: Array(slope, value.names)}, device=self.model.device
        )
        return shown(view, seen[view])

    def _is_shared(self, address: Address, node: Node) -> bool:
        """Tell whether a node has fewer heads than the layer's attention."""
        heads = self.model.anatomy.layers[address.layer].head_axes if isinstance(address.layer, int) else ()
        present = {name for name, _ in heads} & node.axis_names
        return bool(present) and len(present) < len(heads)

    def __repr__(self) -> str:
        """Say what was run and kept in one line."""
        shape = tuple(self.output.shape)
        return f"<Run of {self.model.name}: {self.model.anatomy.result} {shape}, {len(self.values) - 1} values kept, {self.evaluated} nodes evaluated>"


def run(
    model: Model,
    inputs: Given,
    keep: Sequence[str] | str = (),
    interventions: Sequence[Intervention] | Intervention = (),
    *,
    differentiable: bool = False,
    fused: bool = False,
) -> Run:
    """Return the result of a model on inputs, the values at the addresses in `keep`, with interventions on.

    Args:
        model: the model; it is not changed.
        inputs: text, a list of texts (padded), token ids, a mapping of named tensors, or a data set.
        keep: addresses, with wildcards, ranges and positions: `["L*.resid_post", "L5.H1.pattern", "L3.H7.z@-1"]`.
        interventions: a change made by `sj.zero`, `sj.patch` and the like, or several, applied in order.
        differentiable: keep the values connected, for `run.gradient(...)` or torch.autograd.
        fused: also compute norms and attention in one call each where nothing inside is kept or changed. It is quicker; the last bits
            of a result then depend on what is kept, while without it keeping a value changes nothing.

    Raises `AddressError` for an address the model lacks, `InputError` for inputs that do not fit, and `CheckError` for a model that
    failed its check. Progress is shown on
    the terminal where a run takes longer than two seconds.
    """
    interventions = [interventions] if isinstance(interventions, Intervention) else interventions
    tensors = prepare(model, inputs)
    model.require("exact", inputs=tensors)
    with torch.enable_grad() if differentiable else torch.no_grad():
        changed = applied(model, interventions, tensors) if interventions else model
    texts = [keep] if isinstance(keep, str) else list(keep)
    wanted = list(dict.fromkeys(address for text in texts for address in model.addresses(text)))
    _check_positions([*wanted, *(a for change in interventions for a in model.addresses(change.at))], tensors)
    result = changed.anatomy.result
    nodes = {result: changed.circuit.roots[result], **{str(address): changed.node(address) for address in wanted}}
    targets = {str(a): place(changed.circuit, changed.anatomy, a).target for a in wanted} if differentiable else {}
    asked = list(dict.fromkeys([*nodes.values(), *targets.values()]))
    with nullcontext() if differentiable else torch.no_grad(), progress_after(2.0, f"running {model.name}") as progress:
        done = compute(
            asked, tensors, changed.stores, dtype=changed.dtype, device=changed.device, progress=progress, differentiable=differentiable,
            sizes=input_sizes(list(model.circuit.inputs.values()), tensors), across=fused,
        )  # fmt: skip
    values = {name: shown(node, done[node]) for name, node in nodes.items()}
    return Run(changed, tensors, values, {name: (node, done[node]) for name, node in targets.items()}, done.evaluated)


def _check_positions(addresses: Sequence[Address], inputs: Mapping[str, torch.Tensor]) -> None:
    """Refuse a position that some row does not have."""
    rows = lengths(inputs)
    if rows is None:
        return
    shortest, row = int(rows.min()), int(rows.argmin())
    for address in addresses:
        if address.position is None:
            continue
        for at in _numbers(address.position):
            if not -shortest <= at < shortest:
                raise InputError(f"{address}: row {row} has {shortest} real tokens, so it has no position {at}")


def _numbers(position: Position) -> tuple[int, ...]:
    at = position.at
    if isinstance(at, Range):
        return (at.first, at.last)
    return (-1,) if at == "END" else (at,) if isinstance(at, int) else ()


def _is_view(value: Node, node: Node) -> bool:
    """Tell whether a value is a node itself, or some places of it."""
    while isinstance(value, Index | Merge) and value is not node:
        (value,) = value.operands
    return value is node


_AXIS_OF_PART = {Head: "head", KeyValueHead: "kv", Neuron: "hidden", Expert: "expert"}


def _stacked(asked: Address, wanted: Sequence[Address], found: Sequence[Array]) -> Array:
    """Return values stacked along `layer` and `head` (or what the part is), where the address leaves them open."""
    part = asked.part
    index = None if part is None or isinstance(part, Module) else part.index
    layers = [] if asked.layer is None or isinstance(asked.layer, int) else ["layer"]
    parts = [] if part is None or index is None or isinstance(index, int) else [_AXIS_OF_PART[type(part)]]
    if not layers and not parts:
        return found[0]
    counts = Counter(one.layer for one in wanted)
    if len({(item.names, tuple(item.as_tensor().shape)) for item in found}) > 1 or len(set(counts.values())) > 1:
        raise AddressError(
            f"{asked} names values of different shapes, or other numbers of them in each layer; ask for them layer by layer"
        )
    stack = torch.stack([item.as_tensor() for item in found])
    if layers and parts:
        stack = stack.unflatten(0, (len(counts), -1))
    return Array(stack, (*layers, *parts, *found[0].names))
