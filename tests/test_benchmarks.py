"""The table of `benchmarks/sweeps.py` at small sizes: answers are compared, wrong ones stop it, and the arithmetic it counts is that of the shapes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import scrubjay as sj

HERE = Path(__file__).parents[1] / "benchmarks"
MODULES = ("shapes", "tools", "table", "rows", "keeping", "routes", "serve")


@pytest.fixture(scope="module")
def parts() -> Iterator[SimpleNamespace]:
    """The modules of the benchmark, which are scripts beside each other and no package."""
    before = sys.path[:]
    sys.path[:0] = [str(HERE), str(HERE / "peers")]
    try:
        yield SimpleNamespace(**{name: __import__(name) for name in MODULES})
    finally:
        sys.path[:] = before
        for name in MODULES:
            sys.modules.pop(name, None)


class Asked:
    """A tool of this process."""

    def __init__(self, name: str, title: str, serve: Any, patcher: Any) -> None:
        self.name, self.title, self.serve, self.patcher, self.shift = name, title, serve, patcher, 0.0

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        found = self.serve.answer(self.patcher, request, "cpu")
        return {**found, "metric": [np.add(row, self.shift).tolist() for row in found["metric"]]}


@pytest.fixture(scope="module")
def bench(parts: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder, sizes = tmp_path_factory.mktemp("handed"), parts.shapes.SMALL
    modules = {"gpt2": parts.shapes.gpt2(sizes, "cpu"), "llama": parts.shapes.llama(sizes, "cpu")}
    parts.shapes.handed(folder, sizes, modules)
    patcher = parts.serve.loaded("hooks").Patcher(parts.serve.Setting(folder, "cpu"))
    tool = Asked("hooks", parts.tools.TITLES["hooks"], parts.serve, patcher)
    return parts.rows.Bench(sizes, "cpu", 1, 1, {"hooks": tool}, modules)


def test_rows_are_measured_where_hooks_by_hand_give_the_same_answers(parts: SimpleNamespace, bench: Any) -> None:
    made = [parts.rows.resid(bench), parts.rows.heads(bench), parts.rows.final(bench)]
    made += [parts.routes.path(bench, "v"), parts.routes.path(bench, "k", "llama")]
    for row in made:
        assert row.notes[0].startswith("same answers"), row
        assert parts.tools.TITLES["hooks"] in str(row)
        assert row.ratio(row.base) == 1


def test_answers_that_differ_stop_the_table(parts: SimpleNamespace, bench: Any) -> None:
    bench.tools["hooks"].shift = 1e-3
    try:
        with pytest.raises(SystemExit, match=r"Hugging Face and hooks and Scrubjay differ by 1.0e-03 .*no time is worth"):  # fmt: skip
            parts.rows.heads(bench)
    finally:
        bench.tools["hooks"].shift = 0.0


def test_the_work_that_is_needed_is_less_than_what_is_done(parts: SimpleNamespace, bench: Any) -> None:
    sizes, shapes = bench.sizes, parts.shapes
    counts = sj.plan(sj.sweep, bench.model, bench.task, "L*.H*.z").counts
    assert shapes.head_work(sizes) < counts["multiply_adds"] < 3 * shapes.head_work(sizes)
    made = sj.run(bench.model, bench.ids, keep=parts.rows.SITES)
    storages = {one.as_tensor().untyped_storage() for one in made.values.values()}
    held = sum({one.data_ptr(): one.nbytes() for one in storages}.values())
    assert held == shapes.kept_bytes(sizes)
    assert parts.keeping.planned_bytes(bench.model, parts.rows.SITES, bench.ids) == held
    edges = sj.edge_patch(bench.model, shapes.pairs(sizes, sizes.edge_length, sizes.shared), "noise")
    assert len(edges.labels["edge"]) == parts.routes.all_edges(sizes)
    assert parts.routes.all_edges(shapes.Sizes()) == 32_491


def test_times_of_some_layers_are_carried_over_to_all(parts: SimpleNamespace) -> None:
    taken = [10.0 - layer for layer in (1, 6)]
    found = parts.routes.carried([1, 6], taken, lambda layer: layer, range(1, 8))
    assert found == pytest.approx(sum(layer * (10 - layer) for layer in range(1, 8)))


def test_a_module_with_shared_keys_is_rebuilt_the_same(parts: SimpleNamespace, bench: Any) -> None:
    module = bench.modules["llama"]
    apart = parts.serve.loaded("hooks").repeated_keys(module)
    assert apart.config.num_key_value_heads == bench.sizes.heads
    with torch.no_grad():
        torch.testing.assert_close(apart(bench.ids).logits, module(bench.ids).logits, rtol=0, atol=1e-5)
