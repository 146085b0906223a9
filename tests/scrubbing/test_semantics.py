"""What a scrub computes, against a slow interpreter of the published recursion (Chan et al. 2022), one sample at a time.

The interpreter knows a torch module, its hooks and its weights, and no circuit. `run` below is the recursion word for word:
one unrelated datum for each claim that reads something, shared by all that no claim below it mentions, and a fresh datum
for each claim below, which agrees with the one above on that claim's feature. Which rows are drawn is read off the scrub's
index table, so that the two are compared sample by sample and not on average.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import scrubjay as sj
from scrubjay.capture.model import Model
from scrubjay.circuit.address import Head
from scrubjay.claims.claim import Claim
from scrubjay.claims.data import Dataset, Feature
from scrubjay.scrubbing.compute import compute
from scrubjay.scrubbing.sample import draw
from scrubjay.scrubbing.tree import treeify
from scrubjay.zoo.transformer import Config, Transformer

ROWS, LENGTH, VOCAB, SAMPLES = 40, 7, 5, 6
LAYERS, HEADS, WIDTH = 3, 2, 4

Table = dict[str, np.ndarray]
Change = tuple["Site", Tensor]


# the interpreter


@dataclass(frozen=True)
class Site:
    """A place of the module: `kind` is head, mlp, resid_pre, q_in, k_in, v_in, mlp.in or logits."""

    kind: str
    layer: int = -1
    head: int = -1
    position: int | None = None

    @property
    def component(self) -> tuple[int, str]:
        """The attention or MLP it belongs to, if any."""
        return (self.layer, {"head": "attn", "mlp": "mlp"}.get(self.kind, "none"))


def site_of(claim: Claim) -> Site:
    at = claim.site.position.at if claim.site.position is not None else None
    position = at if isinstance(at, int) else None
    if claim.site.layer is None:
        return Site("logits", position=position)
    layer = claim.site.layer
    assert isinstance(layer, int)
    if isinstance(claim.site.part, Head):
        assert isinstance(claim.site.part.index, int)
        kind = "head" if claim.site.site == "out" else claim.site.site
        return Site(kind, layer, claim.site.part.index, position)
    return Site({"mlp.out": "mlp"}.get(claim.site.site, claim.site.site), layer, position=position)


@dataclass
class Interpreter:
    """Runs a module on one row at a time, with values put in place by hooks."""

    module: Transformer
    data: Dataset
    forwards: int = field(default=0)

    def place(self, row: int, position: int) -> int:
        """The place in a row of its real token `position`."""
        real = np.flatnonzero(self.data.inputs["attention_mask"][row])
        return int(real[position])

    def forward(
        self, row: int, changes: Sequence[Change] = (), frozen: dict[str, Tensor] | None = None, own: Any = None
    ) -> dict[str, Tensor]:
        """All values of a run on a row; `frozen` fixes what every component but `own` is made of."""
        self.forwards += 1
        seen: dict[str, Tensor] = {}
        ids, mask = (
            torch.from_numpy(np.array(self.data.inputs[name][[row]])) for name in ("input_ids", "attention_mask")
        )
        with self._hooked(row, changes, frozen, own, seen), torch.no_grad():
            seen["logits"] = self.module(ids, mask)
        return seen

    @contextmanager
    def _hooked(
        self, row: int, changes: Sequence[Change], frozen: dict[str, Tensor] | None, own: Any, seen: dict[str, Tensor]
    ) -> Iterator[None]:
        handles: list[Any] = []

        def before(part: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
            handles.append(part.register_forward_pre_hook(lambda _, args: (function(args[0]), *args[1:])))

        def after(part: nn.Module, function: Callable[[Tensor, Tensor], Tensor]) -> None:
            hook: Any = lambda _, args, out: function(args[0], out)  # noqa: E731 - torch's own type of it has no place for this
            handles.append(part.register_forward_hook(hook))

        def record(name: str) -> Callable[[Tensor], Tensor]:
            return lambda value: seen.setdefault(name, value)

        def recorded(name: str) -> Callable[[Tensor, Tensor], Tensor]:
            return lambda _, out: seen.setdefault(name, out)

        for layer, block in enumerate(self._blocks()):
            inner = {"attn": block.attn.o, "mlp": block.mlp.down}
            for kind, part in inner.items():
                if frozen is not None and own != (layer, kind):
                    before(part, fixed(frozen[f"{layer}.{kind}"]))
        for site, value in changes:
            self._put(site, value, row, before, after)
        for layer, block in enumerate(self._blocks()):
            attention, mlp = block.attn, block.mlp
            before(attention.o, record(f"{layer}.attn"))
            before(mlp.down, record(f"{layer}.mlp"))
            before(block, record(f"{layer}.resid_pre"))
            before(block.ln_2, record(f"{layer}.mlp.in"))
            after(mlp, recorded(f"{layer}.mlp.out"))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _blocks(self) -> list[Any]:
        return list(self.module.blocks)

    def _put(self, site: Site, value: Tensor, row: int, before: Any, after: Any) -> None:
        block: Any = self.module.blocks[site.layer]
        there = slice(site.head * WIDTH, (site.head + 1) * WIDTH)

        def at(new: Tensor, old: Tensor) -> Tensor:
            """The old value with the new one at the site's position (at all of them, if it names none)."""
            if site.position is None:
                return new
            made = old.clone()
            made[:, self.place(row, site.position)] = new
            return made

        if site.kind == "resid_pre":
            before(block, lambda old: at(value, old))
        elif site.kind == "mlp.in":
            before(block.ln_2, lambda old: at(value, old))
        elif site.kind == "mlp":
            after(block.mlp, lambda _, out: at(value, out))
        elif site.kind == "head":
            weight = block.attn.o.weight[:, there]

            def change_head(z: Tensor, out: Tensor) -> Tensor:
                share = z[..., there] @ weight.T
                return out - share + at(value, share)

            after(block.attn.o, change_head)
        else:
            part = getattr(block.attn, site.kind[0])

            def change_reading(read: Tensor, out: Tensor) -> Tensor:
                """The head's own queries, keys or values, of the stream with the value in it."""
                stream = block.ln_1(value)
                if site.position is not None:
                    stream = read.clone()
                    stream[:, self.place(row, site.position)] = block.ln_1(value)
                made = out.clone()
                made[..., there] = F.linear(stream, part.weight, part.bias)[..., there]
                return made

            after(part, change_reading)

    def read(self, seen: dict[str, Tensor], site: Site, row: int) -> Tensor:
        if site.kind == "logits":
            value = seen["logits"]
        elif site.kind == "head":
            there = slice(site.head * WIDTH, (site.head + 1) * WIDTH)
            block: Any = self.module.blocks[site.layer]
            value = seen[f"{site.layer}.attn"][..., there] @ block.attn.o.weight[:, there].T
        else:
            name = {"mlp": "mlp.out", "q_in": "resid_pre", "k_in": "resid_pre", "v_in": "resid_pre"}.get(
                site.kind, site.kind
            )
            value = seen[f"{site.layer}.{name}"]
        return value if site.position is None else value[:, self.place(row, site.position)]


def fixed(value: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda _: value


def run(claim: Claim, ref: int, sample: int, table: Table, data: Dataset, interpreter: Interpreter) -> Tensor:
    """An activation of the claim's site which the hypothesis says stands for its value on `ref`."""
    site = site_of(claim)
    if not claim.reads:
        return interpreter.read(interpreter.forward(ref), site, ref)
    other = int(table[f"{claim.name}/other"][sample])  # one random datum, shared by all its unimportant parents
    important: list[tuple[Claim, Tensor]] = []
    for child in claim.reads:
        new = ref
        if child.feature != "exact":
            new = int(table[child.name][sample])  # a fresh draw per important parent
            if child.feature is not None:
                values = data.feature(child.feature).values
                assert values[new] == values[ref]
        important.append((child, run(child, new, sample, table, data, interpreter)))
    all_paths = [(site_of(child), value) for child, value in important if child.via == "all"]
    seen = interpreter.forward(other, all_paths)
    direct = [(site_of(child), value) for child, value in important if child.via == "direct"]
    if direct:  # what the components were made of without the claims stays, but for the reader's own
        seen = interpreter.forward(other, [*all_paths, *direct], frozen=seen, own=site.component)
    return interpreter.read(seen, site, other)


# models, data, hypotheses


def module_of(direction: str, readout: str) -> Transformer:
    config: dict[str, Any] = {
        "layers": LAYERS, "heads": HEADS, "d_model": 10, "d_head": WIDTH, "d_mlp": 9, "vocabulary": VOCAB, "positions": 12, "outputs": 3,
        "direction": direction, "readout": readout,
    }  # fmt: skip
    module = Transformer(Config(**config), seed=1)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():  # far from the small initial weights, so that each path matters
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module.double().eval()


def data_of(padding: str) -> Dataset:
    random = np.random.default_rng(2)
    ids = random.integers(0, VOCAB, (ROWS, LENGTH))
    lengths = random.integers(3, LENGTH + 1, ROWS)
    places = np.arange(LENGTH)
    mask = places < lengths[:, None] if padding == "right" else places >= LENGTH - lengths[:, None]
    first = np.argmax(mask, 1)
    features = {
        "first": Feature("first", ids[np.arange(ROWS), first] % 2),
        "second": Feature("second", ids[np.arange(ROWS), first + 1] % 3),
        "length": Feature("length", lengths),
    }
    inputs = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
    return Dataset(f"{padding} padded", inputs, random.integers(0, 3, ROWS), features)


CASES = {"causal, right": ("causal", "all", "right"), "bidirectional, right": ("bidirectional", "first", "right"), "causal, left": ("causal", "all", "left")}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    module: Transformer
    model: Model
    data: Dataset
    root: str


@pytest.fixture(scope="module", params=CASES)
def setting(request: pytest.FixtureRequest) -> Setting:
    direction, readout, padding = CASES[request.param]
    module = module_of(direction, readout)
    return Setting(module, sj.load(module, cache=None), data_of(padding), "logits@-1" if readout == "all" else "logits")


def end(root: str) -> str:
    """The position that the result is read at."""
    return "@-1" if root.endswith("@-1") else "@0"


def two_heads_and_an_mlp(root: str) -> sj.Hypothesis:
    made = sj.Hypothesis("two heads of one layer, an MLP")
    top = made.node("output", root)
    top.reads("one", f"L2.H0.out{end(root)}", "first")
    top.reads("two", f"L2.H1.out{end(root)}", "first")
    top.reads("mlp", f"L1.mlp.out{end(root)}", "second")
    return made


def whole_outputs(root: str) -> sj.Hypothesis:
    """Without positions: every place of one row is put at the same place of another, whatever is padding there."""
    made = sj.Hypothesis("whole outputs")
    top = made.node("output", root)
    top.reads("head", "L0.H1.out", "first", via="all").reads("below", "L0.H1.v_in", "second", via="all")
    top.reads("mlp", "L1.mlp.out", "length").reads("head of it", "L0.H0.out", "second")
    return made


def readings(root: str) -> sj.Hypothesis:
    made = sj.Hypothesis("what a head reads")
    head = made.node("output", root).reads("head", f"L2.H1.out{end(root)}", "first")
    head.reads("asks", "L2.H1.q_in", "first").reads("asks of", "L1.H0.out", "second")
    head.reads("is found by", "L2.H1.k_in", "length")
    head.reads("gives", "L2.H1.v_in@1", "second")
    return made


def stream_at_a_position(root: str) -> sj.Hypothesis:
    made = sj.Hypothesis("the stream at a position")
    head = made.node("output", root).reads("head", f"L2.H0.out{end(root)}", "first")
    stream = head.reads("stream", "L2.resid_pre@1", "second")
    stream.reads("early head", "L0.H0.out@1", "first")
    stream.reads("early mlp", "L0.mlp.out@1", "exact").reads("its head", "L0.H1.out@1", None)
    return made


def by_all_paths(root: str) -> sj.Hypothesis:
    made = sj.Hypothesis("all paths beside direct ones")
    top = made.node("output", root)
    top.reads("mlp", "L0.mlp.out@1", "second", via="all").reads("stream", "L0.resid_pre@1", "first", via="all")
    top.reads("head", f"L1.H1.out{end(root)}", "first").reads("low", "L0.H0.out@0", "second", via="all")
    top.reads("late", f"L2.mlp.out{end(root)}", "length").reads("read", f"L2.mlp.in{end(root)}", None)
    return made


def exact_and_nothing(root: str) -> sj.Hypothesis:
    made = sj.Hypothesis("exact and nothing")
    top = made.node("output", root)
    mlp = top.reads("mlp", f"L2.mlp.out{end(root)}", "exact")
    mlp.reads("same", f"L1.H0.out{end(root)}", "exact")
    mlp.reads("none", f"L1.H1.out{end(root)}", None)
    top.reads("free", f"L2.H0.out{end(root)}", None).reads("keys", "L2.H0.k_in", "first")
    return made


def result_by_a_feature(root: str) -> sj.Hypothesis:
    made = sj.Hypothesis("the result keeps a feature")
    made.node("answer", root, "second").reads("head", f"L2.H0.out{end(root)}", "first")
    return made


HYPOTHESES = (
    two_heads_and_an_mlp,
    whole_outputs,
    readings,
    stream_at_a_position,
    by_all_paths,
    exact_and_nothing,
    result_by_a_feature,
)


def interpreted(setting: Setting, hypothesis: sj.Hypothesis, table: Table) -> Tensor:
    interpreter = Interpreter(setting.module, setting.data)
    root = hypothesis.root
    reference = table["reference" if root.feature == "exact" else root.name]
    rows = [
        run(root, int(reference[sample]), sample, table, setting.data, interpreter) for sample in range(len(reference))
    ]
    return torch.cat(rows)


def tables(setting: Setting, hypothesis: sj.Hypothesis, seed: int = 0) -> Table:
    return draw(treeify(setting.model, hypothesis).sources, hypothesis, setting.data, SAMPLES, seed)


def scrubbed(setting: Setting, hypothesis: sj.Hypothesis, table: Table) -> Tensor:
    return compute(setting.model, [treeify(setting.model, hypothesis).scrubbed], setting.data, table).values[0]


@pytest.mark.parametrize("make", HYPOTHESES, ids=lambda make: make.__name__)
def test_each_sample_is_that_of_the_published_recursion(setting: Setting, make: Callable[[str], sj.Hypothesis]) -> None:
    hypothesis = make(setting.root)
    table = tables(setting, hypothesis)
    found = scrubbed(setting, hypothesis, table)
    expected = interpreted(setting, hypothesis, table)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    plain = interpreted(setting, plain_hypothesis(setting), table)
    if hypothesis.root.feature == "exact":
        assert float((expected - plain).abs().max()) > 1e-2, (
            "the hypothesis must change something for this to say anything"
        )


def plain_hypothesis(setting: Setting) -> sj.Hypothesis:
    made = sj.Hypothesis("plain")
    made.node("output", setting.root)
    return made


@pytest.mark.parametrize("make", HYPOTHESES, ids=lambda make: make.__name__)
def test_every_source_matters_where_it_should(setting: Setting, make: Callable[[str], sj.Hypothesis]) -> None:
    """Another row for one source changes the scrubbed result exactly where the recursion says it does."""
    hypothesis = make(setting.root)
    table = tables(setting, hypothesis)
    base = scrubbed(setting, hypothesis, table)
    for name in table:
        changed = {**table, name: (table[name] + 1) % ROWS}
        moved = float((scrubbed(setting, hypothesis, changed) - base).abs().max()) > 1e-6
        assert moved == (name in data_read(hypothesis)), name


def data_read(hypothesis: sj.Hypothesis) -> set[str]:
    """The data that are read: of claims that read nothing further, their own; of every other, the unrelated one.

    The datum of a claim with claims below it is only what those agree with.
    """
    root = hypothesis.root
    found: set[str] = set()
    stack = [(root, "reference" if root.feature == "exact" else root.name)]
    while stack:
        claim, datum = stack.pop()
        if all(child.site.site != "mlp.in" for child in claim.reads):  # an MLP told what it reads reads nothing else
            found.add(f"{claim.name}/other" if claim.reads else datum)
        stack.extend((child, datum if child.feature == "exact" else child.name) for child in claim.reads)
    return found


@pytest.mark.parametrize("make", HYPOTHESES, ids=lambda make: make.__name__)
def test_labels_and_the_plain_losses_are_the_reference_datums(
    setting: Setting, make: Callable[[str], sj.Hypothesis]
) -> None:
    hypothesis = make(setting.root)
    if setting.data.name == "left padded" and any(claim.site.position is None for claim in below(hypothesis)):
        with pytest.raises(sj.errors.HypothesisError, match=r"is about all positions, and rows .* begin at different"):
            sj.scrub(setting.model, hypothesis, setting.data, samples=SAMPLES, seeds=[4])
        return
    result = sj.scrub(setting.model, hypothesis, setting.data, samples=SAMPLES, seeds=[4])
    table = dict(result.table)
    labels = torch.from_numpy(np.array(setting.data.labels[table["reference"]]))
    expected = F.cross_entropy(interpreted(setting, hypothesis, table), labels, reduction="none")
    np.testing.assert_allclose(result.per_example, expected.numpy(), atol=1e-8)
    for name, loss in (("reference", result.original), ("floor", result.floor)):
        outputs = interpreted(setting, plain_hypothesis(setting), {**table, "reference": table[name]})
        assert loss == pytest.approx(float(F.cross_entropy(outputs, labels)), abs=1e-8)


def below(hypothesis: sj.Hypothesis) -> list[Claim]:
    """All claims but the one about the result."""
    return list(hypothesis.claims())[1:]


def test_the_mask_travels_with_its_datum(setting: Setting) -> None:
    """A result that is another datum's is that of the module on that datum, padding mask and length included."""
    made = sj.Hypothesis("another's")
    made.node("answer", setting.root, "first")
    result = sj.scrub(setting.model, made, setting.data, samples=SAMPLES, seeds=1)
    lengths = setting.data.feature("length").values
    assert (lengths[result.table["answer"]] != lengths[result.table["reference"]]).any()
    interpreter = Interpreter(setting.module, setting.data)
    root = site_of(made.root)
    expected = torch.cat(
        [interpreter.read(interpreter.forward(int(row)), root, int(row)) for row in result.table["answer"]]
    )
    torch.testing.assert_close(result.outputs, expected, rtol=0, atol=1e-9)


# the draws


def test_every_claim_has_a_draw_of_its_own_and_every_reader_one_for_the_rest(setting: Setting) -> None:
    for make in HYPOTHESES:
        hypothesis = make(setting.root)
        sources = {source.name: source for source in treeify(setting.model, hypothesis).sources}
        claims = list(hypothesis.claims())
        expected = {"reference", "floor"} | {claim.name for claim in claims if claim.feature != "exact"}
        expected |= {f"{claim.name}/other" for claim in claims if claim.reads}
        assert set(sources) == expected
        above = {child.name: claim for claim in claims for child in claim.reads}
        for claim in claims:
            if claim.feature == "exact":
                continue
            parent = above.get(claim.name)
            while parent is not None and parent.feature == "exact":  # an exact claim's datum is its parent's
                parent = above.get(parent.name)
            assert sources[claim.name].parent == (parent.name if parent else "reference")
            assert sources[claim.name].feature == claim.feature
        assert all(
            sources[name].feature is None and sources[name].parent is None
            for name in expected
            if name.endswith("/other")
        )


def test_draws_are_uniform_over_the_agreeing_rows_and_independent(setting: Setting) -> None:
    hypothesis = two_heads_and_an_mlp(setting.root)
    samples = 40_000
    table = draw(treeify(setting.model, hypothesis).sources, hypothesis, setting.data, samples, 0)
    first = setting.data.feature("first").values
    for claim, feature in (("one", "first"), ("two", "first"), ("mlp", "second")):
        values = setting.data.feature(feature).values
        assert (values[table[claim]] == values[table["reference"]]).all()
        shares = np.bincount(table[claim], minlength=ROWS) / samples
        np.testing.assert_allclose(shares, 1 / ROWS, atol=5 * np.sqrt(1 / ROWS / samples))
    sizes = np.array([(first == value).sum() for value in first])
    chance = float(
        np.mean(1 / sizes)
    )  # that two independent draws of one class are one row; the reference's own row counts
    for a, b in (("one", "two"), ("one", "reference"), ("two", "reference")):
        same = float((table[a] == table[b]).mean())
        assert abs(same - chance) < 5 * np.sqrt(chance / samples), (a, b)
    for name in ("output/other", "floor"):
        same = float((table[name] == table["reference"]).mean())
        assert abs(same - 1 / ROWS) < 5 * np.sqrt(1 / ROWS / samples)


def test_a_nested_claim_agrees_with_the_datum_above_it_and_not_with_the_reference(setting: Setting) -> None:
    hypothesis = readings(setting.root)
    table = draw(treeify(setting.model, hypothesis).sources, hypothesis, setting.data, 4000, 0)
    second, first = (setting.data.feature(name).values for name in ("second", "first"))
    assert (second[table["gives"]] == second[table["head"]]).all()
    assert (second[table["asks of"]] == second[table["asks"]]).all()
    assert (first[table["asks"]] == first[table["head"]]).all()
    assert (second[table["gives"]] != second[table["reference"]]).any()
    assert (second[table["asks of"]] != second[table["head"]]).any()


# hypotheses that a scrub cannot mean


def refused(setting: Setting, build: Callable[[Any], object], match: str) -> None:
    def attempt() -> None:
        made = sj.Hypothesis("bad")
        build(made.node("output", setting.root))
        sj.scrub(setting.model, made, setting.data, samples=4, seeds=1)

    with pytest.raises(sj.errors.HypothesisError, match=match):
        attempt()


def test_a_claim_that_another_one_makes_void_is_refused(setting: Setting) -> None:
    at = end(setting.root)
    refused(
        setting,
        lambda top: (top.reads("a", f"L1.H0.out{at}", "first"), top.reads("b", "L1.H0.out", "first")),
        "claim 'a': another claim",
    )
    refused(
        setting,
        lambda top: (top.reads("a", f"L1.H0.out{at}", "first"), top.reads("b", "L1.attn.out", "first")),
        "claim 'a': another claim",
    )
    refused(
        setting,
        lambda top: (top.reads("b", "L1.attn.out", "first"), top.reads("a", "L1.H0.out", "first")),
        "claim 'a'.*replaced",
    )
    refused(
        setting,
        lambda top: (
            top.reads("a", "L0.mlp.out", "first", via="all"),
            top.reads("b", "L1.resid_pre", "first", via="all"),
        ),
        "claim 'a': another claim",
    )


def test_one_place_under_two_names_is_claimed_once(setting: Setting) -> None:
    refused(
        setting,
        lambda top: (top.reads("a", "L0.resid_post", "first"), top.reads("b", "L1.resid_pre", "first")),
        "'a' and 'b' are about one place",
    )


@pytest.mark.parametrize("name", ["reference", "floor", "output/other", ""])
def test_names_of_a_scrubs_own_data_are_taken(setting: Setting, name: str) -> None:
    refused(setting, lambda top: top.reads(name, "L1.H0.out", "first"), "cannot be called")


def test_a_table_with_columns_of_unequal_length_is_refused(setting: Setting) -> None:
    hypothesis = two_heads_and_an_mlp(setting.root)
    table = tables(setting, hypothesis)
    with pytest.raises(sj.errors.HypothesisError, match="index table has shape"):
        sj.scrub(setting.model, hypothesis, setting.data, table={**table, "one": table["one"][:5]})
    with pytest.raises(sj.errors.HypothesisError, match="type float64"):
        sj.scrub(setting.model, hypothesis, setting.data, table={**table, "one": table["one"] * 1.0})


# results


def test_a_model_whose_loss_its_input_does_not_change_recovers_nothing_and_says_so(setting: Setting) -> None:
    deaf = sj.edit(setting.model, sj.zero("logits"))
    result = sj.scrub(deaf, plain_hypothesis(setting), setting.data, samples=20, seeds=1)
    assert np.isnan(result.recovered)
    assert result.verdict.startswith("undecided")
    assert result.to_dict()["recovered"] is None
    assert result.fingerprint.startswith("sha256:")


def test_an_edited_model_is_scrubbed_as_edited(setting: Setting) -> None:
    """The edit holds on every path: equal to the interpreter on a module whose weights are changed to the same effect."""
    module = module_of(setting.module.config.direction, setting.module.config.readout)
    with torch.no_grad():
        block: Any = module.blocks[0]
        block.attn.o.weight[:, :WIDTH] = 0
    edited = Setting(module, sj.edit(setting.model, sj.zero("L0.H0.out")), setting.data, setting.root)
    hypothesis = readings(setting.root)
    table = tables(edited, hypothesis)
    torch.testing.assert_close(
        scrubbed(edited, hypothesis, table), interpreted(edited, hypothesis, table), rtol=0, atol=1e-9
    )
    hypothesis = two_heads_and_an_mlp(setting.root)
    table = tables(edited, hypothesis)
    plain = sj.scrub(setting.model, hypothesis, setting.data, table=table)
    other = sj.scrub(edited.model, hypothesis, setting.data, table=table)
    assert plain.facts["rewrites"] != other.facts["rewrites"]


def test_the_fingerprint_of_a_hypothesis_follows_its_claims_and_its_features() -> None:
    one, two = sj.Hypothesis("h"), sj.Hypothesis("h")
    for made, values in ((one, [0, 1, 1]), (two, [0, 0, 1])):
        made.node("output", "logits").reads("a", "L0.H0.out", Feature("given", np.array(values)))
    assert one.digest != two.digest
    before = one.digest
    again = sj.Hypothesis("h")
    top = again.node("output", "logits")
    top.reads("a", "L0.H0.out", Feature("given", np.array([0, 1, 1])))
    assert again.digest == before
    top.reads("b", "L0.H1.out", None)
    assert again.digest != before
