"""A circuit: named results, and a table from address to node kept outside the nodes.

Rewrites make new circuits. The table is carried over by every rewrite; an address that no result reads any more since
some rewrite can still be read, and remembers that rewrite.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from scrubjay.circuit.graph import substitute, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Input, Map, Opaque, Weight
from scrubjay.errors import AddressError, CircuitError, near


def is_note(address: str) -> bool:
    """Tell whether an address of a table is the recognisers' own note, which names nothing for users.

    >>> is_note("L0.attn._product"), is_note("L0.attn.o")
    (True, False)
    """
    return address.rpartition(".")[2].startswith("_") or address.startswith("_")


def layout_note(result: str) -> str:
    """Return the table's name for the note on how a result's dimensions lie in the module's own tensor."""
    return f"_out.{result}"


def unique_inputs(nodes: Iterable[Node]) -> dict[str, Input]:
    """Return the inputs among nodes by name; raise `CircuitError` where two of them have one name."""
    found: dict[str, Input] = {}
    for node in nodes:
        if isinstance(node, Input) and found.setdefault(node.name, node) is not node:
            raise CircuitError(
                f"two inputs are called {node.name!r}, {found[node.name]!r} and {node!r}: rename one of them"
            )
    return found


@dataclass(frozen=True, eq=False)
class Circuit:
    """Named results (`roots`) and named places (`table`: address text -> node) of one expression graph.

    `removed` maps an address that results depended on until a rewrite cut it off to the name of that rewrite: its value can
    still be read, and a change of it would change nothing. It has the addresses too that a rewrite has led readers around
    (`is_bypassed`): a change would reach only some of what it did. `history` lists the rewrites.
    """

    roots: Mapping[str, Node]
    table: Mapping[str, Node] = field(default_factory=dict[str, Node])
    removed: Mapping[str, str] = field(default_factory=dict[str, str])
    history: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a circuit that gives nothing."""
        if not self.roots:
            raise CircuitError("a circuit needs at least one result")

    def node(self, address: str) -> Node:
        """Return the node at an address of the table (or the result of that name); raise `AddressError` if there is none."""
        if address in self.table:
            return self.table[address]
        if address in self.roots:
            return self.roots[address]
        if address in self.removed:
            raise AddressError(f"{address}: this place is gone since the rewrite {self.removed[address]!r}")
        raise AddressError(f"{address}: no such place in this circuit{near(address, [*self.table, *self.roots])}")

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node below the results, operands first."""
        return tuple(topological(self.roots.values()))

    @cached_property
    def inputs(self) -> Mapping[str, Input]:
        """The inputs by name, those included that only a place of the table reads (where an edit has cut it off).

        Raises `CircuitError` where two inputs have one name: a run could not tell which of them is given.
        """
        everything = topological([*self.roots.values(), *self.table.values()])
        return unique_inputs(everything)

    @cached_property
    def weights(self) -> Mapping[str, Weight]:
        """The stored tensors by name."""
        return {node.name: node for node in self.nodes if isinstance(node, Weight)}

    @cached_property
    def _read(self) -> frozenset[Node]:
        return frozenset(self.nodes)

    def is_bypassed(self, address: str) -> bool:
        """Tell whether some rewrite led readers around an address that results still depend on; a change there is refused."""
        return address in self.removed and self.table.get(address) in self._read

    def rewrite(self, changes: Mapping[Node, Node], name: str) -> Circuit:
        """Return the circuit with each key of `changes` replaced by its value everywhere; `name` goes into the history."""
        everything = [*self.roots.values(), *self.table.values()]
        made = substitute(everything, changes)
        new = Circuit(
            {key: made[node] for key, node in self.roots.items()},
            {address: made[node] for address, node in self.table.items()},
            history=(*self.history, name),
        )
        return replace(new, removed=removed_by(self, new))

    def layout(self, result: str) -> tuple[str | None, ...]:
        """Return the axis of each dimension of a result as the captured module gives it; `None` is a dimension of size 1."""
        note = self.table.get(layout_note(result))
        if isinstance(note, Opaque):
            return tuple(dim[0].name if dim else None for dim in note.dims)
        return tuple(axis.name for axis in self.roots[result].axes)

    def mapped(self, made: Mapping[Node, Node]) -> Circuit:
        """Return the circuit with every result and place as `made` gives it: what a rule returned for all of them."""
        roots = {name: made[node] for name, node in self.roots.items()}
        return replace(self, roots=roots, table={address: made[node] for address, node in self.table.items()})

    def with_table(self, table: Mapping[str, Node]) -> Circuit:
        """Return the circuit with another address table."""
        return replace(self, table=dict(table))

    def exact(self) -> Circuit:
        """Return the same graph with its casts to a fixed floating type widened to the circuit's own type.

        Many models cast to 32 bits inside norms, softmax and rotary embeddings, even when run in 64; on the exact form
        every law holds to rounding in 64 bits.
        """
        wide = {"float16", "bfloat16", "float32"}
        changes: dict[Node, Node] = {}
        for node in self.nodes:
            if isinstance(node, Map) and node.op == "cast" and node.parameters[0] in wide:
                changes[node] = Map("cast", node.inputs, ("model",))
        # bottom-up, so that a cast below another is widened too
        return _replace_everywhere(self, changes)

    def explain(self) -> str:
        """Return the history as text: each rewrite in order, for equalities the rules with how often each was applied.

        >>> from scrubjay.circuit.ops import Add, Constant
        >>> from scrubjay.circuit.rules.algebra import FLATTEN_ADD
        >>> from scrubjay.circuit.rules.rewriting import rewrite
        >>> print(rewrite(Add((Constant(1), Add((Constant(1), Constant(2))))), FLATTEN_ADD).explain())
        1. equality: flatten_add x1
        """
        from scrubjay.circuit.rules.rewriting import explain  # noqa: PLC0415 - rules know circuits, and not the other way round

        return explain(self)

    def __str__(self) -> str:
        """Print the circuit from its results down, layers of equal structure once (`printing.show` has options)."""
        from scrubjay.circuit.printing.table import show  # noqa: PLC0415 - printing knows circuits, and not the other way round

        return show(self)

    def __repr__(self) -> str:
        """Say the size in one line."""
        return f"<Circuit {', '.join(self.roots)}: {len(self.nodes)} nodes, {len(self.table)} addresses>"


def removed_by(before: Circuit, after: Circuit, bypassed: Collection[str] = ()) -> dict[str, str]:
    """Return the `removed` of a circuit that a rewrite, the last of its history, made of another.

    These are the addresses that results do not depend on any more, those that the rewrite led readers around (`bypassed`), and
    those of either kind from before.
    """
    read, now, name = set(before.nodes), set(after.nodes), after.history[-1]
    found = {address: by for address, by in before.removed.items() if address not in after.table}
    for address, node in after.table.items():
        if node not in now:
            gone = not is_note(address) and (address in before.removed or before.table[address] in read)
        else:
            gone = address in bypassed or before.is_bypassed(address)
        if gone:
            found[address] = before.removed.get(address, name)
    return found


def _replace_everywhere(circuit: Circuit, changes: Mapping[Node, Node]) -> Circuit:
    """Replace nodes by nodes over the *rewritten* operands (a value's operands must be those of its key)."""
    made: dict[Node, Node] = {}
    for node in topological([*circuit.roots.values(), *circuit.table.values()]):
        made[node] = changes.get(node, node).with_operands([made[operand] for operand in node.operands])
    return Circuit(
        {name: made[node] for name, node in circuit.roots.items()},
        {name: made[node] for name, node in circuit.table.items()},
        circuit.removed,
        (*circuit.history, "exact"),
    )
