"""Laws of path selectors on random circuits: what one pass finds is what listing every walk finds; the graph is never listed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from match_by_force import accepts, chains, copied, selectors, starts, walks
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import topological
from scrubjay.circuit.match import (
    MatchError,
    anything,
    edges,
    find,
    is_found,
    join,
    kind,
    number_of_paths,
    path,
    paths,
    shortest,
    slot,
    these,
    update,
    where,
)
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Constant, Einsum, Index, Input, Map, Multiply, Split
from scrubjay.engine import evaluate
from scrubjay.testing.circuits import SOURCE, Example, circuits

X = Input("x", (Axis("model", 4),))
Y = Input("y", (Axis("model", 4),))


class Stored(dict[str, torch.Tensor]):
    dtype = torch.float64

    def tensor(self, name: str) -> torch.Tensor:
        return self[name]


@given(circuits(steps=7), st.data())
def test_find_is_the_ends_of_all_walks(example: Example, data: st.DataObject):
    every = walks(example.circuit)
    assume(every is not None)
    meant = selectors(data.draw, example.circuit.nodes)
    expected = {walk.nodes[-1] for walk in every or () if accepts(meant, walk)}
    assert is_found(example.circuit, meant) == bool(expected)
    if expected:
        found = find(example.circuit, meant)
        assert set(found) == expected
        assert list(found) == [node for node in example.circuit.nodes if node in expected]
    else:
        with pytest.raises(MatchError, match="finds nothing"):
            find(example.circuit, meant)


@given(circuits(steps=7), st.data())
def test_paths_edges_and_their_number_are_those_of_all_walks(example: Example, data: st.DataObject):
    every = walks(example.circuit)
    assume(every is not None)
    chain = chains(data.draw, example.circuit.nodes)
    ways = {(walk.nodes[i], walk.nodes[-1], walk.slots[i:]) for walk in every or () for i in starts(chain, walk)}
    assume(ways)
    routes = list(paths(example.circuit, chain, limit=10_000))
    assert len(routes) == len(ways) == number_of_paths(example.circuit, chain)
    assert {(one.receiver, one.sender, tuple(edge.slot for edge in one.edges[::-1])) for one in routes} == ways
    assert set(edges(example.circuit, chain)) == {edge for route in routes for edge in route.edges}
    for node, route in shortest(example.circuit, chain).items():
        assert route in routes
        assert len(route.edges) == min(len(one.edges) for one in routes if one.sender is node)


@given(circuits(steps=7), st.data())
def test_update_is_what_a_copy_of_the_whole_tree_gives(example: Example, data: st.DataObject):
    every = walks(example.circuit)
    assume(every is not None)
    meant = selectors(data.draw, example.circuit.nodes)
    assume(any(accepts(meant, walk) for walk in every or ()))

    def change(node: Node) -> Node:
        return Add((node, Constant(0)))

    made = update(example.circuit, meant, change, "along")
    for name, root in copied(example.circuit, meant, change).items():
        assert made.roots[name] is root
    assert made.history == (*example.circuit.history, "along")


@given(circuits(steps=6), st.data())
def test_update_gives_the_value_of_the_tree_walked_use_by_use(example: Example, data: st.DataObject):
    """The tree is evaluated without any sharing: each use by itself, from the values of its own operands."""
    every = walks(example.circuit)
    assume(every is not None)
    smooth = (Einsum, Multiply, Index, Split)
    some = [walk for walk in every or () if isinstance(walk.nodes[-1], smooth) and len(walk.nodes) > 1]
    assume(some)
    chosen = data.draw(st.sampled_from(some))
    meant = path(chosen.nodes[-1], data.draw(st.sampled_from(chosen.nodes[:-1])))
    taken = {(walk.nodes, walk.slots) for walk in every or () if accepts(meant, walk)}
    inputs = {name: torch.from_numpy(array) for name, array in example.inputs.items()}
    stores = {SOURCE: Stored({name: torch.from_numpy(array) for name, array in example.weights.items()})}

    def value(nodes: tuple[Node, ...], slots: tuple[int, ...]) -> torch.Tensor:
        node, given = nodes[-1], dict(inputs)
        operands: list[Node] = []
        for i, below in enumerate(node.operands):
            if not below.operands:
                operands.append(below)
                continue
            tensor = value((*nodes, below), (*slots, i))
            given[f"operand {i}"] = tensor
            dtype = "model" if tensor.dtype is torch.float64 else str(tensor.dtype).removeprefix("torch.")
            operands.append(Input(f"operand {i}", below.axes, dtype))
        here = result(node.with_operands(operands), given)
        return here.sin() if (nodes, slots) in taken else here

    def result(node: Node, given: Mapping[str, torch.Tensor]) -> torch.Tensor:
        found = evaluate([node], given, stores, dtype=torch.float64, sizes=example.sizes)[node]
        return torch.as_tensor(found.laid([axis.name for axis in node.axes]))

    made = update(example.circuit, meant, lambda node: Map("sin", (node,)))
    (root,) = example.circuit.roots.values()
    torch.testing.assert_close(result(made.roots["output"], inputs), value((root,), ()), rtol=1e-10, atol=1e-10)


@given(circuits(steps=7), st.data())
def test_replacing_all_uses_is_what_rewrite_does(example: Example, data: st.DataObject):
    old = data.draw(st.sampled_from(example.circuit.nodes))
    new = Constant(0.5)
    try:
        expected = example.circuit.rewrite({old: new}, "same")
    except ValueError as error:
        with pytest.raises(type(error)):
            update(example.circuit, old, new, "same")
        return
    made = update(example.circuit, old, new, "same")
    assert made.roots == expected.roots
    assert made.removed == expected.removed
    for address, node in made.table.items():
        assert node is expected.table[address]
    assert made.table.keys() == expected.table.keys()


def doubled(times: int) -> tuple[Node, list[Node]]:
    node: Node = X
    levels: list[Node] = [X]
    for _ in range(times):
        node = Multiply((node, node))
        levels.append(node)
    return node, levels


def test_a_graph_with_2_to_the_200_paths_is_searched_and_changed_at_once():
    top, levels = doubled(200)
    circuit = Circuit({"output": top})
    meant = path(X, levels[100], top)
    assert find(circuit, meant) == (X,)
    assert number_of_paths(circuit, meant) == 2**200
    assert len(edges(circuit, meant)) == 400
    assert len(shortest(circuit, meant)[X].edges) == 200
    made = update(circuit, path(X, slot(levels[150], 1)), Y)
    assert len(made.nodes) == 150 + 150 + 51  # below level 150 over x, the same over y, and what reads both
    few = paths(circuit, meant, limit=3)
    assert [len(next(few).edges) for _ in range(3)] == [200, 200, 200]
    with pytest.raises(MatchError, match=f"has {2**200} paths, more than the limit of 3"):
        next(few)


def test_a_long_chain_is_searched_without_recursion():
    node: Node = X
    for place in range(5_000):
        node = Add((node, Constant(place % 3)))
    circuit = Circuit({"output": node})
    assert number_of_paths(circuit, path(X, node)) == 1
    assert len(next(paths(circuit, path(X, node))).edges) == 5_000
    assert len(topological(update(circuit, path(X, node), Y).roots.values())) == len(circuit.nodes)


def test_work_grows_with_the_graph_and_not_with_its_paths():
    asked = [0, 0]
    for turn, times in enumerate((100, 200)):
        top, _ = doubled(times)

        def count(node: Node, turn: int = turn) -> bool:
            asked[turn] += 1
            return node is X

        find(Circuit({"output": top}), path(where(count), top).avoiding(Add))
    assert asked == [101, 201]


A, B = Map("relu", (X,)), Map("exp", (X,))
C = Multiply((A, B))
TOP = Add((C, A))
SMALL = Circuit({"output": TOP}, {"a": A, "b": B, "c": C, "x": X})


def test_one_use_is_changed_and_the_others_are_not():
    made = update(SMALL, path(X, A, C), Y)
    assert made.roots["output"] is Add((Multiply((Map("relu", (Y,)), B)), A))
    direct = update(SMALL, path(A, TOP).within(1), B)
    assert direct.roots["output"] is Add((C, B))
    by_slot = update(SMALL, path(X, slot(C, 1)), Y)
    assert by_slot.roots["output"] is Add((Multiply((A, Map("exp", (Y,)))), A))


def test_addresses_stay_with_what_is_unchanged_and_go_along_else():
    made = update(SMALL, path(X, A, C), Y, "patch")
    assert made.table == {"a": A, "b": B, "c": Multiply((Map("relu", (Y,)), B)), "x": X}
    assert made.removed == {}
    several = update(
        SMALL, path(X, A, C) | path(A, TOP).within(1), lambda node: Constant(1.0) if node is X else Y, "patch"
    )
    assert several.roots["output"] is Add((Multiply((Map("relu", (Constant(1.0),)), B)), Y))
    assert several.removed == {"a": "patch"}
    assert "a" not in several.table
    wrapped = update(SMALL, A, lambda node: Add((node, Y)), "wrap")
    assert wrapped.table["a"] is Add((A, Y))  # as after `rewrite`: no use of it is as it was
    gone = update(SMALL, C, X, "cut")
    assert gone.removed == {"b": "cut"}
    assert gone.table["c"] is X


def test_a_lower_end_is_replaced_before_a_higher_one():
    made = update(SMALL, path(these(X, A), C), lambda node: Map("sin", (node,)))
    assert made.roots["output"] is Add(
        (Multiply((Map("sin", (Map("relu", (Map("sin", (X,)),)),)), Map("exp", (Map("sin", (X,)),)))), A)
    )


def test_the_nearest_ends_alone_are_those_that_avoid_their_own_kind():
    nested = Map("sin", (Map("cos", (Map("sin", (X,)),)),))
    top = Map("exp", (nested,))
    circuit = Circuit({"output": top})
    sine = where(lambda node: isinstance(node, Map) and node.op == "sin")
    assert len(find(circuit, path(sine, top))) == 2
    assert find(circuit, path(sine, top).avoiding(sine)) == (nested,)


def test_a_route_says_its_nodes_in_the_direction_of_values():
    (route,) = paths(SMALL, path(X, slot(C, 1)))
    assert route.nodes == (X, B, C)
    assert [edge.operand for edge in route.edges] == [X, B]
    assert (route.sender, route.receiver) == (X, C)
    assert {one.nodes for one in paths(SMALL, path(X) & path(X, C))} == {(X, A, C), (X, B, C)}
    (alone,) = paths(SMALL, path(A) & ~path(anything, C))
    assert alone.nodes == (A,)


def test_the_shortest_path_is_the_shortest_of_all():
    far, close_ = path(X, TOP).within(3, 3), path(X, C)
    for meant in (far | close_, close_ | far):
        assert len(shortest(SMALL, meant)[X].edges) == 2


def test_a_path_passes_every_node_it_must():
    assert {one.nodes for one in paths(SMALL, path(X, TOP).through(C, B))} == {(X, B, C, TOP)}
    assert not is_found(SMALL, path(X, TOP).through(A, B))


def test_join_keeps_a_condition_to_its_leg():
    whole = path(X, C, TOP).avoiding(A)
    leg = join(path(X, C).avoiding(B), path(C, TOP))
    assert {one.nodes for one in paths(SMALL, whole)} == {(X, B, C, TOP)}
    assert {one.nodes for one in paths(SMALL, leg)} == {(X, A, C, TOP)}


def test_counts_of_paths_are_checked():
    assert find(SMALL, path(anything, C).exactly(3)) == (X, A, B)
    with pytest.raises(MatchError, match=r"exactly\(2\) was asked for, and 3 match: x, a, b"):
        find(SMALL, path(anything, C).exactly(2))
    with pytest.raises(MatchError, match=r"at_least\(4\) was asked for, and 3 match"):
        update(SMALL, path(anything, C).at_least(4) & kind(Map), X)


def test_values_compare_hash_and_print():
    one = path(A, kind(Multiply)).avoiding(kind(Add)).through(X).within(3, 1).inside(C)
    assert one == path(A, kind(Multiply)).avoiding(kind(Add)).through(X).within(3, 1).inside(C)
    assert len({one, one | one, one & ~one, ~~one}) == 3
    assert one != path(A, kind(Multiply))
    text = repr(
        path("a.b", slot("c.d", 1)).avoiding(kind(Add), "e.f").within(3, 1).inside("g.h").through(Map)
        & ~path("L0.attn.z").exactly(2)
    )
    assert text == (
        "path(at('a.b'), slot(at('c.d'), 1)).avoiding(kind(Add), at('e.f')).through(kind(Map)).within(3, 1).inside(at('g.h')) & "
        "~path(at('L0.attn.z')).exactly(2)"
    )


@pytest.mark.parametrize(
    "make",
    [
        path,
        join,
        lambda: path(X).within(1, 2),
        lambda: path(X).within(3, -1),
        lambda: path(7),  # pyright: ignore[reportArgumentType]
    ],
)
def test_what_is_no_path_is_refused(make):
    with pytest.raises(MatchError):
        make()
