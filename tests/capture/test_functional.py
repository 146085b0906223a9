"""The functional form of a program: torch's own only where it is needed, and the same circuit and numbers either way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn import functional

import families
import small_models
from scrubjay.capture.export import Signature, _exported, capture, store_of
from scrubjay.capture.functional import functional as made_functional
from scrubjay.capture.lift.call import MODEL_DTYPE
from scrubjay.capture.lift.program import TABLE, lift
from scrubjay.circuit.circuit import Circuit
from scrubjay.engine.evaluate import evaluate
from scrubjay.errors import CaptureError


class Calls(nn.Module):
    """A module of one function of a linear map."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x))


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how often torch traces a program a second time."""
    counted: list[int] = []
    own = ExportedProgram.run_decompositions

    def run(program: ExportedProgram, *given: Any, **named: Any) -> ExportedProgram:
        counted.append(1)
        return own(program, *given, **named)

    monkeypatch.setattr(ExportedProgram, "run_decompositions", run)
    return counted


def check(function: Callable[[Tensor], Tensor]) -> None:
    module, x = Calls(function).eval().double(), torch.randn(3, 4, dtype=torch.float64)
    signature = Signature({"x": x[:2].clone()}, {"x": ("batch", None)}, lambda result: result)
    made = capture(module, signature)
    root = made.circuit.roots["output"]
    found = evaluate([root], {"x": x.clone()}, {"model": store_of(module, made.constants)})[root]
    with torch.no_grad():
        expected = module(x.clone())
    got = found.dense(["batch", *(name for name in found.names if name != "batch")])
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def divided(y: Tensor) -> Tensor:
    y = y * 2
    y /= y.exp().sum(-1, keepdim=True)
    y += 1
    return y.relu_() - y


def seen_before(y: Tensor) -> Tensor:
    y = y * 2
    total = y.sum(-1, keepdim=True) + y[:, :1]
    y.mul_(total)
    return y.masked_fill_(y > 0.5, 3.0)


def view_read_later(y: Tensor) -> Tensor:
    y = y * 2
    part = y[:, :2]
    y.add_(1.0)
    return torch.cat([part, y], -1)


def through_a_view(y: Tensor) -> Tensor:
    y = y * 2
    y[:, 1].mul_(5.0)
    return y


def through_dropout(y: Tensor) -> Tensor:
    y = y * 2
    same = functional.dropout(y, training=False)
    y.add_(1.0)
    return same


def through_reshape(y: Tensor) -> Tensor:
    y = y * 2
    same = y.reshape(-1, 2, 2)
    y.add_(1.0)
    return same.flatten(1)


def narrower(y: Tensor) -> Tensor:
    low = y.to(torch.float32)
    low.mul_(torch.arange(4, dtype=torch.float64) + 1 / 3)
    return low.to(y.dtype)


def chained_name(y: Tensor) -> Tensor:
    first = y * 2
    second = first
    first.add_(1.0)
    second.mul_(3.0)
    return first + second


@pytest.mark.parametrize("function", [divided, seen_before])
def test_a_change_that_nobody_else_sees_needs_no_second_tracing(
    function: Callable[[Tensor], Tensor], again: list[int]
) -> None:
    check(function)
    assert not again


@pytest.mark.parametrize("function", [view_read_later, through_a_view, through_reshape, narrower, chained_name])
def test_a_change_that_is_seen_elsewhere_is_right(function: Callable[[Tensor], Tensor]) -> None:
    check(function)


def test_what_torch_functionalises_wrongly_is_refused() -> None:
    with pytest.raises(CaptureError, match="gives back its own operand"):
        check(through_dropout)


def test_a_changed_input_is_refused() -> None:
    class Writes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.add_(1.0) * 2

    signature = Signature({"x": torch.randn(2, 4)}, {"x": ("batch", None)}, lambda result: result)
    with pytest.raises(CaptureError, match="changes its own state"):
        capture(Writes().eval(), signature)


def test_an_unknown_composite_operator_is_taken_apart(again: list[int]) -> None:
    """A view that the tables do not know might be changed later: torch says what it is made of."""
    check(lambda y: y.view_as(y * 2).ravel().reshape(-1, 4) + y.narrow(1, 0, 1))
    assert again


def circuits(kind: str) -> tuple[Circuit, Circuit]:
    from scrubjay.capture import hub  # noqa: PLC0415

    module = small_models.build(kind) if kind in small_models.KINDS else families.build(kind)
    signature = hub.describe(module).signature
    made: list[Circuit] = []
    for form in (lambda program: made_functional(program, TABLE), lambda program: program.run_decompositions({})):
        program = form(_exported(module, signature, MODEL_DTYPE))
        made.append(lift(program, "model", signature.dynamic, {}, signature.result))
    return made[0], made[1]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", [*small_models.KINDS, "mixtral"])
def test_the_circuit_is_that_of_torchs_functional_form(kind: str) -> None:
    """Nodes are interned: equal circuits are the same objects, the outputs of modules among them."""
    ours, torchs = circuits(kind)
    assert ours.roots == torchs.roots
    assert ours.table == torchs.table


@pytest.mark.parametrize("kind", ["llama"])
def test_usual_models_are_traced_once(kind: str, again: list[int]) -> None:
    small_models.load(small_models.build(kind))
    assert not again
