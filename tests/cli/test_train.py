"""`scrubjay train`: writes a model that reads back, goes on after an interruption, and says what it did."""

import dataclasses
import json
from types import MappingProxyType

import pytest
import torch
from click.testing import CliRunner

from scrubjay import zoo
from scrubjay.cli.train import command
from scrubjay.errors import LoadError

TINY = dataclasses.replace(
    zoo.RECIPES["brackets"],
    rows=300,
    held_out_rows=200,
    config=dataclasses.replace(zoo.RECIPES["brackets"].config, layers=1, d_model=8, d_head=4, d_mlp=8),
    settings=dataclasses.replace(zoo.RECIPES["brackets"].settings, steps=6, batch=8, warmup=1, report_every=2),
)


@pytest.fixture(autouse=True)
def tiny_recipe(monkeypatch):
    monkeypatch.setattr(zoo, "RECIPES", MappingProxyType({"brackets": TINY}))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(*arguments):
    result = CliRunner().invoke(command, ["brackets", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_it_writes_a_model_and_its_card(tmp_path):
    result = run("--out", tmp_path, "--json")
    card = json.loads(result.stdout)
    model, again = zoo.read("brackets", tmp_path)
    assert again == card
    assert model.config == TINY.config
    assert card["recipe"]["settings"]["steps"] == 6
    assert 0 < card["figures"]["rows"] < 200  # short strings of the held-out rows were met in training
    assert card["data"]["seed"] == 0
    assert card["held_out"]["seed"] == 1


def test_options_change_the_recipe(tmp_path):
    card = json.loads(run("--out", tmp_path, "--seed", 7, "--steps", 4, "--json").stdout)
    settings = card["recipe"]["settings"]
    assert (settings["seed"], settings["steps"], card["data"]["seed"]) == (7, 4, 7)


def test_it_says_how_good_the_model_is(tmp_path):
    result = run("--out", tmp_path)
    assert "of 1" in result.stdout
    assert "constant predictor loss: 0." in result.stdout
    assert "6/6" in result.stderr


def test_it_resumes(tmp_path):
    one = json.loads(run("--out", tmp_path, "--json").stdout)
    assert json.loads(run("--out", tmp_path, "--resume", "--json").stdout) == one
    with pytest.raises(LoadError, match="holds a run at step 6"):
        run("--out", tmp_path)


def test_unknown_recipe():
    result = CliRunner().invoke(command, ["bracket"])
    assert result.exit_code == 2
    assert "brackets" in result.output
