"""Claims of every form against every path followed one by one, sample by sample (`by_force`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import scrubjay as sj
from scrubbing.by_force import forced
from scrubjay.capture.model import Model
from scrubjay.claims.data import Dataset, Feature
from scrubjay.claims.parts import Part
from scrubjay.scrubbing.compute import compute
from scrubjay.scrubbing.sample import draw
from scrubjay.scrubbing.tree import treeify, with_columns
from scrubjay.zoo.transformer import Config, Transformer

ROWS, LENGTH, SAMPLES, WIDTH = 30, 6, 4, 10
RANDOM = np.random.default_rng(7)
V, OFFSET = RANDOM.normal(size=(2, WIDTH)), RANDOM.normal(size=WIDTH)


@dataclass(frozen=True)
class Setting:
    module: Any
    model: Model
    data: Dataset
    root: str

    @property
    def at(self) -> str:
        return "@-1" if self.root.endswith("@-1") else "@0"


CASES = {"causal": ("causal", "all", "left"), "bidirectional": ("bidirectional", "first", "right")}


@pytest.fixture(scope="module", params=CASES)
def setting(request: pytest.FixtureRequest) -> Setting:
    direction, readout, padding = CASES[request.param]
    shape: dict[str, Any] = {"layers": 2, "heads": 2, "d_model": WIDTH, "d_head": 4, "d_mlp": 9, "vocabulary": 5, "positions": 9, "outputs": 3}  # fmt: skip
    shape |= {"direction": direction, "readout": readout}
    module = Transformer(Config(**shape), seed=1)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
    module = module.double().eval()
    random = np.random.default_rng(2)
    ids, lengths, places = (
        random.integers(0, 5, (ROWS, LENGTH)),
        random.integers(3, LENGTH + 1, ROWS),
        np.arange(LENGTH),
    )
    mask = places < lengths[:, None] if padding == "right" else places >= LENGTH - lengths[:, None]
    features = {
        "first": Feature("first", ids[:, -1] % 2),
        "second": Feature("second", ids[:, -2] % 3),
        "length": Feature("length", lengths),
        "share": Feature("share", ids.mean(1)),
        "token": Feature("token", ids % 2),
    }
    data = Dataset(
        padding, {"input_ids": ids, "attention_mask": mask.astype(np.int64)}, random.integers(0, 3, ROWS), features
    )
    return Setting(module, sj.load(module, cache=None), data, "logits@-1" if readout == "all" else "logits")


Build = Callable[[Any, str], Any]


def each_position(top: Any, at: str) -> None:
    head = top.reads("head", f"L1.H1.out{at}", "first")
    head.reads("places", "L1.resid_pre", "token", each=True)
    head.reads("padding", "attention_mask", "length")


def each_of_a_range(top: Any, at: str) -> None:
    head = top.reads("head", f"L1.H0.out{at}", "first")
    head.reads("places", "L1.resid_pre@1..2", "token", each=True, via="all")
    head.reads("rest", "L1.resid_pre@0", "token", via="all")


def each_and_below(top: Any, at: str) -> None:
    head = top.reads("head", f"L1.H0.out{at}", "first")
    places = head.reads("places", "L1.resid_pre", "second", each=True)
    places.reads("early", "L0.H1.out", "first", via="all")
    places.reads("at one", "L0.H0.out@1", "token", via="all").reads("keys", "L0.H0.k_in", "token")
    places.reads("mlp", "L0.mlp.out", None)


def ranges(top: Any, at: str) -> None:
    head = top.reads("head", f"L1.H0.out{at}", "first")
    head.reads("begin", "L1.resid_pre@0..1", "second")
    head.reads("end", "L1.resid_pre@-1", "first")


def inputs(top: Any, at: str) -> None:
    top.reads("padding", "attention_mask", "length", via="all")
    top.reads("tokens", "input_ids", "first", via="avoiding L0.H1.out")
    top.reads("late", f"L1.H0.out{at}", "second").reads("its padding", "attention_mask", "first")


def padding_and_the_end(top: Any, at: str) -> None:
    """Where a row ends is what the datum of the rest says, also where its padding is another's."""
    head = top.reads("head", f"L1.H0.out{at}", "first")
    head.reads("padding", "attention_mask", "length")
    head.reads("end", "L1.resid_pre@-1", "second")


def along_a_direction(top: Any, at: str) -> None:
    head = top.reads("head", f"L1.H0.out{at}", "first")
    stream = head.reads("stream", "L1.resid_pre@1", "second")
    whole = stream.reads("whole", "L0.H0.out@1", "first", via="all")
    whole.reads("along", "L0.H0.out@1", "second", part=Part.along("v", V))
    stream.reads("beside", "L0.mlp.out@1", "first", part=Part.along("v", V).rest)


def both_parts(top: Any, at: str) -> None:
    top.reads("along", f"L1.H0.out{at}", "first", part=Part.along("v", V[0]))
    top.reads("beside", f"L1.H0.out{at}", "second", part=Part.along("v", V[0]).rest)
    top.reads("low", "L0.mlp.out", "first", via="all", part=Part.along("w", V[1]))


def estimates(top: Any, at: str) -> None:
    phi = Part.estimate("phi", {"share": V[0], "first": V[1]}, offset=OFFSET)
    whole = top.reads("whole", f"L1.H0.out{at}", "first")
    whole.reads("phi", f"L1.H0.out{at}", "second", part=phi)
    top.reads("error", f"L1.mlp.out{at}", "second", part=phi.rest)
    top.reads("by token", "L0.mlp.out", "first", via="all", part=Part.estimate("tokens", {"token": V[1]}))


def avoiding(top: Any, at: str) -> None:
    top.reads("embedding", "embed", "first", via="avoiding L0.H0.out, L1.mlp.out")
    top.reads("head", "L0.H1.out", "second", via="avoiding L1.H0.out")
    top.reads("mlp", f"L0.mlp.out{at}", "first")


def through(top: Any, at: str) -> None:
    top.reads("head", "L0.H1.out", "second", via="through L1.mlp.out")
    top.reads("mlp", "L0.mlp.out", "first", via="direct or through L1.H*.out avoiding L1.H1.out")
    top.reads("embedding", "embed", "first", via="through L0.H0.out, L0.mlp.out, L1.H1.out")


def all_beside_some(top: Any, at: str) -> None:
    top.reads("head", "L0.H1.out", "second", via="all")
    top.reads("mlp", "L0.mlp.out", "first", via="avoiding L1.H0.out")
    top.reads("third", "L0.H0.out", "second", via="through L0.mlp.out, L1.mlp.out")
    top.reads("direct", f"L1.H1.out{at}", "first")


def each_part_its_own(top: Any, at: str) -> None:
    top.reads("head", f"L1.H0.out{at}", "first", others="parent").reads("stream", "L0.H0.out@1", "second")
    top.reads("low", "L0.mlp.out", "second", via="all")


def open_draws(top: Any, at: str) -> None:
    top.reads("one", f"L1.H0.out{at}", "first", others="global").reads("low", "L0.mlp.out@1", "second")
    top.reads("two", f"L1.H1.out{at}", "first", others="global").reads("also low", "L0.mlp.out@1", "second")
    mlp = top.reads("mlp", f"L1.mlp.out{at}", "first", others="length")
    mlp.reads("fixed", f"L0.H0.out{at}", "first", others=3).reads("values", "L0.H0.v_in", "first")
    mlp.reads("own", f"L0.H1.out{at}", "second", others="exact").reads("keys", "L0.H1.k_in", "first")


BUILDS: tuple[tuple[Build, Any], ...] = (
    (each_position, "node"), (each_of_a_range, "node"), (each_and_below, "node"), (ranges, "node"), (inputs, "node"), (padding_and_the_end, "node"),
    (along_a_direction, "node"), (both_parts, "node"), (estimates, "node"), (avoiding, "node"), (through, "node"), (all_beside_some, "node"),
    (each_part_its_own, "node"), (each_part_its_own, "parent"), (open_draws, "node"), (along_a_direction, "global"), (avoiding, "second"),
)  # fmt: skip


@pytest.mark.parametrize(("build", "others"), BUILDS, ids=[f"{build.__name__}, {others}" for build, others in BUILDS])
def test_each_sample_is_that_of_every_path_followed(setting: Setting, build: Build, others: str) -> None:
    hypothesis = sj.Hypothesis("forms", others)
    build(hypothesis.node("output", setting.root), setting.at)
    again = sj.Hypothesis.from_dict(hypothesis.to_dict())
    assert (str(again), again.digest) == (str(hypothesis), hypothesis.digest)
    data = setting.data
    tree = treeify(setting.model, again, features=data.features)
    assert len({source.name for source in tree.sources}) == len(tree.sources)
    table = draw(tree.sources, again, data, SAMPLES, 0)
    found = compute(tree.model, [tree.scrubbed, tree.reference], with_columns(data, again, tree.columns), table)
    expected = forced(setting.module, data, hypothesis, table)
    torch.testing.assert_close(found.values[0], expected, rtol=0, atol=1e-9)
    assert float((expected - found.values[1]).abs().max()) > 1e-2, (
        "the hypothesis must change something for this to say anything"
    )
