"""Pages: one file, no request to anywhere, no text unescaped, findings that follow the numbers."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import scrubjay as sj
from scrubjay.circuit.printing.dependence import marking
from scrubjay.errors import CacheError, InputError
from scrubjay.reporting import brackets, tour
from scrubjay.reporting.check import Check
from scrubjay.reporting.circuits import draw, listing
from scrubjay.reporting.contribution import Contributions
from scrubjay.reporting.file import write_page
from scrubjay.reporting.part import Parts
from scrubjay.reporting.patching import Patching
from scrubjay.reporting.sections.checks import Score, checks
from scrubjay.reporting.sections.contributions import class_contributions
from scrubjay.reporting.sections.patching import TextPair, text_patching
from scrubjay.reporting.sections.scrubbing import hypotheses
from scrubjay.viz import Figure, table
from small_models import build, captured

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """Collects elements and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.links += [
            value or "" for name, value in attrs if name in {"src", "href", "action", "data", "srcset", "poster"}
        ]


def is_self_contained(text: str) -> None:
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(page.tags)
    assert all(link.startswith("#") for link in page.links)
    assert not page.handlers
    assert not re.search(r"url\(|@import|src\s*=\s*[\"']?http", text)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Give a tour of the bracket model with few samples."""
    path = tmp_path_factory.mktemp("tour") / "page.html"
    return tour("zoo/brackets", path, samples=60, rows=120, seed=2)


def test_the_tour_is_one_file_that_asks_for_nothing(quick):
    text = quick.path.read_text(encoding="utf-8")
    is_self_contained(text)
    assert os.listdir(quick.path.parent) == [quick.path.name]
    assert text.count("<section") == 6
    assert "proved" not in text
    assert "confirmed" not in text


def test_the_tour_as_json(quick):
    found = json.loads(json.dumps(quick.to_dict(), allow_nan=False))
    assert len(found["findings"]) == 3
    assert found["facts"]["weights"].startswith("sha256:")
    assert set(found["facts"]) >= {"seed", "torch", "scrubjay", "data", "hypotheses"}
    results = found["sections"][5]["numbers"]["results"]
    assert len(results) == len(brackets.hypotheses())
    assert all(result["verdict"].split(":")[0] in {"rejected", "not rejected", "undecided"} for result in results)
    assert all(check["holds"] for check in found["sections"][0]["numbers"]["checks"])
    assert found["sections"][2]["numbers"]["largest_error_of_the_sum"] < 1e-4


def test_the_tour_is_the_same_for_the_same_seed(quick, tmp_path):
    again = tour("zoo/brackets", tmp_path / "page.html", samples=60, rows=120, seed=2)
    assert again.main == quick.main


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_the_tour_of_a_model_without_tokenizer(kind, tmp_path):
    build(kind).save_pretrained(tmp_path / "model")
    found = tour(tmp_path / "model", tmp_path / "page.html", texts=["5 6 7 8", "5 9 7 8"])
    text = found.path.read_text(encoding="utf-8")
    is_self_contained(text)
    assert "No hypothesis is registered" in text
    assert all(check["holds"] is not False for check in found.to_dict()["sections"][0]["numbers"]["checks"])  # type: ignore[index]
    with pytest.raises(InputError, match="token ids such as"):
        tour(tmp_path / "model", tmp_path / "page.html", texts=["hello"])


def test_hostile_tokens_and_names_are_shown_and_never_run(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    words = {f"{HOSTILE if number < 50 else 'w'}{number}": number for number in range(100)}
    fast = Tokenizer(models.WordLevel({**words, "<b>": 100}, unk_token="<b>"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path / "<i>name"
    build("llama").save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=fast, unk_token="<b>").save_pretrained(folder)
    found = tour(folder, tmp_path / "page.html", texts=["<b> w51 w52", "<b> w53 <u>"])
    text = found.path.read_text(encoding="utf-8")
    is_self_contained(text)
    assert not re.search(r"<(script|img|u>|i>name)", text)
    assert "&lt;i&gt;name" in text


def test_where_a_page_cannot_be_written_is_said_before_the_work(tmp_path):
    for path in (tmp_path, tmp_path / "no" / "page.html"):
        with pytest.raises(CacheError, match="was to be written to"):
            tour("a model that does not exist", path)


def test_a_page_is_replaced_whole(tmp_path):
    path = tmp_path / "page.html"
    write_page(path, "old")
    assert write_page(path, "new") == path
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["page.html"]


# --- sj.report -------------------------------------------------------------------------------------------------------


def test_report_shows_any_mix(model, tmp_path):
    data = brackets.tour_data(60, seed=0)
    stated = brackets.hypotheses()[2].hypothesis
    result = sj.scrub(model, stated, data, samples=20, seeds=1)
    run = sj.run(model, data.select([0, 1]), keep=["L1.H1.pattern", "L0.H0.out@0", "L0.mlp.post", "ln_f.scale@0"])
    figure = Figure(table(["a"], [["b"]]), f"caption {HOSTILE}")
    path = sj.report(tmp_path / "page.html", HOSTILE, run, stated, result, result, figure, title=HOSTILE)
    text = path.read_text(encoding="utf-8")
    is_self_contained(text)
    assert text.count("sj-chart-recovered") >= 1
    assert "L1.H1.pattern" in text
    assert result.fingerprint in text


def test_report_is_a_verb(tmp_path):
    assert sj.report(tmp_path / "two.html", "text").is_file()


def test_report_refuses_what_it_cannot_show(tmp_path):
    with pytest.raises(InputError, match="cannot show a dict"):
        sj.report(tmp_path / "page.html", {})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="nothing was asked for"):
        sj.report(tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_run_of_a_language_model_is_shown(tmp_path):
    _, model = captured("gpt2")
    run = sj.run(model, [[1, 2, 3]], keep=["L0.attn.pattern", "L1.resid_post"])
    assert "L0.attn.pattern" in sj.report(tmp_path / "page.html", run).read_text(encoding="utf-8")


# --- words follow the numbers ----------------------------------------------------------------------------------------


def test_a_failed_check_is_told_first():
    _, model = captured("gpt2")
    found = [Check("A", 0.0, 1.0, "a"), Check("B", 2.0, 1.0, "b"), Check("C", None, 1.0, "c")]
    chapter = checks(model, found, Score(10, 0.4, 2.0, 0.7, 2.5))
    assert chapter.finding.startswith("1 of 2 checks FAILED: B")
    assert "worse than the best constant answer" in chapter.finding


def test_contributions_that_do_not_add_up_are_told():
    rows = np.array([True, False])
    good = Contributions(("embed", "L0.H0.out"), np.array([[0.0, 2.0], [0.0, -2.0]]), np.array([2.0, -2.0]), True)
    bad = dataclasses.replace(good, total=np.array([3.0, -2.0]), linear=False)
    names = ("right", "wrong")
    assert "L0.H0 (100%) writes most" in class_contributions(good, rows, names, "x").finding
    assert "do NOT add up" in class_contributions(bad, rows, names, "x").finding


def test_patches_between_equal_answers_are_refused_in_words():
    flat = Patching(("L0.H0.out",), np.ones((1, 1)), np.ones(1), np.ones(1), "denoise")
    chapter = text_patching(TextPair(["a"], ["b"], "x", flat, flat), ["L0.resid_pre"])
    assert chapter.finding.startswith("No effect is given")


def test_verdicts_are_read_off_the_results(model):
    data = brackets.tour_data(60, seed=0)
    stated = brackets.hypotheses()
    result = sj.scrub(model, stated[0].hypothesis, data, samples=30, seeds=1)
    features = ("count", "left_horizon", "is_balanced")
    parts = Parts(brackets.PARTS, (None, *features), np.zeros((5, 4, 6)), np.zeros(6), 5.0)

    def with_fractions(claim, wrong):
        return [
            dataclasses.replace(
                result,
                hypothesis=one.hypothesis,
                recovered=value,
                scrubbed=5 - 5 * value,
                losses={"original": np.zeros(30), "all": np.full(30, 5.0), "scrubbed": np.full(30, 5 - 5 * value)},
                flags=(),
            )
            for one in stated
            for value in [claim if one.side == "claim" else wrong]
        ]

    bad = hypotheses(stated, with_fractions(0.3, 0.95), parts).finding
    assert "None of our 3 claims about this model survives" in bad
    assert "did not: this test does not tell them apart" in bad
    assert "accounts for more of this one" in bad
    good = hypotheses(stated, with_fractions(0.95, 0.3), parts).finding
    assert "not rejected" in good
    assert "All 6 versions meant to fail are rejected" in good
    same = hypotheses(stated, with_fractions(0.95, 0.95), parts).finding
    assert "does not tell whether the horizon" in same


def test_random_rows_need_no_text(model):
    from scrubjay.reporting.text import texts_of  # noqa: PLC0415

    _, small = captured("llama")
    one, two = texts_of(small, (), seed=0)
    differ = one.inputs["input_ids"] != two.inputs["input_ids"]
    assert int(differ.sum()) == 1
    assert torch.equal(one.inputs["input_ids"], texts_of(small, (), seed=0)[0].inputs["input_ids"])
    with pytest.raises(InputError, match="at most 48"):
        texts_of(small, [" ".join(["1"] * 60)], seed=0)


# --- notebooks -------------------------------------------------------------------------------------------------------


def test_values_draw_themselves_in_a_notebook():
    class Formatter(dict):
        def for_type(self, kind, draw):
            self[kind] = draw

    formatter = Formatter()
    sj.load_ipython_extension(SimpleNamespace(display_formatter=SimpleNamespace(formatters={"text/html": formatter})))
    _, model = captured("gpt2")
    made = sj.Hypothesis("<b>named</b>")
    made.node("output", "logits@END").reads("head", "L1.H0.out@END", None)
    drawing = draw(model.circuit, "L0.attn.out", 4, caption="<b>what it reads</b>")
    for value in (
        sj.run(model, [[1, 2, 3]], keep=["L0.attn.pattern"]),
        made,
        sj.Hypothesis("empty"),
        model.circuit,
        drawing,
    ):
        html = formatter[type(value)](value)
        assert "<style>" in html
        assert "<b>named" not in html
        assert "<b>what" not in html
        assert "http:" not in html.replace("http://www.w3.org/2000/svg", "")


def test_a_circuit_is_shown_on_a_page(tmp_path):
    _, model = captured("gpt2")
    marks = marking(sj.edit(model, sj.zero("L0.H1.z")).circuit)
    html = sj.report(
        tmp_path / "page.html",
        model.circuit,
        draw(model.circuit, "L0.attn.z", 2),
        listing(model.circuit, "L0.mlp.out", 3, marks),
    ).read_text("utf-8")
    assert "Circuit: logits" in html
    assert "L0.attn.pattern" in html
    assert "more values at a greater depth" in html
