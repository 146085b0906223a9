"""Laws of rewriting: an equality keeps every value, on random circuits and on hand-built ones where two data meet.

Values are compared in 64 bits, as the reference evaluator finds them. A circuit that reads rows of a data set is grown at random over
look-ups by several indices; the cases that decide whether a look-up may rise are built by hand beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import substitute, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Along,
    Constant,
    Custom,
    Einsum,
    Gather,
    Index,
    Input,
    Iota,
    Map,
    Multiply,
    Opaque,
    Relabel,
    Repeat,
    Split,
    Weight,
)  # fmt: skip
from scrubjay.circuit.renaming import rename_axes
from scrubjay.circuit.rules import gathers_up, positions_down
from scrubjay.circuit.rules.random import mean, sources_of
from scrubjay.engine import Array, evaluate
from scrubjay.engine.context import Payload
from scrubjay.testing.circuits import SOURCE, Example, circuits

ROW, BATCH, QUERY, KEY, MODEL = (
    Axis("row", "row"), Axis("batch", "batch"), Axis("query", "query"), Axis("key", "query"), Axis("model", 4)
)  # fmt: skip
SIZES = {"row": 5, "batch": 3, "query": 4}
DATA = Input("data", (ROW, QUERY, MODEL))
OTHER = Input("other data", (ROW, QUERY, MODEL))
LENGTH = Input("length", (ROW,), "int64")
NEXT = Input("next row", (ROW,), "int64")
PLAIN = Input("plain", (BATCH, QUERY, MODEL))
FIRST, SECOND = (Input(f"index {name}", (BATCH,), "int64") for name in "ij")
EACH = Input("index of each position", (BATCH, QUERY), "int64")
PLACE = Input("place", (BATCH,), "int64")
MATRIX = Weight(SOURCE, "matrix", ((MODEL,), (Axis("hidden", 3),)))
TABLE = Weight(SOURCE, "table", ((QUERY,), (MODEL,)))
LEAVES = (DATA, OTHER, LENGTH, NEXT, PLAIN, FIRST, SECOND, EACH, PLACE)

Rewrite = Callable[[Sequence[Node]], Mapping[Node, Node]]


def settle(roots: Sequence[Node]) -> Mapping[Node, Node]:
    """Both rules in turn until nothing moves, as a scrub applies them; an assertion that this ends."""
    now = list(roots)
    for _ in range(8):
        down = positions_down(now)
        up = gathers_up([down[node] for node in now])
        made = [up[down[node]] for node in now]
        if made == now:
            return dict(zip(roots, now, strict=True))
        now = made
    raise AssertionError("the rules do not come to an end")


RULES: dict[str, Rewrite] = {"gathers_up": gathers_up, "positions_down": positions_down, "both": settle}
every_rule = pytest.mark.parametrize("rule", RULES)


class Stored(dict[str, torch.Tensor]):
    dtype = torch.float64

    def tensor(self, name: str) -> torch.Tensor:
        return self[name]


def reversed_places(value: torch.Tensor) -> torch.Tensor:
    return value.flip(0)


def drawn(seed: int) -> dict[str, torch.Tensor]:
    """Values for every leaf of this module: numbers, rows and places."""
    random = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    for leaf in LEAVES:
        shape = [axis.size if isinstance(axis.size, int) else SIZES[axis.size] for axis in leaf.dims]
        if leaf.dtype == "int64":
            found[leaf.name] = random.integers(-4 if leaf is PLACE else 0, 4 if leaf in (PLACE, LENGTH) else 5, shape)
        else:
            found[leaf.name] = random.normal(size=shape)
    return {name: torch.from_numpy(array) for name, array in found.items()}


def values(
    nodes: Sequence[Node], inputs: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]
) -> list[torch.Tensor]:
    stores = {SOURCE: Stored(weights), "functions": Payload({}, {"flip": reversed_places})}
    made = evaluate(nodes, inputs, stores, dtype=torch.float64, sizes=SIZES)
    return [laid(made[node], node) for node in nodes]


def both(example: Example, one: Node, two: Node) -> tuple[Array, Array]:
    """Evaluate two nodes on the example's inputs and weights, apart from each other."""
    inputs, stored = (
        {name: torch.from_numpy(array) for name, array in part.items()} for part in (example.inputs, example.weights)
    )
    made = [
        evaluate([node], inputs, {SOURCE: Stored(stored)}, dtype=torch.float64, sizes=example.sizes)[node]
        for node in (one, two)
    ]
    return made[0], made[1]


def laid(value: Array, node: Node) -> torch.Tensor:
    return torch.as_tensor(value.laid([axis.name for axis in node.axes]), dtype=torch.float64)


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(seed)
    return {
        "matrix": torch.from_numpy(random.normal(size=(4, 3))),
        "table": torch.from_numpy(random.normal(size=(4, 4))),
    }


def check(roots: Sequence[Node], rule: str, seed: int = 0) -> list[Node]:
    """Rewrite, compare values and axes, and return what became of the roots."""
    table = RULES[rule](roots)
    made = [table[root] for root in roots]
    for before, after in zip(roots, made, strict=True):
        assert set(after.axes) == set(before.axes)
    inputs = drawn(seed)
    for old, new in zip(values(roots, inputs, weights()), values(made, inputs, weights()), strict=True):
        torch.testing.assert_close(new, old, rtol=1e-10, atol=1e-10)
    check_work(roots, made)
    return made


def works(nodes: Sequence[Node]) -> list[Node]:
    """The nodes that compute: neither leaves nor mere look-ups and choices."""
    return [node for node in topological(nodes) if node.operands and not isinstance(node, Gather | Index)]


def check_work(before: Sequence[Node], after: Sequence[Node], *, sinking: bool = False) -> None:
    """No look-up stands below a node that reads rows together, none was moved through one; raising alone makes no work."""
    for node in topological(after):
        if "row" in node.acts_along and not isinstance(node, Gather):
            assert node in topological(before), f"{node!r} acts along rows, and something was moved through it"
    if sinking:
        assert len(works(after)) <= len(works(before))


# circuits that read rows


def lookup(index: Node, source: Node = DATA) -> Gather:
    return Gather(source, "row", index)


def attend(reads: Node, values_of: Node) -> Node:
    """A softmax over keys: what one position reads of the others."""
    keys = Relabel(values_of, (("query", "key"),))
    pattern = Along("softmax", Einsum((reads, keys), ("model",)), ("key",))
    return Einsum((pattern, keys), ("key",))


GROW: dict[str, Callable[[Node, Node], Node]] = {
    "add": lambda a, b: Add((a, b)),
    "multiply": lambda a, b: Multiply((a, Map("tanh", (b,)))),
    "tanh": lambda a, _: Map("tanh", (a,)),
    "norm": lambda a, _: Map("divide", (Along("center", a, ("model",)), Along("rms", a, ("model",), (1e-5,)))),
    "linear": lambda a, _: Einsum((Map("relu", (Einsum((a, MATRIX), ("model",)),)), MATRIX), ("hidden",)),
    "attend": attend,
    "positions": lambda a, _: Add((a, TABLE)),
    "cumulate": lambda a, _: Along("cumsum", a, ("query",)),
    "where": lambda a, b: Map("where", (Map("equal", (Iota(QUERY), Constant(1))), a, b)),
    "opaque": lambda a, _: Opaque(
        "aten.atan.default",
        (a,),
        (tuple((axis,) for axis in a.axes),),
        '[[{"operand": 0}], {}]',
        0,
        tuple((axis,) for axis in a.axes),
    ),
    "custom": lambda a, _: Custom("functions", "flip", a, tuple(axis.name for axis in a.axes)),
}


@st.composite
def reading(draw: st.DrawFn) -> list[Node]:
    """A few results over look-ups by two indices of rows, one index for each position, and rows named by rows."""
    full: list[Node] = [
        lookup(FIRST), lookup(SECOND), lookup(FIRST, OTHER), lookup(EACH), lookup(lookup(FIRST, NEXT)), PLAIN, lookup(Constant(3)), TABLE,
    ]  # fmt: skip
    made = list(full)
    for _ in range(draw(st.integers(1, 8))):
        name = draw(st.sampled_from(list(GROW)))
        one = made[-1] if draw(st.integers(0, 2)) else draw(st.sampled_from(made))
        made.append(GROW[name](one, draw(st.sampled_from(made))))
    top = made[-1]
    choices: list[Node] = [
        top,
        Einsum((Split(top, "model", (Axis("m.0", 2), Axis("m.1", 2))), Constant(0.5)), ("m.0",)),
    ]
    if "query" in top.axis_names:
        places = [
            PLACE,
            lookup(FIRST, LENGTH),
            lookup(SECOND, LENGTH),
            Constant(2),
            Map("minimum", (lookup(FIRST, LENGTH), PLACE)),
        ]
        choices += [Index(top, "query", draw(st.integers(-4, 3))), Gather(top, "query", draw(st.sampled_from(places)))]
    return draw(st.lists(st.sampled_from(choices), min_size=1, max_size=3, unique=True))


@every_rule
@given(roots=reading(), seed=st.integers(0, 99))
def test_look_ups_move_without_changing_a_value(rule: str, roots: list[Node], seed: int) -> None:
    check(roots, rule, seed)


@every_rule
@given(example=circuits(steps=8))
def test_the_rules_are_equalities_on_any_circuit(rule: str, example: Example) -> None:
    """Here `row` is an axis like any other, and positions are chosen by inputs over (batch, query)."""
    root = example.circuit.roots["output"]
    made = RULES[rule]([root])[root]
    assert set(made.axes) == set(root.axes)
    old, new = both(example, root, made)
    torch.testing.assert_close(laid(new, root), laid(old, root), rtol=0, atol=1e-9)


@given(roots=reading())
def test_raising_look_ups_makes_no_work(roots: list[Node]) -> None:
    """Each computing node becomes one: what two indices read is computed once for the rows, and never twice."""
    table = gathers_up(roots)
    check_work(roots, [table[root] for root in roots], sinking=True)


@every_rule
@given(roots=reading())
def test_the_rules_change_nothing_more_when_applied_again(rule: str, roots: list[Node]) -> None:
    once = [RULES[rule](roots)[root] for root in roots]
    again = RULES[rule](once)
    assert [again[node] for node in once] == once


# which look-ups rise


def raised(node: Node) -> Node:
    return gathers_up([node])[node]


def test_what_reads_one_datum_becomes_one_look_up_in_all_rows() -> None:
    def head(source: Node) -> Node:
        return GROW["linear"](attend(GROW["norm"](source, source), Add((source, TABLE))), source)

    (made,) = check([head(lookup(FIRST))], "gathers_up")
    assert made is lookup(FIRST, head(DATA))


def test_two_readers_of_two_data_share_the_run_over_rows() -> None:
    one, two = (Map("tanh", (Map("tanh", (lookup(index),)),)) for index in (FIRST, SECOND))
    made = check([Add((one, two))], "gathers_up")
    below = Map("tanh", (Map("tanh", (DATA,)),))
    assert made == [Add((lookup(FIRST, below), lookup(SECOND, below)))]


STAY: dict[str, Node] = {
    "two data meet": Add((lookup(FIRST), lookup(SECOND))),
    "another value has the samples' axis": Add((lookup(FIRST), PLAIN)),
    "the node reads samples together": Along("mean", lookup(FIRST), ("batch",)),
    "samples are told apart": Multiply((lookup(FIRST), Iota(BATCH))),
    "each position reads its own row, and the node reads positions together": Along(
        "softmax", lookup(EACH), ("query",)
    ),
    "an operation is kept whole": GROW["opaque"](lookup(FIRST), PLAIN),
    "a function is not known": GROW["custom"](lookup(FIRST), PLAIN),
    "an operation is kept whole, and one row is read": GROW["opaque"](lookup(Constant(3)), PLAIN),
    "a function is not known, and one row is read": GROW["custom"](lookup(Constant(3)), PLAIN),
    "rows and index are walked together": Map("tanh", (lookup(EACH),)),
    "a row names the row": lookup(lookup(FIRST, NEXT)),
    "rows are told apart": Add(
        (Gather(Relabel(DATA, (("row", "r"),)), "r", FIRST), Multiply((Iota(ROW), lookup(Constant(2)))))
    ),
}


@pytest.mark.parametrize("case", STAY)
def test_a_look_up_stays_where(case: str) -> None:
    check([STAY[case]], "gathers_up")
    check([STAY[case]], "both")
    assert raised(STAY[case]) is STAY[case]


RISE: dict[str, tuple[Node, Node]] = {
    "positions of their own rows": (Map("tanh", (lookup(EACH, LENGTH),)), lookup(EACH, Map("tanh", (LENGTH,)))),
    "a position that the row says": (Gather(lookup(FIRST), "query", lookup(FIRST, LENGTH)), lookup(FIRST, Gather(DATA, "query", LENGTH))),
    "one position": (Index(lookup(FIRST), "query", -1), lookup(FIRST, Index(DATA, "query", -1))),
    "one row": (Map("tanh", (lookup(Constant(3)),)), lookup(Constant(3), Map("tanh", (DATA,)))),
    "an axis added": (Repeat(lookup(FIRST), (Axis("head", 2),)), lookup(FIRST, Repeat(DATA, (Axis("head", 2),)))),
    "a table looked up by tokens of the row": (
        Gather(TABLE, "query", lookup(FIRST, LENGTH)), lookup(FIRST, Gather(TABLE, "query", LENGTH)),
    ),
    "data with weights": (Add((lookup(FIRST), TABLE, Constant(2.0))), lookup(FIRST, Add((DATA, TABLE, Constant(2.0))))),
    "a mean over rows below the look-up": (
        Add((lookup(FIRST), Along("mean", DATA, ("row",)))), lookup(FIRST, Add((DATA, Along("mean", DATA, ("row",))))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RISE)
def test_a_look_up_rises_through(case: str) -> None:
    node, expected = RISE[case]
    assert check([node], "gathers_up") == [expected]
    check([node], "both")


def test_a_reader_of_rows_is_never_given_what_was_looked_up() -> None:
    """A sum over all rows, beside a look-up of one: the look-up of the sum's own rows stays below it."""
    over_rows = Along("cumsum", Relabel(Gather(Relabel(DATA, (("row", "r"),)), "r", NEXT), ()), ("row",))
    node = Map("tanh", (Gather(over_rows, "row", FIRST),))
    (made,) = check([node], "gathers_up")
    assert made is Gather(Map("tanh", (over_rows,)), "row", FIRST)


def test_an_iota_of_rows_keeps_look_ups_below_it() -> None:
    node = Add((lookup(FIRST), Multiply((Iota(ROW), Constant(0.5)))))
    assert raised(node) is node
    (made,) = check([Add((lookup(FIRST), Gather(Map("cast", (Iota(ROW),), ("model",)), "row", FIRST)))], "gathers_up")
    assert made.axis_names == {"batch", "query", "model"}


def test_rows_of_two_data_sets_of_other_sizes_stay_apart() -> None:
    small = Input("small", (Axis("row", 2), MODEL))
    few = Input("few", (BATCH,), "int64")
    node = Add((Gather(DATA, "row", few), Gather(small, "row", few)))
    made = raised(node)
    inputs = {**drawn(0), "small": torch.randn(2, 4, dtype=torch.float64), "few": torch.tensor([0, 1, 1])}
    old, new = values([node, made], inputs, weights())
    torch.testing.assert_close(new, old, rtol=0, atol=0)


# which choices of a position sink


def sunk(node: Node) -> Node:
    return positions_down([node])[node]


def test_a_position_is_chosen_before_the_last_linear_map() -> None:
    node = Index(Einsum((Map("tanh", (PLAIN,)), MATRIX), ("model",)), "query", 2)
    assert sunk(node) is Einsum((Map("tanh", (Index(PLAIN, "query", 2),)), MATRIX), ("model",))


def test_attention_asks_at_one_position_and_reads_all() -> None:
    node = Gather(attend(PLAIN, PLAIN), "query", PLACE)
    (made,) = check([node], "positions_down")
    assert made is attend(Gather(PLAIN, "query", PLACE), PLAIN)


STUCK: dict[str, Node] = {
    "a sum over positions so far": Index(Along("cumsum", PLAIN, ("query",)), "query", -1),
    "keys": Index(Relabel(Relabel(PLAIN, (("query", "key"),)), (("key", "query"),)), "query", 0),
    "an operation that is kept whole": Gather(GROW["opaque"](PLAIN, PLAIN), "query", PLACE),
    "a sum over the axis of the choice": Gather(Along("cumsum", PLAIN, ("batch",)), "query", PLACE),
    "a sum over samples, chosen for each": Gather(
        Relabel(Along("center", Relabel(PLAIN, (("batch", "b"),)), ("b",)), (("b", "batch"),)), "query", PLACE
    ),
}


@pytest.mark.parametrize("case", STUCK)
def test_a_choice_of_position_stops_at(case: str) -> None:
    assert check([STUCK[case]], "positions_down") == [STUCK[case]]


# renaming, substitution, rewriting, the exact form


def counts(node: Node) -> bool:
    """Tell whether a node's values are whole numbers or truths, which take no sum with 0.0 and no cast to a narrow type."""
    return (
        isinstance(node, Iota)
        or (isinstance(node, Input) and node.dtype == "int64")
        or (isinstance(node, Map) and node.op == "greater")
    )


NAMES = ("batch", "query", "key", "model", "row", "hidden", "head", "d_head", "vocab", "group")


@given(
    example=circuits(steps=8),
    table=st.dictionaries(st.sampled_from(NAMES), st.sampled_from([*NAMES, "new"]), max_size=5),
)
def test_renaming_axes_changes_no_value(example: Example, table: dict[str, str]) -> None:
    root = mean(example.circuit.roots["output"], sources_of(example.circuit.roots["output"]))
    axes = [axis.name for axis in root.axes]
    alone = [
        Along("sum", root, tuple(other for other in axes if other != name)) for name in axes
    ]  # one axis each, to follow it
    renamed = rename_axes([root, *alone], table)
    made, made_axes = renamed[root], [renamed[node].axes[0].name for node in alone]
    old, new = both(example, root, made)
    new_names = dict(zip(axes, made_axes, strict=True))
    assert len(set(new_names.values())) == len(new_names)
    again = Array(new.tensor, tuple(old for name in new.names for old, mine in new_names.items() if mine == name))
    torch.testing.assert_close(laid(again, root), laid(old, root), rtol=0, atol=1e-10)
    for name, mine in new_names.items():
        assert mine.startswith(table.get(name, name)), "a name is primed where it would stand twice, and else as asked"


@given(example=circuits(steps=8))
def test_renaming_back_gives_the_same_circuit(example: Example) -> None:
    root = example.circuit.roots["output"]
    names = {axis.name for node in topological([root]) for axis in node.axes}
    there = {name: f"{name} away" for name in names}
    made = rename_axes([root], there)[root]
    assert made is root or names
    back = rename_axes([made], {new: old for old, new in there.items()})[made]
    old, new = both(example, root, back)
    assert set(back.axes) == set(root.axes)
    torch.testing.assert_close(laid(new, root), laid(old, root), rtol=0, atol=1e-10)


@pytest.mark.parametrize("op", ["argmax", "argmin"])
def test_renaming_keeps_the_order_that_a_place_counts_in(op: str) -> None:
    """A place along two axes counts the first as the outer one, whatever they are called."""
    node = Along(op, PLAIN, ("query", "model"))
    made = rename_axes([node], {"query": "z"})[node]
    ((old,), (new,)) = (values([one], drawn(0), weights()) for one in (node, made))
    assert (old == new).all()


@given(example=circuits(steps=8))
def test_substitution_changes_every_place_and_no_other(example: Example) -> None:
    root = example.circuit.roots["output"]
    assert substitute([root], {})[root] is root
    for node in topological([root])[-5:]:
        twin = Input("twin", node.axes)
        made = substitute([root], {node: twin})[root]
        assert node not in topological([made])
        assert twin in topological([made])
        assert substitute([made], {twin: node})[made] is root


@given(example=circuits(steps=8))
def test_substituting_a_value_by_an_equal_one_keeps_the_results(example: Example) -> None:
    root = example.circuit.roots["output"]
    nodes = [node for node in topological([root]) if not counts(node)]
    changes = {node: Add((node, Constant(0.0))) for node in nodes[:: max(1, len(nodes) // 3)]}
    made = substitute([root], changes)[root]
    old, new = both(example, root, made)
    torch.testing.assert_close(laid(new, root), laid(old, root), rtol=0, atol=1e-10)


@given(example=circuits(steps=8))
def test_a_rewrite_carries_names_and_history_and_leaves_the_circuit_alone(example: Example) -> None:
    circuit = example.circuit
    before = dict(circuit.roots), dict(circuit.table)
    node = topological(circuit.roots.values())[-1]
    twin = Input("twin", node.axes)
    made = circuit.rewrite({node: twin}, "swap")
    assert (dict(circuit.roots), dict(circuit.table)) == before
    assert made.history == (*circuit.history, "swap")
    read = set(topological(made.roots.values()))
    gone = {name for name, one in circuit.table.items() if one in set(circuit.nodes) and made.table[name] not in read}
    assert made.removed == {**circuit.removed, **dict.fromkeys(gone, "swap")}
    expected = substitute([*circuit.roots.values(), *circuit.table.values()], {node: twin})
    assert made.roots == {name: expected[one] for name, one in circuit.roots.items()}
    assert made.table == {name: expected[one] for name, one in circuit.table.items()}
    assert node not in topological([*made.roots.values(), *made.table.values()])
    back = made.rewrite({twin: node}, "back")
    assert (back.roots, back.removed) == (circuit.roots, circuit.removed)


@given(example=circuits(steps=8), every=st.integers(1, 3))
def test_the_exact_form_is_the_circuit_without_its_narrow_casts(example: Example, every: int) -> None:
    """Casts to 16 and 32 bits put into a random circuit at many places, one below another, are all widened."""
    root = example.circuit.roots["output"]
    made: dict[Node, Node] = {}
    for place, node in enumerate(topological([root])):
        kept = node.with_operands([made[operand] for operand in node.operands])
        narrow = place % every == 0 and not counts(node)
        made[node] = Map("cast", (kept,), (("float32", "bfloat16", "float16")[place % 3],)) if narrow else kept
    circuit = Circuit({"output": made[root]}, {"place": made[root]})
    exact = circuit.exact()
    assert not any(
        isinstance(node, Map) and node.op == "cast" and node.parameters[0] != "model" for node in exact.nodes
    )
    assert exact.exact().roots == exact.roots
    assert exact.roots["output"] is exact.table["place"]
    plain, wide = root, exact.roots["output"]
    old, new = both(example, plain, wide)
    torch.testing.assert_close(laid(new, root), laid(old, root), rtol=0, atol=1e-10)


def test_the_exact_form_leaves_whole_numbers_and_wide_casts() -> None:
    cut = Map("cast", (Map("cast", (PLAIN,), ("int64",)),), ("float64",))
    circuit = Circuit({"output": Map("cast", (cut,), ("float32",))})
    assert circuit.exact().roots["output"] is Map("cast", (cut,), ("model",))
