"""What changed between two circuits: the smallest expressions that differ, where they stand, and what depends on them.

Both circuits are walked together from the addresses and results they share. Where two values are of one kind and differ in
what they read alone, the difference is further down; where not, this is it. What many layers or heads have alike is told once.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, cast

from scrubjay.circuit.circuit import Circuit, is_note
from scrubjay.circuit.graph import need_circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Constant, Input, Multiply, Weight
from scrubjay.circuit.printing.notation import expression, rank
from scrubjay.circuit.printing.words import runs

LEVELS, OPERANDS, LONGEST = 4, 60, 240
"""How many unnamed values an expression shows in each other and in all, and the longest text of one."""

_PLACE = re.compile(r"\bL(\d+)\b")
_PLACED = re.compile(r"L(\d+)\.(?:H(\d+)\.)?(.+)")
_NUMBER = re.compile(r"(?<=[A-Za-z_]\.)\d+(?=\.[A-Za-z_])")  # of a layer, in the name of a weight


class Digested(Protocol):
    """A store that can tell the fingerprint of a weight."""

    def digest(self, name: str) -> str:
        """Return the fingerprint of a stored tensor's values."""
        ...


Stores = Mapping[str, Any]
"""Stores by source, each `Digested`."""


@dataclass(frozen=True)
class Change:
    """One expression that became another: at which addresses alike, and the texts before and after at the first."""

    at: tuple[str, ...]
    before: str
    after: str

    def __str__(self) -> str:
        """Print it as git does."""
        alike = f"   (as at {self.at[0]})" if len(self.at) > 1 else ""
        return f"{', '.join(shortened(self.at))}{alike}\n  - {self.before}\n  + {self.after}"


@dataclass(frozen=True)
class Difference:
    """What `diff` found; false when the two circuits are the same (and, where stores were given, their weights).

    Attributes:
        rewrites: the history of the second that the first lacks.
        undone: the history of the first that the second lacks.
        changed: the smallest expressions that differ.
        rebound: weights that are found elsewhere or otherwise: name, before, after.
        revalued: weights of other values, where stores were given.
        appeared, vanished: addresses and results that one of the two lacks.
        depends: addresses whose value is another only because of what is below them.
        cut_off: addresses that results depend on in the first, and not in the second.
        inputs_added, inputs_removed: inputs by name.
        notes: how many notes of the recognisers differ in what they name.
        by_name: whether weights were compared by name alone: both circuits read some, and no stores were given.
    """

    rewrites: tuple[str, ...] = ()
    undone: tuple[str, ...] = ()
    changed: tuple[Change, ...] = ()
    rebound: tuple[tuple[str, str, str], ...] = ()
    appeared: tuple[str, ...] = ()
    vanished: tuple[str, ...] = ()
    depends: tuple[str, ...] = ()
    cut_off: tuple[str, ...] = ()
    inputs_added: tuple[str, ...] = ()
    inputs_removed: tuple[str, ...] = ()
    notes: int = 0
    revalued: tuple[str, ...] = ()
    by_name: bool = field(default=False, compare=False)

    def __bool__(self) -> bool:
        """Tell whether anything differs."""
        return self != Difference()

    def to_dict(self) -> dict[str, Any]:
        """Return it as values that `json.dumps` takes."""
        plain = {item.name: cast("object", getattr(self, item.name)) for item in fields(self)}
        made = {
            name: list(cast("tuple[object, ...]", value)) for name, value in plain.items() if isinstance(value, tuple)
        }
        changed = [{"at": list(one.at), "before": one.before, "after": one.after} for one in self.changed]
        rebound = [list(one) for one in self.rebound]
        return {**plain, **made, "changed": changed, "rebound": rebound}

    def __str__(self) -> str:
        """Print it: the rewrites, the changed expressions as git does, then lists of addresses, layers together."""
        if not self:
            return f"no difference{' (weights were compared by name: give stores= to compare values)' if self.by_name else ''}"
        lines = [f"rewritten: {one}" for one in self.rewrites]
        lines += [f"not rewritten: {one}" for one in self.undone]
        lines += [str(one) for one in self.changed]
        lines += _rebound_lines(self.rebound)
        if self.revalued:
            more = f" and {len(self.revalued) - 5} more" if len(self.revalued) > 5 else ""
            lines.append(f"weights of other values: {', '.join(self.revalued[:5])}{more}")
        for words, names in (
            ("inputs added", self.inputs_added),
            ("inputs removed", self.inputs_removed),
            ("appeared", self.appeared),
            ("vanished", self.vanished),
            ("no result depends any more on", self.cut_off),
            ("other values because of these", self.depends),
        ):
            if names:
                lines.append(f"{words}: {', '.join(shortened(names))}")
        if self.notes:
            lines.append(f"notes of the recognisers that differ: {self.notes}")
        return "\n".join(lines)


def diff(before: Circuit, after: Circuit, *, stores: tuple[Stores, Stores] | None = None) -> Difference:
    """Return what changed from one circuit to the other; `str` of it is for reading, and it is false if nothing did.

    Args:
        before: the one circuit.
        after: the other.
        stores: where the weights of each are found, as `(one.stores, other.stores)` of two models. Their values are compared
            too then; a circuit itself says only what a weight is called, and two models may call all of theirs alike.

    Raises `CircuitError` for a model where a circuit is meant.

    >>> from scrubjay.circuit.axes import Axis
    >>> from scrubjay.circuit.ops import Map
    >>> x = Input("x", (Axis("model", 4),))
    >>> post = Map("relu", (x,))
    >>> circuit = Circuit({"output": Add((x, post))}, {"in.x": x, "L0.mlp.post": post})
    >>> print(diff(circuit, circuit.rewrite({post: Constant(0.0)}, "zero L0.mlp.post")))
    rewritten: zero L0.mlp.post
    L0.mlp.post
      - relu(in.x)
      + 0.0
    other values because of these: output
    """
    old, new = _places(before), _places(after)
    shared = _common(before.history, after.history)
    known = sorted((name for name in old if not is_note(name)), key=rank)  # sites before modules
    starts: dict[tuple[Node, Node], str] = {}
    for name in known:
        if name in new and old[name] is not new[name]:
            starts.setdefault((old[name], new[name]), name)
    smallest = _smallest(starts)
    here = {owner for owner, _, _ in smallest}
    names = _called(before), _called(after)
    rebound = [
        (one, two)
        for _, one, two in smallest
        if isinstance(one, Weight) and isinstance(two, Weight) and one.name == two.name
    ]
    found = [(owner, *_texts(one, two, *names)) for owner, one, two in smallest if (one, two) not in rebound]
    inputs = before.inputs, after.inputs
    cut_off: dict[object, str] = {}
    for name in sorted(after.removed, key=rank):
        if name not in before.removed and not is_note(name):
            cut_off.setdefault(after.table.get(name, name), name)
    named_notes = {name for name in (*before.table, *after.table) if is_note(name)}
    return Difference(
        rewrites=tuple(after.history[shared:]),
        undone=tuple(before.history[shared:]),
        changed=_grouped(found),
        rebound=tuple((one.name, _binding(one), _binding(two)) for one, two in dict.fromkeys(rebound)),
        appeared=tuple(name for name in new if name not in old and not is_note(name)),
        vanished=tuple(name for name in old if name not in new and not is_note(name)),
        depends=tuple(name for name in starts.values() if name not in here),
        cut_off=tuple(cut_off.values()),
        inputs_added=tuple(name for name in inputs[1] if name not in inputs[0]),
        inputs_removed=tuple(name for name in inputs[0] if name not in inputs[1]),
        notes=sum(before.table.get(name) is not after.table.get(name) for name in named_notes),
        revalued=_revalued(before, after, stores) if stores is not None else (),
        by_name=stores is None and before is not after and bool(before.weights) and bool(after.weights),
    )


def _revalued(before: Circuit, after: Circuit, stores: tuple[Stores, Stores]) -> tuple[str, ...]:
    """Return the names of the weights that both circuits read, and that their stores hold different values of."""
    found: list[str] = []
    for name in (name for name in before.weights if name in after.weights):
        digests = [
            side[one.weights[name].source].digest(name) for side, one in zip(stores, (before, after), strict=True)
        ]
        if digests[0] != digests[1]:
            found.append(name)
    return tuple(found)


def _common(one: Sequence[str], two: Sequence[str]) -> int:
    """Return how many entries two histories begin with alike."""
    return next(
        (place for place, pair in enumerate(zip(one, two, strict=False)) if pair[0] != pair[1]), min(len(one), len(two))
    )


def _places(circuit: Circuit) -> dict[str, Node]:
    """Return all named values; a result that is another value than the address of its name goes by `result NAME`."""
    need_circuit(circuit)
    table = circuit.table
    results = {
        name if table.get(name, node) is node else f"result {name}": node for name, node in circuit.roots.items()
    }
    return {**table, **results}


def _smallest(starts: Mapping[tuple[Node, Node], str]) -> list[tuple[str, Node, Node]]:
    """Return the pairs of values that differ themselves, each with the address at or above it where the walk met it."""
    owners = dict(starts)
    found: list[tuple[str, Node, Node]] = []
    stack = [(one, two, name) for (one, two), name in reversed(owners.items())]
    while stack:
        one, two, name = stack.pop()
        below = _below(one, two)
        if below is None:
            found.append((name, one, two))
            continue
        for pair in below:
            if pair not in owners:
                owners[pair] = name
                stack.append((*pair, name))
    return found


def _below(one: Node, two: Node) -> list[tuple[Node, Node]] | None:
    """Return the operands that make two values differ, or `None` where they differ themselves.

    Sums (and products) are laid side by side by the terms they have in common, in whatever order: what is left is compared.
    """
    if (isinstance(two, Add | Multiply) and one in two.operands) or (
        isinstance(one, Add | Multiply) and two in one.operands
    ):
        return None  # the one is a term of the other
    if type(one) is type(two) and isinstance(one, Add | Multiply):
        common = Counter(one.operands) & Counter(two.operands)
        left, right = _left(one, common), _left(two, common)
        return [*zip(left, right, strict=True)] if left and len(left) == len(right) else None
    if type(one) is not type(two) or len(one.operands) != len(two.operands) or not one.operands:
        return None
    if _own(one) != _own(two):
        return None
    pairs = zip(one.operands, two.operands, strict=True)
    return [pair for pair in pairs if pair[0] is not pair[1]]


def _left(node: Node, common: Counter[Node]) -> list[Node]:
    """Return the operands without those that are in common, each as often as it is."""
    have, left = common.copy(), list[Node]()
    for operand in node.operands:
        if have[operand]:
            have[operand] -= 1
        else:
            left.append(operand)
    return left


def _own(node: Node) -> list[object]:
    """Return what a node holds besides its operands, so that 1 and 1.0 are told apart; the number of operands in each field."""
    values = [cast("object", getattr(node, item.name)) for item in fields(cast("Any", node))]
    return [
        _count(cast("tuple[object, ...]", one)) if isinstance(one, tuple) else repr(one)
        for one in values
        if not isinstance(one, Node)
    ]


def _count(values: tuple[object, ...]) -> object:
    return len(values) if any(isinstance(one, Node) for one in values) else repr(values)


# --- texts ------------------------------------------------------------------------------------------------------------


def _called(circuit: Circuit) -> Mapping[Node, str]:
    """Return what values are called: the a site, else a module, else as a weight or input itself."""
    found: dict[Node, str] = {}
    for name in sorted(circuit.table, key=rank):
        if not is_note(name):
            found.setdefault(circuit.table[name], name)
    for node in circuit.nodes:
        if isinstance(node, Weight | Input):
            found.setdefault(node, node.name)
    return found


def _texts(one: Node, two: Node, old: Mapping[Node, str], new: Mapping[Node, str]) -> tuple[str, str]:
    """Return two values as texts; of two sums or products, or one that is a term of the other, only the terms that differ."""
    for kind, sign in ((Add, " + "), (Multiply, " * ")):
        terms = [list(each.operands) if isinstance(each, kind) else [each] for each in (one, two)]
        if isinstance(one, kind) and one in two.operands:
            terms[0] = [one]
        if isinstance(two, kind) and two in one.operands:
            terms[1] = [two]
        common = Counter(terms[0]) & Counter(terms[1])
        if (isinstance(one, kind) or isinstance(two, kind)) and common and Counter(terms[0]) != Counter(terms[1]):
            return _rest(terms[0], common, old, sign), _rest(terms[1], common, new, sign)
    return _text(one, old, top=True), _text(two, new, top=True)


def _rest(terms: Sequence[Node], common: Counter[Node], names: Mapping[Node, str], sign: str) -> str:
    """Return terms as text, the common ones as dots."""
    have, texts = common.copy(), ["…"]
    for term in terms:
        if have[term]:
            have[term] -= 1
        else:
            texts.append(_text(term, names))
    return sign.join(texts)


def _text(node: Node, names: Mapping[Node, str], *, top: bool = False) -> str:
    """Return a value by its name, or as an expression of at most `LEVELS` in each other and `OPERANDS` in all."""
    left = [OPERANDS]

    def called(one: Node, level: int) -> str:
        if one in names and (level or not top):
            return names[one]
        left[0] -= 1
        if not isinstance(one, Constant) and (level >= LEVELS or left[0] < 0):
            return "…"
        return expression(one, lambda operand: called(operand, level + 1))

    return called(node, 0)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def _binding(weight: Weight) -> str:
    dims = " ".join(map(str, weight.axes))
    return f"{weight.source} [{dims}] {weight.dtype}"


def _rebound_lines(rebound: Iterable[tuple[str, str, str]]) -> list[str]:
    """Return weights that moved alike (source and type, with shapes of their own) in one line."""
    alike: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for name, before, after in rebound:
        same = before.partition(" ")[2] == after.partition(" ")[2]
        key = (before.partition(" ")[0], after.partition(" ")[0]) if same else (before, after)
        alike[key].append(name)
    return [
        f"weights rebound: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}\n  - {one}\n  + {two}"
        for (one, two), names in alike.items()
    ]


# --- layers and heads alike -------------------------------------------------------------------------------------------


def _grouped(found: Sequence[tuple[str, str, str]]) -> tuple[Change, ...]:
    """Return changes, those that say the same of their own layer and head together."""
    alike: defaultdict[object, list[tuple[str, str, str]]] = defaultdict(list)
    for name, before, after in found:
        place = _PLACED.fullmatch(name)
        if place is None:
            alike[name, before, after].append((name, before, after))
            continue
        texts = tuple(_relative(text, int(place[1])) for text in (before, after))
        alike[place[3], place[2] is None, texts].append((name, before, after))
    return tuple(
        Change(tuple(dict.fromkeys(name for name, _, _ in group)), _short(group[0][1]), _short(group[0][2]))
        for group in alike.values()
    )


def _relative(text: str, layer: int) -> str:
    """Return a text with layers counted from this one, so that all layers say the same of themselves and their neighbours."""
    text = _PLACE.sub(lambda found: f"L{int(found[1]) - layer:+d}", text)
    return _NUMBER.sub(lambda found: f"{int(found[0]) - layer:+d}", text)


def shortened(names: Iterable[str]) -> list[str]:
    """Return addresses with those of one site in all of several layers or heads as one.

    >>> shortened(["L0.mlp.out", "L1.mlp.out", "L2.mlp.out", "L0.H0.z", "L0.H1.z", "L5.mlp.out", "logits"])
    ['L0..2.mlp.out, L5.mlp.out', 'L0.H0..1.z', 'logits']
    """
    sites: dict[tuple[str, bool], dict[int, list[int]]] = {}
    order: list[tuple[str, bool] | str] = []
    for name in names:
        place = _PLACED.fullmatch(name)
        if place is None:
            order.append(name)
            continue
        key = (place[3], place[2] is not None)
        if key not in sites:
            order.append(key)
        sites.setdefault(key, {}).setdefault(int(place[1]), []).append(int(place[2] or 0))
    return [one if isinstance(one, str) else _site(one[0], one[1], sites[one]) for one in order]


def _site(site: str, headed: bool, layers: Mapping[int, Sequence[int]]) -> str:
    """Return one site's layers and heads as ranges."""
    by_heads: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for layer, heads in layers.items():
        by_heads[tuple(sorted(set(heads)))].append(layer)
    return ", ".join(
        f"L{run}.{f'H{heads_run}.' if headed else ''}{site}"
        for heads, numbers in by_heads.items()
        for run in runs(numbers)
        for heads_run in runs(heads)
    )
