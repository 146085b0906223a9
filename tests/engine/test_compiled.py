"""A compiled run gives the numbers of a plain one, for the weights as they are, and says what it cannot do.

torch's own compiler takes a minute here, so what it is given is tried with the backend that runs the traced graph as it is.
"""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch

import scrubjay as sj
import small_models
from scrubjay.engine import compiled
from scrubjay.errors import InputError


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    monkeypatch.setattr(compiled, "_MADE", type(compiled._MADE)())


def close(one: sj.Run, two: sj.Run) -> None:
    assert list(one.values) == list(two.values)
    for name, value in two.values.items():
        mine, theirs = one.values[name].as_tensor(), value.as_tensor()
        assert one.values[name].names == value.names
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5 * float(theirs[theirs.isfinite()].abs().max()))


@pytest.mark.parametrize(("kind", "fused"), [("gpt2", True), ("llama", False)])
def test_a_compiled_run_is_the_run(kind: str, fused: bool) -> None:
    _, model = small_models.captured(kind)
    keep, given = ["L*.resid_post", "L1.H2.z@-1"], small_models.batch(padding="left")
    made = sj.run(model, given, keep, fused=fused, compile=True)
    close(made, sj.run(model, given, keep, fused=fused))
    assert made.evaluated == sj.run(model, given, keep, fused=fused).evaluated
    assert not made.logits.requires_grad


def test_it_is_compiled_once_for_a_circuit_and_shapes_and_reads_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    module = small_models.build("llama")
    model, given = small_models.load(module), small_models.batch()
    made: list[int] = []
    real = compiled._made
    monkeypatch.setattr(compiled, "_made", lambda *one: made.append(1) or real(*one))
    close(sj.run(model, given, compile=True), sj.run(model, given))
    other = small_models.batch(seed=5)
    close(sj.run(model, other, compile=True), sj.run(model, other))
    with torch.no_grad():
        module.lm_head.weight.data.mul_(2)
        module.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(module.model.layers[0].mlp.up_proj.weight * 0.5)
    close(sj.run(model, given, compile=True), sj.run(model, given))
    assert len(made) == 1
    longer = small_models.batch(length=19)
    close(sj.run(model, longer, compile=True), sj.run(model, longer))
    assert len(made) == 2
    monkeypatch.setattr(compiled, "KEPT", 2)
    edited = sj.edit(model, sj.add("L0.resid_post", torch.ones(small_models.WIDTH)))
    for _ in range(2):
        close(sj.run(edited, given, compile=True), sj.run(edited, given))
    assert len(made) == 3
    assert len(compiled._MADE) == 2


def test_what_cannot_be_compiled_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = small_models.captured("gpt2")
    given = small_models.batch()
    both: list[dict[str, Any]] = [{"differentiable": True}, {"cache": sj.Cache()}]
    for options in both:
        with pytest.raises(InputError, match="keeps no gradients and reads no cache"):
            sj.run(model, given, compile=True, **options)
    with pytest.raises(InputError, match="cannot be part of a compiled function: leave out compile="):
        sj.run(model, given, interventions=sj.apply("L0.mlp.out", lambda value: value * 2), compile=True)

    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("backend='inductor' raised:\n\nNo working C++ compiler found")

    monkeypatch.setattr(torch.export, "export", failing)
    with pytest.raises(InputError, match=r"No working C\+\+ compiler found.*leave out compile= to run without"):
        sj.run(model, given, compile=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a processor with a C++ compiler")
def test_torch_s_own_compiler_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "BACKEND", "inductor")
    _, model = small_models.captured("llama")
    given = small_models.batch(padding="left")
    close(sj.run(model, given, "L0.resid_post", fused=True, compile=True), sj.run(model, given, "L0.resid_post"))
