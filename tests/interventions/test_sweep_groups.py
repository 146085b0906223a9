"""Sites that are patched at once, edited models, and what a sweep refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

import scrubjay as sj
import small_models
from pairs import difference, task_of
from scrubjay.claims.task import Task
from scrubjay.errors import AddressError, InputError
from scrubjay.interventions.paths import edge_patch, path_patch
from scrubjay.interventions.plan import plan
from scrubjay.interventions.sweep import sweep

GROUPS: dict[str, str | list[str]] = {
    "heads of L0": "L0.H*.z",
    "two heads": ["L0.H1.z", "L0.H3.z"],
    "one": "L1.H2.z",
    "block": ["L0.attn.out", "L0.mlp.out"],
    "later first": ["L1.mlp.out", "L0.attn.out"],
    "across layers": ["L0.H1.z", "L1.H0.z"],
    "shares": ["L0.H1.out", "L0.H2.out", "L1.H3.out"],
    "reads": ["L1.H0.q_in", "L1.H1.k_in", "L1.H2.v_in"],
    "writes and reads": ["L0.H0.out", "L0.mlp.out", "L1.H1.k_in"],
    "key-value heads": ["L0.KV0.k", "L1.KV1.v", "L1.H3.q"],
    "neurons": ["L0.N3", "L0.N4", "L1.N0"],
}


@pytest.fixture(scope="module")
def llama() -> Any:
    return small_models.captured("llama")[1]


def by_hand(model: Any, task: Task, sites: Any, at: str = "", direction: str = "denoise") -> np.ndarray:
    giver, taker = (task.clean, task.counterfactual) if direction == "denoise" else (task.counterfactual, task.clean)
    names = [str(one) for text in ([sites] if isinstance(sites, str) else sites) for one in model.addresses(text)]
    source = sj.run(model, dict(giver), keep=[f"{one}{at}" for one in names])
    return difference(
        sj.run(model, dict(taker), interventions=[sj.patch(f"{one}{at}", source) for one in names]).logits, task
    )


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("stack", [1, None])
def test_a_group_is_patched_at_once(llama: Any, direction: str, stack: int | None) -> None:
    task = task_of("left", rows=4)
    made = sweep(llama, task, GROUPS, direction=direction, stack=stack)
    assert made.labels == {"site": tuple(GROUPS)}
    for name, row in zip(GROUPS, made.values, strict=True):
        assert np.abs(row - by_hand(llama, task, GROUPS[name], direction=direction)).max() < 2e-5, name
    assert made.facts["groups"]["two heads"] == ["L0.H1.z", "L0.H3.z"]


def test_a_group_is_patched_at_a_position(llama: Any) -> None:
    task = task_of("left", rows=4)
    made = sweep(llama, task, GROUPS, positions=["early", -1])
    for name, rows in zip(GROUPS, made.values, strict=True):
        for row, at in zip(rows, ("@1", "@-1"), strict=True):
            assert np.abs(row - by_hand(llama, task, GROUPS[name], at)).max() < 2e-5, (name, at)
    planned = plan(sweep, llama, task, GROUPS, positions=["early", -1])
    assert dict(planned.counts) == dict(made.counts)
    block = sweep(llama, task_of(length=9), {"block": ["L0.attn.out", "L1.mlp.out"]}, positions=5, stack=1)
    assert block.counts["tokens"] == 3 * (9 - 5)  # from the patch on
    small = sweep(llama, task, GROUPS, positions=["early", -1], budget="80 KB")
    assert small.counts["batches"] > 1
    assert np.abs(small.values - made.values).max() < 2e-5


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_a_group_is_ablated_at_once(llama: Any, ablation: str) -> None:
    task = task_of("left", rows=4)
    sites = ["L0.attn.out", "L0.mlp.out", "L1.H2.z"]
    made = sweep(llama, task, {"three": sites}, direction="noise", ablation=ablation)
    change: dict[str, Callable[[str], Any]] = {"zero": sj.zero, "mean": lambda a: sj.mean(a, dict(task.counterfactual))}
    wanted = sj.run(llama, dict(task.clean), interventions=[change[ablation](one) for one in sites]).logits
    assert np.abs(made.values[0] - difference(wanted, task)).max() < 2e-5


def test_groups_are_refused_by_name(llama: Any) -> None:
    task = task_of()
    with pytest.raises(AddressError, match="group 'heads': L7"):
        sweep(llama, task, {"heads": "L7.H*.z"})
    with pytest.raises(AddressError, match="group 'none': a sweep needs at least one site"):
        sweep(llama, task, {"none": []})
    with pytest.raises(AddressError, match="at least one group"):
        sweep(llama, task, {})


# --- edited models ---


def ahead(value: torch.Tensor) -> torch.Tensor:
    """A function by which positions read later ones."""
    return value + 0.1 * value.flip(1)


def test_an_edited_model_is_computed_from_the_patch_on(monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = small_models.captured("llama")
    task = task_of()
    edited = sj.edit(model, sj.zero("L0.H1.z"), sj.add("L1.resid_pre", 0.3), sj.apply("L1.mlp.out", torch.tanh))
    made = sweep(edited, task, ["L0.mlp.out", "L1.resid_pre"], positions="each", stack=1)
    whole = sweep(model, task, ["L0.mlp.out", "L1.resid_pre"], positions="each", stack=1)
    assert made.counts["tokens"] == whole.counts["tokens"] == 2 * 3 * sum(range(1, 10))
    for s, site in enumerate(("L0.mlp.out", "L1.resid_pre")):
        for p in (0, 5):
            assert np.abs(made.values[s, p] - by_hand(edited, task, site, f"@{p}")).max() < 2e-5
    backwards = sj.edit(model, sj.apply("L1.resid_pre", ahead))
    made = sweep(backwards, task, ["L0.mlp.out"], positions="each", stack=1)
    assert made.counts["tokens"] == 3 * 9 * 9
    for p in (0, 5):
        assert np.abs(made.values[0, p] - by_hand(backwards, task, "L0.mlp.out", f"@{p}")).max() < 2e-5
    monkeypatch.setattr(import_module("scrubjay.interventions.causality"), "_tried", lambda _model: True)
    wrong = sweep(sj.edit(backwards), task, ["L0.mlp.out"], positions="each", stack=1)
    assert wrong.counts["tokens"] == 3 * 9 * 9  # what was found is kept with the model


def test_what_follows_a_function_is_computed_variant_by_variant(llama: Any) -> None:
    task = task_of("left", rows=4)
    edited = sj.edit(llama, sj.apply("L1.mlp.out", torch.tanh))
    made = sweep(edited, task, {"heads": "L0.H*.z", "block": ["L0.attn.out", "L0.mlp.out"], "stream": "L1.resid_post"})
    assert made.counts["evaluations"] == 3
    for name, sites in (("heads", "L0.H*.z"), ("block", ["L0.attn.out", "L0.mlp.out"]), ("stream", "L1.resid_post")):
        row = made.values[made.labels["site"].index(name)]
        assert np.abs(row - by_hand(edited, task, sites)).max() < 2e-5, name
    best = sweep(edited, task, "L0.H*.z", direction="noise", ablation=sj.Ablation("optimal", steps=4, rate=0.3))
    for (site,), constants in best.constants.items():
        run = sj.run(edited, dict(task.clean), interventions=sj.replace(site, torch.tensor(constants[site])))
        assert np.abs(best.values[best.labels["site"].index(site)] - difference(run.logits, task)).max() < 2e-5


def test_causality_of_a_model_is_tried_once_it_was_rewritten() -> None:
    is_causal = import_module("scrubjay.interventions.causality").is_causal
    _, gpt2 = small_models.captured("gpt2")
    assert is_causal(gpt2.exact())
    assert is_causal(sj.edit(gpt2, sj.zero("L0.H1.pattern")))
    assert not is_causal(sj.edit(gpt2, sj.apply("L0.H1.pattern", lambda value: value + 0.01)))
    _, bert = small_models.captured("bert")
    assert not is_causal(sj.edit(bert, sj.zero("L0.H0.z")))


# --- what is refused ---


def same_places(task: Task, **positions: Any) -> Task:
    return replace(task, positions={**task.positions, **{name: np.array(at) for name, at in positions.items()}})


def test_numbers_are_no_positions_of_rows_that_differ(llama: Any) -> None:
    uneven, even = task_of("left"), task_of()
    for asked, named in (("each", "'each'"), (2, "2"), (-3, "-3"), ([0, 2], "2")):
        match = rf"positions={named} compares .* rows have 4 to 8 real tokens: .*labelled positions: positions=\['early', 'END'\]"
        with pytest.raises(InputError, match=match):
            sweep(llama, uneven, "L0.resid_pre", positions=asked)
    for asked in (0, -1, 1, "early"):
        sweep(llama, uneven, "L0.resid_pre", positions=asked)
    templates = same_places(even, subject=[2, 4, 2])
    for asked in ("each", 3):
        with pytest.raises(
            InputError,
            match=r"different templates: 'subject' is at position 2 in row 0 and at 4 in row 1.*\['early', 'subject', 'END'\]",
        ):
            sweep(llama, templates, "L0.resid_pre", positions=asked)
    sweep(llama, templates, "L0.resid_pre", positions=["subject", 0, 1])
    sweep(llama, same_places(even, subject=[2, 2, -7]), "L0.resid_pre", positions="each")


def test_bad_input_is_refused_before_anything_is_computed(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of("left")

    def computed(*_: Any, **__: Any) -> Any:
        raise AssertionError("something was computed")

    monkeypatch.setattr(import_module("scrubjay.interventions.ground"), "compute_with", computed)
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: sweep(llama, task, "L9.resid_pre"), AddressError, "L9.*L0..L1"),
        (lambda: sweep(llama, task, "L0.resid_prr"), AddressError, "did you mean L0.resid_pre"),
        (lambda: sweep(llama, task, "pos_embed"), AddressError, "pos_embed"),
        (lambda: sweep(llama, task, "L0.mlp.E1.out"), AddressError, "L0"),
        (lambda: sweep(llama, task, "L0.H7.z"), AddressError, "H7"),
        (
            lambda: sweep(llama, task, "L0.resid_pre", positions=-9),
            InputError,
            "row 0 has 7 real tokens, so it has no position -9",
        ),
        (lambda: sweep(llama, task, "L0.resid_pre", positions=[]), InputError, "leaves nothing to patch"),
        (lambda: sweep(llama, task, "L0.resid_pre", positions="erly"), InputError, "did you mean early"),
        (lambda: sweep(llama, task, "L0.resid_pre", at="S2"), InputError, "names no such position"),
        (lambda: sweep(llama, task, "L0.resid_pre", metric="loss"), InputError, "'loss' is not known"),
        (lambda: path_patch(llama, task, "L0.H0.z", "L1.H0.q_in", "noise", "freeze"), AddressError, "a sender writes"),
        (lambda: path_patch(llama, task, "L0.H0.out", "L1.H0.z", "noise", "freeze"), AddressError, "a receiver reads"),
    ]
    for call, kind, match in cases:
        with pytest.raises(kind, match=match):
            call()


def test_pairs_that_do_not_correspond_are_refused(llama: Any) -> None:
    task = task_of("left")
    with pytest.raises(InputError, match="pad both alike"):
        Task("t", task.clean, {name: one[:, 1:] for name, one in task.counterfactual.items()}, task.answers, task.wrong)
    mask = task.clean["attention_mask"].copy()
    mask[0, :4] = 0
    other = Task("t", task.clean, {**task.counterfactual, "attention_mask": mask}, task.answers, task.wrong)
    for call in (lambda: sweep(llama, other, "L0.resid_pre"), lambda: edge_patch(llama, other, "noise")):
        with pytest.raises(InputError, match="row 0 has 7 real tokens clean and 5 counterfactual"):
            call()


@pytest.mark.parametrize("call", [sweep, path_patch, edge_patch])
def test_metrics_and_budgets_that_do_not_do_are_refused(llama: Any, call: Any) -> None:
    task = task_of("left")
    given: dict[Any, tuple[Any, ...]] = {
        sweep: ("L0.resid_pre",),
        path_patch: ("L0.H0.out", "L1.H0.q_in", "noise", "freeze"),
        edge_patch: ("noise",),
    }
    cases: list[tuple[dict[str, Any], str]] = [
        ({"metric": lambda logits: logits[:2, -1, 0]}, r"shape \(2,\) for a result of 3 rows"),
        ({"metric": lambda logits: logits[:, -1]}, "one number for each row"),
        ({"metric": lambda logits: 3.0}, "returned float"),
        ({"metric": lambda logits: logits[:, -1, 0] * float("nan")}, "NaN in row 0"),
        ({"budget": 2000}, "one row with one variant at a time needs"),
        ({"budget": "a lot"}, "no amount of memory"),
        ({"budget": 2000, "metric": lambda logits: logits[:, -1, 0]}, "all rows at once"),
    ]
    for options, match in cases:
        with pytest.raises(InputError, match=match):
            call(llama, task, *given[call], **options)


# --- what tables say ---


def made_by(model: Any, task: Task) -> list[Any]:
    return [
        sweep(model, task, {"block": ["L0.attn.out", "L0.mlp.out"], "head": "L0.H1.z"}, positions=["early", "END"]),
        path_patch(model, task, "L*.H*.out", ["L1.H0.v_in", "L1.resid_post"], "denoise", mlps="recompute"),
        edge_patch(model, task, "noise"),
    ]


def test_a_table_gives_both_ends_beside_the_effect(llama: Any) -> None:
    task = task_of("left", rows=4)
    ends = [difference(sj.run(llama, dict(one)).logits, task) for one in (task.clean, task.counterfactual)]
    for made in made_by(llama, task):
        told = json.loads(json.dumps(made.to_dict(), allow_nan=False))
        assert np.abs(np.array(told["clean"]) - ends[0]).max() < 2e-5
        assert np.abs(np.array(told["corrupted"]) - ends[1]).max() < 2e-5
        flat = np.array(told["effect"], float)
        assert np.allclose(flat, made.effect, equal_nan=True)
        assert told["refusal"] == ""
        sizes = tuple(len(one) for one in told["labels"].values())
        assert sizes == made.effect.shape
        text = str(made).splitlines()
        assert text[1] == f"  logit_difference: {ends[0].mean():.4g} clean, {ends[1].mean():.4g} corrupted"
        first = made.top(1)[0]
        assert f"{first[1]:+.3f}" in text[2]
    later = path_patch(llama, task, "L1.H*.out", ["L0.H0.q_in", "L1.resid_post"], "denoise", mlps="freeze")
    told = json.loads(json.dumps(later.to_dict(), allow_nan=False))
    assert told["effect"][0][0] is None
    assert len(later.top(100)) == 4


def test_a_table_refuses_a_fraction_of_nothing(llama: Any) -> None:
    task = task_of("left", rows=4)
    same = Task("same", task.clean, task.clean, task.answers, task.wrong, task.positions)
    for made in made_by(llama, same):
        told = json.loads(json.dumps(made.to_dict(), allow_nan=False))
        assert told["effect"] is None
        assert "a fraction of that difference says nothing" in told["refusal"]
        assert "no effects" in str(made)
        with pytest.raises(InputError, match="answers differently"):
            _ = made.effect
