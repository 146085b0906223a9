"""Nodes: equal structure is the same object, and an ill-formed node is refused with both values named."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from typing import Any

import pytest

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    KINDS,
    Add,
    Along,
    Concat,
    Constant,
    Cumulant,
    Custom,
    Einsum,
    Expectation,
    Experts,
    Gather,
    Index,
    Input,
    Iota,
    Map,
    Merge,
    Multiply,
    Narrow,
    Opaque,
    Order,
    Relabel,
    Repeat,
    Sample,
    Split,
    Weight,
)  # fmt: skip
from scrubjay.circuit.renaming import RENAMERS, rename_axes
from scrubjay.engine.kernels import KERNELS
from scrubjay.errors import CircuitError

BATCH, QUERY, KEY, MODEL = Axis("batch", "batch"), Axis("query", "query"), Axis("key", "query"), Axis("model", 6)
X = Input("x", (BATCH, QUERY, MODEL))
W = Weight("model", "w", ((Axis("hidden", 4),), (MODEL,)))
IDS = Input("ids", (BATCH, QUERY), "int64")
DRAWN = Sample(Input("rows", (Axis("row", 5), MODEL)), "row", "datum")

EXAMPLES: tuple[Node, ...] = (
    X,
    W,
    Constant(0.5),
    Iota(QUERY),
    Einsum((X, W), ("model",)),
    Experts(X, Weight("model", "e", ((Axis("expert", 3),), (MODEL,), (Axis("hidden", 4),))), "expert", IDS, ("model",)),
    Add((X, Constant(1.0))),
    Multiply((X, X)),
    Index(X, "model", 2),
    Narrow(X, "model", 1, Axis("model[1:]", 2), 2),
    Concat((X, X), ("model", "model"), Axis("both", 12)),
    Gather(Weight("model", "table", ((Axis("vocab", 9),), (MODEL,))), "vocab", IDS),
    Relabel(X, (("query", "key"),)),
    Split(X, "model", (Axis("head", 2), Axis("d_head", 3))),
    Merge(X, ("query", "model"), Axis("flat", "query*6")),
    Repeat(X, (Axis("head", 2),)),
    Map("leaky_relu", (X,), (0.1,)),
    Along("softmax", X, ("model",)),
    Order(X, "model", Axis("first", 2), "places"),
    Opaque(
        "aten.tanh.default",
        (X,),
        (((BATCH,), (QUERY,), (MODEL,)),),
        '[[{"operand": 0}], {}]',
        0,
        ((BATCH,), (QUERY,), (MODEL,)),
    ),
    Custom("made", "f", X, ("batch", "query", "model")),
    DRAWN,
    Expectation(DRAWN, ("datum",)),
    Cumulant((DRAWN, Multiply((DRAWN, DRAWN))), ("datum",), True),
)


def test_there_is_an_example_of_every_kind():
    assert {type(node) for node in EXAMPLES} == set(KINDS)
    assert len(KINDS) == len(set(KINDS))


@pytest.mark.parametrize("table", [KERNELS, RENAMERS], ids=["kernels", "renamers"])
def test_every_kind_is_in_every_table(table: dict[type[Node], Any]) -> None:
    assert set(table) == set(KINDS)


@pytest.mark.parametrize("node", EXAMPLES, ids=lambda node: type(node).__name__)
def test_a_copy_is_the_node_itself(node: Node) -> None:
    assert copy.copy(node) is node
    assert copy.deepcopy(node) is node
    assert copy.deepcopy([node])[0] is node
    assert pickle.loads(pickle.dumps(node)) is node
    assert node.with_operands(node.operands) is node


@pytest.mark.parametrize("node", EXAMPLES, ids=lambda node: type(node).__name__)
def test_reading_back_goes_through_the_constructor(node: Node) -> None:
    """So a node made elsewhere is interned here too: made again from its fields, it is the same object."""
    make, fields = node.__reduce__()
    assert make(*fields) is node
    assert make(*copy.deepcopy(fields)) is node


@pytest.mark.parametrize("node", EXAMPLES, ids=lambda node: type(node).__name__)
def test_a_node_cannot_be_changed(node: Node) -> None:
    with pytest.raises(AttributeError):
        node.name = "other"  # type: ignore[attr-defined]


@pytest.mark.parametrize("node", EXAMPLES, ids=lambda node: type(node).__name__)
def test_renaming_every_axis_and_back_gives_the_node(node: Node) -> None:
    names = {name for item in [node, *node.operands] for name in item.axis_names | item.acts_along}
    there = rename_axes([node], {name: f"{name}~" for name in names})[node]
    assert there is not node or not names
    assert {axis.name for axis in there.axes} == {f"{axis.name}~" for axis in node.axes}
    assert there.acts_along == {f"{name}~" for name in node.acts_along}
    assert rename_axes([there], {f"{name}~": name for name in names})[there] is node


def test_renaming_to_a_name_that_is_taken_primes_it():
    product = Einsum((X, W), ("model",))
    made = rename_axes([product], {"hidden": "query"})[product]
    assert {axis.name for axis in made.axes} == {"batch", "query", "query'"}


def test_equal_structure_is_the_same_object():
    assert Add((X, Multiply((X, Constant(2))))) is Add((X, Multiply((X, Constant(2)))))
    assert Add((X, Constant(1))) is not Add((Constant(1), X))
    assert Map("relu", (X,)) is Map("relu", inputs=(X,), parameters=())
    assert Weight("model", "w", ((MODEL,),)) is not Weight("other", "w", ((MODEL,),))


NUMBERS = (
    1,
    1.0,
    True,
    0,
    0.0,
    -0.0,
    False,
    float("nan"),
    float("inf"),
    -float("inf"),
    "min",
    2**70,
    0.1,
    0.1 + 2**-56,
)


def test_numbers_are_told_apart_by_type_and_bits():
    made = [Constant(number) for number in NUMBERS]
    assert len(set(map(id, made))) == len(NUMBERS)
    for node, number in zip(made, NUMBERS, strict=True):
        assert Constant(number) is node
        assert type(node.value) is type(number)
        assert repr(node.value) == repr(number)
    assert Constant(float("nan")) is Constant(-float("nan") * 0)
    assert len({Map("leaky_relu", (X,), (number,)) for number in (1, 1.0, True)}) == 3
    assert Index(X, "model", 1) is not Index(X, "model", True)


def test_nodes_nobody_holds_are_forgotten():
    made = weakref.ref(Add((X, Constant(12345.5))))
    gc.collect()
    assert made() is None
    assert Add((X, Constant(12345.5))) is Add((X, Constant(12345.5)))


def test_threads_get_the_same_nodes():
    """Eight threads build the same 2,000 nodes at once."""
    found: list[list[Node]] = []
    start = threading.Barrier(8)

    def build() -> None:
        start.wait()
        chain: list[Node] = [X]
        for place in range(2_000):
            chain.append(Add((chain[-1], Constant(place))))
        found.append(chain)

    threads = [threading.Thread(target=build) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(one is two for chain in found[1:] for one, two in zip(found[0], chain, strict=True))


def test_axes_come_in_the_glossarys_order():
    mixed = Add((Input("a", (Axis("zeta", 2), MODEL)), Input("b", (QUERY, Axis("alpha", 3), BATCH))))
    assert [axis.name for axis in mixed.axes] == ["batch", "query", "model", "alpha", "zeta"]
    assert repr(mixed) == "<Add  [batch query model=6 alpha=3 zeta=2]>"


def test_what_nodes_act_along():
    acts = {type(node).__name__: set(node.acts_along) for node in EXAMPLES}
    assert acts["Einsum"] == {"model"}
    assert acts["Relabel"] == {"query", "key"}
    assert acts["Along"] == {"model"}
    assert acts["Gather"] == {"vocab"}
    assert acts["Iota"] == {"query"}
    assert acts["Opaque"] == acts["Custom"] == {"batch", "query", "model"}
    assert acts["Add"] == acts["Multiply"] == acts["Map"] == acts["Input"] == acts["Weight"] == set()


OTHER = Input("other", (Axis("model", 7),))

REFUSED = {
    "two sizes in a sum": (lambda: Add((X, OTHER)), "axis 'model' would have two sizes at once, 6 and 7: rename one of them"),
    "two sizes in a product": (lambda: Einsum((X, OTHER), ("model",)), "two sizes at once, 6 and 7"),
    "two symbols": (lambda: Map("maximum", (X, Input("y", (Axis("query", "query + 1"),)))), r"two sizes at once, query and query \+ 1"),
    "no operands": (lambda: Add(()), "Add needs at least one operand"),
    "a sum over an axis nobody has": (lambda: Einsum((X,), ("vocab",)), r"sums over \['vocab'\], which no operand has"),
    "an input with an axis twice": (lambda: Input("x", (BATCH, BATCH)), "input 'x' names an axis twice"),
    "a weight with an axis twice": (lambda: Weight("m", "w", ((MODEL,), (MODEL,))), "weight 'w' names an axis twice"),
    "a constant that is a word": (lambda: Constant("most"), "a constant is a number, 'min' or 'max', and not 'most'"),
    "an index outside": (lambda: Index(X, "model", 6), "index 6 is outside axis model=6"),
    "an index before": (lambda: Index(X, "model", -7), "index -7 is outside axis model=6"),
    "an index along no axis": (lambda: Index(X, "vocab", 0), "has no axis 'vocab'; its axes are batch, query, model=6"),
    "a stretch outside": (lambda: Narrow(X, "model", 3, Axis("end", 4)), "cannot take 4 places from 3 on of axis model=6"),
    "a stretch with steps outside": (lambda: Narrow(X, "model", 1, Axis("end", 4), 2), "cannot take 4 places from 1 on"),
    "a join of another size": (lambda: Concat((X, X), ("model", "model"), Axis("both", 11)), "12 places together and axis both=11"),
    "a join with too few axes": (lambda: Concat((X, X), ("model",), Axis("both", 12)), "one axis for each part"),
    "a look-up by its own axis": (lambda: Gather(W, "model", Input("i", (MODEL,), "int64")), "has that axis itself: rename it first"),
    "one name for two axes": (lambda: Relabel(X, (("query", "batch"),)), "gives one name to two axes"),
    "a name that is not there": (lambda: Relabel(X, (("key", "query"),)), "has no axis 'key'"),
    "a split that does not divide": (lambda: Split(X, "model", (Axis("head", 4), Axis("d_head", 2))), "cannot be split into head=4, d_head=2"),
    "a merge of another size": (lambda: Merge(Split(X, "model", (Axis("head", 2), Axis("d_head", 3))), ("head", "d_head"), Axis("model", 7)), "6 places together, and not model=7"),
    "an unknown function": (lambda: Map("sine", (X,)), "no element-wise function 'sine' of 1 operands"),
    "a function of too many": (lambda: Map("relu", (X, X)), "no element-wise function 'relu' of 2 operands"),
    "an unknown function along axes": (lambda: Along("median", X, ("model",)), "no function 'median' along axes"),
    "a function along no axis": (lambda: Along("softmax", X, ("key",)), r"softmax runs over \['key'\], which .* lacks"),
    "a layout of other axes": (lambda: Custom("s", "f", X, ("batch", "model")), "does not name the axes"),
    "too few operands": (lambda: Add((X, X)).with_operands([X]), "has 2 operands and was given 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_an_ill_formed_node_is_refused(case):
    make, message = REFUSED[case]
    with pytest.raises(CircuitError, match=message):
        make()


def test_a_refused_node_leaves_nothing_behind():
    for _ in range(2):
        with pytest.raises(CircuitError):
            Add((X, OTHER))


def test_validation_runs_only_when_a_node_is_new(monkeypatch):
    calls: list[Node] = []
    kept = Along("softmax", X, ("query",))
    monkeypatch.setattr(Along, "find_axes", lambda self: calls.append(self) or X.axes)
    assert Along("softmax", X, ("query",)) is kept
    assert calls == []
    Along("softmax", X, ("batch",))
    assert len(calls) == 1


def test_arguments_may_be_named_and_left_out_and_the_wrong_ones_are_refused():
    whole = Map("leaky_relu", (X,), (0.1,))
    assert Map("leaky_relu", parameters=(0.1,), inputs=(X,)) is whole
    assert Map(parameters=(0.1,), op="leaky_relu", inputs=(X,)) is whole
    assert Narrow(X, "model", 1, to=Axis("end", 2)) is Narrow(X, "model", 1, Axis("end", 2), 1)
    make: Any = Map
    for args, named in (((), {}), (("relu",), {}), (("relu", (X,), (), 1), {}), (("relu", (X,)), {"op": "exp"})):
        with pytest.raises(TypeError):
            make(*args, **named)
    with pytest.raises(TypeError, match="unexpected keyword argument 'slope'"):
        make("relu", (X,), slope=1)
    with pytest.raises(TypeError, match="unhashable"):
        make("relu", [X])


def test_numbers_inside_tuples_are_told_apart_too():
    slopes = ((1,), (1.0,), (True,), (0.0,), (-0.0,), ("1",), (1, 1), (1, 1.0), (1, True))
    made = [Map("leaky_relu", (X,), slope) for slope in slopes]
    assert len(set(made)) == len(slopes)
    assert all(Map("leaky_relu", (X,), slope) is node for node, slope in zip(made, slopes, strict=True))


def test_what_is_below_a_node_and_its_axes_are_found_in_every_field():
    experts = EXAMPLES[5]
    assert isinstance(experts, Experts)
    assert experts.operands == (experts.source, experts.weights, experts.index)
    assert Gather(X, "model", IDS).operands == (X, IDS)
    assert Einsum((X, W), ("model",)).operands == (X, W)
    assert X.operands == ()
    with pytest.raises(AttributeError):
        X.axes = ()  # type: ignore[misc]


def test_threads_check_a_new_node_once(monkeypatch):
    """Eight threads make one new node at a time: it is checked once, and all get that one."""
    checked: list[Node] = []
    find = Repeat.find_axes
    monkeypatch.setattr(Repeat, "find_axes", lambda self: checked.append(self) or find(self))
    meet, found = threading.Barrier(8), [list[Node]() for _ in range(8)]

    def build(own: list[Node]) -> None:
        for place in range(200):
            meet.wait()
            own.append(Repeat(X, (Axis("copy", place + 2),)))

    threads = [threading.Thread(target=build, args=(own,)) for own in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(checked) == 200
    assert all(len(set(made)) == 1 for made in zip(*found, strict=True))
