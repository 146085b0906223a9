"""Hypotheses as values: words, JSON, parts, routes, and what is refused before a model is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scrubjay.circuit.address import parse
from scrubjay.claims.data import Dataset, Feature
from scrubjay.claims.hypothesis import Hypothesis
from scrubjay.claims.parts import Part
from scrubjay.claims.route import parse_route
from scrubjay.errors import HypothesisError

GIVEN = Feature(
    "given", np.array([0, 1, 1]), "a feature", "ties are below", Feature("given", np.array([0, 1, 0]), tie_rule="above")
)


def every_form() -> Hypothesis:
    made = Hypothesis("every form", others="length")
    top = made.node("output", "logits@0")
    head = top.reads("head", "L2.H1.out@0", GIVEN, others="parent")
    head.reads("places", "L2.resid_pre@2..41", "test", each=True)
    head.reads("padding", "attention_mask", "length")
    top.reads("mlp", "L1.mlp.out", None, via="avoiding L2.H1.out").reads("fixed", "embed", "exact", others=12)
    low = top.reads("low", "L0.H0.out@1", "p", via="through L1.mlp.out")
    low.reads("along", "L0.H0.out@1", "p", part=Part.along("v", [3.0, 4.0]))
    low.reads("beside", "L0.H0.out@1", None, part=Part.along("v", [3.0, 4.0]).rest)
    top.reads("guess", "L1.mlp.out@0", "p", part=Part.estimate("phi", {"p": [0.1, 0.2]}, offset=[1.0, 0.0]))
    return made


WORDS = """\
every form
└─ logits at position 0 is the same datum's; everything else it reads is from another datum with the same length
   ├─ head: L2.H1.out at position 0 keeps: given; everything else it reads is from other data, one for each part
   │  ├─ places: L2.resid_pre at each of positions 2..41 keeps: test
   │  └─ padding: attention_mask keeps: length
   ├─ mlp: L1.mlp.out (avoiding L2.H1.out) keeps nothing; everything else it reads is from another datum with the same length
   │  └─ fixed: embed is the same datum's
   ├─ low: L0.H0.out at position 1 (through L1.mlp.out) keeps: p; everything else it reads is from another datum with the same length
   │  ├─ along: L0.H0.out at position 1, v keeps: p
   │  └─ beside: L0.H0.out at position 1, rest of v keeps nothing
   └─ guess: L1.mlp.out at position 0, phi keeps: p"""


def test_a_hypothesis_says_itself_in_words() -> None:
    assert str(every_form()) == WORDS


@pytest.mark.parametrize(
    ("others", "words"),
    [("node", "is from another datum"), ("global", "is from the one other datum of this hypothesis"), (7, "is row 7's"), ("exact", "is from the same datum")],
)  # fmt: skip
def test_open_draws_are_said_in_words(others: Any, words: str) -> None:
    made = Hypothesis("h")
    made.node("output", "logits", others=others).reads("a", "embed", None)
    assert str(made).splitlines()[1].endswith(f"everything else it reads {words}")


def test_a_stored_hypothesis_reads_back_to_the_same(tmp_path: Path) -> None:
    made = every_form()
    made.save(tmp_path / "h.json")
    again = Hypothesis.load(tmp_path / "h.json")
    assert (again.to_dict("inline"), again.digest, str(again)) == (made.to_dict("inline"), made.digest, str(made))
    assert again.features["given"].to_dict() == GIVEN.to_dict()
    assert again.features["given"].ties == pytest.approx(1 / 3)
    np.testing.assert_allclose(again.part("rest of v").vectors, [[0.6, 0.8]], atol=1e-12)
    assert again.part("rest of v").remains
    plain = Hypothesis("plain")
    plain.node("output", "logits").reads("a", "L0.H0.out@1", "f", via="all")
    assert plain.to_dict()["version"] == 1
    assert made.to_dict()["version"] == 2
    assert json.loads(json.dumps(made.to_dict())) == made.to_dict()


def test_features_by_digest_must_be_those_of_the_data() -> None:
    again = Hypothesis.from_dict(every_form().to_dict("digests"))
    rows = {"input_ids": np.zeros((3, 2), np.int64)}
    right = Dataset("right", rows, np.zeros(3), {"given": GIVEN})
    wrong = Dataset("wrong", rows, np.zeros(3), {"given": Feature("given", np.array([0, 0, 1]))})
    assert again.feature("given", right) is GIVEN
    with pytest.raises(
        HypothesisError,
        match=r"feature 'given' of the data 'wrong' has other values than the hypothesis was stored with",
    ):
        again.feature("given", wrong)


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    data: Any = every_form().to_dict("inline")
    data["features"]["given"]["values"][0] = 1
    with pytest.raises(HypothesisError, match="its values are not those of its digest"):
        Hypothesis.from_dict(data)
    (tmp_path / "h.json").write_text("[1]")
    with pytest.raises(HypothesisError, match="a hypothesis is a JSON object, and this is a list"):
        Hypothesis.load(tmp_path / "h.json")
    with pytest.raises(HypothesisError, match="no hypothesis can be read from it"):
        Hypothesis.load(tmp_path / "none.json")
    with pytest.raises(HypothesisError, match="found version, name, root, extra"):
        Hypothesis.from_dict({"version": 1, "name": "h", "root": {}, "extra": 1})
    with pytest.raises(HypothesisError, match="a claim needs texts"):
        Hypothesis.from_dict(
            {"version": 1, "name": "h", "root": {"name": "output", "site": "logits", "feature": None, "each": 1}}
        )
    with pytest.raises(HypothesisError, match="a claim needs texts"):
        Hypothesis.from_dict(
            {"version": 1, "name": "h", "root": {"name": "output", "site": "logits", "feature": None, "vai": "all"}}
        )


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda top: top.reads("a", "embed", via="by magic"), "a: via='by magic' is not a set of paths"),
        (lambda top: top.reads("a", "embed", via="direct or avoiding L0.H0.out"), "is not a set of paths"),
        (lambda top: top.reads("a", "embed", via="through L0.H0.q"), r"L0\.H0\.q is no component that paths pass"),
        (lambda top: top.reads("a", "embed", via="avoiding L0.mlp.out@3"), r"L0\.mlp\.out@3 is no component"),
        (lambda top: top.reads("a", "embed", others=-1), "a: others=-1 says not what is read"),
        (lambda top: top.reads("a", "embed", others=True), "a: others=True says not what is read"),
        (lambda top: top.reads("a", "embed@3", each=True), "embed@3 is one position"),
        (lambda top: top.reads("a", "L0.nothing"), "claim 'a': .*no such site"),
        (lambda top: top.reads("a", "embed", part="v"), "no part 'v'; it has none"),
        (lambda top: (top.reads("a", "embed", part=Part.along("v", [1, 0])), top.reads("b", "embed@1", part=Part.along("v", [0, 1]))), "two different parts are called 'v'"),
        (lambda top: top.reads("output/other/x", "embed"), "cannot be called"),
    ],
)  # fmt: skip
def test_what_cannot_be_claimed_is_refused_at_once(build: Any, match: str) -> None:
    with pytest.raises(HypothesisError, match=match):
        build(Hypothesis("h").node("output", "logits"))


def test_parts_are_kept_as_orthonormal_directions_or_as_columns() -> None:
    part = Part.along("plane", [[3.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    np.testing.assert_allclose(part.vectors @ part.vectors.T, np.eye(2), atol=1e-12)
    assert np.abs(part.vectors[:, 2]).max() < 1e-12
    wrong: tuple[Any, ...] = ([0.0, 0.0], [np.nan, 1.0], [[[1.0]]], "up")
    for vectors in wrong:
        with pytest.raises(HypothesisError, match="part 'v'"):
            Part.along("v", vectors)
    with pytest.raises(HypothesisError, match="all of one length"):
        Part.estimate("phi", {"p": [1.0, 2.0], "q": [1.0]})
    with pytest.raises(HypothesisError, match="found none"):
        Part.estimate("phi", {})
    with pytest.raises(HypothesisError, match="cannot be called 'rest of x'"):
        Part.along("rest of x", [1.0])
    for one in (part, Part.estimate("phi", {"p": [1.0, 2.0]}), Part.estimate("mean", {}, offset=[1.0, 2.0])):
        assert Part.from_dict(one.name, one.to_dict()).digest == one.digest


def test_routes_are_read() -> None:
    def sites(*texts: str) -> tuple[Any, ...]:
        return tuple(parse(text) for text in texts)

    made = parse_route("direct or through L1.H*.out, 0.1 avoiding L1.H3.out, L1.mlp.out")
    assert made.through == sites("L1.H*.out", "L0.H1.out")
    assert (made.avoiding, made.direct) == (sites("L1.H3.out", "L1.mlp.out"), True)
    assert not parse_route("through L1.mlp.out").direct
    assert parse_route("avoiding L1.mlp.out").through is None
