"""What cannot be captured is refused, and the error says what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

from scrubjay.capture.export import Signature, capture, store_of
from scrubjay.engine.evaluate import evaluate
from scrubjay.errors import CaptureError


class Wrapped(nn.Module):
    """A module of one function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.layer(x))


def signature(**changes: Any) -> Signature:
    given: dict[str, Any] = {
        "inputs": {"x": torch.randn(2, 4)},
        "dynamic": {"x": ("batch", None)},
        "pick": lambda result: result,
        **changes,
    }
    return Signature(**given)


def test_training_mode_is_refused() -> None:
    with pytest.raises(
        CaptureError, match=r"training mode, so dropout would be part of the circuit: call module.eval\(\) first"
    ):
        capture(Wrapped(torch.relu), signature())
    module = Wrapped(torch.relu).eval()
    module.layer.train()
    with pytest.raises(CaptureError, match="training mode"):
        capture(module, signature())


def test_control_flow_that_depends_on_data_is_refused() -> None:
    with pytest.raises(
        CaptureError, match=r"control flow depends on the values of its input: replace `if tensor\.\.\.` by torch.where"
    ):
        capture(Wrapped(lambda x: x if x.sum() > 0 else -x).eval(), signature())


def test_a_size_that_depends_on_data_is_refused() -> None:
    with pytest.raises(CaptureError):
        capture(Wrapped(lambda x: x[x > 0]).eval(), signature())


@pytest.mark.parametrize(
    "function", [lambda x: x + torch.ones(2, 1), lambda x: x.reshape(2, 2, 2).sum((1, 2))], ids=["added", "reshaped"]
)
def test_a_dimension_that_is_fixed_after_all_is_refused(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    with pytest.raises(CaptureError, match=r"a dimension named in `dynamic` is in truth fixed: leave it None there"):
        capture(Wrapped(function).eval(), signature())


class Counting(nn.Module):
    """A module that changes its own state when it is run."""

    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        return x * self.count


def test_a_buffer_changed_in_place_is_refused() -> None:
    module = Counting().eval()
    with pytest.raises(CaptureError, match=r"changes its own state when run \(.*count\).*switch that off"):
        capture(module, signature())
    assert float(module.count) == 0


def test_an_input_changed_in_place_is_refused() -> None:
    class Writing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mul_(2) + 1

    with pytest.raises(CaptureError, match=r"changes its own state when run \(.*tensors_0|x"):
        capture(Writing().eval(), signature())


def test_a_value_changed_in_place_is_captured() -> None:
    def written(x: torch.Tensor) -> torch.Tensor:
        made = x.clone()
        made.mul_(3)
        made += 1
        return made

    module = Wrapped(written).eval()
    captured = capture(module, signature())
    x = torch.randn(5, 4)
    (root,) = captured.circuit.roots.values()
    found = evaluate([root], {"x": x}, {"model": store_of(module)})[root]
    torch.testing.assert_close(found.dense(["batch", *(name for name in found.names if name != "batch")]), module(x))


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (lambda x: {"logits": x}, "dict"),
        (lambda x: (x, x), "tuple"),
        (lambda _: 3.0, "float"),
        (lambda _: None, "NoneType"),
    ],
    ids=["mapping", "tuple", "number", "nothing"],
)
def test_a_result_that_is_no_tensor_is_refused(result: Callable[[torch.Tensor], Any], said: str) -> None:
    with pytest.raises(CaptureError, match=f"one tensor.*{said}.*pick"):
        capture(Wrapped(result).eval(), signature())


def test_a_pick_that_does_not_fit_is_refused() -> None:
    for pick in (lambda result: result.logits, lambda result: result["logits"]):
        with pytest.raises(CaptureError, match="`pick` does not fit what the module returns, a dict"):
            capture(Wrapped(lambda x: {"hidden": x}).eval(), signature(pick=pick))


def test_a_result_is_picked() -> None:
    picked = signature(pick=lambda result: result["logits"], result="logits")
    assert list(capture(Wrapped(lambda x: {"logits": x}).eval(), picked).circuit.roots) == ["logits"]


class Open(nn.Module):
    """A module whose forward takes any keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, **given: torch.Tensor) -> torch.Tensor:
        return self.layer(given["x"])


def test_a_forward_of_keywords_is_captured_by_the_names_given() -> None:
    module = Open().eval()
    captured = capture(module, signature())
    x = torch.randn(3, 4)
    (root,) = captured.circuit.roots.values()
    found = evaluate([root], {"x": x}, {"model": store_of(module)})[root]
    torch.testing.assert_close(found.dense(["batch", *(name for name in found.names if name != "batch")]), module(x=x))


@pytest.mark.parametrize("inputs", [{"y": torch.randn(2, 4)}, {"x": torch.randn(2, 5)}], ids=["name", "shape"])
def test_arguments_that_do_not_fit_are_refused(inputs: Mapping[str, torch.Tensor]) -> None:
    with pytest.raises(CaptureError, match=r"named as forward\(\) names them, and that the module runs on them"):
        capture(Wrapped(torch.relu).eval(), signature(inputs=inputs, dynamic=dict.fromkeys(inputs, ("batch", None))))


@pytest.mark.parametrize(
    "dynamic", [{}, {"x": ("batch",)}, {"x": ("batch", None), "y": ("batch",)}], ids=["none", "too few", "unknown"]
)
def test_dimensions_that_do_not_fit_the_inputs_are_refused(dynamic: Mapping[str, tuple[str | None, ...]]) -> None:
    with pytest.raises(CaptureError, match="dynamic"):
        capture(Wrapped(torch.relu).eval(), signature(dynamic=dynamic))
