"""What a value depends on: inputs, data of a scrub, interventions; and how that is marked, by a letter and a colour.

A data set that is read row by row (`Gather` along `row`) counts as the index that chooses the row: two claims of a scrub that
draw two data depend on two names, though the data set is one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from scrubjay.circuit.circuit import Circuit, is_note
from scrubjay.circuit.graph import need_circuit, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Constant, Custom, Gather, Input, Map, Weight
from scrubjay.errors import CircuitError, near

COLOURS = ("blue", "red", "green", "orange")
"""The colours of the first, second, ... group; a value that depends on several groups is purple, on none grey."""

ROW = "row"
NOTHING = frozenset[str]()

_TERMINAL = {"blue": 94, "red": 91, "green": 92, "orange": 93, "purple": 95, "grey": 90}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def dependence(circuit: Circuit) -> dict[Node, frozenset[str]]:
    """Return for every node, those that only the table names included, the names of what it depends on.

    Names are those of inputs, and `change ...` for what interventions brought in: `change at L3.H7.z` for a number put at an
    address, `change interventions-1` for tensors and functions, by the store that holds them.

    >>> from scrubjay.circuit.axes import Axis
    >>> from scrubjay.circuit.ops import Add
    >>> rows = Input("rows.x", (Axis("row", "row"),))
    >>> one, other = (Gather(rows, "row", Input(name, (Axis("batch", "batch"),), "int64")) for name in ("one", "other"))
    >>> found = dependence(Circuit({"output": Add((one, other))}))
    >>> sorted(found[one]), sorted(found[Add((one, other))])
    (['one'], ['one', 'other'])
    """
    need_circuit(circuit)
    order = topological([*circuit.roots.values(), *circuit.table.values()])
    main = main_source(order)
    by_row = frozenset(node.name for node in order if isinstance(node, Input) and ROW in node.axis_names)
    found: dict[Node, frozenset[str]] = {}
    for node in order:
        if isinstance(node, Gather) and node.axis == ROW:
            found[node] = (found[node.source] - by_row) | found[node.index]
            continue
        own = node.name if isinstance(node, Input) else change_of(node, main)
        parts = {found[operand] for operand in node.operands} - {NOTHING}
        if own is not None:
            parts.add(frozenset({own}))
        found[node] = NOTHING.union(*parts) if len(parts) != 1 else next(iter(parts))
    return found


def main_source(nodes: Iterable[Node]) -> str:
    """Return where most weights come from: the model itself."""
    sources = Counter(node.source for node in nodes if isinstance(node, Weight))
    return sources.most_common(1)[0][0] if sources else ""


def change_of(node: Node, main: str) -> str | None:
    """Return what an intervention's own node is called, and `None` for any other: `main` is the model's own source."""
    if isinstance(node, Weight | Custom) and node.source != main:
        return f"change {node.source}"
    if (
        isinstance(node, Map)
        and node.op == "cast"
        and len(node.parameters) == 2
        and isinstance(node.inputs[0], Constant)
    ):
        return f"change at {node.parameters[1]}"
    return None


def changed_places(circuit: Circuit, before: Circuit) -> tuple[str, ...]:
    """Return the addresses at which a circuit first differs from an earlier one: what else differs is computed from them.

    >>> x, y = Input("x", ()), Input("y", ())
    >>> old, new = (Map("relu", (value,)) for value in (x, y))
    >>> changed_places(Circuit({"output": new}, {"in": y, "out": new}), Circuit({"output": old}, {"in": x, "out": old}))
    ('in',)
    """
    moved: dict[Node, list[str]] = {}
    for address, node in circuit.table.items():
        if not is_note(address) and before.table.get(address, node) is not node:
            moved.setdefault(node, []).append(address)
    over: set[Node] = set()
    for node in topological(circuit.table.values()):
        if any(operand in moved or operand in over for operand in node.operands):
            over.add(node)
    return tuple(address for node, addresses in moved.items() if node not in over for address in addresses)


@dataclass(frozen=True, eq=False)
class Marking:
    """Which of a few named groups each node depends on, and whether it depends on an intervention.

    Attributes:
        groups: the names of the groups, in order: the first is blue, the second red, then green and orange.
        letters: the letter that stands for each group.
        found: the groups of each node, in order.
        changed: the nodes that depend on an intervention; their marks end in `*`.
    """

    groups: tuple[str, ...]
    letters: Mapping[str, str]
    found: Mapping[Node, tuple[str, ...]]
    changed: frozenset[Node]

    def mark(self, node: Node) -> str:
        """Return the letters of a node's groups, `-` for none, with `*` after a change."""
        return ("".join(self.letters[name] for name in self.found.get(node, ())) or "-") + "*" * (node in self.changed)

    def colour(self, node: Node) -> str:
        """Return `blue`, `red`, `green` or `orange` for one group, `purple` for several, `grey` for none."""
        mine = self.found.get(node, ())
        return "purple" if len(mine) > 1 else COLOURS[self.groups.index(mine[0])] if mine else "grey"

    def legend(self) -> tuple[tuple[str, str, str], ...]:
        """Return (mark, colour, meaning) for each mark that is met, those of one group first."""
        met = set(self.found.values())
        rows = [(self.letters[name], COLOURS[place], name) for place, name in enumerate(self.groups) if (name,) in met]
        mixed = sorted((names for names in met if len(names) > 1), key=lambda names: (len(names), names))
        rows += [("".join(self.letters[one] for one in names), "purple", " and ".join(names)) for names in mixed]
        rows += [("-", "grey", "none of these")] if () in met else []
        return (*rows, *([("*", "", "after an intervention")] if self.changed else []))


def marking(
    circuit: Circuit, groups: Mapping[str, str | Sequence[str]] | None = None, before: Circuit | None = None
) -> Marking:
    """Return what each node is marked with.

    Args:
        circuit: what is marked.
        groups: at most four groups of names that `dependence` gives, e.g. `{"original": "datum.reference", "other":
            "datum.*/other"}`; `*` is any text. A name without a group is not marked. Each input is its own group if not given.
        before: the circuit before the interventions, where it is at hand: what is not part of it counts as changed.

    Raises `CircuitError` for a pattern that no name fits, a name in two groups, and more than four groups.

    >>> x, y = Input("clean", ()), Input("other", ())
    >>> total = Map("maximum", (x, y))
    >>> made = marking(Circuit({"output": total}))
    >>> [(made.mark(node), made.colour(node)) for node in (x, y, total)]
    [('C', 'blue'), ('O', 'red'), ('CO', 'purple')]
    """
    depends = dependence(circuit)
    leaves = [node.name for node in depends if isinstance(node, Input)]
    read = NOTHING.union(*depends.values())
    names = [name for name in dict.fromkeys(leaves) if any(name in depends[root] for root in circuit.roots.values())]
    group_of = _grouped(groups if groups is not None else {name: name for name in names}, sorted(read))
    order = tuple(dict.fromkeys(group_of.values()))
    kinds = {
        one: tuple(name for name in order if name in {group_of.get(each) for each in one})
        for one in {*depends.values()}
    }
    main = main_source(depends)
    changed = {node for node in depends if change_of(node, main) is not None}
    if before is not None:
        old = {*topological([*before.roots.values(), *before.table.values()])}
        changed |= {node for node in depends if node not in old}
    for node in depends:
        if not changed.isdisjoint(node.operands):
            changed.add(node)
    return Marking(order, _letters(order), {node: kinds[one] for node, one in depends.items()}, frozenset(changed))


def painted(line: str, colour: str) -> str:
    r"""Return a line as a terminal shows it in a colour; as it is where the colour is empty.

    Control characters of a name are shown as `?`, so that none can change colours or move the cursor.

    >>> painted("L0.attn.z", "red"), painted("L0.attn.z", "")
    ('\x1b[91mL0.attn.z\x1b[0m', 'L0.attn.z')
    """
    return f"\x1b[{_TERMINAL[colour]}m{_CONTROL.sub('?', line)}\x1b[0m" if colour else line


def _grouped(groups: Mapping[str, str | Sequence[str]], names: Sequence[str]) -> dict[str, str]:
    """Return the group of each name."""
    if len(groups) > len(COLOURS):
        raise CircuitError(
            f"{len(groups)} groups were asked for ({', '.join(groups)}), and {len(COLOURS)} can be told apart by colour: put names "
            'together, e.g. groups={"original": "datum.reference", "other": "datum.*/other"}'
        )
    found: dict[str, str] = {}
    for group, given in groups.items():
        for pattern in (given,) if isinstance(given, str) else given:
            fitting = [name for name in names if name == pattern] or [
                name for name in names if fnmatchcase(name, pattern)
            ]
            if not fitting:
                raise CircuitError(
                    f"group {group!r}: no value depends on anything called {pattern!r}{near(pattern, names)}; "
                    f"there is {', '.join(names) or 'nothing'}"
                )
            for name in fitting:
                if found.setdefault(name, group) != group:
                    raise CircuitError(f"{name!r} is in two groups, {found[name]!r} and {group!r}: leave it in one")
    order = list(groups)
    return dict(sorted(found.items(), key=lambda item: order.index(item[1])))


def _letters(groups: Sequence[str]) -> dict[str, str]:
    """Return a letter of its own for each group: one of its name where there is one left, else a digit."""
    made: dict[str, str] = {}
    for place, name in enumerate(groups):
        last = name.rpartition(".")[2] + name
        options = [*(letter.upper() for letter in last if letter.isascii() and letter.isalpha()), str(place + 1)]
        made[name] = next(option for option in options if option not in made.values())
    return made
