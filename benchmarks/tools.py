"""The other tools, each in a process and an environment of its own, asked one request at a time; their answers are checked first."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
TITLES = {
    "hooks": "Hugging Face and hooks", "transformer_lens": "TransformerLens Bridge", "hooked_transformer": "HookedTransformer", "nnsight": "nnsight",
    "pyvene": "pyvene", "rust_circuit": "rust_circuit", "auto_circuit": "auto-circuit", "eap_ig": "EAP-IG's way (written anew)",
}  # fmt: skip
SWEEPS = ("plain", "keep", "resid", "heads")
ROWS_OF = {
    "hooks": (*SWEEPS, "final", "path", "grouped"), "transformer_lens": (*SWEEPS, "path", "grouped"), "hooked_transformer": SWEEPS, "nnsight": SWEEPS,
    "pyvene": SWEEPS, "rust_circuit": SWEEPS, "auto_circuit": ("edges",), "eap_ig": ("edges",),
}  # fmt: skip
"""The rows that a tool is asked for; after the last of them its process is ended."""
ENVIRONMENTS = {"eap_ig": "auto_circuit"}
"""Where a tool does not have an environment of its own name. Hooks run in Scrubjay's."""
FAR, PART, ROUNDING = 1e-4, 1e-2, 5e-5
"""How far answers may differ: in units of the metric, and as a part of the largest effect among the cells that are compared, but for rounding."""


class Tool:
    """A tool in its own process; started when it is first asked."""

    def __init__(self, name: str, environments: Path, folder: Path, threads: int, device: str) -> None:
        own = environments / ENVIRONMENTS.get(name, name) / "bin" / "python"
        self.name, self.title, self.python = name, TITLES[name], Path(sys.executable) if name == "hooks" else own
        self.arguments = [name, str(folder), str(threads), device]
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[str] | None = None
        self.peak = 0.0

    def begun(self) -> subprocess.Popen[str]:
        given = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        given |= {"OMP_NUM_THREADS": self.arguments[2], "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        command = [str(self.python), "-P", str(HERE / "peers" / "serve.py"), *self.arguments]
        with self.log.open("w", encoding="utf-8") as log:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=given
            )

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a request; raise `SystemExit` with the end of its log where the process ends."""
        self.process = self.process or self.begun()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line.startswith("ANSWER "):
            last = "\n".join(self.log.read_text(encoding="utf-8").splitlines()[-12:])
            raise SystemExit(f"{self.title} stopped without an answer to {dict(request)}; the end of its log:\n{last}")
        return json.loads(line.removeprefix("ANSWER "))

    def finished(self) -> None:
        """Ask for the most memory the process took, and end it."""
        if self.process is not None:
            self.peak = self.ask({"what": "memory"})["peak"]
        self.closed()

    def closed(self) -> None:
        """End the process, where there is one; what its most memory was stays known."""
        if self.process is not None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait()
            self.process = None


@dataclass
class Answers:
    """What the tools gave for some cells: seconds of each, and the reasons of those that gave none."""

    wall: dict[str, list[float]] = field(default_factory=dict)
    processor: dict[str, list[float]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    furthest: float = 0.0
    effect: float = 0.0

    def medians(self, title: str) -> tuple[float, float]:
        return statistics.median(self.wall[title]), statistics.median(self.processor[title])


def check(who: str, request: Mapping[str, Any], found: Any, ours: Any, effect: float) -> float:
    """Return how far two answers are from each other; stop where that is more than rounding, or where the patch did nothing."""
    found, ours = np.array(found), np.array(ours)
    far = float(np.abs(found - ours).max()) if found.shape == ours.shape else float("inf")
    if effect < 10 * ROUNDING:
        raise SystemExit(
            f"{dict(request)}: patches move the metric by {effect:.1e} at most, too little to compare answers"
        )
    if not far < min(FAR, max(PART * effect, ROUNDING)):
        raise SystemExit(
            f"{who} and Scrubjay differ by {far:.1e} at {dict(request)}, where patches move the metric by up to {effect:.1e}: no time is worth printing"
        )
    return far


def asked(
    tools: Sequence[Tool], requests: Sequence[Mapping[str, Any]], ours: Callable[[Mapping[str, Any]], Any], base: Any,
    most: Mapping[str, int] | None = None,
) -> Answers:  # fmt: skip
    """Ask all tools for the same cells by turns, and check each answer against ours; `most` limits the cells of slow tools.

    A tool is asked for its first cell once more before, and that answer is not timed: it loads the model and runs what all patches need. `base`
    is the metric without a patch.
    """
    effect = max(float(np.abs(np.array(ours(one)) - np.array(base)).max()) for one in requests)
    made = Answers(effect=effect)
    for number, request in enumerate(requests):
        for tool in tools:
            if tool.title in made.refused or number >= (most or {}).get(tool.name, len(requests)):
                continue
            if tool.title not in made.wall:
                tool.ask({**request, "warm": True})
            found = tool.ask(request)
            if "metric" not in found:
                made.refused[tool.title] = found.get("refused", "")
                continue
            made.furthest = max(made.furthest, check(tool.title, request, found["metric"], ours(request), effect))
            made.wall.setdefault(tool.title, []).append(found["wall"])
            made.processor.setdefault(tool.title, []).append(found["processor"])
    return made
