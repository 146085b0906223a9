"""Choices: the greatest values of an axis, and the linear map of the expert that a token has chosen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Einsum, Experts, Gather, Input, Map, Order, Relabel, Weight
from scrubjay.circuit.rules import experts_chosen, gathers_up
from scrubjay.engine import evaluate
from scrubjay.engine.context import Payload
from scrubjay.errors import CircuitError, EvaluationError

BATCH, QUERY, CHOSEN = Axis("batch", "batch"), Axis("query", "query"), Axis("chosen", 2)
MODEL, HIDDEN, EXPERT = Axis("model", 4), Axis("hidden", 3), Axis("expert", 5)
X = Input("x", (BATCH, QUERY, MODEL))
INNER = Input("inner", (BATCH, QUERY, CHOSEN, HIDDEN))
INDEX = Input("index", (BATCH, QUERY, CHOSEN), "int64")
ONE = Input("one", (BATCH, QUERY), "int64")
STACK = Weight("model", "stack", ((EXPERT,), (MODEL,), (HIDDEN,)))


def values(node: Node, seed: int = 0, rows: int = 3, length: int = 4, **given: torch.Tensor) -> torch.Tensor:
    """The value of a node, its axes in the glossary's order, by the reference evaluator."""
    random = np.random.default_rng(seed)
    inputs = {
        "x": torch.from_numpy(random.normal(size=(rows, length, 4))),
        "inner": torch.from_numpy(random.normal(size=(rows, length, 2, 3))),
        "index": torch.from_numpy(random.integers(-5, 5, (rows, length, 2))),
        "one": torch.from_numpy(random.integers(0, 5, (rows, length))),
    } | given
    stack = torch.from_numpy(random.normal(size=(5, 4, 3)))
    made = evaluate([node], inputs, {"model": Payload({"stack": stack}, {})}, dtype=torch.float64)[node]
    return torch.as_tensor(made.laid([axis.name for axis in node.axes]))


PRODUCTS: dict[str, Node] = {
    "into the experts": Einsum((X, Gather(STACK, "expert", INDEX)), ("model",)),
    "the matrices first": Einsum((Gather(STACK, "expert", INDEX), X), ("model",)),
    "out of the experts": Einsum((INNER, Gather(STACK, "expert", INDEX)), ("hidden",)),
    "one expert for each token": Einsum((X, Gather(STACK, "expert", ONE)), ("model",)),
    "matrices renamed": Einsum((X, Relabel(Gather(STACK, "expert", INDEX), (("hidden", "vocab"),))), ("model",)),
    "one look-up read twice": Map("tanh", (Einsum((X, Gather(STACK, "expert", INDEX)), ("model",)),)),
}


@pytest.mark.parametrize("name", PRODUCTS)
@given(seed=st.integers(0, 99), rows=st.integers(0, 3), length=st.integers(1, 4))
def test_a_product_with_looked_up_matrices_is_a_choice_of_experts(name, seed, rows, length):
    plain = PRODUCTS[name]
    chosen = experts_chosen([plain])[plain]
    assert chosen.axes == plain.axes
    torch.testing.assert_close(
        values(chosen, seed, rows, length), values(plain, seed, rows, length), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("name", PRODUCTS)
def test_no_matrix_is_looked_up_any_more(name):
    made = experts_chosen([PRODUCTS[name]])[PRODUCTS[name]]
    assert not any(isinstance(node, Gather) for node in topological([made]))
    assert any(isinstance(node, Experts) for node in topological([made]))


def test_what_is_no_choice_of_experts_stays():
    embedding = Weight("model", "table", ((EXPERT,), (MODEL,)))
    scores = Einsum((X, Relabel(Gather(embedding, "expert", ONE), (("query", "key"),))), ("model",))
    constant = Einsum((STACK, Gather(STACK, "expert", ONE)), ("model", "hidden"))
    for node in (scores, constant):
        assert experts_chosen([node])[node] is node


def test_experts_are_pointwise_along_tokens():
    """Permuting rows or positions permutes the result, and a change of one token changes that token alone."""
    node = Experts(X, STACK, "expert", INDEX, ("model",))
    assert not node.acts_along & {"batch", "query", "chosen"}
    random = np.random.default_rng(1)
    x = torch.from_numpy(random.normal(size=(3, 4, 4)))
    index = torch.from_numpy(random.integers(0, 5, (3, 4, 2)))
    plain = values(node, x=x, index=index)
    rows, places = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
    assert torch.equal(values(node, x=x[rows], index=index[rows]), plain[rows])
    assert torch.equal(values(node, x=x[:, places], index=index[:, places]), plain[:, places])
    other = index.clone()
    other[1, 2, 0] = (other[1, 2, 0] + 1) % 5
    changed = (values(node, x=x, index=other) != plain).any(-1).any(-1)
    assert changed.nonzero().tolist() == [[1, 2]]


def test_rows_are_looked_up_after_the_experts():
    row = Axis("row", "row")
    data, chosen = Input("data", (row, QUERY, MODEL)), Input("chosen of rows", (row, QUERY), "int64")
    datum = Input("datum", (BATCH,), "int64")
    node = Experts(Gather(data, "row", datum), STACK, "expert", Gather(chosen, "row", datum), ("model",))
    assert gathers_up([node])[node] is Gather(Experts(data, STACK, "expert", chosen, ("model",)), "row", datum)


def test_gradients_reach_the_chosen_matrices_and_no_others():
    stack = torch.randn(5, 4, 3, requires_grad=True)
    x = torch.randn(1, 3, 4)
    node = Experts(X, STACK, "expert", ONE, ("model",))
    inputs = {"x": x, "one": torch.tensor([[0, 3, 0]])}
    made = evaluate([node], inputs, {"model": Payload({"stack": stack}, {})})[node].as_tensor()
    made.sum().backward()
    assert stack.grad is not None
    assert stack.grad.abs().sum((1, 2)).gt(0).tolist() == [True, False, False, True, False]


def test_an_expert_that_does_not_exist_is_refused():
    node = Experts(X, STACK, "expert", ONE, ("model",))
    with pytest.raises(EvaluationError, match="index 5 is outside axis 'expert', which has 5 places"):
        values(node, one=torch.full((3, 4), 5))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Experts(X, STACK, "row", ONE, ("model",)), "row"),
        (lambda: Experts(X, STACK, "expert", ONE, ("hidden",)), "do not both have"),
        (lambda: Experts(X, STACK, "expert", ONE, ()), "does not sum over"),
        (lambda: Experts(X, Relabel(STACK, (("hidden", "query"),)), "expert", ONE, ("model",)), "both have query"),
        (lambda: Experts(Relabel(X, (("query", "expert"),)), STACK, "expert", ONE, ("model",)), "has itself"),
        (lambda: Order(X, "model", Axis("first", 5), "values"), "first 5 of model=4"),
        (lambda: Order(X, "model", Axis("query", 2), "values"), "has an axis 'query' already"),
        (lambda: Order(X, "model", Axis("first", 2), "ranks"), "values or places"),
    ],
)
def test_choices_that_cannot_be_made_are_refused(make, words):
    with pytest.raises(CircuitError, match=words):
        make()


@pytest.mark.parametrize("how", ["topk", "sort"])
@pytest.mark.parametrize("greatest", [True, False])
def test_values_and_places_in_order(how, greatest):
    first = Axis("first", 3)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 4, 4)))
    found = values(Order(X, "model", first, "values", greatest, how), x=x)
    places = values(Order(X, "model", first, "places", greatest, how), x=x)
    expected = np.sort(x.numpy(), -1)[..., ::-1][..., :3] if greatest else np.sort(x.numpy(), -1)[..., :3]
    axis = [axis.name for axis in Order(X, "model", first, "values").axes].index("first")
    assert np.array_equal(found.movedim(axis, -1).numpy(), expected)
    assert torch.equal(x.gather(-1, places.movedim(axis, -1)), found.movedim(axis, -1))
