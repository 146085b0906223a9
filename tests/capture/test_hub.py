"""Hugging Face models in hand and in folders: what opens, and what is refused with words that help."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
)
from transformers.utils import logging

import scrubjay as sj
from scrubjay.capture import hub
from scrubjay.capture.export import capture, store_of
from scrubjay.capture.load import load
from scrubjay.engine.evaluate import evaluate
from scrubjay.errors import CaptureError, LoadError

GPT2 = GPT2Config(
    n_layer=2, n_head=2, n_embd=8, vocab_size=19, n_positions=32, bos_token_id=0, eos_token_id=0, pad_token_id=0
)
LLAMA = LlamaConfig(
    num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, hidden_size=8, intermediate_size=12, vocab_size=19, max_position_embeddings=32,
    bos_token_id=0, eos_token_id=0,
)  # fmt: skip
BERT = BertConfig(
    num_hidden_layers=1,
    num_attention_heads=2,
    hidden_size=8,
    intermediate_size=12,
    vocab_size=19,
    max_position_embeddings=32,
)


def built(config: Any = GPT2, auto: Any = AutoModelForCausalLM) -> Any:
    torch.manual_seed(0)
    return auto.from_config(copy.deepcopy(config)).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-gpt2"
    built().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "tiny-gpt2"))


def run(opened: hub.Opened) -> tuple[torch.Tensor, torch.Tensor]:
    """The circuit's result and the module's own, at another size than the example's."""
    captured = capture(opened.module, opened.signature)
    ids = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12, 13, 14, 15]])
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    given = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    given = {key: given[key] for key in opened.signature.inputs}
    root = captured.circuit.roots[opened.signature.result]
    found = evaluate([root], given, {"model": store_of(opened.module, captured.constants)})[root]
    with torch.no_grad():
        wanted = opened.signature.pick(opened.module(**given, **opened.signature.fixed))
    rest = [name for name in found.names if name not in ("batch", "query")]
    order = [*(name for name in ("batch", "query") if name in found.names), *rest]
    return found.dense(order), wanted


@pytest.mark.parametrize(
    ("config", "auto", "result"),
    [
        (GPT2, AutoModelForCausalLM, "logits"),
        (GPT2, AutoModel, "output"),
        (LLAMA, AutoModelForCausalLM, "logits"),
        (BERT, AutoModelForMaskedLM, "logits"),
        (BERT, AutoModelForSequenceClassification, "logits"),
    ],
    ids=lambda value: getattr(value, "model_type", getattr(value, "__name__", value)),
)
def test_a_model_in_a_folder_is_captured_as_it_is(config: Any, auto: Any, result: str, tmp_path: Path) -> None:
    model = built(config, auto)
    model.save_pretrained(tmp_path / "tiny")
    opened = hub.open_source(tmp_path / "tiny")
    assert type(opened.module) is type(model)
    assert (opened.name, opened.tokenizer, opened.context, opened.signature.result) == ("tiny", None, 32, result)
    assert list(opened.signature.inputs) == ["input_ids", "attention_mask", "position_ids"]
    assert not opened.module.training
    found, wanted = run(opened)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_a_model_in_hand_is_described_and_not_changed() -> None:
    model = built()
    attention, config = model.config._attn_implementation, model.config.to_dict()
    opened = hub.describe(model)
    assert opened.module is model
    assert opened.signature.fixed == {"use_cache": False, "return_dict": True}
    assert opened.facts["attention"] == attention
    assert json.loads(json.dumps(opened.facts)) == opened.facts
    found, wanted = run(opened)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
    assert (model.config._attn_implementation, model.config.to_dict()) == (attention, config)


def test_the_example_fits_a_short_context_and_a_small_vocabulary() -> None:
    config = copy.deepcopy(GPT2)
    config.n_positions, config.vocab_size = 5, 3
    opened = hub.describe(built(config))
    assert {tuple(tensor.shape) for tensor in opened.signature.inputs.values()} == {(2, 5)}
    assert int(opened.signature.inputs["input_ids"].max()) < 3


def test_only_arguments_that_forward_takes_are_given() -> None:
    class Plain(PreTrainedModel):
        config_class = GPT2Config

        def __init__(self) -> None:
            super().__init__(copy.deepcopy(GPT2))
            self.table = nn.Embedding(19, 4)

        def get_input_embeddings(self) -> nn.Module:
            return self.table

        def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"last_hidden_state": self.table(input_ids)}

    opened = hub.describe(Plain().eval())
    assert (list(opened.signature.inputs), dict(opened.signature.fixed)) == (["input_ids"], {})
    found, wanted = run(opened)
    assert torch.equal(found, wanted)


def test_a_model_without_token_ids_is_refused() -> None:
    class Seeing(PreTrainedModel):
        config_class = GPT2Config

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels

    with pytest.raises(CaptureError, match=r"Seeing takes no input_ids but pixels.*inputs=, dynamic="):
        hub.describe(Seeing(copy.deepcopy(GPT2)).eval())


def test_a_result_without_logits_is_explained() -> None:
    opened = hub.describe(built())
    with pytest.raises(CaptureError, match="should return 'logits' and returned past, loss"):
        opened.signature.pick({"past": 1, "loss": 2})


def test_what_is_pretrained() -> None:
    model = built()
    assert hub.is_pretrained(model)
    assert not hub.is_pretrained(nn.Linear(2, 2))


def test_asking_does_not_import_transformers() -> None:
    script = (
        "import sys; import scrubjay.capture.hub as hub; from torch import nn\n"
        "assert not hub.is_pretrained(nn.Linear(2, 2)); assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_compiled_model_is_refused() -> None:
    compiled: Any = torch.compile(built(), backend="eager")
    assert hub.is_pretrained(compiled)
    with pytest.raises(CaptureError, match=r"compiled \(torch.compile\).*`module._orig_mod`"):
        hub.describe(compiled)
    plain: Any = torch.compile(nn.Linear(2, 2).eval(), backend="eager")
    with pytest.raises(CaptureError, match=r"`module._orig_mod`"):
        load(plain, inputs={"input": torch.zeros(3, 2)}, dynamic={"input": ("batch", None)})


def test_a_parallel_model_is_the_model_inside() -> None:
    module = built()
    assert hub.describe(nn.DataParallel(module)).module is module
    layer = nn.Linear(2, 2).eval()
    model = load(
        nn.DataParallel(layer), inputs={"input": torch.zeros(3, 2)}, dynamic={"input": ("batch", None)}, cache=None
    )
    x = torch.randn(5, 2)
    torch.testing.assert_close(sj.run(model, {"input": x}).output, layer(x).detach())
    compiled: Any = torch.compile(built(), backend="eager")
    with pytest.raises(CaptureError, match="compiled"):
        hub.describe(nn.DataParallel(compiled))


def test_a_quantised_model_is_refused() -> None:
    model = built()
    model.lm_head.weight = nn.Parameter(torch.zeros(19, 8, dtype=torch.int8), requires_grad=False)
    with pytest.raises(CaptureError, match=r"quantised: lm_head.weight"):
        hub.describe(model)
    other = built()
    other.hf_quantizer = object()
    with pytest.raises(CaptureError, match="is quantised"):
        hub.describe(other)


def test_a_plain_module_is_refused() -> None:
    with pytest.raises(CaptureError, match="Linear is not a transformers model"):
        hub.describe(nn.Linear(2, 2))


def test_dtype_is_as_stored_or_as_asked(folder: Path) -> None:
    half = built().to(torch.bfloat16)
    half.save_pretrained(folder)
    assert hub.open_source(folder).module.lm_head.weight.dtype == torch.bfloat16  # pyright: ignore[reportAttributeAccessIssue]
    wide: Any = hub.open_source(str(folder), dtype=torch.float64).module
    assert wide.lm_head.weight.dtype == torch.float64


def test_nothing_is_reported_and_nothing_stays_changed(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = (logging.get_verbosity(), logging.is_progress_bar_enabled(), logging.set_tqdm_hook(None))
    hub.open_source(folder)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled(), logging.set_tqdm_hook(None)) == before
    assert capfd.readouterr() == ("", "")


def test_a_tokenizer_in_the_folder_is_read(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?").save_pretrained(folder)
    opened = hub.open_source(folder)
    assert opened.tokenizer("b a c")["input_ids"] == [1, 0, 2]
    given = object()
    assert hub.open_source(folder, tokenizer=given).tokenizer is given
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(LoadError, match=r"tokenizer of .* cannot be read"):
        hub.open_source(folder)


def test_a_hub_name_that_is_not_cached_is_refused_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        LoadError,
        match=r"'no-such-org/model' is no folder here, nothing of it was found in the local.*huggingface-cli download.*save_pretrained",
    ):
        hub.open_source("no-such-org/model")


def test_a_hub_name_in_the_cache_is_read(saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commit = "0" * 40
    place = tmp_path / "models--org--tiny"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    shutil.copytree(saved, place / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    opened = hub.open_source("org/tiny")
    assert opened.name == "org/tiny"
    assert type(opened.module).__name__ == "GPT2LMHeadModel"


def test_weights_that_are_no_numbers_load_and_are_refused_when_run(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["transformer.ln_f.bias"][1] = torch.nan
    save_file(weights, path, {"format": "pt"})
    opened = hub.open_source(folder)
    with pytest.raises(LoadError, match=r"'transformer.ln_f.bias' holds 1 values that are not finite"):
        run(opened)
