"""What a sweep puts in is what its name says: each ablation against a run in which the value is replaced by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import scrubjay as sj
import small_models
from pairs import difference, task_of
from scrubjay.claims.data import Dataset, Feature
from scrubjay.claims.task import Task
from scrubjay.errors import InputError
from scrubjay.interventions.noise import noise
from scrubjay.interventions.plan import plan
from scrubjay.interventions.sweep import sweep

SITES = ["L0.H1.z", "L1.KV0.k", "L0.mlp.out", "L1.H2.out"]
Values = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def llama() -> Any:
    return small_models.captured("llama")[1]


def reference(rows: int = 6, length: int = 11, seed: int = 7) -> dict[str, torch.Tensor]:
    """Rows of other lengths, padded otherwise than a task's."""
    given = small_models.batch(rows, length, "both", seed)
    return {name: given[name] for name in ("input_ids", "attention_mask")}


def task4() -> Task:
    """Four left-padded rows of two templates."""
    task = task_of("left", rows=4)
    feature = Feature("kind", np.array([0, 0, 1, 1]))
    return replace(task, clusters=np.array([0, 1, 0, 1]), features={"kind": feature})


def values(model: Any, inputs: Any, site: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A value (batch, query, ...) and which of its places are real."""
    made = sj.run(model, dict(inputs), keep=[site])[site]
    return made.as_tensor(), torch.tensor(np.asarray(inputs["attention_mask"]).tolist()).bool()


def rows_of(value: torch.Tensor, real: torch.Tensor) -> list[torch.Tensor]:
    """Each row's own tokens."""
    return [one[mask] for one, mask in zip(value, real, strict=True)]


def padded(rows: list[torch.Tensor], real: torch.Tensor) -> torch.Tensor:
    """Rows at the real places of others, zero elsewhere."""
    made = torch.zeros(*real.shape, *rows[0].shape[1:])
    for place, row in enumerate(rows):
        made[place, real[place]] = row[: int(real[place].sum())]
    return made


def replaced(model: Any, task: Task, site: str, value: torch.Tensor, side: str = "clean") -> np.ndarray:
    """The metric of a run whose value at a site is another, at real places."""
    inputs = dict(getattr(task, side))
    old, real = values(model, inputs, site)
    new = torch.where(real.reshape(*real.shape, *[1] * (old.dim() - 2)), value, old)
    return difference(sj.run(model, inputs, interventions=sj.replace(site, new)).logits, task)


def mean_rows(rows: list[torch.Tensor], labels: Any, wanted: Any, by: str) -> list[torch.Tensor]:
    """For each wanted label the mean over rows of that label, by position as far as rows go."""
    made: list[torch.Tensor] = []
    for label in wanted:
        mine = [row for row, one in zip(rows, labels, strict=True) if one == label]
        if by == "all":
            made.append(torch.cat(mine).mean(0).expand(64, *mine[0].shape[1:]))
            continue
        longest = max(map(len, mine))
        made.append(torch.stack([torch.stack([r[p] for r in mine if len(r) > p]).mean(0) for p in range(longest)]))
    return made


@pytest.mark.parametrize("by", ["position", "all", "template", "kind"])
@pytest.mark.parametrize("budget", [None, "60 KB"])
def test_means_are_taken_over_a_reference_set(llama: Any, by: str, budget: str | None) -> None:
    task, over = task4(), reference()
    labels = np.array([0, 0, 0, 1, 1, 1])
    given = Dataset(
        "over",
        {name: one.numpy() for name, one in over.items()},
        np.zeros(6, np.int64),
        {"kind": Feature("kind", labels)},
    )
    options: dict[str, Any] = {"over": given} if by == "kind" else {"over": over}
    options |= {"labels": labels} if by == "template" else {}
    ablation = sj.Ablation("mean", by=by, **options)
    made = sweep(llama, task, SITES, direction="noise", ablation=ablation, budget=budget)
    here = {"template": task.clusters, "kind": task.features["kind"].values}.get(by, np.zeros(4, int))
    there = labels if by in {"template", "kind"} else np.zeros(6, int)
    assert (made.counts["batches"] > 1) is (budget is not None)
    for s, site in enumerate(SITES):
        value, real = values(llama, over, site)
        new = mean_rows(rows_of(value, real), there, here, by)
        mine = padded(new, torch.tensor(task.clean["attention_mask"]).bool())
        assert np.abs(made.values[s] - replaced(llama, task, site, mine)).max() < 2e-5, site


def test_a_mean_by_template_of_the_task_itself(llama: Any) -> None:
    task = task4()
    made = sweep(llama, task, SITES[:1], direction="denoise", ablation=sj.Ablation("mean", by="template"))
    value, real = values(llama, task.clean, SITES[0])
    new = mean_rows(rows_of(value, real), task.clusters, task.clusters, "position")
    assert np.abs(made.values[0] - replaced(llama, task, SITES[0], padded(new, real), "counterfactual")).max() < 2e-5


def test_a_mean_of_patterns_is_of_rows_that_are_padded_alike(llama: Any) -> None:
    task = task_of("none", rows=4)
    made = sweep(llama, task, "L1.H1.pattern", direction="noise", ablation="mean")
    mean = sj.run(llama, dict(task.counterfactual), keep="L1.H1.pattern")["L1.H1.pattern"].as_tensor().mean(0)
    wanted = difference(sj.run(llama, dict(task.clean), interventions=sj.replace("L1.H1.pattern", mean)).logits, task)
    assert np.abs(made.values[0] - wanted).max() < 2e-5
    with pytest.raises(InputError, match="padded alike, or ablate z"):
        sweep(llama, task4(), "L1.H1.pattern", ablation="mean")


@pytest.mark.parametrize("budget", [None, "60 KB"])
def test_rows_are_drawn_from_a_reference_set_by_a_table(llama: Any, budget: str | None) -> None:
    task, over = task4(), reference()
    table = np.array([[3, 0, 2, 1], [0, 3, 4, 5]])
    made = sweep(
        llama, task, SITES, direction="noise", ablation=sj.Ablation("resample", over=over, table=table), budget=budget
    )
    real = torch.tensor(task.clean["attention_mask"]).bool()
    for s, site in enumerate(SITES):
        rows = rows_of(*values(llama, over, site))
        wanted = np.mean([replaced(llama, task, site, padded([rows[one] for one in draw], real)) for draw in table], 0)
        assert np.abs(made.values[s] - wanted).max() < 2e-5, site
    drawn = sj.Ablation("resample", over=over, seed=3, draws=2)
    first, again = (sweep(llama, task, SITES[:1], ablation=drawn) for _ in range(2))
    other = sweep(llama, task, SITES[:1], ablation=replace(drawn, seed=4))
    assert np.array_equal(first.values, again.values)
    assert np.abs(first.values - other.values).max() > 1e-3
    again = sweep(llama, task, SITES[:1], ablation=sj.Ablation("resample", over=over, table=first.facts["table"]))
    assert np.array_equal(first.values, again.values)
    labels = np.array([0, 0, 1, 1, 0, 1])
    alike = sj.Ablation("resample", over=over, by="template", labels=labels, draws=5)
    table = np.array(sweep(llama, task, SITES[:1], ablation=alike).facts["table"])
    assert (labels[table] == task.clusters).all()
    assert len(np.unique(table)) > 2


@pytest.mark.parametrize("budget", [None, "80 KB"])
def test_noise_has_the_scale_of_the_site(llama: Any, budget: str | None) -> None:
    task, over = task4(), reference()
    sites = [*SITES, "embed"]
    ablation = sj.Ablation("noise", over=over, seed=5, scale=2.0, draws=2)
    made = sweep(llama, task, sites, direction="noise", ablation=ablation, budget=budget)
    for s, site in enumerate(sites):
        scale = torch.cat(rows_of(*values(llama, over, site))).double().std(correction=0).item()
        own, real = values(llama, task.clean, site)
        found: list[np.ndarray] = []
        for draw in range(2):
            rows = [
                row + 2.0 * scale * noise([5, draw], site, place, row.shape)
                for place, row in enumerate(rows_of(own, real))
            ]
            found.append(replaced(llama, task, site, padded(rows, real)))
        assert np.abs(made.values[s] - np.mean(found, 0)).max() < 3e-5, site
    drawn = noise([0, 0], "L0.resid_pre", 1, (400, 50))
    assert not torch.equal(drawn, noise([0, 0], "L1.resid_pre", 1, (400, 50)))
    assert abs(float(drawn.mean())) < 0.03
    assert abs(float(drawn.std()) - 1) < 0.03
    alone = sweep(llama, task, SITES[:1], direction="noise", ablation=ablation)
    assert np.abs(alone.values[0] - made.values[0]).max() < 1e-6  # whatever else is swept


@pytest.mark.parametrize("positions", [None, ["early", -1]])
def test_an_optimal_constant_is_a_constant_and_better_than_the_mean(llama: Any, positions: Any) -> None:
    task, sites = task4(), ["L1.H1.z", "L0.mlp.out"]
    sites = {"L1.H1.z": "L1.H1.z", "L0.mlp.out": "L0.mlp.out", "both": sites}
    made = sweep(llama, task, sites, positions, direction="noise", ablation=sj.Ablation("optimal", steps=15, rate=0.3))
    loss = {name: np.array(made.facts["loss"][name]) for name in ("start", "end")}
    assert np.all((loss["end"] < 0.97 * loss["start"]) | (loss["start"] < 1e-6))
    assert loss["start"].max() > 0.01
    last = {"early": 1, -1: -1}
    kl = sweep(
        llama,
        task,
        sites,
        positions,
        direction="noise",
        metric="kl",
        ablation=sj.Ablation("optimal", steps=15, rate=0.3),
    )
    shown = kl.values.reshape(3, -1, 4).mean(-1)
    assert np.abs(shown - loss["end"].reshape(3, -1)).max() < 1e-4
    for key, constants in made.constants.items():
        at = "" if positions is None else f"@{last[key[1]]}"
        changes = [sj.replace(f"{site}{at}", torch.tensor(one)) for site, one in constants.items()]
        wanted = difference(sj.run(llama, dict(task.clean), interventions=changes).logits, task)
        place = list(sites).index(key[0])
        row = made.values[place] if positions is None else made.values[place, positions.index(key[1])]
        assert np.abs(row - wanted).max() < 2e-5, key


def test_an_optimal_constant_starts_from_the_mean(llama: Any) -> None:
    task = task4()
    made = sweep(
        llama, task, "L1.H1.z", direction="noise", metric="kl", ablation=sj.Ablation("optimal", steps=1, rate=1e-9)
    )
    rows = rows_of(*values(llama, task.clean, "L1.H1.z"))
    mean = torch.cat(rows).mean(0)
    assert np.abs(made.constants[("L1.H1.z",)]["L1.H1.z"] - mean.numpy()).max() < 1e-5
    some = sj.Ablation("optimal", steps=8, batch=2, seed=1)
    one, two = (sweep(llama, task, "L1.H1.z", ablation=ablation) for ablation in (some, replace(some, seed=2)))
    assert one.facts["loss"]["end"] != two.facts["loss"]["end"]


@pytest.mark.parametrize(
    "ablation",
    [
        sj.Ablation("noise", draws=2),
        sj.Ablation("optimal", steps=3),
        sj.Ablation("mean", by="template"),
        sj.Ablation("resample", seed=1),
    ],
)
def test_a_plan_tells_what_an_ablation_costs(llama: Any, ablation: Any) -> None:
    options: Any = {"positions": ["early", "END"], "ablation": ablation}
    planned, made = plan(sweep, llama, task4(), SITES, **options), sweep(llama, task4(), SITES, **options)
    assert dict(planned.counts) == dict(made.counts)
    assert json.loads(json.dumps(made.to_dict()))["facts"]["ablation"] == ablation.kind


def test_what_does_not_fit_is_refused(llama: Any) -> None:
    task, over = task4(), reference()
    short = {"input_ids": over["input_ids"][:, :4], "attention_mask": torch.ones(6, 4, dtype=torch.int64)}
    cases: list[tuple[Any, str]] = [
        (lambda: sj.Ablation("median"), "'median' is not known: use 'resample', 'zero', 'mean', 'noise', 'optimal'"),
        (lambda: sj.Ablation("zero", seed=1), "has no seed="),
        (lambda: sj.Ablation("noise", scale=-1.0), "give a number above 0"),
        (lambda: sj.Ablation("noise", draws=0), "at least 1"),
        (lambda: sj.Ablation("mean", by="subject"), "no such feature; it has template, kind"),
        (lambda: sj.Ablation("mean", over=over, by="template"), "have no labels"),
        (
            lambda: sj.Ablation("mean", over=over, by="template", labels=[0] * 6),
            "row 1 has template 1, and no row of the reference set has",
        ),
        (lambda: sj.Ablation("mean", over=over, by="template", labels=[0]), "1 labels and the reference set 6 rows"),
        (lambda: sj.Ablation("mean", over=short), "the longest row to take its mean over has 4"),
        (lambda: sj.Ablation("resample", over=short, seed=0), "no row that it may take values from has as many"),
        (lambda: sj.Ablation("resample", table=[0, 1, 2, 9]), "names row 9, and the reference set has rows 0..3"),
        (lambda: sj.Ablation("resample", table=[0, 1]), "for each of 4 rows"),
        (lambda: sj.Ablation("resample", table=[0, 0, 0, 0], seed=1), "by one of them"),
        (lambda: 3, "give a name, an sj.Ablation, or a function"),
    ]
    for made, match in cases:
        with pytest.raises(InputError, match=match):
            sweep(llama, task, "L0.H1.z", ablation=made())
    with pytest.raises(InputError, match="an optimal constant is found on all rows"):
        sweep(llama, task, "L0.H1.z", ablation="optimal", budget="60 KB")
    for kind in ("noise", "optimal"):
        with pytest.raises(InputError, match="between two positions"):
            sweep(llama, task, "L0.H1.pattern", ablation=kind)
