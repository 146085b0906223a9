"""Every named value is the one that hooks on the torch module see, or what follows from those by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import scrubjay as sj
from small_models import (
    EPSILON,
    HEADS,
    KINDS,
    KV_HEADS,
    LAYERS,
    WIDTH,
    batch,
    by_head,
    captured,
    logits_of,
    spots,
    values,
)  # fmt: skip

every_kind = pytest.mark.parametrize("kind", KINDS)
D_HEAD = WIDTH // HEADS
CAUSAL = {"gpt2": True, "llama": True, "bert": False}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def truth(kind: str, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return every value of a model by address, with no help from the circuit: from hooks and arithmetic."""
    module, _ = captured(kind)
    found = values(module, spots(kind, module), inputs)
    if kind == "llama":
        found.update({f"L{layer}.mlp.pre": found[f"L{layer}.mlp.gate"] for layer in range(LAYERS)})
    for layer in range(LAYERS):
        here = f"L{layer}."
        for name, heads in (("q", HEADS), ("k", KV_HEADS[kind]), ("v", KV_HEADS[kind]), ("z", HEADS)):
            found[f"{here}attn.{name}"] = by_head(found[f"{here}attn.{name}"], heads)
        for name in "qk":
            plain = found[f"{here}attn.{name}"]
            found[f"{here}attn.{name}_rot"] = rotated(plain, inputs["position_ids"]) if kind == "llama" else plain
        found |= heads_of_layer(kind, module, here, found, inputs)
    for name in [name for name in found if name.endswith(("ln1", "ln2", "ln_f"))]:
        found |= norm(kind, name, found.pop(name))
    found["logits"] = logits_of(module, inputs)
    return found


def rotated(value: Tensor, positions: Tensor) -> Tensor:
    """Return (batch, query, head, d_head) turned by RoFormer's equation 34, halves for pairs, base 10,000."""
    half = value.shape[-1] // 2
    angle = positions[:, :, None] * 10_000.0 ** (-torch.arange(half) / half)
    cos, sin = angle.cos()[:, :, None], angle.sin()[:, :, None]
    one, two = value[..., :half], value[..., half:]
    return torch.cat([one * cos - two * sin, two * cos + one * sin], -1)


def norm(kind: str, name: str, value: Tensor) -> dict[str, Tensor]:
    centered = value if kind == "llama" else value - value.mean(-1, keepdim=True)
    scale = (centered.pow(2).mean(-1, keepdim=True) + EPSILON).sqrt()
    return {f"{name}.scale": scale.squeeze(-1), f"{name}.normalized": centered / scale}


def allowed(kind: str, mask: Tensor) -> Tensor:
    """Return (batch, 1, query, key): where a query may read."""
    length = mask.shape[1]
    triangle = torch.ones(length, length, dtype=torch.bool).tril() if CAUSAL[kind] else torch.ones(length, length) > 0
    return triangle & mask.bool()[:, None, None, :]


def heads_of_layer(
    kind: str, module: Any, here: str, found: dict[str, Tensor], inputs: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return what single heads have: copies of shared keys and values, scores, pattern and output."""
    repeat = HEADS // KV_HEADS[kind]
    k, v = (found[f"{here}attn.{name}"].repeat_interleave(repeat, 2) for name in ("k_rot", "v"))
    q, z = found[f"{here}attn.q_rot"], found[f"{here}attn.z"]
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / D_HEAD**0.5
    scores = torch.where(allowed(kind, inputs["attention_mask"]), scores, float("-inf"))
    with torch.no_grad():
        pattern = module(**inputs, output_attentions=True).attentions[int(here[1:-1])]
    weight = spots(kind, module)[f"{here}attn.o"].part.weight.detach()
    weight = (weight if kind == "gpt2" else weight.T).reshape(HEADS, D_HEAD, WIDTH)
    made = {f"{here}attn.scores": scores, f"{here}attn.pattern": pattern}
    table = {
        "q": found[f"{here}attn.q"],
        "k": found[f"{here}attn.k"].repeat_interleave(repeat, 2),
        "v": v,
        "q_rot": q,
        "k_rot": k,
        "z": z,
    }
    table["out"] = torch.einsum("bqhd,hdm->bqhm", z, weight)
    for head in range(HEADS):
        one = {name: value[:, :, head] for name, value in table.items()}
        one |= {"scores": scores[:, head], "pattern": pattern[:, head]}
        one |= dict.fromkeys(("q_in", "k_in", "v_in"), found[f"{here}resid_pre"])
        made |= {f"{here}H{head}.{name}": value for name, value in one.items()}
    for head in range(KV_HEADS[kind]):
        made |= {f"{here}KV{head}.{name}": found[f"{here}attn.{name}"][:, :, head] for name in ("k", "v", "k_rot")}
    made |= {
        f"{here}N{place}": found[f"{here}mlp.post"][..., place] for place in range(found[f"{here}mlp.post"].shape[-1])
    }
    return made


@every_kind
def test_every_named_value_is_the_modules(kind):
    _, model = captured(kind)
    inputs = batch()
    expected = truth(kind, inputs)
    real = inputs["attention_mask"].bool()
    concrete = [str(one) for site in model.sites.addresses for one in model.addresses(site)]
    assert set(concrete) == set(expected)
    run = sj.run(model, inputs, keep=concrete)
    for address in concrete:
        got, wanted = run[address].as_tensor(), expected[address]
        assert tuple(got.shape) == tuple(wanted.expand(got.shape).shape), address
        rows = real[:, None] if address.endswith(("attn.scores", "attn.pattern")) else real
        there = rows.reshape(*rows.shape, *[1] * (got.dim() - rows.dim())).expand(got.shape)
        if address.endswith("scores"):
            barred = there & torch.isinf(wanted)
            there = there & ~barred
            assert (got[barred] < -1e30).all(), address
        scale = float(wanted.expand(got.shape)[there].std())
        assert float((got - wanted)[there].abs().max()) <= 2e-5 * max(scale, 1e-3), address
