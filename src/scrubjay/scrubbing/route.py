"""Routes in a circuit: what stands between a site and its reader stays as it was, but for the components a route may pass.

A *context* is what of the claims a component gets to see: each claim by its number, with whether its paths have already
passed a component that they must pass. Going down from the reader, each component on the way keeps the claims whose routes
may pass it, and loses the others; what a component computes from what it sees in one context is one value, shared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from scrubjay.circuit.address import Address, Head, KeyValueHead, Module
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import substitute
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Input, Map
from scrubjay.circuit.places import selection
from scrubjay.circuit.recognisers import Anatomy
from scrubjay.claims.route import Route
from scrubjay.errors import HypothesisError

Context = frozenset[tuple[int, bool]]
"""Claims by number, each with whether it may be read here (its paths have passed what they must pass)."""

Put = Callable[[Circuit, Context], Circuit]
"""Puts the claims of a context in their places in a circuit."""

_WRITES = re.compile(r"L(\d+)\.(?:H(\d+)|(\w+))\.out")
_CUT = re.compile(r"L(\d+)\.(\w+)\._cut")


class Routes:
    """The circuits that a reader's claims make of one circuit, context by context."""

    def __init__(self, circuit: Circuit, anatomy: Anatomy, reader: Address, routes: Sequence[Route], put: Put) -> None:
        self.circuit, self.anatomy, self.routes, self.put = circuit, anatomy, routes, put
        self.reader, self.own = reader, _component(anatomy, reader)
        self._made: dict[Context, tuple[Circuit, dict[Node, Node]]] = {}
        self.top: Callable[[Circuit], Circuit] | None = None

    def with_top(self, change: Callable[[Circuit], Circuit]) -> Routes:
        """Return the same routes where the reader itself sees another circuit, before claims are put in it."""
        made = Routes(self.circuit, self.anatomy, self.reader, self.routes, self.put)
        made.top = change
        return made

    @property
    def whole(self) -> Context:
        """The context of the reader: all claims, and those readable whose paths need not pass anything."""
        return frozenset((number, route.direct) for number, route in enumerate(self.routes))

    def seen_by(self, address: str) -> Context:
        """Return the context of a component, by the address of what it writes; of what is none, all that is readable."""
        readable = frozenset((number, True) for number, read in self.whole if read)
        found = _WRITES.fullmatch(address)
        if found is None:
            return readable
        head, kind = found[2], found[3] or "attn"
        return self._narrowed(self.whole, (int(found[1]), kind, int(head) if head else 0))

    def node(self, get: Callable[[Circuit], Node], context: Context | None = None) -> Node:
        """Return a value as it is in a context (the reader's, when not given)."""
        circuit, thaw = self._in(self.whole if context is None else context)
        node = get(circuit)
        return substitute([node], thaw)[node]

    def _in(self, context: Context) -> tuple[Circuit, dict[Node, Node]]:
        """Return the circuit of a context, in which what sees less is a leaf, and what those leaves stand for."""
        if not context:
            return self.circuit, {}
        if context not in self._made:
            frozen, leaves = self._frozen(context)
            thaw: dict[Node, Node] = {}
            for seen in dict.fromkeys(seen for seen, _ in leaves.values()):
                there, melt = self._in(seen)
                mine = {leaf: there.table[address] for leaf, (one, address) in leaves.items() if one == seen}
                plain = substitute(list(mine.values()), melt) if melt else {node: node for node in mine.values()}
                thaw |= {leaf: plain[node] for leaf, node in mine.items()}
            if self.top is not None and context == self.whole:
                frozen = self.top(frozen)
            self._made[context] = self.put(frozen, context), thaw
        return self._made[context]

    def _frozen(self, context: Context) -> tuple[Circuit, dict[Node, tuple[Context, str]]]:
        """Return the circuit with leaves for what sees less than a context, and what each leaf sees and is."""
        whole: dict[Node, Node] = {}
        mixed: dict[str, dict[int, Context]] = {}
        leaves: dict[Node, tuple[Context, str]] = {}

        def leaf(address: str, node: Node, seen: Context) -> Node:
            made = Input(f"frozen.{address.removesuffix('._cut')}.{_text(seen)}", node.axes)
            leaves[made] = seen, address
            return made

        for address, (layer, kind) in self._cuts():
            node = self.circuit.table[address]
            heads = [*range(max(self.anatomy.layers[layer].heads, 1))] if kind == "attn" else [0]
            seen = {head: self._narrowed(context, (layer, kind, head)) for head in heads}
            if len(set(seen.values())) > 1:
                mixed[address] = seen
            elif seen[0] != context:
                whole.setdefault(node, leaf(address, node, seen[0]))
        made = self.circuit.rewrite(whole, "some paths only") if whole else self.circuit
        for address, seen in mixed.items():  # one by one: each keeps what the others made of its operands
            node = new = made.table[address]
            shape = self.anatomy.layers[int(address[1:].partition(".")[0])]
            for head, one in seen.items():
                mine = selection(shape.head_index(head), dict(shape.head_axes))
                if one != context and mine is not None:
                    new = Map("where", (mine, leaf(address, node, one), new))
            made = made.rewrite({node: new}, "some paths of some heads only")
        return made, leaves

    def _cuts(self) -> Iterator[tuple[str, tuple[int, str]]]:
        """Give the insides of the components but for the reader's own, with their layer and kind."""
        for address in self.circuit.table:
            found = _CUT.fullmatch(address)
            if found is not None and self.own != (int(found[1]), found[2]):
                yield address, (int(found[1]), found[2])

    def _narrowed(self, context: Context, component: tuple[int, str, int]) -> Context:
        """Return what of a context is seen through a component."""
        return frozenset((number, True) for number, _ in context if _passes(self.routes[number], component))


def _text(context: Context) -> str:
    return "+".join(f"{number}" if read else f"{number}-" for number, read in sorted(context)) or "none"


def _passes(route: Route, component: tuple[int, str, int]) -> bool:
    """Tell whether paths of a route may pass a component: a layer's MLP, or one head."""
    named = route.through is None or any(_covers(one, component) for one in route.through)
    return named and not any(_covers(one, component) for one in route.avoiding)


def _covers(site: Address, component: tuple[int, str, int]) -> bool:
    layer, kind, head = component
    if site.layer != layer:
        return False
    if isinstance(site.part, Head):
        return kind == "attn" and head == site.part.index
    return site.site.partition(".")[0] == kind


def check_gaps(anatomy: Anatomy, reader: Address, sender: Address) -> None:
    """Refuse direct paths across something that is no addition to the stream and no component of a layer."""
    end = reader.layer if isinstance(reader.layer, int) else len(anatomy.layers)
    start = sender.layer if isinstance(sender.layer, int) else -1
    crossed = [gap for gap in sorted(anatomy.gaps) if start < gap <= end]
    if crossed:
        raise HypothesisError(
            f"{sender} is to be read by {reader} by direct paths, and between L{crossed[0] - 1}.resid_post and "
            f"L{crossed[0]}.resid_pre stands something that is no residual addition, so it is not known which paths "
            "are direct: use via='all'"
        )


def _component(anatomy: Anatomy, reader: Address) -> tuple[int, str] | None:
    """Return the layer and kind of the component a reader belongs to, if any."""
    if not isinstance(reader.layer, int) or isinstance(reader.part, Module):
        return None
    kind = reader.site.partition(".")[0]
    if isinstance(reader.part, Head | KeyValueHead):
        return reader.layer, "attn"
    if kind == "ln1":
        return reader.layer, "attn" if "attn" in anatomy.layers[reader.layer].kinds else "mixer"
    if reader.part is not None or kind == "ln2":
        return reader.layer, "mlp"
    return (reader.layer, kind) if kind in {"attn", "mlp", "mixer", "cross"} else None
