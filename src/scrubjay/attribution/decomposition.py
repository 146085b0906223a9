"""A value as the sum of what its sources wrote: a labelled stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import prod
from typing import Any

import torch

from scrubjay.attribution.cuts import check_by, cuts_of, owner_of
from scrubjay.attribution.linear import At, Cuts, Terms, Walk, terms, walk
from scrubjay.capture.model import Model
from scrubjay.circuit.address import Address, Position, Range
from scrubjay.circuit.axes import as_shown
from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Gather
from scrubjay.circuit.places import at_position, place
from scrubjay.engine.array import Array
from scrubjay.engine.compute import compute
from scrubjay.engine.context import Context
from scrubjay.engine.evaluate import Evaluated, input_sizes
from scrubjay.engine.progress import progress_after
from scrubjay.errors import InputError, near
from scrubjay.interventions.inputs import lengths, padding, prepare

MOST_VALUES = 2**28
"""The most numbers a decomposition may hold: 1 GiB in 32 bits."""


@dataclass(frozen=True, eq=False)
class Decomposition:
    """A value taken apart: `values` summed over its first axis is the value.

    Attributes:
        site: the address. by: what a source is.
        sources: names, in the order of computation: addresses, and biases (`L0.attn.b_O`, `ln_f.b`, `b_U`).
        values: axes (source, batch, ...), the rest as `sj.run` gives the site.
        total: the value itself, without `source`.
        real: which positions are real tokens, (batch, query), where the value has positions.
        notes: what was held at its value, and what could not be split as asked.
    """

    site: str
    by: str
    sources: tuple[str, ...]
    values: Array
    total: Array
    notes: tuple[str, ...]
    real: torch.Tensor | None = None

    @property
    def norms(self) -> torch.Tensor:
        """The mean length of what each source adds over rows and real positions, shape (source,)."""
        order = [name for name in ("batch", "query", "position") if name in self.values.names]
        rest = [name for name in self.values.names if name not in {"source", *order}]
        lengths = self.values.dense(("source", *order, *rest)).flatten(1 + len(order)).norm(dim=-1)
        return lengths.flatten(1).mean(1) if self.real is None else lengths[:, self.real].mean(1)

    @property
    def error(self) -> float:
        """The largest distance between the sum over sources and the value; where both are finite."""
        away = (self.values.as_tensor().sum(0) - self.total.as_tensor()).abs()
        return float(away.nan_to_num(0.0).max())

    def __getitem__(self, name: str) -> Array:
        """Return what the source of that name adds, or the sum over all whose names fit a pattern (`L0.H*.out`)."""
        found = fitting(name, self.sources, self.site)
        return Array(self.values.as_tensor()[found].sum(0), self.values.names[1:])

    def grouped(self, groups: Mapping[str, Sequence[str]]) -> Decomposition:
        """Return the decomposition with sources added up: each name stands for the sources that fit any of its patterns.

        Sources that no pattern fits stay as they are. Raises `InputError` for a pattern that fits nothing, and a source that two names fit.
        """
        owner: dict[str, str] = {}
        for name, patterns in groups.items():
            for pattern in patterns:
                fits = [one for one in self.sources if fnmatchcase(one, pattern)]
                if not fits:
                    raise InputError(f"{pattern!r} fits no source of {self.site}: {_few(self.sources)}")
                for one in fits:
                    if owner.setdefault(one, name) != name:
                        raise InputError(f"the source {one} fits both {owner[one]!r} and {name!r}: give it to one")
        names, values = _once(
            [owner.get(one, one) for one in self.sources], self.values.as_tensor(), self.values.names[1:]
        )
        return replace(self, sources=names, values=values)

    def __repr__(self) -> str:
        """Say the site, the number of sources and how well they add up."""
        held = f"; {'; '.join(self.notes)}" if self.notes else ""
        return f"<Decomposition of {self.site}: {len(self.sources)} sources by {self.by}, {self.values!r}, adds up to {self.error:.1e}{held}>"


def fitting(name: str, sources: Sequence[str], what: str) -> list[int]:
    """Return the places of the sources whose names fit a name or pattern; raise `InputError` where there are none."""
    if not isinstance(name, str):
        raise InputError(f"{name!r} is no name of a source of {what}: {_few(sources)}")
    found = [number for number, one in enumerate(sources) if fnmatchcase(one, name)]
    if not found:
        raise InputError(f"{what} has no source {name!r}{near(name, sources)}; sources: {_few(sources)}")
    return found


def _few(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@torch.no_grad()
def decompose(
    model: Model, inputs: Any, site: str, by: str = "heads", *, since: Sequence[str] | str = ()
) -> Decomposition:
    """Return the value at a site as a sum over what wrote it.

    Args:
        model: the model.
        inputs: anything `sj.run` reads.
        site: an address of one value: of the stream, of what reads it (`L5.H1.q`, `L3.mlp.pre`), a norm's output, the logits; at a
            position (`L5.resid_pre@-1`, counted over real tokens) little is computed for the others.
        by: what a source is: `layers`, `components` (attention and MLP whole), `heads` (heads apart), `neurons` or `experts`
            (those too).
        since: addresses of values that are sources whatever they are made of: `"L4.resid_pre"` for all before layer 4.

    A norm on the way is held at the scale it has on these inputs, an attention pattern and a router's weights likewise; `notes` names
    each. So the sum is exact, and a source's share says what it adds, not what would be without it.

    Raises `InputError` where no sum leads to the site (and says what stands there), and for a result of more than 2**28 numbers;
    `AddressError` for an address the model lacks.
    """
    check_by(by)
    addresses = model.addresses(site)
    if len(addresses) != 1:
        raise InputError(f"{site} names {len(addresses)} values: decompose one at a time")
    (address,) = addresses
    tensors = prepare(model, inputs)
    model.require("exact", inputs=tensors)
    check_position(address, tensors)
    bare = Address(address.layer, address.part, address.site)
    value = place(model.circuit, model.anatomy, bare).value
    at: list[At] = [] if address.position is None else [("query", position_index(model, value, address.position))]
    finer = "components" if by == "layers" else by
    named = model.circuit.table.get(str(bare))
    cuts, notes = cuts_of(
        model, value, finer, [since] if isinstance(since, str) else since, [named] if named is not None else []
    )
    found = opened(model, value, str(bare), cuts)
    _check_since(model, [since] if isinstance(since, str) else since, found, site)
    sum_of = terms(found, cuts, at)
    _check_size(model, sum_of, tensors, str(address))
    done = evaluated(model, sum_of, tensors)
    made = collected(sum_of, done)
    notes = (*notes, *(f"{one} held at its value" for one in found.held))
    real = padding(tensors) if "query" in made[2].names else None
    result = Decomposition(str(address), by, made[0], made[1], made[2], notes, real)
    result = _by_layer(result) if by == "layers" else result
    check_sum(model, result.error, made[2].as_tensor(), str(address))
    return result


def position_index(model: Model, value: Node, position: Position) -> Node:
    """Return the index that a position of each row has; raise `AddressError` for a value without positions."""
    found = at_position(model.circuit, value, position)
    assert isinstance(found, Gather)
    return found.index


def check_position(address: Address, inputs: Mapping[str, torch.Tensor]) -> None:
    """Raise `InputError` for a position that some row does not have."""
    rows = lengths(inputs)
    if address.position is None or rows is None:
        return
    at = address.position.at
    asked = (at.first, at.last) if isinstance(at, Range) else (at,) if isinstance(at, int) else ()
    shortest, row = int(rows.min()), int(rows.argmin())
    for one in asked:
        if not -shortest <= one < shortest:
            raise InputError(f"{address}: row {row} has {shortest} real tokens, so it has no position {one}")


def opened(model: Model, value: Node, name: str, cuts: Cuts) -> Walk:
    """Return the walk below a value; raise `InputError` where it leads to no sum, or past the stream."""
    found = walk(value, cuts, owner_of(model, name))
    if value in found.ends:
        raise InputError(f"{name} is no sum of sources: {found.ends[value]}; {_advice(model, name)}")
    missed = _missed(model, value, found)
    if missed is not None:
        stream, end = missed
        where = cuts.name(end) or found.owners[end]
        raise InputError(
            f"{name} is no sum over what was written to {stream}: between them, at {where}, {found.ends[end]}; {_advice(model, name)}"
        )
    return found


def _check_since(model: Model, since: Sequence[str], found: Walk, site: str) -> None:
    """Refuse a value that is to be a source and is met nowhere."""
    for text in since:
        for address in model.addresses(text):
            if model.node(address) not in found.places:
                raise InputError(f"{address} is to be a source of {site}, and no sum leads from it there")


def _advice(model: Model, name: str) -> str:
    reads = "a value of the stream, or one that reads it linearly (q, k, v, mlp.pre)"
    return f"take apart {reads}" + ("" if model.layers else f"; no layers were recognised in {model.name}")


def _missed(model: Model, value: Node, found: Walk) -> tuple[str, Node] | None:
    """Return the stream that a walk should have met and the node that stood before it, if it did not."""
    ends = [node for node in found.ends if node in model.circuit.nodes or node is value]
    if not ends:
        return None
    below = set(topological([value])) - {value}
    stream = [
        (name, model.circuit.table[name])
        for layer in reversed(range(model.layers))
        for name in (f"L{layer}.resid_post", f"L{layer}.resid_mid", f"L{layer}.resid_pre")
        if name in model.circuit.table and model.circuit.table[name] in below
    ]
    if not stream or stream[0][1] in found.places:
        return None
    name, node = stream[0]
    return next(((name, end) for end in ends if node in topological([end])), None)


def _check_size(model: Model, sum_of: Terms, inputs: Mapping[str, torch.Tensor], name: str) -> None:
    sizes = input_sizes(list(model.circuit.inputs.values()), inputs)
    context = Context({}, None, None, sizes, inputs)
    count = sum(len(piece.labels) for piece in sum_of.pieces.values())
    total = count * prod(context.size(axis.size) for axis in sum_of.site.axes)
    if total > MOST_VALUES:
        raise InputError(
            f"{name} has {count} sources of {total // count:,} numbers each, {total:,} in all, more than {MOST_VALUES:,}: "
            "ask for one position (@-1), for coarser sources, or for fewer rows"
        )


def evaluated(model: Model, sum_of: Terms, inputs: Mapping[str, torch.Tensor]) -> Evaluated:
    """Return the values of a sum and its pieces."""
    nodes = list(dict.fromkeys([sum_of.site, *(piece.node for piece in sum_of.pieces.values())]))
    sizes = input_sizes(list(model.circuit.inputs.values()), inputs)
    with progress_after(2.0, f"taking apart a value of {model.name}") as bar:
        return compute(nodes, inputs, model.stores, dtype=model.dtype, device=model.device, sizes=sizes, progress=bar)


def collected(sum_of: Terms, done: Evaluated) -> tuple[tuple[str, ...], Array, Array]:
    """Return names, values (source, ...) and the value itself, axes in the order they are shown in."""
    order = as_shown(axis.name for axis in sum_of.site.axes)
    whole = done[sum_of.site].dense(order)
    kept = whole.dtype if whole.dtype in {torch.float32, torch.float64} else torch.float32
    names: list[str] = []
    parts: list[torch.Tensor] = []
    for piece in sum_of.pieces.values():
        value = torch.as_tensor(done[piece.node].laid((*piece.stack, *order)), device=whole.device)
        value = value.expand(*value.shape[: len(piece.stack)], *whole.shape) if value.dim() else value.expand_as(whole)
        parts.append(value.reshape(-1, *whole.shape).to(kept))
        names += piece.labels
    return *_once(names, torch.cat(parts), order), Array(whole, order)


def _once(names: Sequence[str], values: torch.Tensor, order: Sequence[str]) -> tuple[tuple[str, ...], Array]:
    """Return each name once, with the sum of its values."""
    kept = tuple(dict.fromkeys(names))
    if len(kept) < len(names):
        place = {name: number for number, name in enumerate(kept)}
        made = torch.zeros((len(kept), *values.shape[1:]), dtype=values.dtype, device=values.device)
        values = made.index_add_(0, torch.tensor([place[one] for one in names], device=values.device), values)
    return kept, Array(values, ("source", *order))


def check_sum(model: Model, error: float, whole: torch.Tensor, name: str, dtype: torch.dtype | None = None) -> None:
    """Raise `InputError` where a sum is off by more than rounding leaves in values of some floating type."""
    limit = tolerance(dtype or whole.dtype) * max(1.0, float(whole.abs().nan_to_num(0.0, 0.0, 0.0).max()))
    if error > limit:
        raise InputError(
            f"the sources of {name} in {model.name} add up to within {error:.2e} only, where {limit:.1e} is rounding: "
            "this decomposition would be wrong, please report it"
        )


def tolerance(dtype: torch.dtype) -> float:
    """Return how far a sum of sources may be off, relative to the value's size."""
    return {torch.float64: 1e-5, torch.float32: 1e-4}.get(dtype, 0.1)


def _by_layer(found: Decomposition) -> Decomposition:
    writes = [one for one in found.sources if one.endswith(".out") and one.startswith("L")]
    layers = dict.fromkeys(one.partition(".")[0] for one in writes)
    return found.grouped({layer: [one for one in writes if one.startswith(f"{layer}.")] for layer in layers})
