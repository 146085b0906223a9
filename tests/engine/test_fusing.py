"""Fused operations give what the nodes they stand for give, and are taken only where nobody looks inside."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

import families
import scrubjay as sj
import small_models
from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.engine.compute import compute
from scrubjay.engine.evaluate import evaluate
from scrubjay.engine.fused import Fused
from scrubjay.engine.fusing import fuse
from scrubjay.interventions.inputs import prepare

FUSES = {
    "gpt2": {"layer_norm": 5, "linear": 8, "attention": 2, "gelu_tanh": 2},
    "llama": {"attention": 2},
    "bert": {"layer_norm": 6, "linear": 14, "attention": 2},
}


def _fused(node: Node) -> Counter[str]:
    order = topological([fuse([node])[node]])
    return Counter(n.op for n in order if isinstance(n, Fused) or getattr(n, "op", "") == "gelu_tanh")  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", FUSES)
def test_what_is_fused_is_known_and_gives_the_same(kind: str) -> None:
    _, model = small_models.captured(kind)
    root = model.circuit.roots[model.anatomy.result]
    assert _fused(root) == FUSES[kind]
    exact = model.exact()
    root = exact.circuit.roots[model.anatomy.result]
    inputs = prepare(exact, small_models.batch())
    with torch.no_grad():
        slow = evaluate([root], inputs, exact.stores, dtype=torch.float64)[root].as_tensor()
        quick = compute([root], inputs, exact.stores, dtype=torch.float64)[root].as_tensor()
    real = inputs["attention_mask"].bool()
    assert float((slow - quick)[real].abs().max()) < 1e-10
    assert (
        compute([root], inputs, exact.stores, dtype=torch.float64).evaluated
        < evaluate([root], inputs, exact.stores, dtype=torch.float64).evaluated
    )


@pytest.mark.parametrize("kind", ["gpt_neox", "phi", "gemma2", "opt", "gpt_neo", "bloom", "falcon", "mixtral"])
def test_other_families_compute_what_the_reference_does(kind: str) -> None:
    module = families.build(kind)
    model = small_models.load(module)
    inputs = prepare(model, families.batch(module, 3, 9, "left"))
    root = model.circuit.roots[model.anatomy.result]
    with torch.no_grad():
        slow = evaluate([root], inputs, model.stores)[root].as_tensor()
        quick = compute([root], inputs, model.stores)[root].as_tensor()
    assert float((slow - quick).abs().max()) <= 1e-5 * float(slow.std()) + 1e-6


def test_what_is_asked_for_is_computed_as_it_is() -> None:
    _, model = small_models.captured("gpt2")
    root, pattern = model.circuit.roots["logits"], model.circuit.node("L0.attn.pattern")
    made = fuse([root, pattern])
    assert made[pattern] is not None
    assert Counter(n.op for n in topological([made[root]]) if isinstance(n, Fused))["attention"] == 1
    kept = fuse([root], keep=[pattern])
    assert Counter(n.op for n in topological([kept[root]]) if isinstance(n, Fused))["attention"] == 1


def test_gradients_go_through_fused_operations() -> None:
    module, model = small_models.captured("gpt2")
    inputs = small_models.batch(padding="right")
    made = sj.run(model, inputs, keep=["L0.resid_pre"], differentiable=True)
    slope = made.gradient(made.logits[:, 3].square().sum(), "L0.resid_pre").as_tensor()
    held: list[torch.Tensor] = []

    def keep(_part: object, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        held.append(args[0].detach().requires_grad_())
        return (held[0], *args[1:])

    handle = module.transformer.h[0].register_forward_pre_hook(keep)
    loss = module(**inputs).logits[:, 3].square().sum()
    handle.remove()
    (truth,) = torch.autograd.grad(loss, held[0])
    assert float((slope - truth).abs().max()) < 1e-4 * float(truth.abs().max())
