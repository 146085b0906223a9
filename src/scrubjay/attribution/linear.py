"""A value as a linear function of its sources: what is followed down, what is held at its value, where it ends.

From a site down, sums are followed into every term, and linear functions into what they read. What multiplies it and depends on
the same data is held at its value if it is the scale of a norm, an attention pattern or a router's weight. A walk ends at the cuts
(what components wrote), at biases, and at what is not linear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Along,
    Concat,
    Constant,
    Einsum,
    Experts,
    Gather,
    Index,
    Input,
    Map,
    Merge,
    Multiply,
    Narrow,
    Relabel,
    Repeat,
    Split,
)  # fmt: skip
from scrubjay.circuit.rules.approximation import is_scale
from scrubjay.circuit.rules.facts import floating, kind
from scrubjay.circuit.rules.linearity import image, linear_in

_MOVES = Relabel | Index | Narrow | Split | Merge | Repeat | Gather


At = tuple[str, Node]
"""Places taken of a value: an axis, and the index to gather it by."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A source's share of some value: a node, with the axes `stack` of its own where it is several sources at once.

    `labels` has one name for each place of the stack, the first axis outermost. Where `written` is given, `node` is what becomes of
    an input `WRITE` that stands for it.
    """

    node: Node
    labels: tuple[str, ...]
    stack: tuple[str, ...] = ()
    written: Node | None = None


WRITE = "_write"
"""The input that stands for what a component writes."""


@dataclass(frozen=True, eq=False)
class Group:
    """A node that is several sources at once: their names, and what makes it, stacked, at some places."""

    labels: tuple[str, ...]
    stack: tuple[str, ...]
    make: Callable[[Sequence[At]], Node]


@dataclass(frozen=True, eq=False)
class Cuts:
    """Where a walk ends, and what is held still.

    Attributes:
        whole: nodes that are one source, with its name. groups: nodes that are several.
        content: nodes that depend on what is embedded: those that are followed.
        held: nodes that are held at their value whatever reads them (patterns, scales, router weights), with what to call them.
        sites: addresses of nodes, which biases are called after (`L0.attn.out`). modules: paths of modules of those without.
        norms: normalised values, with the norm's name.
        wide: sources of a narrower floating type are made the model's own.
        like: for nodes above a Python function's result, a node of the kind they have if that result is floating, as what it replaced.
    """

    whole: Mapping[Node, str]
    groups: Mapping[Node, Group]
    content: AbstractSet[Node]
    held: Mapping[Node, str] = field(default_factory=dict[Node, str])
    sites: Mapping[Node, str] = field(default_factory=dict[Node, str])
    modules: Mapping[Node, str] = field(default_factory=dict[Node, str])
    norms: Mapping[Node, str] = field(default_factory=dict[Node, str])
    wide: bool = False
    like: Mapping[Node, Node] = field(default_factory=dict[Node, Node])

    def floating(self, nodes: Iterable[Node]) -> bool:
        """Tell whether all are floating values, or bare numbers."""
        return floating(self.like.get(node, node) for node in nodes)

    def name(self, node: Node) -> str | None:
        """Return the address of a node, or else the path of a module that gives it."""
        return self.sites.get(node) or self.modules.get(node)


@dataclass(frozen=True, eq=False)
class Walk:
    """What is followed below a site.

    Attributes:
        order: nodes followed, what is read before what reads it.
        places: of each node the operands that are followed; empty where the walk ends.
        owners: the last named value passed on the way to each.
        held: names of what was held at its value.
        ends: why the walk ended at a node that is no cut.
    """

    site: Node
    order: tuple[Node, ...]
    places: Mapping[Node, tuple[int, ...]]
    owners: Mapping[Node, str]
    held: tuple[str, ...]
    ends: Mapping[Node, str]


def walk(site: Node, cuts: Cuts, owner: str) -> Walk:
    """Return what is followed below a site, which is called `owner`."""
    order: list[Node] = []
    places: dict[Node, tuple[int, ...]] = {}
    owners, ends, held = {site: owner}, dict[Node, str](), dict[str, None]()
    stack: list[tuple[Node, bool]] = [(site, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
            continue
        if node in places:
            continue
        name = cuts.sites.get(node, owners[node])
        if node in cuts.whole or node in cuts.groups:
            places[node] = ()
        else:
            found = followed(node, cuts)
            places[node] = () if isinstance(found, str) else found
            if isinstance(found, str):
                ends[node] = found
            else:
                held.update(dict.fromkeys(_held_beside(node, found, cuts, name)))
        stack.append((node, True))
        for place in reversed(places[node]):
            below = node.operands[place]
            if below in cuts.content and below not in places:
                owners[below] = name
                stack.append((below, False))
    return Walk(site, tuple(order), places, owners, tuple(held), ends)


def followed(node: Node, cuts: Cuts) -> tuple[int, ...] | str:
    """Return the operands that a node is a linear function of (all together of a sum, else one), or why there are none."""
    if node not in cuts.content:
        return "it does not depend on what is embedded"
    if isinstance(node, Add | Concat):
        return tuple(range(len(node.operands))) if cuts.floating(node.operands) else "it is no sum of floating values"
    if isinstance(node, Map) and node.op == "where" and node.inputs[0] not in cuts.content:
        return (1, 2)
    moving = [place for place, one in enumerate(node.operands) if one in cuts.content]
    free = [place for place in moving if not is_held(node.operands[place], cuts)]
    grouped = [place for place in free if node.operands[place] in cuts.groups]
    free = grouped if len(grouped) == 1 else free
    linear = _linear_places(cuts.like.get(node, node))
    if len(free) > 1 and all(place in linear for place in free):
        return f"it is a product of {len(free)} values that both read the stream ({_called(node, free, cuts)})"
    if len(free) != 1 or free[0] not in linear:
        return f"it is {_what(node)}, which is not linear in what it reads"
    return (free[0],)


def _linear_places(node: Node) -> tuple[int, ...]:
    if isinstance(node, Map) and node.op == "cast" and floating([node, *node.inputs]):
        return (0,)
    return linear_in(node)


def _what(node: Node) -> str:
    if isinstance(node, Map | Along):
        return node.op
    if isinstance(node, Gather):
        return "a look-up"
    return f"a {type(node).__name__.lower()}"


def _called(node: Node, places: Sequence[int], cuts: Cuts) -> str:
    return " and ".join(cuts.name(_core(node.operands[place])) or "one without a name" for place in places)


def _core(node: Node) -> Node:
    """Return what a value is, up to moves of axes, casts, reciprocals and bare numbers."""
    while True:
        if isinstance(node, _MOVES) or (isinstance(node, Map) and node.op in {"cast", "reciprocal"}):
            node = node.operands[0]
        elif isinstance(node, Multiply) and len(rest := [f for f in node.factors if f.axes]) == 1:
            (node,) = rest
        else:
            return node


def is_held(node: Node, cuts: Cuts) -> bool:
    """Tell whether a value is a scale of a norm, a pattern or a router's weights: what is held at its value."""
    while True:
        if node in cuts.held or is_scale(node) or (isinstance(node, Along) and "softmax" in node.op):
            return True
        if isinstance(node, _MOVES) or (isinstance(node, Map) and node.op in {"cast", "reciprocal"}):
            node = node.operands[0]
        elif isinstance(node, Multiply) and len(rest := [f for f in node.factors if f.axes]) == 1 < len(node.factors):
            (node,) = rest
        else:
            return False


def _held_beside(node: Node, places: tuple[int, ...], cuts: Cuts, owner: str) -> list[str]:
    """Return the names of what a linear function holds at its value."""
    if len(places) > 1:
        return []
    found: list[str] = []
    for place, one in enumerate(node.operands):
        if place in places or one not in cuts.content:
            continue
        core = one
        while core not in cuts.held and not is_scale(core) and isinstance(core, Map | Multiply | _MOVES):
            core = next(below for below in core.operands if below in cuts.content)
        found.append(cuts.held.get(core, f"the scale of the norm in {owner}"))
    return found


@dataclass(frozen=True, eq=False)
class Terms:
    """A site as a sum: its own node, and a piece for each source, in the order of computation."""

    site: Node
    pieces: Mapping[str, Piece]


def terms(found: Walk, cuts: Cuts, at: Sequence[At] = (), *, standing: bool = False) -> Terms:
    """Return the site of a walk as a sum of pieces, at some places of it.

    Places are taken as far down as they can be, so that little is computed for places that were not asked for. With `standing`, an
    input stands for the contraction that a group is, in what becomes of it.
    """
    along = {name for node in found.order if found.places[node] for name in node.acts_along}
    sunk = [one for one in at if one[0] not in along]
    late = [one for one in at if one[0] in along]
    own: dict[Node, Node] = {}
    made: dict[Node, dict[str, Piece]] = {}
    for node in found.order:
        if not found.places[node]:
            own[node] = taken(node, sunk)
            made[node] = _end(node, found, cuts, sunk, standing=standing)
            continue
        operands = [own[one] if one in own else taken(one, sunk) for one in node.operands]
        here = node.with_operands(operands)
        own[node] = here
        made[node] = _through(node, here, made, found, cuts)
    first = {
        key: place for place, node in reversed(list(enumerate(topological(found.order)))) for key in made.get(node, ())
    }
    pieces = {
        key: replace(piece, node=taken(piece.node, late))
        for key, piece in sorted(made[found.site].items(), key=lambda one: first[one[0]])
    }
    return Terms(taken(own[found.site], late), pieces)


def taken(node: Node, at: Sequence[At]) -> Node:
    """Return a value at some places of it, as far as it has the axes."""
    for name, index in at:
        if name in node.axis_names:
            node = Gather(node, name, index)
    return node


def _end(node: Node, found: Walk, cuts: Cuts, at: Sequence[At], *, standing: bool) -> dict[str, Piece]:
    if node in cuts.groups:
        group = cuts.groups[node]
        if standing and isinstance(node, Einsum):
            write = Input(WRITE, taken(node, at).axes)
            return {group.labels[0]: Piece(write, group.labels, group.stack, group.make(at))}
        return {group.labels[0]: Piece(group.make(at), group.labels, group.stack)}
    name = cuts.whole.get(node) or cuts.name(node) or f"{found.owners[node]} (other)"
    return {name: Piece(_widened(taken(node, at), cuts), (name,))}


def _widened(node: Node, cuts: Cuts) -> Node:
    return Map("cast", (node,), ("model",)) if cuts.wide and kind(node) == "float" else node


def _through(
    node: Node, here: Node, made: Mapping[Node, dict[str, Piece]], found: Walk, cuts: Cuts
) -> dict[str, Piece]:
    """Return the pieces of a node from those of what it reads; `here` is the node at the places asked for."""
    pieces: dict[str, Piece] = {}
    for place in found.places[node]:
        operand = node.operands[place]
        if isinstance(operand, Constant) and not operand.value:
            continue
        if operand in made:
            inner = made[operand]
        else:
            name = bias_name(node, operand, cuts.sites.get(node, found.owners[node]), cuts)
            inner = {name: Piece(_widened(here.operands[place], cuts), (name,))}
        for key, piece in inner.items():
            moved = piece.node if isinstance(node, Add) else _image(here, place, piece.node)
            if key in pieces:
                moved = Add((pieces[key].node, moved))
            pieces[key] = replace(piece, node=moved)
    return pieces


def _image(node: Node, place: int, term: Node) -> Node:
    """Return what a linear function makes of one term of what it reads."""
    if isinstance(node, Concat):
        zero = [one if at == place else Multiply((Constant(0.0), one)) for at, one in enumerate(node.operands)]
        zero[place] = term
        return node.with_operands(zero)
    if isinstance(node, Map) and node.op == "where":
        condition, *values = node.inputs
        filled = [term if at + 1 == place else Constant(0.0) for at in range(len(values))]
        return Map("where", (condition, *filled))
    if isinstance(node, Map) and node.op == "cast":
        return Map("cast", (term,), node.parameters)
    return image(node, place, term)


_BIASES = {
    "attn.out": "attn.b_O", "attn.o": "attn.b_O", "mlp.out": "mlp.b_out", "mlp.pre": "mlp.b_in", "mlp.gate": "mlp.b_gate", "mlp.up": "mlp.b_up",
    **{f"attn.{one}{more}": f"attn.b_{one.upper()}" for one in "qkv" for more in ("", "_rot")}, "logits": "b_U",
}  # fmt: skip


def bias_name(node: Node, bias: Node, owner: str, cuts: Cuts) -> str:
    """Return what to call a term of a sum that does not depend on what is embedded: `L0.attn.b_O`, `ln_f.b`, `b_U`."""
    if (known := cuts.name(bias)) is not None:
        return known
    beside = next((one for one in node.operands if one in cuts.content), None)
    while beside is not None and not isinstance(beside, Einsum | Experts):
        if beside in cuts.norms:
            return f"{cuts.norms[beside]}.b"
        beside = next((one for one in beside.operands if one in cuts.content and not is_held(one, cuts)), None)
    layer, dot, site = owner.partition(".") if owner.startswith("L") else ("", "", owner)
    if site in _BIASES:
        return f"{layer}{dot}{_BIASES[site]}"
    stored = getattr(bias, "name", "")
    return stored or f"{owner} (added)"
