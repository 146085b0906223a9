"""Trained models that others made: captured, every part recognised, every recorded activation found at its address."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

import scrubjay as sj
from kit_models import KIT_MODELS, load_kit_model
from scrubjay.capture.model import Model
from scrubjay.circuit.address import parse
from scrubjay.circuit.ops import Opaque
from scrubjay.tasks import brackets
from small_models import load

every_model = pytest.mark.parametrize("name", KIT_MODELS)

# One recording is older than the library's names, and keeps (batch, head, query, d_head).
OLD_NAMES = {"attn.hook_attn": "attn.hook_pattern"}
AFTER_ITS_AFFINE_MAP = "ln_final.hook_normalized"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=KIT_MODELS)
def case(request: pytest.FixtureRequest, kit: Any) -> Any:
    """Give (module, model, inputs, expected, config) of one model of the kit."""
    folder = kit / "models" / request.param
    config = json.loads((folder / "config.json").read_text())
    tokens = torch.tensor(json.loads((folder / "inputs.json").read_text())["tokens"])
    inputs = {"input_ids": tokens}
    if "key_padding_mask" in config:
        inputs["attention_mask"] = (tokens != brackets.PAD).long()
    module = load_kit_model(folder)
    length = min(12, config["n_ctx"])
    ids = torch.zeros(2, length, dtype=torch.long)
    dynamic = dict.fromkeys(inputs, ("batch", "query"))
    model = load(module, inputs={name: torch.ones_like(ids) for name in inputs}, dynamic=dynamic, name=request.param)
    with np.load(folder / "expected.npz") as recorded:
        expected = dict(recorded)
    return module, model, inputs, expected, config


def tolerance(expected: Any) -> float:
    return 1e-4 + 2e-6 * float(np.abs(expected["logits"]).max())


def test_the_anatomy_is_what_the_configuration_says(case):
    _, model, _, _, config = case
    assert isinstance(model, Model)
    assert model.anatomy.notes == ()
    assert model.layers == config["n_layers"]
    assert model.heads == (config["n_heads"],) * config["n_layers"]
    assert [layer.neurons for layer in model.anatomy.layers] == [config["d_mlp"] or 0] * config["n_layers"]
    assert not any(isinstance(node, Opaque) for node in model.circuit.nodes)
    assert model.context == config["n_ctx"]
    sites = {"embed", "pos_embed", "logits"}
    for layer in range(config["n_layers"]):
        here = (
            "resid_pre",
            "resid_post",
            *(f"attn.{name}" for name in ("q", "k", "v", "scores", "pattern", "z", "o", "out")),
        )
        sites |= {
            f"L{layer}.{name}"
            for name in (*here, *(("mlp.pre", "mlp.post", "mlp.out", "resid_mid") if config["d_mlp"] else ()))
        }
        sites |= {f"L{layer}.ln1.scale", f"L{layer}.ln1.normalized"} if config["norm"]["type"] else set()
    sites |= {"ln_f.scale", "ln_f.normalized"} if config["norm"]["final"] else set()
    assert sites <= set(model.sites.addresses)


def test_logits_are_the_recorded_ones(case):
    _, model, inputs, expected, _ = case
    logits = sj.run(model, inputs).logits.numpy()
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=tolerance(expected))


def test_logits_in_64_bits_are_the_independent_ones(case):
    _, model, inputs, expected, _ = case
    logits = sj.run(model.exact(), inputs).logits.numpy()
    wanted = expected["logits_float64_independent"]
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-8 * max(1.0, float(np.abs(wanted).max())))


def test_every_recorded_activation_is_at_its_address(case):
    module, model, inputs, expected, config = case
    addresses = {}
    for recorded in expected:
        if recorded.startswith("logits"):
            continue
        name = recorded.replace(config.get("block_prefix", "blocks"), "blocks", 1)
        for old, new in OLD_NAMES.items():
            name = name.replace(old, new)
        addresses[recorded] = str(parse(name))
    assert len(addresses) > 5
    run = sj.run(model, inputs, keep=list(addresses.values()))
    for recorded, address in addresses.items():
        value, wanted = run[address], expected[recorded]
        got = value.as_tensor()
        if config["weight_layout"] == "grok" and value.names == ("batch", "query", "head", "d_head"):
            got = got.transpose(1, 2)
        if (
            recorded == AFTER_ITS_AFFINE_MAP
        ):  # ours is before the affine map; theirs after it, where it was not folded away
            got = got * module.ln_final.weight.detach() + module.ln_final.bias.detach()
        if value.names[0] != "batch":
            got = got[None]  # positions are the same in every row, and have no rows of their own
        np.testing.assert_allclose(
            got.numpy(), np.broadcast_to(wanted, got.shape), rtol=0, atol=tolerance(expected), err_msg=address
        )
        assert got.shape[1:] == wanted.shape[1:], address


def test_a_bias_that_is_added_last_belongs_to_the_part_before_it(case):
    """These modules add in the order (stream + hidden W) + b: the bias is part of what the MLP writes."""
    module, model, inputs, _, config = case
    if not config["d_mlp"]:
        pytest.skip("this model has no MLP")
    run = sj.run(model, inputs, keep=["L0.mlp.post", "L0.mlp.out", "L0.resid_mid", "L0.resid_post"])
    block = module.blocks[0]
    out = run["L0.mlp.post"].as_tensor() @ block.w_out + block.b_out
    assert float((run["L0.mlp.out"].as_tensor() - out).abs().max()) <= 1e-4
    assert float(block.b_out.abs().max()) > 1e-3
    stream = run["L0.resid_mid"].as_tensor() + run["L0.mlp.out"].as_tensor()
    assert float((run["L0.resid_post"].as_tensor() - stream).abs().max()) <= 1e-5


def test_patterns_are_recorded_and_causal_where_the_configuration_says_so(case):
    _, model, inputs, _, config = case
    pattern = sj.run(model, inputs, keep="L*.attn.pattern")["L*.attn.pattern"].as_tensor()
    later = torch.ones(pattern.shape[-2:], dtype=torch.bool).triu(1)
    assert bool((pattern[..., later] == 0).all()) == (config["attention_dir"] == "causal")
    assert float((pattern.sum(-1) - 1).abs().max()) <= 1e-5
