"""What may go wrong once a model is loaded: a module taken apart, masks that are none, a device that is not there."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import families
import scrubjay as sj
from scrubjay.errors import InputError, LoadError
from small_models import batch, build, load


def test_a_part_exchanged_after_the_capture_is_noticed():
    module = build("llama")
    model = load(module)
    sj.run(model, batch())
    own = module.model.layers[1].mlp.act_fn
    module.model.layers[1].mlp.act_fn = nn.ReLU()
    with pytest.raises(
        LoadError, match=r"model.layers.1.mlp.act_fn has changed since .* a SiLUActivation then, a ReLU now"
    ):
        sj.run(model, batch())
    module.model.layers[1].mlp.act_fn = own
    sj.run(model, batch())


@pytest.mark.parametrize("value", [2, -1, 0.5])
def test_a_mask_of_other_numbers_than_0_and_1_is_refused(value):
    inputs = batch(padding="none")
    mask = torch.full(inputs["attention_mask"].shape, value)
    model = load(build("llama"))
    with pytest.raises(InputError, match=r"attention mask holds .*: give 1 for a real token and 0 for padding"):
        sj.run(model, {"input_ids": inputs["input_ids"], "attention_mask": mask})


def test_weights_of_layers_that_the_configuration_leaves_out_are_refused(tmp_path):
    build("gpt2").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "n_layer": 1}))
    with pytest.raises(LoadError, match=r"weights of layers that config.json leaves out \(transformer.h.1"):
        sj.load(tmp_path, cache=None)


@pytest.mark.parametrize("device", ["foo", "cuda"])
def test_a_device_that_is_not_there_is_refused(device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one here")
    with pytest.raises(InputError, match=f"device='{device}'"):
        sj.load(build("gpt2"), device=device, cache=None)


def test_one_intervention_needs_no_list():
    model, inputs = load(build("gpt2")), batch()
    change = sj.zero("L1.H2.z")
    assert torch.equal(
        sj.run(model, inputs, interventions=change).logits, sj.run(model, inputs, interventions=[change]).logits
    )


def test_the_routers_scores_are_named_by_expert():
    model = sj.load(families.build("mixtral"), cache=None)
    run = sj.run(model, families.batch(families.build("mixtral"), 2, 5), keep=["L*.mlp.router.logits"])
    assert run["L1.mlp.router.logits"].names == ("batch", "query", "expert")
