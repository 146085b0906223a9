"""Gradients of a scalar at kept values are those that autograd gives in the module itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import scrubjay as sj
import small_models
from scrubjay.errors import AddressError, InputError

every_kind = pytest.mark.parametrize("kind", small_models.KINDS)


def scalar(logits: Tensor, mask: Tensor) -> Tensor:
    return logits[mask.bool()][:, 5].square().sum()


def in_the_module(kind: str, site: str, inputs: dict[str, Tensor]) -> Tensor:
    """The slope by a zero that a hook adds at a place of the module."""
    module, _ = small_models.captured(kind)
    found: list[Tensor] = []

    def added(value: Tensor) -> Tensor:
        found.append(torch.zeros_like(value, requires_grad=True))
        return value + found[-1]

    spot = small_models.spots(kind, module)[site]
    logits = small_models.with_changes(module, [(spot, added)], inputs, gradients=True)
    (slope,) = torch.autograd.grad(scalar(logits, inputs["attention_mask"]), found)
    return slope


@every_kind
def test_grad_is_the_module_s_own_slope_and_stacks_as_the_run_does(kind: str) -> None:
    _, model = small_models.captured(kind)
    given = small_models.batch(3, 9, "left")
    run = sj.run(
        model, given, keep=["L*.resid_post", "L*.H*.z", "L1.mlp.post@-1"],
        scalar=lambda made: scalar(made.logits, given["attention_mask"]),
    )  # fmt: skip
    made = run.grad["L*.resid_post"]
    assert made.names == run["L*.resid_post"].names == ("layer", "batch", "query", "model")
    for layer in range(small_models.LAYERS):
        expected = in_the_module(kind, f"L{layer}.resid_post", given)
        torch.testing.assert_close(made.as_tensor()[layer], expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
        heads = in_the_module(kind, f"L{layer}.attn.z", given).unflatten(-1, (small_models.HEADS, -1))
        mine = run.grad["L*.H*.z"].as_tensor()[layer].movedim(0, 2)
        torch.testing.assert_close(mine, heads, rtol=0, atol=1e-4 * float(heads.abs().max()))
    post = in_the_module(kind, "L1.mlp.post", given)[:, -1]
    torch.testing.assert_close(
        run.grad["L1.mlp.post@-1"].as_tensor(), post, rtol=0, atol=1e-4 * float(post.abs().max())
    )
    assert run.grad["L*.H*.z"].names == ("layer", "head", "batch", "query", "d_head")
    assert "at 11 values" in repr(run.grad)


def test_any_scalar_of_a_run_has_gradients_and_gradient_is_one_of_them() -> None:
    _, model = small_models.captured("llama")
    given = small_models.batch(2, 7, "none")
    run = sj.run(model, given, keep=["L0.resid_post", "L1.attn.z", "L1.mlp.out"], differentiable=True)
    one, two = run.logits[0, -1, 3] - run.logits[0, -1, 4], run["L1.attn.z"].as_tensor().square().sum()
    first, second = run.gradients(one), run.gradients(two)
    for name in ("L0.resid_post", "L1.attn.z"):
        assert torch.equal(first[name].as_tensor(), run.gradient(one, name).as_tensor())
        assert torch.equal(second[name].as_tensor(), run.gradient(two, name).as_tensor())
    torch.testing.assert_close(second["L1.attn.z"].as_tensor(), 2 * run["L1.attn.z"].as_tensor().detach())
    assert not first["L1.mlp.out"].as_tensor()[1].any()  # the other row
    assert not second["L1.mlp.out"].as_tensor().any()  # what comes after


def test_gradients_under_interventions_are_those_of_the_changed_run() -> None:
    _, model = small_models.captured("gpt2")
    given = small_models.batch(2, 7, "none")
    run = sj.run(
        model, given, keep=["L0.resid_pre", "L0.resid_post"], interventions=sj.zero("L1.resid_mid"), scalar=lambda made: made.logits.sum()
    )  # fmt: skip
    assert not run.grad["L0.resid_pre"].as_tensor().any()


def test_what_has_no_gradient_is_refused() -> None:
    _, model = small_models.captured("llama")
    given = small_models.batch(2, 7, "none")
    run = sj.run(model, given, keep=["L0.resid_post", "L1.H2.k"], differentiable=True)
    number: Any = lambda made: made.logits.sum().item()  # noqa: E731
    with pytest.raises(InputError, match=r"given no scalar: sj.run\(\.\.\., scalar=lambda run"):
        _ = run.grad
    with pytest.raises(InputError, match=r"one number.*shape \(2, 7, 101\): sum it"):
        run.gradients(run.logits)
    with pytest.raises(InputError, match="got float"):
        sj.run(model, given, keep="L0.resid_post", scalar=number)
    with pytest.raises(InputError, match="does not hang on this run's values"):
        run.gradients(run.logits.detach().sum())
    with pytest.raises(AddressError, match=r"L1.resid_post was not kept by this run.*kept: L0.resid_post"):
        _ = run.gradients(run.logits.sum())["L1.resid_post"]
    with pytest.raises(AddressError, match="shared by the heads of a group"):
        _ = run.gradients(run.logits.sum())["L1.H2.k"]
    with pytest.raises(InputError, match=r"keeps no gradients: sj\.run"):
        sj.run(model, given, keep="L0.resid_post").gradients(run.logits.sum())
