"""A value and its sources, against sums made by hand from what hooks on the torch module see."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import families
import scrubjay as sj
import small_models as small
from scrubjay.attribution import Decomposition, decompose
from scrubjay.errors import AddressError, InputError

SITES = (
    "L1.resid_pre", "L1.resid_mid", "L1.resid_post", "L1.attn.q", "L1.H2.q", "L1.H1.k", "L1.H1.v", "L1.H1.q_rot", "L1.H2.q_in", "L1.mlp.pre",
    "L1.attn.out", "L1.mlp.out", "L1.H1.z", "L1.H1.out", "L1.resid_post@-1", "L1.ln1.normalized@2", "L1.H3.k@1..3",
)  # fmt: skip


@pytest.mark.parametrize("kind", small.KINDS)
@pytest.mark.parametrize("by", ["layers", "components", "heads", "neurons"])
def test_sources_add_up(kind: str, by: str) -> None:
    _, model = small.captured(kind)
    inputs, exact = small.batch(), model.exact()
    last = () if kind == "bert" else ("ln_f.normalized", "logits", "logits@-1")
    for site in (*SITES, *last):
        found = decompose(model, inputs, site, by)
        given = sj.run(model, inputs, keep=site)[site]
        assert found.total.names == given.names == found.values.names[1:]
        torch.testing.assert_close(found.values.as_tensor().sum(0), given.as_tensor(), atol=1e-4, rtol=0)
        torch.testing.assert_close(found.total.as_tensor(), given.as_tensor(), atol=1e-5, rtol=0)
        wide = decompose(exact, inputs, site, by)
        whole = sj.run(exact, inputs, keep=site)[site].as_tensor()
        real = whole.isfinite()
        assert float((wide.values.as_tensor().sum(0) - whole)[real].abs().max()) < 1e-10


def hooked(kind: str, inputs: dict[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
    module = small.build(kind)
    return module, small.values(module, small.spots(kind, module), inputs)


def by_hand(kind: str, module: Any, seen: dict[str, Tensor]) -> dict[str, Tensor]:
    """What each source adds to the logits, by plain products of what the hooks saw with the module's weights."""
    gpt2 = kind == "gpt2"
    blocks = module.transformer.h if gpt2 else module.model.layers
    size = small.WIDTH // small.HEADS
    written = {"embed": seen["embed"]}
    if gpt2:
        written["pos_embed"] = seen["pos_embed"]
    for layer, block in enumerate(blocks):
        weight = block.attn.c_proj.weight if gpt2 else block.self_attn.o_proj.weight.T
        for head in range(small.HEADS):
            part = slice(head * size, (head + 1) * size)
            written[f"L{layer}.H{head}.out"] = seen[f"L{layer}.attn.z"][..., part] @ weight[part]
        if gpt2:
            written[f"L{layer}.attn.b_O"] = block.attn.c_proj.bias.expand_as(seen["embed"])
        written[f"L{layer}.mlp.out"] = seen[f"L{layer}.mlp.out"]
    stream = seen["ln_f"]
    centred = stream - stream.mean(-1, keepdim=True) if gpt2 else stream
    scale = (centred.square().mean(-1, keepdim=True) + small.EPSILON).sqrt()
    norm = module.transformer.ln_f if gpt2 else module.model.norm
    unembed = module.lm_head.weight.T
    shares = {
        name: (one - one.mean(-1, keepdim=True) if gpt2 else one) / scale * norm.weight @ unembed
        for name, one in written.items()
    }
    return shares | ({"ln_f.b": (norm.bias @ unembed).expand(*stream.shape[:2], -1)} if gpt2 else {})


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@torch.no_grad()
def test_every_source_of_the_logits_is_that_of_the_module(kind: str) -> None:
    inputs = small.batch(padding="left")
    module, seen = hooked(kind, inputs)
    _, model = small.captured(kind)
    found = decompose(model, inputs, "logits")
    wanted = by_hand(kind, module, seen)
    assert set(found.sources) == set(wanted)
    real = inputs["attention_mask"].bool()
    for name, share in wanted.items():
        torch.testing.assert_close(found[name].as_tensor()[real], share[real], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_queries_read_each_source_through_the_norm_held_at_its_scale() -> None:
    inputs = small.batch()
    module, seen = hooked("llama", inputs)
    _, model = small.captured("llama")
    stream, block = seen["L1.resid_pre"], module.model.layers[1]
    scale = (stream.square().mean(-1, keepdim=True) + small.EPSILON).sqrt()
    share = (seen["L0.mlp.out"] / scale * block.input_layernorm.weight) @ block.self_attn.q_proj.weight.T
    share = share.unflatten(-1, (small.HEADS, -1))
    found = decompose(model, inputs, "L1.H3.q")["L0.mlp.out"].as_tensor()
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(found[real], share[..., 3, :][real], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_norms_after_sums_are_held_at_their_scale() -> None:
    inputs = small.batch()
    module, seen = hooked("bert", inputs)
    _, model = small.captured("bert")
    norm, whole = module.bert.encoder.layer[0].output.LayerNorm, seen["L0.resid_post"]
    scale = (whole.var(-1, correction=0, keepdim=True) + small.EPSILON).sqrt()
    out = seen["L0.mlp.out"]
    share = (out - out.mean(-1, keepdim=True)) / scale * norm.weight
    found = decompose(model, inputs, "L1.resid_pre")
    torch.testing.assert_close(found["L0.mlp.out"].as_tensor(), share, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["L0.ln2.b"].as_tensor()[0, 0], norm.bias, atol=0, rtol=0)
    assert "L0.ln2.scale held at its value" in found.notes


@torch.no_grad()
def test_neurons_are_their_rows_of_the_down_projection() -> None:
    inputs = small.batch()
    module, seen = hooked("gpt2", inputs)
    found = decompose(small.captured("gpt2")[1], inputs, "L1.resid_post", "neurons")
    one = seen["L0.mlp.post"][..., 5, None] * module.transformer.h[0].mlp.c_proj.weight[5]
    torch.testing.assert_close(found["L0.N5"].as_tensor(), one, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        found["L0.mlp.b_out"].as_tensor()[0, 0], module.transformer.h[0].mlp.c_proj.bias, atol=0, rtol=0
    )


def test_positions_count_real_tokens_and_padding_changes_nothing() -> None:
    _, model = small.captured("llama")
    inputs = small.batch(padding="left")
    together = decompose(model, inputs, "L1.resid_post@-2")
    first = decompose(model, inputs, "L1.H1.q@0")
    for row, real in enumerate(inputs["attention_mask"].bool()):
        alone = inputs["input_ids"][row][real][None]
        single = decompose(model, alone, "L1.resid_post@-2")
        torch.testing.assert_close(
            together.values.as_tensor()[:, row], single.values.as_tensor()[:, 0], atol=1e-5, rtol=1e-4
        )
        at_first = decompose(model, alone, "L1.H1.q@0").values.as_tensor()[:, 0]
        torch.testing.assert_close(first.values.as_tensor()[:, row], at_first, atol=1e-5, rtol=1e-4)


def test_norms_are_over_real_tokens_only() -> None:
    _, model = small.captured("llama")
    inputs = small.batch(padding="left")
    found = decompose(model, inputs, "L1.resid_post", "components")
    real = inputs["attention_mask"].bool()
    wanted = [found[name].as_tensor()[real].norm(dim=-1).mean() for name in found.sources]
    torch.testing.assert_close(found.norms, torch.stack(wanted))


def family(kind: str, length: int = 9) -> tuple[Any, Any, dict[str, Tensor]]:
    module = families.build(kind)
    return module, small.load(module, name=kind), families.batch(module, 2, length, "left")


def test_an_expert_counts_by_its_router_weight() -> None:
    _, model, inputs = family("mixtral")
    found = decompose(model, inputs, "L1.resid_post", "experts")
    keep = ["L0.mlp.E2.out", "L0.mlp.router.weights", "L0.mlp.router.chosen", "L0.mlp.out"]
    kept = sj.run(model, inputs, keep=keep)
    mine = kept["L0.mlp.router.chosen"].dense(("batch", "query", "chosen")) == 2
    weight = (kept["L0.mlp.router.weights"].dense(("batch", "query", "chosen")) * mine).sum(-1, keepdim=True)
    assert bool(mine.any())
    share = kept["L0.mlp.E2.out"].dense(("batch", "query", "model")) * weight
    torch.testing.assert_close(found["L0.mlp.E2.out"].as_tensor(), share, atol=1e-5, rtol=1e-4)
    whole = kept["L0.mlp.out"].dense(("batch", "query", "model"))
    torch.testing.assert_close(found["L0.mlp.E*.out"].as_tensor(), whole, atol=1e-5, rtol=1e-4)
    assert "L0.mlp.router.weights held at its value" in found.notes


def test_parallel_blocks_and_earlier_streams() -> None:
    _, model, inputs = family("gpt_neox")
    found = decompose(model, inputs, "L1.resid_post", since="L1.resid_pre")
    assert found.sources[0] == "L1.resid_pre"
    assert {"L1.mlp.out", "L1.attn.b_O", "L1.H0.out"} < set(found.sources)
    assert not any(one.startswith("L0") for one in found.sources)
    assert found.error < 1e-4


def test_sources_can_be_grouped() -> None:
    _, model = small.captured("gpt2")
    found = decompose(model, small.batch(), "L1.resid_post")
    two = found.grouped({"induction": ["L0.H1.out", "L1.H*.out"], "embeddings": ["*embed"]})
    assert two.sources[:2] == ("embeddings", "L0.H0.out")
    torch.testing.assert_close(
        two["induction"].as_tensor(), found["L0.H1.out"].as_tensor() + found["L1.H*.out"].as_tensor()
    )
    assert two.error < 1e-5
    layers = decompose(model, small.batch(), "L1.resid_post", "layers")
    assert layers.sources == ("embed", "pos_embed", "L0", "L1")
    assert "Decomposition of L1.resid_post: 14 sources by heads" in repr(found)


REFUSED = {
    "scores": ("gpt2", "L1.H1.scores", r"L1.attn.scores, it is a product of 2 values that both read the stream"),
    "gated": ("llama", "L1.mlp.post", r"is no sum of sources: it is a product of 2 values"),
    "activation": ("bert", "L1.mlp.post", r"is no sum of sources: it is gelu, which is not linear"),
    "pattern": ("gpt2", "L1.attn.pattern", r"no sum of sources: it is (safe_)?softmax"),
    "scale": ("gpt2", "ln_f.scale", r"no sum of sources: it is rms"),
    "source itself": ("llama", "embed", r"no sum of sources: it is a look-up"),
    "head of bert": ("bert", "logits", r"no sum over what was written to L1.resid_post: .* it is gelu"),
    "several": ("gpt2", "L*.resid_post", r"names 2 values: decompose one at a time"),
    "position": ("gpt2", "L1.resid_post@-16", r"row 1 has 12 real tokens, so it has no position -16"),
    "range": ("gpt2", "L1.resid_post@2..40", r"row \d has \d+ real tokens, so it has no position 40"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_sum_is_refused_with_the_reason(name: str) -> None:
    kind, site, words = REFUSED[name]
    with pytest.raises(InputError, match=words):
        decompose(small.captured(kind)[1], small.batch(), site)


def test_other_refusals() -> None:
    _, model = small.captured("gpt2")
    inputs = small.batch()
    with pytest.raises(AddressError, match="L9"):
        decompose(model, inputs, "L9.resid_post")
    with pytest.raises(InputError, match="sources by 'head' were asked for; there are layers, components, heads"):
        decompose(model, inputs, "logits", "head")
    with pytest.raises(InputError, match="no layer of gpt2 is a mixture of experts"):
        decompose(model, inputs, "logits", "experts")
    with pytest.raises(InputError, match="ask for one position"):
        decompose(model, torch.zeros(900, 60, dtype=torch.long), "logits", "neurons")
    found: Decomposition = decompose(model, inputs, "L1.resid_pre")
    with pytest.raises(InputError, match=r"no source 'L0.H9.out'; did you mean L0.H"):
        found["L0.H9.out"]
    with pytest.raises(InputError, match="fits both 'a' and 'b'"):
        found.grouped({"a": ["L0.*"], "b": ["L0.H1.out"]})
    with pytest.raises(InputError, match="'L7' fits no source"):
        found.grouped({"a": ["L7"]})
