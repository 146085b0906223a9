"""A spliced module stands in a value's place, what it leaves out is a value too, and it can be trained there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import scrubjay as sj
import small_models
from scrubjay.errors import AddressError, InputError
from scrubjay.interventions.generate import generate

every_kind = pytest.mark.parametrize("kind", small_models.KINDS)
SITE = "L0.resid_post"


class Coder(nn.Module):
    """A small autoencoder."""

    def __init__(self, width: int = small_models.WIDTH, features: int = 24, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.up = nn.Parameter(torch.randn(width, features, generator=draw) * width**-0.5)
        self.down = nn.Parameter(torch.randn(features, width, generator=draw) * features**-0.5)

    def forward(self, value: Tensor) -> Tensor:
        return (value @ self.up).relu() @ self.down


def given() -> dict[str, Tensor]:
    return small_models.batch(3, 9, "left")


def by_hand(kind: str, change) -> Tensor:
    module, _ = small_models.captured(kind)
    return small_models.with_changes(module, [(small_models.spots(kind, module)[SITE], change)], given())


def close(one: Tensor, two: Tensor, bound: float = 2e-5) -> None:
    real = given()["attention_mask"].bool()
    assert float((one - two)[real].detach().abs().max()) <= bound


@every_kind
def test_the_error_is_what_the_module_leaves_out(kind: str) -> None:
    _, model = small_models.captured(kind)
    coder, name = Coder(), f"{SITE}.error"
    plain = sj.run(model, given(), keep=SITE)
    value = plain[SITE].as_tensor()
    left = (value - coder(value)).detach()
    dropped = sj.run(model, given(), keep=[SITE, name], interventions=sj.splice(SITE, coder))
    close(dropped[name].as_tensor(), left)
    close(dropped.logits, by_hand(kind, lambda x: coder(x).detach()))
    added = sj.run(model, given(), keep=[SITE, name], interventions=sj.splice(SITE, coder, error="add"))
    close(added[name].as_tensor(), left)
    close(added.logits, plain.logits)
    # zeroed, the added error is dropped; at one position it is dropped there
    zeroed = sj.run(model, given(), interventions=[sj.splice(SITE, coder, error="add"), sj.zero(name)])
    close(zeroed.logits, dropped.logits)
    last = sj.run(model, given(), interventions=[sj.splice(SITE, coder, error="add"), sj.zero(f"{name}@-1")])

    def at_the_end(x: Tensor) -> Tensor:
        made = x.clone()
        made[:, -1] = coder(x)[:, -1].detach()
        return made

    close(last.logits, by_hand(kind, at_the_end))


def test_a_frozen_error_is_that_of_the_run_without_interventions() -> None:
    module, model = small_models.captured("gpt2")
    coder, vector = Coder(), torch.linspace(-1, 1, small_models.WIDTH)
    changes = [sj.add("L0.resid_pre", vector), sj.splice(SITE, coder, error="freeze")]
    base = sj.run(model, given(), keep=SITE)[SITE].as_tensor()
    table = small_models.spots("gpt2", module)

    def put(x: Tensor) -> Tensor:
        return (coder(x) + base - coder(base)).detach()

    expected = small_models.with_changes(
        module, [(table["L0.resid_pre"], lambda x: x + vector), (table[SITE], put)], given()
    )
    close(sj.run(model, given(), interventions=changes).logits, expected)
    moved = sj.run(model, given(), interventions=[changes[0], sj.splice(SITE, coder, error="add")]).logits
    assert float((moved - expected).detach().abs().max()) > 0.01
    alone = sj.run(model, given(), interventions=changes[1]).logits
    close(alone, sj.run(model, given()).logits)


def test_at_a_head_and_at_a_position() -> None:
    _, model = small_models.captured("llama")
    coder = Coder(width=8, features=5)
    plain = sj.run(model, given(), keep=["L1.H2.z", "L1.attn.z"])
    run = sj.run(model, given(), keep=["L1.H2.z.error", "L1.attn.z"], interventions=sj.splice("L1.H2.z@-1", coder))
    value = plain["L1.H2.z"].as_tensor()
    close(run["L1.H2.z.error"].as_tensor(), (value - coder(value)).detach())
    expected = plain["L1.attn.z"].as_tensor().clone()
    expected[:, -1, 2] = coder(value)[:, -1].detach()
    close(run["L1.attn.z"].as_tensor(), expected)


def test_an_added_error_passes_no_gradient_and_has_one() -> None:
    """As autoencoder circuits take it: the slope of the metric by the error, and by the value through the module alone."""
    _, model = small_models.captured("gpt2")
    coder, name = Coder(), f"{SITE}.error"
    free = sj.run(model, given(), keep=[SITE, "L0.resid_mid"], scalar=lambda made: made.logits[:, -1, 3].sum())
    run = sj.run(
        model, given(), keep=[SITE, name, "L0.mlp.out"], interventions=sj.splice(SITE, coder, error="add"),
        scalar=lambda made: made.logits[:, -1, 3].sum(),
    )  # fmt: skip
    slope = free.grad[SITE].as_tensor()
    close(run.grad[SITE].as_tensor(), slope, 1e-4)
    close(run.grad[name].as_tensor(), slope, 1e-4)
    value = free[SITE].as_tensor().detach().requires_grad_()
    (through,) = torch.autograd.grad((coder(value) * slope).sum(), value)
    close(run.grad["L0.mlp.out"].as_tensor(), through, 1e-4)


@pytest.mark.parametrize("error", ["drop", "add", "freeze"])
def test_a_module_is_trained_where_it_is_spliced(error: str) -> None:
    """A few steps bring reconstruction and answer nearer; the model's own weights stay."""
    module, model = small_models.captured("gpt2")
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    coder, target = Coder(), sj.run(model, given()).logits.detach()
    optimiser = torch.optim.Adam(coder.parameters(), lr=0.01)
    losses: list[float] = []
    for _ in range(12):
        run = sj.run(
            model, given(), keep=f"{SITE}.error", interventions=sj.splice(SITE, coder, error=error), differentiable=True
        )
        if error == "drop":  # its own error, and the model's answer through it
            loss = run[f"{SITE}.error"].as_tensor()[given()["attention_mask"].bool()].square().mean()
            loss = loss + (run.logits - target)[:, -1].square().mean()
        else:
            loss = -run.logits[:, -1].log_softmax(-1)[:, 7].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    if error != "drop":  # the value stays what it was, so the loss does; the gradients are there all the same
        assert max(losses) - min(losses) < 1e-4
    else:
        assert losses[-1] < losses[0] - 0.05
    assert all(bool(weight.grad.abs().max() > 0) for weight in coder.parameters() if weight.grad is not None)
    assert coder.up.grad is not None
    assert all(torch.equal(weight, before[name]) for name, weight in module.state_dict().items())


def test_gradients_of_the_module_s_weights_are_those_of_a_hook() -> None:
    module, model = small_models.captured("llama")
    mine, theirs = Coder(), Coder()
    sj.run(model, given(), interventions=sj.splice(SITE, mine), differentiable=True).logits[:, -1, 2].sum().backward()
    spot = small_models.spots("llama", module)[SITE]
    small_models.with_changes(module, [(spot, theirs)], given(), gradients=True)[:, -1, 2].sum().backward()
    for one, two in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert one.grad is not None
        assert two.grad is not None
        torch.testing.assert_close(one.grad, two.grad, rtol=0, atol=1e-4 * float(two.grad.abs().max()))
    for weight in module.parameters():
        weight.grad = None


def test_an_edited_model_has_the_error_and_writes_with_it() -> None:
    _, model = small_models.captured("gpt2")
    edited = sj.edit(model, sj.splice(SITE, Coder(), error="add"))
    close(sj.run(edited, given()).logits, sj.run(model, given()).logits)
    assert str(edited.addresses(f"{SITE}.error")[0]) == f".{SITE}.error"
    changes = [sj.splice(SITE, Coder(), error="add"), sj.zero(f"{SITE}.error@-1")]
    made = generate(model, given(), 5, interventions=changes)
    last = sj.run(model, {name: made.inputs[name][:, :-1] for name in given()}, interventions=changes).logits[:, -1]
    assert torch.equal(last.argmax(-1), made.tokens[:, -1])
    assert made.positions == (9, 2, 2, 2, 2)


def test_what_does_not_fit_is_refused() -> None:
    _, model = small_models.captured("gpt2")
    coder = Coder()
    with pytest.raises(InputError, match=r"splice\(error='keep'\): use 'drop', 'add', 'freeze'"):
        sj.splice(SITE, coder, error="keep")
    with pytest.raises(AddressError, match=r"<splice L0.resid_post> no result depends on this value"):
        sj.run(model, given(), interventions=[sj.splice(SITE, coder), sj.zero(f"{SITE}.error")])
    with pytest.raises(AddressError, match=r"L0\.resid_post\.error"):
        sj.run(model, given(), keep=f"{SITE}.error")
    with pytest.raises(InputError, match=r"use it in sj\.run, or error='add' in sj\.edit"):
        sj.edit(model, sj.splice(SITE, coder, error="freeze"))
    with pytest.raises(InputError, match="not known before they are written"):
        generate(model, given(), 2, interventions=sj.splice(SITE, coder, error="freeze"))
    with pytest.raises(
        InputError, match=r"the module returned shape \(3, 9, 24\); it must return a tensor of shape \(3, 9, 32\)"
    ):
        sj.run(model, given(), interventions=sj.splice(SITE, nn.Linear(32, 24), error="freeze"))
    with pytest.raises(sj.errors.EvaluationError, match=r"returned \(3, 9, 24\)"):
        sj.run(model, given(), interventions=sj.splice(SITE, nn.Linear(32, 24)))
