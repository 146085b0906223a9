"""Weights and composition of trained models, beside the very tensors that TransformerLens stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kit_models import load_kit_model
from scrubjay.capture.model import Model
from scrubjay.matrices import composition, copying, weights
from small_models import load


def trained(folder: Path) -> Model:
    config = json.loads((folder / "config.json").read_text())
    names = ["input_ids", "attention_mask"] if "key_padding_mask" in config else ["input_ids"]
    ids = torch.ones(2, min(12, config["n_ctx"]), dtype=torch.long)
    inputs, dynamic = dict.fromkeys(names, ids), dict.fromkeys(names, ("batch", "query"))
    return load(load_kit_model(folder), inputs=inputs, dynamic=dynamic, name=folder.name)


@pytest.mark.parametrize("name", ["paren_balance", "palindromes_july23"])
def test_names_of_transformer_lens_give_its_own_tensors(kit: Path, name: str) -> None:
    model, stored = trained(kit / "models" / name), load_file(kit / "models" / name / "weights.safetensors")
    assert len(stored) > 20
    for text, wanted in stored.items():
        found = weights(model, text).as_tensor()
        assert found.shape == wanted.shape, text
        assert torch.equal(found, wanted), text


def test_the_induction_circuit_is_found_from_weights_alone(kit: Path) -> None:
    model = trained(kit / "models" / "induction_2l_infinite")
    pairs = composition(model).top(4, kind="K")
    assert [(pair.writer, pair.reader) for pair in pairs[:3]] == [("L0.H2", f"L1.H{head}") for head in (1, 2, 3)]
    assert all(pair.z > 15 for pair in pairs[:3])
    assert copying(model, "L1.H*").as_tensor().min() > 0.99
