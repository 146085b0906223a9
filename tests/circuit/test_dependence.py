"""What values depend on, against what changes when an input is changed; marks, their letters and colours."""

from __future__ import annotations

import re

import pytest
import torch

import scrubjay as sj
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Gather, Input, Map, Multiply
from scrubjay.circuit.printing import show
from scrubjay.circuit.printing.dependence import changed_places, dependence, marking, painted
from scrubjay.engine.evaluate import evaluate
from scrubjay.errors import CircuitError
from scrubjay.interventions.inputs import prepare
from scrubjay.scrubbing.tree import treeify
from small_models import captured

BATCH, ROW, MODEL = Axis("batch", "batch"), Axis("row", "row"), Axis("model", 4)


def values(model: sj.Model, given: dict[str, torch.Tensor]) -> dict[Node, torch.Tensor]:
    nodes = [node for node in model.circuit.nodes if node.axes]
    made = evaluate(nodes, given, model.stores, dtype=model.dtype, device=model.device)
    return {node: made[node].as_tensor() for node in nodes}


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_what_an_input_changes_depends_on_it(kind: str) -> None:
    _, model = captured(kind)
    given = prepare(
        model,
        {
            "input_ids": torch.tensor([[5, 6, 7, 8], [9, 8, 7, 6]]),
            "attention_mask": torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]]),
        },
    )
    found, before = dependence(model.circuit), values(model, given)
    other = {
        name: torch.ones_like(tensor) if name == "attention_mask" else tensor.flip(-1) for name, tensor in given.items()
    }
    for name in given:
        after = values(model, {**given, name: other[name]})
        moved = {
            node for node, tensor in before.items() if not torch.equal(tensor.nan_to_num(), after[node].nan_to_num())
        }
        assert moved
        assert all(name in found[node] for node in moved)
    assert found[model.circuit.roots["logits"]] >= {"input_ids"}


def two_data() -> tuple[Node, Node, Node]:
    rows = Input("rows.x", (ROW, MODEL))
    one, two = (
        Gather(Map("relu", (rows,)), "row", Input(f"datum.{name}", (BATCH,), "int64")) for name in ("one", "two")
    )
    return one, two, Add((one, two))


def test_a_data_set_counts_as_the_index_that_chooses_its_row() -> None:
    one, two, both = two_data()
    found = dependence(Circuit({"output": both}))
    assert found[one] == {"datum.one"}
    assert found[two] == {"datum.two"}
    assert found[both] == {"datum.one", "datum.two"}
    assert found[one.operands[0]] == {"rows.x"}


def test_each_claim_of_a_scrub_depends_on_the_data_below_it() -> None:
    hypothesis = sj.Hypothesis("two parts")
    answer = hypothesis.node("answer", site="logits")
    answer.reads("head", site="L2.H1.out@0", feature="horizon")
    answer.reads("mlp", site="L2.mlp.out@0", feature="is_balanced")
    made = treeify(sj.load("zoo/brackets"), hypothesis)
    circuit = Circuit({"scrubbed": made.scrubbed, "reference": made.reference})
    found = dependence(circuit)
    assert found[made.scrubbed] == {"datum.head", "datum.mlp", "datum.answer/other"}
    assert found[made.reference] == {"datum.reference"}
    marks = marking(circuit, {"original": ["datum.head", "datum.mlp", "datum.reference"], "other": "*/other"})
    assert (marks.mark(made.scrubbed), marks.colour(made.scrubbed)) == ("OT", "purple")
    assert (marks.mark(made.reference), marks.colour(made.reference)) == ("O", "blue")
    assert {colour for _, colour, _ in marks.legend()} == {"blue", "red", "purple", "grey"}


def test_interventions_are_named_and_their_places_found() -> None:
    _, model = captured("gpt2")
    edited = sj.edit(model, sj.zero("L0.H1.z"), sj.add("L1.mlp.out", torch.ones(32)))
    circuit, logits = edited.circuit, edited.circuit.roots["logits"]
    (tensor,) = {name for name in dependence(circuit)[logits] if name.startswith("change interventions-")}
    assert dependence(circuit)[logits] == {*model.circuit.inputs, "change at L0.H1.z", tensor}
    assert not any(name.startswith("change") for names in dependence(model.circuit).values() for name in names)
    assert changed_places(sj.edit(model, sj.zero("L0.H1.z")).circuit, model.circuit) == ("L0.attn.z",)
    assert changed_places(model.circuit, model.circuit) == ()
    alone, beside = marking(circuit), marking(circuit, before=model.circuit)
    unchanged = {*model.circuit.nodes}
    assert alone.changed <= beside.changed
    assert beside.changed.isdisjoint(unchanged)
    assert {node for node in circuit.nodes if node not in unchanged} <= beside.changed
    assert alone.mark(logits).endswith("*")
    assert alone.mark(circuit.table["L0.attn.pattern"]) == "IPA"


def test_groups_are_checked() -> None:
    one, _, both = two_data()
    circuit = Circuit({"output": both})
    with pytest.raises(
        CircuitError,
        match=r"no value depends on anything called 'datum.on'; did you mean datum.one, datum.two\?; there is datum.one, datum.two, rows.x",
    ):
        marking(circuit, {"a": "datum.on"})
    with pytest.raises(CircuitError, match=r"'datum\.one' is in two groups, 'a' and 'b'"):
        marking(circuit, {"a": "datum.*", "b": "datum.one"})
    with pytest.raises(CircuitError, match="5 groups were asked for"):
        marking(circuit, dict.fromkeys("abcde", "datum.one"))
    assert marking(circuit, {"one": "datum.one"}).mark(both) == "O"
    assert marking(circuit, {"two": "datum.two"}).colour(one) == "grey"


def test_letters_are_of_their_own() -> None:
    inputs = [Input(name, ()) for name in ("aab", "aa", "ab", "é")]
    marks = marking(Circuit({"output": Multiply(tuple(inputs))}))
    assert [marks.mark(node) for node in inputs] == ["A", "2", "B", "4"]
    assert len(set(marks.letters.values())) == 4
    assert [marks.colour(node) for node in inputs] == ["blue", "red", "green", "orange"]


def test_the_printed_table_has_a_column_of_marks_and_colours() -> None:
    _, model = captured("gpt2")
    circuit = sj.edit(model, sj.zero("L0.H1.z")).circuit
    marks = marking(circuit)
    plain, coloured = (show(circuit, "L0.attn.out", 6, marks=marks, colour=colour) for colour in (False, True))
    assert re.sub("\x1b\\[[0-9]+m", "", coloured) == plain
    assert re.search(r"^IPA\*  L0\.attn\.z ", plain, re.MULTILINE)
    assert re.search(r"^IPA   L0\.attn\.pattern ", plain, re.MULTILINE)
    assert "\x1b[95mIPA   L0.attn.pattern" in coloured
    assert "IP: input_ids and position_ids" in plain
    assert plain.endswith("*: after an intervention") or "*: after an intervention\n" in plain


def test_layers_that_are_marked_in_different_ways_are_not_said_to_be_alike() -> None:
    circuit = captured("gpt2")[1].circuit
    assert "L1: as L0" in show(circuit)
    assert "L1: as L0" in show(circuit, marks=marking(circuit, {"text": "input_ids"}))
    assert "L1: as L0" not in show(circuit, marks=marking(circuit))  # the padding mask is read from L0's scores on


def test_a_name_cannot_colour_a_terminal() -> None:
    assert painted("a\x1b[31mb\x9b", "red") == "\x1b[91ma?[31mb?\x1b[0m"
