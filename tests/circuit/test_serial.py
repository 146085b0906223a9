"""Circuits as JSON: read back they are the same nodes, and a hostile text is refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    KINDS,
    Add,
    Along,
    Concat,
    Constant,
    Custom,
    Einsum,
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
    Split,
    Weight,
)
from scrubjay.circuit.serial import from_json, to_json
from scrubjay.engine.evaluate import evaluate
from scrubjay.errors import CircuitError
from scrubjay.testing.circuits import SOURCE, Example, circuits

BATCH, QUERY, MODEL = Axis("batch", "batch"), Axis("query", "query + 1"), Axis("model", 4)
X = Input("x", (BATCH, QUERY, MODEL))
AT = Input("at", (BATCH,), "int64")
EXAMPLES: dict[type[Node], Node] = {
    Input: X,
    Weight: Weight("model", "w", ((Axis("head", 2), Axis("d_head", 2)), (), (MODEL,)), "float32"),
    Constant: Constant(-0.0, "model"),
    Iota: Iota(QUERY),
    Einsum: Einsum((X, X), ("model", "query")),
    Add: Add((X, AT, X)),
    Multiply: Multiply((X, Constant(2))),
    Index: Index(X, "model", -1),
    Narrow: Narrow(X, "model", 1, Axis("model[1:4:2]", 2), 2),
    Concat: Concat((X, X), ("model", "model"), Axis("both", 8)),
    Gather: Gather(X, "model", AT),
    Relabel: Relabel(X, (("query", "key"), ("batch", "row"))),
    Split: Split(X, "model", (Axis("head", 2), Axis("d_head", 2))),
    Repeat: Repeat(X, (Axis("head", 2),)),
    Merge: Merge(X, ("model", "query"), Axis("flat", "4*query + 4")),
    Map: Map("softplus", (X,), (1, 20.0)),
    Experts: Experts(
        X, Weight("model", "e", ((Axis("expert", 3),), (MODEL,), (Axis("hidden", 2),))), "expert", AT, ("model",)
    ),
    Order: Order(X, "model", Axis("first", 2), "places", False, "sort"),
    Along: Along("rms", X, ("model",), (1e-5,)),
    Custom: Custom("model", "probe", X, ("model", "batch", "query")),
    Opaque: Opaque(
        "aten.sort.default",
        (X,),
        (((BATCH,), (), (QUERY, MODEL)),),
        '[[{"operand": 0}], {}]',
        1,
        ((BATCH,), (QUERY, MODEL)),
    ),
}


def stored(circuit: Circuit) -> Any:
    return json.loads(json.dumps(to_json(circuit), allow_nan=False))


def again(node: Node) -> Node:
    return from_json(stored(Circuit({"output": node})), {"model": "model"}).roots["output"]


def test_every_kind_has_an_example() -> None:
    assert set(EXAMPLES) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_reads_back_as_itself(kind: type[Node]) -> None:
    assert again(EXAMPLES[kind]) is EXAMPLES[kind]


@pytest.mark.parametrize(
    "value", [0, 1, True, False, 1.0, 0.0, -0.0, 0.1, 5e-324, 1e308, math.inf, -math.inf, math.nan, 2**70, "min", "max"]
)
def test_numbers_keep_their_type_and_bits(value: float) -> None:
    made = again(Constant(value))
    assert made is Constant(value)
    assert isinstance(made, Constant)
    assert type(made.value) is type(value)
    assert made.value == value or math.isnan(float(value))


def test_parameters_keep_their_type() -> None:
    kinds = [Map("leaky_relu", (X,), (value,)) for value in (1, 1.0, True, "1", 0.0, -0.0)]
    assert len({again(node) for node in kinds}) == len(kinds)


def test_everything_but_the_nodes_is_kept() -> None:
    double = Multiply((X, Constant(2)))
    old = Circuit(
        {"output": Add((double, X)), "twice": double}, {"L0.mlp.in": X, "é*": AT}, {"L1.H0": "fold"}, ("fold", "exact")
    )
    new = from_json(stored(old), {})
    assert new.roots == old.roots
    assert list(new.roots) == list(old.roots)
    assert new.table == old.table
    assert (new.removed, new.history) == (old.removed, old.history)


def test_a_long_chain_is_read_without_recursion() -> None:
    node: Node = X
    for place in range(50_000):
        node = Add((node, Constant(place)))
    assert again(node) is node


def test_sources_are_given_their_names_here() -> None:
    text = stored(Circuit({"output": Weight("local-17", "w", ())}))
    assert from_json(text, {"local-17": "sha256:0"}).roots["output"] is Weight("sha256:0", "w", ())
    with pytest.raises(
        CircuitError, match=r"Weight 'w' is in the store 'local-17'.*told of 'model'.*token is refused elsewhere"
    ):
        from_json(text, {"model": "model"})


def test_reading_needs_no_array_library() -> None:
    script = f"""
import json, sys
from scrubjay.circuit.serial import from_json
assert from_json(json.loads({json.dumps(stored(Circuit({"output": X})))!r}), {{}}).inputs
assert not {{'torch', 'numpy'}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def changed(**parts: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda data: {**data, **parts}


def with_node(*row: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda data: {**data, "nodes": [*data["nodes"], list(row)], "roots": {"output": len(data["nodes"])}}


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no mapping": (lambda _: [], "stored circuit is a list of 0, of type list"),
    "nothing": (lambda _: None, "of type NoneType"),
    "format": (changed(format="pickle"), "no stored circuit: its 'format' is 'pickle'"),
    "version": (changed(version=2), "version 2 of the format; this Scrubjay reads version 1"),
    "version as flag": (changed(version=True), "version True"),
    "extra key": (changed(code="import os"), "has the keys format"),
    "missing key": (lambda data: {key: data[key] for key in data if key != "table"}, "has the keys"),
    "number as key": (changed(roots={1: 0}), "a key of roots is 1, of type int"),
    "no roots": (changed(roots={}), "at least one result"),
    "roots as list": (changed(roots=[0]), "roots is a list of 1"),
    "root nowhere": (changed(roots={"output": 99}), r"roots\['output'\].*the place 99"),
    "root before all": (changed(roots={"output": -1}), "the place -1"),
    "root as flag": (changed(roots={"output": True}), "should hold the place of a node"),
    "root as float": (changed(roots={"output": 0.0}), "should hold the place of a node"),
    "nodes as text": (changed(nodes="Add"), "'nodes' is 'Add'"),
    "table nowhere": (changed(table={"a": 5}), r"table\['a'\]"),
    "removed": (changed(removed={"a": 1}), "removed"),
    "history": (changed(history=["a", 1]), "history"),
    "node as mapping": (changed(nodes=[{}]), "node 0 of the stored circuit is a dict of 0"),
    "empty node": (changed(nodes=[[]]), "unknown kind nothing"),
    "unknown kind": (with_node("Ad", [0, 0]), "unknown kind 'Ad'; did you mean Add"),
    "builtin kind": (with_node("__import__", "os"), "unknown kind '__import__'"),
    "unhashable kind": (with_node(["Add"], [0]), "unknown kind a list of 1"),
    "abstract kind": (with_node("Node"), "unknown kind 'Node'"),
    "too few fields": (with_node("Index", 0, "model"), "has 2 fields and needs 3: source, axis, at"),
    "too many fields": (with_node("Add", [0], [0]), "has 2 fields and needs 1"),
    "cycle": (with_node("Add", [1]), "nodes are listed operands first"),
    "forward": (with_node("Add", [7]), "the place 7"),
    "operand as list": (with_node("Index", [0], "model", 0), "should hold the place of a node"),
    "operands as number": (with_node("Add", 0), "should hold a list"),
    "flag for integer": (with_node("Index", 0, "model", True), "'at' holds True, and should hold an integer"),
    "float for integer": (with_node("Index", 0, "model", {"float": "0x0.0p+0"}), "should hold an integer"),
    "bare float": (with_node("Constant", 1.5, None), "should hold a truth value or an integer or a float or text"),
    "float in words": (with_node("Constant", {"float": "1.5"}, None), r"not a float's hexadecimal text"),
    "huge float": (with_node("Constant", {"float": "0x1p+99999"}, None), "hexadecimal text"),
    "float of a list": (with_node("Constant", {"float": [1]}, None), "hexadecimal text"),
    "float and more": (with_node("Constant", {"float": "inf", "x": 1}, None), "hexadecimal text"),
    "text constant": (with_node("Constant", "os.system", None), "ill-formed: a constant is a number"),
    "list as text": (with_node("Index", 0, ["model"], 0), "should hold text"),
    "no such axis": (with_node("Index", 0, "vocab", 0), "ill-formed: .* has no axis 'vocab'"),
    "axis of one": (with_node("Iota", ["key"]), "should hold an axis"),
    "axis of float": (with_node("Iota", ["key", 1.5]), "should hold an axis"),
    "axis of flag": (with_node("Iota", ["key", True]), "should hold an axis"),
    "negative axis": (with_node("Iota", ["key", -1]), "should hold an axis"),
    "axis as text": (with_node("Iota", "key"), "should hold an axis"),
    "pair of three": (with_node("Relabel", 0, [["a", "b", "c"]]), "a list of 2"),
    "deep nesting": (with_node("Weight", "s", "w", [[[[[[[]]]]]]], "model"), "should hold an axis"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_text_is_refused(case: str) -> None:
    change, message = HOSTILE[case]
    with pytest.raises(CircuitError, match=message):
        from_json(change(stored(Circuit({"output": X}))), {})


def test_a_value_of_the_wrong_type_is_not_written() -> None:
    with pytest.raises(CircuitError, match=r"'at' holds .*of type float.*should hold an integer"):
        to_json(Circuit({"output": Index(X, "model", 1.0)}))  # pyright: ignore[reportArgumentType]


def test_a_kind_that_is_not_listed_is_not_written() -> None:
    class Other(Node):
        source: Node

        def find_axes(self) -> tuple[Axis, ...]:
            return self.source.axes

    with pytest.raises(CircuitError, match="not listed in KINDS"):
        to_json(Circuit({"output": Other(X)}))


@given(circuits())
def test_random_circuits_read_back_as_themselves(example: Example) -> None:
    circuit = example.circuit
    made = from_json(stored(circuit), {SOURCE: SOURCE})
    assert made.roots == circuit.roots
    assert made.table == circuit.table


class Arrays:
    """A store over numpy arrays."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def tensor(self, name: str) -> torch.Tensor:
        return self.arrays[name]


@given(circuits())
def test_random_circuits_run_on_their_inputs(example: Example) -> None:
    root = example.circuit.roots["output"]
    inputs = {name: torch.from_numpy(array) for name, array in example.inputs.items()}
    found = evaluate([root], inputs, {SOURCE: Arrays(dict(example.weights))}, dtype=torch.float64)[root]
    assert set(found.names) == set(root.axis_names)
    assert bool(torch.isfinite(found.as_tensor().double()).all())
    sizes = dict(zip(found.names, found.as_tensor().shape, strict=True))
    assert sizes == {axis.name: example.sizes.get(str(axis.size), axis.size) for axis in root.axes}


@given(circuits(steps=1))
def test_small_circuits_stay_small(example: Example) -> None:
    assert len(example.circuit.nodes) <= 8
