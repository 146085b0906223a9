"""A change of a value that an earlier one has cut off is refused: it would change nothing. Reading it stays possible."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import scrubjay as sj
from scrubjay.capture.model import Model
from scrubjay.circuit.ops import Add, Constant
from scrubjay.zoo.transformer import Config, Transformer


@pytest.fixture(scope="module")
def model() -> Model:
    config = Config(layers=2, heads=2, d_model=8, d_head=4, d_mlp=12, vocabulary=7, positions=10, outputs=7)
    return sj.load(Transformer(config, seed=0).eval(), cache=None)


def rows() -> dict[str, torch.Tensor]:
    ids = torch.randint(0, 7, (3, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


VOID = [
    ("L0.attn.out", "L0.H0.z"),
    ("L0.attn.out", "L0.attn.scores"),
    ("L0.attn.out", "L0.H1.q_in"),
    ("L0.attn.out", "L0.ln1.scale"),
    ("L0.attn.out", "blocks.0.attn.q"),
    ("L0.resid_pre", "embed"),
    ("L1.resid_mid", "L0.H0.out"),
    ("L1.mlp.out", "L1.N3"),
    # at one head, or one position
    ("L0.H0.z", "L0.H0.pattern"),
    ("L0.H0.out", "L0.H0.z"),
    ("L0.H0.q", "L0.H0.q_in"),
    ("L0.H*.z", "L0.attn.pattern"),
    ("L0.attn.out@-1", "L0.H0.z@-1"),
    ("L1.resid_post@0..2", "L1.mlp.post@0..2"),
    ("L1.resid_post", "L1.H0.z@1"),
]
REAL = [
    ("L0.attn.out@-1", "L0.H0.z"),
    ("L0.attn.out@-1", "L0.H0.z@0"),
    ("L0.H0.z", "L0.H1.pattern"),
    ("L0.H0.z", "L0.attn.pattern"),
    ("L0.H0.z", "L0.H0.out"),
    ("L0.H0.out", "L0.H1.z"),
    ("L0.H0.out", "L0.H0.out"),
    ("L0.H0.q", "L0.H1.q_in"),
    ("L0.H0.q", "L0.H0.v_in"),
    ("L0.attn.out@-1", "L0.H0.v@-1"),
    ("L1.N3", "L1.mlp.pre"),
    ("L1.N3", "L1.N3"),
    ("L0.H0.q@1", "L0.attn.pattern@1"),
    ("L1.resid_mid", "L1.mlp.in"),
]


def changed(site: str) -> sj.interventions.Intervention:
    return sj.apply(site, lambda value: value * 1.5 + torch.sin(torch.arange(value.shape[-1]) * 1.0) + 0.3)


@pytest.mark.parametrize(("first", "second"), VOID)
def test_a_change_that_an_earlier_one_makes_void_is_refused(model: Model, first: str, second: str) -> None:
    name = f"<zero {first}>".replace("*", r"\*")
    with pytest.raises(sj.errors.AddressError, match=rf"{name}.*no result depends on this value.*apply this one first"):
        sj.run(model, rows(), interventions=[sj.zero(first), changed(second)])
    with pytest.raises(sj.errors.AddressError, match=name):
        sj.run(sj.edit(model, sj.zero(first)), rows(), interventions=[changed(second)])
    with pytest.raises(sj.errors.AddressError, match=name):
        sj.edit(model, sj.zero(first), changed(second))
    # and it is void: in the other order the first has no effect on the result
    one = sj.run(model, rows(), interventions=[changed(second), sj.zero(first)]).output
    two = sj.run(model, rows(), interventions=[sj.zero(first)]).output
    torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("first", "second"), REAL)
def test_a_change_of_what_is_still_read_is_made(model: Model, first: str, second: str) -> None:
    given = rows()
    before = sj.run(model, given, interventions=[sj.zero(first)]).output
    after = sj.run(model, given, interventions=[sj.zero(first), changed(second)]).output
    real = given["attention_mask"].bool()
    if first != "L0.attn.out@-1" or second != "L0.H0.v@-1":  # the last position's value is read by no other
        assert float((after - before)[real].abs().max()) > 1e-4


def test_a_cut_off_value_can_be_read(model: Model) -> None:
    whole = sj.run(model, rows(), keep=["L0.H0.z", "L0.H0.out"])
    for edited in (sj.edit(model, sj.zero("L0.attn.out")), sj.edit(model, sj.zero("L0.resid_mid"))):
        found = sj.run(edited, rows(), keep=["L0.H0.z", "L0.H0.out"])
        for site in ("L0.H0.z", "L0.H0.out"):
            torch.testing.assert_close(found[site].as_tensor(), whole[site].as_tensor(), rtol=0, atol=0)


def test_a_circuit_remembers_what_cut_an_address_off_and_nothing_else(model: Model) -> None:
    assert model.circuit.removed == {}
    once = sj.edit(model, sj.zero("L0.attn.out"))
    twice = sj.edit(once, sj.zero("L1.mlp.out"))
    assert once.circuit.removed["L0.attn.z"] == "<zero L0.attn.out>"
    assert not [address for address in once.circuit.removed if address.startswith("L1.") or "._" in address]
    assert "L0.attn.out" not in once.circuit.removed
    assert dict(once.circuit.removed).items() <= dict(twice.circuit.removed).items()
    assert twice.circuit.removed["L1.mlp.post"] == "<zero L1.mlp.out>"
    assert sj.edit(model, sj.add("L0.attn.out", 1.0)).circuit.removed == {}


def test_a_place_no_result_ever_read_is_left_to_the_model_that_has_it(model: Model) -> None:
    idle = Add((model.circuit.table["embed"], Constant(1.0)))
    odd = replace(model, circuit=model.circuit.with_table({**model.circuit.table, "embed": idle}))
    edited = sj.edit(odd, sj.zero("L0.attn.out"), sj.zero("embed"))
    assert "embed" not in edited.circuit.removed
    assert edited.circuit.removed["L0.attn.z"] == "<zero L0.attn.out>"
