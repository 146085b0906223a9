"""Virtual heads: what a head writes and another reads, as one term: W_V W_O of the one with W_Q, W_K or W_V of the other.

A reader (logits, queries, keys, values, scores) is the sum of one term for each route from a source through heads. Patterns and
norm scales stay the run's own, shared by all terms, so this is an equality; the MLPs that a route meets are sources.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, replace

from scrubjay.circuit.address import Head, parse
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit, is_note, removed_by
from scrubjay.circuit.graph import need_circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Along,
    Constant,
    Einsum,
    Experts,
    Gather,
    Index,
    Input,
    Map,
    Multiply,
    Relabel,
    Repeat,
    Weight,
)
from scrubjay.circuit.rules.algebra import FLATTEN, WEIGHTS_FIRST
from scrubjay.circuit.rules.attention import below_of, projected_of
from scrubjay.circuit.rules.bypass import around_replaced
from scrubjay.circuit.rules.distribution import distribute
from scrubjay.circuit.rules.facts import Where, floating, fresh, predicate, reads_input, total, widened
from scrubjay.circuit.rules.following import Following, Passed, Place, Route, held_still
from scrubjay.circuit.rules.linearity import linear_in
from scrubjay.circuit.rules.norms import EXPAND_DIVIDE, SINK_ALONG
from scrubjay.circuit.rules.numbers import DOUBLE_CAST, EINSUM_AS_SUM
from scrubjay.circuit.rules.relabels import COMPOSE_RELABELS, SINK_RELABEL
from scrubjay.circuit.rules.rule import Rule, applied, expected
from scrubjay.circuit.rules.taking import PUSH_TAKE, push_index
from scrubjay.circuit.rules.turning import cores, is_projection
from scrubjay.errors import CircuitError

_HEADS = ("head", "kv", "group")
_SITES = ("q", "k", "v", "q_rot", "k_rot", "scores")
_WRITES = ("attn.out", "cross.out", "mixer.out", "mlp.out")
_MASKED = -1e9
"""What a mask puts in place of scores is no more than this."""


@dataclass(frozen=True, eq=False)
class PathTerm:
    """One term of what a reader reads: where it comes from, through which heads, and its value.

    Attributes:
        routes: one route, or for scores that of the queries and that of the keys; each begins at a source and ends at the reader.
        node: the value. The nodes of all terms of a reader sum to the reader.
        sources: the values that the routes begin at.
    """

    routes: tuple[tuple[str, ...], ...]
    node: Node
    sources: tuple[Node, ...] = ()

    @property
    def name(self) -> str:
        """The routes as text."""
        return " | ".join(" -> ".join(route) for route in self.routes)

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads that it goes through, as addresses, the first one first."""
        return tuple(step.removesuffix(".OV") for route in self.routes for step in route if step.endswith(".OV"))

    def __repr__(self) -> str:
        """Say the routes."""
        return f"<PathTerm {self.name}>"


def path_terms(
    circuit: Circuit, reader: str, depth: int = 1, through: Collection[str] | None = None, most: int = 50_000
) -> tuple[PathTerm, ...]:
    """Return the terms that a reader is the sum of: one for each route from a source, through virtual heads.

    Args:
        circuit: a circuit whose layers were recognised.
        reader: `logits`, or one head's `L1.H5.q`, `k`, `v`, `q_rot`, `k_rot` or `scores` (terms of pairs of routes).
        depth: how many heads a route may go through. At 0 every head is a source.
        through: the heads that may be gone through (`L0.H3`); all when not given. The others are sources.
        most: more terms than this are refused.

    Weights that are added (biases) are one source, `biases`. What a layer writes goes by its address (`L0.mlp.out`), after a norm of
    its own, whose scale is held. Cross-attention and the layers of an encoder are sources whole. Scores are those before their mask,
    which is a term of its own (`mask`: 0 where a key is seen, else -inf). Raises `AddressError` for an address that the circuit lacks, and
    `CircuitError` where the reader is no linear function of a sum, or has too many terms.
    """
    need_circuit(circuit)
    node, pairs, masks = _reader(circuit, reader)
    known = _Names(circuit)
    asked = None if through is None else frozenset(_head_name(one) for one in through)
    following = Following(
        label=known.source,
        enters=lambda passed: asked is None or known.head(passed) in asked,
        by_head=True,
        apart=lambda mixture: mixture in known.mixtures,
        most=most,
        pairs=pairs,
    )
    found = following.terms(node, depth, "values")
    _refuse_casts(following, reader)
    if len(found) == 1 and all(isinstance(one, Map | Along) for key in found for one in _begins(key, following)):
        raise CircuitError(
            f"{reader} is no linear function of what it reads: {known.said(next(iter(following.found)))} stands between"
        )
    ends = (f"{reader.removesuffix('.scores')}.q", f"{reader.removesuffix('.scores')}.k") if pairs else (reader,)
    terms = [
        PathTerm(_named(key, ends, known, following), term, _begins(key, following)) for key, term in found.items()
    ]
    names = ["mask", *(f"mask.{number}" for number in range(2, len(masks) + 1))]
    terms += [PathTerm(((name, reader),), mask, (mask,)) for name, mask in zip(names, masks, strict=False)]
    return tuple(terms)


def _refuse_casts(following: Following, reader: str) -> None:
    for one in (node for nodes in following.found.values() for node in nodes):
        if isinstance(one, Map) and one.op == "cast" and floating(one.inputs) and reads_input(one):
            raise CircuitError(
                f"{reader}: this circuit rounds to {one.parameters[0]} on the way, which is not linear; "
                "use its exact form, model.exact().circuit"
            )


def _begins(key: Route | tuple[Route, ...], following: Following) -> tuple[Node, ...]:
    routes = (key,) if isinstance(key, Route) else key
    return tuple(one for route in routes for one in following.found[route.source] if reads_input(one))


def _named(
    key: Route | tuple[Route, ...], ends: tuple[str, ...], known: _Names, following: Following
) -> tuple[tuple[str, ...], ...]:
    routes = (key,) if isinstance(key, Route) else key
    made: list[tuple[str, ...]] = []
    for at, route in enumerate(routes):
        head = following.heads.get(route.source) if isinstance(route.source, Node) else None
        source = f"{known.head(head)}.out" if head is not None else known.said(route.source)
        # what is added to the scores themselves, a mask or a bias of positions, is no pair
        end = ends[at] if len(routes) == len(ends) else ends[0].rpartition(".")[0] + ".scores"
        made.append((source, *(f"{known.head(one)}.OV" for one in route.heads), end))
    return tuple(made)


def _head_name(text: str) -> str:
    address = parse(text)
    if address.layer is None or not isinstance(address.part, Head):
        raise CircuitError(f"{text!r} names no head; write L0.H3")
    return f"L{address.layer}.H{address.part.index}"


class _Names:
    """What the nodes of a circuit are called in routes."""

    def __init__(self, circuit: Circuit) -> None:
        self.nodes: dict[Node, str] = {}
        self.mixtures: dict[Node, str] = {}
        self.others: dict[Node, str] = {}
        plain = {address: node for address, node in circuit.table.items() if not is_note(address)}
        short = {address: node for address, node in plain.items() if _is_short(address)}
        for address, node in sorted(short.items(), key=lambda pair: len(pair[0])):
            self.nodes.setdefault(node, address)
        for address, node in short.items():
            where, _, site = address.partition(".")
            if site == "attn.z":
                self.mixtures.update(dict.fromkeys(_chain(node), where))
            elif site in _WRITES or address in {"embed", "pos_embed"}:
                for one in _written_by(node, self.nodes):
                    self.nodes.setdefault(one, address)
        for address, node in sorted(plain.items(), key=lambda pair: len(pair[0])):
            self.nodes.setdefault(node, address)

    def source(self, node: Node) -> Hashable:
        """Return the name of a source; the node itself for a head, which is named by its place."""
        if node in self.nodes:
            return self.nodes[node]
        if not reads_input(node):
            return "biases"
        if isinstance(node, Gather) and isinstance(node.source, Weight):
            return node.source.name
        return node

    def said(self, source: Hashable) -> str:
        """Return a source's name: for a node that no address names, what it does, numbered where several do that."""
        if not isinstance(source, Node):
            return str(source)
        if source not in self.others:
            word = source.op if isinstance(source, Map | Along) else type(source).__name__.lower()
            taken = set(self.others.values())
            self.others[source] = word if word not in taken else fresh(word, taken)
        return self.others[source]

    def head(self, passed: Passed) -> str:
        """Return a head's address."""
        number = 0
        place = dict(passed.place)
        for axis in passed.mixture.axes:
            if axis.name in _HEADS and isinstance(axis.size, int):
                number = number * axis.size + place.get(axis.name, 0)
        return f"{self.mixtures.get(passed.mixture, 'L?')}.H{number}"


def _is_short(address: str) -> bool:
    return address in {"embed", "pos_embed"} or (address[:1] == "L" and address[1:2].isdigit())


def _chain(node: Node) -> list[Node]:
    """Return a node and what it is a linear function of, one after another, to the next contraction or product."""
    found = [node]
    while not isinstance(found[-1], Einsum):
        last = found[-1]
        places = range(len(last.operands)) if isinstance(last, Add) else linear_in(last)
        below = [last.operands[at] for at in places if reads_input(last.operands[at])]
        if len(below) != 1:
            break
        found += below
    return found


def _written_by(node: Node, named: Mapping[Node, str]) -> list[Node]:
    """Return what a layer writes and what that is a sum or linear function of, to contractions, experts and named values."""
    found, stack = dict[Node, None](), [node]
    while stack:
        one = stack.pop()
        if one in found or not reads_input(one) or (one is not node and one in named):
            continue
        found[one] = None
        if isinstance(one, Einsum | Experts):
            continue
        stack += one.operands if isinstance(one, Add) else [one.operands[at] for at in linear_in(one)]
    return list(found)


def _down(node: Node) -> list[Node]:
    """Return a node and those below it to the next contraction, as long as one alone reads an input."""
    found = [node]
    while not isinstance(found[-1], Einsum):
        below = below_of(found[-1])
        if isinstance(below, str):
            break
        found.append(below)
    return found


def _reader(circuit: Circuit, text: str) -> tuple[Node, set[Node], list[Node]]:
    """Return a reader by its address (scores before their mask), the contraction of queries with keys, and the masks."""
    address = parse(text)
    if address.layer is None:
        return circuit.node(text), set(), []
    if not isinstance(address.part, Head) or address.site not in _SITES:
        raise CircuitError(
            f"{text!r} is no reader; give logits, or one head's {', '.join(_SITES)}, such as L{address.layer}.H0.k"
        )
    node = circuit.node(f"L{address.layer}.attn.{address.site}")
    place = _head_place(circuit.node(f"L{address.layer}.attn.pattern"), address.part.index, text)
    own = node
    for name, at in place:
        own = Index(own, name, at) if name in own.axis_names else own
    own = held_still(own, _reads(node), [push_index(tuple(dict(place)))])
    if address.site != "scores":
        return own, set(), []
    own, masks = _unmasked(own)
    return own, _pairs(own), masks


def _unmasked(node: Node) -> tuple[Node, list[Node]]:
    """Return scores below the choices of a mask, `where(mask, scores, -inf)`, and for each what it adds: 0 or -inf."""
    masks: list[Node] = []
    while isinstance(node, Map) and node.op == "where":
        chosen, one, two = node.inputs
        if _is_masked(two):
            masks.append(Map("where", (chosen, Constant(0.0), two)))
            node = one
        elif _is_masked(one):
            masks.append(Map("where", (chosen, one, Constant(0.0))))
            node = two
        else:
            break
    return node, masks


def _is_masked(node: Node) -> bool:
    while isinstance(node, Repeat) or (isinstance(node, Map) and node.op == "cast"):
        node = node.operands[0]
    return isinstance(node, Constant) and isinstance(node.value, int | float) and node.value <= _MASKED


def _head_place(pattern: Node, head: object, text: str) -> Place:
    axes = [axis for axis in pattern.axes if axis.name in _HEADS and isinstance(axis.size, int)]
    count = 1
    for axis in axes:
        count *= int(axis.size)
    if not isinstance(head, int) or not 0 <= head < count:
        raise CircuitError(f"{text!r} names no one head of this layer, which has {count}: H0..H{count - 1}")
    place: list[tuple[str, int]] = []
    for axis in reversed(axes):
        place.append((axis.name, head % int(axis.size)))
        head //= int(axis.size)
    return tuple(place)


def _reads(node: Node) -> list[Node]:
    """Return what the projections that a reader is made of read: they are the same for all heads."""
    found: list[Node] = []
    stack, seen = [node], set[Node]()
    while stack:
        one = stack.pop()
        if one in seen or not reads_input(one):
            continue
        seen.add(one)
        read = projected_of(one) if isinstance(one, Einsum) else None
        if isinstance(read, Node):
            found.append(read)
        else:
            stack.extend(one.operands)
    return found


def _pairs(node: Node) -> set[Node]:
    """Return the contraction of queries with keys below scores, through linear functions."""
    stack, seen = [node], set[Node]()
    while stack:
        one = stack.pop()
        if one in seen or not reads_input(one):
            continue
        seen.add(one)
        if isinstance(one, Einsum):
            data = [factor for factor in one.factors if reads_input(factor)]
            if len(data) == 2 and all(factor in cores(factor) for factor in data):
                return {one}
        elif isinstance(one, Add):
            stack.extend(one.terms)
        elif isinstance(one, Map) and one.op == "where":
            stack.append(_unmasked(one)[0])
        else:
            stack.extend(one.operands[at] for at in linear_in(one))
    raise CircuitError(f"{node!r} is no linear function of queries with keys (a soft cap stands between, perhaps)")


def through_heads(depth: int = 1, stop: Where = (), most: int = 50_000) -> Rule:
    """Return the rule that a linear map is the sum of what it reads along each route, through `depth` heads at most.

    Args:
        depth: how many heads a route may go through.
        stop: values that count as sources whatever they are made of.
        most: more terms than this are refused.

    A contraction of queries with keys is expanded in both.
    """
    return _through_heads(depth, stop, most, set())


def _through_heads(depth: int, stop: Where, most: int, opened: set[Node]) -> Rule:
    """Return the rule of `through_heads`, which adds to `opened` the values that it looks through."""
    asked = predicate(stop)

    def change(node: Node) -> Node | str:
        if not isinstance(node, Einsum):
            return expected("a linear map, or queries with keys", node)
        following = Following(asked, by_head=True, most=most, opened=opened)
        if not is_projection(node):
            data = [one for one in node.factors if reads_input(one)]
            if len(data) != 2 or any(one not in cores(one) for one in data):
                return "it is neither a linear map of one value by weights nor a contraction of two projections"
            following.pairs.add(node)
        terms = following.terms(node, depth, "values")
        if len(terms) < 2:
            return "what it reads has one source only: no sum is reached through linear functions and heads"
        return widened(total(tuple(terms.values())), node.axes)

    return Rule(
        "virtual_heads",
        "attention",
        f"a linear map is the sum of what it reads along each route through {depth} heads at most",
        "(x + P x W_V W_O) W = x W + P x (W_V W_O W)",
        _example,
        change,
        repeats=False,
    )


def virtual_heads(
    circuit: Circuit, where: Where | str, depth: int = 1, stop: Where = (), most: int = 50_000
) -> Circuit:
    """Return the circuit with linear maps, or queries with keys, expanded by routes through heads.

    `where` says which nodes, or is the address of one reader (`logits`, `L1.attn.k`, `L1.attn.scores`). All are expanded as they
    are in this circuit: what is made at one is not entered from another. Raises `CircuitError` where no place was asked for, or
    the rule does not hold at one of them.
    """
    asked = predicate(_contraction(circuit.node(where)) if isinstance(where, str) else where)
    chosen = [node for node in circuit.nodes if asked(node)]
    if not chosen:
        raise CircuitError("virtual_heads: no node of the circuit was asked for")
    opened: set[Node] = set()
    rule = _through_heads(depth, stop, most, opened)
    changes: Mapping[Node, Node] = {node: applied(rule, node) for node in chosen}
    made = circuit.rewrite(changes, f"equality: {rule.name} x{len(changes)}")
    return replace(
        made, removed=removed_by(circuit, made, around_replaced(circuit, changes, made, opened - set(changes)))
    )


def _contraction(node: Node) -> set[Node]:
    """Return the linear map that a reader is, or the contraction of queries with keys below it."""
    last = _down(node)[-1]
    return {last} if is_projection(last) else _pairs(node)


_WITHIN = (EXPAND_DIVIDE, SINK_ALONG, COMPOSE_RELABELS, SINK_RELABEL, PUSH_TAKE, DOUBLE_CAST, distribute(data_only=True), EINSUM_AS_SUM, *FLATTEN)  # fmt: skip


def contracted(term: PathTerm, *, multiplied: bool = False) -> Node:
    """Return a term as one contraction of its source, patterns and norm scales with all weights on its way.

    Args:
        term: a term of `path_terms`.
        multiplied: multiply the weights with each other first: the virtual head's own matrix.

    Sources of several parts (`biases`) give a sum of contractions.
    """
    made = held_still(term.node, [*term.sources, *_fixed(term)], _WITHIN)
    if multiplied and isinstance(made, Einsum):
        return WEIGHTS_FIRST.apply(made) or made
    return made


def _fixed(term: PathTerm) -> list[Node]:
    """Return the values in a term that are not linear in their operands, seen from the top: patterns, scales."""
    found: list[Node] = []
    stack, seen = [term.node], set[Node](term.sources)
    while stack:
        one = stack.pop()
        if one in seen or not reads_input(one):
            continue
        seen.add(one)
        if isinstance(one, Map) and one.op == "divide":
            found.append(one.inputs[1])
            stack.append(one.inputs[0])
        elif isinstance(one, Add | Multiply | Einsum) or (linear_in(one) and not isinstance(one, Gather)):
            stack.extend(one.operands)
        else:
            found.append(one)
    return found


def _example() -> Node:
    query, model, d_head, key = Axis("query", "query"), Axis("model", 4), Axis("d_head", 2), Axis("key", "query")
    x, pattern = Input("x", (query, model)), Along("softmax", Input("scores", (query, key)), ("key",))
    v, o, w = (Weight("model", name, ((model,), (d_head,))) for name in ("W_V", "W_O", "W_Q"))
    z = Einsum((pattern, Relabel(Einsum((x, v), ("model",)), (("query", "key"),))), ("key",))
    return Einsum((Add((x, Einsum((z, o), ("d_head",)))), w), ("model",))


VIRTUAL_HEADS = through_heads()

VIRTUAL = (VIRTUAL_HEADS,)
