"""Circuits as JSON: read back they are the same nodes, and a hostile text is refused."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from every_kind import AT, EXAMPLES, X
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.fingerprint import fingerprint
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    KINDS,
    Add,
    Constant,
    Einsum,
    Index,
    Map,
    Multiply,
    Weight,
)
from scrubjay.circuit.serial import from_json, from_text, to_json, to_text
from scrubjay.engine.evaluate import evaluate
from scrubjay.errors import CircuitError
from scrubjay.testing.circuits import SOURCE, Example, circuits


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
    "version": (changed(version=1), "version 1 of the format; this Scrubjay reads version 2"),
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
    "size of not a number": (with_node("Iota", ["key", math.nan]), "should hold an axis"),
    "infinite size": (with_node("Iota", ["key", {"float": "inf"}]), "should hold an axis"),
    "negative place": (with_node("Add", [-1]), "the place -1"),
    "flag as place": (with_node("Add", [True]), "True, and should hold the place of a node"),
    "float as place": (with_node("Add", [0.0]), "0.0, and should hold the place of a node"),
    "huge integer": (with_node("Constant", 1 << 20_000, None), "should hold"),
    "no fingerprint": (changed(fingerprint=None), "says that its fingerprint is None, and what it holds has sha256:"),
    "another result": (with_node("Map", "relu", [0], []), "it was changed after it was written"),
    "another address": (changed(table={"in.x": 0}), "changed after it was written"),
    "another history": (changed(history=["equality"]), "changed after it was written"),
    "another removal": (changed(removed={"a": "b"}), "changed after it was written"),
    "another name": (changed(roots={"logits": 0}), "changed after it was written"),
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


@pytest.mark.parametrize(("text", "message"), [
    ("[" * 100_000, "nested deeper"),
    ("{", "no JSON"),
    (b"\xff\xfe", "no JSON"),
    ('{"format": "scrubjay.circuit", "format": 1}', "the key 'format' is given twice"),
    ("1" * 5000, "no JSON"),
    ("NaN", "of type float"),
])  # fmt: skip
def test_text_that_is_no_circuit_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(CircuitError, match=message):
        from_text(text, {})


def test_a_name_given_twice_is_refused() -> None:
    text = to_text(Circuit({"output": X}, {"L0.here": X}))
    with pytest.raises(CircuitError, match=r"the key 'L0\.here' is given twice"):
        from_text(text.replace('"L0.here": 0', '"L0.here": 0, "L0.here": 0'), {})


def test_a_number_changed_by_hand_is_refused() -> None:
    text = to_text(Circuit({"output": Index(X, "model", 1)}))
    assert from_text(text, {}).roots["output"] is Index(X, "model", 1)
    with pytest.raises(CircuitError, match="changed after it was written"):
        from_text(text.replace('"model", 1]', '"model", 2]'), {})


def test_more_nodes_than_asked_for_are_refused_before_any_is_made() -> None:
    data = stored(Circuit({"output": X}))
    data["nodes"] *= 1_000_000
    start = time.perf_counter()
    with pytest.raises(CircuitError, match=r"1,000,000 nodes, and this reading was limited to 250,000.*most="):
        from_json(data, {})
    assert time.perf_counter() - start < 1
    assert from_json(stored(Circuit({"output": X})), {}, most=1)
    with pytest.raises(CircuitError, match="limited to 0"):
        from_json(stored(Circuit({"output": X})), {}, most=0)


def test_a_fingerprint_is_the_circuits_and_not_that_of_how_it_is_listed() -> None:
    double = Multiply((X, Constant(2)))
    one = Circuit({"a": double, "b": X}, {"t": AT, "s": X})
    two = Circuit({"b": X, "a": double}, {"s": X, "t": AT})
    assert fingerprint(one) == fingerprint(two) == to_json(two)["fingerprint"]
    others = [
        Circuit({"a": X, "b": double}, one.table), Circuit(one.roots, {"t": X, "s": AT}), Circuit(one.roots, one.table, {"a": "b"}),
        Circuit(one.roots, one.table, {}, ("a",)), Circuit({"a": Multiply((X, Constant(2.0))), "b": X}, one.table),
        Circuit({"a": Multiply((Constant(2), X)), "b": X}, one.table),
        Circuit({"a": Add((X, Constant(2))), "b": X}, one.table), Circuit(one.roots),
    ]  # fmt: skip
    assert len({fingerprint(other) for other in [one, *others]}) == len(others) + 1


def test_a_fingerprint_is_the_same_in_another_process() -> None:
    circuit = Circuit({"output": EXAMPLES[Einsum]}, {kind.__name__: node for kind, node in EXAMPLES.items()})
    script = f"""
from scrubjay.circuit.serial import from_text
from scrubjay.circuit.fingerprint import fingerprint
print(fingerprint(from_text({to_text(circuit)!r}, {{"model": "model"}})))
"""
    made = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert made.stdout.strip() == fingerprint(circuit)


def test_stores_may_be_given_one_name() -> None:
    text = to_text(Circuit({"output": Add((Weight("a", "w", ()), Weight("b", "w", ())))}))
    assert from_text(text, {"a": "m", "b": "m"}).roots["output"] is Add((Weight("m", "w", ()),) * 2)


WHOLE = to_json(
    Circuit({"output": EXAMPLES[Einsum]}, {kind.__name__: node for kind, node in EXAMPLES.items()}, {"a": "b"}, ("c",))
)
TEXT = json.dumps(WHOLE)
VALUES = [
    None,
    True,
    False,
    -1,
    0,
    1,
    3,
    2**70,
    0.0,
    math.nan,
    math.inf,
    "",
    "x",
    "model",
    "Add",
    [],
    {},
    [0],
    [[0]],
    {"float": "nan"},
    ["key", -1],
]


@given(st.data())
def test_a_changed_value_is_refused_or_changes_nothing(data: st.DataObject) -> None:
    changed: Any = copy.deepcopy(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        at = changed
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(at[key], list | dict) and data.draw(st.integers(0, 4)):
                at = at[key]
                continue
            how = data.draw(st.integers(0, 3))
            if how == 0:
                del at[key]
            elif how == 1 and isinstance(at, list):
                at.insert(key, data.draw(st.sampled_from(VALUES)))
            else:
                at[key] = data.draw(st.sampled_from(VALUES))
            break
        if not changed:
            break
    try:
        made = from_json(changed, {"model": "model", "x": "model"})
    except CircuitError:
        return
    assert fingerprint(made) == WHOLE["fingerprint"]


@given(st.data())
def test_a_changed_text_is_refused_or_changes_nothing(data: st.DataObject) -> None:
    text = TEXT
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(text)))
        text = (
            text[:at]
            + data.draw(st.sampled_from([*'{}[]",:0-1.e ', "true", "null", "NaN", "\\u0000", ""]))
            + text[at + data.draw(st.integers(0, 5)) :]
        )
    try:
        made = from_text(text, {"model": "model"})
    except CircuitError:
        return
    assert fingerprint(made) == WHOLE["fingerprint"]


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
