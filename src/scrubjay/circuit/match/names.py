"""Matchers by name: addresses, entries of the circuit's table, weights, inputs.

A name that stands for nothing in the circuit is an error wherever it is used, inside `|` and `~` too: a misspelt name would
otherwise silently mean nothing, or everything. The message lists near names.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import final

from scrubjay.circuit.address import ANY, Address, Head, Index, Module, Range, expand, parse
from scrubjay.circuit.circuit import is_note
from scrubjay.circuit.match.matcher import Kind, Matcher, Related, Scope, These
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Input, Weight
from scrubjay.circuit.places import place
from scrubjay.errors import AddressError, MatchError, near

Like = Matcher | Node | type[Node] | str
"""What is accepted for a matcher: a text is an address, a node or a kind stands for itself."""

_EDGES = frozenset({"q_in", "k_in", "v_in"})


def as_matcher(what: Like) -> Matcher:
    """Return the matcher that is meant: of an address for a text, of a node or a kind for itself.

    >>> as_matcher("L*.attn.z"), as_matcher(Weight)
    (at('L*.attn.z'), kind(Weight))
    """
    if isinstance(what, Matcher):
        return what
    if isinstance(what, str):
        return at(what)
    if isinstance(what, Node):
        return These(frozenset({what}))
    if not isinstance(what, type):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
        raise MatchError(
            f"{what!r} is no matcher, address, node or kind of node; a function is written where(function)"
        )
    return Kind((what,))


def _holds(asked: Index | None, one: Index | None) -> bool:
    """Tell whether an index that is asked for includes another."""
    if asked is None or one is None:
        return asked is one
    if asked is ANY:
        return True
    if isinstance(asked, Range):
        return isinstance(one, int) and asked.first <= one <= asked.last
    return asked == one


def _fits(asked: Address, one: Address) -> bool:
    """Tell whether an address, with wildcards and ranges, includes another."""
    if type(asked.part) is not type(one.part) or asked.site != one.site or not _holds(asked.layer, one.layer):
        return False
    if asked.part is None or one.part is None or isinstance(asked.part, Module) or isinstance(one.part, Module):
        return asked.part == one.part
    return _holds(asked.part.index, one.part.index)


@lru_cache(maxsize=1 << 16)
def address_of(name: str) -> Address | None:
    """Return the address that a name of a table is, or `None` where it is none."""
    if is_note(name):
        return None
    try:
        return parse(name)
    except AddressError:
        return None


@final
@dataclass(frozen=True, repr=False)
class At(Matcher):
    """Nodes that an address names."""

    address: Address

    def among(self, nodes: Collection[Node], scope: Scope) -> Collection[Node]:
        """Return the nodes so named; raise `AddressError` when the circuit has none."""
        found = named_by(self.address, scope)
        if not found:
            raise AddressError(why_no_address(self.address, scope))
        return [node for node in nodes if node in found]

    def __repr__(self) -> str:
        return f"at({str(self.address)!r})"


def at(address: str | Address) -> At:
    """Return the matcher of the nodes that an address names, wildcards and ranges included.

    A head's or neuron's value is matched where it is a node of its own: after a rewrite has split it off and named it, or (if
    the anatomy is given to the search) where the circuit reads exactly that index. A position is no node: there is an
    error for it, and for what a head reads (`q_in`), which is an edge.

    Raises `AddressError` for a text that does not parse, and, when a circuit is searched, for one that names nothing there.

    >>> at("L0..3.attn.z"), at("9.9")
    (at('L0..3.attn.z'), at('L9.H9.out'))
    """
    read = parse(address) if isinstance(address, str) else address
    if read.position is not None:
        raise AddressError(f"{read}: a position is a part of a node's value and no node; leave out the @")
    if isinstance(read.part, Head) and read.site in _EDGES:
        raise AddressError(
            f'{read}: what a head reads is an edge and no node; use path("resid_pre", the head\'s q, k or v)'
        )
    return At(read)


def named_by(address: Address, scope: Scope) -> frozenset[Node]:
    """Return the nodes below the results that an address names."""
    names = {**scope.circuit.roots, **scope.circuit.table}
    if scope.anatomy is not None and isinstance(address.part, Module):
        address = dict(scope.anatomy.shape.names).get(address.part.path, address)
    found = {node for name, node in names.items() if (one := address_of(name)) is not None and _fits(address, one)}
    if scope.anatomy is not None and address.part is not None and not isinstance(address.part, Module):
        found.update(_read_parts(address, scope))
    return frozenset(found & scope.nodes)


def _read_parts(address: Address, scope: Scope) -> list[Node]:
    """Return the values of heads, neurons and experts that an address stands for, where they are nodes."""
    assert scope.anatomy is not None
    made: list[Node] = []
    for one in expand(address, scope.anatomy.shape):
        try:
            made.append(place(scope.circuit, scope.anatomy, one).value)
        except AddressError:
            continue  # this circuit has lost the whole value; what names nothing at all is told by the caller
    return made


def why_no_address(address: Address, scope: Scope) -> str:
    """Return why an address names no node below the results: cut off, a part of a node, or not there, with near names."""
    circuit = scope.circuit
    read = {**circuit.roots, **circuit.table}.items()
    names = [name for name, node in read if not is_note(name) and node in scope.nodes]
    for name in (*circuit.table, *circuit.removed):
        if (one := address_of(name)) is not None and _fits(address, one):
            by = circuit.removed.get(name)
            return f"{address}: no result depends on {name}" + (f" since the rewrite {by!r}" if by else "")
    layer = 0 if address.layer is ANY else address.layer.first if isinstance(address.layer, Range) else address.layer
    whole = f"L{layer}.attn.{address.site}" if isinstance(address.part, Head) else f"L{layer}.mlp.post"
    if address.part is not None and not isinstance(address.part, Module) and whole in circuit.table:
        return f"{address}: a part of the node {whole}, and no node of its own in this circuit; split it off, or match {whole}"
    text = str(address).replace("*", "0")
    return f"{address}: names no node of this circuit{near(text, names) or _some(names)}"


def _some(names: Iterable[str], most: int = 8) -> str:
    """Return a few of the names there are."""
    known = sorted(set(names))
    return f"; it has {', '.join(known[:most])}{', ...' if len(known) > most else ''}" if known else "; it has none"


@final
@dataclass(frozen=True, repr=False)
class Named(Matcher):
    """Nodes by a name, in which `*` stands for any text: of the table and results, of weights, or of inputs."""

    of: str
    pattern: str

    def among(self, nodes: Collection[Node], scope: Scope) -> Collection[Node]:
        """Return the nodes of that name; raise `MatchError` when the circuit has none."""
        known = names_of(self.of, scope)
        fits = re.compile(".*".join(map(re.escape, self.pattern.split("*"))), re.DOTALL).fullmatch
        found = {node for name, node in known if fits(name)}
        if not found:
            raise MatchError(f"{self!r} names no node of this circuit{near_names(self.pattern, known)}")
        return [node for node in nodes if node in found]

    def __repr__(self) -> str:
        return f"{self.of}({self.pattern!r})"


def names_of(of: str, scope: Scope) -> list[tuple[str, Node]]:
    """Return the names that `named`, `weight` or `input_named` choose from, with their nodes."""
    if of == "named":
        names = [*scope.circuit.roots.items(), *scope.circuit.table.items()]
        return [(name, node) for name, node in names if node in scope.nodes]
    wanted = Weight if of == "weight" else Input
    return [
        (node.name, node) for node in scope.circuit.nodes if isinstance(node, Weight | Input) and type(node) is wanted
    ]


def near_names(pattern: str, known: Iterable[tuple[str, Node]]) -> str:
    """Return what to say of the names closest to a pattern: near ones as a whole, or near words where it has several."""
    names = [name for name, _ in known]
    if "*" not in pattern:
        return near(pattern, names) or _some(names)
    words = {word for name in names for word in name.split(".")}
    wrong = [word for word in re.split(r"[*.]+", pattern) if word and not any(word in one for one in words)]
    told = "".join(f"; no name has {word!r}{near(word, words).replace(';', ',')}" for word in wrong)
    return told or _some(names)


def named(pattern: str) -> Named:
    """Return the matcher of the nodes under a name of the circuit's table, or of a result; `*` stands for any text.

    Use it for names that are no addresses: module paths by pattern, recognisers' notes, names of your own.

    >>> named("blocks.*.mlp")
    named('blocks.*.mlp')
    """
    return Named("named", pattern)


def weight(pattern: str) -> Named:
    """Return the matcher of the weights (leaves) whose stored name fits; `*` stands for any text.

    >>> weight("*.mlp.*")
    weight('*.mlp.*')
    """
    return Named("weight", pattern)


def input_named(pattern: str) -> Named:
    """Return the matcher of the inputs (leaves) of that name; `*` stands for any text."""
    return Named("input_named", pattern)


def reads_input(pattern: str) -> Related:
    """Return the matcher of the nodes that read an input of that name directly.

    >>> reads_input("input_ids")
    reads(input_named('input_ids'))
    """
    return reads(input_named(pattern))


def reads(what: Like) -> Related:
    """Return the matcher of the nodes that have a matched node among their operands."""
    return Related("reads", as_matcher(what))


def read_by(what: Like) -> Related:
    """Return the matcher of the operands of matched nodes."""
    return Related("read_by", as_matcher(what))


def depends_on(what: Like) -> Related:
    """Return the matcher of the nodes that read a matched node, directly or through others."""
    return Related("depends_on", as_matcher(what))


def feeds(what: Like) -> Related:
    """Return the matcher of the nodes that a matched node reads, directly or through others."""
    return Related("feeds", as_matcher(what))
