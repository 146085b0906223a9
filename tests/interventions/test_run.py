"""Interventions change what hooks that do the same by hand change, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scrubjay as sj
from scrubjay.errors import AddressError, InputError, ScrubjayError
from small_models import (
    HEADS,
    KINDS,
    KV_HEADS,
    LAYERS,
    WIDTH,
    Spot,
    activation,
    batch,
    build,
    by_head,
    captured,
    load,
    logits_of,
    spots,
    values,
    with_changes,
)  # fmt: skip

every_kind = pytest.mark.parametrize("kind", KINDS)
D_HEAD = WIDTH // HEADS
TOLERANCE = 2e-5
"""The greatest difference of a logit; logits have unit scale."""


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def real(inputs: dict[str, Tensor]) -> Tensor:
    return inputs["attention_mask"].bool()


def distance(one: Tensor, two: Tensor, inputs: dict[str, Tensor]) -> float:
    """Return the greatest difference on real rows."""
    return float((one - two)[real(inputs)].abs().max())


def agrees(
    kind: str, inputs: dict[str, Tensor], site: str, change: Callable[[Tensor], Tensor], *interventions: Any
) -> None:
    """Assert that interventions give the logits of the module with the value at `site` changed by a hook, and change them."""
    module, model = captured(kind)
    expected = with_changes(module, [(spots(kind, module)[site], change)], inputs)
    got = sj.run(model, inputs, interventions=interventions).logits
    assert distance(got, expected, inputs) <= TOLERANCE
    assert distance(got, logits_of(module, inputs), inputs) > 0.001


def at(inputs: dict[str, Tensor], position: int) -> Tensor:
    """Return the mask (batch, query, 1) of one position, counted among the real tokens of each row."""
    found = torch.zeros_like(real(inputs))
    for row, mask in enumerate(real(inputs)):
        found[row, mask.nonzero().flatten()[position]] = True
    return found[:, :, None]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- laws of the values ---


@every_kind
def test_each_addition_of_the_stream_is_the_sum_of_its_named_parts(kind):
    _, model = captured(kind)
    inputs = batch()
    run = sj.run(
        model, inputs, keep=["L*.resid_pre", "L*.resid_mid", "L*.resid_post", "L*.attn.out", "L*.mlp.out", "L*.mlp.in"]
    )

    def value(address: str) -> Tensor:
        return run[address].as_tensor()

    for layer in range(LAYERS):
        here = f"L{layer}."
        mid = value(here + "resid_pre") + value(here + "attn.out")
        assert distance(value(here + "resid_mid"), mid, inputs) <= 1e-6
        stream = value(here + "mlp.in") if kind == "bert" else value(here + "resid_mid")
        assert distance(value(here + "resid_post"), stream + value(here + "mlp.out"), inputs) <= 1e-6


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_stream_of_a_pre_norm_model_is_the_sum_of_all_that_is_written(kind):
    _, model = captured(kind)
    inputs = batch()
    ends = ["embed", "pos_embed"] if kind == "gpt2" else ["embed"]
    run = sj.run(model, inputs, keep=[*ends, "L*.attn.out", "L*.mlp.out", "L*.resid_post"])
    total = sum(run[end].as_tensor() for end in ends)
    for layer in range(LAYERS):
        total = total + run[f"L{layer}.attn.out"].as_tensor() + run[f"L{layer}.mlp.out"].as_tensor()
        assert distance(run[f"L{layer}.resid_post"].as_tensor(), total, inputs) <= 5e-6
    assert model.anatomy.additive


@every_kind
def test_the_outputs_of_heads_and_the_bias_make_up_the_output_projection(kind):
    module, model = captured(kind)
    inputs = batch()
    run = sj.run(model, inputs, keep=["L*.H*.out", "L*.attn.o"])
    for layer in range(LAYERS):
        bias = spots(kind, module)[f"L{layer}.attn.o"].part.bias
        total = run[f"L{layer}.H*.out"].as_tensor().sum(0) + (0 if bias is None else bias.detach())
        assert distance(run[f"L{layer}.attn.o"].as_tensor(), total, inputs) <= 5e-6


@every_kind
def test_patterns_are_distributions_over_what_may_be_read(kind):
    _, model = captured(kind)
    inputs = batch()
    run = sj.run(model, inputs, keep=["L*.attn.pattern"])
    for layer in range(LAYERS):
        pattern = run[f"L{layer}.attn.pattern"]
        assert pattern.names == ("batch", "head", "query", "key")
        rows = pattern.as_tensor().transpose(1, 2)[real(inputs)]  # (row, head, key)
        assert float((rows.sum(-1) - 1).abs().max()) <= 1e-6
        hidden = ~real(inputs)[:, None, :].expand(-1, real(inputs).shape[1], -1)
        if kind != "bert":
            hidden = hidden | torch.ones(hidden.shape[1:], dtype=torch.bool).triu(1)
        barred = hidden[real(inputs)][:, None, :].expand(rows.shape)
        assert barred.any()
        assert (rows[barred] == 0).all()


@every_kind
def test_the_mlp_applies_its_nonlinearity_to_what_enters_it(kind):
    _, model = captured(kind)
    run = sj.run(model, batch(), keep=["L1.mlp.pre", "L1.mlp.post", *(["L1.mlp.up"] if kind == "llama" else [])])
    up = run["L1.mlp.up"].as_tensor() if kind == "llama" else 1
    expected = activation(kind, run["L1.mlp.pre"].as_tensor()) * up
    assert float((run["L1.mlp.post"].as_tensor() - expected).abs().max()) <= 1e-5


# --- heads ---


@pytest.mark.parametrize("site", ["z", "out"])
@every_kind
def test_zeroing_a_head_is_zeroing_its_rows_of_the_output_projection(kind, site):
    inputs = batch()
    _, model = captured(kind)
    for layer, head in ((0, 1), (LAYERS - 1, 3)):
        module = build(kind)
        weight = spots(kind, module)[f"L{layer}.attn.o"].part.weight
        rows = slice(head * D_HEAD, (head + 1) * D_HEAD)
        with torch.no_grad():
            if kind == "gpt2":
                weight[rows] = 0
            else:
                weight[:, rows] = 0
        got = sj.run(model, inputs, interventions=[sj.zero(f"L{layer}.H{head}.{site}")]).logits
        assert distance(got, logits_of(module, inputs), inputs) <= TOLERANCE
        assert distance(got, sj.run(model, inputs).logits, inputs) > 0.01


@pytest.mark.parametrize("site", ["q", "k", "v", "q_rot", "k_rot", "scores", "pattern", "q_in", "k_in", "v_in"])
@every_kind
def test_a_change_inside_one_head_touches_that_head_alone(kind, site):
    _, model = captured(kind)
    inputs = batch()
    keep = ["L1.H*.z", "L1.H*.k", "L1.H*.v", "L1.H*.q"]
    clean = sj.run(model, inputs, keep=keep)
    change = sj.apply(f"L1.H2.{site}", lambda value: value * 1.5 + torch.sin(torch.arange(value.shape[-1]) * 1.0))
    changed = sj.run(model, inputs, keep=keep, interventions=[change])
    for head in range(HEADS):
        same = torch.equal(
            clean[f"L1.H{head}.z"].as_tensor()[real(inputs)], changed[f"L1.H{head}.z"].as_tensor()[real(inputs)]
        )
        assert same == (head != 2)
    assert distance(clean.logits, changed.logits, inputs) > 0.001


def test_a_patch_of_one_heads_copy_of_a_shared_key_is_that_heads_alone():
    """Compared with the module, its key projection doubled so that each query head has keys of its own."""
    _, model = captured("llama")
    module, inputs = build("llama"), batch()
    attention = module.model.layers[1].self_attn
    with torch.no_grad():
        for part in (attention.k_proj, attention.v_proj):
            rows = part.weight.unflatten(0, (KV_HEADS["llama"], D_HEAD)).repeat_interleave(2, 0)
            part.weight = nn.Parameter(rows.flatten(0, 1).clone())
        attention.num_key_value_groups = 1
        assert distance(logits_of(module, inputs), sj.run(model, inputs).logits, inputs) <= TOLERANCE
        attention.k_proj.weight[2 * D_HEAD : 3 * D_HEAD] = 0
    got = sj.run(model, inputs, interventions=[sj.zero("L1.H2.k")]).logits
    assert distance(got, logits_of(module, inputs), inputs) <= TOLERANCE


@pytest.mark.parametrize("site", ["k", "v", "k_rot"])
def test_a_change_of_a_shared_head_touches_exactly_its_group(site):
    _, model = captured("llama")
    inputs = batch()
    clean = sj.run(model, inputs, keep="L0.H*.z")
    changed = sj.run(
        model, inputs, keep="L0.H*.z", interventions=[sj.apply(f"L0.KV1.{site}", lambda value: value * 2 + 0.3)]
    )
    touched = [
        not torch.equal(
            clean[f"L0.H{head}.z"].as_tensor()[real(inputs)], changed[f"L0.H{head}.z"].as_tensor()[real(inputs)]
        )
        for head in range(HEADS)
    ]
    # softmax does not see a constant added to all keys' scores alike, but the factor 2 it does
    assert touched == [False, False, True, True]
    agrees("llama", inputs, "L0.attn.v", lambda value: torch.cat([value[..., :D_HEAD], value[..., D_HEAD:] * 2 + 0.3], -1),
           sj.apply("L0.KV1.v", lambda value: value * 2 + 0.3))  # fmt: skip


# --- each intervention, against a hook that does it by hand ---

STREAM = ("L0.resid_pre", "L0.resid_post", "L0.attn.out", "L0.attn.o", "L1.attn.out", "L1.mlp.out", "embed")


@pytest.mark.parametrize(
    "site", [*STREAM, "L0.mlp.pre", "L0.mlp.post", "L0.attn.q", "L0.attn.k", "L0.attn.v", "L0.attn.z"]
)
@every_kind
def test_patching_from_another_run_is_what_a_hook_gives(kind, site):
    """At every position, and at one, of rows padded on both sides."""
    if site in {"L0.resid_pre", "embed"} and kind == "bert":
        site = "L1.resid_pre"
    module, model = captured(kind)
    if site == "L0.mlp.pre" and kind == "llama":
        site = "L0.mlp.gate"
    inputs, other = batch(), {**batch(), "input_ids": batch(seed=5)["input_ids"]}
    spot = spots(kind, module)[site]
    from_other = values(module, {site: spot}, other)[site]
    run = sj.run(model, other, keep=[site, f"{site}@-2"])
    agrees(kind, inputs, site, lambda _: from_other, sj.patch(site, run))
    agrees(
        kind, inputs, site, lambda value: torch.where(at(inputs, -2), from_other, value), sj.patch(f"{site}@-2", run)
    )
    agrees(
        kind, inputs, site, lambda value: torch.where(at(inputs, -2), from_other, value), sj.patch(f"{site}@-2", other)
    )


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_patching_the_middle_of_a_layer_changes_what_the_mlp_reads_and_what_it_adds_to(kind):
    """No hook of the module changes both, but one on the attention's output does, by the difference."""
    module, _ = captured(kind)
    inputs, other = batch(), {**batch(), "input_ids": batch(seed=5)["input_ids"]}
    table = {site: spots(kind, module)[site] for site in ("L0.resid_pre", "L0.resid_mid")}
    here, there = values(module, table, inputs), values(module, table, other)
    agrees(
        kind,
        inputs,
        "L0.attn.out",
        lambda _: there["L0.resid_mid"] - here["L0.resid_pre"],
        sj.patch("L0.resid_mid", other),
    )


@pytest.mark.parametrize("padding", ["left", "right", "none"])
@pytest.mark.parametrize("position", [0, 3, -1, -4])
@every_kind
def test_positions_count_real_tokens(kind, position, padding):
    inputs = batch(padding=padding)
    agrees(
        kind, inputs, "L0.mlp.out", lambda value: torch.where(at(inputs, position), 0.0, value), sj.zero(f"L0.mlp.out@{position}")
    )  # fmt: skip
    module, model = captured(kind)
    expected = values(module, {"x": spots(kind, module)["L0.mlp.out"]}, inputs)["x"]
    kept = sj.run(model, inputs, keep=f"L0.mlp.out@{position}")[f"L0.mlp.out@{position}"]
    assert kept.names == ("batch", "model")
    assert float((kept.as_tensor() - expected[at(inputs, position)[..., 0]]).abs().max()) <= 1e-5


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize(("text", "places"), [("1..3", [1, 2, 3]), ("-3..-1", [-3, -2, -1]), ("END", [-1])])
def test_ranges_of_positions_and_the_end(text, places, padding):
    inputs = batch(padding=padding)
    chosen = torch.stack([at(inputs, place) for place in places]).any(0)
    agrees("gpt2", inputs, "L0.mlp.out", lambda value: torch.where(chosen, 0.0, value), sj.zero(f"L0.mlp.out@{text}"))
    _, model = captured("gpt2")
    run = sj.run(model, inputs, keep=["L0.mlp.out", f"L0.mlp.out@{text}"])
    kept = run[f"L0.mlp.out@{text}"]
    whole = run["L0.mlp.out"].as_tensor()
    expected = torch.stack([whole[at(inputs, place)[..., 0]] for place in places], 1)
    assert torch.equal(kept.as_tensor().reshape(expected.shape), expected)


def test_a_range_with_ends_from_both_sides_is_all_between():
    inputs = batch(padding="left")
    edges = at(inputs, 0) | at(inputs, -1)
    agrees("gpt2", inputs, "L0.mlp.out", lambda value: torch.where(edges, value, 0.0), sj.zero("L0.mlp.out@1..-2"))


@every_kind
def test_replace_add_and_project_out(kind):
    inputs, site = batch(), "L0.attn.out"
    vector, rows = numbers(WIDTH), numbers(2, WIDTH, seed=1)
    agrees(kind, inputs, site, lambda value: vector.expand(value.shape), sj.replace(site, vector))
    agrees(kind, inputs, site, lambda value: torch.full_like(value, 0.5), sj.replace(site, 0.5))
    agrees(kind, inputs, site, lambda value: value + 3 * vector, sj.add(site, vector, scale=3))
    agrees(kind, inputs, "L0.mlp.post", lambda value: value - 0.25, sj.add("L0.mlp.post", -0.25))
    unit = vector / vector.norm()
    agrees(kind, inputs, site, lambda value: value - (value @ unit)[..., None] * unit, sj.project_out(site, vector))
    # the projection on a span by least squares: the rows are not orthogonal, and one is given twice
    kernel = rows.T @ torch.linalg.inv(rows @ rows.T) @ rows
    agrees(
        kind, inputs, site, lambda value: value - value @ kernel, sj.project_out(site, torch.cat([rows, rows[:1] * 2]))
    )


@every_kind
def test_a_tensor_given_for_every_row_and_position(kind):
    inputs, site = batch(), "L1.mlp.out"
    table = numbers(*inputs["input_ids"].shape, WIDTH)
    agrees(kind, inputs, site, lambda _: table, sj.replace(site, table))
    agrees(kind, inputs, site, lambda value: value + table, sj.add(site, table))


@every_kind
def test_apply_and_splice(kind):
    inputs, site = batch(), "L0.mlp.out"
    agrees(
        kind, inputs, site, lambda value: value.cumsum(1).tanh(), sj.apply(site, lambda value: value.cumsum(1).tanh())
    )
    torch.manual_seed(3)
    coder = nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, WIDTH))
    agrees(kind, inputs, site, lambda value: coder(value).detach(), sj.splice(site, coder))


@every_kind
def test_means_are_over_real_tokens_by_position(kind):
    module, _ = captured(kind)
    inputs, over, site = batch(rows=4, length=9), batch(rows=6, length=14, seed=8), "L0.attn.out"
    found = values(module, {site: spots(kind, module)[site]}, over)[site]
    longest = int(real(over).sum(1).max())
    moved = [found[row, mask.nonzero().flatten()] for row, mask in enumerate(real(over))]
    table = torch.stack(
        [torch.stack([row[place] for row in moved if len(row) > place]).mean(0) for place in range(longest)]
    )
    place = inputs["position_ids"]
    agrees(kind, inputs, site, lambda _: table[place], sj.mean(site, over))
    agrees(
        kind, inputs, site, lambda value: torch.cat(moved).mean(0).expand(value.shape), sj.mean(site, over, by="all")
    )


@every_kind
def test_resampling_takes_whole_rows(kind):
    """Each row of the run gets, position by position, the values of one row of the other data; the seed chooses which."""
    module, model = captured(kind)
    inputs, over, site = batch(rows=5, length=9, padding="left"), batch(rows=6, length=14, seed=8), "L0.attn.out"
    found = values(module, {site: spots(kind, module)[site]}, over)[site]
    got = sj.run(model, inputs, keep=site, interventions=[sj.resample(site, over, seed=4)])
    again = sj.run(model, inputs, keep=site, interventions=[sj.resample(site, over, seed=4)])
    other = sj.run(model, inputs, keep=site, interventions=[sj.resample(site, over, seed=5)])
    assert torch.equal(got.logits, again.logits)
    assert not torch.equal(got.logits, other.logits)
    value = got[site].as_tensor()
    taken: list[int] = []
    for row, mask in enumerate(real(inputs)):
        mine = value[row, mask]
        fits = [
            source
            for source, there in enumerate(real(over))
            if int(there.sum()) >= len(mine) and torch.allclose(found[source, there][: len(mine)], mine, atol=1e-5)
        ]
        assert len(fits) == 1
        taken += fits
    assert len(set(taken)) > 1
    assert (
        distance(got.logits, with_changes(module, [(spots(kind, module)[site], lambda _: value)], inputs), inputs)
        <= TOLERANCE
    )


@every_kind
def test_interventions_apply_in_order_each_to_what_the_others_left(kind):
    inputs, vector = batch(), numbers(WIDTH)
    site = "L0.mlp.out"
    agrees(
        kind,
        inputs,
        site,
        lambda value: value * 2 + vector,
        sj.apply(site, lambda value: value * 2),
        sj.add(site, vector),
    )
    agrees(
        kind,
        inputs,
        site,
        lambda value: (value + vector) * 2,
        sj.add(site, vector),
        sj.apply(site, lambda value: value * 2),
    )
    module, model = captured(kind)
    table = spots(kind, module)
    both = [(table["L0.attn.out"], lambda value: value * 0), (table["L1.mlp.out"], lambda value: value + vector)]
    got = sj.run(model, inputs, interventions=[sj.zero("L0.attn.out"), sj.add("L1.mlp.out", vector)]).logits
    assert distance(got, with_changes(module, both, inputs), inputs) <= TOLERANCE


@every_kind
def test_a_neuron_a_norm_scale_and_a_read(kind):
    module, model = captured(kind)
    inputs = batch()

    def without_neuron(value: Tensor) -> Tensor:
        return torch.where(torch.arange(value.shape[-1]) == 5, 0.0, value)

    agrees(kind, inputs, "L1.mlp.post", without_neuron, sj.zero("L1.N5"))
    # freezing a norm's divisor to the one of other inputs: what the norm reads, times its own divisor, over the other
    other = {**inputs, "input_ids": batch(seed=9)["input_ids"]}
    scales = sj.run(model, inputs, keep="L0.ln1.scale")["L0.ln1.scale"].as_tensor()
    frozen = sj.run(model, other, keep="L0.ln1.scale")
    part = spots(kind, module)["L0.ln1"].part
    bias = getattr(part, "bias", None)
    shift = torch.zeros(WIDTH) if bias is None else bias.detach()
    factor = (scales / frozen["L0.ln1.scale"].as_tensor())[..., None]
    expected = with_changes(module, [(Spot(part), lambda value: (value - shift) * factor + shift)], inputs)
    got = sj.run(model, inputs, interventions=[sj.patch("L0.ln1.scale", frozen)]).logits
    assert distance(got, expected, inputs) <= TOLERANCE
    assert distance(got, logits_of(module, inputs), inputs) > 0.001
    # what the MLP reads changes, the stream itself does not
    got = sj.run(model, inputs, interventions=[sj.zero("L1.mlp.in")]).logits
    silent = values(module, {"out": spots(kind, module)["L1.mlp.out"]}, inputs)["out"]
    zeroed = with_changes(
        module,
        [(Spot(first_of_mlp(kind, module), of_input=True), lambda value: read_nothing(kind, module, value))],
        inputs,
    )
    assert silent.shape == (*inputs["input_ids"].shape, WIDTH)
    assert distance(got, zeroed, inputs) <= TOLERANCE


def first_of_mlp(kind: str, module: Any) -> nn.Module:
    """Return the part whose input is what the MLP reads of its norm's output, in layer 1."""
    if kind == "gpt2":
        return module.transformer.h[1].mlp
    return module.model.layers[1].mlp if kind == "llama" else module.bert.encoder.layer[1].intermediate


def read_nothing(kind: str, module: Any, value: Tensor) -> Tensor:
    """Return what the norm makes of a stream of zeros: its bias, where it stands before the MLP and has one."""
    if kind != "gpt2":
        return torch.zeros_like(value)
    return module.transformer.h[1].ln_2.bias.detach().expand(value.shape)


# --- what must not change ---

IDENTITIES = (
    "L0.resid_pre",
    "L1.resid_post",
    "L0.H1.q",
    "L1.H2.k",
    "L1.H0.v_in",
    "L0.H3.out",
    "L0.attn.pattern",
    "L1.N3",
    "L1.mlp.in",
    "L0.ln1.scale",
)


@every_kind
def test_no_intervention_changes_nothing_to_the_bit(kind):
    _, model = captured(kind)
    inputs = batch()
    clean = sj.run(model, inputs).logits
    assert torch.equal(sj.run(model, inputs, interventions=()).logits, clean)
    assert torch.equal(sj.run(sj.edit(model), inputs).logits, clean)
    assert torch.equal(sj.run(model, inputs, keep=model.sites.addresses).logits, clean)


@pytest.mark.parametrize("site", IDENTITIES)
@every_kind
def test_a_patch_with_itself_changes_nothing_to_the_bit(kind, site):
    _, model = captured(kind)
    inputs = batch()
    clean = sj.run(model, inputs, keep=site)
    patched = sj.run(model, inputs, interventions=[sj.patch(site, clean)]).logits
    if site.endswith((".out", "scale")):  # a head's share is added anew, a divisor divided anew
        assert distance(patched, clean.logits, inputs) <= 2e-6
    else:
        assert torch.equal(patched[real(inputs)], clean.logits[real(inputs)])
    assert torch.equal(sj.run(model, inputs).logits, clean.logits)


@every_kind
def test_edit_makes_another_model_and_composes(kind):
    module, model = captured(kind)
    inputs, vector = batch(), numbers(WIDTH)
    clean = sj.run(model, inputs).logits
    once = sj.edit(model, sj.zero("L0.H1.z"))
    twice = sj.edit(once, sj.add("L1.attn.out", vector))
    assert torch.equal(sj.run(model, inputs).logits, clean)
    both = [sj.zero("L0.H1.z"), sj.add("L1.attn.out", vector)]
    assert torch.equal(sj.run(twice, inputs).logits, sj.run(model, inputs, interventions=both).logits)
    assert torch.equal(sj.run(once, inputs, interventions=both[1:]).logits, sj.run(twice, inputs).logits)
    assert not torch.equal(sj.run(once, inputs).logits, sj.run(twice, inputs).logits)
    zeroed = (spots(kind, module)["L0.attn.z"], lambda value: by_head_zeroed(value, 1))
    assert distance(sj.run(once, inputs).logits, with_changes(module, [zeroed], inputs), inputs) <= TOLERANCE
    # another length and batch than any that the edit has seen
    assert sj.run(twice, batch(rows=2, length=5)).logits.shape[:2] == (2, 5)


def by_head_zeroed(value: Tensor, head: int) -> Tensor:
    made = by_head(value, HEADS).clone()
    made[:, :, head] = 0
    return made.flatten(2)


# --- gradients ---


@pytest.mark.parametrize(
    "site", ["L0.resid_post", "L1.attn.out", "L0.mlp.out", "L0.mlp.post", "L1.attn.q", "L0.attn.z"]
)
@every_kind
def test_gradients_are_those_of_the_hooked_module(kind, site):
    module, model = captured(kind)
    inputs = batch()
    leaf: list[Tensor] = []

    def cut(value: Tensor) -> Tensor:
        leaf.append(value.detach().requires_grad_())
        return leaf[0]

    def scalar(logits: Tensor) -> Tensor:
        return logits[0, -1, 5] - logits[1, 2, 7] + (logits[2] ** 2).mean()

    logits = with_changes(module, [(spots(kind, module)[site], cut)], inputs, gradients=True)
    (expected,) = torch.autograd.grad(scalar(logits), leaf[0])
    run = sj.run(model, inputs, keep=[site, "L1.H2.z"], differentiable=True)
    got = run.gradient(scalar(run.logits), site).as_tensor()
    expected = by_head(expected, HEADS) if site.endswith((".q", ".z")) else expected
    assert float(expected.abs().max()) > 1e-3
    assert float((got - expected).abs().max()) <= 1e-5
    with pytest.raises(InputError, match=rf"{site}: this run keeps no gradients.*differentiable=True"):
        sj.run(model, inputs, keep=site).gradient(run.logits.sum(), site)


@every_kind
def test_the_gradient_at_one_head_is_that_heads_part(kind):
    _, model = captured(kind)
    inputs = batch()
    run = sj.run(model, inputs, keep=["L1.attn.z", "L1.H2.z", "L1.H2.z@-1", "L1.N4"], differentiable=True)
    scalar = run.logits[0, -1, 5] + run.logits[1, 9, 3]
    whole = run.gradient(scalar, "L1.attn.z").as_tensor()
    assert torch.equal(run.gradient(scalar, "L1.H2.z").as_tensor(), whole[:, :, 2])
    assert torch.equal(run.gradient(scalar, "L1.H2.z@-1").as_tensor(), whole[:, :, 2][at(inputs, -1)[..., 0]])
    assert run.gradient(scalar, "L1.N4").names == ("batch", "query")


@pytest.mark.parametrize(
    "site", ["L0.ln1.scale", "L1.H2.out", "L1.H2.q", "L1.H2.pattern", "L0.ln2.normalized", "L1.KV1.v"]
)
@every_kind
def test_gradients_are_the_slopes_of_small_changes(kind, site):
    """Central differences in 64 bits, in a random direction, for values that no hook sees."""
    model = captured(kind)[1].exact()
    inputs = batch()

    def scalar(logits: Tensor) -> Tensor:
        return logits[0, -1, 5] - logits[1, 2, 7]

    run = sj.run(model, inputs, keep=site, differentiable=True)
    direction = torch.where(
        row_mask(run[site].names, real(inputs)), numbers(*run[site].as_tensor().shape).double(), 0.0
    )
    slope = run.gradient(scalar(run.logits), site)
    assert slope.names == run[site].names
    step = 1e-5
    ends = [
        scalar(sj.run(model, inputs, interventions=[sj.add(site, direction, scale=end)]).logits)
        for end in (step, -step)
    ]
    expected = float(ends[0] - ends[1]) / (2 * step)
    assert float((slope.as_tensor() * direction).sum()) == pytest.approx(expected, rel=1e-5, abs=1e-8)
    assert abs(expected) > 1e-4


def row_mask(names: tuple[str, ...], mask: Tensor) -> Tensor:
    """Return the mask (batch, query) for a value with these axes."""
    shape = [{"batch": mask.shape[0], "query": mask.shape[1]}.get(name, 1) for name in names]
    return mask.reshape(shape)


def test_one_heads_copy_of_a_shared_key_has_no_gradient_of_its_own():
    _, model = captured("llama")
    run = sj.run(model, batch(), keep=["L1.H2.k", "L1.KV1.k"], differentiable=True)
    with pytest.raises(
        AddressError, match=r"L1\.H2\.k: this value is shared by the heads of a group.*take that of the key-value head"
    ):
        run.gradient(run.logits.sum(), "L1.H2.k")
    assert run.gradient(run.logits.sum(), "L1.KV1.k").names == ("batch", "query", "d_head")


@pytest.mark.parametrize("site", ["L1.H2.q_in", "L1.H2.k_in", "L1.mlp.in"])
def test_what_one_reader_sees_has_no_gradient_of_its_own(site):
    _, model = captured("gpt2")
    run = sj.run(model, batch(), keep=site, differentiable=True)
    with pytest.raises(
        AddressError, match=rf"{site}: a gradient is taken at a value, not at what one reader sees.*take it at"
    ):
        run.gradient(run.logits.sum(), site)


# --- addresses ---


def test_wildcards_and_ranges_stack_what_they_name():
    _, model = captured("llama")
    run = sj.run(model, batch(), keep=["L*.H*.z", "L0.H1..2.pattern", "L*.resid_post"])
    assert run["L*.H*.z"].names == ("layer", "head", "batch", "query", "d_head")
    assert run["L*.H*.z"].as_tensor().shape[:2] == (LAYERS, HEADS)
    assert torch.equal(run["L*.H*.z"].as_tensor()[1, 3], run["L1.H3.z"].as_tensor())
    assert run["L0.H1..2.pattern"].names == ("head", "batch", "query", "key")
    assert torch.equal(run["L0.H1..2.pattern"].as_tensor()[1], run["L0.H2.pattern"].as_tensor())
    assert run["L*.resid_post"].names == ("layer", "batch", "query", "model")
    assert run["L0..1.resid_post"].as_tensor().shape[0] == LAYERS
    assert run["L*.H0.z"].names == ("layer", "batch", "query", "d_head")
    assert run["L0.H*.z"].names == ("head", "batch", "query", "d_head")
    assert run["L0..0.H1..1.z"].names == ("layer", "head", "batch", "query", "d_head")
    run = sj.run(model, batch(), keep=["L1.KV*.k", "L1.N*", "L0.resid_mid@0..1"])
    assert run["L1.KV*.k"].names == ("kv", "batch", "query", "d_head")
    assert run["L1.N*"].names == ("hidden", "batch", "query")
    assert run["L0.resid_mid@0..1"].names == ("batch", "position", "model")


@every_kind
def test_a_wildcard_changes_every_place_it_names(kind):
    inputs = batch()
    agrees(kind, inputs, "L0.attn.z", lambda value: value * 0, sj.zero("L0.H*.z"))
    agrees(kind, inputs, "L0.attn.z", lambda value: value * (torch.arange(WIDTH) < D_HEAD), sj.zero("L0.H1..3.z"))
    module, model = captured(kind)
    table = spots(kind, module)
    changes = [(table[f"L{layer}.attn.out"], lambda value: value * 0) for layer in range(LAYERS)]
    got = sj.run(model, inputs, interventions=[sj.zero("L*.attn.out")]).logits
    assert distance(got, with_changes(module, changes, inputs), inputs) <= TOLERANCE


SPELLINGS = {
    "blocks.1.attn.hook_z": "L1.attn.z",
    "blocks.0.hook_resid_post": "L0.resid_post",
    "blocks.0.attn.hook_pattern": "L0.attn.pattern",
    "blocks.1.attn.hook_result": "L1.H*.out",
    "blocks.0.mlp.hook_post": "L0.mlp.post",
    "ln_final.hook_scale": "ln_f.scale",
    "hook_embed": "embed",
    "1.2": "L1.H2.out",
    "a1.h2": "L1.H2.out",
    "L1H2.z": "L1.H2.z",
}


@pytest.mark.parametrize("theirs", SPELLINGS)
def test_other_spellings_name_the_same_values(theirs):
    _, model = captured("llama")
    run = sj.run(model, batch(), keep=theirs)
    assert torch.equal(run[theirs].as_tensor(), run[SPELLINGS[theirs]].as_tensor())
    changed = sj.run(model, batch(), interventions=[sj.zero(theirs)]).logits
    expected = sj.run(model, batch(), interventions=[sj.zero(SPELLINGS[theirs])]).logits
    torch.testing.assert_close(changed, expected, rtol=0, atol=0, equal_nan=True)


MODULES = {
    "gpt2": (
        "transformer.h.0.mlp",
        "transformer.h.1",
        "transformer.ln_f",
        "transformer.h.0.ln_1",
        "transformer.h.1.mlp.act",
        ".lm_head",
    ),
    "llama": (
        "model.layers.0.mlp",
        "model.layers.1",
        "model.norm",
        "model.layers.0.input_layernorm",
        "model.layers.1.mlp.up_proj",
        ".lm_head",
    ),
    "bert": (
        "bert.encoder.layer.0.output",
        "bert.encoder.layer.1",
        "bert.embeddings",
        "bert.encoder.layer.0.attention.self.query",
        "cls.predictions",
    ),
}


@pytest.mark.parametrize(("kind", "path"), [(kind, path) for kind, paths in MODULES.items() for path in paths])
def test_the_output_of_any_module_is_at_its_path(kind, path):
    module, model = captured(kind)
    inputs = batch()
    spot = Spot(module.get_submodule(path.removeprefix(".")))
    expected = values(module, {path: spot}, inputs)[path]
    run = sj.run(model, inputs, keep=path)
    assert distance(run[path].as_tensor().reshape(expected.shape), expected, inputs) <= TOLERANCE
    got = sj.run(model, inputs, interventions=[sj.apply(path, lambda value: value * 1.5)]).logits
    assert distance(got, with_changes(module, [(spot, lambda value: value * 1.5)], inputs), inputs) <= TOLERANCE


# --- runs ---


def test_a_run_says_what_it_kept():
    _, model = captured("llama")
    run = sj.run(model, batch(), keep="L0.resid_post")
    assert repr(run).startswith("<Run of llama: logits (3, 17, 101), 1 values kept")
    assert repr(model).startswith("<Model llama: 2 layers, 4 heads, ")
    with pytest.raises(
        AddressError, match=r"L1\.resid_post was not kept by this run.*keep=.*kept: logits, L0\.resid_post"
    ):
        run["L1.resid_post"]


def test_inputs_may_be_given_in_many_ways():
    _, model = captured("gpt2")
    ids = batch(padding="none")["input_ids"]
    expected = sj.run(model, {"input_ids": ids}).logits
    for given in (ids, ids.tolist(), ids.numpy(), {"input_ids": ids.tolist()}):
        assert torch.equal(sj.run(model, given).logits, expected)
    assert (
        distance(sj.run(model, ids[0]).logits, expected[:1], {"attention_mask": torch.ones_like(ids[:1])}) <= TOLERANCE
    )


def test_a_patch_that_does_not_fit_says_how_it_should_be():
    _, model = captured("gpt2")
    inputs = batch(padding="none")
    with pytest.raises(
        ScrubjayError, match=r"L0\.resid_post: the patch has 2 rows and the run has 3: give as many rows, or one"
    ):
        sj.run(model, inputs, interventions=[sj.patch("L0.resid_post", batch(rows=2, padding="none"))])
    with pytest.raises(ScrubjayError, match=r"the patch has 12 positions and the run has 17; name a position"):
        sj.run(model, inputs, interventions=[sj.patch("L0.resid_post", batch(length=12, padding="none"))])
    with pytest.raises(ScrubjayError, match=r"L1\.resid_post was not kept by the run to patch from.*keep="):
        sj.run(model, inputs, interventions=[sj.patch("L1.resid_post", sj.run(model, inputs))])
    with pytest.raises(ScrubjayError, match=r"fits one run only.*use it in sj\.run"):
        sj.edit(model, sj.patch("L1.resid_post", inputs))
    with pytest.raises(ScrubjayError, match=r"use it in sj\.run, not in sj\.edit"):
        sj.edit(model, sj.resample("L1.resid_post", inputs))


def test_a_patch_from_a_single_row_serves_all():
    _, model = captured("gpt2")
    inputs = batch(padding="none")
    one = {"input_ids": batch(rows=1, seed=7, padding="none")["input_ids"]}
    module, _ = captured("gpt2")
    whole = {key: tensor[:1] for key, tensor in inputs.items()} | one
    value = values(module, {"x": spots("gpt2", module)["L0.mlp.out"]}, whole)["x"]
    agrees("gpt2", inputs, "L0.mlp.out", lambda old: value.expand(old.shape), sj.patch("L0.mlp.out", one))
    assert load(module).layers == LAYERS
    assert model.heads == (HEADS,) * LAYERS
