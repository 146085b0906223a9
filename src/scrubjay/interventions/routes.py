"""Routes: the changed circuits of path patching, in which chosen readers alone see what was sent.

What is sent is an input of the changed circuit, so all senders that move one node are variants of one evaluation. A route computes
what it must: one head where one head reads, one position where one is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from scrubjay.capture.model import Model
from scrubjay.circuit.address import Address, Head
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import above, substitute, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Constant, Custom, Einsum, Gather, Index, Input, Multiply, Opaque
from scrubjay.circuit.places import at_index, place, refuse_bypassed
from scrubjay.circuit.rules import positions_down
from scrubjay.engine.resume import POSITIONS, Resumption, resumption
from scrubjay.errors import AddressError
from scrubjay.interventions.metric import Metric
from scrubjay.interventions.sweep import is_causal
from scrubjay.interventions.variants import VARIANT

Variant = tuple[Axis, ...]
"""The axis of variants, or none."""

_MOVED = "variant.moved"


@dataclass(frozen=True, eq=False)
class Sender:
    """What a sender writes: its value, the node that moves with it, and the site of the stream which that node is part of.

    The value is linear in `source`: what all heads of a layer mix, or the value itself. `plain`: the stream moves by as much as the value
    does, with no norm or factor between.
    """

    address: Address
    value: Node
    target: Node
    site: Node
    source: Node
    plain: bool


@dataclass(frozen=True, eq=False)
class Step:
    """A part of a route: `given` stands for what it is computed from, `wanted` is what it makes of that, by a plan."""

    given: Input
    wanted: Node
    plan: Resumption


@dataclass(frozen=True, eq=False)
class Route:
    """Senders into the same node, to some receivers: how the changed circuit's read-out is computed, in steps.

    `sent` has for each sender the node whose difference between the two inputs is what it sends: its value, or that at the one
    position which is read. Where one head reads it the first step goes up to its layer's output, and the second, which all heads of the
    layer have in common, from there on.
    """

    sent: Mapping[Sender, Node]
    steps: tuple[Step, ...]

    @property
    def senders(self) -> tuple[Sender, ...]:
        """The senders, in order."""
        return tuple(self.sent)

    @property
    def apart(self) -> bool:
        """Whether each sender is computed by itself: what is sent has no axis of variants."""
        return VARIANT not in self.steps[0].given.axes

    @property
    def causal(self) -> bool:
        """Whether positions before the first changed one may be left out."""
        return all(one.plan.causal for one in self.steps)

    @property
    def needs(self) -> tuple[Node, ...]:
        """The nodes of the unchanged circuit whose values must be held."""
        given = {one.given for one in self.steps}
        return tuple(dict.fromkeys(node for one in self.steps for node in one.plan.needs if node not in given))


def sender_of(model: Model, address: Address) -> Sender:
    """Return how a sender takes part in the stream; raise `AddressError` for a site that does not write to it."""
    refuse_bypassed(model.circuit, model.anatomy, address)
    found = place(model.circuit, model.anatomy, address)
    whole = "out" if isinstance(address.part, Head) else address.site
    if isinstance(address.part, Head) and address.site == "out":
        site, target = model.circuit.node(f"L{address.layer}.attn.out"), found.target
        factors = target.factors if isinstance(target, Einsum) else ()
        mixed = [one for one in factors if POSITIONS in one.axis_names]
        source = mixed[0] if len(mixed) == 1 else found.value
        return Sender(address, found.value, target, site, source, _is_added(target, site))
    if (
        found.at is not None
        and address.part is None
        and whole in {"attn.out", "mlp.out", "embed", "pos_embed", "resid_pre"}
    ):
        return Sender(address, found.target, found.target, found.target, found.target, plain=True)
    raise AddressError(
        f"{address}: a sender writes to the residual stream: a head's out, attn.out, mlp.out, embed or pos_embed"
    )


def _is_added(term: Node, whole: Node) -> bool:
    """Tell whether a node is a term of a sum, or of a sum in it."""
    return term is whole or (isinstance(whole, Add) and any(_is_added(term, one) for one in whole.terms))


def routes(
    model: Model, writers: Sequence[Sender], group: Sequence[Address], mlps: str, read: Metric, tails: dict[Node, Tail],
    variant: Variant = (VARIANT,),
) -> Iterator[Route]:  # fmt: skip
    """Give the ways from senders to a group of receivers, senders that move one node together; `tails` are those made so far.

    `variant` is the axis of variants (`variant_of`).
    """
    rest = list(writers)
    if mlps == "freeze" and len(group) == 1:  # the stream moves by what is sent, whoever sends it
        stream = _stream(model, group[0])
        below = _terms(model, stream)
        direct = [one for one in writers if one.plain and one.site in below]
        rest = [one for one in writers if not one.plain]
        if direct:
            moved = Input(_MOVED, (*variant, *stream.axes))
            yield _alone(model, direct, moved, group[0], Add((stream, moved)), read, tails)
    by_target: dict[Node, list[Sender]] = {}
    for one in rest:
        by_target.setdefault(one.target, []).append(one)
    for senders in by_target.values():
        route = _between(model, senders, group, mlps, read, tails, variant)
        if route is not None:
            yield route


def variant_of(model: Model, writers: Sequence[Sender]) -> Variant:
    """Return the axis of variants; none where a node that takes no further axis (a function of the user's own) reads what a sender writes."""
    result = model.circuit.roots[model.anatomy.result]
    closed = [node for node in topological([result]) if isinstance(node, Custom | Opaque)]
    below = set(topological(closed))
    return () if any(one.target in below for one in writers) else (VARIANT,)


def _stream(model: Model, receiver: Address) -> Node:
    """Return the node of the stream that a receiver reads."""
    refuse_bypassed(model.circuit, model.anatomy, receiver)
    found = place(model.circuit, model.anatomy, receiver)
    reads = (
        {"q_in", "k_in", "v_in"}
        if isinstance(receiver.part, Head)
        else {"mlp.in", "resid_pre", "resid_mid", "resid_post"}
    )
    if receiver.site not in reads:
        raise AddressError(
            f"{receiver}: a receiver reads the residual stream: a head's q_in, k_in or v_in, mlp.in, or resid_pre, resid_mid, resid_post"
        )
    return found.value


def _terms(model: Model, stream: Node) -> set[Node]:
    """Return the stream's nodes and what was written to it, as far as the stream itself goes."""
    table = model.circuit.table
    stops = {
        table[f"L{n}.{site}"]
        for n in range(model.layers)
        for site in ("attn.out", "mlp.out")
        if f"L{n}.{site}" in table
    }
    return set(topological([stream], stop=frozenset(stops)))


def _between(
    model: Model, senders: Sequence[Sender], group: Sequence[Address], mlps: str, read: Metric, tails: dict[Node, Tail],
    variant: Variant,
) -> Route | None:  # fmt: skip
    """Return the route from senders into one node to receivers through the MLPs between; `None` where no receiver is downstream."""
    first = senders[0]
    moved = Input(_MOVED, (*variant, *first.target.axes))
    table = model.circuit.table
    kinds = ("attn.out", "mlp.out") if mlps == "freeze" else ("attn.out",)
    names = [name for n in range(model.layers) for kind in kinds if (name := f"L{n}.{kind}") in table]
    frozen = {table[name]: table[name] for name in names}
    new = substitute([first.site], {first.target: Add((first.target, moved))})[first.site]
    changed = _Changed(model.circuit, model.circuit.roots[model.anatomy.result])
    for receiver in group:
        stream = _stream(model, receiver)
        sent = substitute([stream], {**frozen, first.site: new})[stream]
        if sent is stream:
            continue
        if len(group) == 1:
            return _alone(model, senders, moved, receiver, sent, read, tails)
        changed = changed.reading(model, receiver, sent)
    return _whole(model, senders, moved, changed, read) if changed.images else None


@dataclass(frozen=True, eq=False)
class _Changed:
    """A changed circuit, its result, and what stands in it for each node of the unchanged one that is no more."""

    circuit: Circuit
    result: Node
    images: Mapping[Node, Node] = field(default_factory=dict[Node, Node])

    def reading(self, model: Model, receiver: Address, new: Node) -> _Changed:
        """Return the circuit in which a receiver reads `new`, and others may read something new as well."""
        found = place(self.circuit, model.anatomy, receiver)
        ends = [*self.circuit.roots.values(), *self.circuit.table.values()]
        made = substitute(ends, {found.target: found.put(new, None)})
        moved = {node: made[one] for node, one in self.images.items() if one in made}
        fresh = {node: one for node, one in made.items() if one is not node and node not in self.images.values()}
        return _Changed(self.circuit.mapped(made), made[self.result], {**fresh, **moved})


def _alone(
    model: Model, senders: Sequence[Sender], moved: Input, receiver: Address, new: Node, read: Metric, tails: dict[Node, Tail]
) -> Route:  # fmt: skip
    """Return the route on which one receiver reads `new` and nothing else does."""
    one, result = _one_head(model, receiver, new), model.circuit.roots[model.anatomy.result]
    if one is None:
        found = place(model.circuit, model.anatomy, receiver)
        made = substitute([result], {found.target: found.put(new, None)})
        images = {node: image for node, image in made.items() if image is not node}
        return _whole(model, senders, moved, _Changed(model.circuit, made[result], images), read)
    if one.target not in tails:
        tails[one.target] = _tail(model, one.target, read, tuple(axis for axis in moved.axes if axis == VARIANT))
    tail = tails[one.target]
    change = one.change if tail.index is None else _at(one.change, moved, tail.index)
    change, given, sent = _at_one_place(change, moved, senders)
    before = {late: early for early, late in one.images.items()}
    plan = resumption([change], [given], before, is_causal(model))
    return Route(sent, (Step(given, change, plan), tail.step))


@dataclass(frozen=True, eq=False)
class Tail:
    """The step from a node that changes to the read-out; `index` is the one position of it that is read, if it is one."""

    step: Step
    index: Input | None


def _tail(model: Model, target: Node, read: Metric, variant: Variant) -> Tail:
    """Return the step from a change of a node, which is added to it, to the read-out."""
    result, change = model.circuit.roots[model.anatomy.result], Input("variant.change", (*variant, *target.axes))
    made = substitute([result], {target: Add((target, change))})
    root = _read(made[result], change, read)
    before = {image: node for node, image in made.items() if image is not node}
    root, given, index = _one_place(root, change)
    return Tail(Step(given, root, resumption([root], [given], before, is_causal(model))), index)


@dataclass(frozen=True, eq=False)
class _OneHead:
    """A layer's sum over heads, and by how much it changes where one head reads something else; images as `_Changed` has them."""

    target: Node
    change: Node
    images: Mapping[Node, Node]


def _one_head(model: Model, receiver: Address, new: Node) -> _OneHead | None:
    """Return how a layer's output moves where one head reads `new`, computed for that head alone; `None` where heads are not apart."""
    if (
        not isinstance(receiver.part, Head)
        or not isinstance(receiver.part.index, int)
        or not isinstance(receiver.layer, int)
    ):
        return None
    table, here = model.circuit.table, f"L{receiver.layer}."
    at = model.anatomy.layers[receiver.layer].head_index(receiver.part.index)
    read, stream, product = (
        table.get(here + name) for name in (f"attn.{receiver.site[0]}", "resid_pre", "attn._product")
    )
    if read is None or stream is None or not isinstance(product, Einsum):
        return None
    own = _at_head(read, at, {stream: new})
    if own is None:
        return None
    own = {**own, read: _narrowed(own[read], new)}
    factors = [one for one in product.factors if read in topological([one], stop=frozenset({read, stream}))]
    if len(factors) != 1:
        return None
    mixed = _at_head(factors[0], at, {read: own[read]})
    if mixed is None:
        return None
    moved = Add((mixed[factors[0]], Multiply((at_index(factors[0], at), Constant(-1.0)))))
    others = (at_index(one, at) for one in product.factors if one is not factors[0])
    summed = tuple(name for name in product.summed if name not in at)
    images = {at_index(node, at): one for node, one in {**own, **mixed}.items() if node is not stream}
    return _OneHead(product, Einsum((moved, *others), summed), images)


def _at_head(node: Node, at: Mapping[str, int], table: Mapping[Node, Node]) -> dict[Node, Node] | None:
    """Return what everything between some nodes and `node` is at one head, where those are what a table says; `None` if heads meet."""
    between, images = set(table), dict(table)
    for one in topological([node], stop=table):
        if one in table or between.isdisjoint(one.operands):
            continue
        between.add(one)
        if one.acts_along & at.keys():
            return None
        images[one] = one.with_operands(
            [images[operand] if operand in between else at_index(operand, at) for operand in one.operands]
        )
        if images[one].axis_names & at.keys():
            return None
    return images


def _narrowed(node: Node, stop: Node) -> Node:
    """Return a node with choices of one place (queries of queries, keys and values) made before products and not after them."""
    while True:
        inside = topological([node], stop=frozenset({stop}))
        axes = [
            one.axis
            for one in inside
            if isinstance(one, Index) and one.source.operands and not isinstance(one.source, Index) and one.source is not stop
        ]  # fmt: skip
        pushed = node
        for axis in dict.fromkeys(axes):
            pushed = shielded(pushed, [stop], lambda given, axis=axis: positions_down([given], axis)[given])
        if pushed is node:
            return node
        node = pushed


def shielded(node: Node, stops: Sequence[Node], rewrite: Callable[[Node], Node]) -> Node:
    """Return a node rewritten by a function that does not see what lies inside some others."""
    leaves: dict[Node, Node] = {one: Input(f"shield.{place}", one.axes) for place, one in enumerate(stops)}
    made = rewrite(substitute([node], leaves)[node])
    return substitute([made], {leaf: one for one, leaf in leaves.items()})[made]


def _whole(model: Model, senders: Sequence[Sender], moved: Input, changed: _Changed, read: Metric) -> Route:
    """Return the route of a changed circuit in one step."""
    root, given, sent = _at_one_place(_read(changed.result, moved, read), moved, senders)
    before = {late: early for early, late in changed.images.items()}
    return Route(sent, (Step(given, root, resumption([root], [given], before, is_causal(model))),))


def _read(result: Node, moved: Input, read: Metric) -> Node:
    """Return a changed result as a metric reads it; what is not changed is read off what is held."""
    return shielded(result, _unchanged(result, moved), read.read)


def _at(change: Node, moved: Input, index: Input) -> Node:
    """Return a change at one place of each row, computed there alone."""
    return shielded(
        Gather(change, POSITIONS, index), _unchanged(change, moved), lambda given: positions_down([given], POSITIONS)[given]
    )  # fmt: skip


def _unchanged(node: Node, moved: Input) -> list[Node]:
    """Return the nodes with positions that do not depend on what is moved, where one that does reads them."""
    fresh = above([node], [moved])
    return list(
        dict.fromkeys(
            operand
            for one in topological([node]) if one in fresh
            for operand in one.operands if operand not in fresh and operand.operands and POSITIONS in operand.axis_names
        )
    )  # fmt: skip


def _one_place(root: Node, moved: Input) -> tuple[Node, Input, Input | None]:
    """Return a node, what stands for what is moved, and the one position at which that is read, if no other is."""
    match [node for node in topological([root]) if moved in node.operands]:
        case [Gather(axis="query", index=Input() as index) as taken]:
            own = tuple(axis for axis in moved.axes if axis == VARIANT)
            given = Input(f"{moved.name}.taken", (*own, *(one for one in taken.axes if one.name != VARIANT.name)))
            return substitute([root], {taken: given})[root], given, index
        case _:
            return root, moved, None


def _at_one_place(root: Node, moved: Input, senders: Sequence[Sender]) -> tuple[Node, Input, dict[Sender, Node]]:
    """Return a node, what stands for what is sent, and what is sent: at one position where no other is read."""
    root, given, index = _one_place(root, moved)
    return root, given, {one: one.value if index is None else _taken(one, index) for one in senders}


def _taken(sender: Sender, index: Input) -> Node:
    """Return what a sender writes at one place of each row."""
    return shielded(
        Gather(sender.value, POSITIONS, index), [sender.source], lambda given: positions_down([given], POSITIONS)[given]
    )
