"""What many writers at once add to a few numbers: the slope of the numbers by what is written, times what each writes.

All that is written to one place reaches the numbers through the same linear function. Its slope is found once, backwards, and
contracted with what each head or neuron writes, so no write is carried through that function by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from scrubjay.attribution.linear import WRITE, Piece, Terms
from scrubjay.capture.model import Model
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.graph import above, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Constant, Einsum, Input, Weight
from scrubjay.circuit.rules.facts import contraction
from scrubjay.engine.array import Array
from scrubjay.engine.compute import compute
from scrubjay.engine.evaluate import Evaluated, evaluate, input_sizes
from scrubjay.engine.progress import Progress


def settled(
    model: Model, sum_of: Terms, given: Mapping[str, torch.Tensor], progress: Progress | None = None
) -> tuple[Terms, Evaluated]:
    """Return a sum whose pieces are all nodes of their own, and the values of those and of the site; `progress` is told of the run."""
    sizes = input_sizes(list(model.circuit.inputs.values()), given)
    standing = {key: piece for key, piece in sum_of.pieces.items() if piece.written is not None}
    plain = [piece.node for key, piece in sum_of.pieces.items() if key not in standing]
    functions = list(dict.fromkeys(piece.node for piece in standing.values()))
    still = list(dict.fromkeys(node for function in functions for node in _beside(function)))
    read = [factor for piece in standing.values() for factor in _factors(piece) if not isinstance(factor, Weight)]
    first = list(dict.fromkeys([sum_of.site, *plain, *still, *read]))
    done = compute(first, given, model.stores, dtype=model.dtype, device=model.device, sizes=sizes, progress=progress)
    slopes = {function: _slope(model, function, sum_of.site, given, sizes, done.values) for function in functions}
    names = {function: f"_slope.{number}" for number, function in enumerate(functions)}
    pieces = {
        key: _applied(piece, names[piece.node], sum_of.site) if key in standing else piece
        for key, piece in sum_of.pieces.items()
    }
    made = replace(sum_of, pieces=pieces)
    wanted = list(dict.fromkeys([sum_of.site, *(piece.node for piece in pieces.values())]))
    more = {**given, **{names[function]: slope for function, slope in slopes.items()}}
    known = dict(done.values)
    return made, compute(wanted, more, model.stores, dtype=model.dtype, device=model.device, known=known, sizes=sizes)


def _factors(piece: Piece) -> tuple[Node, ...]:
    written = piece.written
    return written.operands if written is not None else ()


def _beside(function: Node) -> list[Node]:
    """Return what a function of the write reads besides it."""
    order = topological([function])
    moving = above([function], [node for node in order if isinstance(node, Input) and node.name == WRITE])
    found = [one for node in order if node in moving for one in node.operands if one not in moving]
    return [one for one in dict.fromkeys(found) if not isinstance(one, Constant)]


def _written(function: Node) -> Input:
    return next(node for node in topological([function]) if isinstance(node, Input) and node.name == WRITE)


def _slope(
    model: Model,
    function: Node,
    site: Node,
    given: Mapping[str, torch.Tensor],
    sizes: Mapping[str, int],
    known: Mapping[Node, Array],
) -> torch.Tensor:
    """Return the slope of a linear function of rows (batch, answer) by what is written, axes (answer, those of the write)."""
    write = _written(function)
    like = next(array.as_tensor() for node, array in known.items() if node is site)
    shape = [int(axis.size) if isinstance(axis.size, int) else sizes[axis.size] for axis in write.dims]
    zero = torch.zeros(shape, dtype=like.dtype, device=like.device, requires_grad=True)
    with torch.enable_grad():
        done = evaluate(
            [function],
            {**given, WRITE: zero},
            model.stores,
            dtype=model.dtype,
            device=model.device,
            known=known,
            sizes=sizes,
        )
        numbers = done[function].dense(("answer", "batch"))
        slopes = [torch.autograd.grad(one.sum(), zero, retain_graph=True)[0] for one in numbers]
    return torch.stack(slopes)


def _applied(piece: Piece, name: str, site: Node) -> Piece:
    """Return the piece as what is written contracted with the slope."""
    written, write = piece.written, _written(piece.node)
    answer = Axis("answer", site.size("answer"))
    slope = Input(name, (answer, *write.dims))
    over = [axis.name for axis in write.dims if axis.name != "batch"]
    summed = written.summed if isinstance(written, Einsum) else ()  # a product, where only what is apart was summed
    node = contraction((*_factors(piece), slope), (*summed, *over))
    return replace(piece, node=node, written=None)
