"""Tables of effects draw themselves: heat maps where there are two axes or heads, bars for edges, raw numbers without a gap."""

from __future__ import annotations

import pairs
import scrubjay as sj
import small_models
from scrubjay.claims.task import Task
from scrubjay.reporting.sections.effects import effects_section
from scrubjay.viz import Figure


def drawn(found: sj.Effects) -> str:
    section = effects_section(found)
    figures = [one for one in section.body if isinstance(one, Figure)]
    return section.title + section.finding + "".join(f"{one.markup} {one.caption}" for one in figures)


def test_every_kind_of_table_is_drawn() -> None:
    _, model = small_models.captured("gpt2")
    task = pairs.task_of()
    sweep = sj.sweep(model, task, "L*.resid_pre", positions="each")
    assert "L1.resid_pre" in drawn(sweep)
    assert f"{sweep.effect[1, 8]:+.2f}".replace("-", "\N{MINUS SIGN}") in drawn(sweep)
    heads = drawn(sj.sweep(model, task, "L*.H*.z", direction="noise"))
    assert "Effect of each head" in heads
    assert "H3" in heads
    edges = drawn(sj.edge_patch(model, task, "denoise"))
    assert "The 24 greatest effects of 110" in edges
    assert " to L1." in edges


def test_without_a_gap_the_raw_metric_is_shown() -> None:
    _, model = small_models.captured("gpt2")
    task = pairs.task_of()
    same = Task("same", task.clean, task.clean, task.answers, task.wrong)
    assert "hardly differ" in drawn(sj.sweep(model, same, "L0.H*.z"))
