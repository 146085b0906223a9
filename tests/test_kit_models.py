"""The kit's models, rebuilt here, give the logits that their original code gave."""

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from scrubjay.tasks import brackets

# Tests are imported by path (importlib mode), so a neighbour is not importable by name.
SPEC = importlib.util.spec_from_file_location("kit_models", Path(__file__).with_name("kit_models.py"))
assert SPEC is not None
assert SPEC.loader is not None
kit_models = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(kit_models)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def inputs_of(folder):
    """The model's arguments for its recorded logits."""
    tokens = torch.tensor(json.loads((folder / "inputs.json").read_text())["tokens"])
    if "key_padding_mask" not in json.loads((folder / "config.json").read_text()):
        return (tokens,)
    return tokens, (tokens != brackets.PAD).long()


@pytest.mark.parametrize("name", kit_models.KIT_MODELS)
def test_logits_are_the_originals(kit, name):
    folder = kit / "models" / name
    expected = np.load(folder / "expected.npz")["logits"]
    with torch.no_grad():
        logits = kit_models.load_kit_model(folder)(*inputs_of(folder)).numpy()
    atol = 1e-4 + 2e-6 * np.abs(expected).max()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("name", kit_models.KIT_MODELS)
def test_float64_logits_are_the_independent_ones(kit, name):
    folder = kit / "models" / name
    expected = np.load(folder / "expected.npz")["logits_float64_independent"]
    with torch.no_grad():
        logits = kit_models.load_kit_model(folder).double()(*inputs_of(folder)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-8 * max(1.0, np.abs(expected).max()))


def test_paren_balance_on_redwoods_strings(kit):
    """All 100,000 strings: the model runs once on each different one, in batches of like lengths."""
    with (kit / "datasets" / "brackets_redwood.csv").open() as file:
        rows = [(row["string"], int(row["balanced"])) for row in csv.DictReader(file)]
    labels = dict(rows)
    strings = sorted(labels, key=len)
    model = kit_models.load_kit_model(kit / "models" / "paren_balance")
    differences = {}
    with torch.no_grad():
        for at in range(0, len(strings), 512):
            part = strings[at : at + 512]
            logits = model(*map(torch.from_numpy, brackets.encode(part)))[:, 0]
            differences.update(zip(part, (logits[:, 1] - logits[:, 0]).tolist(), strict=True))
    d = torch.tensor([differences[string] for string, _ in rows], dtype=torch.float64)
    balanced = torch.tensor([label for _, label in rows], dtype=torch.float64)
    assert int(((d > 0) != (balanced == 1)).sum()) == 13
    assert functional.binary_cross_entropy_with_logits(d, balanced).item() == pytest.approx(0.000657, abs=5e-7)
    assert len(rows) == 100_000


def test_bracket_labels_agree_with_ours(kit):
    with (kit / "datasets" / "brackets_redwood.csv").open() as file:
        rows = [(row["string"], int(row["balanced"])) for row in csv.DictReader(file)]
    strings, labels = zip(*rows, strict=True)
    data = brackets.dataset(strings, labels, name="redwood")
    assert data.labels.mean() == pytest.approx(0.26412)
