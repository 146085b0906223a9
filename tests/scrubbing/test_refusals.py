"""Claims about nothing, and rows that do not correspond, are refused; a result keeps the hypothesis it tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import scrubjay as sj
from scrubjay.capture.model import Model
from scrubjay.claims.data import Dataset, Feature
from scrubjay.claims.parts import Part
from scrubjay.scrubbing.compute import compute
from scrubjay.scrubbing.sample import draw
from scrubjay.scrubbing.tree import treeify
from scrubjay.zoo.transformer import Config, Transformer

ROWS, LENGTH = 30, 6
Claim = Callable[[Any], Any]


@pytest.fixture(scope="module")
def model() -> Model:
    config = Config(
        layers=2,
        heads=2,
        d_model=8,
        d_head=4,
        d_mlp=12,
        vocabulary=7,
        positions=10,
        outputs=3,
        direction="causal",
        readout="all",
    )
    module = Transformer(config, seed=0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) * 0.5)
    return sj.load(module.double().eval(), cache=None)


def data_of(lengths: np.ndarray, *, left: bool = False) -> Dataset:
    random = np.random.default_rng(2)
    ids, places = random.integers(0, 7, (ROWS, LENGTH)), np.arange(LENGTH)
    mask = places >= LENGTH - lengths[:, None] if left else places < lengths[:, None]
    inputs = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
    features = {"first": Feature("first", ids[:, -1] % 2), "token": Feature("token", ids % 2)}
    return Dataset("rows", inputs, random.integers(0, 3, ROWS), features)


WHOLE = data_of(np.full(ROWS, LENGTH))
MIXED = np.arange(ROWS) % 3 + 4


def hypothesis(build: Claim) -> sj.Hypothesis:
    made = sj.Hypothesis("claims")
    build(made.node("output", "logits@END"))
    return made


def refused(model: Model, build: Claim, match: str, data: Dataset = WHOLE) -> None:
    with pytest.raises(sj.errors.HypothesisError, match=match):
        sj.scrub(model, hypothesis(build), data, samples=4, seeds=1)


def without_effect(model: Model, build: Claim, name: str) -> bool:
    """Tell whether the rows drawn for a claim change nothing, with no check in the way."""
    stated = hypothesis(build)
    tree = treeify(model, stated)
    table = draw(tree.sources, stated, WHOLE, 40, 0)
    other = {**table, name: (table[name] + 1) % ROWS}
    one, two = (compute(model, [tree.scrubbed], WHOLE, drawn).values[0] for drawn in (table, other))
    return torch.equal(one, two)


@pytest.mark.parametrize(
    "build",
    [
        lambda top: top.reads("a", "L0.attn.out@2", "first"),
        lambda top: top.reads("a", "L1.mlp.out@-2", "first"),
        lambda top: top.reads("a", "L0.H1.out@0", "first"),
        lambda top: top.reads("a", "embed@2", "first"),
        lambda top: top.reads("stream", "L1.resid_post@-1", "exact").reads("a", "L0.mlp.out@-3", "first"),
        lambda top: top.reads("head", "L1.H0.out@-1", "first").reads("a", "L1.H0.q_in@1", "first"),
    ],
)
def test_a_claim_at_a_position_that_its_reader_does_not_read_is_refused(model: Model, build: Claim) -> None:
    refused(model, build, r"claim 'a': .* does not read .*@.* by direct paths.*claim the position that '\w+' reads")


@pytest.mark.parametrize(
    "build",
    [
        lambda top: top.reads("a", "L0.attn.out@-1", "first"),
        lambda top: top.reads("a", "L0.attn.out@5", "first"),  # the last position of rows of six
        lambda top: top.reads("a", "L0.attn.out@2", "first", via="all"),
        lambda top: top.reads("head", "L1.H0.out@-1", "first").reads("a", "L1.H0.v_in@1", "first"),
        lambda top: top.reads("head", "L1.H0.out@-1", "first").reads("a", "L0.attn.out@1", "first"),
    ],
)
def test_a_claim_that_its_reader_reads_is_tested(model: Model, build: Claim) -> None:
    assert not without_effect(model, build, "a")
    sj.scrub(model, hypothesis(build), WHOLE, samples=4, seeds=1)


def test_positions_from_both_ends_are_one_where_a_row_has_that_length(model: Model) -> None:
    claim = lambda top: top.reads("a", "L0.attn.out@3", "first")  # noqa: E731
    sj.scrub(model, hypothesis(claim), data_of(MIXED), samples=4, seeds=1)  # some rows have four tokens
    refused(model, claim, "does not read L0.attn.out@3 by direct paths")


def test_another_heads_reading_is_not_read(model: Model) -> None:
    refused(
        model,
        lambda top: top.reads("head", "L1.H0.out@-1", "first").reads("a", "L1.H1.q_in", "first"),
        r"claim 'a': L1\.H0\.out@-1 does not read L1\.H1\.q_in",
    )


def test_a_claim_that_another_covers_at_its_position_is_refused(model: Model) -> None:
    def build(top: Any) -> None:
        top.reads("a", "L1.H0.out@-1", "first")
        top.reads("b", "L1.attn.out@-1", "first")

    refused(model, build, "claim 'a': another claim takes the place of all that reads")


def test_the_same_datum_elsewhere_is_not_the_claim(model: Model) -> None:
    """An exact claim's value is part of another exact claim's, and is replaced at its own place all the same."""

    def build(top: Any) -> None:
        top.reads("a", "L0.mlp.out", "exact", via="all")
        top.reads("b", "L1.resid_pre", "exact", via="all")

    refused(model, build, "claim 'a': another claim")


def test_what_is_the_same_for_every_datum_cannot_be_claimed(model: Model) -> None:
    assert "batch" not in model.circuit.table["pos_embed"].axis_names
    refused(
        model,
        lambda top: top.reads("a", "pos_embed", "first"),
        r"pos_embed is the same for every datum.*claim what depends on the datum: embed",
    )
    edited = sj.edit(model, sj.zero("L0.H0.out"))
    refused(edited, lambda top: top.reads("a", "L0.H0.out", "first"), r"L0\.H0\.out is the same for every datum")


def test_rows_that_begin_at_different_places_are_refused_for_claims_about_all_positions(model: Model) -> None:
    whole: Claim = lambda top: top.reads("a", "L1.attn.out", "first")  # noqa: E731
    ragged = data_of(MIXED, left=True)
    refused(
        model,
        whole,
        r"claim 'a': L1\.attn\.out is about all positions, and rows of 'rows' begin at different places \(row 0 at 2, row 1 at 1\)",
        ragged,
    )
    refused(
        model,
        lambda top: top.reads("b", "L1.H0.out@-1", "exact").reads("a", "L1.H0.pattern", "exact", via="all"),
        "claim 'a'.*all positions",
        ragged,
    )
    for data in (data_of(MIXED), data_of(np.full(ROWS, 4), left=True)):
        sj.scrub(model, hypothesis(whole), data, samples=4, seeds=1)
    sj.scrub(model, hypothesis(lambda top: top.reads("a", "L1.attn.out@-1", "first")), ragged, samples=4, seeds=1)


UP, SIDE = Part.along("up", np.eye(8)[0]), Part.along("side", np.eye(8)[1])
REFUSED: dict[str, tuple[Claim, str]] = {
    "unknown input": (lambda top: top.reads("a", "attention_msk", "first"), r"claim 'a': .*its inputs are input_ids, attention_mask"),
    "unread input": (lambda top: top.reads("a", "L1.mlp.out@-1", "first").reads("b", "attention_mask", "first"), r"claim 'b': .* does not read \.attention_mask by direct paths"),
    "below an input": (lambda top: top.reads("a", "attention_mask", "first", via="all").reads("b", "embed", "first", via="all"), "claim 'b': .* does not read embed"),
    "unknown component": (lambda top: top.reads("a", "embed", "first", via="avoiding L9.mlp.out"), r"via='avoiding L9\.mlp\.out': .*layer 9"),
    "paths that do not exist": (lambda top: top.reads("a", "L1.mlp.out@-1", "first", via="through L0.mlp.out"), r"does not read L1\.mlp\.out@-1 by paths through L0\.mlp\.out"),
    "direct paths of a module": (lambda top: top.reads("a", ".blocks.0", "first", via="through L1.mlp.out"), "direct paths are known between named sites only"),
    "ranges that meet": (lambda top: (top.reads("a", "L1.mlp.out@0..3", "first"), top.reads("b", "L1.mlp.out@3", "first")), "what L1.mlp.out at position 3 and L1.mlp.out at positions 0..3 have in common is claimed twice"),
    "a whole and its part": (lambda top: (top.reads("a", "L1.mlp.out@-1", "first"), top.reads("b", "L1.mlp.out@-1", "first", part=UP)), "have in common is claimed twice"),
    "two ways to part": (lambda top: (top.reads("a", "L1.mlp.out@-1", "first", part=UP), top.reads("b", "L1.mlp.out@-1", "first", part=SIDE)), "have in common is claimed twice"),
    "a part of one place by another name": (lambda top: (top.reads("a", "L0.resid_post@-1", "first", part=UP), top.reads("b", "L1.resid_pre@-1", "first", part=SIDE)), "are about one place"),
    "a part of another width": (lambda top: top.reads("a", "L1.H0.z@-1", "first", part=UP), "part 'up' has vectors of 8 numbers, and the value it is claimed of has the axes .*d_head=4"),
    "each of each": (lambda top: top.reads("a", "L1.resid_pre", "first", each=True, via="all").reads("b", "L0.mlp.out", "first", each=True), "claim 'b': each position of each position"),
    "a value for each position": (lambda top: top.reads("a", "L1.mlp.out", "token"), "feature 'token' has values of shape .* and 'a' has one datum for all positions: .* claim each=True"),
    "an unknown feature of the rest": (lambda top: top.reads("a", "L1.H0.out@-1", "first", others="fist").reads("b", "L1.H0.q_in", "first"), "no feature 'fist'.*did you mean first"),
    "a row that is not there": (lambda top: top.reads("a", "L1.H0.out@-1", "first", others=99).reads("b", "L1.H0.q_in", "first"), "reads rows of 'a/other' that the data"),
    "a result at several positions": (lambda top: top.owner.__dict__.update(_top=None) or top.owner.node("whole", "logits@0..3"), "names several positions: begin a hypothesis at one"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused_before_anything_is_run(model: Model, case: str) -> None:
    build, match = REFUSED[case]
    refused(model, build, match)


def test_a_range_of_positions_needs_rows_that_begin_at_one_place(model: Model) -> None:
    claim: Claim = lambda top: top.reads("a", "L1.mlp.out@-3..-1", "first")  # noqa: E731
    refused(
        model,
        claim,
        r"claim 'a': L1\.mlp\.out at positions -3..-1 is about positions -3..-1, and rows",
        data_of(MIXED, left=True),
    )
    mask: Claim = lambda top: top.reads("a", "attention_mask", "first", via="all")  # noqa: E731
    refused(model, mask, "claim 'a': attention_mask is about all positions, and rows", data_of(MIXED, left=True))
    each: Claim = lambda top: top.reads("a", "L1.mlp.out", "token", each=True)  # noqa: E731
    refused(model, each, "claim 'a': .* is about all positions, and rows", data_of(MIXED, left=True))
    sj.scrub(model, hypothesis(mask), data_of(MIXED), samples=4, seeds=1)


def test_the_sizes_of_classes_are_listed_position_by_position(model: Model) -> None:
    result = sj.scrub(
        model, hypothesis(lambda top: top.reads("a", "L1.mlp.out", "token", each=True)), WHOLE, samples=4, seeds=1
    )
    values = WHOLE.feature("token").values
    smallest = min(int(count) for column in values.T for count in np.unique(column, return_counts=True)[1])
    assert (result.classes["token"].classes, result.classes["token"].smallest) == (2, smallest)
    apart = Feature("apart", np.tile(np.arange(ROWS)[:, None], (1, LENGTH)))
    refused(model, lambda top: top.reads("a", "L1.mlp.out", apart, each=True), "tells all 30 rows of 'rows' apart")


def test_a_result_keeps_the_hypothesis_as_it_was(model: Model) -> None:
    feature = Feature("given", np.arange(ROWS) % 3)
    stated = sj.Hypothesis("claims")
    top = stated.node("output", "logits@END")
    one = top.reads("a", "L1.attn.out@-1", feature)
    result = sj.scrub(model, stated, WHOLE, samples=10, seeds=1)
    before = result.to_dict(), str(result.hypothesis), result.hypothesis.digest
    assert (result.hypothesis.to_dict(), result.hypothesis.digest) == (stated.to_dict(), stated.digest)
    top.reads("b", "L0.mlp.out@-1", Feature("later", np.arange(ROWS) % 2))
    one.reads("c", "L0.attn.out@-1", "first")
    assert (result.to_dict(), str(result.hypothesis), result.hypothesis.digest) == before
    assert set(result.hypothesis.features) == {"given"}
    for add in (result.hypothesis.node, lambda: result.hypothesis.keep(feature)):
        with pytest.raises(sj.errors.HypothesisError, match="a result keeps this hypothesis as it was scrubbed"):
            add()
    assert [claim.name for claim in stated.claims()] == ["output", "a", "c", "b"]


def test_a_replay_says_that_no_seed_was_used(model: Model) -> None:
    stated = hypothesis(lambda top: top.reads("a", "L1.attn.out@-1", "first"))
    first = sj.scrub(model, stated, WHOLE, samples=10, seeds=[3, 5])
    again = sj.scrub(model, stated, WHOLE, table=first.table)
    assert (first.facts["seeds"], again.facts["seeds"]) == ([3, 5], None)
    assert again.fingerprint == first.fingerprint
    assert replace(again, scrubbed=0.0).fingerprint != first.fingerprint
