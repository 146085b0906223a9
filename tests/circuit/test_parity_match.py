"""Matchers and path matchers of rust_circuit and what says the same here, checked against every way through the tree.

rust_circuit                                  Scrubjay                                test
--------------------------------------------  --------------------------------------  ------------------------------
Matcher("name")                               named("name"), an address               test_by_name
Matcher(set of names), Regex                  named("*.out") (a pattern), `|`         test_by_name
Matcher(Einsum)                               kind(Einsum), Einsum itself             test_by_type
Matcher(circuit)                              these(node), the node itself            test_by_circuit
Matcher(predicate)                            where(predicate)                        test_by_predicate
&, |, ~                                       &, |, ~                                 test_and_or_not
Matcher.match_any_found                       depends_on, feeds                       test_any_found
IterativeMatcher.chain                        path(A, B): B reads A                   test_chain
chain_many                                    path(A1, B) | path(A2, B)               test_chain_many
children_matcher                              slot(B, 0)                              test_children
restrict(end_depth), traversal                .within(most)                           test_restrict_end_depth
restrict(start_depth)                         .within(most, least)                    test_restrict_start_depth
restrict(term_if_matches=True)                .avoiding(the sender itself)            test_term_if_matches
restrict(term_early_at), chain_excluding      .avoiding(M)                            test_term_early_at
filter                                        & and ~ between paths                   test_filter
getter.get                                    find                                    test_get
get_unique                                    one, .exactly(1)                        test_get_unique
get_paths                                     shortest                                test_get_paths
get_all_paths                                 paths, number_of_paths                  test_get_all_paths
are_any_found, assert_any_found               is_found; nothing found is an error     test_are_any_found
validate                                      validate                                test_validate
update, Updater, Transform                    update(circuit, what, change)           test_update
print_matcher_debug                           explain                                 test_debug
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from parity import VALUES, A, B, C, same, value
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.match import (
    MatchError,
    anything,
    depends_on,
    explain,
    feeds,
    find,
    input_named,
    is_found,
    kind,
    named,
    number_of_paths,
    one,
    path,
    paths,
    shortest,
    slot,
    these,
    update,
    validate,
    where,
)
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Constant, Einsum, Input, Map, Multiply

a, b, c = (VALUES[name] for name in "abc")

# a is read by both layers; `first` by `second` twice, once through a tanh, and by the result itself.
FIRST = Map("exp", (Add((A, C)),))
SECOND = Multiply((Map("tanh", (FIRST,)), Add((FIRST, A))))
TOP = Einsum((Add((FIRST, SECOND)), B), ("j",))
CIRCUIT = Circuit({"output": TOP}, {"one.out": FIRST, "two.out": SECOND})

Walk = tuple[Node, ...]


def walks() -> Iterator[tuple[Walk, tuple[int, ...]]]:
    """Every way down from the result: the nodes, and the number of the operand at each step."""
    stack: list[tuple[Walk, tuple[int, ...]]] = [((TOP,), ())]
    while stack:
        nodes, numbers = stack.pop()
        yield nodes, numbers
        stack += [((*nodes, operand), (*numbers, at)) for at, operand in enumerate(nodes[-1].operands)]


def ends(meant: Callable[[Walk, tuple[int, ...]], bool]) -> set[Node]:
    """Where the walks end for which a function says so."""
    return {nodes[-1] for nodes, numbers in walks() if meant(nodes, numbers)}


def test_by_name():
    assert find(CIRCUIT, "two.out") == find(CIRCUIT, named("two.out")) == (SECOND,)
    assert set(find(CIRCUIT, named("*.out"))) == {FIRST, SECOND}
    assert set(find(CIRCUIT, named("one.*") | named("two.*"))) == {FIRST, SECOND}


def test_by_type():
    assert set(find(CIRCUIT, kind(Add, Einsum))) == ends(lambda nodes, _: isinstance(nodes[-1], Add | Einsum))
    assert find(CIRCUIT, Einsum) == (TOP,)


def test_by_circuit():
    assert set(find(CIRCUIT, these(FIRST, A))) == {FIRST, A}
    assert find(CIRCUIT, FIRST) == (FIRST,)


def test_by_predicate():
    found = find(CIRCUIT, where(lambda node: len(node.operands) == 2))
    assert set(found) == ends(lambda nodes, _: len(nodes[-1].operands) == 2)


def test_and_or_not():
    two, both = where(lambda node: len(node.operands) == 2), kind(Add, Map)
    assert set(find(CIRCUIT, two & both)) == set(find(CIRCUIT, two)) & set(find(CIRCUIT, both))
    assert set(find(CIRCUIT, two | both)) == set(find(CIRCUIT, two)) | set(find(CIRCUIT, both))
    assert set(find(CIRCUIT, ~two)) == set(find(CIRCUIT, anything)) - set(find(CIRCUIT, two))


def test_any_found():
    assert set(find(CIRCUIT, depends_on(SECOND))) == ends(lambda nodes, _: nodes[-1] in (TOP, TOP.operands[0]))
    assert set(find(CIRCUIT, feeds(FIRST))) == {A, C, FIRST.operands[0]}


def test_chain():
    """Inputs that `second` reads, directly or not; those that the result reads around it are not meant."""
    expected = ends(lambda nodes, _: SECOND in nodes and isinstance(nodes[-1], Input))
    assert set(find(CIRCUIT, path(kind(Input), SECOND))) == expected == {A, C}
    three = path(C, FIRST, SECOND)
    assert number_of_paths(CIRCUIT, three) == 2
    assert not is_found(CIRCUIT, path(B, SECOND))


def test_chain_many():
    either = path(A, SECOND) | path(B, TOP)
    assert set(find(CIRCUIT, either)) == {A, B}


def test_children():
    """Through the first operand of `second` only: its tanh."""
    sum_, tanh = SECOND.operands[1], SECOND.operands[0]
    assert not is_found(CIRCUIT, path(sum_, slot(SECOND, 0)))
    assert find(CIRCUIT, path(tanh, slot(SECOND, 0))) == (tanh,)
    assert number_of_paths(CIRCUIT, path(A, slot(SECOND, 1))) == 2


def test_restrict_end_depth():
    for most in range(1, 7):
        expected = ends(lambda nodes, _, most=most: isinstance(nodes[-1], Input) and len(nodes) - 1 <= most)
        assert set(find(CIRCUIT, path(kind(Input), TOP).within(most))) == expected
    assert set(find(CIRCUIT, path(kind(Input), TOP).within(1))) == {B}


def test_restrict_start_depth():
    expected = ends(lambda nodes, _: isinstance(nodes[-1], Input) and len(nodes) - 1 >= 6)
    assert set(find(CIRCUIT, path(kind(Input), TOP).within(None, 6))) == expected == {A, C}
    assert find(CIRCUIT, path(A, SECOND).within(2, 2)) == (A,)


def test_term_if_matches():
    """Sums that are met first on the way down: nothing is searched below one."""
    sums = kind(Add)
    expected = ends(lambda nodes, _: isinstance(nodes[-1], Add) and not any(isinstance(n, Add) for n in nodes[1:-1]))
    assert set(find(CIRCUIT, path(sums, TOP).avoiding(sums))) == expected == {TOP.operands[0]}
    assert set(find(CIRCUIT, path(sums, SECOND).avoiding(sums))) == {SECOND.operands[1], FIRST.operands[0]}


def test_term_early_at():
    """What the result reads of `a` other than through `first`."""
    found = list(paths(CIRCUIT, path(A, TOP).avoiding(FIRST)))
    expected = [nodes for nodes, _ in walks() if nodes[-1] is A and FIRST not in nodes]
    assert [route.nodes[::-1] for route in found] == expected
    assert len(found) == 1


def test_filter():
    inputs = path(kind(Input), TOP)
    through = path(kind(Input), SECOND)
    assert set(find(CIRCUIT, inputs & ~through)) == ends(
        lambda nodes, _: isinstance(nodes[-1], Input) and SECOND not in nodes
    )
    assert set(find(CIRCUIT, inputs & input_named("b"))) == {B}


def test_get():
    assert find(CIRCUIT, kind(Map)) == tuple(node for node in CIRCUIT.nodes if isinstance(node, Map))


def test_get_unique():
    assert one(CIRCUIT, Multiply) is SECOND
    with pytest.raises(MatchError, match=r"exactly\(1\) was asked for, and 2 match"):
        one(CIRCUIT, Map)
    with pytest.raises(MatchError, match=r"exactly\(2\) was asked for, and 1 match"):
        find(CIRCUIT, kind(Multiply).exactly(2))


def test_get_paths():
    found = shortest(CIRCUIT, path(kind(Input), TOP))
    for node in (A, B, C):
        assert len(found[node].edges) == min(len(nodes) - 1 for nodes, _ in walks() if nodes[-1] is node)
        assert found[node].nodes[0] is node
        assert found[node].nodes[-1] is TOP


def test_get_all_paths():
    every = {(nodes, numbers) for nodes, numbers in walks() if nodes[-1] is A}
    found = {
        (route.nodes[::-1], tuple(edge.slot for edge in route.edges[::-1])) for route in paths(CIRCUIT, path(A, TOP))
    }
    assert found == every
    assert number_of_paths(CIRCUIT, path(A, TOP)) == len(every) == 4


def test_are_any_found():
    assert is_found(CIRCUIT, path(C, SECOND))
    assert not is_found(CIRCUIT, path(B, SECOND))
    with pytest.raises(MatchError, match="finds nothing"):
        find(CIRCUIT, path(B, SECOND))


def test_validate():
    validate(CIRCUIT, path(A, FIRST))
    with pytest.raises(MatchError, match="match nothing"):
        validate(CIRCUIT, path(A, TOP).avoiding(where(lambda node: False, "never")))


def test_update():
    """The `first` that the result reads itself becomes 0; those that `second` reads stay."""
    made = update(CIRCUIT, path(FIRST, TOP).avoiding(SECOND), Multiply((FIRST, Constant(0.0))))
    first = (a + c).exp()
    same(value(made.roots["output"], "i k"), (first.tanh() * (first + a)) @ b)
    both = update(CIRCUIT, kind(Map), lambda node: node.operands[0])
    same(value(both.roots["output"], "i k"), (a + c + (a + c) * (a + c + a)) @ b)
    one_use = update(CIRCUIT, path(FIRST, slot(SECOND, 0)).within(2), lambda node: Map("sin", (node,)))
    same(value(one_use.roots["output"], "i k"), (first + first.sin().tanh() * (first + a)) @ b)


def test_debug():
    text = str(explain(CIRCUIT, kind(Map) & named("two.out")))
    assert text.splitlines()[0].startswith("0 ")
    assert "without it" in text
