"""Matchers: boolean algebra on random circuits, names, numbers of matches, and what is said when nothing is found."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import scrubjay as sj
from match_by_force import matchers, meets
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.match import (
    Matcher,
    MatchError,
    acts_along,
    anything,
    at,
    depends_on,
    edges,
    explain,
    feeds,
    find,
    first,
    has_axes,
    input_named,
    is_found,
    kind,
    named,
    number_of_paths,
    one,
    path,
    paths,
    read_by,
    reads,
    reads_input,
    these,
    update,
    validate,
    weight,
    where,
)
from scrubjay.circuit.match.matcher import Scope
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Along, Constant, Einsum, Index, Input, Map, Multiply, Weight
from scrubjay.errors import AddressError
from scrubjay.testing.circuits import Example, circuits

X = Input("x", (Axis("model", 4),))
W = Weight("m", "blocks.0.mlp.weight", ((Axis("model", 4),), (Axis("hidden", 3),)))
UP = Einsum((X, W), ("model",))
ACT = Map("relu", (UP,))
TOP = Add((ACT, Constant(1.0)))
UNREAD = Map("exp", (X,))
SMALL = Circuit(
    {"output": TOP},
    {"L0.mlp.pre": UP, "L0.mlp.post": ACT, "my place": ACT, "L1.mlp.post": UNREAD},
    {"L1.mlp.post": "cut"},
)


def found(matcher: Matcher, circuit: Circuit) -> set[Node]:
    return set(Scope(circuit).all(matcher))


@given(circuits(), st.data())
def test_boolean_algebra(example: Example, data: st.DataObject):
    circuit, every = example.circuit, set(example.circuit.nodes)
    a, b, c = (matchers(data.draw, circuit.nodes) for _ in range(3))
    for matcher in (a, b, c):
        assert found(matcher, circuit) == {node for node in every if meets(matcher, node)}
    assert found(a & b, circuit) == found(a, circuit) & found(b, circuit) == found(b & a, circuit)
    assert found(a | b, circuit) == found(a, circuit) | found(b, circuit) == found(b | a, circuit)
    assert found(~a, circuit) == every - found(a, circuit)
    assert found(a & (b | c), circuit) == found((a & b) | (a & c), circuit)
    assert found(~(a & b), circuit) == found(~a | ~b, circuit)
    assert found(a & (a | b), circuit) == found(a, circuit)
    assert ~~a == a
    assert (a & b) & c == a & (b & c)
    assert (a | b) | c == a | (b | c)
    assert a & a & a == a & a
    assert found(a | ~a, circuit) == found(anything, circuit) == every


@given(circuits(), st.data())
def test_relations_are_those_of_the_graph(example: Example, data: st.DataObject):
    circuit = example.circuit
    some = these(*data.draw(st.lists(st.sampled_from(circuit.nodes), min_size=1, max_size=3)))
    below = {node: set(node.operands) for node in circuit.nodes}
    for node in circuit.nodes:  # operands first
        below[node].update(*(below[operand] for operand in node.operands))
    targets = found(some, circuit)
    assert found(reads(some), circuit) == {node for node in circuit.nodes if set(node.operands) & targets}
    assert found(read_by(some), circuit) == {operand for node in targets for operand in node.operands}
    assert found(depends_on(some), circuit) == {node for node in circuit.nodes if below[node] & targets}
    assert found(feeds(some), circuit) == {inner for node in targets for inner in below[node]}


@given(circuits(), st.data())
def test_a_matcher_finds_what_paths_to_it_find(example: Example, data: st.DataObject):
    matcher = matchers(data.draw, example.circuit.nodes)
    assume(is_found(example.circuit, matcher))
    assert find(example.circuit, matcher) == find(example.circuit, path(matcher))
    assert first(example.circuit, matcher) is find(example.circuit, matcher)[0]


def test_by_name_kind_axes_predicate_and_leaf():
    assert find(SMALL, "L*.mlp.pre") == find(SMALL, at("L0..2.mlp.pre")) == (UP,)
    assert find(SMALL, named("my*")) == find(SMALL, named("my place")) == (ACT,)
    assert find(SMALL, "output") == (TOP,)
    assert find(SMALL, Einsum) == find(SMALL, kind(Einsum, Multiply)) == find(SMALL, UP) == (UP,)
    assert find(SMALL, has_axes("model", "hidden")) == (W,)
    assert find(SMALL, acts_along("model")) == (UP,)
    assert find(SMALL, where(lambda node: len(node.operands) == 2)) == (UP, TOP)
    assert find(SMALL, weight("*.mlp.*")) == (W,)
    assert find(SMALL, input_named("x")) == (X,)
    assert find(SMALL, reads_input("x")) == (UP,)
    assert one(SMALL, "L0.mlp.post") is ACT


def test_a_conjunction_shows_a_function_what_is_left_and_no_more():
    assert find(SMALL, kind(Einsum) & where(lambda node: node.summed == ("model",))) == (UP,)
    assert find(SMALL, ~(kind(Einsum) & where(lambda node: not node.summed)) & kind(Einsum)) == (UP,)
    with pytest.raises(AttributeError):
        find(SMALL, where(lambda node: node.summed == ("model",)) & kind(Einsum))
    assert "-  where(summed)  (0 left; without it 1)" in str(
        explain(SMALL, kind(Einsum) & where(lambda node: not node.summed, "summed"))
    )


def test_numbers_of_matches_are_checked_wherever_they_stand():
    assert find(SMALL, kind(Add, Map).exactly(2)) == (ACT, TOP)
    assert find(SMALL, kind(Add).at_least(1) | kind(Map)) == (ACT, TOP)
    with pytest.raises(
        MatchError, match=r"kind\(Add, Map\): exactly\(3\) was asked for, and 2 match: L0.mlp.post, output"
    ):
        find(SMALL, kind(Einsum) | kind(Add, Map).exactly(3))
    with pytest.raises(MatchError, match=r"at_least\(1\) was asked for, and 0 match"):
        find(SMALL, ~kind(Multiply).at_least(1))
    with pytest.raises(MatchError, match=r"exactly\(1\) was asked for, and 2 match"):
        one(SMALL, kind(Add, Map))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("L0.mlp.psot", r"did you mean L0\.mlp\.post"),
        ("L3.mlp.post", r"names no node of this circuit; did you mean L0\.mlp\.post"),
        ("L1.mlp.post", r"no result depends on L1\.mlp\.post since the rewrite 'cut'"),
        ("L0.N3", r"a part of the node L0\.mlp\.post, and no node of its own"),
        (named("my plaec"), r"did you mean my place\?"),
        (weight("*.mpl.*"), r"no name has 'mpl', did you mean mlp\?"),
        (input_named("tokens"), r"it has x$"),
        (~at("L3.mlp.post"), r"names no node"),
        (kind(Einsum) | named("nothing"), r"names no node"),
        (kind(Along), r"it has .*Einsum 1"),
        (has_axes("model", "head"), r"no node has head: the circuit's axes are hidden, model"),
        (these(UNREAD), r"no result depends on them"),
        (
            path("L0.mlp.post", "L0.mlp.pre"),
            r"the other way round there are paths: at\('L0.mlp.pre'\) -> at\('L0.mlp.post'\)",
        ),
        (path(X, TOP).avoiding(ACT), r"1  found without avoiding"),
        (path(X, TOP).within(2), r"1  found without within"),
        (kind(Add) & has_axes("model"), r"kind\(Add\)  \(1 left; without it 2\)"),
        ("L0.mlp.post@3", r"a position is a part of a node's value"),
        ("L0.H0.q_in", r"an edge and no node"),
    ],
)
def test_what_finds_nothing_says_why(what, said):
    with pytest.raises((MatchError, AddressError), match=said):
        find(SMALL, what)


@pytest.mark.parametrize("search", [find, one, first, edges, paths, number_of_paths, validate])
def test_nothing_found_is_an_error_everywhere(search):
    with pytest.raises(MatchError, match=r"kind\(Along\)"):
        search(SMALL, kind(Along))
    with pytest.raises(MatchError, match="finds nothing"):
        update(SMALL, path(TOP, X), X)


def test_parts_that_match_nothing_are_found_by_validation():
    validate(
        SMALL, path(X, TOP).avoiding(kind(Add) | kind(Weight) & has_axes("model") | these(TOP)).through(UP) | path(X)
    )
    with pytest.raises(MatchError, match=r"kind\(Along\)  \(avoiding\)"):
        validate(SMALL, path(X, TOP).avoiding(kind(Along)))
    with pytest.raises(MatchError) as told:
        validate(SMALL, path(X) | path(TOP, X).within(1))
    assert "found without" not in str(told.value)


def test_matchers_are_values():
    made = at("L*.mlp.post") & (kind(Einsum, Add) | ~has_axes("key", "query")) & weight("*").at_least(2)
    assert made == at("L*.mlp.post") & (kind(Einsum, Add) | ~has_axes("query", "key")) & weight("*").at_least(2)
    assert hash(made) == hash(pickle.loads(pickle.dumps(made)))
    assert repr(made) == (
        "at('L*.mlp.post') & (kind(Einsum, Add) | ~has_axes('key', 'query')) & weight('*').at_least(2)"
    )
    assert len({kind(Add), kind(Add), kind(Add) | kind(Add), ~~kind(Add)}) == 2
    with pytest.raises(TypeError):
        kind(Add) & "L0.mlp.post"  # pyright: ignore[reportUnusedExpression] - a text is no matcher where operators are
    for refused in (kind, lambda: find(SMALL, lambda node: True)):  # pyright: ignore[reportArgumentType]
        with pytest.raises(MatchError):
            refused()


@pytest.fixture(scope="module")
def brackets():
    return sj.load("zoo/brackets")


def test_addresses_of_a_model(brackets):
    circuit = brackets.circuit
    assert find(circuit, "L*.attn.z") == tuple(circuit.table[f"L{layer}.attn.z"] for layer in range(3))
    assert find(circuit, "L1..2.attn.z") == tuple(circuit.table[f"L{layer}.attn.z"] for layer in (1, 2))
    assert find(circuit, ".unembed") == (circuit.table[".unembed"],)
    assert find(circuit, "blocks.1.attn") == (circuit.table["L1.attn.out"],)
    with pytest.raises(AddressError, match=r"split it off, or match L1\.attn\.z"):
        find(circuit, "L1.H1.z", anatomy=brackets.anatomy)
    with pytest.raises(AddressError, match="head 5 does not exist"):
        find(circuit, "L1.H5.z", anatomy=brackets.anatomy)
    head = Index(circuit.table["L1.attn.z"], "head", 1)
    read = Circuit({"output": head}, circuit.table)
    assert find(read, "L*.H*.z", anatomy=brackets.anatomy) == (head,)


def test_direct_paths_go_along_the_stream(brackets):
    """Between an attention's output and a later MLP's there is its norm's scale and its direction: two ways, all others go through a part."""
    circuit = brackets.circuit
    for text, ways in (
        ("L0.attn.out -> L2.mlp.out", 2),
        ("L0.mlp.out -> L2.attn.q", 2),
        ("L0.attn.out -> L2.resid_pre", 1),
    ):
        direct = path(text).direct_only()
        assert number_of_paths(circuit, direct) == ways
        assert number_of_paths(circuit, path(text)) > ways
        parts = [circuit.table[f"L1.{part}"] for part in ("attn.z", "mlp.post")]
        assert not {edge.operand for edge in edges(circuit, direct)} & set(parts)
    assert number_of_paths(circuit, path("L0.attn.out -> L1.mlp.out -> L2.mlp.out").direct_only()) == 4
    by_hand = path("L0.attn.out -> L2.attn.q").direct_only(at("L*.attn.z") | at("L*.mlp.post"))
    assert set(paths(circuit, by_hand)) == set(paths(circuit, path("L0.attn.out -> L2.attn.q").direct_only()))
    with pytest.raises(MatchError, match="found without direct_only"):
        find(circuit, path("L0.attn.v -> L2.attn.q").direct_only())
    unnamed = circuit.with_table(
        {name: node for name, node in circuit.table.items() if not name.startswith("L1.attn.") or name == "L1.attn.out"}
    )
    with pytest.raises(MatchError, match=r"no value inside L1\.attn is named"):
        find(unnamed, path("L0.attn.out -> L2.attn.q").direct_only())
    with pytest.raises(MatchError, match="no attention or MLP is named"):
        find(Circuit({"output": TOP}), path(X, TOP).direct_only())
