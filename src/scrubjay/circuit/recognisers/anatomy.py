"""From recognised parts to names: the circuit with the glossary's axis names and a table of addresses, and its anatomy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scrubjay.circuit.address import LayerShape, ModelShape
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.recognisers.attention import Attention, is_attention, positions
from scrubjay.circuit.recognisers.bias import with_biases_inside
from scrubjay.circuit.recognisers.ends import Ends, find_ends
from scrubjay.circuit.recognisers.experts import Mixture
from scrubjay.circuit.recognisers.facts import Facts, facts, norm_below, region
from scrubjay.circuit.recognisers.heads import split_heads, with_whole_heads
from scrubjay.circuit.recognisers.layer import ATTENTION, MLP, Layer, find_layers, lone_attentions
from scrubjay.circuit.recognisers.mlp import Mlp
from scrubjay.circuit.recognisers.naming import addresses, axis_names, is_post_norm, norms, notes
from scrubjay.circuit.recognisers.position import with_positions
from scrubjay.circuit.recognisers.stream import Stream, find_stream, is_additive
from scrubjay.circuit.renaming import rename_axes


@dataclass(frozen=True)
class LayerAnatomy:
    """What a layer has: sizes, kinds, and whether its norms follow its sums.

    `head_axes` are the axes of heads, key-value heads first; one head of `heads` is an index on each (outermost first).

    Attributes:
        kinds: the blocks in order: `attn`, `cross` (attention to another sequence), `mlp`, `mixer`, or empty (not understood).
        module: the path of the module that is this layer, where one ends where it ends.
        parallel: attention and MLP read one stream, and both are added to it.
        post_norm: the stream is normed between sums. sandwich: what is added passes a norm first.
        norm: `layer` or `rms`, of what attention or MLP read; empty where they have none of their own.
        rotary: `q_rot` is not `q` up to a norm. qk_norm: queries are normed. soft_cap: scores pass a tanh.
        sinks: a column that is no key takes part in the softmax, so a row of the pattern sums to less than one.
        head_shares: a head's `out` can be read off the output projection.
        experts: how many experts its mixture has (0: it is none).
    """

    heads: int
    kv_heads: int
    head_axes: tuple[tuple[str, int], ...]
    kv_axes: tuple[str, ...]
    neurons: int
    gated: bool
    post_norm: bool
    inverse_scales: frozenset[str]
    kinds: tuple[str, ...] = ()
    module: str = ""
    parallel: bool = False
    sandwich: bool = False
    norm: str = ""
    rotary: bool = False
    qk_norm: bool = False
    soft_cap: bool = False
    sinks: bool = False
    head_shares: bool = True
    experts: int = 0

    def head_index(self, head: int) -> dict[str, int]:
        """Return the place of a head on each head axis."""
        place: dict[str, int] = {}
        for name, size in reversed(self.head_axes):
            place[name] = head % size
            head //= size
        return place

    def kv_index(self, head: int) -> dict[str, int]:
        """Return the place of a key-value head on its axes."""
        place: dict[str, int] = {}
        for name, size in reversed([axis for axis in self.head_axes if axis[0] in self.kv_axes]):
            place[name] = head % size
            head //= size
        return place


@dataclass(frozen=True)
class Anatomy:
    """The layers that were recognised, the shape that addresses are expanded by, and what was not understood.

    Attributes:
        additive: the stream after the last layer is that before the first plus all that layers write.
        notes: what was not understood, in words.
        gaps: numbers of layers before which something stands that is no addition: no direct path crosses it.
        positions: how positions enter: `learned`, `rotary`, `alibi`, `relative` (a table of distances), `none` that is known.
    """

    layers: tuple[LayerAnatomy, ...]
    shape: ModelShape
    result: str
    additive: bool
    notes: tuple[str, ...] = ()
    inverse_scales: frozenset[str] = frozenset()
    gaps: frozenset[int] = frozenset()
    positions: str = "none"


def recognise(circuit: Circuit) -> tuple[Circuit, Anatomy]:
    """Return the circuit with named axes and addressed sites, and its anatomy.

    What cannot be identified stays in the circuit without an address and is told in `notes`; nothing is guessed.
    """
    return _recognise(with_biases_inside(with_positions(circuit)), again=True)


def _recognise(circuit: Circuit, *, again: bool) -> tuple[Circuit, Anatomy]:
    ((result, root),) = circuit.roots.items()
    known = facts(circuit.nodes, [root])
    stream = find_stream(known)
    layers = find_layers(stream, known, circuit.table) if stream.steps else lone_attentions(known)
    split = split_heads(_attentions(layers), known)
    if split and again:
        return _recognise(with_whole_heads(circuit, split), again=False)
    said = _apart(layers, stream, known)
    modules = frozenset(circuit.table)
    paths = frozenset(place.removeprefix(".") for place in modules)
    given = {f"_in.{name}": node for name, node in circuit.inputs.items()}
    if not stream.steps:
        inside = ", but for what is inside of attention" if layers else ""
        said.append(f"no residual stream was found: values are addressed by module path{inside}")
    if not layers:
        named = circuit.with_table({**circuit.table, **given, result: root})
        return named, Anatomy((), ModelShape((), frozenset({result}), paths), result, additive=False, notes=tuple(said))
    closed = is_post_norm(layers[-1])
    ends = (
        find_ends(layers[0].resid_pre, layers[-1].resid_post, root, known, normed=closed)
        if stream.steps
        else Ends(None, None, None, {})
    )
    gaps = _gaps(layers, stream)
    nodes = {**circuit.table, **given, **addresses(layers, ends, result, root, known)}
    made = rename_axes([root, *nodes.values()], axis_names(layers, ends, root))
    named = Circuit({result: made[root]}, {address: made[node] for address, node in nodes.items()})
    parts = tuple(_layer_anatomy(number, layers, named, known) for number in range(len(layers)))
    top = frozenset(address for address in named.table if not address.startswith(("L", "_"))) - modules
    return named, Anatomy(
        parts,
        ModelShape(tuple(_layer_shape(number, part, named) for number, part in enumerate(parts)), top, paths),
        result,
        bool(stream.steps) and is_additive(stream),
        (*said, *notes(layers, gaps)),
        frozenset({"ln_f"}) if ends.ln_f is not None and ends.ln_f.inverse else frozenset[str](),
        frozenset(gaps),
        _positions(layers, ends, known),
    )


def _attentions(layers: Sequence[Layer]) -> list[Attention]:
    return [block.inside for layer in layers for block in layer.blocks if isinstance(block.inside, Attention)]


def _apart(layers: Sequence[Layer], stream: Stream, known: Facts) -> list[str]:
    """Return notes on attention that is in no layer."""
    writes = [write for step in stream.steps for write in step.writes]
    writes += [block.out for layer in layers for block in layer.blocks]
    inside = {node for write in writes for node in region(write, stream.values, known)}
    softmaxes = [node for node in known.nodes if is_attention(node)]
    elsewhere = sum(is_attention(node, of_queries=False) for node in known.nodes)
    said = (
        [f"{elsewhere} attentions within another sequence (an encoder): addressed by module path"] if elsewhere else []
    )
    if not softmaxes:
        return [*said, "no attention was found"]
    apart = [node for node in softmaxes if node not in inside]
    if not apart:
        return said
    many = "one attention softmax is" if len(apart) == 1 else f"{len(apart)} attention softmaxes are"
    return [
        *said,
        f"{many} no part of the recognised layers (an encoder, or a stream that is not understood): addressed by module path",
    ]


def _gaps(layers: Sequence[Layer], stream: Stream) -> list[int]:
    """Return the numbers of layers that begin after a gap of the stream."""
    done, found = 0, list[int]()
    for number, layer in enumerate(layers):
        if done in stream.gaps and layer.steps:
            found.append(number)
        done += len(layer.steps)
    return found


def _positions(layers: Sequence[Layer], ends: Ends, known: Facts) -> str:
    """Return how positions enter the model."""
    if ends.pos_embed is not None:
        return "learned"
    return next((kind for one in _attentions(layers) if (kind := positions(one, known)) != "none"), "none")


def _layer_anatomy(number: int, layers: Sequence[Layer], circuit: Circuit, known: Facts) -> LayerAnatomy:
    layer, here = layers[number], f"L{number}."
    attention, mlp = layer.first(ATTENTION), layer.first(MLP)
    one = attention.inside if attention is not None and isinstance(attention.inside, Attention) else None
    two = mlp.inside if mlp is not None else None
    axes, kv_axes, shares = _head_axes(here, one, circuit.table)
    found = norms(layer, known, last=number + 1 == len(layers))
    return LayerAnatomy(
        _product(axes) if one is not None else 0,
        _product([axis for axis in axes if axis[0] in kv_axes]) if one is not None else 0,
        axes,
        kv_axes,
        _neurons(circuit.table[here + "mlp.post"]) if isinstance(two, Mlp) else 0,
        gated=isinstance(two, Mlp) and two.up is not None,
        post_norm=is_post_norm(layer),
        inverse_scales=frozenset(name for name, norm in found.items() if norm.inverse),
        kinds=tuple(block.kind for block in layer.blocks),
        module=layer.module,
        parallel=any({ATTENTION, MLP} <= {block.kind for block in step} for step in layer.steps),
        sandwich=any(norm_below(block.out, known) is not None for block in layer.blocks),
        norm=next(("layer" if norm.centered else "rms" for norm in found.values()), ""),
        rotary=one is not None and positions(one, known) == "rotary",
        qk_norm=one is not None and one.qk_norm,
        soft_cap=one is not None and one.soft_cap,
        sinks=one is not None and one.sinks,
        head_shares=shares,
        experts=two.experts if isinstance(two, Mixture) else 0,
    )


def _product(axes: Sequence[tuple[str, int]]) -> int:
    total = 1
    for _, size in axes:
        total *= size
    return total


def _neurons(post: Node) -> int:
    sizes = [axis.size for axis in post.axes if axis.name not in {"batch", "query"}]
    return int(sizes[0]) if len(sizes) == 1 else 0


def _head_axes(
    here: str, one: Attention | None, table: Mapping[str, Node]
) -> tuple[tuple[tuple[str, int], ...], tuple[str, ...], bool]:
    """Return the axes of heads, those of key-value heads, and whether the output projection reads heads apart."""
    if one is None:
        return (), (), False
    pattern, k = table[here + "attn.pattern"], table.get(here + "attn.k", table[here + "attn.k_rot"])
    axes = [axis for axis in pattern.axes if axis.name not in {"batch", "query", "key"}]
    axes.sort(key=lambda axis: axis.name not in k.axis_names)
    found = tuple((axis.name, int(axis.size)) for axis in axes)
    product = table[here + "attn._product"]
    shares = all(name in factor.axis_names for name, _ in found for factor in product.operands if factor.axes)
    return found, tuple(name for name, _ in found if name in k.axis_names), shares


_HEAD_SITES = ("q", "k", "v", "q_rot", "k_rot", "scores", "pattern", "z")


def _layer_shape(number: int, part: LayerAnatomy, circuit: Circuit) -> LayerShape:
    here = f"L{number}."
    sites = {address[len(here) :] for address in circuit.table if address.startswith(here)}
    sites = {site for site in sites if "_" not in {word[0] for word in site.split(".")}}
    if part.heads:
        sites |= {f"H.{site}" for site in _HEAD_SITES if f"attn.{site}" in sites}
        sites |= {f"H.{site}_in" for site in "qkv" if {f"attn.{site}", "resid_pre"} <= sites}
        sites |= {f"KV.{site}" for site in ("k", "v", "k_rot") if f"attn.{site}" in sites}
        if part.head_shares:
            sites.add("H.out")
    if part.neurons:
        sites.add("N")
    if f"{here}mlp._each" in circuit.table:
        sites.add("mlp.E.out")
    return LayerShape(part.heads, part.kv_heads, part.neurons, part.experts, frozenset(sites))
