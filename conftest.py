"""Pytest for the whole repository: the python blocks of every Markdown page are run as tests.

Blocks of one page share their names and run in order, in an empty folder of their own, so a page may write files.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, chdir
from tempfile import TemporaryDirectory
from typing import Any

import torch
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

# No test reaches for a network unless it says so: `HF_HUB_OFFLINE=0 pytest -m net`.
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _enter_empty_folder(namespace: dict[str, Any]) -> None:
    # The same random weights on every run; DOCS_SEED=1 pytest docs draws others, on which every page must hold as well.
    torch.manual_seed(int(os.environ.get("DOCS_SEED", "0")))
    stack = ExitStack()
    stack.enter_context(chdir(stack.enter_context(TemporaryDirectory())))
    namespace["_stack"] = stack


def _leave_folder(namespace: dict[str, Any]) -> None:
    namespace["_stack"].close()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["*.md"],
    setup=_enter_empty_folder,
    teardown=_leave_folder,
).pytest()
