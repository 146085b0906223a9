"""Capture at real depth and width: what it takes grows with the layers and no faster, and never with the weights.

Work is counted (nodes, bytes, calls of Python functions), not timed: counts are the same on every machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import Any

import pytest
import torch

import scrubjay as sj
from scrubjay.capture import hub
from scrubjay.capture.export import _exported, capture
from scrubjay.capture.functional import functional
from scrubjay.capture.lift.call import MODEL_DTYPE
from scrubjay.capture.lift.program import TABLE, lift
from scrubjay.circuit.recognisers import recognise
from scrubjay.circuit.serial import from_json, to_json
from scrubjay.errors import LoadError

DEPTHS = (2, 4, 8)


def build(layers: int, kind: str = "llama") -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    sizes = (
        {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": layers, "num_attention_heads": 4}
        if kind == "llama"
        else {"n_embd": 32, "n_layer": layers, "n_head": 4}
    )
    config = AutoConfig.for_model(kind, vocab_size=101, bos_token_id=None, eos_token_id=None, **sizes)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def calls(work: Callable[[], Any]) -> tuple[Any, int]:
    """Return what a piece of work gives and how many Python functions it called."""
    counted = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal counted
        counted += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        made = work()
    finally:
        sys.setprofile(before)
    return made, counted


@cache
def measured(kind: str, layers: int) -> dict[str, int]:
    """Return counts for one depth: sizes, and the calls of each of our passes (torch's own export left out).

    No circuit is kept: nodes that live already are made with fewer calls.
    """
    module = build(layers, kind)
    signature = hub.describe(module).signature
    exported = _exported(module, signature, MODEL_DTYPE)
    program, functionalised = calls(lambda: functional(exported, TABLE))
    circuit, lifted = calls(lambda: lift(program, "model", signature.dynamic, {}, signature.result))
    (named, _), recognised = calls(lambda: recognise(circuit))
    written, writing = calls(lambda: to_json(named))
    _, reading = calls(lambda: from_json(written, {"model": "model"}))
    return {
        "nodes": len(named.nodes),
        "sites": len(named.table),
        "bytes": len(json.dumps(written)),
        "functional": functionalised,
        "lift": lifted,
        "recognise": recognised,
        "write": writing,
        "read": reading,
    }


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_every_pass_is_linear_in_the_layers(kind: str) -> None:
    measured.__wrapped__(kind, 1)  # what is computed once for each kind of node is not a layer's
    few, middle, many = (measured(kind, depth) for depth in DEPTHS)
    for what in few:
        slope, later = (middle[what] - few[what]) / 2, (many[what] - middle[what]) / 4
        assert slope > 0, what
        assert later <= slope * 1.15, f"{what}: {slope:.0f} a layer from 2 to 4 layers, {later:.0f} from 4 to 8"


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_every_layer_is_made_of_as_many_nodes(kind: str) -> None:
    few, middle, many = (measured(kind, depth)["nodes"] for depth in DEPTHS)
    assert (many - middle) == 2 * (middle - few)


def test_a_stored_circuit_is_small() -> None:
    """Under 8 kB a layer: the weights are named and not kept."""
    assert measured("llama", 8)["bytes"] < 8 * 8_000


WIDE = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
import scrubjay as sj

def kilobytes(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name))

config = LlamaConfig(hidden_size=4096, intermediate_size=11008, vocab_size=32000, num_hidden_layers=32, num_attention_heads=32)
before = kilobytes("VmRSS")
with torch.device("meta"):
    module = LlamaForCausalLM(config).eval()
model = sj.load(module, cache=None)
print((kilobytes("VmHWM") - before) * 1024, model.layers, sum(weight.numel() for weight in module.parameters()))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of memory from /proc")
def test_a_32_layer_4096_wide_llama_is_captured_in_little_memory() -> None:
    done = subprocess.run([sys.executable, "-c", WIDE], capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    peak_bytes, layers, numbers = map(int, done.stdout.split()[-3:])
    assert (layers, numbers) == (32, 6_738_415_616)
    assert peak_bytes < 10**9 / 2


# --- a model without weights: its structure is there, and a run says what is missing ---


@cache
def bare() -> sj.Model:
    return sj.load(build(2), cache=None)


def test_the_structure_of_a_model_without_weights_can_be_used() -> None:
    model = bare()
    assert model.layers == 2
    assert model.circuit.node("L1.attn.pattern").axis_names >= {"head", "query", "key"}
    assert "L1.mlp.post" in model.circuit.table
    assert "Einsum" in str(model.circuit) or "L1" in str(model.circuit)
    changed = sj.edit(model, sj.zero("L0.H1.z"))
    assert len(changed.circuit.nodes) > 0
    assert changed.circuit.roots != model.circuit.roots


def test_a_run_without_weights_says_so() -> None:
    ids = {"input_ids": torch.zeros(1, 3, dtype=torch.long)}
    with pytest.raises(LoadError, match=r"weight '[\w.]+' is on the meta device and has no values: load the weights"):
        sj.run(bare(), ids)


def test_a_buffer_that_no_checkpoint_holds_is_named_for_what_it_is() -> None:
    """Weights assigned to a module made on the meta device leave its rotary frequencies without values."""
    module = build(2)
    model = sj.load(module, cache=None)
    filled = {name: torch.ones(weight.shape) * 0.01 for name, weight in module.state_dict().items()}
    module.load_state_dict(filled, assign=True)
    ids = {"input_ids": torch.zeros(1, 3, dtype=torch.long)}
    with pytest.raises(
        LoadError, match=r"buffer 'model\.rotary_emb\.inv_freq' is on the meta device .* in no checkpoint"
    ):
        sj.run(model, ids)


def test_a_captured_buffer_on_the_meta_device_is_still_a_weight_of_the_circuit() -> None:
    module = build(2)
    captured = capture(module, hub.describe(module).signature)
    assert "model.rotary_emb.inv_freq" in captured.circuit.weights
