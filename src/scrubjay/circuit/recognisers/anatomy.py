"""From recognised parts to names: the circuit with the glossary's axis names and a table of addresses, and its anatomy."""

from __future__ import annotations

from dataclasses import dataclass

from scrubjay.circuit.address import LayerShape, ModelShape
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Index, Narrow
from scrubjay.circuit.recognisers.attention import find_attention
from scrubjay.circuit.recognisers.bias import with_biases_inside
from scrubjay.circuit.recognisers.facts import Norm, facts
from scrubjay.circuit.recognisers.stream import Ends, Layer, find_ends, find_layers
from scrubjay.circuit.renaming import rename_axes


@dataclass(frozen=True)
class LayerAnatomy:
    """What a layer has: sizes, and whether its norms follow its sums.

    `head_axes` are the axes of heads, key-value heads first; one head of `heads` is an index on each (outermost first).
    """

    heads: int
    kv_heads: int
    head_axes: tuple[tuple[str, int], ...]
    kv_axes: tuple[str, ...]
    neurons: int
    gated: bool
    post_norm: bool
    inverse_scales: frozenset[str]

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
    """The layers that were recognised, the shape that addresses are expanded by, and what was not understood."""

    layers: tuple[LayerAnatomy, ...]
    shape: ModelShape
    result: str
    additive: bool
    notes: tuple[str, ...] = ()
    inverse_scales: frozenset[str] = frozenset()


def recognise(circuit: Circuit) -> tuple[Circuit, Anatomy]:
    """Return the circuit with named axes and addressed sites, and its anatomy.

    What cannot be identified stays in the circuit without an address and is told in `notes`; nothing is guessed.
    """
    circuit = with_biases_inside(circuit)
    ((result, root),) = circuit.roots.items()
    known = facts(circuit.nodes, [root])
    attentions = find_attention(known)
    layers = find_layers(attentions, known, [root]) if attentions else []
    notes: list[str] = []
    if not attentions:
        notes.append("no attention was found: values are addressed by module path")
    if layers is None:
        notes.append("the residual stream around the attention layers is not understood")
        layers = []
    modules = frozenset(circuit.table)
    paths = frozenset(place.removeprefix(".") for place in modules)
    if not layers:
        named = circuit.with_table(
            {**circuit.table, **{f"_in.{name}": node for name, node in circuit.inputs.items()}, result: root}
        )
        return named, Anatomy(
            (), ModelShape((), frozenset({result}), paths), result, additive=False, notes=tuple(notes)
        )
    ends = find_ends(layers[0].resid_pre, layers[-1].resid_post, root, known)
    given = {f"_in.{name}": node for name, node in circuit.inputs.items()}
    nodes = {**circuit.table, **given, **_table(layers, ends, result, root)}
    made = rename_axes([root, *nodes.values()], _axis_names(layers, ends, root))
    named = Circuit({result: made[root]}, {address: made[node] for address, node in nodes.items()})
    return named, _anatomy(layers, ends, named, modules, tuple(notes))


def _table(layers: list[Layer], ends: Ends, result: str, root: Node) -> dict[str, Node]:
    table: dict[str, Node] = {}
    if ends.embed is not None:
        table["embed"] = ends.embed
    if ends.pos_embed is not None:
        table["pos_embed"] = ends.pos_embed
    for number, layer in enumerate(layers):
        here = f"L{number}."
        one = layer.attention
        table[here + "resid_pre"] = layer.resid_pre
        for site in ("q", "k", "v", "q_rot", "k_rot", "scores", "pattern", "z", "o"):
            table[f"{here}attn.{site}"] = getattr(one, site)
        table[here + "attn._product"] = one.o_product
        table[here + "attn.out"] = layer.attn_out
        if layer.mlp is not None:
            table[here + "resid_mid"] = layer.resid_mid
            table.update(
                {
                    here + "mlp.in": layer.mlp.reads,
                    here + "mlp.pre": layer.mlp.pre,
                    here + "mlp.post": layer.mlp.post,
                    here + "mlp.out": layer.mlp.out,
                }
            )
            if layer.mlp.up is not None:
                table.update({here + "mlp.gate": layer.mlp.pre, here + "mlp.up": layer.mlp.up})
        table[here + "resid_post"] = layer.resid_post
        for name, norm in (("ln1", layer.ln1), ("ln2", layer.ln2)):
            _norm_sites(table, here + name, norm)
    _norm_sites(table, "ln_f", ends.ln_f)
    table[result] = root
    return table


def _norm_sites(table: dict[str, Node], name: str, norm: Norm | None) -> None:
    if norm is not None:
        table[f"{name}.scale"] = norm.scale
        table[f"{name}.normalized"] = norm.normalized


def _axis_names(layers: list[Layer], ends: Ends, root: Node) -> dict[str, str]:
    """Return the glossary's names for the axes that the anatomy identifies."""
    given: dict[str, str] = dict(ends.tables)

    def rest(node: Node, *known: str) -> list[str]:
        return [axis.name for axis in node.axes if axis.name not in {"batch", "query", "key", *known}]

    def name(old: list[str], new: str) -> None:
        if len(old) == 1:
            given.setdefault(old[0], new)

    name(rest(layers[0].resid_pre), "model")
    for layer in layers:
        one = layer.attention
        if len(one.heads) == 1:
            name(list(one.heads), "head")
        elif len(one.heads) == 2:
            name([one.heads[0]], "kv")
            name([one.heads[1]], "group")
        chosen = {node.axis for node in (one.q, one.k, one.v) if isinstance(node, Index)}
        name(sorted(chosen), "qkv")
        for node in (one.q, one.k, one.v, one.q_rot, one.k_rot, one.z):
            name(rest(node, *one.heads), "d_head")
        if layer.mlp is not None:
            name(rest(layer.mlp.post), "hidden")
    name(rest(root, *(old for old, new in given.items() if new == "model")), "vocab")
    return _with_stretches(given, root)


def _with_stretches(given: dict[str, str], root: Node) -> dict[str, str]:
    """Name stretches of a named axis after it: `x[0:32]` becomes `d_head[0:32]`."""
    for node in topological([root]):
        if isinstance(node, Narrow) and node.axis in given and "[" in node.to.name:
            given.setdefault(node.to.name, given[node.axis] + node.to.name[node.to.name.rindex("[") :])
    return given


def _anatomy(
    layers: list[Layer], ends: Ends, circuit: Circuit, modules: frozenset[str], notes: tuple[str, ...]
) -> Anatomy:
    parts = tuple(_layer_anatomy(number, layer, circuit) for number, layer in enumerate(layers))
    shapes = tuple(_layer_shape(number, part, circuit) for number, part in enumerate(parts))
    top = frozenset(address for address in circuit.table if not address.startswith(("L", "_"))) - modules
    ((result, _),) = circuit.roots.items()
    additive = not any(part.post_norm for part in parts)
    inverse = frozenset({"ln_f"}) if ends.ln_f is not None and ends.ln_f.inverse else frozenset[str]()
    paths = frozenset(place.removeprefix(".") for place in modules)
    return Anatomy(parts, ModelShape(shapes, top, paths), result, additive, notes, inverse)


def _layer_anatomy(number: int, layer: Layer, circuit: Circuit) -> LayerAnatomy:
    here = f"L{number}."
    pattern, k = circuit.table[here + "attn.pattern"], circuit.table[here + "attn.k"]
    axes = [axis for axis in pattern.axes if axis.name not in {"batch", "query", "key"}]
    axes.sort(key=lambda axis: axis.name not in k.axis_names)
    head_axes = tuple((axis.name, int(axis.size)) for axis in axes)
    kv_axes = tuple(name for name, _ in head_axes if name in k.axis_names)
    heads = kv_heads = 1
    for name, size in head_axes:
        heads *= size
        kv_heads *= size if name in kv_axes else 1
    neurons = 0
    if layer.mlp is not None:
        post = circuit.table[here + "mlp.post"]
        sizes = [axis.size for axis in post.axes if axis.name not in {"batch", "query"}]
        neurons = int(sizes[0]) if len(sizes) == 1 else 0
    inverse = frozenset(
        name for name, norm in (("ln1", layer.ln1), ("ln2", layer.ln2)) if norm is not None and norm.inverse
    )
    post_norm = layer.mlp is not None and layer.mlp.reads is not layer.resid_mid
    return LayerAnatomy(
        heads, kv_heads, head_axes, kv_axes, neurons, bool(layer.mlp and layer.mlp.up), post_norm, inverse
    )


_HEAD_SITES = ("q", "k", "v", "q_rot", "k_rot", "scores", "pattern", "z", "out", "q_in", "k_in", "v_in")


def _layer_shape(number: int, part: LayerAnatomy, circuit: Circuit) -> LayerShape:
    here = f"L{number}."
    sites = {address[len(here) :] for address in circuit.table if address.startswith(here)}
    sites -= {"attn._product"}
    sites |= {f"H.{site}" for site in _HEAD_SITES} | {"KV.k", "KV.v", "KV.k_rot"}
    if part.neurons:
        sites.add("N")
    return LayerShape(part.heads, part.kv_heads, part.neurons, 0, frozenset(sites))
