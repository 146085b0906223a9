"""The check at load: what it finds of right and wrong circuits, where it is kept, and what refuses by it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import families
import scrubjay as sj
from scrubjay.capture import check, kept
from scrubjay.capture.check import Verdict, checked, compare, examples, verdict_of
from scrubjay.capture.examine import examine
from scrubjay.capture.model import Model
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Along, Map
from scrubjay.errors import CheckError
from small_models import VOCABULARY, batch, build, captured


@pytest.mark.parametrize(("kind", "causal"), [("gpt2", True), ("llama", True), ("bert", False)])
def test_a_right_circuit(kind: str, causal: bool) -> None:
    found = captured(kind)[1].verdict
    assert found is not None
    assert (found.exact, found.causal, found.rows_independent) == (True, causal, True)
    assert found.difference is not None
    assert found.difference < 1e-5
    assert found.counted == (("layers", 2, 2), ("heads", 4, 4))
    assert found.length == check.LENGTH
    assert not found.problems
    assert "equals the module" in str(found)


def _wrong(kind: str, change: Callable[[Node], Node | None]) -> Model:
    """Return a model whose circuit is changed, checked anew."""
    _, model = captured(kind)
    assert model.origin is not None
    changes = {node: new for node in model.circuit.nodes if (new := change(node)) is not None}
    assert changes
    circuit = model.circuit.rewrite(changes, "mutation")
    original = replace(model.origin, circuit=circuit)
    verdict = checked(original, model.anatomy, {"num_hidden_layers": 2, "num_attention_heads": 4})
    return replace(model, circuit=circuit, origin=original, verdict=verdict)


def _epsilon(node: Node) -> Node | None:
    if isinstance(node, Along) and node.op == "rms":
        return Along("rms", node.source, node.over, (float(node.parameters[0]) * 1000,))
    return None


def _activation(node: Node) -> Node | None:
    return Map("gelu", node.inputs) if isinstance(node, Map) and node.op == "silu" else None


def _mask(node: Node) -> Node | None:
    between = isinstance(node, Map) and node.op == "less_equal" and len(node.axes) == 2
    return Map("greater_equal", node.inputs) if between and isinstance(node, Map) else None


@pytest.mark.parametrize(("kind", "change"), [("gpt2", _epsilon), ("llama", _activation), ("llama", _mask)])
def test_a_wrong_circuit_is_told_and_refused(kind: str, change: Callable[[Node], Node | None]) -> None:
    model = _wrong(kind, change)
    assert model.verdict is not None
    assert model.verdict.exact is False
    assert "not exact: apart by" in repr(model)
    inputs = batch(rows=2, length=6)
    with pytest.raises(CheckError, match=r"failed its check against the module: not exact.*model\.unchecked\(\)"):
        sj.run(model, inputs)
    with pytest.raises(CheckError, match="failed its check"):
        sj.run(sj.edit(model, sj.zero("L0.mlp.out")), inputs)
    assert sj.run(model.unchecked(), inputs).logits.shape == (2, 6, VOCABULARY)


class MixesRows(nn.Module):
    """Centres its result over the rows of a batch, as a batch norm in training mode does."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(11, 8), nn.Linear(8, 2)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return (batch, 2)."""
        found = self.out(self.table(input_ids).mean(1))
        return found - found.mean(0, keepdim=True)


def test_a_module_that_mixes_rows_is_told_and_not_scrubbed() -> None:
    torch.manual_seed(0)
    model = sj.load(MixesRows().eval(), inputs={"input_ids": torch.arange(24).reshape(2, 12) % 11}, cache=None)
    assert model.verdict is not None
    assert model.verdict.exact is True
    assert model.verdict.rows_independent is False
    ids = torch.arange(12).reshape(3, 4) % 11
    assert sj.run(model, {"input_ids": ids}).output.shape == (3, 2)
    data = sj.Dataset("rows", {"input_ids": ids.numpy()}, torch.tensor([0, 1, 0]).numpy(), {})
    hypothesis = sj.Hypothesis("h")
    hypothesis.node("answer", site="logits")
    with pytest.raises(CheckError, match="rows are not independent"):
        sj.scrub(model, hypothesis, data, samples=4, seeds=1)


def test_a_result_without_positions_is_neither_causal_nor_not() -> None:
    found = sj.load("zoo/brackets").verdict
    assert found is not None
    assert (found.exact, found.causal, found.rows_independent) == (True, None, True)


def test_plain_modules_are_checked_too() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    model = sj.load(module, inputs={"input": torch.zeros(3, 4)}, dynamic={"input": ("batch", None)}, cache=None)
    assert model.verdict is not None
    assert (model.verdict.exact, model.verdict.rows_independent, model.verdict.length) == (True, True, 0)


def test_the_verdict_is_kept_beside_the_circuit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = build("gpt2")
    made: list[Any] = []

    def counted(*arguments: Any) -> Verdict:
        made.append(arguments)
        return checked(*arguments)

    monkeypatch.setattr(kept, "checked", counted)
    first = sj.load(module, cache=tmp_path).verdict
    assert sj.load(module, cache=tmp_path).verdict == first
    assert len(made) == 1
    (file,) = tmp_path.glob("*.verdict.json")
    file.write_text(file.read_text().replace('"exact": true', '"exact": false'))  # the digest does not fit any more
    assert sj.load(module, cache=tmp_path).verdict == first
    assert len(made) == 2
    assert sj.load(copy.deepcopy(module).double(), cache=tmp_path).verdict != first
    assert len(made) == 3
    sj.load(module, cache=None)
    assert len(made) == 4


def test_a_verdict_goes_to_json_and_back() -> None:
    found = captured("gpt2")[1].verdict
    assert found is not None
    assert verdict_of({**found.to_dict(), "counted": [list(one) for one in found.counted]}) == found
    assert verdict_of({"exact": True}) is None
    assert verdict_of({**found.to_dict(), "counted": 3}) is None


def test_what_cannot_be_run_is_not_checked_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    module = build("gpt2")
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(module.config, attn_implementation="eager").eval()
    found = sj.load(empty, cache=tmp_path).verdict
    assert str(found) == "not checked against the module: its weights are not loaded"
    monkeypatch.setattr(check, "LARGEST", 10)
    monkeypatch.setattr(check.unrunnable, "__defaults__", (10,))
    monkeypatch.setattr(check.checked, "__defaults__", (None, 10))
    large = sj.load(module, cache=tmp_path)
    assert "billion parameters" in str(large.verdict)
    assert sj.run(large, batch(rows=2, length=5)).logits.shape == (2, 5, VOCABULARY)
    assert not list(tmp_path.glob("*.verdict.json"))


def test_a_weight_that_is_no_number_is_not_the_checks_to_tell() -> None:
    module = build("gpt2")
    with torch.no_grad():
        module.transformer.h[1].mlp.c_fc.weight[0, 0] = float("nan")
    model = sj.load(module, cache=None)
    assert model.verdict is not None
    assert model.verdict.exact is None
    assert "not finite numbers" in model.verdict.reason


def test_counts_that_differ_from_the_configuration_are_told() -> None:
    _, model = captured("gpt2")
    assert model.origin is not None
    found = checked(model.origin, model.anatomy, {"n_layer": 3, "n_head": 4})
    assert found.problems == ("2 layers recognised, the configuration says 3",)
    assert checked(model.origin, model.anatomy, {"text_config": {"n_layer": 2}}).counted == (("layers", 2, 2),)


def test_longer_inputs_are_compared_once_and_shorter_ones_not(monkeypatch: pytest.MonkeyPatch) -> None:
    module = build("llama")
    model = sj.load(module, cache=None)
    runs: list[int] = []
    module.register_forward_pre_hook(
        lambda _part, _args, kwargs: runs.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    for length in (8, 14, 14, 12):
        sj.run(model, batch(rows=3, length=length))
    assert runs == [14]
    sj.run(
        sj.edit(model, sj.zero("L0.mlp.out")), batch(rows=3, length=20)
    )  # the plain circuit is compared, not the edited one
    assert runs == [14, 20]


def test_a_module_that_computes_something_else_at_length_is_refused() -> None:
    module = build("llama")
    model = sj.load(module, cache=None)

    def longer(_part: Any, _args: Any, output: Any) -> Any:
        if output.logits.shape[1] > 20:
            output.logits = output.logits * 1.5
        return output

    module.register_forward_hook(longer)
    sj.run(model, batch(rows=2, length=20))
    with pytest.raises(CheckError, match=r"on rows of 21 positions .* \(checked so far: up to 20\).*give shorter rows"):
        sj.run(model, batch(rows=2, length=21))
    assert sj.run(model.unchecked(), batch(rows=2, length=21)).logits.shape[1] == 21


def test_examples_are_of_other_sizes_and_ragged() -> None:
    _, model = captured("gpt2")
    assert model.origin is not None
    made = examples(model.origin, 3, 10)
    assert made["input_ids"].shape == (3, 10)
    assert int(made["input_ids"].max()) < VOCABULARY
    assert made["attention_mask"].sum(1).tolist() == [10, 7, 6]
    assert made["attention_mask"][1, 0] == 0
    assert made["attention_mask"][2, -1] == 0
    assert made["position_ids"][1, :4].tolist() == [0, 0, 0, 0]


def test_the_lengths_of_a_case_are_those_the_module_was_run_with() -> None:
    module = families.build("t5")
    model = sj.load(module, cache=None)
    seen: list[tuple[int, int]] = []

    def look(_part: Any, _args: Any, given: Any) -> None:
        seen.append((given["decoder_input_ids"].shape[1], given["input_ids"].shape[1]))

    module.register_forward_pre_hook(look, with_kwargs=True)
    found = examine(model)
    assert not found.failed
    assert seen[0] == (found.verdict.length, found.source)
    assert seen[2 : 2 + len(found.cases)] == [(case.length, case.source) for case in found.cases]
    assert len({case.source for case in found.cases}) > 4


def test_comparing_takes_account_of_shapes_and_of_what_is_not_finite() -> None:
    one = torch.tensor([0.0, 2.0, float("nan")])
    assert compare(one, one).difference == 0
    assert compare(one, torch.tensor([0.0, 2.5, 1.0])).difference == 0.5
    assert compare(one, torch.tensor([0.0, float("nan"), 1.0])).difference == float("inf")
    assert compare(one, one[:2]).difference == float("inf")
