"""PEFT: adapters are captured as they are, a folder of one brings its base along, and a later switch is not passed over in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import scrubjay as sj
from scrubjay.capture import hub
from scrubjay.capture.hub import adapter as adapters
from scrubjay.capture.store import state_of
from scrubjay.errors import CaptureError, LoadError
from small_models import FOLDER, batch, build, load

# peft asks a transformers model for an attribute by its older name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

LORA: dict[str, Any] = {"init_lora_weights": False, "task_type": "CAUSAL_LM", "lora_dropout": 0.1, "r": 3}


def adapted(config: Any = None, kind: str = "llama") -> Any:
    torch.manual_seed(0)
    config = config or LoraConfig(target_modules=["q_proj", "v_proj", "gate_proj"], **LORA)
    return get_peft_model(build(kind), config).eval()


def theirs(module: Any, given: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return module(**given, use_cache=False).logits


def close(model: Any, module: Any) -> bool:
    given = batch()
    real, wanted = given["attention_mask"].bool(), theirs(module, given)
    return bool(torch.allclose(sj.run(model, given).logits[real], wanted[real], atol=1e-5, rtol=1e-5))


def test_an_adapter_is_captured_as_it_is(tmp_path: Path) -> None:
    module = adapted()
    on, given = sj.load(module, cache=tmp_path), batch()
    assert on.name == "LlamaForCausalLM"
    assert close(on, module)
    with module.disable_adapter():
        off = sj.load(module, cache=tmp_path)
        assert close(off, module)
        without = sj.run(off, given).logits
    real = given["attention_mask"].bool()
    assert float((without - sj.run(on, given).logits)[real].abs().max()) > 0.1
    # from the cache too, each has its own circuit
    assert close(sj.load(module, cache=tmp_path), module)


def test_several_adapters_and_other_kinds() -> None:
    module = adapted()
    module.add_adapter("two", LoraConfig(target_modules=["o_proj"], **LORA))
    module.eval().base_model.set_adapter(["default", "two"])
    assert close(load(module), module)
    scaled = adapted(
        IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], init_ia3_weights=False)
    )
    assert close(load(scaled), scaled)


def disable(module: Any) -> None:
    module.base_model.disable_adapter_layers()


def another(module: Any) -> None:
    module.set_adapter("two")


def merge(module: Any) -> None:
    module.merge_adapter()


def scale(module: Any) -> None:
    for part in module.modules():
        if isinstance(part, peft.tuners.lora.LoraLayer):
            part.scaling["default"] = 0.5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (disable, r"with adapter default.* then, .* with adapter default switched off.* now.*load it again"),
        (another, r"with adapter default.* then, .* with adapter two.* now"),
        (merge, r"with adapter default, default merged"),
        (scale, r"scaled by .*0\.5"),
    ],
)
def test_a_switch_after_capture_is_no_stale_result(change: Any, said: str) -> None:
    module, given = adapted(), batch()
    module.add_adapter("two", LoraConfig(target_modules=["q_proj"], **LORA))
    module.eval()
    model = load(module)
    before = sj.run(model, given).logits
    change(module)
    with pytest.raises(LoadError, match=rf"has changed since the model was captured: .*{said}"):
        sj.run(model, given)
    with pytest.raises(LoadError, match="has changed since"):
        _ = model.digest
    if change is disable:
        module.base_model.enable_adapter_layers()
        assert torch.equal(sj.run(model, given).logits, before)


def test_an_adapter_put_in_or_taken_out_after_capture_is_seen() -> None:
    module, given = build("llama"), batch()
    model = load(module)
    wrapped: Any = get_peft_model(module, LoraConfig(target_modules=["q_proj"], **LORA)).eval()
    with pytest.raises(
        LoadError,
        match=r"q_proj has changed since the model was captured: a Linear then, a peft\..*with adapter default",
    ):
        sj.run(model, given)
    with_it = load(wrapped)
    wrapped.unload()
    with pytest.raises(LoadError, match="a Linear now"):
        sj.run(with_it, given)
    assert close(model, module)


def test_a_weight_that_changes_is_still_no_change_of_the_module() -> None:
    module = adapted()
    model = load(module)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "lora_B" in name:
                weight.mul_(2)
    assert close(model, module)


def test_what_a_state_is() -> None:
    layer = nn.Linear(2, 2)
    assert state_of(layer) is nn.Linear
    layer.eval().half()
    assert state_of(layer) is nn.Linear


@pytest.mark.parametrize("config", [PromptTuningConfig, PrefixTuningConfig])
def test_prompts_that_are_learned_are_refused(config: Any) -> None:
    module = get_peft_model(build("llama"), config(num_virtual_tokens=3, task_type="CAUSAL_LM")).eval()
    with pytest.raises(CaptureError, match=r"prompt or prefix adapter \(P.*_TUNING\).*`peft_model.base_model`"):
        load(module)


def test_an_activated_adapter_is_refused() -> None:
    module = adapted(
        LoraConfig(target_modules=["q_proj"], alora_invocation_tokens=[1, 2], **{**LORA, "lora_dropout": 0.0})
    )
    with pytest.raises(CaptureError, match="activated LoRA"):
        load(module)


def test_an_adapter_of_a_plain_module_is_taken_off_too() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.first(x))

    module: Any = get_peft_model(Plain(), LoraConfig(target_modules=["first"], init_lora_weights=False)).eval()
    model = sj.load(module, inputs={"x": torch.zeros(3, 4)}, dynamic={"x": ("batch", None)}, cache=None)
    x = torch.randn(5, 4)
    torch.testing.assert_close(sj.run(model, {"x": x}).output, module(x=x).detach())


# --- folders ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base and an adapter of it, in folders beside each other."""
    torch.manual_seed(0)
    base = build("llama")
    base.save_pretrained(tmp_path / "base")
    module: Any = get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"], **LORA))
    module.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    module.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def written(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_of_an_adapter_loads_its_base(folder: Path) -> None:
    base = build("llama")
    model = sj.load(folder, cache=FOLDER.name)
    assert model.name == "adapter"
    module = PeftModel.from_pretrained(base, str(folder)).eval()
    assert close(model, module)
    written(folder, base_model_name_or_path="../base")  # from the adapter's own folder, wherever one stands
    assert close(sj.load(folder, cache=FOLDER.name), module)
    half: Any = hub.open_source(folder, dtype=torch.bfloat16).module
    assert half.model.layers[0].self_attn.q_proj.base_layer.weight.dtype == torch.bfloat16


def test_adapter_folders_that_cannot_be_used_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    for changes, said in (
        ({"base_model_name_or_path": None}, "does not say which model it adapts"),
        ({"base_model_name_or_path": "/no/such"}, "there is no folder '/no/such'"),
        ({"base_model_name_or_path": str(folder)}, "which is an adapter itself"),
        (
            {"base_model_name_or_path": str(folder.parent / "base"), "target_modules": ["nothing"]},
            "peft could not put the adapter",
        ),
        ({"target_modules": ["q_proj", "v_proj"], "peft_type": "MADE_UP"}, "peft could not put the adapter"),
    ):
        written(folder, **changes)
        with pytest.raises(LoadError, match=said):
            hub.open_source(folder)
    written(folder, peft_type="LORA")
    save_file({name: tensor for name, tensor in tensors.items() if "layers.1" not in name}, weights)
    with pytest.raises(LoadError, match=r"lacks weights that its configuration names: .*layers\.1"):
        hub.open_source(folder)
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(LoadError, match=r"\(500 bytes\) is damaged or cut short"):
        hub.open_source(folder)
    weights.rename(folder / "adapter_model.bin")
    with pytest.raises(LoadError, match=r"only as adapter_model.bin: a pickle can run code"):
        hub.open_source(folder)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(LoadError, match=r"no adapter_model.safetensors \(it holds README.md, adapter_config.json\)"):
        hub.open_source(folder)
    (folder / "adapter_config.json").write_text("[")
    with pytest.raises(LoadError, match="cannot be used as the configuration of a PEFT adapter"):
        hub.open_source(folder)
    monkeypatch.setattr(adapters, "find_spec", lambda _: None)
    with pytest.raises(LoadError, match=r"peft is not installed: `pip install peft`; or.*merge_and_unload"):
        hub.open_source(folder)
