"""Run a model: its result, and any values on the way, with interventions on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.address import Address, Position, Range, expand, parse
from scrubjay.circuit.node import Node
from scrubjay.circuit.places import place
from scrubjay.engine.array import Array, copied
from scrubjay.engine.cache import Cache, compute_with
from scrubjay.engine.compiled import compiled
from scrubjay.engine.compute import compute
from scrubjay.engine.evaluate import input_sizes
from scrubjay.engine.progress import progress_after
from scrubjay.engine.tally import Work
from scrubjay.errors import AddressError, InputError
from scrubjay.interventions.apply import applied
from scrubjay.interventions.change import Intervention
from scrubjay.interventions.gradients import Gradients, gradients_of
from scrubjay.interventions.inputs import Given, lengths, prepare
from scrubjay.interventions.shown import shown, stacked


@dataclass(frozen=True, eq=False)
class Run:
    """What a run gave: the result, and the values that were kept, with named axes.

    `run["L5.H1.pattern"]` is one value; `run["L*.H*.z"]` stacks the matching ones, outermost axes `layer` and `head`; an axis that
    the address gives one number for is not there. `work` is what it cost, as `sj.plan` told before.
    """

    model: Model
    inputs: Mapping[str, torch.Tensor]
    values: Mapping[str, Array]
    nodes: Mapping[str, tuple[Node, Array]]
    evaluated: int
    slopes: Gradients | None = None
    hits: int = 0
    work: Work = field(default_factory=Work)

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
        asked = parse(text, self.model.anatomy.shape)
        wanted = expand(asked, self.model.anatomy.shape)
        missing = [str(one) for one in wanted if str(one) not in self.values]
        if missing:
            raise AddressError(
                f"{missing[0]} was not kept by this run: sj.run(..., keep=[{text!r}]); kept: {', '.join(self.values)}"
            )
        return stacked(asked, wanted, [self.values[str(one)] for one in wanted])

    @property
    def grad(self) -> Gradients:
        """The gradients of the scalar that the run was given, at what it kept: `run.grad["L*.H*.z"]`."""
        if self.slopes is None:
            raise InputError(
                "this run was given no scalar: sj.run(..., scalar=lambda run: ...), or run.gradients(scalar) of one made from its values"
            )
        return self.slopes

    def gradients(self, scalar: torch.Tensor) -> Gradients:
        """Return the gradients of a scalar, computed from this run's values, at everything it kept: one pass backwards.

        The run must have been made with `differentiable=True`. Raises `InputError` for what is no scalar, or does not hang on this
        run's values.

        >>> import scrubjay as sj
        >>> model = sj.load("zoo/brackets")
        >>> made = sj.run(model, sj.task("brackets", n=4, seed=0), keep="L0.H*.z", differentiable=True)
        >>> made.gradients(made.logits[:, 1].sum())["L0.H*.z"].names
        ('head', 'batch', 'query', 'd_head')
        """
        if not self.nodes:
            raise InputError(
                "this run keeps no gradients: sj.run(..., differentiable=True, keep=[...]), with what they are taken at kept"
            )
        return gradients_of(self.model, self.inputs, self.nodes, scalar)

    def gradient(self, scalar: torch.Tensor, text: str) -> Array:
        """Return the gradient of a scalar, computed from this run's values, at one kept address: `run.gradients(scalar)[text]`.

        Raises `AddressError` where no gradient of its own exists: at what one reader sees of the stream.
        """
        if not self.nodes:
            raise InputError(f"{text}: this run keeps no gradients: sj.run(..., differentiable=True, keep=[{text!r}])")
        return self.gradients(scalar)[text]

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
    scalar: Callable[[Run], torch.Tensor] | None = None,
    cache: Cache | None = None,
    compile: bool = False,
) -> Run:
    """Return the result of a model on inputs, the values at the addresses in `keep`, with interventions on.

    Args:
        model: the model; it is not changed.
        inputs: text, a list of texts (padded), token ids, a mapping of named tensors, or a data set.
        keep: addresses, with wildcards, ranges and positions: `["L*.resid_post", "L5.H1.pattern", "L3.H7.z@-1"]`.
        interventions: a change made by `sj.zero`, `sj.patch` and the like, or several, applied in order.
        differentiable: keep the values connected, for `run.gradients(...)` or torch.autograd.
        fused: also compute norms and attention in one call each where nothing inside is kept or changed. It is quicker; the last bits
            of a result then depend on what is kept, while without it keeping a value changes nothing.
        scalar: a function from the run to one number, whose gradients at what is kept are then `run.grad[...]`; the run is differentiable.
        cache: a `Cache` in which what is asked for is looked up, and kept; `run.hits` says how many values were found there.
        compile: make one function of it by torch.compile, once for a circuit, what is kept and the inputs' shapes: for a GPU, where the same is
            run often. The first run takes seconds to minutes; numbers are the same to rounding. Interventions of a run make a new circuit
            each time: `sj.edit` the model once.

    Raises `AddressError` for an address the model lacks, `InputError` for inputs that do not fit, and `CheckError` for a model that
    failed its check. Progress is shown on
    the terminal where a run takes longer than two seconds.
    """
    differentiable = differentiable or scalar is not None
    if differentiable and cache is not None:
        raise InputError(
            "values of a cache are connected to nothing, so a differentiable run cannot take them: leave out cache"
        )
    if compile and (differentiable or cache is not None):
        raise InputError("a compiled run keeps no gradients and reads no cache: leave out compile, or the other")
    ask = _asked(model, inputs, keep, interventions, differentiable)
    stores, options = ask.model.stores, ask.options(fused)
    with nullcontext() if differentiable else torch.no_grad(), progress_after(2.0, f"running {model.name}") as progress:
        if compile:
            done = compiled(ask.wanted, ask.inputs, stores, **options)
        else:
            options |= {"progress": progress, "differentiable": differentiable}
            done = compute_with(cache, ask.wanted, ask.inputs, stores, **options)
    if cache is not None:  # what the user writes into is not what the cache holds
        done = replace(done, values={node: copied(value) for node, value in done.values.items()})
    values = {name: shown(node, done[node]) for name, node in ask.nodes.items()}
    targets = {name: (node, done[node]) for name, node in ask.targets.items()}
    made = Run(ask.model, ask.inputs, values, targets, done.evaluated, hits=done.hits, work=done.work)
    return made if scalar is None else replace(made, slopes=made.gradients(scalar(made)))


@dataclass(frozen=True, eq=False)
class _Asked:
    """What a run is asked for: the model under interventions, the inputs, the nodes of addresses, and of what gradients are taken at."""

    model: Model
    inputs: Mapping[str, torch.Tensor]
    nodes: Mapping[str, Node]
    targets: Mapping[str, Node]
    sizes: Mapping[str, int]

    @property
    def wanted(self) -> list[Node]:
        """All nodes, each once."""
        return list(dict.fromkeys([*self.nodes.values(), *self.targets.values()]))

    def options(self, fused: bool) -> dict[str, Any]:
        """How they are computed."""
        return {"dtype": self.model.dtype, "device": self.model.device, "across": fused, "sizes": self.sizes}


def _asked(
    model: Model, inputs: Given, keep: Sequence[str] | str, interventions: Sequence[Intervention] | Intervention, differentiable: bool
) -> _Asked:  # fmt: skip
    """Return what a run is asked for, checked."""
    interventions = [interventions] if isinstance(interventions, Intervention) else interventions
    tensors = prepare(model, inputs)
    model.require("exact", inputs=tensors)
    with torch.enable_grad() if differentiable else torch.no_grad():
        changed = applied(model, interventions, tensors) if interventions else model
    texts = [keep] if isinstance(keep, str) else list(keep)
    wanted = list(dict.fromkeys(address for text in texts for address in changed.addresses(text)))
    check_positions([*wanted, *(a for change in interventions for a in changed.addresses(change.at))], tensors)
    result = changed.anatomy.result
    nodes = {result: changed.circuit.roots[result], **{str(address): changed.node(address) for address in wanted}}
    targets = {str(a): place(changed.circuit, changed.anatomy, a).target for a in wanted} if differentiable else {}
    return _Asked(changed, tensors, nodes, targets, input_sizes(list(model.circuit.inputs.values()), tensors))


def run_work(
    model: Model,
    inputs: Given,
    keep: Sequence[str] | str = (),
    interventions: Sequence[Intervention] | Intervention = (),
    *,
    fused: bool = False,
) -> tuple[int, Work]:
    """Return how many rows a run has and what it would cost, found on values without numbers.

    What interventions take from other inputs is computed.
    """
    ask = _asked(model, inputs, keep, interventions, differentiable=False)
    with torch.no_grad():
        done = compute(ask.wanted, ask.inputs, ask.model.stores, **{**ask.options(fused), "device": "meta"})
    return len(next(iter(ask.inputs.values()))), done.work


def check_positions(addresses: Sequence[Address], inputs: Mapping[str, torch.Tensor]) -> None:
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
