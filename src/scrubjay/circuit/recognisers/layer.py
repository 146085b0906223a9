"""Layers: what each write to the stream is made by, and which writes make one layer of the model.

A block that writes to the stream is an attention, a cross-attention, an MLP, a mixture of experts, a mixer (another way to
read other positions: state space, convolution, linear attention) or not understood. Where a numbered list of modules ends
its items on values of the stream, these items are the layers; else a layer begins at each attention or mixer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast

from scrubjay.circuit.graph import above
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Along, Einsum, Order
from scrubjay.circuit.recognisers.attention import Attention, is_attention, read_attention
from scrubjay.circuit.recognisers.experts import Mixture, read_mixture
from scrubjay.circuit.recognisers.facts import Facts, Norm, linear_input, norm_at, projection, region, without_casts
from scrubjay.circuit.recognisers.mlp import Mlp, read_mlp
from scrubjay.circuit.recognisers.stream import Stream, mixes_positions, settled

ATTENTION, CROSS, MLP, MIXER = "attn", "cross", "mlp", "mixer"
"""The kinds of block, by the word that begins their addresses."""


@dataclass(frozen=True, eq=False)
class Block:
    """One part that writes to the stream: its kind, what it reads and adds, its inside where understood, and else why not.

    `cut` is the value that holds all of its inside: what it adds depends on the stream through this alone, and linearly but
    for norms of its own.
    """

    kind: str
    before: Node
    out: Node
    inside: Attention | Mlp | Mixture | None
    why: str
    cut: Node
    norm: Norm | None


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer: its blocks in order, the stream before and after each of its additions, and a norm after the last.

    `module` is the path of the module that ends where the layer ends, if there is one. A `lone` layer is an attention without a
    residual stream: what it adds is added to nothing.
    """

    steps: tuple[tuple[Block, ...], ...]
    resid_pre: Node
    afters: tuple[Node, ...]
    closing: Node | None
    module: str = ""
    lone: bool = False

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Every block, in order."""
        return tuple(block for step in self.steps for block in step)

    @property
    def resid_post(self) -> Node:
        """The stream after the layer."""
        return self.afters[-1] if self.afters else self.resid_pre

    def first(self, kind: str) -> Block | None:
        """Return the first block of a kind."""
        return next((block for block in self.blocks if block.kind == kind), None)


def find_layers(stream: Stream, known: Facts, table: Mapping[str, Node]) -> list[Layer]:
    """Return the layers of a stream, in order."""
    if not stream.steps:
        return []
    stop = stream.values
    parts = [
        tuple(
            sorted((_block(step.before, write, stop, known) for write in _writes(step.writes, stop, known)), key=_rank)
        )
        for step in stream.steps
    ]
    cuts, paths = _by_modules(stream, parts, known, table) or (_by_kind(parts, stream), [])
    bounds = [0, *cuts]
    made: list[Layer] = []
    for number, (start, end) in enumerate(pairwise(bounds)):
        here = stream.steps[start:end]
        following = stream.steps[end].before if end < len(stream.steps) else None
        pre = here[0].before if here else following if following is not None else stream.steps[-1].after
        closing = None if end in stream.gaps else following
        layer = Layer(
            tuple(parts[start:end]), pre, tuple(step.after for step in here), closing, paths[number] if paths else ""
        )
        made.append(_settled_names(layer))
    return made


def lone_attentions(known: Facts) -> list[Layer]:
    """Return a layer for each attention of a circuit without a residual stream, such as an attention module alone."""
    made: list[Layer] = []
    for node in known.nodes:
        write = _written(node, known) if isinstance(node, Along) and is_attention(node) else None
        found = "" if write is None else read_attention(cast("Along", node), write, known)
        if write is None or not isinstance(found, Attention) or None in (found.q, found.k, found.v):
            continue
        linears = [projection(one, known) for one in (found.q, found.k, found.v) if one is not None]
        reads = [linear_input(one, known) for one in linears if one is not None]
        if not reads:
            continue
        stop = frozenset(reads)
        cut = _cut((found.z, found.o_reads), stop, write, known)
        norm = _norm_of(reads[0], region(write, stop, known))
        block = Block(ATTENTION, reads[0], write, found, "", cut, norm)
        made.append(Layer(((block,),), reads[0], (write,), None, lone=True))
    return made


def _written(softmax: Along, known: Facts) -> Node | None:
    """Return the first linear map of what an attention reads, with its bias."""
    over = above([*known.nodes[-1:]], [softmax])
    found = next(
        (node for node in known.nodes if node in over and isinstance(node, Einsum) and projection(node, known) is node),
        None,
    )
    while found is not None:
        reading = known.readers.get(found, [])
        if len(reading) != 1 or known.data_operands(reading[0]) != [found]:
            break
        if not isinstance(reading[0], Add) and without_casts(reading[0]) is reading[0]:
            break
        found = reading[0]
    return found


def _rank(block: Block) -> int:
    return (ATTENTION, CROSS, MIXER, MLP, "").index(block.kind)


def _settled_names(layer: Layer) -> Layer:
    """Call the one block that is not understood an MLP, if it reads no other positions and the layer has no other."""
    if layer.first(MLP) is not None:
        return layer
    blocks = [block for block in layer.blocks if block.kind == ""]
    if len(blocks) != 1:
        return layer
    renamed = replace(blocks[0], kind=MLP)
    steps = tuple(tuple(renamed if block is blocks[0] else block for block in step) for step in layer.steps)
    return replace(layer, steps=steps)


def _writes(writes: Sequence[Node], stop: frozenset[Node], known: Facts) -> list[Node]:
    """Return the terms that were added; a sum of attention and something else beside it is two terms."""
    found: list[Node] = []
    for write in writes:
        terms = [write]
        if isinstance(write, Add) and len(known.data_operands(write)) > 1:
            inner = known.data_operands(write)
            regions = [region(term, stop, known) for term in inner]
            has = [any(is_attention(node) for node in nodes) for nodes in regions]
            if any(has) and not all(has) and not any(known.weight_only(term) for term in write.terms):
                terms = inner
        found += terms
    return found


def _block(before: Node, write: Node, stop: frozenset[Node], known: Facts) -> Block:
    inside = region(write, stop, known)
    softmaxes = [node for node in known.nodes if node in inside and is_attention(node)]
    norm = _norm_of(before, inside)
    if softmaxes:
        return _attention_block(before, write, softmaxes, stop, norm, known)
    mixture = read_mixture(inside, known)
    if isinstance(mixture, Mixture):
        return Block(MLP, before, write, mixture, "", write, norm)
    if mixture is None and any(isinstance(node, Order) for node in inside):
        mixture = "it chooses experts, and not in a way that is known"
    if mixture is None and mixes_positions(inside):
        return Block(MIXER, before, write, None, "it reads other positions and is no attention", write, norm)
    found = mixture or read_mlp(write, before, known)
    if isinstance(found, str):
        return Block("", before, write, None, found, write, norm)
    return Block(MLP, before, write, found, "", _cut((found.fed,), stop, write, known), norm)


def _attention_block(
    before: Node, write: Node, softmaxes: Sequence[Node], stop: frozenset[Node], norm: Norm | None, known: Facts
) -> Block:
    (softmax, *more) = softmaxes
    assert isinstance(softmax, Along)
    kind = ATTENTION if softmax.over[0] == "key" or _reads_itself(softmax) else CROSS
    found = read_attention(softmax, write, known) if not more else f"it has {len(softmaxes)} softmaxes"
    if isinstance(found, str):
        return Block(kind, before, write, None, found, write, norm)
    cut = _cut((found.z, found.o_reads), stop, write, known)
    return Block(kind, before, write, found, "", cut, norm)


def _reads_itself(softmax: Along) -> bool:
    """Tell whether the places of a softmax are the query's own: keys, perhaps with a sink joined to them."""
    (over,) = softmax.over
    return "key" in over or "query" in str(softmax.size(over))


def _cut(candidates: Iterable[Node], stop: frozenset[Node], write: Node, known: Facts) -> Node:
    """Return the first value without which what is added does not depend on the stream (that itself if there is none)."""
    for node in candidates:
        rest = region(write, stop | {node}, known)
        if not any(operand in stop for inner in rest for operand in inner.operands):
            return node
    return write


def _norm_of(before: Node, inside: set[Node]) -> Norm | None:
    """Return the one norm of the stream that a block reads."""
    source = without_casts(before)
    norms = [norm for node in inside if (norm := norm_at(node)) is not None and norm.source is source]
    return norms[0] if len(norms) == 1 else None


_NUMBERED = re.compile(r"(.*)\.(\d+)")


def _by_modules(
    stream: Stream, parts: Sequence[tuple[Block, ...]], known: Facts, table: Mapping[str, Node]
) -> tuple[list[int], list[str]] | None:
    """Return how many steps are done at the end of each module of a numbered list, and their paths."""
    done = {step.after: number for number, step in enumerate(stream.steps, start=1)}
    for number, step in enumerate(stream.steps):
        done.setdefault(step.before, number)
    lists: dict[str, dict[int, int]] = {}
    for path, node in table.items():
        found = _NUMBERED.fullmatch(path)
        if found is not None:
            here = done.get(settled(node, known, done.keys() | set()))
            if here is not None:
                lists.setdefault(found[1], {})[int(found[2])] = here
    best: tuple[list[int], list[str]] | None = None
    for prefix, places in lists.items():
        ends = [places[number] for number in sorted(places)]
        whole = sorted(places) == list(range(len(places))) and ends == sorted(ends) and ends[-1] == len(stream.steps)
        if whole and (best is None or len(ends) > len(best[0])) and _one_each(ends, parts):
            best = ends, [f"{prefix}.{number}" for number in sorted(places)]
    return best


def _one_each(ends: Sequence[int], parts: Sequence[tuple[Block, ...]]) -> bool:
    """Tell whether no layer would have two attentions, as where one module is called for every layer."""
    for start, end in zip([0, *ends], ends, strict=False):
        if sum(block.kind == ATTENTION for blocks in parts[start:end] for block in blocks) > 1:
            return False
    return True


def _by_kind(parts: Sequence[tuple[Block, ...]], stream: Stream) -> list[int]:
    """Return the ends of layers: one begins at each attention or mixer, and at an MLP where the layer has one."""
    ends: list[int] = []
    kinds: set[str] = set()
    for number, blocks in enumerate(parts):
        new = {block.kind or MLP for block in blocks}
        begins = new & {ATTENTION, MIXER} or new & kinds - {CROSS}
        if number and (begins or number in stream.gaps):
            ends.append(number)
            kinds = set()
        kinds |= new
    return [*ends, len(parts)]
