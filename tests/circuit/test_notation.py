"""The notation: what is written reads back as the same object, and what is wrong is refused with its place."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from every_kind import EXAMPLES
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import KINDS as NODE_KINDS
from scrubjay.circuit.ops import (
    Add,
    Along,
    Constant,
    Custom,
    Einsum,
    Index,
    Input,
    Iota,
    Map,
    Multiply,
    Relabel,
    Weight,
)
from scrubjay.circuit.ops.pointwise import KEEPING, MAPS, REDUCING
from scrubjay.circuit.printing.notation import words, write
from scrubjay.circuit.printing.parsing import parse
from scrubjay.circuit.rules.places import split_heads
from scrubjay.circuit.rules.sources import expand_residual
from scrubjay.errors import CircuitError
from scrubjay.testing.circuits import SOURCE, Example, circuits
from small_models import KINDS, captured

MODEL = Axis("model", 4)
X = Input("x", (MODEL,))
HEADER = "scrubjay notation 1\n"
START = f"{HEADER}x = input(x, dims=[batch model=4])\nw = weight(model, w, dims=[hidden=3, model=4])\n"


def check(circuit: Circuit, *sources: str) -> Circuit:
    text = write(circuit)
    made = parse(text, {name: name for name in (*sources, "model", SOURCE)})
    assert list(made.roots.items()) == list(circuit.roots.items())
    assert list(made.table.items()) == list(circuit.table.items())
    assert list(made.removed.items()) == list(circuit.removed.items())
    assert made.history == circuit.history
    return made


@pytest.mark.parametrize("kind", NODE_KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_reads_back_as_itself(kind: type[Node]) -> None:
    check(Circuit({"output": EXAMPLES[kind]}))
    check(Circuit({"output": Add((EXAMPLES[kind], Constant(1.0)))}, {"L0.here": EXAMPLES[kind]}))


def test_no_function_has_the_word_of_a_kind() -> None:
    assert len({*words(), *MAPS, *KEEPING, *REDUCING}) == len(words()) + len(MAPS) + len(KEEPING) + len(REDUCING)


NUMBERS = [
    0,
    1,
    True,
    False,
    1.0,
    0.0,
    -0.0,
    0.1,
    5e-324,
    1e308,
    1e22,
    math.inf,
    -math.inf,
    math.nan,
    2**70,
    -(10**9999),
]


@pytest.mark.parametrize("dtype", [None, "model"])
def test_numbers_keep_their_type_and_bits(dtype: str | None) -> None:
    terms = tuple(Constant(value, dtype) for value in (*NUMBERS, "min"))
    assert len(set(terms)) == len(terms)
    check(Circuit({"output": Add(terms), "alone": terms[0]}, {"nan": Constant(math.nan, dtype)}))


NAMES = [
    "a b",
    'say "so"',
    "back`tick",
    "two\nlines",
    "é.ü",
    "0",
    "#1",
    "true",
    "nan",
    "inf",
    "results",
    "",
    "a=b",
    "\ud800",
    "\u2028",
    "\\",
    "1",
]


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_are_kept(name: str) -> None:
    axis = Axis(name, 4)
    x, w = Input(name, (axis, Axis("n", f"{name}+1"))), Weight(name, name, ((), (axis, Axis("b", name))), name)
    body = Einsum((x, w, x), (name,))
    custom = Custom(name, name, Along("softmax", x, (name,), (name, 1.0)), (name, "n"))
    once = Map("cast", (Relabel(x, ((name, "other"),)),), (name,))
    circuit = Circuit(
        {"output": body, name: Add((custom, once, Iota(axis)))},
        {name: body, "other": x, f"{name}2": w},
        {name: name},
        (name, "then"),
    )
    check(circuit, name)


def test_sums_and_products_keep_their_nesting() -> None:
    two = Constant(2)
    a, b, c = (Multiply((X, two)), Add((two, X)), Map("divide", (X, two)))
    for first in (a, b, c):
        for second in (a, b, c):
            check(Circuit({"o": Add((first, second))}))
            check(Circuit({"o": Multiply((first, second, second))}))
            check(Circuit({"o": Map("divide", (first, second))}))
    check(Circuit({"o": Add((Add((X,)), Multiply((X,))))}))
    ticks = [Input(name, (MODEL,)) for name in ("a b", "c d")]
    check(Circuit({"o": Multiply((Add((ticks[0], ticks[1])), X))}))


@pytest.mark.parametrize("summed", [("batch", "model"), ("model", "batch"), ("model", "model"), ()])
def test_the_order_of_summed_axes_is_kept(summed: tuple[str, ...]) -> None:
    x = Input("x", (Axis("batch", "batch"), MODEL))
    check(Circuit({"output": Einsum((x, x), summed)}))


def test_one_name_may_be_a_result_and_the_address_of_another_value() -> None:
    two = Map("relu", (X,))
    check(Circuit({"a": X, "x": two}, {"x": Add((two, X)), "a": two}))


@given(circuits())
def test_random_circuits_read_back_as_themselves(example: Example) -> None:
    check(example.circuit)
    root = example.circuit.roots["output"]
    assert parse(write(root), {SOURCE: "random"}).roots == {"output": root}


@pytest.mark.parametrize("kind", KINDS)
def test_models_read_back_before_and_after_rewrites(kind: str) -> None:
    circuit = captured(kind)[1].exact().circuit
    check(circuit)
    split = split_heads(circuit)
    check(split)
    check(expand_residual(split))


def test_a_chain_of_many_nodes_is_quick_and_does_not_recurse() -> None:
    node: Node = X
    for place in range(5_000):
        node = Map("relu", (Add((node, Constant(place))),))
    circuit = Circuit({"output": node})
    start = time.perf_counter()
    check(circuit)
    assert time.perf_counter() - start < 10  # about 0.2 s alone


def test_the_form_is_for_people() -> None:
    x = Input("x", (Axis("batch", "batch"), Axis("query", "query"), MODEL))
    up = Weight("model", "up", ((Axis("hidden", 8),), (MODEL,)))
    pre = Einsum((x, up), ("model",))
    out = Multiply((Map("relu", (pre,)), Constant(2.0)))
    circuit = Circuit({"output": out}, {"in.x": x, "L0.mlp.pre": pre, "L0.mlp.post": out})
    assert (
        write(circuit)
        == """\
scrubjay notation 1
in.x = input(x, dims=[batch query model=4])
up = weight(model, up, dims=[hidden=8, model=4])
L0.mlp.pre [batch query hidden=8] = einsum("batch query model, hidden model -> batch query hidden", in.x, up)
L0.mlp.post [batch query hidden=8] = relu(L0.mlp.pre) * 2.0
results (output = L0.mlp.post)
places (in.x, L0.mlp.pre, L0.mlp.post)
"""
    )


def test_a_store_is_given_its_name_here() -> None:
    text = write(Weight("interventions-3", "t0", ()))
    assert parse(text, {"interventions-3": "sha256:0"}).roots["output"] is Weight("sha256:0", "t0", ())
    with pytest.raises(CircuitError, match=r"line 2, column \d+: 't0' is in the store 'interventions-3'.*told of none"):
        parse(text)


WRONG = {
    "no header": ("x = 1", r"line 1, column 1: expected 'scrubjay notation 1', found 'x = 1'"),
    "version": ("scrubjay notation 2\n", "version '2' of the notation; this Scrubjay reads version 1"),
    "nothing": (HEADER, r"line 2, column 1: expected a statement 'results \(\.\.\.\)', found the end of the text"),
    "no results": (f"{START}results ()", "at least one result"),
    "undefined": (f"{START}y = relu(xx)", r"line 4, column 10: no value xx is defined; did you mean x\?"),
    "itself": (f"{START}y = relu(y)", r"line 4, column 10: y is used before its definition is complete.*depend on itself"),
    "cycle": (f"{START}a = relu(b)\nb = relu(a)", "line 4, column 10: b is used before its definition"),
    "twice": (f"{START}x = relu(x)", "line 4, column 1: x is defined a second time"),
    "twice a number": (f"{START}#1 = relu(x)\n#1 = x", "line 5, column 1: #1 is defined a second time"),
    "two tables": (f"{START}results (x)\nresults (x)", "results is given a second time"),
    "place twice": (f"{START}results (x)\nplaces (x, x = w)", "line 5, column 12: x is listed a second time in places"),
    "kind": (f"{START}y = enisum(x)", r"line 4, column 5: enisum is no kind of value; did you mean einsum, .*; the kinds are input"),
    "declared axes": (f"{START}y [batch model=5] = relu(x)", r"column 3: y is said to have \[batch model=5\], and what it is has \[batch model=4\]"),
    "declared twice": (f"{START}y [batch model=4 model=5] = relu(x)", "would have two sizes at once, 4 and 5"),
    "einsum axes": (
        f'{START}y = einsum("batch query, hidden model -> batch hidden", x, w)',
        "line 4, column 12: operand 1 of the einsum is said to have the axes batch query, and it has batch model",
    ),
    "einsum operands": (f'{START}y = einsum("batch model -> batch", x, w)', "those of 1 operands, and the einsum has 2"),
    "einsum result": (f'{START}y = einsum("batch model -> hidden", x)', "result of the einsum has hidden, which no operand has"),
    "einsum result twice": (f'{START}y = einsum("batch model -> batch batch", x)', "has an axis twice"),
    "einsum without arrow": (f'{START}y = einsum("batch model", x)', "expected '->'"),
    "einsum without axes": (f"{START}y = einsum(x, w)", "expected the axes of the einsum"),
    "einsum sums else": (f'{START}y = einsum("batch model -> batch", x, summed=[batch])', "sums over model by its axes, and over batch by"),
    "axis sizes": (f"{START}y = x + iota([model=5])", "line 4, column 5: this Add is ill-formed: axis 'model' would have two sizes at once, 4 and 5"),
    "no such axis": (f"{START}y = index(x, axis=vocab, at=0)", "line 4, column 5: this Index is ill-formed: .*no axis 'vocab'"),
    "outside": (f"{START}y = index(x, axis=model, at=4)", "index 4 is outside axis model=4"),
    "number of operands": (f"{START}y = relu(x, x)", "this Map is ill-formed: no element-wise function 'relu' of 2"),
    "field": (f"{START}y = index(x, axes=model, at=0)", "column 14: index has no field axes; its fields are source, axis, at"),
    "field lacking": (f"{START}y = index(x, axis=model)", "index lacks at; its fields are source, axis, at"),
    "field twice": (f"{START}y = index(x, at=0, at=0)", "field at of index is given a second time"),
    "field unnamed": (f"{START}y = index(x, model, at=0)", "expected a field of index as name=value"),
    "type": (f"{START}y = index(x, axis=model, at=0.0)", "expected an integer, found 0.0"),
    "flag": (f"{START}y = index(x, axis=model, at=true)", "expected an integer, found true"),
    "negative size": (f"{HEADER}y = iota([key=-1])", "expected the size of axis 'key', an integer from 0 on"),
    "float size": (f"{HEADER}y = iota([key=1.5])", "expected the size of axis 'key'"),
    "nan size": (f"{HEADER}y = iota([key=nan])", "expected the size of axis 'key'.*found nan"),
    "two axes": (f"{HEADER}y = iota([key query])", "expected one axis in brackets, found 2"),
    "mixed signs": (f"{START}y = x + x * x", r"'\*' after '\+': put one of them in parentheses"),
    "unclosed": (f"{START}y = relu(x", r"line 4, column 11: expected '\)' at the end of relu\(\.\.\.\), found the end of the text"),
    "quote": (f'{START}y = cast(x; "float)', "line 4, column 13: the quote \" is not closed on this line"),
    "letter": (f"{START}y = x ? w", r"line 4, column 7: '\?' begins nothing here"),
    "escape": (f'{START}y = cast(x; "\\q")', "no well-formed text"),
    "no value": (f"{START}y = =", "line 4, column 5: expected a value, found ="),
    "two values": (f"{START}y = x x", "expected the end of the statement, found x"),
    "statement": (f"{START}result (x)", r"expected '=' after the name result, or one of results.*did you mean results"),
    "deep": (f"{START}y = {'relu(' * 50_000}x{')' * 50_000}", "stand more than 100 deep in each other"),
    "deep parentheses": (f"{START}y = {'(' * 50_000}x{')' * 50_000}", "stand more than 100 deep"),
    "digits": (f"{HEADER}y = {'9' * 5000}", "a number of 5000 digits"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_refused_with_its_place(case: str) -> None:
    text, message = WRONG[case]
    with pytest.raises(CircuitError, match=message):
        parse(text, {"model": "model"})


TEXT = write(Circuit({"output": Add((EXAMPLES[Einsum], *(node for node in EXAMPLES.values() if node.axes == X.axes), X))},
                     {f"a {kind.__name__}": node for kind, node in EXAMPLES.items()}, {"b": "c"}, ("d",)))  # fmt: skip


@given(st.data())
def test_a_changed_text_is_refused_or_is_a_circuit(data: st.DataObject) -> None:
    pieces = [
        *'()[]{}=+*/,;:"`#.\n -0',
        "nan",
        "inf",
        "true",
        "x",
        "model",
        "results",
        "einsum",
        '"a"',
        "1e9",
        "\\",
        "  ",
    ]
    text = TEXT
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(len(HEADER), len(text)))
        gone = data.draw(st.integers(0, 6))
        text = text[:at] + data.draw(st.sampled_from([*pieces, ""])) + text[at + gone :]
    try:
        made = parse(text, {"model": "model"})
    except CircuitError:
        return
    check(made)


def test_a_value_of_the_wrong_type_is_not_written() -> None:
    with pytest.raises(CircuitError, match=r"its field 'at' holds 1\.0, of type float, and should hold an integer"):
        write(Index(X, "model", 1.0))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_lines_are_broken(kind: str) -> None:
    lines = write(captured(kind)[1].circuit).splitlines()
    assert max(map(len, lines)) <= 120
    assert any(line.startswith("    ") for line in lines)
