"""Random variables: moments and cumulants against brute force and closed forms, and what is refused."""

from __future__ import annotations

import itertools
from math import factorial, prod

import numpy as np
import pytest
import torch

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.fingerprint import fingerprint
from scrubjay.circuit.match import find, kind
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Along,
    Constant,
    Cumulant,
    Custom,
    Einsum,
    Expectation,
    Gather,
    Index,
    Input,
    Iota,
    Map,
    Multiply,
    Relabel,
    Sample,
    Weight,
)
from scrubjay.circuit.partitions import k_weight, partitions
from scrubjay.circuit.printing import parse, write
from scrubjay.circuit.rules.approximation import approximate
from scrubjay.circuit.rules.cumulants import cumulant_terms
from scrubjay.circuit.rules.drawing import redrawn, sampled
from scrubjay.circuit.rules.random import (
    CUMULANT_OF_PRODUCT,
    INDEPENDENT_CUMULANT,
    INDEPENDENT_MEANS,
    TO_CUMULANTS,
    TO_MOMENTS,
    cumulants_up_to,
    groups,
    mean,
    wick_product,
)
from scrubjay.circuit.rules.rewriting import rewrite
from scrubjay.circuit.rules.rule import applied
from scrubjay.circuit.serial import from_text, to_text
from scrubjay.engine import evaluate
from scrubjay.engine.estimate import estimate
from scrubjay.errors import CircuitError, EvaluationError

ROW = Axis("row", 12)
X = [Sample(Input(f"x{number}", (ROW,)), "row", "datum") for number in range(6)]
Y = [Sample(Input(f"x{number}", (ROW,)), "row", "other") for number in range(6)]
OVER = ("datum",)


def atoms(seed: int = 0) -> dict[str, torch.Tensor]:
    """Twelve outcomes of six dependent, skewed variables."""
    draw = np.random.default_rng(seed)
    base = draw.exponential(size=(12, 3))
    values = (
        np.concatenate(
            [
                base,
                base * base[:, [1, 2, 0]] + 0.3,
            ],
            1,
        )
        + draw.normal(size=(12, 6)) * 0.2
        + 1
    )
    return {f"x{number}": torch.tensor(values[:, number]) for number in range(6)}


def value(node: Node, inputs: dict[str, torch.Tensor] | None = None) -> float:
    found = evaluate([node], atoms() if inputs is None else inputs, {}, dtype=torch.float64)[node]
    assert not node.axes
    return float(found.as_tensor())


def set_partitions(items: list[int]) -> list[list[list[int]]]:
    """Partitions by taking the first item's block, another way than the package's."""
    if not items:
        return [[]]
    first, *rest = items
    found = []
    for chosen in itertools.product([0, 1], repeat=len(rest)):
        block = [first, *(one for one, take in zip(rest, chosen, strict=True) if take)]
        left = [one for one, take in zip(rest, chosen, strict=True) if not take]
        found += [[block, *others] for others in set_partitions(left)]
    return found


def brute(columns: list[np.ndarray]) -> float:
    """A joint cumulant from raw moments, partition by partition."""
    total = 0.0
    for blocks in set_partitions(list(range(len(columns)))):
        moments = [float(np.mean(np.prod([columns[at] for at in block], 0))) for block in blocks]
        total += (-1) ** (len(blocks) - 1) * factorial(len(blocks) - 1) * prod(moments)
    return total


def columns(count: int) -> list[np.ndarray]:
    return [atoms()[f"x{number}"].numpy() for number in range(count)]


@pytest.mark.parametrize("order", range(1, 7))
def test_a_cumulant_is_that_of_the_raw_moments(order: int) -> None:
    expected = brute(columns(order))
    assert value(Cumulant(tuple(X[:order]), OVER)) == pytest.approx(expected, rel=1e-10, abs=1e-10)
    assert value(applied(TO_MOMENTS, Cumulant(tuple(X[:order]), OVER))) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("order", range(2, 6))
def test_moments_to_cumulants_and_back(order: int) -> None:
    moment = Expectation(Multiply(tuple(X[:order])), OVER)
    there = applied(TO_CUMULANTS, moment)
    back = rewrite(there, TO_MOMENTS).roots["output"]
    expected = float(np.mean(np.prod(columns(order), 0)))
    assert sum(isinstance(node, Cumulant) for node in Circuit({"output": there}).nodes) == 2**order - 1 - order
    for node in (moment, there, back):
        assert value(node) == pytest.approx(expected, rel=1e-12)


def test_partitions_are_all_of_them() -> None:
    assert [len(partitions(count)) for count in range(1, 7)] == [1, 2, 5, 15, 52, 203]
    for count in range(1, 7):
        others = {frozenset(frozenset(block) for block in one) for one in set_partitions(list(range(count)))}
        assert {frozenset(frozenset(block) for block in one) for one in partitions(count)} == others


def test_a_cumulant_is_linear_in_each_value_and_blind_to_what_is_added() -> None:
    a, b, c = X[0], X[1], X[2]
    whole = Cumulant((Add((Multiply((Constant(2.5), a)), b, Constant(40.0))), c, b), OVER)
    parts = 2.5 * value(Cumulant((a, c, b), OVER)) + value(Cumulant((b, c, b), OVER))
    assert value(whole) == pytest.approx(parts, rel=1e-10)


def test_independence_kills_cross_terms_and_splits_means() -> None:
    a, b = Multiply((X[0], X[1])), Y[0]
    crossed = Cumulant((a, b, X[2]), ("datum", "other"))
    assert abs(value(crossed)) < 1e-12
    assert value(applied(INDEPENDENT_CUMULANT, crossed)) == 0
    together = Expectation(Multiply((a, b)), ("datum", "other"))
    by_hand = float(np.mean(np.multiply.outer(columns(2)[0] * columns(2)[1], columns(1)[0])))
    assert value(together) == pytest.approx(by_hand, rel=1e-12)
    apart = applied(INDEPENDENT_MEANS, together)
    assert apart is Multiply((Expectation(a, ("datum",)), Expectation(b, ("other",))))
    assert value(apart) == pytest.approx(by_hand, rel=1e-12)
    assert abs(value(Cumulant((X[0], X[0]), OVER))) > 0.1, "one source: a variable is not independent of itself"


def test_what_connects_two_sources_makes_them_one_group() -> None:
    both = Multiply((X[1], Y[1]))
    over = ("datum", "other")
    assert groups([X[0], Y[0], X[2], Constant(1.0)], over) == [[0, 2], [1], [3]]
    assert groups([X[0], Y[0], both], over) == groups([both, X[0], Y[0]], over) == [[0, 1, 2]]
    assert groups([X[0], Y[0], both], ("other",)) == [[0], [1, 2]]
    dependent = Cumulant((X[0], Y[0], both), over)
    assert INDEPENDENT_CUMULANT.apply(dependent) is None
    assert abs(value(dependent)) > 0.05
    assert INDEPENDENT_MEANS.apply(Expectation(Multiply((X[0], both, Y[0])), over)) is None


@pytest.mark.parametrize("others", range(5))
def test_the_product_rule(others: int) -> None:
    product = Cumulant((Multiply((X[0], X[1])), *X[2 : 2 + others]), OVER)
    expected = brute([columns(2)[0] * columns(2)[1], *columns(6)[2 : 2 + others]])
    made = applied(CUMULANT_OF_PRODUCT, product)
    assert value(made) == pytest.approx(expected, rel=1e-10, abs=1e-10)


ROOT = float(np.sqrt(3.0))
GAUSSIAN = torch.tensor([-ROOT, 0.0, 0.0, 0.0, 0.0, ROOT], dtype=torch.float64)
"""Six equally likely outcomes with the moments of a standard normal up to the fifth (Gauss-Hermite)."""


def test_wick_pairing_is_the_closed_form_of_gaussians() -> None:
    normals = [Sample(Input("g", (Axis("row", 6),)), "row", f"g{number}") for number in range(2)]
    rows = np.random.default_rng(3).normal(size=(4, 2))
    given = {"g": GAUSSIAN}
    mixed = [
        Add(tuple(Multiply((Constant(float(weight)), one)) for weight, one in zip(row, normals, strict=True)))
        for row in rows
    ]
    moment = Expectation(Multiply(tuple(mixed)), ("g0", "g1"))
    cov = rows @ rows.T
    pairings = cov[0, 1] * cov[2, 3] + cov[0, 2] * cov[1, 3] + cov[0, 3] * cov[1, 2]
    assert value(moment, given) == pytest.approx(pairings, rel=1e-10)
    wick = cumulants_up_to(2)
    paired = approximate(Circuit({"output": moment}), wick, [moment])
    assert value(paired.roots["output"], given) == pytest.approx(pairings, rel=1e-10)
    assert "Gaussian" in paired.history[-1]
    skewed = Expectation(Multiply(tuple(X[:3])), OVER)
    off = approximate(Circuit({"output": skewed}), wick, [skewed]).roots["output"]
    assert value(skewed) - value(off) == pytest.approx(brute(columns(3)), rel=1e-10), (
        "what is left out is the third cumulant"
    )


@pytest.mark.parametrize("order", range(2, 6))
def test_a_wick_product_has_mean_zero(order: int) -> None:
    found = value(Expectation(wick_product(X[:order], OVER), OVER))
    scale = float(np.mean(np.abs(np.prod(columns(order), 0))))
    assert abs(found) < 1e-10 * scale
    if order > 2:  # and the plain product of centred values has not
        centred = Multiply(tuple(Add((one, Multiply((Constant(-1.0), mean(one, OVER))))) for one in X[:order]))
        assert abs(value(Expectation(centred, OVER))) > 1e-3


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_a_k_statistic_is_unbiased_over_all_samples_of_a_tiny_population(order: int) -> None:
    draws = max(order, 4) + (order < 4)
    values = np.array([[0.0, 1.0, 4.0], [2.0, -1.0, 3.0], [1.0, 5.0, -2.0], [7.0, 0.5, 1.0]])[:order]
    given = {f"x{number}": torch.tensor(row) for number, row in enumerate(values)}
    tiny = [Sample(Input(f"x{number}", (Axis("row", 3),)), "row", "datum") for number in range(order)]
    exact = Cumulant(tuple(tiny), OVER)
    (node,) = sampled([exact])
    found = []
    for places in itertools.product(range(3), repeat=draws):  # every sample, all equally likely
        index = {"draw.datum": torch.tensor(places)}
        found.append(float(evaluate([node], {**given, **index}, {}, dtype=torch.float64)[node].as_tensor()))
    assert np.mean(found) == pytest.approx(value(exact, given), rel=1e-10, abs=1e-10)
    if order > 1:
        assert value(exact, given) == pytest.approx(brute(list(values)), rel=1e-10, abs=1e-12)


def test_the_k_statistics_are_fishers() -> None:
    x = np.array([0.5, 2.0, 7.0, 1.0, -3.0])
    n, m = len(x), [np.mean((x - x.mean()) ** power) for power in range(5)]
    third = n**2 / ((n - 1) * (n - 2)) * m[3]
    fourth = n**2 * ((n + 1) * m[4] - 3 * (n - 1) * m[2] ** 2) / ((n - 1) * (n - 2) * (n - 3))
    one = Sample(Input("x", (Axis("row", n),)), "row", "datum")
    for order, expected in ((2, x.var(ddof=1)), (3, third), (4, fourth)):
        found = value(Cumulant((one,) * order, OVER, unbiased=True), {"x": torch.tensor(x)})
        assert found == pytest.approx(expected, rel=1e-10)
    with pytest.raises(CircuitError, match="order 4 is estimated from at least 4 draws, and there are 3"):
        k_weight((2, 2), 3)


def test_an_estimate_is_near_what_it_estimates_and_repeats_by_its_seed() -> None:
    nodes = [Cumulant((X[0], X[1], Y[1]), ("datum", "other")), Cumulant((X[0], X[1]), OVER), Expectation(X[0], OVER)]
    exact = [value(node) for node in nodes]
    runs = [[float(estimate(nodes, atoms(), {}, samples=400, seed=seed, dtype=torch.float64)[node].as_tensor()) for node in nodes] for seed in range(15)]  # fmt: skip
    error = np.std(runs, 0, ddof=1) / 15**0.5
    assert (np.abs(np.mean(runs, 0) - exact) < 4 * error).all()
    again = estimate(nodes, atoms(), {}, samples=400, seed=7, dtype=torch.float64)
    assert [float(again[node].as_tensor()) for node in nodes] == runs[7]
    with pytest.raises(EvaluationError, match="at least 3 draws"):
        estimate(nodes, atoms(), {}, samples=2)
    with pytest.raises(CircuitError, match="an estimate from draws is over all of them"):
        sampled([Expectation(Multiply((X[0], Y[0])), OVER)])


def test_values_with_axes_have_a_cumulant_at_every_place() -> None:
    key, model = Axis("key", 3), Axis("model", 2)
    p = Sample(Input("p", (ROW, key)), "row", "datum")
    v = Sample(Input("v", (ROW, key, model)), "row", "datum")
    draw = np.random.default_rng(1)
    given = {"p": draw.random((12, 3)), "v": draw.normal(size=(12, 3, 2))}
    tensors = {name: torch.tensor(array) for name, array in given.items()}
    node = Cumulant((p, v), OVER)
    found = evaluate([node], tensors, {}, dtype=torch.float64)[node].dense(("key", "model")).numpy()
    for k, m in itertools.product(range(3), range(2)):
        assert found[k, m] == pytest.approx(brute([given["p"][:, k], given["v"][:, k, m]]), rel=1e-10)


def test_an_indicator_has_a_probability_as_mean() -> None:
    node = Expectation(Map("greater", (X[0], Constant(1.5))), OVER)
    assert value(node) == pytest.approx(float(np.mean(columns(1)[0] > 1.5)), abs=1e-12)


def test_drawing_one_factor_anew_drops_its_cross_cumulants() -> None:
    product = Multiply((X[0], X[1], X[2]))
    apart = Multiply((redrawn(X[0], {"datum": "other"}), X[1], X[2]))
    kept = [
        term
        for term in cumulant_terms(Expectation(product, OVER), 3)
        if all("0" not in block or len(block) == 1 for block in term.blocks)
    ]
    dropped = value(Expectation(product, OVER)) - sum(value(term.node) for term in kept)
    assert len(kept) == 2
    assert value(Expectation(apart, ("datum", "other"))) == pytest.approx(
        sum(value(term.node) for term in kept), rel=1e-10
    )
    assert abs(dropped) > 0.1


def test_terms_of_a_product_of_sums_add_up_and_say_what_stands_together() -> None:
    weight = Constant(0.5)
    sums = Multiply((Add((X[0], X[1])), weight, Add((X[2], Y[3], Constant(2.0)))))
    whole = Expectation(sums, ("datum", "other"))
    names: dict[Node, str] = {X[0]: "a", X[1]: "b", weight: "w", X[2]: "c", Y[3]: "d"}
    terms = cumulant_terms(whole, 2, names)
    assert sum(value(term.node) for term in terms) == pytest.approx(value(whole), rel=1e-12)
    said = [term.name for term in terms]
    assert {"kappa(a, c) E[w]", "E[a] E[d] E[w]"} <= set(said)
    assert not [one for one in said if "d" in one and "kappa" in one], "d is drawn apart"
    assert sum(term.order == 2 for term in terms) == 2
    first = cumulant_terms(whole, 1, names)
    assert [term.name for term in first] == [term.name for term in terms if term.order == 1]


def test_what_is_random_prints_reads_back_and_is_found() -> None:
    node = Cumulant((X[0], Multiply((X[1], Y[0]))), OVER)
    circuit = Circuit({"output": Expectation(node, ("other",))})
    assert "drawn by datum" in str(circuit)
    assert fingerprint(circuit) != fingerprint(Circuit({"output": Expectation(Cumulant(node.values, OVER), ("other",))}).rewrite({X[0]: Y[1]}, "x"))  # fmt: skip
    assert len(find(circuit, kind(Sample))) == 3
    assert parse(write(circuit), {}).roots == circuit.roots
    assert from_text(to_text(circuit), {}).roots == circuit.roots


REFUSED = {
    "a Softmax along outcomes": (lambda: Along("softmax", X[0], ("random.datum",)), "Along would act along 'random.datum'"),
    "a place of them": (lambda: Index(X[0], "random.datum", 0), "Index would act along"),
    "their sum": (lambda: Einsum((X[0], X[1]), ("random.datum",)), "Einsum would act along"),
    "a new name": (lambda: Relabel(X[0], (("random.datum", "random.other"),)), "Relabel would act along"),
    "their numbers": (lambda: Iota(X[0].axes[0]), "Iota would act along"),
    "a look-up of outcomes": (lambda: Gather(X[0], "random.datum", Input("i", (), "int64")), "Gather would act along"),
    "a function that sees them": (lambda: Custom("m", "f", X[0], ("random.datum",)), "Custom would act along"),
    "a draw of an axis that is none": (lambda: Sample(X[0], "row", "x"), "has no axis 'row'"),
    "a draw of a draw": (lambda: Sample(X[0], "random.datum", "x"), "draws a place of an axis of data"),
    "a draw twice": (lambda: Sample(Multiply((X[0], Input("r", (ROW,)))), "row", "datum"), "is drawn by 'datum' already"),
    "two sizes": (lambda: Add((X[0], Sample(Input("s", (Axis("row", 5),)), "row", "datum"))), "would have two sizes"),
    "a mean of a constant": (lambda: Expectation(Weight("m", "w", ((ROW,),)), OVER), "drawn by no source"),
    "a mean over nothing": (lambda: Expectation(X[0], ()), "over one source or several"),
    "a mean over another": (lambda: Expectation(X[0], ("dotum",)), "did you mean datum"),
    "seven values": (lambda: Cumulant((X[0],) * 7, OVER), "7 values was asked for, and orders from 1 to 6"),
    "no value": (lambda: Cumulant((), OVER), "0 values"),
    "an estimate over two": (lambda: Cumulant((X[0], Y[0]), ("datum", "other"), True), "over one source, whose draws are the sample"),
    "an expansion of seven": (lambda: applied(TO_CUMULANTS, Expectation(Multiply((X[0],) * 7), OVER)), "7 values was asked for"),
    "an order of seven": (lambda: cumulants_up_to(7), "orders from 1 to 6"),
    "drawing anew what is not drawn": (lambda: redrawn(X[0], {"dotum": "x"}), "dotum draws nothing"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_meaningless_is_refused(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(CircuitError, match=message):
        make()


def test_a_product_rule_that_would_pass_the_highest_order_says_so() -> None:
    node = Cumulant((Multiply((X[0], X[1])), *[X[2]] * 5), OVER)
    assert "order 7 would be made" in CUMULANT_OF_PRODUCT.why_not(node)
