"""Node kinds of rust_circuit and what says the same here, each checked in closed form.

rust_circuit                      Scrubjay                                    test
--------------------------------  ------------------------------------------  -------------------------------------
Array                             Weight (a name in a store)                  test_array
Scalar                            Constant                                    test_scalar
Symbol                            Input                                       test_symbol
Add                               Add                                         test_add
Einsum                            Einsum                                      test_einsum
Einsum "ii->i" (diagonal)         Gather by an Iota of the axis that stays    test_einsum_diagonal
Einsum "ii->" (trace)             Einsum of that                              test_einsum_trace
Einsum "i->ii" (on the diagonal)  Multiply by Map("equal", two Iotas)         test_einsum_on_the_diagonal
Rearrange                         Split, Merge, Relabel, Repeat               test_rearrange
Index by a number                 Index                                       test_index_number
Index by a slice                  Narrow                                      test_index_slice
Index by a tensor                 Gather                                      test_index_tensor
Concat                            Concat                                      test_concat
Scatter                           selecting.scatter                           test_scatter
GeneralFunction                   Map, Along                                  test_functions
GeneralFunctionSpecBase           Custom                                      test_function_of_ones_own
substitute                        Circuit.rewrite, graph.substitute           test_substitution
Module, bind                      Input by the name, replaced by a Weight     test_binding_of_weights
batching of inputs                an Input of more axes                       test_batching
"""

from __future__ import annotations

import pytest
import torch

from parity import AI, AJ, AK, SQUARE, STORED, VALUES, A, B, C, same, value
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import substitute
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
    Relabel,
    Repeat,
    Split,
    Weight,
)  # fmt: skip
from scrubjay.circuit.rules.selecting import scatter
from scrubjay.errors import CircuitError

a, b, c, square = (VALUES[name] for name in ("a", "b", "c", "square"))
AJ2 = Axis("j2", 4)


def test_array():
    same(value(STORED, "j k"), VALUES["stored"])
    assert Weight("store", "stored", ((AJ,), (AK,))) is STORED


def test_scalar():
    same(value(Constant(2.5)), torch.tensor(2.5))
    same(value(Repeat(Constant(2.5), (AI, AJ)), "i j"), torch.full((3, 4), 2.5, dtype=torch.float64))


def test_symbol():
    same(value(A, "j i"), a.T)
    assert Input("a", (AI, AJ)) is A
    assert Input("a", (AI, AK)) is not A


def test_add():
    same(value(Add((A, C, Constant(1.0))), "i j"), a + c + 1)
    same(value(Add((A, A)), "i j"), 2 * a)
    with pytest.raises(CircuitError, match="two sizes at once, 4 and 5"):
        Add((A, Input("x", (Axis("j", 5),))))


@pytest.mark.parametrize(
    ("factors", "summed", "order", "spec"),
    [
        ((A, B), ("j",), "i k", "ij,jk->ik"),
        ((A, B), ("j", "k"), "i", "ij,jk->i"),
        ((A, B, C), (), "i j k", "ij,jk,j->ijk"),
        ((A, B, C), ("i", "j", "k"), "", "ij,jk,j->"),
        ((A, A), ("j",), "i", "ij,ij->i"),
        ((A,), ("i",), "j", "ij->j"),
        ((C, Constant(2.0)), ("j",), "", "j,->"),
    ],
    ids=lambda case: case if isinstance(case, str) and "->" in case else "",
)
def test_einsum(factors: tuple[Node, ...], summed: tuple[str, ...], order: str, spec: str):
    arrays = [value(factor) for factor in factors]
    same(value(Einsum(factors, summed), order), torch.einsum(spec, *arrays))


def diagonal(source: Node, axis: str, stays: Axis) -> Node:
    """Return source[axis=i, stays=i]: an axis that the source and the index both have is walked together."""
    return Gather(source, axis, Iota(stays))


def test_einsum_diagonal():
    same(value(diagonal(SQUARE, "j2", AJ), "j"), torch.einsum("ii->i", square))
    cube = Add((SQUARE, A))
    same(value(diagonal(cube, "j2", AJ), "i j"), torch.einsum("ijj->ij", square[None] + a[:, :, None]))


def test_einsum_trace():
    same(value(Einsum((diagonal(SQUARE, "j2", AJ),), ("j",))), square.trace())


def test_einsum_on_the_diagonal():
    made = Multiply((C, Map("cast", (Map("equal", (Iota(AJ), Iota(AJ2))),), ("model",))))
    same(value(made, "j j2"), torch.diag(c))


def test_rearrange():
    j0, j1 = Axis("j0", 2), Axis("j1", 2)
    split = Split(A, "j", (j0, j1))
    same(value(split, "j1 i j0"), a.reshape(3, 2, 2).permute(2, 0, 1))
    same(value(Merge(split, ("j1", "j0"), AJ), "j i"), a.reshape(3, 2, 2).permute(2, 1, 0).reshape(4, 3))
    same(value(Merge(A, ("j", "i"), Axis("flat", 12))), a.T.reshape(12))
    same(value(Repeat(A, (AK,)), "k j i"), a.T.expand(5, 4, 3))
    same(value(Relabel(A, (("i", "j"), ("j", "i"))), "i j"), a.T)


@pytest.mark.parametrize("at", [0, 2, -1])
def test_index_number(at: int):
    same(value(Index(A, "j", at)), a[:, at])


@pytest.mark.parametrize(("start", "size", "step"), [(0, 4, 1), (1, 2, 1), (0, 2, 2), (3, 1, 1)])
def test_index_slice(start: int, size: int, step: int):
    stop = start + (size - 1) * step + 1
    same(value(Narrow(A, "j", start, Axis("part", size), step), "i part"), a[:, start:stop:step])


@pytest.mark.parametrize("picked", [[0, 2, 2], [3], [-1, 0], [[0, 1], [3, 3]]])
def test_index_tensor(picked: list[int]):
    index = torch.tensor(picked)
    dims = tuple(Axis(f"p{place}", size) for place, size in enumerate(index.shape))
    node = Gather(A, "j", Input("picked", dims, "int64"))
    order = "i " + " ".join(axis.name for axis in dims)
    same(value(node, order, given={"picked": index}), a[:, index])


def test_concat():
    made = Concat((A, Relabel(SQUARE, (("j2", "i"),)), A), ("i", "i", "i"), Axis("all", 10))
    same(value(made, "all j"), torch.cat([a, square.T, a]))
    with pytest.raises(CircuitError, match="10 places together"):
        Concat((A, Relabel(SQUARE, (("j2", "i"),)), A), ("i", "i", "i"), Axis("all", 11))


@pytest.mark.parametrize("start", [0, 2, 4])
def test_scatter(start: int):
    expected = torch.zeros(3, 8, dtype=torch.float64)
    expected[:, start : start + 4] = a
    same(value(scatter(A, "j", Axis("place", 8), start), "i place"), expected)


def test_functions():
    functions = {
        "sin": torch.sin,
        "cos": torch.cos,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "exp": torch.exp,
    }
    for name, function in functions.items():
        same(value(Map(name, (A,)), "i j"), function(a))
    same(value(Map("rsqrt", (Map("exp", (A,)),)), "i j"), a.exp().rsqrt())
    same(value(Map("log", (Map("exp", (A,)),)), "i j"), a)
    same(value(Map("maximum", (A, C)), "i j"), torch.maximum(a, c))
    same(value(Along("softmax", A, ("j",)), "i j"), a.softmax(1))
    same(value(Along("log_softmax", A, ("i",)), "i j"), a.log_softmax(0))


def test_function_of_ones_own():
    made = Custom("functions", "sorted", A, ("i", "j"))
    same(value(made, "i j", functions={"sorted": lambda tensor: tensor.sort(-1).values}), a.sort(1).values)
    turned = Custom("functions", "sorted", A, ("j", "i"))
    same(value(turned, "i j", functions={"sorted": lambda tensor: tensor.sort(-1).values}), a.sort(0).values)


def test_substitution():
    top = Einsum((Map("tanh", (A,)), B), ("j",))
    zero = Repeat(Constant(0.0, "model"), (AI, AJ))
    same(value(substitute([top], {A: zero})[top], "i k"), torch.zeros(3, 5))
    twice = Circuit({"output": top}).rewrite({A: Add((A, A)), B: Multiply((B, Constant(3.0)))}, "bigger")
    same(value(twice.roots["output"], "i k"), (2 * a).tanh() @ (3 * b))


def test_binding_of_weights():
    """One expression with a hole for a weight, filled in twice."""
    hole = Input("w", (AJ, AK))
    module = Circuit({"output": Map("relu", (Einsum((A, hole), ("j",)),))})
    bound = module.rewrite({hole: STORED}, "bind")
    same(value(bound.roots["output"], "i k"), (a @ VALUES["stored"]).relu())
    same(value(module.rewrite({hole: B}, "bind").roots["output"], "i k"), (a @ b).relu())
    assert bound.weights.keys() == {"stored"}
    assert bound.inputs.keys() == {"a"}


def test_batching():
    """Two inputs batched by one axis go together; by two axes, each with each."""
    one, two = Input("one", (Axis("n", 2), AI, AJ)), Input("two", (Axis("n", 2), AJ, AK))
    given = {"one": torch.randn(2, 3, 4, dtype=torch.float64), "two": torch.randn(2, 4, 5, dtype=torch.float64)}
    product = Einsum((A, B), ("j",))
    zipped = substitute([product], {A: one, B: two})[product]
    same(value(zipped, "n i k", given=given), given["one"] @ given["two"])
    outer = substitute([product], {A: one, B: Relabel(two, (("n", "m"),))})[product]
    same(value(outer, "n m i k", given=given), torch.einsum("nij,mjk->nmik", given["one"], given["two"]))
