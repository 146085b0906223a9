"""Several interventions at once: each changes its own place, with values of other inputs from the model as it was given."""

from __future__ import annotations

import pytest
import torch

import scrubjay as sj
from scrubjay.capture.model import Model
from scrubjay.zoo.transformer import Config, Transformer


@pytest.fixture(scope="module")
def module() -> Transformer:
    config = Config(layers=2, heads=2, d_model=8, d_head=4, d_mlp=12, vocabulary=7, positions=10, outputs=7)
    return Transformer(config, seed=0).eval()


@pytest.fixture(scope="module")
def model(module: Transformer) -> Model:
    return sj.load(module, cache=None)


def rows(count: int, seed: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(0, 7, (count, 6), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def test_a_causal_model_with_padding_is_captured_as_it_is(module: Transformer, model: Model) -> None:
    """Its mask compares places (key, query) and meets the padding (batch, 1, 1, key)."""
    given = rows(3, 0)
    with torch.no_grad():
        torch.testing.assert_close(sj.run(model, given).output, module(**given), rtol=0, atol=1e-5)
    assert model.layers == 2


@pytest.mark.parametrize("site", ["H0.out", "attn.out", "mlp.out", "H1.z", "H1.k"])
def test_two_places_set_to_one_number_stay_two_places(model: Model, site: str) -> None:
    changes = [sj.zero(f"L0.{site}"), sj.zero(f"L1.{site}"), sj.add(f"L0.{site}", 1.0)]
    made = sj.run(model, rows(3, 0), interventions=changes, keep=[f"L*.{site}"])
    values = made[f"L*.{site}"].as_tensor()
    assert (values[0] == 1).all()
    assert (values[1] == 0).all()


def test_a_mean_everywhere_is_the_given_models_own(model: Model) -> None:
    over = rows(5, 1)
    made = sj.run(model, rows(3, 0), interventions=[sj.mean("L*.mlp.out", over, by="all")], keep=["L1.mlp.out"])
    real = over["attention_mask"].bool()
    expected = sj.run(model, over, keep=["L1.mlp.out"])["L1.mlp.out"].as_tensor()[real].mean(0)
    torch.testing.assert_close(made["L1.mlp.out"].as_tensor()[1, 0], expected, rtol=0, atol=1e-6)


def test_many_places_are_resampled_from_rows_of_another_number(model: Model) -> None:
    over = rows(5, 1)
    over["attention_mask"] = torch.ones_like(over["attention_mask"])
    made = sj.run(
        model,
        rows(3, 0),
        interventions=[sj.resample("L*.H*.z", over), sj.resample("L0.mlp.out", over)],
        keep=["L1.H1.z"],
    )
    known = sj.run(model, over, keep=["L1.H1.z"])["L1.H1.z"].as_tensor()
    for row in made["L1.H1.z"].as_tensor():
        assert min(float((row - other).abs().max()) for other in known) < 1e-6


def test_a_head_is_no_part_of_an_output_that_was_replaced(model: Model) -> None:
    with pytest.raises(
        sj.errors.AddressError, match=r"L0\.H0\.out: an earlier intervention replaced.*apply this one first"
    ):
        sj.run(model, rows(3, 0), interventions=[sj.replace("L0.attn.out", 1.0), sj.add("L0.H0.out", 1.0)])
    split = [sj.zero("L0.H0.out"), sj.replace("L0.attn.out", 1.0), sj.add("L0.H0.out", 1.0)]
    with pytest.raises(sj.errors.AddressError, match="apply this one first"):
        sj.run(model, rows(3, 0), interventions=split)


def test_positions_are_known_where_an_edit_has_cut_the_mask_off(model: Model) -> None:
    deaf = sj.edit(model, sj.zero("L*.attn.z"))
    given = rows(3, 0)
    made = sj.run(deaf, given, keep=["L1.resid_post", "L1.resid_post@-1"])
    torch.testing.assert_close(
        made["L1.resid_post@-1"].as_tensor()[0], made["L1.resid_post"].as_tensor()[0, 3], rtol=0, atol=0
    )
