"""A circuit written out in full, close to its printed table, and read back to the same object by `parse`.

    scrubjay notation 1
    in.x = input(x, dims=[batch query model=4])
    up = weight(model, up, dims=[hidden=8, model=4])
    L0.mlp.pre [batch query hidden=8] = einsum("batch query model, hidden model -> batch query hidden", in.x, up)
    output [batch query hidden=8] = relu(L0.mlp.pre) * 2.0
    results (output)
    places (in.x, L0.mlp.pre, L0.mlp.post = output)

One statement a value, operands first: its name, its axes, what it is. A value used once and short stands where it is used.
A name is an address, else that of a weight or input, else a number (`#1`). `places` is the table, in order; `place = name`
where another address names the value. Nothing is left out: numbers keep their type and bits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scrubjay.circuit import ops
from scrubjay.circuit.circuit import Circuit, is_note
from scrubjay.circuit.graph import need_circuit, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Along, Constant, Custom, Einsum, Input, Iota, Map, Multiply, Weight
from scrubjay.circuit.printing.fields import Say, as_axes, is_default, parts
from scrubjay.circuit.printing.tokens import as_name, as_number, as_text, as_word, is_bare, is_name
from scrubjay.circuit.printing.words import axis_order
from scrubjay.circuit.spelling import LAYER_SITES, MODEL_SITES
from scrubjay.errors import CircuitError

FORMAT, VERSION = "scrubjay notation", 1
SHORT, WIDTH = 60, 120
"""The longest text that stands where it is used, and the longest line where it can be broken."""

UNNAMED_FIELDS: dict[type[Node], int] = {Weight: 2, Custom: 3}
"""How many fields are written without their names: one, if not listed."""

_SITE = re.compile(r"L\d+\.(?:H\d+\.)?([^.]+(?:\.[^.]+)*)")
_CHUNK = re.compile(r'(?:"(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`|[^\s"`])+')


def write(circuit: Circuit | Node) -> str:
    """Return a circuit, or one node as the result `output`, as text that `parse` reads back to the same object.

    Raises `CircuitError` for a node whose field holds a value of another type than it declares, and for what is no circuit.

    >>> from scrubjay.circuit.axes import Axis
    >>> x = Input("x", (Axis("model", 4),))
    >>> print(write(Circuit({"output": Map("relu", (Add((x, Constant(1.0))),))}, {"in.x": x})), end="")
    scrubjay notation 1
    in.x = input(x, dims=[model=4])
    output [model=4] = relu(in.x + 1.0)
    results (output)
    places (in.x)
    """
    if isinstance(circuit, Node):
        circuit = Circuit({"output": circuit})
    need_circuit(circuit)
    order = topological([*circuit.roots.values(), *circuit.table.values()])
    names = _names(circuit, order)
    uses = Counter(operand for node in order for operand in node.operands)
    texts: dict[Node, str] = {}
    lines = [f"{FORMAT} {VERSION}"]
    number = 0
    for node in order:
        made = expression(node, texts.__getitem__)
        name = names.get(node)
        if name is None and (isinstance(node, Constant) or (uses[node] == 1 and len(made) <= SHORT)):
            texts[node] = made
            continue
        if name is None:
            number += 1
            name = f"#{number}"
        texts[node] = name
        axes = "" if isinstance(node, Input | Weight | Iota) else f" {as_axes(node.axes)}"
        lines.append(f"{name}{axes} = {made}")
    lines += _frame(circuit, texts)
    return "\n".join(line if len(line) <= WIDTH else _broken(line) for line in lines) + "\n"


def words() -> dict[str, type[Node]]:
    """Return the word that each kind is written with; `Map` and `Along` are written with the functions they hold."""
    return {kind.__name__.lower(): kind for kind in ops.KINDS if kind not in (Map, Along)}


def _names(circuit: Circuit, order: Sequence[Node]) -> dict[Node, str]:
    """Return what the named nodes are called: an address, for an input or weight without one its own name if that is free."""
    best: dict[Node, tuple[int, str]] = {}
    for given in (circuit.table, circuit.roots):
        for address, node in given.items():
            if given is circuit.roots and address in circuit.table:
                continue  # here the address of another node, perhaps
            place = rank(address)
            if node not in best or place < best[node][0]:
                best[node] = place, address
    taken = {*circuit.table, *circuit.roots}
    found = {node: as_name(address) for node, (_, address) in best.items() if not isinstance(node, Constant)}
    for node in order:
        if isinstance(node, Weight | Input) and node not in found and node.name not in taken:
            taken.add(node.name)
            found[node] = as_name(node.name)
    return found


def rank(address: str) -> int:
    """Sort sites first, other addresses next, those in quotes after them, notes last."""
    if is_note(address):
        return 3
    if not is_bare(address):
        return 2
    site = _SITE.fullmatch(address)
    return 0 if address in MODEL_SITES or (site and site[1] in LAYER_SITES) else 1


def _frame(circuit: Circuit, texts: Mapping[Node, str]) -> list[str]:
    """Return the statements after the values: results, places, what was removed, the history."""

    def listed(word: str, given: Mapping[str, Node]) -> str:
        items = (
            name if (name := as_name(key)) == texts[node] else f"{name} = {texts[node]}" for key, node in given.items()
        )
        return f"{word} ({', '.join(items)})"

    lines = [listed("results", circuit.roots)]
    if circuit.table:
        lines.append(listed("places", circuit.table))
    if circuit.removed:
        lines.append(f"removed ({', '.join(f'{as_name(at)} = {as_text(by)}' for at, by in circuit.removed.items())})")
    if circuit.history:
        lines.append(f"history ({', '.join(map(as_text, circuit.history))})")
    return lines


def _broken(line: str) -> str:
    """Return a long statement over several lines, broken at spaces outside quotes."""
    lines = [""]
    for chunk in _CHUNK.findall(line):
        if lines[-1] and len(lines[-1]) + 1 + len(chunk) > WIDTH:
            lines.append("   ")
        lines[-1] += f" {chunk}" if lines[-1] else chunk
    return "\n".join(lines)


# --- expressions ------------------------------------------------------------------------------------------------------


def expression(node: Node, say: Say) -> str:
    """Return what a node is, given what its operands are called."""
    kind = type(node)
    if kind not in ops.KINDS:
        raise CircuitError(f"{node!r} is of a kind that is not listed in KINDS and cannot be written")
    return _SUGAR.get(kind, _call)(node, say)


def _field(node: Node, name: str, say: Say) -> str:
    """Return the text of a field."""
    part = next(part for part in parts(type(node)) if part.name == name)
    try:
        return part.form.write(getattr(node, name), say)
    except CircuitError as error:
        raise CircuitError(f"{node!r} cannot be written: its field {name!r} holds {error}") from error


def _call(node: Node, say: Say) -> str:
    """Return `kind(first, field=value, ...)`: the form of every kind without one of its own."""
    kind = type(node)
    bare = UNNAMED_FIELDS.get(kind, 1)
    shown: list[str] = []
    for place, part in enumerate(parts(kind)):
        if place < bare:
            shown.append(_field(node, part.name, say))
        elif not is_default(part, getattr(node, part.name)):
            shown.append(f"{part.name}={_field(node, part.name, say)}")
    return f"{kind.__name__.lower()}({', '.join(shown)})"


def _constant(node: Constant, say: Say) -> str:
    return _call(node, say) if node.dtype is not None or isinstance(node.value, str) else as_number(node.value)


def _signed(sign: str, word: str, operands: Sequence[Node], say: Say) -> str:
    """Return `a + b`, with what has a sign itself in parentheses; a sum of one is `add(a)`."""
    if len(operands) == 1:
        return f"{word}({say(operands[0])})"
    texts = ((one, say(one)) for one in operands)
    return f" {sign} ".join(f"({text})" if _has_sign(one) and not is_name(text) else text for one, text in texts)


def _has_sign(node: Node) -> bool:
    """Tell whether a node is written as a sum, a product or a quotient where it stands."""
    if isinstance(node, Map):
        return node.op == "divide" and len(node.inputs) == 2 and not node.parameters
    return isinstance(node, Add | Multiply) and len(node.operands) > 1


def _map(node: Map, say: Say) -> str:
    if _has_sign(node):
        return _signed("/", "divide", node.inputs, say)
    return f"{as_word(node.op)}({', '.join(map(say, node.inputs))}{_parameters(node, say)})"


def _along(node: Along, say: Say) -> str:
    return f"{as_word(node.op)}({say(node.source)}, over={_field(node, 'over', say)}{_parameters(node, say)})"


def _parameters(node: Map | Along, say: Say) -> str:
    return f"; {_field(node, 'parameters', say)[1:-1]}" if node.parameters else ""


def _einsum(node: Einsum, say: Say) -> str:
    orders = [axis_order(factor) for factor in node.factors]
    result = [axis.name for axis in node.axes]
    operands = [say(factor) for factor in node.factors]
    all_summed = f"summed={_field(node, 'summed', say)}"
    if not all(map(is_bare, [*(name for order in orders for name in order), *result])):
        return f"einsum({', '.join([*operands, all_summed])})"
    spec = f"{', '.join(' '.join(order) or '1' for order in orders)} -> {' '.join(result) or '1'}"
    summed = [] if in_sight(orders, result) == node.summed else [all_summed]
    return f"einsum({', '.join([as_text(spec), *operands, *summed])})"


def in_sight(orders: Sequence[Sequence[str]], result: Sequence[str]) -> tuple[str, ...]:
    """Return the axes that are summed, in the order in which the operands of an einsum name them."""
    return tuple(dict.fromkeys(name for order in orders for name in order if name not in result))


_SUGAR: dict[type[Node], Callable[[Any, Say], str]] = {
    Constant: _constant,
    Add: lambda node, say: _signed("+", "add", node.terms, say),
    Multiply: lambda node, say: _signed("*", "multiply", node.factors, say),
    Einsum: _einsum,
    Map: _map,
    Along: _along,
}
"""The kinds that are written in a form of their own."""
