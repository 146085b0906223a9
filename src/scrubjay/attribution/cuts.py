"""Where a decomposition ends: at what components write, whole, or head by head, neuron by neuron, expert by expert."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from scrubjay.attribution.linear import At, Cuts, Group, taken
from scrubjay.capture.model import Model
from scrubjay.circuit.address import parse
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import is_note
from scrubjay.circuit.graph import above, substitute, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Constant, Custom, Einsum, Input, Iota, Map
from scrubjay.circuit.rules.facts import contraction, floating, reads_input, relabelled
from scrubjay.errors import InputError

BY = ("layers", "components", "heads", "neurons", "experts")
"""What a source may be, from coarse to fine: attention and MLP of a layer together, each whole, heads apart, neurons or experts too."""

FROM = "from."
"""What begins the name of an axis of sources: `from.head`."""

_WRITES = ("attn.out", "cross.out", "mixer.out", "mlp.out")


def check_by(by: str) -> None:
    """Raise `InputError` for a word that says no kind of source."""
    if by not in BY:
        raise InputError(f"sources by {by!r} were asked for; there are {', '.join(BY)}")


def cuts_of(
    model: Model, site: Node, by: str, since: Sequence[str] = (), entered: Collection[Node] = ()
) -> tuple[Cuts, tuple[str, ...]]:
    """Return where the sources of a site end, and notes on what could not be split as asked.

    Args:
        model: the model.
        site: the node that is taken apart.
        by: one of `BY`.
        since: addresses of values that are sources whatever they are made of.
        entered: further nodes that are no end: the site by its other names.
    """
    if by == "experts" and not any(layer.experts for layer in model.anatomy.layers):
        raise InputError(f"sources by experts were asked for, and no layer of {model.name} is a mixture of experts")
    table = model.circuit.table
    whole, groups = _whole(model), dict[Node, Group]()
    notes: list[str] = []
    for layer in range(model.layers):
        for write, found in _parts(model, layer).items():
            if found is not None:
                groups[found[0]] = found[1]
            if write not in table or not _is_split(model, layer, write, by):
                continue
            if found is None and (apart := _apart(model, layer, write)):
                whole.pop(table[write], None)
                whole |= apart
            elif found is None:
                notes.append(f"{write} is one source: its parts cannot be told apart")
            else:
                whole.pop(table[write], None)
    # a head that an edit has split off is a source as it is now
    whole |= {table[label]: label for group in groups.values() for label in group.labels if label in table}
    whole |= {model.node(address): str(address) for text in since for address in model.addresses(text)}
    for node in (site, *entered):
        whole.pop(node, None)
    groups = {node: group for node, group in groups.items() if node not in whole}
    sites, modules = _names(model)
    wide = model.dtype is torch.float64
    made = Cuts(whole, groups, _content(model, site), _held(model), sites, modules, _norms(model), wide, _like(site))
    return made, tuple(notes)


def _apart(model: Model, layer: int, write: str) -> dict[Node, str]:
    """Return the heads of a layer where each has a term of its own; none where one has not, or what is written is no sum of them."""
    table, heads = model.circuit.table, model.anatomy.layers[layer].heads
    names = [f"L{layer}.H{head}.out" for head in range(heads)]
    if not write.endswith("attn.out") or any(name not in table for name in names):
        return {}
    below = set(topological([table[write]]))
    return {table[name]: name for name in names} if all(table[name] in below for name in names) else {}


def _like(site: Node) -> dict[Node, Node]:
    """Return what stands for the nodes above the results of Python functions, which are of the kind of what they replaced."""
    made = {
        node: Input(f"_custom{n}", node.axes, "model")
        for n, node in enumerate(topological([site]))
        if isinstance(node, Custom)
    }
    stand: dict[Node, Node] = {node: one for node, one in made.items() if floating([node.operands[0]])}
    return {node: one for node, one in substitute([site], stand).items() if node is not one} if stand else {}


def _whole(model: Model) -> dict[Node, str]:
    """Return the embeddings and what each block of a layer writes."""
    names = ["embed", "pos_embed", *(f"L{layer}.{write}" for layer in range(model.layers) for write in _WRITES)]
    table = model.circuit.table
    return {table[name]: name for name in reversed(names) if name in table}


def _parts(model: Model, layer: int) -> dict[str, tuple[Node, Group] | None]:
    """Return how what attention and MLP of a layer write is split, if it can be."""
    return {
        f"L{layer}.attn.out": _heads(model, layer),
        f"L{layer}.mlp.out": _neurons(model, layer) or _experts(model, layer),
    }


def _is_split(model: Model, layer: int, write: str, by: str) -> bool:
    """Tell whether what is written is asked for in parts."""
    if write.endswith("attn.out"):
        return by in {"heads", "neurons", "experts"}
    return by == ("experts" if model.anatomy.layers[layer].experts else "neurons")


def _content(model: Model, site: Node) -> frozenset[Node]:
    """Return the nodes below a site that depend on what is embedded; on any input where no embedding was recognised."""
    table = model.circuit.table
    begin = [table[name] for name in ("embed", "pos_embed", "L0.resid_pre") if name in table]
    if not begin:
        return frozenset(node for node in topological([site]) if reads_input(node))
    return frozenset(above([site], begin))


def _held(model: Model) -> dict[Node, str]:
    table = model.circuit.table
    ends = (".scale", "attn.pattern", "mlp.router.weights")
    return {node: address for address, node in table.items() if address.endswith(ends) and not is_note(address)}


def _norms(model: Model) -> dict[Node, str]:
    end = ".normalized"
    return {node: address.removesuffix(end) for address, node in model.circuit.table.items() if address.endswith(end)}


def _names(model: Model) -> tuple[dict[Node, str], dict[Node, str]]:
    """Return the addresses of nodes, and paths of modules."""
    sites: dict[Node, str] = {}
    modules: dict[Node, str] = {}
    for address, node in model.circuit.table.items():
        if is_note(address):
            continue
        known = address == model.anatomy.result or address.split(".")[0] in {"embed", "pos_embed", "ln_f"}
        if known or (address.startswith("L") and address[1:2].isdigit()):
            sites.setdefault(node, address)
        else:
            modules.setdefault(node, address.removeprefix("."))
    return sites, modules


def _heads(model: Model, layer: int) -> tuple[Node, Group] | None:
    """Return the output projection of a layer's attention as its heads, where it reads heads apart."""
    anatomy, product = model.anatomy.layers[layer], model.circuit.table.get(f"L{layer}.attn._product")
    if not anatomy.head_shares or not isinstance(product, Einsum):
        return None
    axes = [name for name, _ in anatomy.head_axes]
    if not set(axes) <= set(product.summed):
        return None
    labels = tuple(f"L{layer}.H{head}.out" for head in range(anatomy.heads))
    return product, Group(labels, tuple(FROM + name for name in axes), lambda at: stacked(product, axes, at))


def stacked(product: Einsum, axes: Sequence[str], at: Sequence[At]) -> Node:
    """Return a contraction, at some places, with some of the axes it sums over left apart, as axes of sources."""
    pairs = [(name, FROM + name) for name in axes]
    factors = [relabelled(taken(one, at), pairs) for one in product.factors]
    return contraction(factors, [name for name in product.summed if name not in axes])


def _neurons(model: Model, layer: int) -> tuple[Node, Group] | None:
    """Return the down projection of a layer's MLP as its neurons."""
    table, here = model.circuit.table, f"L{layer}."
    post, out = table.get(here + "mlp.post"), table.get(here + "mlp.out")
    count = model.anatomy.layers[layer].neurons
    if post is None or out is None or not count:
        return None
    (axis,) = post.axis_names - {"batch", "query"}
    found = [
        node
        for node in topological([out], stop=frozenset({post}))
        if isinstance(node, Einsum) and axis in node.summed and any(_is_cast(one, post) for one in node.factors)
    ]
    if len(found) != 1:
        return None
    (product,) = found
    labels = tuple(f"L{layer}.N{neuron}" for neuron in range(count))
    return product, Group(labels, (FROM + axis,), lambda at: stacked(product, [axis], at))


def _is_cast(node: Node, value: Node) -> bool:
    while isinstance(node, Map) and node.op == "cast":
        node = node.inputs[0]
    return node is value


def _experts(model: Model, layer: int) -> tuple[Node, Group] | None:
    """Return what the experts of a layer give, before their weights, as one source for each expert."""
    table, here, count = model.circuit.table, f"L{layer}.", model.anatomy.layers[layer].experts
    each, chosen = table.get(here + "mlp._each"), table.get(here + "mlp.router.chosen")
    if each is None or chosen is None or not count:
        return None
    axis = Axis(FROM + "expert", count)

    def make(at: Sequence[At]) -> Node:
        operands = [taken(one, at) for one in each.operands]
        mine = Map("equal", (taken(chosen, at), Iota(axis)))
        return Map("where", (mine, each.with_operands(operands), Constant(0.0)))

    labels = tuple(f"L{layer}.mlp.E{expert}.out" for expert in range(count))
    return each, Group(labels, (axis.name,), make)


def owner_of(model: Model, text: str) -> str:
    """Return the named value that an address is (part of): `L1.attn.q` for `L1.H2.q`."""
    address = parse(text, model.anatomy.shape)
    if address.layer is not None and address.part is not None:
        return f"L{address.layer}.attn.{address.site}"
    return text.partition("@")[0]
