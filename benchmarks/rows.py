"""The rows of the table that `sweeps.py` prints: what is measured, on which cells, with which goals.

Scrubjay's sweeps are run whole; paths and edges for some receivers, and their times carried over to all. Other tools are asked for some cells.
Every cell's answer is compared with Scrubjay's before its time counts.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import shapes
import torch
from shapes import Sizes, timed
from table import Line, Row
from tools import FAR, TITLES, Answers, Tool, asked

import scrubjay as sj

OURS, OWN = "Scrubjay", "the module's own forward"
BRIDGE = TITLES["transformer_lens"]
KEPT = ("resid_pre", "resid_mid", "resid_post", "q", "k", "v", "pattern", "z", "mlp.pre", "mlp.post", "mlp.out")
SITES = tuple(f"L*.attn.{name}" if name in {"q", "k", "v", "pattern", "z"} else f"L*.{name}" for name in KEPT)


@dataclass(frozen=True)
class Bench:
    """What rows measure on."""

    sizes: Sizes
    device: str
    threads: int
    turns: int
    tools: Mapping[str, Tool]
    modules: Mapping[str, Any]

    @cached_property
    def model(self) -> sj.Model:
        return sj.load(self.modules["gpt2"])

    @cached_property
    def grouped(self) -> sj.Model:
        return sj.load(self.modules["llama"])

    @cached_property
    def task(self) -> sj.Task:
        return shapes.pairs(self.sizes, self.sizes.length)

    @property
    def ids(self) -> torch.Tensor:
        return torch.tensor(self.task.clean["input_ids"], device=self.device)

    @cached_property
    def mm(self) -> float:
        """torch.mm's multiply-adds a second at the shapes of an MLP."""
        return shapes.rate(self.sizes.batch * self.sizes.length, self.sizes.width, self.sizes.hidden, self.device)

    @cached_property
    def limit(self) -> float:
        """torch.mm's multiply-adds a second for large square matrices."""
        side = 8192 if self.device != "cpu" else 2048
        return shapes.rate(side, side, side, self.device)

    def some(self, *names: str) -> list[Tool]:
        return [tool for name, tool in self.tools.items() if name in names]

    def own(self, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.modules["gpt2"](ids, use_cache=False).logits

    def metric(self, logits: torch.Tensor) -> np.ndarray:
        last = logits[:, -1].cpu()
        rows = torch.arange(len(last))
        return (last[rows, torch.tensor(self.task.answers)] - last[rows, torch.tensor(self.task.wrong)]).numpy()


def lines_of(found: Answers, cells: int, of: Mapping[str, int] | None = None) -> list[Line]:
    """Return a line for each tool: the median of its cells times all there are; `of` says of tools that do several cells at once."""
    made: list[Line] = []
    for who, taken in found.wall.items():
        each = (of or {}).get(who, 1)
        wall, processor = (value * cells / each for value in found.medians(who))
        made.append(Line(who, wall, processor, f"from {len(taken) * each} of {cells} cells" if cells > 1 else f"median of {len(taken)}"))  # fmt: skip
    return made


def remarks(found: Answers) -> list[str]:
    """Return how far answers were apart, and what was refused."""
    said = [f"same answers, to {found.furthest:.0e}; patches move the metric by up to {found.effect:.1e}"] if found.wall else []  # fmt: skip
    return said + [f"{who}: {why}" for who, why in found.refused.items() if why]


def by_turns(bench: Bench, works: Mapping[str, Callable[[], Any]], tools: Sequence[Tool], request: Mapping[str, Any]) -> list[Line]:  # fmt: skip
    """Return lines for works of this process and for tools, one after another again and again; the tools every second turn."""
    taken: dict[str, list[tuple[float, float]]] = {who: [] for who in [*works, *(tool.title for tool in tools)]}
    for turn in range(bench.turns):
        for who, work in works.items():
            _, wall, processor = timed(work, bench.device)
            taken[who].append((wall, processor))
        for tool in tools if turn % 2 == 0 else ():
            found = tool.ask(request)
            taken[tool.title].append((found["wall"], found["processor"]))
    return [
        Line(who, statistics.median(t[0] for t in each), statistics.median(t[1] for t in each), f"median of {len(each)}")
        for who, each in taken.items()
    ]  # fmt: skip


def plain(bench: Bench) -> Row:
    """A plain run against the module's own eager forward."""
    ids = bench.ids
    expected = bench.metric(bench.own(ids))
    for fused in (False, True):
        far = float(np.abs(bench.metric(sj.run(bench.model, ids, fused=fused).logits) - expected).max())
        if not far < FAR:
            raise SystemExit(f"Scrubjay and the module differ by {far:.1e} on a plain run: no time is worth printing")
    tools = bench.some("hooks", "transformer_lens", "hooked_transformer", "nnsight", "pyvene", "rust_circuit")
    request = {"what": "plain", "family": "gpt2", "length": bench.sizes.length}
    found = asked(tools, [request], lambda _: expected, np.zeros_like(expected))
    works = {
        OWN: lambda: bench.own(ids),
        OURS: lambda: sj.run(bench.model, ids).logits,
        f"{OURS}, fused": lambda: sj.run(bench.model, ids, fused=True).logits,
    }
    lines = by_turns(bench, works, [tool for tool in tools if tool.title in found.wall], request)
    row = Row("plain", "plain run", lines, OWN, notes=remarks(found))
    best = min(row.ratio(OURS), row.ratio(f"{OURS}, fused"))
    row.goal(f"at most 1.0 times the module's own forward: {row.ratio(OURS):.2f}, fused {row.ratio(f'{OURS}, fused'):.2f}", best <= 1.0)  # fmt: skip
    return row


def keep(bench: Bench) -> Row:
    """A run that keeps all the values of every layer, and the bytes it holds."""
    from keeping import kept_alike, planned_bytes  # noqa: PLC0415

    ids = bench.ids
    made = sj.run(bench.model, ids, keep=SITES, fused=True)
    held = sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in (v.as_tensor() for v in made.values.values())}.values())  # fmt: skip
    needed, planned = shapes.kept_bytes(bench.sizes), planned_bytes(bench.model, SITES, ids)
    tools = bench.some("hooks", "transformer_lens", "hooked_transformer", "nnsight")
    request = {"what": "keep", "length": bench.sizes.length, "sites": KEPT, "layers": [0, bench.sizes.layers - 1]}
    notes = kept_alike(made, tools, request)
    del made
    works = {
        OWN: lambda: bench.own(ids),
        OURS: lambda: sj.run(bench.model, ids, keep=SITES),
        f"{OURS}, fused": lambda: sj.run(bench.model, ids, keep=SITES, fused=True),
    }
    row = Row("keep", f"run that keeps {len(KEPT)} kinds of values of all layers", by_turns(bench, works, tools, request), OWN, notes=notes)  # fmt: skip
    best = min(row.ratio(OURS), row.ratio(f"{OURS}, fused"))
    row.goal(f"at most 1.15 times the module's own forward: {best:.2f}", best <= 1.15)
    row.notes.append(f"bytes: {held / 1e6:.0f} MB held, {planned / 1e6:.0f} MB planned, {needed / 1e6:.0f} MB from the sizes alone, each value once")  # fmt: skip
    row.goal(f"bytes as planned within 5%: {held / planned - 1:+.1%}", abs(held / planned - 1) <= 0.05)
    row.goal(f"nothing is stored twice: {held / needed - 1:+.1%} of what the sizes ask for", held <= needed * 1.05)
    return row


def reached(bench: Bench, row: Row, work: float, counts: Mapping[str, int] | None, goal: bool = True) -> None:
    """Note how much of the ideal a row reached, and what fraction of the machine's limit."""
    ideal = work / bench.mm
    part = ideal / row.of(OURS)
    text = f"{part:.0%} of the ideal {ideal:.3g} s: {work:.3g} multiply-adds at {2 * bench.mm / 1e9:.0f} GFLOP/s"
    if goal:
        row.goal(f"at least 80% of the ideal: {text}", part >= 0.8)
    else:
        row.notes.append(text)
    if counts is not None:
        done = counts["multiply_adds"] + counts["plain_multiply_adds"]
        row.notes.append(f"{done / work:.2f} times the needed multiply-adds were done; {done / row.of(OURS) / bench.limit:.0%} of torch.mm's best, {2 * bench.limit / 1e9:.0f} GFLOP/s")  # fmt: skip


def resid(bench: Bench) -> Row:
    """The sweep of resid_pre over layers and positions."""
    sizes, model = bench.sizes, bench.model
    found, wall, processor = timed(lambda: sj.sweep(model, bench.task, "L*.resid_pre", positions="each"), bench.device)
    places = sorted({0, sizes.layers // 3, 2 * sizes.layers // 3, sizes.layers - 1})
    cells = [(layer, at) for layer in places for at in (sizes.length // 16, sizes.length // 2, sizes.length - 4)]
    requests = [{"what": "resid", "family": "gpt2", "length": sizes.length, "layer": layer, "position": at} for layer, at in cells]  # fmt: skip
    tools = bench.some("hooks", "transformer_lens", "hooked_transformer", "nnsight", "pyvene", "rust_circuit")
    most = {"rust_circuit": 3, "pyvene": 6}
    there = asked(tools, requests, lambda one: found.values[one["layer"], one["position"]], found.start, most)
    whole = sizes.layers * sizes.length
    row = Row(
        "resid", f"resid_pre, {sizes.layers} layers x {sizes.length} positions",
        [Line(OURS, wall, processor, "whole"), *lines_of(there, whole)], OURS, notes=remarks(there),
    )  # fmt: skip
    if BRIDGE in there.wall:
        row.goal(f"at least 5 times faster than the Bridge's helper: {row.ratio(BRIDGE):.1f}", row.ratio(BRIDGE) >= 5)
    reached(bench, row, shapes.resid_work(sizes), found.counts)
    return row


def heads(bench: Bench) -> Row:
    """All heads' z at all positions."""
    sizes, model = bench.sizes, bench.model
    found, wall, processor = timed(lambda: sj.sweep(model, bench.task, "L*.H*.z"), bench.device)
    values = found.values.reshape(sizes.layers, sizes.heads, -1)
    places = sorted({0, sizes.layers // 3, 2 * sizes.layers // 3, sizes.layers - 1})
    requests = [
        {"what": "z", "family": "gpt2", "length": sizes.length, "layer": layer, "head": head}
        for layer in places
        for head in (1, sizes.heads // 2 + 1)
    ]
    tools = bench.some("hooks", "transformer_lens", "hooked_transformer", "nnsight", "pyvene", "rust_circuit")
    there = asked(tools, requests, lambda one: values[one["layer"], one["head"]], found.start, {"rust_circuit": 3, "pyvene": 5})  # fmt: skip
    whole = sizes.layers * sizes.heads
    lines = [Line(OURS, wall, processor, "whole"), *lines_of(there, whole)]
    row = Row("heads", f"z of {whole} heads, all positions at once", lines, OURS, notes=remarks(there))
    if BRIDGE in there.wall:
        row.goal(f"at least 3 times faster than the Bridge's helper: {row.ratio(BRIDGE):.1f}", row.ratio(BRIDGE) >= 3)
    reached(bench, row, shapes.head_work(sizes), found.counts)
    return row


def final(bench: Bench) -> Row:
    """Every head to the final stream."""
    sizes, ids, model = bench.sizes, bench.ids, bench.model
    end = f"L{sizes.layers - 1}.resid_post"
    forward = statistics.median(timed(lambda: bench.own(ids), bench.device)[1] for _ in range(5))
    lines: list[Line] = []
    made: dict[str, sj.Effects] = {}
    for mlps, held in (("freeze", "held"), ("recompute", "recomputed")):
        made[mlps], wall, processor = timed(
            lambda mlps=mlps: sj.path_patch(model, bench.task, "L*.H*.out", end, "denoise", mlps), bench.device
        )
        lines.append(Line(f"{OURS}, MLPs {held}", wall, processor, "whole"))
    values = made["recompute"].values.reshape(sizes.layers, sizes.heads, -1)
    picked = sorted({0, sizes.layers // 2, sizes.layers - 1})
    requests = [{"what": "final", "family": "gpt2", "length": sizes.length, "layer": layer, "head": 1} for layer in picked]  # fmt: skip
    there = asked(bench.some("hooks"), requests, lambda one: values[one["layer"], one["head"]], made["recompute"].start)
    whole = sizes.layers * sizes.heads
    row = Row(
        "final", f"{whole} heads to the final stream", [*lines, *lines_of(there, whole)], lines[0].who, notes=remarks(there)
    )  # fmt: skip
    row.notes.append("beside hooks that recompute MLPs, as no tool has a helper; two plain runs are in each time")
    row.notes.append(f"{lines[1].seconds / forward:.1f} forwards with MLPs recomputed between")
    work = {name: one.counts["multiply_adds"] + one.counts["plain_multiply_adds"] for name, one in made.items()}
    one = shapes.forward_work(sizes)
    row.goal(f"at most 3 forwards in all, MLPs held: {lines[0].seconds / forward:.1f} by the clock, {work['freeze'] / one:.1f} by multiply-adds", lines[0].seconds <= 3 * forward)  # fmt: skip
    return row


def harvest(bench: Bench) -> Row:
    """Streaming activations to disk against the plain forward over the same rows."""
    sizes = bench.sizes
    draw = np.random.default_rng(1)
    ids = torch.tensor(draw.integers(0, sizes.vocabulary, (sizes.harvest, sizes.length)), device=bench.device)
    batches = ids.split(sizes.batch)
    body = bench.modules["gpt2"].transformer
    sizes_of: list[int] = []

    def harvested() -> None:
        with tempfile.TemporaryDirectory() as folder:
            made = sj.harvest(bench.model, ids, keep=["L*.resid_post"], to=folder, batch=sizes.batch)
            sizes_of.append(made.tokens * sizes.layers * sizes.width * 4)

    def streams() -> None:
        with torch.no_grad():
            for each in batches:
                body(each, use_cache=False)

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        made = sj.harvest(bench.model, batches[0], keep=["L*.resid_post"], to=folder, batch=sizes.batch)
        last = made[f"L{sizes.layers - 2}.resid_post"].as_tensor()
        own = body(batches[0], use_cache=False, output_hidden_states=True).hidden_states[-2].flatten(0, 1).cpu()
        far = float((last - own).abs().max())
        if not far < FAR * max(1.0, float(own.abs().max())):
            raise SystemExit(f"what was harvested differs by {far:.1e} from the module's: no time is worth printing")
    few = Bench(sizes, bench.device, bench.threads, 3, bench.tools, bench.modules)
    works = {OWN: lambda: [bench.own(each) for each in batches], "its layers alone": streams, f"{OURS}, harvest": harvested}  # fmt: skip
    row = Row(
        "harvest", f"resid_post of all layers of {sizes.harvest} rows, to disk", by_turns(few, works, (), {}), OWN
    )
    row.notes.append(f"{sizes_of[-1] / 1e6:.0f} MB written, with a digest of each file; nothing is unembedded; same values as the module's, to {far:.0e}")  # fmt: skip
    row.goal(f"at the speed of the forward: {row.ratio(f'{OURS}, harvest'):.2f}", row.ratio(f"{OURS}, harvest") <= 1.05)
    return row
