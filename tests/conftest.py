"""Fixtures and settings shared by the tests."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest
import torch

ROOT = Path(__file__).parents[1]

# A device that torch keeps for as long as a process lives; its tests have a process of their own.
collect_ignore = ["elsewhere.py"]

# Deterministic: a failing example fails again on the next run and on another machine. HYPOTHESIS_PROFILE=nightly looks wider.
hypothesis.settings.register_profile(
    "scrubjay", derandomize=True, deadline=None, database=None, print_blob=True, max_examples=50
)
hypothesis.settings.register_profile("nightly", deadline=None, print_blob=True, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "scrubjay"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start every test at the same draws, whatever ran before it in the same process."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def kit() -> Path:
    """Give the folder of reference models and data sets that is kept beside the repository."""
    place = Path(os.environ.get("SCRUBJAY_KIT", ROOT.parent / "shared" / "kit")).resolve()
    if not place.is_dir():
        pytest.skip(f"no reference kit at {place}: set SCRUBJAY_KIT to a folder that holds models/ and datasets/")
    return place
