"""The comparison with other tools: how differences are judged, and that the kept results are whole."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

PEERS = Path(__file__).parents[1] / "benchmarks" / "peers"


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("peers_models", PEERS / "models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_difference_is_the_largest_at_real_tokens(peers: ModuleType) -> None:
    own = torch.zeros(2, 3, 5)
    theirs = own.clone()
    theirs[0, 0, 1], theirs[1, 2, 4] = 7.0, 0.5
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    assert peers.difference(own, theirs) == 7.0
    assert peers.difference(own, theirs, mask) == 0.5
    assert peers.difference(own, own) == 0.0


def test_what_cannot_be_compared_is_not_called_equal(peers: ModuleType) -> None:
    own = torch.zeros(2, 3)
    assert peers.difference(own, torch.zeros(3, 2)) == math.inf
    assert peers.difference(own, torch.full((2, 3), math.nan)) == math.inf
    both = torch.tensor([[math.nan, math.inf, 1.0]])
    assert peers.difference(both, both) == 0.0


@pytest.mark.parametrize(
    ("found", "said"),
    [(0.0, "exact"), (3.6e-6, "4e-6"), (9.9e-4, "1e-3"), (0.02, "differs: 2e-2"), (2.28, "differs: 2.3")],
)
def test_verdict(peers: ModuleType, found: float, said: str) -> None:
    assert peers.verdict(found, deviation=1.0) == said


def test_rows_that_were_not_run_again_stay(peers: ModuleType) -> None:
    old = {"versions": {"nnsight": {"torch": "1"}}, "families": {"gpt2": {"nnsight": 1}, "bert": {"nnsight": 2}}}
    new = {"versions": {"pyvene": {"torch": "1"}}, "families": {"gpt2": {"pyvene": 3}}}
    both = peers.merged(old, new)
    assert both["families"] == {"bert": {"nnsight": 2}, "gpt2": {"nnsight": 1, "pyvene": 3}}
    assert set(both["versions"]) == {"nnsight", "pyvene"}


def test_rows_of_different_versions_do_not_mix(peers: ModuleType) -> None:
    old = {"versions": {"nnsight": {"torch": "1"}}, "families": {"bert": {"nnsight": 2}}}
    new = {"versions": {"nnsight": {"torch": "2"}}, "families": {"gpt2": {"nnsight": 3}}}
    with pytest.raises(ValueError, match="rows of both do not mix"):
        peers.merged(old, new)


def test_the_kept_results_have_a_verdict_for_every_family_and_peer(peers: ModuleType) -> None:
    text = (PEERS / "results" / "models.json").read_text(encoding="utf-8")
    results: dict[str, Any] = json.loads(text)
    assert peers.dumped(results) == text
    for family, rows in results["families"].items():
        assert set(rows) == set(peers.VARIANTS), family
        assert all(row["verdict"] for row in rows.values()), family
    pinned = {peer: (PEERS / peer / "requirements.txt").read_text(encoding="utf-8") for peer in peers.PEERS}
    for peer, found in pinned.items():
        for name, version in results["versions"][peer].items():
            assert name == "python" or f"{name}=={version.removesuffix('+cpu')}\n" in found, (peer, name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A family's folder in which one peer adds a constant to the logits, has the stream, and misses z."""
    draw = torch.Generator().manual_seed(0)
    own = {"logits": torch.randn(2, 3, 5, generator=draw), "resid": torch.randn(2, 3, 4, generator=draw)}
    own |= {"pattern": torch.rand(2, 2, 3, 3, generator=draw), "z": torch.randn(2, 3, 4, generator=draw)}
    ids = {"input_ids": torch.ones(2, 3, dtype=torch.long)}
    moved = {"plain": own["logits"] + 2, "resid": own["resid"], "pattern": own["pattern"] * 2}
    report = {"way": "load", "named": True, "failed": {}, "errors": {"padded": "ValueError: no", "z": "KeyError: z"}}
    for name in ("plain", "padded"):
        save_file(ids, tmp_path / f"{name}.safetensors")
        save_file(own if name == "plain" else {"logits": own["logits"]}, tmp_path / f"{name}.own")
    for variant in ("pyvene", "transformer_lens_compatibility"):
        save_file(moved, tmp_path / f"{variant}.safetensors")
        (tmp_path / f"{variant}.json").write_text(json.dumps(report), encoding="utf-8")
    return tmp_path


def test_a_row_says_what_differs_and_what_is_missing(peers: ModuleType, folder: Path) -> None:
    row = peers.compared("pyvene", folder)
    assert row["verdict"] == "differs: 2"
    assert row["padded_verdict"] == "fails: ValueError: no"
    assert row["sites"]["resid"] == "yes"
    assert row["sites"]["pattern"].startswith("differs")
    assert row["sites"]["z"] == "no"
    assert row["errors"] == {"z": "KeyError: z"}
    own = load_file(folder / "plain.own")
    save_file({"logits": own["logits"]}, folder / "plain.own")
    assert peers.compared("pyvene", folder)["sites"] == {"resid": "unchecked", "pattern": "unchecked", "z": "absent"}


def test_processed_weights_are_compared_by_log_probabilities(peers: ModuleType, folder: Path) -> None:
    row = peers.compared("transformer_lens_compatibility", folder)
    assert row["plain"] < 1e-5
    assert row["sites"]["resid"] == "unchecked"
    assert row["sites"]["pattern"].startswith("differs")


def test_a_peer_that_loads_nothing_fails_in_its_own_words(peers: ModuleType, folder: Path) -> None:
    report = {"way": None, "failed": {"first": "OSError: a", "second": "KeyError: b"}, "errors": {}}
    (folder / "nnsight.json").write_text(json.dumps(report), encoding="utf-8")
    assert peers.compared("nnsight", folder)["verdict"] == "fails: KeyError: b"
