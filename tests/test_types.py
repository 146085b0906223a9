"""The type checker checks the constructors of nodes: see `typing_errors.py`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("typing_errors.py")
EXPECTED = re.compile(r"  # pyright: ignore\[(\w+)\]")


def diagnostics(path: Path) -> list[tuple[int, str]]:
    """The line and the rule of everything pyright says about a file."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(path)]
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    said = json.loads(done.stdout[done.stdout.index("{") :])["generalDiagnostics"]
    return sorted((each["range"]["start"]["line"] + 1, each["rule"]) for each in said if each["severity"] == "error")


def test_deliberate_errors_are_found(tmp_path: Path) -> None:
    lines = SOURCE.read_text(encoding="utf-8").splitlines()
    expected = [(i, rule) for i, line in enumerate(lines, start=1) for rule in EXPECTED.findall(line)]
    bare = tmp_path / "bare.py"
    bare.write_text("\n".join(EXPECTED.sub("", line) for line in lines), encoding="utf-8")
    assert len(expected) >= 10
    assert diagnostics(bare) == expected


def test_no_comment_is_idle() -> None:
    assert diagnostics(SOURCE) == []
