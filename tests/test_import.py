"""Importing is cheap and has no effect: what is heavy is loaded when a verb first needs it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import scrubjay

HEAVY = {"torch", "transformers", "tokenizers", "huggingface_hub", "safetensors"}


def modules_after(statement: str) -> set[str]:
    """Names of the top-level modules that are loaded in a fresh interpreter after a statement."""
    script = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(name.partition('.')[0] for name in sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("module", ["scrubjay", "scrubjay.errors"])
def test_import_is_light(module: str) -> None:
    assert modules_after(f"import {module}") & HEAVY == set()


def test_listing_the_public_names_is_light() -> None:
    assert modules_after("import scrubjay; dir(scrubjay); repr(scrubjay)") & HEAVY == set()


def test_language_knows_no_array_library() -> None:
    assert modules_after("import scrubjay.circuit") & (HEAVY | {"numpy"}) == set()


@pytest.mark.parametrize("name", getattr(scrubjay, "__all__", ()))
def test_public_name_resolves(name: str) -> None:
    assert getattr(scrubjay, name) is not None


def test_public_names_are_listed() -> None:
    assert len(set(scrubjay.__all__)) == len(scrubjay.__all__)
    assert set(scrubjay.__all__) <= set(dir(scrubjay))


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_verb"):
        getattr(scrubjay, "no_such_verb")  # noqa: B009
