"""Named sites of many families are the values that the torch module's own hooks give, by module names this test knows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import families
import scrubjay as sj
from scrubjay.capture.model import Model

HEADS, HEAD = 4, 8


@dataclass(frozen=True)
class Names:
    """Paths inside a block, by site: `x` is a module's output, `<x` its input; functions cut stretches out of a fused one."""

    sites: dict[str, str]
    block: str = "model.layers.{}"
    cut: dict[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    parallel: bool = False
    scale: float = 1.0
    sinks: bool = False


LLAMA = {
    "attn.q": "self_attn.q_proj", "attn.k": "self_attn.k_proj", "attn.v": "self_attn.v_proj", "attn.z": "<self_attn.o_proj",
    "attn.o": "self_attn.o_proj", "attn.out": "self_attn", "mlp.pre": "mlp.gate_proj", "mlp.gate": "mlp.gate_proj", "mlp.up": "mlp.up_proj",
    "mlp.post": "<mlp.down_proj", "mlp.out": "mlp",
}  # fmt: skip
SANDWICH = {"attn.out": "post_attention_layernorm", "mlp.out": "post_feedforward_layernorm"}
MIXTURE = {name: path for name, path in LLAMA.items() if not name.startswith("mlp")} | {"mlp.out": "mlp"}


def halves(place: int) -> Callable[[Tensor], Tensor]:
    return lambda value: value.chunk(2, -1)[place]


def stretch(start: int, end: int) -> Callable[[Tensor], Tensor]:
    return lambda value: value[..., start * HEAD : end * HEAD]


def interleaved(place: int) -> Callable[[Tensor], Tensor]:
    """Cut queries, keys or values out of a map that gives them head by head."""
    return lambda value: value.unflatten(-1, (HEADS, 3, HEAD))[..., place, :].flatten(-2)


def fused(attention: str, dense: str, cuts: dict[str, Callable[[Tensor], Tensor]]) -> dict[str, Any]:
    sites = dict.fromkeys(("attn.q", "attn.k", "attn.v"), attention)
    sites |= {"attn.z": f"<{dense}", "attn.o": dense, "attn.out": dense}
    return {"sites": sites, "cut": cuts}


def with_mlp(given: dict[str, Any], pre: str, down: str, **more: Any) -> Names:
    mlp = {"mlp.pre": pre, "mlp.post": f"<{down}", "mlp.out": down}
    return Names(**{**given, "sites": {**given["sites"], **mlp}}, **more)


EACH = {"attn.q": interleaved(0), "attn.k": interleaved(1), "attn.v": interleaved(2)}
GATE_UP = {"mlp.pre": "mlp.gate_up_proj", "mlp.gate": "mlp.gate_up_proj", "mlp.up": "mlp.gate_up_proj"}
GATES = {"mlp.pre": halves(0), "mlp.gate": halves(0), "mlp.up": halves(1)}

FAMILIES = {
    "gptj": Names(
        {name: path.replace("self_attn", "attn").replace("o_proj", "out_proj") for name, path in LLAMA.items() if "mlp" not in name}
        | {"mlp.pre": "mlp.fc_in", "mlp.post": "<mlp.fc_out", "mlp.out": "mlp"},
        "transformer.h.{}", parallel=True,
    ),
    "gpt_neox": with_mlp(
        fused("attention.query_key_value", "attention.dense", EACH), "mlp.dense_h_to_4h", "mlp.dense_4h_to_h",
        block="gpt_neox.layers.{}", parallel=True,
    ),
    "falcon": with_mlp(
        fused(
            "self_attention.query_key_value", "self_attention.dense",
            {"attn.q": stretch(0, 4), "attn.k": stretch(4, 5), "attn.v": stretch(5, 6)},
        ),
        "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", block="transformer.h.{}", parallel=True,
    ),
    "phi": Names(
        {name: path.replace("o_proj", "dense") for name, path in LLAMA.items() if "mlp" not in name}
        | {"mlp.pre": "mlp.fc1", "mlp.post": "<mlp.fc2", "mlp.out": "mlp"},
        parallel=True,
    ),
    "cohere": Names(LLAMA, parallel=True),
    "bloom": Names(
        with_mlp(fused("self_attention.query_key_value", "self_attention.dense", EACH), "mlp.dense_h_to_4h", "mlp.dense_4h_to_h").sites,
        "transformer.h.{}", EACH,
    ),
    "opt": Names(
        {name: path.replace("o_proj", "out_proj") for name, path in LLAMA.items() if "mlp" not in name}
        | {"mlp.pre": "fc1", "mlp.post": "<fc2", "mlp.out": "fc2"},
        "model.decoder.layers.{}",
    ),
    "qwen3": Names(LLAMA),
    "olmo2": Names(LLAMA | SANDWICH),
    "gemma2": Names(LLAMA | SANDWICH),
    "gemma3_text": Names(LLAMA | SANDWICH),
    "granite": Names(LLAMA, scale=0.3),
    "glm4": Names(LLAMA | GATE_UP | {"attn.out": "post_self_attn_layernorm", "mlp.out": "post_mlp_layernorm"}, cut=GATES),
    "phi3": Names(
        LLAMA | GATE_UP | dict.fromkeys(("attn.q", "attn.k", "attn.v"), "self_attn.qkv_proj"),
        cut=GATES | {"attn.q": stretch(0, 4), "attn.k": stretch(4, 6), "attn.v": stretch(6, 8)},
    ),
    "bitnet": Names({name: path for name, path in LLAMA.items() if name != "attn.z"} | {"attn.z": "<self_attn.attn_sub_norm"}),
    "gpt_bigcode": with_mlp(
        fused("attn.c_attn", "attn.c_proj", {"attn.q": stretch(0, 4), "attn.k": stretch(4, 5), "attn.v": stretch(5, 6)}),
        "mlp.c_fc", "mlp.c_proj", block="transformer.h.{}",
    ),
    "dots1": Names(MIXTURE),
    "gpt_oss": Names(MIXTURE, sinks=True),
    "mixtral": Names(MIXTURE | {"mlp.router.logits": "mlp.gate"}, cut={"mlp.router.logits": lambda value: value}),
    "deepseek_v3": Names({name: path for name, path in LLAMA.items() if name not in ("attn.q", "attn.k", "attn.v")}),
}  # fmt: skip


@functools.cache
def made(kind: str) -> tuple[Any, Model]:
    with pytest.MonkeyPatch.context() as patch:
        if kind == "granite":
            patch.setitem(
                families.MORE, kind, {"residual_multiplier": 0.3, "embedding_multiplier": 2.0, "logits_scaling": 3.0}
            )
        module = families.build(kind)
    return module, sj.load(module, cache=None)


def kept(found: dict[str, Tensor], site: str, cut: Any, _: Any, args: Any, kwargs: Any, *result: Any) -> None:
    """Keep what a module gives, or what it is given where the hook comes before it."""
    value = result[0] if result else args[0] if args else kwargs["hidden_states"]
    value = value[0] if isinstance(value, tuple) else value
    found.setdefault(site, cut(value.detach().clone()))  # a module after it may write into it


def hooked(module: nn.Module, names: Names, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the values of one run of the module, by site."""
    found: dict[str, Tensor] = {}
    handles = []
    for layer in range(2):
        block = module.get_submodule(names.block.format(layer))
        paths = {**names.sites, "resid_pre": "<", "resid_post": ""}
        for site, path in paths.items():
            part = block.get_submodule(path.removeprefix("<"))
            cut = names.cut.get(site, lambda value: value)

            keep = functools.partial(kept, found, f"L{layer}.{site}", cut)
            register: Any = part.register_forward_pre_hook if path[:1] == "<" else part.register_forward_hook
            handles.append(register(keep, with_kwargs=True))
    with torch.no_grad():
        module(**inputs, use_cache=False)
    for handle in handles:
        handle.remove()
    return found


def ours(model: Model, kind: str, sites: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    module, _ = made(kind)
    inputs = {
        name: value for name, value in families.batch(module, 3, 9, "left").items() if name in model.circuit.inputs
    }
    return {site: value.as_tensor() for site, value in sj.run(model, inputs, keep=list(sites)).values.items()}, inputs


@pytest.mark.parametrize("kind", FAMILIES)
def test_sites_are_what_the_modules_give(kind: str):
    names, (module, model) = FAMILIES[kind], made(kind)
    sites = [f"L{layer}.{site}" for layer in range(2) for site in ("resid_pre", "resid_post", *names.sites)]
    missing = [site for site in sites if site not in model.circuit.table]
    assert not missing
    assert not model.anatomy.notes
    assert [layer.parallel for layer in model.anatomy.layers] == [names.parallel] * 2
    assert all(("resid_mid" in layer.sites) == (not names.parallel) for layer in model.anatomy.shape.layers)
    got, inputs = ours(model, kind, [*sites, *(f"L{layer}.attn.pattern" for layer in range(2))])
    real = inputs["attention_mask"].bool()
    for site, expected in hooked(module, names, inputs).items():
        value = got[site].flatten(2)[real]
        wanted = expected.reshape(*real.shape, -1)[real]
        if site.endswith(".out"):
            wanted = wanted * names.scale
        assert value.shape == wanted.shape, site
        assert float((value - wanted).abs().max()) <= 2e-5 * float(wanted.std()), site
    for layer in range(2):
        sums = got[f"L{layer}.attn.pattern"].sum(-1).movedim(2, 1)[real]
        assert float((sums - 1).max()) < 1e-5
        assert bool((sums < 0.999).any()) == names.sinks


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_last_stream_is_the_first_and_all_that_is_written(kind: str):
    _, model = made(kind)
    assert model.anatomy.additive
    writes = [f"L{layer}.{part}.out" for layer in range(2) for part in ("attn", "mlp")]
    start = [site for site in ("embed", "pos_embed") if site in model.circuit.table]
    got, _ = ours(model, kind, ["L0.resid_pre", "L1.resid_post", *start, *writes])
    last = got["L1.resid_post"]
    first = sum((got[site].expand_as(last) for site in start), torch.zeros(()))
    assert float((first - got["L0.resid_pre"]).abs().max()) <= 1e-5 * float(last.std())
    total = first + sum(got[site] for site in writes)
    assert float((total - last).abs().max()) <= 1e-5 * float(last.std())


@pytest.mark.parametrize("kind", ["gptj", "falcon", "bitnet", "deepseek_v3", "gpt_oss"])
def test_the_shares_of_heads_add_up_to_attention(kind: str):
    module, model = made(kind)
    got, _ = ours(model, kind, ["L0.attn.o", *(f"L0.H{head}.out" for head in range(4))])
    bias = module.get_submodule(FAMILIES[kind].block.format(0)).get_submodule(FAMILIES[kind].sites["attn.o"]).bias
    total = sum((got[f"L0.H{head}.out"] for head in range(4)), torch.zeros(()) if bias is None else bias.detach())
    assert float((total - got["L0.attn.o"]).abs().max()) <= 1e-5 * float(got["L0.attn.o"].std())
    inputs = {
        name: value for name, value in families.batch(module, 3, 9, "left").items() if name in model.circuit.inputs
    }
    after = sj.run(model, inputs, ["L0.attn.o"], [sj.zero("L0.H1.out")]).values["L0.attn.o"].as_tensor()
    wanted = got["L0.attn.o"] - got["L0.H1.out"]
    assert float((after - wanted).abs().max()) <= 1e-5 * float(wanted.std())


@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_experts_weighed_add_up_to_the_mixture(kind: str):
    _, model = made(kind)
    assert [layer.experts for layer in model.anatomy.layers] == [4, 4]
    experts = [f"L0.mlp.E{number}.out" for number in range(4)]
    got, _ = ours(model, kind, ["L0.mlp.router.weights", "L0.mlp.router.chosen", "L0.mlp.out", *experts])
    weights, chosen = got["L0.mlp.router.weights"], got["L0.mlp.router.chosen"]
    total = torch.zeros(())
    for number, site in enumerate(experts):
        mine = (weights * (chosen == number)).sum(-1, keepdim=True)
        assert bool((got[site].abs().sum(-1) > 0).eq((chosen == number).any(-1)).all())
        total = total + mine * got[site]
    assert float((total - got["L0.mlp.out"]).abs().max()) <= 1e-5 * float(got["L0.mlp.out"].std())


def test_changing_an_expert_changes_only_the_tokens_that_chose_it():
    module, model = made("mixtral")
    inputs = {name: value for name, value in families.batch(module, 3, 9).items() if name in model.circuit.inputs}
    sites = ["L1.mlp.router.chosen", "L1.mlp.out"]
    before = {site: value.as_tensor() for site, value in sj.run(model, inputs, sites).values.items()}
    after = sj.run(model, inputs, sites, [sj.zero("L1.mlp.E2.out")]).values["L1.mlp.out"].as_tensor()
    chose = (before["L1.mlp.router.chosen"] == 2).any(-1)
    moved = (after - before["L1.mlp.out"]).abs().sum(-1) > 1e-6
    assert bool(chose.any())
    assert torch.equal(moved, chose)
