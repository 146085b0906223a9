"""The table of sites: every row is what a run and the torch module's own hooks show, and a user's names and notes are kept."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import scrubjay as sj
from scrubjay.circuit import spelling
from scrubjay.circuit.address import LayerShape
from scrubjay.circuit.meanings import CONVENTIONS, MEANINGS
from scrubjay.errors import AddressError, InputError, LoadError
from small_models import batch, captured

KINDS = ("gpt2", "llama", "bert")
ALL_KINDS = {
    *spelling.MODEL_SITES,
    *spelling.LAYER_SITES,
    *(f"H.{site}" for site in spelling.HEAD_SITES),
    *(f"KV.{site}" for site in spelling.KEY_VALUE_SITES),
    *(f"mlp.E.{site}" for site in spelling.EXPERT_SITES),
    "N",
}


def test_every_kind_of_site_has_a_meaning() -> None:
    LayerShape(sites=frozenset(ALL_KINDS - set(spelling.MODEL_SITES)))  # the grammar knows them all
    assert set(MEANINGS) == ALL_KINDS
    assert set(CONVENTIONS) <= ALL_KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_rows_have_the_axes_that_a_run_shows(kind: str) -> None:
    _, model = captured(kind)
    inputs = batch(rows=2, length=5)
    asked = {site.address: str(model.addresses(site)[0]) for site in model.sites}
    run = sj.run(model, inputs, keep=list(asked.values()))
    for site in model.sites:
        value = run[asked[site.address]]
        assert tuple(axis.name for axis in site.axes) == value.names, site.address
        symbols = {"batch": 2, "query": 5}
        sizes = [symbols.get(axis.size, axis.size) if isinstance(axis.size, str) else axis.size for axis in site.axes]
        assert list(value.as_tensor().shape) == sizes, site.address


@pytest.mark.parametrize("kind", KINDS)
def test_the_module_beside_a_site_has_that_value(kind: str) -> None:
    module, model = captured(kind)
    inputs = batch(rows=2, length=6)
    rows = [site for site in model.sites if site.origin.relation in {"output", "input"} and "*" not in site.address]
    run = sj.run(model, inputs, keep=[site.address for site in rows])
    seen = _seen(module, inputs)
    assert len(rows) >= 15
    for site in rows:
        ours = run[site.address].as_tensor()
        theirs = seen[site.origin.path, site.origin.relation]
        torch.testing.assert_close(ours.reshape(theirs.shape), theirs, msg=lambda text, site=site: f"{site}: {text}")


def _seen(module: nn.Module, inputs: dict[str, torch.Tensor]) -> dict[tuple[str, str], torch.Tensor]:
    """Return the input and output of every part of a module in one run."""
    found: dict[tuple[str, str], torch.Tensor] = {}

    def keep(path: str) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            given = args[0] if args else kwargs.get("hidden_states")
            made = output[0] if isinstance(output, tuple) else output
            if isinstance(given, torch.Tensor):
                found[path, "input"] = given
            if isinstance(made, torch.Tensor):
                found[path, "output"] = made

        return hook

    handles = [part.register_forward_hook(keep(path), with_kwargs=True) for path, part in module.named_modules()]
    with torch.no_grad():
        module(**inputs)
    for handle in handles:
        handle.remove()
    return found


def test_modules_of_values_that_are_no_modules_output() -> None:
    _, model = captured("gpt2")
    beside = {site.address: str(site.origin) for site in model.sites}
    assert beside["L1.attn.q"] == "transformer.h.1.attn.c_attn (part)"
    assert beside["L1.attn.o"] == "transformer.h.1.attn.c_proj"
    assert beside["L1.attn.out"] == "transformer.h.1.attn"
    assert beside["L1.attn.pattern"] == "transformer.h.1.attn (inside)"
    assert beside["L1.ln2.scale"] == "transformer.h.1.ln_2 (inside)"
    assert beside["L1.H*.out"] == "transformer.h.1.attn.c_proj (inside)"
    assert beside["L0.resid_pre"] == "transformer.h.0 (input)"
    assert beside["L1.resid_mid"] == "transformer.h.1 (inside)"


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("L1.attn.q", ["L1.attn.q"]),
        ("L0..1.H3.z", ["L0.H*.z", "L1.H*.z"]),
        ("L*.resid_mid", ["L0.resid_mid", "L1.resid_mid"]),
        ("*.N5", ["L0.N*", "L1.N*"]),
        ("ln_f.*", ["ln_f.scale", "ln_f.normalized"]),
        ("L1.mlp.o*", ["L1.mlp.out"]),
        ("transformer.wpe", ["pos_embed"]),
    ],
)
def test_patterns_choose_rows(pattern: str, found: list[str]) -> None:
    _, model = captured("gpt2")
    assert list(model.sites[pattern].addresses) == found


def test_a_pattern_that_names_nothing_lists_near_names() -> None:
    _, model = captured("gpt2")
    with pytest.raises(AddressError, match=r"matches 'L1\.resid_prf'; did you mean .*L1\.resid_pre"):
        model.sites["L1.resid_prf"]
    with pytest.raises(AddressError, match="no site"):
        model.sites["L7.*"]


def test_rows_are_taken_wherever_addresses_are() -> None:
    _, model = captured("gpt2")
    rows = model.sites["L1.H*.z"]
    run = sj.run(model, batch(rows=2, length=5), keep=list(rows.addresses))
    assert model.addresses(rows[0]) == model.addresses("L1.H*.z")
    assert run["L1.H*.z"].names == ("head", "batch", "query", "d_head")
    assert "L1.H*.z" in model.sites
    assert rows[0] in model.sites
    assert len(model.sites[:3]) == 3


def test_the_printed_table_folds_equal_layers_and_keeps_to_its_width() -> None:
    _, model = captured("gpt2")
    text = model.sites.text(90)
    assert "L0..1.resid_mid" in text
    assert "transformer.h.*" in text.replace("\n", "")
    assert max(map(len, text.splitlines())) <= 90
    noted = model.annotate("L1.resid_mid", "here")
    assert "L0.resid_mid" in str(noted.sites)
    assert "L1.resid_mid" in str(noted.sites)


def test_rows_as_json() -> None:
    _, model = captured("llama")
    rows = json.loads(json.dumps(model.sites.to_rows()))
    (one,) = [row for row in rows if row["address"] == "L1.attn.k"]
    assert one["axes"] == [["batch", "batch"], ["query", "query"], ["kv", 2], ["d_head", 8]]
    assert one["module"] == "model.layers.1.self_attn.k_proj"
    assert one["relation"] == "output"


def test_hostile_notes_are_escaped() -> None:
    _, model = captured("gpt2")
    drawn = model.annotate("L1.mlp.out", "<script>alert(1)</script>").sites._repr_html_()
    assert "<script>" not in drawn
    assert "&lt;script&gt;" in drawn


def test_notes_and_names_are_shown_and_leave_the_model_as_it_is() -> None:
    _, model = captured("gpt2")
    named = model.annotate("L1.H2", "copies").rename({"L1.H2": ".copier"})
    (row,) = named.sites["L1.H*.out"]
    assert row.notes == (("H2", "copies"),)
    assert ("H2", "copier") in row.names
    assert named.sites["copier.z"].addresses == ("L1.H*.z",)
    assert "H2: called copier" in row.remark
    assert not any(site.names or site.notes for site in model.sites)
    (bare,) = named.annotate("L1.H2", "").sites["L1.H*.out"]
    assert not bare.notes


def test_a_name_is_taken_wherever_an_address_is() -> None:
    _, model = captured("gpt2")
    inputs = batch(rows=2, length=6)
    named = model.rename({"L1.H2": ".copier", "L0.mlp.out": "early.out"})
    run = sj.run(named, inputs, keep=["copier.z@-1", "early.out"])
    torch.testing.assert_close(run["copier.z@-1"].as_tensor(), run["L1.H2.z@-1"].as_tensor())
    for name, address in (("early.out", "L0.mlp.out"), (".copier", "L1.H2.out"), ("copier.k_in@0", "L1.H2.k_in@0")):
        ours = sj.run(named, inputs, interventions=[sj.zero(name)]).logits
        assert torch.equal(ours, sj.run(model, inputs, interventions=[sj.zero(address)]).logits), name
    edited = sj.edit(named, sj.zero("early.out"))
    assert sj.run(edited, inputs, keep=["early.out"])["early.out"].as_tensor().abs().max() == 0
    assert named.explain("copier.q")["called"] == "copier.q"


def test_a_name_is_taken_by_hypotheses() -> None:
    model = sj.load("zoo/brackets").rename({"L2.H1": ".head"})
    data = sj.task("brackets", n=60, seed=0)

    def lost(site: str) -> float:
        hypothesis = sj.Hypothesis("h")
        hypothesis.node("answer", site="logits").reads("head", site=site, feature="exact")
        return float(np.mean(sj.scrub(model, hypothesis, data, samples=20, seeds=1).recovered))

    assert lost(".head@0") == lost("L2.H1.out@0")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"L1.H2.z": "L1.H2.q"}, "reads as the address L1.H2.q"),
        ({"L1.H2.z": "9.9"}, "reads as the address"),
        ({"L1.H2.z": "induction"}, "with a dot in between or in front"),
        ({"L1.H2.z": "transformer.h.1"}, "has a module of that path"),
        ({"L1.H*.z": "a.b"}, "names 4 values"),
        ({"L1.H2.z@-1": "a.b"}, "names a position"),
        ({"L1.H2.z": "a.b", "L1.H3.z": "a.b"}, "is the name of L1.H2.z already"),
        ({"L1.H9.z": "a.b"}, "head 9 does not exist"),
    ],
)
def test_names_that_would_be_unsafe_are_refused(names: dict[str, str], words: str) -> None:
    _, model = captured("gpt2")
    with pytest.raises(AddressError, match=words):
        model.rename(names)


def test_a_note_on_nothing_is_refused() -> None:
    _, model = captured("gpt2")
    with pytest.raises(AddressError, match="no such"):
        model.annotate("L1.resid_prf", "x")


def test_a_note_that_is_no_text_is_refused() -> None:
    _, model = captured("gpt2")
    with pytest.raises(InputError, match=r"the note at L1\.attn\.q is a text, not NoneType"):
        model.annotate("L1.attn.q", None)  # pyright: ignore[reportArgumentType]


def test_a_model_speaks_of_its_own_sites_only() -> None:
    _, model = captured("gpt2")
    for use in (
        lambda: sj.run(model, batch(), keep=["L1.foo"]),
        lambda: model.explain("L0"),
        lambda: model.annotate("L0", "x"),
    ):
        with pytest.raises(AddressError) as caught:
            use()
        assert not any(word in str(caught.value) for word in ("cross", "mixer", "router"))


def test_meanings_say_what_a_reader_needs_of_experts_and_nothing_of_what_is_not_there() -> None:
    _, model = captured("gpt2")
    assert not re.search("rotary|q/k norm", str(model.explain("L0.attn.q")) + str(model.sites["L0.*"]))
    assert "rotary" in str(captured("llama")[1].explain("L0.attn.q"))
    assert "zero at tokens that did not choose it" in MEANINGS["mlp.E.out"]
    assert "does nothing" in CONVENTIONS["mlp.E.out"]
    assert "mlp.router.chosen" in MEANINGS["mlp.router.weights"]


def test_a_weight_taken_away_after_capture_is_told_so() -> None:
    module: Any = nn.Sequential(nn.Linear(3, 3)).eval()
    model = sj.load(module, inputs={"input": torch.zeros(2, 3)})
    for change in (lambda: setattr(module[0], "bias", None), lambda: delattr(module[0], "bias")):
        change()
        with pytest.raises(
            LoadError, match=r"'0\.bias' any more: it was changed after the model was captured"
        ) as caught:
            sj.run(model, {"input": torch.zeros(2, 3)})
        assert "did you mean" not in str(caught.value)
