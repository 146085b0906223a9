"""Patches between rows that are padded otherwise: positions are those of real tokens, or the patch is refused."""

from __future__ import annotations

import pytest
import torch

import scrubjay as sj
from scrubjay.capture.model import Model
from scrubjay.zoo.transformer import Config, Transformer

ROWS = [[1, 2, 3, 4], [5, 6, 1, 2, 3], [2, 4, 6]]
OTHER = [[4, 4, 1, 0], [0, 1, 2, 6, 5], [6, 6, 1]]


@pytest.fixture(scope="module")
def model() -> Model:
    config = Config(
        layers=2,
        heads=2,
        d_model=8,
        d_head=4,
        d_mlp=12,
        vocabulary=7,
        positions=12,
        outputs=7,
        direction="causal",
        readout="all",
    )
    module = Transformer(config, seed=0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) * 0.3)
    return sj.load(module.eval(), cache=None)


def padded(rows: list[list[int]], lefts: list[int], width: int) -> dict[str, torch.Tensor]:
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for place, (row, left) in enumerate(zip(rows, lefts, strict=True)):
        ids[place, left : left + len(row)] = torch.tensor(row)
        mask[place, left : left + len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def real(value: torch.Tensor, given: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [row[mask.bool()] for row, mask in zip(value, given["attention_mask"], strict=True)]


def kept(
    model: Model, given: dict[str, torch.Tensor], site: str, *changes: sj.interventions.Intervention
) -> list[torch.Tensor]:
    found = sj.run(model, given, keep=site, interventions=changes)[site]
    value = found.as_tensor()
    return real(value if "batch" in found.names else value.expand(len(given["input_ids"]), *value.shape), given)


HERE = padded(ROWS, [4, 3, 5], 8)
SITES = ["L0.resid_post", "L1.H0.z", "L0.attn.k", "L1.mlp.post"]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(("lefts", "width"), [([0, 0, 0], 8), ([3, 0, 1], 8), ([0, 0, 0], 5), ([2, 4, 6], 9)])
def test_a_patch_goes_to_the_same_real_positions(model: Model, site: str, lefts: list[int], width: int) -> None:
    there = padded(OTHER, lefts, width)
    expected = kept(model, there, site)
    for source in (there, sj.run(model, there, keep=site)):
        for mine, its in zip(kept(model, HERE, site, sj.patch(site, source)), expected, strict=True):
            torch.testing.assert_close(mine, its, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("at", "places"), [("1..2", [1, 2]), ("-3..-2", [-3, -2]), ("0..-2", None), ("2", [2]), ("-1", [-1])]
)
def test_a_patch_at_positions_counts_them_in_both(model: Model, at: str, places: list[int] | None) -> None:
    """Those counted from one end need no rows of one length."""
    site = "L0.resid_post"
    longer = [row if places is None else [*row, 3][: 4 + number] for number, row in enumerate(OTHER)]
    there = padded(longer, [0, 2, 1], 7)
    before, other = kept(model, HERE, site), kept(model, there, site)
    for source in (there, sj.run(model, there, keep=[site, f"{site}@{at}"] if places else site)):
        found = kept(model, HERE, site, sj.patch(f"{site}@{at}", source))
        for mine, old, its in zip(found, before, other, strict=True):
            expected = old.clone()
            for place in range(len(old) - 1) if places is None else places:
                expected[place] = its[place]
            torch.testing.assert_close(mine, expected, rtol=0, atol=1e-6)


def test_rows_of_other_lengths_are_refused(model: Model) -> None:
    there = padded([*OTHER[:2], [6, 6, 1, 2]], [4, 3, 4], 8)
    with pytest.raises(
        sj.errors.InputError, match=r"the patch has 4 positions and the run has 3; name a position .*row 2"
    ):
        sj.run(model, HERE, interventions=[sj.patch("L0.resid_post", there)])
    with pytest.raises(sj.errors.InputError, match=r"the patch has 3 positions and the run has 4"):
        sj.run(model, HERE, interventions=[sj.patch("L0.resid_post@0..-1", padded([[1, 2, 3]], [0], 3))])
    with pytest.raises(sj.errors.InputError, match=r"row 0 to patch from has 2 real tokens, so it lacks"):
        sj.run(model, HERE, interventions=[sj.patch("L0.resid_post@-3..-1", padded([[1, 2]], [0], 2))])


@pytest.mark.parametrize("site", ["L0.H0.pattern", "L0.attn.scores"])
def test_values_between_two_positions_need_rows_padded_alike(model: Model, site: str) -> None:
    alike, otherwise = padded(OTHER, [4, 3, 5], 8), padded(OTHER, [0, 0, 0], 8)
    found = sj.run(model, HERE, keep="L0.attn.z", interventions=[sj.patch(site, alike)])
    assert not torch.equal(
        found["L0.attn.z"].as_tensor(), sj.run(model, HERE, keep="L0.attn.z")["L0.attn.z"].as_tensor()
    )
    for at in ("", "@0..1"):
        with pytest.raises(sj.errors.InputError, match=r"values between two positions.*or q and k, instead"):
            sj.run(model, HERE, interventions=[sj.patch(f"{site}{at}", otherwise)])


@pytest.mark.parametrize("at", ["", "@0..1", "@-2..-1"])
def test_a_row_made_part_of_a_model_goes_to_the_real_positions_of_any(model: Model, at: str) -> None:
    site = "L0.resid_post"
    one = padded([[4, 4, 1, 0, 5]], [2], 8)
    edited = sj.edit(model, sj.patch(f"{site}{at}", one))
    (its,) = kept(model, one, site)
    for mine, old in zip(kept(edited, HERE, site), kept(model, HERE, site), strict=True):
        expected = old.clone()
        places = range(len(old)) if not at else [0, 1] if at == "@0..1" else [-2, -1]
        for place in places:
            expected[place] = its[place]
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-6)
    longer = padded([[1, 2, 3, 4, 5, 6]], [1], 7)
    if not at:
        with pytest.raises(sj.errors.EvaluationError, match="outside axis 'position'"):
            sj.run(edited, longer)
    with pytest.raises(sj.errors.InputError, match=r"only in sj\.run"):
        sj.edit(model, sj.patch("L0.H0.pattern", one))


@pytest.mark.parametrize("by", ["position", "all"])
def test_a_value_that_is_the_same_for_every_row_has_a_mean(model: Model, by: str) -> None:
    """Position embeddings have no batch axis; rows begin at other places and count their own positions all the same."""
    assert "batch" not in model.circuit.table["pos_embed"].axis_names
    over = padded(OTHER, [1, 0, 2], 6)
    table = sj.run(model, over, keep="pos_embed")["pos_embed"].as_tensor()
    its = real(table.expand(3, *table.shape[-2:]), over)
    for mine in kept(model, HERE, "pos_embed", sj.mean("pos_embed", over, by=by)):
        for place, found in enumerate(mine):
            expected = torch.cat(its) if by == "all" else torch.stack([row[place] for row in its if len(row) > place])
            torch.testing.assert_close(found, expected.mean(0), rtol=0, atol=1e-6)
    drawn = kept(model, HERE, "pos_embed", sj.resample("pos_embed", padded([OTHER[1]], [1], 6)))
    for mine in drawn:
        torch.testing.assert_close(mine, table.reshape(-1, table.shape[-1])[1 : 1 + len(mine)], rtol=0, atol=0)
