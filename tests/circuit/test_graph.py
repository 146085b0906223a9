"""Walking, rebuilding and rewriting graphs: without recursion, each node once."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import above, mapped_roots, readers, rebuild, substitute, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Along, Constant, Input, Map, Multiply
from scrubjay.circuit.renaming import rename_axes
from scrubjay.circuit.rules import gathers_up, positions_down
from scrubjay.circuit.serial import from_json, to_json
from scrubjay.engine import evaluate
from scrubjay.errors import AddressError, CircuitError

X, Y = (Input(name, (Axis("batch", "batch"),)) for name in "xy")
LONG = 50_000


def chain(length: int, begin: Node = X) -> Node:
    node = begin
    for place in range(length):
        node = Add((node, Constant(place % 7)))
    return node


def test_a_long_chain_is_built_walked_substituted_printed_evaluated_and_freed():
    """No step may recurse: 50,000 nodes are far beyond Python's stack."""
    top = chain(LONG)
    order = topological([top])
    assert len(order) == LONG + 1 + 7
    assert order[-1] is top
    assert readers([top])[X] == [Add((X, Constant(0)))]
    assert len(above([top], [X])) == LONG + 1
    assert substitute([top], {X: Y})[top] is chain(LONG, Y)
    assert rebuild([top], lambda node, operands: node.with_operands(operands))[top] is top
    circuit = Circuit({"output": top}, {"middle": order[LONG // 2]})
    assert repr(circuit) == f"<Circuit output: {LONG + 8} nodes, 1 addresses>"
    assert len(repr(top)) < 100
    assert str(circuit)
    value = evaluate([top], {"x": torch.zeros(2)}, {})[top].as_tensor()
    assert value.tolist() == [float(sum(place % 7 for place in range(LONG)))] * 2
    last = weakref.ref(order[100])
    del top, order, circuit
    gc.collect()
    assert last() is None


def test_no_rewrite_recurses():
    top = chain(5_000)
    circuit = Circuit({"output": top})
    assert rename_axes([top], {"batch": "row"})[top].axis_names == {"row"}
    assert circuit.exact().roots["output"] is top
    assert circuit.rewrite({X: Y}, "swap").inputs.keys() == {"y"}
    assert from_json(to_json(circuit), {}).roots["output"] is top
    assert gathers_up([top])[top] is top
    assert positions_down([top])[top] is top


def test_a_graph_that_doubles_at_each_step_is_walked_once():
    """2^200 paths, 201 nodes."""
    node: Node = X
    for _ in range(200):
        node = Multiply((node, node))
    assert len(topological([node])) == 201
    assert substitute([node], {X: Constant(1.0)})[node].axes == ()
    assert evaluate([node], {"x": torch.ones(3)}, {}).evaluated == 201


def test_operands_come_before_what_reads_them_in_order():
    one, two = Map("exp", (X,)), Map("sin", (Y,))
    top = Add((one, two, one))
    assert topological([top]) == [X, one, Y, two, top]
    assert topological([two, top]) == [Y, two, X, one, top]
    assert topological([top], stop=frozenset({one})) == [one, Y, two, top]


def test_readers_are_listed_once():
    twice = Add((X, X))
    assert readers([twice]) == {X: [twice]}


def test_substitution_is_made_in_all_places_at_once():
    a, b = Map("exp", (X,)), Map("exp", (Y,))
    top = Add((a, Multiply((a, b))))
    assert substitute([top], {X: Y, Y: X})[top] is Add((b, Multiply((b, a))))
    assert substitute([top], {a: Add((a, X))})[top] is Add((Add((a, X)), Multiply((Add((a, X)), b))))
    assert substitute([top], {})[top] is top


def test_a_root_that_was_not_reached_is_told():
    made = substitute([X], {})
    with pytest.raises(CircuitError, match="is not below the roots that were rewritten"):
        mapped_roots(made, [Y])


def test_a_circuit_carries_its_addresses_over_a_rewrite():
    inner = Map("exp", (X,))
    circuit = Circuit({"output": Add((inner, Constant(1)))}, {"a": inner, "b": inner, "x": X})
    made = circuit.rewrite({X: Y}, "swap")
    assert made.table == {"a": Map("exp", (Y,)), "b": Map("exp", (Y,)), "x": Y}
    assert made.history == ("swap",)
    assert circuit.table["a"] is inner
    assert circuit.history == ()
    with pytest.raises(AddressError, match=r"outputt: no such place in this circuit; did you mean output\?"):
        made.node("outputt")
    gone = Circuit(made.roots, {}, {"a": "fold"})
    with pytest.raises(AddressError, match=r"a: this place is gone since the rewrite 'fold'"):
        gone.node("a")
    with pytest.raises(CircuitError, match="needs at least one result"):
        Circuit({})


def test_the_exact_form_widens_narrow_casts_and_no_others():
    narrow = Map("cast", (Map("cast", (X,), ("float32",)),), ("bfloat16",))
    whole = Map("cast", (narrow,), ("int64",))
    made = Circuit({"output": whole}, {"inner": narrow}).exact()
    inner = Map("cast", (Map("cast", (X,), ("model",)),), ("model",))
    assert made.table["inner"] is inner
    assert made.roots["output"] is Map("cast", (inner,), ("int64",))


def test_an_axis_of_two_sizes_is_refused_when_run():
    top = Add((X, Y))
    with pytest.raises(ValueError, match=r"'batch' is 3 in input 'y' and 2 in 'x': give both the same size"):
        evaluate([top], {"x": torch.ones(2), "y": torch.ones(3)}, {})
    with pytest.raises(ValueError, match=r"reads an input 'y' that was not given; given: x"):
        evaluate([top], {"x": torch.ones(2)}, {})


def test_values_are_freed_as_soon_as_nothing_needs_them():
    node: Node = X
    for _ in range(100):
        node = Along("softmax", Map("exp", (node,)), ("batch",))
    assert evaluate([node], {"x": torch.ones(3)}, {}).peak_live <= 2
