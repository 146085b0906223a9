"""The engine under the equalities: places, fixed points, non-termination, traces, refusals and growth."""

from __future__ import annotations

from itertools import pairwise

import pytest

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Along,
    Concat,
    Constant,
    Custom,
    Einsum,
    Gather,
    Index,
    Input,
    Iota,
    Map,
    Merge,
    Multiply,
    Narrow,
    Order,
    Relabel,
    Repeat,
    Split,
    Weight,
)  # fmt: skip
from scrubjay.circuit.rules.algebra import FLATTEN_ADD, FLATTEN_EINSUM, SCALAR_IN, SCALAR_OUT, nest
from scrubjay.circuit.rules.approximation import approximate, frozen_scale
from scrubjay.circuit.rules.distribution import DISTRIBUTE, FACTOR, distribute
from scrubjay.circuit.rules.facts import fresh, kind
from scrubjay.circuit.rules.joining import PULL_CONCAT, in_chunks, split_to_concat
from scrubjay.circuit.rules.lookup import gather_up, gathers_up
from scrubjay.circuit.rules.norms import FOLD_SCALE, SINK_ALONG
from scrubjay.circuit.rules.numbers import ADD_ZERO, EINSUM_ONES, FOLD_NUMBERS, MULTIPLY_ONE, SINGLE_TERM
from scrubjay.circuit.rules.places import MERGE_STRETCHES, split_heads, split_place, split_places
from scrubjay.circuit.rules.projection import estimate, onto, project
from scrubjay.circuit.rules.rewriting import explain, rewrite, rules_applied
from scrubjay.circuit.rules.rule import Rule, applied
from scrubjay.circuit.rules.selecting import (
    CHOICE_TO_CONCAT,
    CONCAT_TO_CHOICE,
    CONCAT_TO_SCATTER,
    EINSUM_IDENTITY,
    SCATTER_TO_CONCAT,
    scatter,
)  # fmt: skip
from scrubjay.circuit.rules.shapes import MERGE_OF_SPLIT, RAISE_REPEAT, SINK_REPEAT, SPLIT_OF_MERGE
from scrubjay.circuit.rules.simplify import simplify
from scrubjay.circuit.rules.sources import by_source, expand_residual
from scrubjay.circuit.rules.taking import PUSH_TAKE, push_index
from scrubjay.circuit.rules.themes import EQUALITIES, rule_table
from scrubjay.circuit.rules.turning import LINEAR_AS_MATRIX
from scrubjay.errors import CircuitError

QUERY, MODEL = Axis("query", "query"), Axis("model", 6)
HEAD, D_HEAD, HIDDEN = Axis("head", 3), Axis("d_head", 2), Axis("hidden", 5)
X, Y = Input("x", (QUERY, MODEL)), Input("y", (QUERY, MODEL))
COUNTS = Input("counts", (QUERY,), "int64")
KEY = (("query", "key"),)
PLACE, OTHER = Input("place", (HEAD,), "int64"), Input("other", (HEAD,), "int64")
NARROW = Weight("model", "narrow", ((MODEL,),), "float32")


def weight(name: str, *axes: Axis) -> Weight:
    return Weight("model", name, tuple((axis,) for axis in axes))


def stack(layers: int) -> Circuit:
    """Attention and an MLP in each layer, pre-norm: the shape of a transformer, heads not split."""
    stream: Node = X
    table: dict[str, Node] = {}
    for layer in range(layers):
        table[f"L{layer}.resid_pre"] = stream
        read = normed(stream, f"{layer}.ln")
        q, k, v = (Einsum((read, weight(f"{layer}.{name}", HEAD, D_HEAD, MODEL)), ("model",)) for name in "qkv")
        pattern = Along("softmax", Einsum((q, Relabel(k, KEY)), ("d_head",)), ("key",))
        z = Einsum((pattern, Relabel(v, KEY)), ("key",))
        out = Einsum((z, weight(f"{layer}.o", HEAD, D_HEAD, MODEL)), ("d_head", "head"))
        stream = Add((stream, Add((out, weight(f"{layer}.b", MODEL)))))
        up = Map("gelu", (Einsum((normed(stream, f"{layer}.ln2"), weight(f"{layer}.up", MODEL, HIDDEN)), ("model",)),))
        stream = Add((stream, Einsum((up, weight(f"{layer}.down", HIDDEN, MODEL)), ("hidden",))))
    unembed = weight("unembed", MODEL, Axis("vocab", 7))
    return Circuit({"logits": Einsum((normed(stream, "ln_f"), unembed), ("model",))}, table)


def normed(value: Node, name: str) -> Node:
    centred = Along("center", value, ("model",))
    return Multiply((Map("divide", (centred, Along("rms", centred, ("model",), (1e-5,)))), weight(name, MODEL)))


def test_splitting_all_heads_is_linear_in_the_number_of_layers() -> None:
    sizes = [len(split_heads(stack(layers)).nodes) for layers in (4, 8, 12)]
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0]
    made = split_heads(stack(12))
    # for each layer a sum and, for each head, two choices of a place and a contraction; one contraction less
    assert len(made.nodes) == len(stack(12).nodes) + 12 * (1 + 3 * 3 - 1)
    assert rules_applied(made) == {"split_places": 12}


def test_expanding_the_residual_everywhere_shares_what_readers_have_in_common() -> None:
    """Terms below a norm are the same nodes for every reader of that norm: queries, keys and values."""
    sizes: list[int] = []
    for layers in (3, 6, 9, 12):
        circuit = stack(layers)
        made = expand_residual(circuit)
        assert rules_applied(made) == {"by_source": 4 * layers + 1 - 3}  # the first attention reads one source
        sizes.append(len(made.nodes) - len(circuit.nodes))
    steps = [after - before for before, after in pairwise(sizes)]
    assert steps[2] - steps[1] == steps[1] - steps[0]  # quadratic in the layers
    # sources before attention 1 + 3 n and before the MLP 3 + 3 n; for each centre, quotient and scale once, and one term a reader
    terms = sum((3 + 3) * (1 + 3 * n) + (3 + 1) * (3 + 3 * n) for n in range(12)) + (3 + 1) * (1 + 3 * 12)
    assert sizes[3] <= terms


def test_splitting_by_source_everywhere_does_not_enter_what_it_made() -> None:
    """Without a place, only linear maps are split: what attention mixes and multiplies is left, so that terms do not multiply."""
    sizes = [len(rewrite(stack(layers), by_source()).nodes) for layers in (2, 4, 6, 8)]
    steps = [after - before for before, after in pairwise(sizes)]
    assert steps[2] - steps[1] == steps[1] - steps[0]  # quadratic in the layers
    assert rewrite(stack(4), by_source()).roots == expand_residual(stack(4)).roots


def test_a_look_up_rises_through_everything_or_as_one_function_does() -> None:
    rows = Gather(X, "query", PLACE)
    node = Along("softmax", Add((Map("tanh", (rows,)), Gather(Y, "query", PLACE))), ("model",))
    made = rewrite(node, gather_up("query")).roots["output"]
    assert made is Gather(Along("softmax", Add((Map("tanh", (X,)), Y)), ("model",)), "query", PLACE)
    assert gathers_up([node], "query")[node] is made


def test_what_a_value_is_divided_by_stays_in_the_matrix() -> None:
    q = Einsum((X, weight("w", MODEL, HEAD)), ("model",))
    made = applied(LINEAR_AS_MATRIX, Along("center", Map("divide", (q, q)), ("head",)))
    assert q in topological([made.operands[1]])


def test_scatters_joins_and_choices_are_forms_of_one_value() -> None:
    to = Axis("place", 9)
    made = applied(SCATTER_TO_CONCAT, scatter(X, "model", to, 2))
    zeros = [Repeat(Constant(0, "model"), (Axis("model", size),)) for size in (2, 1)]
    assert made is Concat((zeros[0], X, zeros[1]), ("model",) * 3, to)
    parts = applied(CONCAT_TO_SCATTER, Concat((X, Y), ("model", "model"), Axis("place", 12)))
    assert parts is Add((scatter(X, "model", Axis("place", 12)), scatter(Y, "model", Axis("place", 12), 6)))
    choice = Map("where", (Map("equal", (Iota(MODEL), Constant(2))), Index(Y, "model", 0), X))
    joined = applied(CHOICE_TO_CONCAT, choice)
    assert [part.size("model") for part in joined.operands] == [2, 1, 3]
    one = Concat(
        (joined.operands[0], Narrow(Y, "model", 0, Axis("model", 1)), joined.operands[2]), ("model",) * 3, MODEL
    )
    assert applied(CONCAT_TO_CHOICE, one) is Map(
        "where", (*choice.operands[:1], Index(Narrow(Y, "model", 0, Axis("model", 1)), "model", 0), X)
    )
    assert applied(EINSUM_IDENTITY, scatter(X, "model", Axis("place", 6))) is Relabel(X, (("model", "place"),))
    with pytest.raises(CircuitError, match="6 places from 4 on do not fit on the axis place=9"):
        scatter(X, "model", to, 4)
    with pytest.raises(CircuitError, match="has an axis 'query' already"):
        scatter(X, "model", Axis("query", "query"))


def test_rules_that_undo_each_other_are_found_out() -> None:
    node = Einsum((Multiply((Constant(2.0), X)), weight("w", MODEL)), ("model",))
    with pytest.raises(CircuitError, match=r"the rules scalar_out \(x\d+\), scalar_in \(x\d+\) go round in a circle"):
        rewrite(node, (SCALAR_OUT, SCALAR_IN))
    with pytest.raises(CircuitError, match="distribute"):
        rewrite(Multiply((Y, Add((X, Y)))), (DISTRIBUTE, FACTOR))


def test_a_rule_that_makes_the_circuit_grow_is_found_out() -> None:
    def grow(node: Node) -> Node | str:
        return Map("abs", (Map("abs", (Add((node.operands[0], Constant(0.0))),)),)) if isinstance(node, Map) else "no"

    def around(node: Node) -> Node | str:
        return Add((node, Constant(0.0))) if node is X else "no"

    growing = Rule("grow", "test", "grows", "x = abs(abs(x))", lambda: Map("abs", (X,)), grow)
    with pytest.raises(CircuitError, match=r"grow \(x\d+\) were not at an end after \d+ steps"):
        rewrite(Map("abs", (X,)), growing)
    circle = Rule("around", "test", "grows", "x = x + 0", lambda: X, around)
    with pytest.raises(CircuitError, match="circle"):
        rewrite(Map("abs", (X,)), circle)


def test_a_rule_that_changes_the_axes_is_a_defect() -> None:
    wrong = Rule(
        "wrong",
        "test",
        "drops an axis",
        "x = x[0]",
        lambda: X,
        lambda node: Index(node, "model", 0) if node is X else "no",
    )
    with pytest.raises(CircuitError, match=r"wrong.*other axes.*defect"):
        rewrite(X, wrong)


def test_a_rule_asked_for_where_it_does_not_hold_says_why_not() -> None:
    with pytest.raises(CircuitError, match=r"flatten_add .* does not hold at <Map.*it is for a sum, and this is Map"):
        applied(FLATTEN_ADD, Map("tanh", (X,)))
    circuit = Circuit({"output": Add((X, Map("tanh", (Y,))))})
    with pytest.raises(
        CircuitError, match=r"no rule holds at any of the 1 places asked for.*none of its terms is a sum"
    ):
        rewrite(circuit, FLATTEN_ADD, where=[circuit.roots["output"]])
    with pytest.raises(CircuitError, match="no node of the circuit was asked for"):
        rewrite(circuit, FLATTEN_ADD, where=lambda node: isinstance(node, Index))
    assert rewrite(circuit, FLATTEN_ADD) is circuit


REFUSED: dict[str, tuple[Rule, Node, str]] = {
    "whole numbers": (FLATTEN_ADD, Add((COUNTS, Add((COUNTS, COUNTS)))), "not all of the values are known to be floating"),
    "truth values": (FLATTEN_ADD, Add(((t := Map("greater", (X, Y))), Add((t, t)))), "floating"),
    "zero of another kind": (ADD_ZERO, Add((COUNTS, Constant(0.0))), "floating"),
    "a zero that decides the type": (ADD_ZERO, Add((NARROW, Constant(0, "model"))), "decides the type of the result"),
    "a one that decides the type": (MULTIPLY_ONE, Multiply((NARROW, Constant(1, "model"))), "decides the type of the result"),
    "ones that decide the type": (EINSUM_ONES, Einsum((NARROW, Constant(1, "model")), ("model",)), "decides the type"),
    "parts of two kinds": (PULL_CONCAT, Map("abs", (Concat((X, Iota(MODEL)), ("model", "model"), Axis("both", 12)),)), "different kinds of numbers"),
    "a split into other sizes": (SPLIT_OF_MERGE, Split(Merge(Input("z", (HEAD, D_HEAD)), ("head", "d_head"), MODEL), "model", (Axis("a", 2), Axis("b", 3))), "sizes 3, 2 were merged"),
    "a merge in another order": (MERGE_OF_SPLIT, Merge(Split(X, "model", (HEAD, D_HEAD)), ("d_head", "head"), MODEL), "in their order"),
    "repeating along what is summed": (SINK_REPEAT, Repeat(Einsum((X, Y), ("model",)), (MODEL,)), "acts along model"),
    "raising what is summed": (RAISE_REPEAT, Einsum((Repeat(NARROW, (QUERY,)), X), ("query",)), "does not act along"),
    "stretches that overlap": (
        MERGE_STRETCHES,
        Add(tuple(Einsum((Narrow(X, "model", at, D_HEAD), Narrow(Y, "model", at, D_HEAD)), ("d_head",)) for at in (0, 1))),
        "neighbouring stretches",
    ),
    "no sum of one": (SINGLE_TERM, Add((X, Y)), "it has 2 operands"),
    "distributing what is not linear": (DISTRIBUTE, Map("tanh", (Add((X, Y)),)), "linear in none"),
    "distributing over no sum": (DISTRIBUTE, Multiply((X, Y)), "is no sum"),
    "an operand that is not linear": (distribute(1), Map("divide", (X, Add((X, Y)))), "not linear in an operand 1"),
    "nesting all": (nest((0, 1)), Einsum((X, Y), ("model",)), "not all"),
    "an axis that is not summed": (split_places("head"), Einsum((X, Y), ("model",)), "does not sum over 'head', only over model"),
    "places known only when run": (split_places("query"), Einsum((X, Y), ("query",)), "known only when run"),
    "a place outside": (split_place("model", 6), Einsum((X, Y), ("model",)), "outside axis model=6"),
    "stretches that are too short": (split_to_concat("model", (1, 2)), X, r"6 places, and the stretches have 1 \+ 2"),
    "no such axis": (split_to_concat("head", (1, 2)), X, "no axis 'head'"),
    "a function acting along": (PUSH_TAKE, Index(Along("softmax", X, ("model",)), "model", 0), "Along acts along model"),
    "a leaf": (PUSH_TAKE, Index(X, "model", 0), "Input is not looked into"),
    "a function of the user's": (PULL_CONCAT, Custom("functions", "f", X, ("query", "model")), "Custom is not looked into"),
    "a basis of another width": (project(weight("u", D_HEAD)), X, "the basis needs the axis model=6"),
    "one source": (by_source(), Einsum((X, weight("w", MODEL)), ("model",)), "one source only"),
    "a product that is no linear map": (by_source(), Einsum((Add((X, Y)), Y, weight("w", MODEL)), ("model",)), "no linear map of one value by weights; say which operand"),
    "an estimate with other axes": (estimate(weight("u", HIDDEN)), X, "the axes hidden=5, which the value lacks"),
    "an estimate by itself": (estimate(X), X, "the estimate is the value itself"),
    "a function of a sum of two projections": (LINEAR_AS_MATRIX, Map("divide", (Add((Einsum((X, weight("v", MODEL, HEAD)), ("model",)), Einsum((Y, weight("w", MODEL, HEAD)), ("model",)))), Constant(2.0))), "not linear in one projection"),
    "a projection as a matrix": (LINEAR_AS_MATRIX, Einsum((X, weight("w", MODEL, HEAD)), ("model",)), "a projection itself"),
    "a renamed projection": (LINEAR_AS_MATRIX, Relabel(Einsum((X, weight("w", MODEL, HEAD)), ("model",)), KEY), "with axes renamed"),
    "a function along no axis": (LINEAR_AS_MATRIX, Multiply((Einsum((X, weight("w", MODEL, HEAD)), ("model",)), Constant(2.0))), "acts along no axis"),
    "a softmax of a projection": (LINEAR_AS_MATRIX, Along("softmax", Einsum((X, weight("w", MODEL, HEAD)), ("model",)), ("head",)), "not linear in one projection"),
    "a mean of what both have": (SINK_ALONG, Along("mean", Multiply((X, Y)), ("model",)), "2 of its factors have model"),
    "rows looked up at two places": (gather_up("query"), Add((Gather(X, "query", PLACE), Gather(Y, "query", OTHER))), "looked up at different places"),
    "a function along rows": (gather_up("query"), Along("softmax", Gather(Gather(X, "model", Iota(HIDDEN)), "query", PLACE), ("head",)), "Along acts along head"),
    "rows beside one that is not looked up": (gather_up("query"), Add((Gather(X, "query", PLACE), Y)), "another operand has an axis of head, query"),
    "no look-up of rows": (gather_up(), Add((X, Y)), "none of its operands is a look-up along 'row'"),
    "a user's function of rows": (gather_up("query"), Custom("f", "f", Gather(X, "query", PLACE), ("head", "model")), "takes no further axis"),
    "a choice by values": (CHOICE_TO_CONCAT, Map("where", (Map("greater", (X, Y)), X, Y)), "no comparison of one count with a number"),
    "a choice outside": (CHOICE_TO_CONCAT, Map("where", (Map("equal", (Iota(MODEL), Constant(6))), X, Y)), "place 6 is outside axis model=6"),
    "a join of other places": (CONCAT_TO_CHOICE, Concat((Narrow(X, "model", 0, HEAD), Narrow(X, "model", 0, HEAD)), ("head", "head"), MODEL), "one place of it replaced"),
    "a scatter that does not fit": (SCATTER_TO_CONCAT, Einsum((X, Map("cast", (Map("equal", (Iota(HIDDEN), Iota(MODEL))),), ("model",))), ("model",)), "some are lost"),
    "no scatter": (SCATTER_TO_CONCAT, Einsum((X, weight("w", MODEL, HIDDEN)), ("model",)), "none of its factors is a one-hot matrix"),
    "a join of parts known only when run": (CONCAT_TO_SCATTER, Concat((X, Y), ("query", "query"), Axis("both", "both")), "known only when run"),
    "no identity": (EINSUM_IDENTITY, Einsum((X, weight("w", MODEL, HIDDEN)), ("model",)), "none of its factors is an identity"),
    "a place of another axis": (push_index(["head"]), Index(Map("tanh", (X,)), "model", 0), "a place of 'model', and head was asked for"),
    "no weights to fold": (FOLD_SCALE, Einsum((X, weight("w", MODEL)), ("model",)), "none of its factors is a value times weights"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_what_was_found(name: str) -> None:
    rule, node, reason = REFUSED[name]
    assert rule.apply(node) is None
    with pytest.raises(CircuitError, match=reason):
        applied(rule, node)


def test_places_are_those_of_the_circuit_as_it_was() -> None:
    """A rule applied where it was asked for goes on in what it made there, and leaves the rest alone."""
    one, two = Add((X, Add((X, Add((X, Y)))))), Add((Y, Add((Y, X))))
    circuit = Circuit({"one": Map("tanh", (one,)), "two": Map("tanh", (two,))})
    made = rewrite(circuit, FLATTEN_ADD, where=[one])
    assert made.roots["one"] is Map("tanh", (Add((X, X, X, Y)),))
    assert made.roots["two"] is circuit.roots["two"]
    asked = {"all": rewrite(circuit, FLATTEN_ADD, where=lambda node: isinstance(node, Add))}
    assert asked["all"].roots == rewrite(circuit, FLATTEN_ADD).roots
    assert asked["all"].roots["two"] is Map("tanh", (Add((Y, Y, X)),))


def test_a_rule_that_is_applied_once_does_not_enter_what_it_made() -> None:
    made = rewrite(Multiply((X, Y)), split_to_concat("model", (2, 4)), where=[X])
    (concat, other) = made.roots["output"].operands
    assert other is Y
    assert [part.operands[0] for part in concat.operands] == [X, X]


def test_history_tells_equalities_from_the_rest() -> None:
    circuit = stack(1)
    made = split_heads(simplify(circuit))
    made = rewrite(made, by_source())
    place = next(node for node in made.nodes if isinstance(node, Along) and node.op == "rms")
    made = approximate(made, frozen_scale(), [place])
    lines = explain(made).splitlines()
    assert [line.split(". ")[1].split(":")[0] for line in lines] == ["equality", "equality", "approximation"]
    assert "split_places x1" in lines[0]
    assert "exact when" in lines[2]
    assert explain(circuit) == "nothing was rewritten"
    assert set(rules_applied(made)) == {"split_places", "by_source"}
    with pytest.raises(CircuitError, match="it is no scale of a norm"):
        approximate(circuit, frozen_scale(), [circuit.roots["logits"]])
    with pytest.raises(CircuitError, match="no node of the circuit was asked for"):
        approximate(circuit, frozen_scale(), [Y])


def test_the_frozen_value_has_no_axis_that_the_scale_lacks() -> None:
    scale = Along("rms", X, ("model",), (1e-5,))
    assert frozen_scale(Constant(2.0)).apply(scale) is Constant(2.0)
    assert "which the scale lacks" in frozen_scale(X).why_not(scale)
    assert frozen_scale(lambda node: Along("mean", node, ("query",))).apply(scale) is Along("mean", scale, ("query",))


def test_a_deep_circuit_is_rewritten_without_recursion() -> None:
    node: Node = X
    for _ in range(4_000):
        node = Add((Map("tanh", (node,)), Constant(0)))
    made = simplify(node)
    assert rules_applied(made) == {"add_zero": 4_000}
    assert len(made.nodes) == 4_001


def test_one_long_rewrite_takes_no_recursion_either() -> None:
    """One choice of a place sinks through thousands of nodes, all of them made by rules."""
    node: Node = X
    for _ in range(1_500):
        node = Map("tanh", (node,))
    made = rewrite(Index(node, "model", 2), PUSH_TAKE).roots["output"]
    assert topological([made])[1] is Index(X, "model", 2)


def test_kinds_of_numbers() -> None:
    truth = Map("less", (X, Y))
    found = {
        "model": [X, Map("cast", (COUNTS,), ("model",)), Add((X, COUNTS)), Map("tanh", (X,)), Map("where", (truth, X, Constant(0)))],
        "float": [Map("tanh", (COUNTS,)), Weight("m", "f", ((MODEL,),), "float32"), Repeat(Constant(1.5), (MODEL,))],
        "whole": [COUNTS, Iota(MODEL), Along("argmax", X, ("model",)), Order(X, "model", MODEL, "places"), Gather(COUNTS, "query", Iota(HEAD))],
        "truth": [truth, Constant(True), Along("any", truth, ("model",)), Add((truth, truth))],
        "number": [Constant(1.5), Add((Constant(1), Constant(2.5)))],
        "unknown": [Custom("f", "f", X, ("query", "model")), Map("where", (truth, Constant(1.0), Constant(2.0)))],
    }  # fmt: skip
    for name, nodes in found.items():
        assert {kind(node) for node in nodes} == {name}


def test_inner_names_that_are_taken_are_made_anew() -> None:
    w = weight("w", MODEL, HIDDEN)
    inner = Einsum((X, w), ("model",))
    made = applied(FLATTEN_EINSUM, Einsum((inner, inner, Y), ("model",)))
    assert isinstance(made, Einsum)
    assert made.summed == ("model", "model.2", "model.3")
    assert fresh("model", {"model.2"}) == "model.3"
    assert onto(X, weight("u", MODEL)).axes == X.axes
    with pytest.raises(CircuitError, match="no projection"):
        onto(COUNTS, weight("u", MODEL))


def test_bare_numbers_are_folded_in_their_place() -> None:
    assert applied(FOLD_NUMBERS, Multiply((Constant(2), X, Constant(3)))) is Multiply((Constant(6), X))


def test_chunks_of_an_axis_no_input_has_are_refused() -> None:
    with pytest.raises(CircuitError, match="no input that is to be cut has an axis 'batch'; inputs: x"):
        in_chunks(stack(1), "batch", (1, "batch - 1"))
    cut = in_chunks(Circuit({"output": Map("tanh", (X,))}, {"_in.x": X}), "query", (2, "query - 2"))
    assert cut.table["_in.x"] is X
    assert [part.operands[0] for part in cut.roots["output"].operands] == [
        Narrow(X, "query", 0, Axis("query", 2)),
        Narrow(X, "query", 2, Axis("query", "query - 2")),
    ]


def test_every_rule_is_in_the_table_with_its_law() -> None:
    lines = rule_table().splitlines()
    assert len(lines) == len(EQUALITIES) == len({rule.name for rule in EQUALITIES})
    for rule, line in zip(EQUALITIES, lines, strict=True):
        assert line.startswith(rule.theme)
        assert line.endswith(rule.law)
        assert rule.says
        assert repr(rule) == f"<Rule {rule.name}: {rule.law}>"
