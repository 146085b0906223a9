"""`scrubjay doctor`: what it prints of a model that is right, what of one that is not, and its exit codes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import families
import scrubjay as sj
from scrubjay.capture.check import checked
from scrubjay.capture.examine import examine
from scrubjay.capture.model import Model
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Map
from scrubjay.cli import doctor, group
from scrubjay.errors import InputError


def run(*arguments: object) -> Result:
    return CliRunner().invoke(group, ["doctor", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a small llama."""
    place = tmp_path_factory.mktemp("models") / "small"
    families.build("llama").save_pretrained(place)
    return place


def test_a_right_model(folder: Path) -> None:
    result = run(folder)
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert "2 layers of 4 heads" in text
    assert "4 query heads share 2 key-value heads" in text
    assert "every operation was understood" in text
    assert text.count("ok  ") == 9  # seven batches, causality, rows
    assert "FAIL" not in text
    assert "1 x 64" in text  # the longest row the model takes
    assert "causal: a position changes nothing before it" in text
    assert f"scrubjay load {folder}".split(" ", maxsplit=1)[0] in text
    named = [line for line in text.splitlines() if str(folder) not in line]
    assert max(map(len, named)) <= 100


def test_as_json(folder: Path) -> None:
    found = json.loads(run(folder, "--json").stdout)
    assert found["failed"] is False
    assert found["verdict"]["exact"] is True
    assert [case["name"] for case in found["cases"]][-1] == "the longest row"
    assert all(case["difference"] < 1e-5 for case in found["cases"])
    assert found["capture_seconds"] > 0
    assert ["L*", "biases", "no biases"] in found["traits"]


def _wrong(source: str) -> Model:
    model = sj.load(source)
    assert model.origin is not None
    changes: dict[Node, Node] = {
        node: Map("gelu", node.inputs) for node in model.circuit.nodes if isinstance(node, Map) and node.op == "silu"
    }
    original = replace(model.origin, circuit=model.circuit.rewrite(changes, "mutation"))
    return replace(model, circuit=original.circuit, origin=original, verdict=checked(original, model.anatomy))


def test_a_wrong_circuit_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = _wrong(str(folder))
    monkeypatch.setattr(doctor, "load", lambda *_, **__: wrong)
    result = run(folder)
    assert result.exit_code == 1
    assert "FAIL  rows padded at both ends" in result.stdout
    assert "FAIL  one position" in result.stdout
    assert "do not trust results of this model" in result.stdout
    assert json.loads(run(folder, "--json").stdout)["failed"] is True


def test_what_was_not_understood_is_counted_where_it_is() -> None:
    module = nn.Sequential(nn.Linear(4, 6), _Sorted(), nn.Linear(6, 2)).eval()
    model = sj.load(module, inputs={"input": torch.randn(3, 4)}, dynamic={"input": ("batch", None)}, cache=None)
    found = examine(model)
    assert not found.failed
    assert [(item.operator, item.count, item.module) for item in found.opaque] == [("aten.cummax.default", 1, "*")]
    text = click.unstyle("\n".join(doctor.told(model, "mine", found)))
    assert "no layers: values are addressed by module path" in text
    assert "1 x aten.cummax.default, on the way to *" in text
    assert "use module paths as addresses" in text
    assert "its length is fixed" in text
    assert "it reads no padding mask" in text


class _Sorted(nn.Module):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the greatest so far along the last dimension."""
        return torch.cummax(input, -1).values


def _told(kind: str) -> tuple[Model, list[str]]:
    model = sj.load(families.build(kind), cache=None)
    return model, click.unstyle("\n".join(doctor.told(model, "mine", examine(model)))).splitlines()


def test_the_site_to_look_at_is_one_of_the_models() -> None:
    model, lines = _told("mamba")
    (address,) = re.findall(r"model\.explain\('(.*?)'\)", " ".join(lines))
    assert address == "L0.mixer.out"
    assert "mixer" in str(model.explain(address))


def test_lengths_of_encoder_and_decoder_are_those_run() -> None:
    lines = _told("t5")[1]
    sizes = [line[34:45].strip() for line in lines if line.startswith("  ok  ") and " x " in line]
    assert sizes == ["3 x 10/11", "3 x 1/1", "1 x 10/7", "5 x 17/23", "4 x 11/13", "4 x 11/13", "1 x 512/512"]
    assert "  sizes are rows x the decoder's length/the encoder's length" in lines


def test_biases_are_told_of_the_projections_recognised(folder: Path) -> None:
    assert "no biases, of the projections recognised" in run(folder).stdout


def test_a_folder_that_is_not_there() -> None:
    result = run("no/such/folder/at all")
    assert result.exit_code == 2
    assert "no folder" in result.output


def test_a_model_without_its_module() -> None:
    model = replace(sj.load("zoo/brackets"), origin=None)
    with pytest.raises(InputError, match="not captured from a module"):
        examine(model)
