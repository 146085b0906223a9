"""Scrubjay beside other tools, one table: `make bench-peers`, or `python benchmarks/sweeps.py`.

GPT-2 small's shape with random weights from a seed, batch 8, 64 tokens, float32. Each tool runs in a process and an environment of its own
(`make .peers/NAME/.installed`; one that is missing is left out and named), on the same weights and inputs, one request at a time, by turns. Its
answers must be Scrubjay's before its time counts; the command stops where they are not.

Ratios are those of the clock and, beside them, of the processor. Scrubjay's sweeps are run whole; paths and edges for some receivers, and other
tools for some cells, carried over to all; each line says from how many. `ideal` is the multiply-adds that cannot be done without
(counted in `shapes.py` from the sizes) over torch.mm's rate at those shapes, in the same run.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROWS = ("plain", "keep", "resid", "heads", "final", "path", "grouped", "edges", "memory", "harvest")


def chosen() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--environments", type=Path, default=HERE.parent / ".peers")
    parser.add_argument("--without-peers", action="store_true", help="hooks only")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=15, help="of plain runs and runs that keep values")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument(
        "--edges", action="store_true", help="patch all 32,491 edges instead of some: half an hour more"
    )
    parser.add_argument("--small", action="store_true", help="two layers: to see that everything runs, not how fast")
    parser.add_argument("--json", type=Path, help="a file to write all numbers into")
    return parser.parse_args()


def functions(given: argparse.Namespace) -> dict[str, list[Callable[[Any], Any]]]:
    """Return what measures each row."""
    import routes  # noqa: PLC0415
    import rows  # noqa: PLC0415

    return {
        "plain": [rows.plain], "keep": [rows.keep], "resid": [rows.resid], "heads": [rows.heads], "final": [rows.final],
        "path": [lambda bench, part=part: routes.path(bench, part) for part in "qkv"],
        "grouped": [lambda bench, part=part: routes.path(bench, part, "llama") for part in "qk"],
        "edges": [lambda bench: routes.edges(bench, whole=given.edges)], "memory": [routes.memory], "harvest": [rows.harvest],
    }  # fmt: skip


def tools_of(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the tools whose environments are there, and name the others."""
    from tools import TITLES, Tool  # noqa: PLC0415

    made = {name: Tool(name, given.environments, folder, given.threads, given.device) for name in TITLES}
    if given.without_peers:
        return {"hooks": made["hooks"]}
    for tool in made.values():
        if not tool.python.exists():
            print(f"left out: {tool.title}, no {tool.python}: make .peers/{tool.python.parts[-3]}/.installed")
    return {name: tool for name, tool in made.items() if tool.python.exists()}


def measured(given: argparse.Namespace, folder: Path) -> list[Any]:
    """Measure and print the rows."""
    import shapes  # noqa: PLC0415
    from rows import Bench  # noqa: PLC0415
    from tools import ROWS_OF  # noqa: PLC0415

    sizes = shapes.SMALL if given.small else shapes.Sizes()
    modules = {"gpt2": shapes.gpt2(sizes, given.device)}
    if "grouped" in given.only:
        modules["llama"] = shapes.llama(sizes, given.device)
    shapes.handed(folder, sizes, modules)
    tools = tools_of(given, folder)
    bench = Bench(sizes, given.device, given.threads, 3 if given.small else given.turns, tools, modules)
    found: list[Any] = []
    try:
        for number, name in enumerate(given.only):
            for measure in functions(given)[name]:
                begun = time.perf_counter()
                found.append(measure(bench))
                took = f"row took {time.perf_counter() - begun:.0f} s, load {os.getloadavg()[0]:.1f}"
                print(f"\n{found[-1]}\n  ({took})", flush=True)
            for tool in tools.values():
                if not set(ROWS_OF[tool.name]) & set(given.only[number + 1 :]):
                    tool.finished()
        peaks = ", ".join(f"{tool.title} {tool.peak / 1e9:.1f}" for tool in tools.values() if tool.peak)
        print(f"\nmost memory of each tool's process, GB: {peaks}")
    finally:
        for tool in tools.values():
            tool.closed()
    return found


def main() -> None:
    given = chosen()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)  # before torch is imported
    import torch  # noqa: PLC0415
    from table import machine  # noqa: PLC0415

    torch.set_num_threads(given.threads)
    before = machine(given.threads, given.device)
    print("\n".join(f"{name}: {value}" for name, value in before.items()))
    print(
        "columns: seconds for all cells, times the row's base by the clock (edges: by the processor), and by the other"
    )
    with tempfile.TemporaryDirectory() as temporary:
        found = measured(given, Path(temporary))
    after = [round(one, 2) for one in os.getloadavg()]
    print(f"load of the machine: {before['load']} before, {after} after")
    missed = [text for row in found for text, met in row.goals if not met]
    print(f"goals met: {sum(len(row.goals) for row in found) - len(missed)}, missed: {len(missed)}")
    if given.json:
        facts = {"date": dt.datetime.now(tz=dt.UTC).date().isoformat(), "machine": before, "load_after": after}
        facts |= {"small": given.small, "rows": [row.to_dict() for row in found]}
        given.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
