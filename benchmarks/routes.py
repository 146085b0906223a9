"""The rows on paths and edges, and on memory: receivers are drawn by a seed, each measured by itself, and carried over to all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapes
import torch
from rows import BRIDGE, OURS, Bench, lines_of, reached, remarks
from table import Line, Row
from tools import TITLES, asked

import scrubjay as sj

HERE = Path(__file__).parent


class Laps:
    """The seconds between reports of progress, of the clock and of the processor."""

    def __init__(self) -> None:
        self.begun = (time.perf_counter(), time.process_time())
        self.laps: list[tuple[float, float]] = []

    def __call__(self, _done: int, _total: int) -> None:
        now = (time.perf_counter(), time.process_time())
        self.laps.append((now[0] - self.begun[0], now[1] - self.begun[1]))
        self.begun = now


def carried(layers: Sequence[int], each: Sequence[float], many: Callable[[int], int], wanted: range) -> float:
    """Return the seconds of all layers, `many(layer)` cells each, from the seconds of a cell in some: a line through those."""
    slope, start = np.polyfit(layers, each, 1) if len(layers) > 1 else (0.0, each[0])
    return float(sum(many(layer) * max(start + slope * layer, 0.1 * min(each)) for layer in wanted))


def from_heads(bench: Bench, model: sj.Model, part: str) -> tuple[Line, Mapping[str, int]]:
    """Return Scrubjay's time for every pair of a head and a later head, from all pairs of one drawn receiver in some layers."""
    sizes, draw, laps = bench.sizes, np.random.default_rng(0), Laps()
    picked = sorted({1, sizes.layers // 2, sizes.layers - 1})
    receivers = [f"L{layer}.H{draw.integers(sizes.heads)}.{part}_in" for layer in picked]
    made = sj.path_patch(model, bench.task, "L*.H*.out", receivers, "denoise", "freeze", progress=laps)
    many = sizes.heads * np.array(picked)
    totals: list[float] = []
    for clock in (0, 1):
        taken = np.array([lap[clock] for lap in laps.laps])
        later = taken[1:] / many[1:] if len(picked) > 1 else taken / many
        rest = max(0.0, taken[0] - many[0] * later[0])  # the plain runs, once
        totals.append(rest + carried(picked[-len(later) :], later, lambda layer: sizes.heads**2 * layer, range(1, sizes.layers)))  # fmt: skip
    pairs = sum(sizes.heads**2 * layer for layer in range(sizes.layers))
    return Line(OURS, totals[0], totals[1], f"from {int(many.sum())} of {pairs} pairs"), made.counts


def path(bench: Bench, part: str, family: str = "gpt2") -> Row:
    """One sender to the queries, keys or values of every later head, all senders."""
    sizes, model = bench.sizes, bench.model if family == "gpt2" else bench.grouped
    ours, _ = from_heads(bench, model, part)
    last, sender = sizes.layers - 1, [sizes.layers - 2, 1]
    made = sj.path_patch(model, bench.task, f"L{sender[0]}.H{sender[1]}.out", f"L{last}.H*.{part}_in", "denoise", "freeze")  # fmt: skip
    receivers = [0, sizes.heads - 1]
    request = {"what": "path", "family": family, "length": sizes.length, "sender": sender, "receivers": [last, receivers], "part": part}  # fmt: skip
    there = asked(bench.some("hooks", "transformer_lens"), [request], lambda _: made.values[0, receivers], made.start)
    pairs = sum(sizes.heads**2 * layer for layer in range(sizes.layers))
    lines = lines_of(there, pairs, {TITLES["hooks"]: len(receivers), BRIDGE: sizes.heads})
    what = "" if family == "gpt2" else f", llama with {sizes.groups} key heads"
    name = {"q": "queries", "k": "keys", "v": "values"}[part]
    row = Row(f"path {part}" if family == "gpt2" else f"grouped {part}", f"each head to each later head's {name}, {pairs:,} pairs{what}", [ours, *lines], OURS, notes=remarks(there))  # fmt: skip
    row.notes.append(f"{ours.seconds / pairs * 1e3:.0f} ms a pair")
    if BRIDGE in there.wall:
        row.goal(f"at least 8 times faster than the Bridge's helper: {row.ratio(BRIDGE):.1f}", row.ratio(BRIDGE) >= 8)
    if family == "gpt2" and part == "q":
        reached(bench, row, shapes.path_work(sizes), None, goal=False)
    return row


def edges(bench: Bench, *, whole: bool = False) -> Row:
    """Every edge of the residual graph by itself, in seconds of one thread of the processor."""
    sizes, threads = bench.sizes, torch.get_num_threads()
    task = shapes.pairs(sizes, sizes.edge_length, sizes.shared)
    senders = ["L0.resid_pre", "L*.H*.out", "L*.mlp.out"]
    picked = sorted({max(1, at) for at in (sizes.layers // 6, sizes.layers // 2, sizes.layers - 2)})
    receivers = [f"L{layer}.H{(5 * layer + 1) % sizes.heads}.{part}_in" for layer in picked for part in "qkv"]
    receivers += [f"L{layer}.mlp.in" for layer in picked] + [f"L{sizes.layers - 1}.resid_post"]
    laps = Laps()
    torch.set_num_threads(1)
    try:
        # The first lap has the plain runs, and a receiver with few edges.
        made = sj.path_patch(bench.model, task, senders, ["L0.mlp.in", *receivers], "noise", "freeze", progress=laps)
        total, count = all_edges(sizes), np.isfinite(made.values[:, 1:, 0]).sum(0)
        seconds = [spread(sizes, picked, [lap[clock] for lap in laps.laps], count) for clock in (0, 1)]
        line = Line(OURS, seconds[0], seconds[1], f"from {int(count.sum())} of {total:,} edges")
        if whole:
            begun = (time.perf_counter(), time.process_time())
            complete = sj.edge_patch(bench.model, task, "noise")
            line = Line(OURS, time.perf_counter() - begun[0], time.process_time() - begun[1], f"whole: {len(complete.labels['edge']):,} edges")  # fmt: skip
        there = others(bench, made, receivers)
        counted(bench, total)
    finally:
        torch.set_num_threads(threads)
    row = Row("edges", f"all {total:,} edges, {sizes.edge_length} tokens", [line, *lines_of(there, total)], OURS, "processor" if bench.device == "cpu" else "seconds", remarks(there))  # fmt: skip
    row.goal(f"at most 20 minutes: {row.of(OURS) / 60:.1f}", row.of(OURS) <= 1200)
    if TITLES["auto_circuit"] in there.wall:
        ratio = row.ratio(TITLES["auto_circuit"])
        row.goal(f"at least 75 times auto-circuit's rate: {ratio:.0f}", ratio >= 75)
    return row


def all_edges(sizes: shapes.Sizes) -> int:
    """Return how many edges there are: the embeddings as one source, no biases."""
    each = sizes.heads + 1
    read = sum(3 * sizes.heads * (1 + each * layer) + (1 + each * layer + sizes.heads) for layer in range(sizes.layers))
    return read + 1 + each * sizes.layers


def counted(bench: Bench, total: int) -> None:
    """Stop where auto-circuit has another number of edges."""
    for tool in bench.some("auto_circuit"):
        theirs = tool.ask({"what": "count"})["metric"][0]
        if theirs != total:
            raise SystemExit(f"{tool.title} has {theirs:.0f} edges and Scrubjay {total}: no time is worth printing")


def spread(sizes: shapes.Sizes, picked: Sequence[int], laps: Sequence[float], count: np.ndarray) -> float:
    """Return the seconds of all edges from those of some receivers; the first lap has the plain runs and one small receiver."""
    each = np.array(laps[1:]) / count
    heads = each[: 3 * len(picked)].reshape(len(picked), 3).mean(1)
    mlps, end = each[3 * len(picked) : -1], each[-1]
    per = sizes.heads + 1
    total = carried(picked, heads, lambda layer: 3 * sizes.heads * (1 + per * layer), range(sizes.layers))
    total += carried(picked, mlps, lambda layer: 1 + per * layer + sizes.heads, range(sizes.layers))
    return float(total + end * (1 + per * sizes.layers) + laps[0])


def others(bench: Bench, made: sj.Effects, receivers: Sequence[str]) -> Any:
    """Ask other tools for some of the edges that were measured, drawn by a seed."""
    names, ends = list(made.labels["sender"]), list(made.labels["receiver"])
    draw = np.random.default_rng(0)
    cells: list[tuple[str, str]] = []
    for receiver in (receivers[0], receivers[4], receivers[-2], receivers[-1], receivers[-3]):
        there = np.flatnonzero(np.isfinite(made.values[:, ends.index(receiver), 0]))
        cells.append((names[draw.choice(there)], receiver))
    requests = [
        {"what": "edge", "length": bench.sizes.edge_length, "threads": 1, "edge": ["embed" if one == "L0.resid_pre" else one, two]}
        for one, two in cells
    ]  # fmt: skip

    def ours(one: Mapping[str, Any]) -> np.ndarray:
        sender, receiver = one["edge"]
        return made.values[names.index("L0.resid_pre" if sender == "embed" else sender), ends.index(receiver)]

    return asked(bench.some("auto_circuit", "eap_ig"), requests, ours, made.start, {"eap_ig": 3})


def memory(bench: Bench) -> Row:
    """The most memory that experiments took beside weights, measured by the system, and the budget they were given."""
    sizes = "small" if bench.sizes == shapes.SMALL else "full"
    command = [sys.executable, str(HERE / "memory.py"), sizes, bench.device, str(bench.threads)]
    given = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=given)
    if done.returncode:
        raise SystemExit(f"memory.py ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    row = Row("memory", "most memory beside weights, in a process of its own", [], "")
    for one in found:
        row.notes.append(
            f"{one['what']:36} budget {one['budget'] / 1e6:8.1f} MB   counted {one['counted'] / 1e6:8.1f} MB   measured {one['measured'] / 1e6:8.1f} MB"
        )
    if bench.device == "cpu":
        row.notes.append(
            "the C library gives freed memory back at once here; by itself it keeps some tens of MB for later"
        )
    row.goal("counted: never above the budget", all(one["counted"] <= one["budget"] for one in found))
    row.goal("measured: never above the budget", all(one["measured"] <= one["budget"] for one in found))
    return row
