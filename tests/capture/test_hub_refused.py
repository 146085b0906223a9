"""Folders and files that are refused: each before anything of them runs, with words that say what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

import scrubjay as sj
from scrubjay.capture import hub
from scrubjay.errors import LoadError

GPT2: dict[str, Any] = {
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 8,
    "vocab_size": 19,
    "n_positions": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-gpt2"
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(**GPT2)).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "tiny-gpt2"))


# Folders that are refused: what is done to a good folder, and what the error says.


def remove(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def pickled(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(b"\x80\x04cos\nsystem\n")

    return change


def cut(size: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / "model.safetensors", size)


def with_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def with_index(index: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return change


def without_weights(*parts: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        kept = {name: tensor for name, tensor in load_file(path).items() if not any(part in name for part in parts)}
        save_file(kept, path, {"format": "pt"})

    return change


SHARDS = {
    "transformer.wte.weight": "model-00001-of-00002.safetensors",
    "transformer.ln_f.bias": "model-00002-of-00002.safetensors",
}
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (
        remove("config.json"),
        r"has no config.json \(it holds generation_config.json, model.safetensors\).*save_pretrained",
    ),
    "no weights": (remove("model.safetensors"), r"has no model.safetensors \(it holds config.json"),
    "pickled weights": (
        pickled("pytorch_model.bin"),
        r"only as pytorch_model.bin: a pickle can run code.*`model.save_pretrained\(folder\)`, then give",
    ),
    "torch file": (pickled("weights.pt"), r"only as weights.pt: a pickle"),
    "bare pickle": (pickled("weights.pkl"), r"only as weights.pkl: a pickle"),
    "cut in the middle": (cut(4000), r"model.safetensors \(4000 bytes\) is damaged or cut short"),
    "cut in the header": (cut(100), r"\(100 bytes\) is damaged or cut short"),
    "cut in the length": (cut(5), r"\(5 bytes\) is damaged or cut short"),
    "empty weights": (cut(0), r"\(0 bytes\) is damaged or cut short"),
    "missing shard": (
        with_index({"weight_map": SHARDS}),
        r"lacks 1 of the 2 files that model.safetensors.index.json lists: model-00002-of-00002",
    ),
    "index outside": (
        with_index({"weight_map": {"a": "../model.safetensors"}}),
        r"lists '../model.safetensors', which is no safetensors file",
    ),
    "index of pickles": (
        with_index({"weight_map": {"a": "pytorch_model.bin"}}),
        r"lists 'pytorch_model.bin', which is no safetensors file",
    ),
    "index of nothing": (with_index([]), r"index .* cannot be read \(TypeError"),
    "missing layer": (
        without_weights("h.1.", "ln_f"),
        r"lacks 14 weights that GPT2LMHeadModel needs: transformer.h.1.attn.c_attn.bias.* and 6 more. They would be random",
    ),
    "missing weight": (
        without_weights("ln_f.bias"),
        r"lacks 1 weights that GPT2LMHeadModel needs: transformer.ln_f.bias\. They",
    ),
    "other shape": (with_config(n_embd=16), r"weights have another shape than config.json says"),
    "more layers": (with_config(n_layer=3), r"lacks 12 weights"),
    "damaged config": (lambda folder: (folder / "config.json").write_text("{"), r"config.json cannot be used"),
    "empty config": (
        lambda folder: (folder / "config.json").write_text("{}"),
        r"config.json cannot be used: ValueError.*load the module.*install a newer version",
    ),
    "unknown type": (with_config(model_type="mine"), r"config.json cannot be used"),
    "own code": (
        with_config(model_type="mine", auto_map={"AutoConfig": "mine.Config"}),
        r"names code that comes with the checkpoint, and Scrubjay runs none unless told to.*trust_remote_code=True",
    ),
    "quantised": (
        with_config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        r"is quantised",
    ),
    "bad adapter": (
        lambda folder: (folder / "adapter_config.json").write_text("{}"),
        r"cannot be used as the configuration of a PEFT adapter",
    ),
    "config of a list": (lambda folder: (folder / "config.json").write_text("[1]"), r"config.json cannot be used"),
    "config of text": (lambda folder: (folder / "config.json").write_bytes(b"\xff\x00"), r"Copy or download it again"),
    "wrong type of a size": (with_config(n_embd="eight"), r"config.json cannot be used"),
    "sizes that do not fit": (with_config(n_head=3), r"transformers could not build.*divisible"),
    "size of zero": (with_config(n_embd=0), r"could not build|another shape|cannot be used"),
    "unknown activation": (with_config(activation_function="made_up"), r"transformers could not build .*made_up"),
    "unknown class": (
        with_config(architectures=["MadeUpForCausalLM"]),
        r"for a class 'MadeUpForCausalLM' that transformers 5\..* lacks.*Install a version that has it",
    ),
    "class that is no model": (with_config(architectures=["GPT2Tokenizer"]), r"for a class 'GPT2Tokenizer'"),
    "class of another type": (
        with_config(architectures=["LlamaForCausalLM"]),
        r"names the class LlamaForCausalLM and the model type 'gpt2', which do not belong together",
    ),
    "unknown class with code": (
        with_config(architectures=["Mine"], auto_map={"AutoModelForCausalLM": "mine.Mine"}),
        r"for a class 'Mine'.*names code that comes with the checkpoint",
    ),
    "classes that are no list": (with_config(architectures=7), r"cannot be used|lacks"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_cannot_be_trusted_is_refused(case: str, folder: Path) -> None:
    change, message = REFUSED[case]
    change(folder)
    with pytest.raises(LoadError, match=f"(?s){message}"):
        hub.open_source(folder)


def test_a_file_is_refused(tmp_path: Path) -> None:
    for name in ("model.pt", "pytorch_model.bin", "model.pth"):
        (tmp_path / name).write_bytes(b"\x80\x04cos\nsystem\n")
        with pytest.raises(LoadError, match=r"file of pickled tensors: a pickle can run code"):
            hub.open_source(str(tmp_path / name))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(LoadError, match="is a file: give the folder that holds it"):
        hub.open_source(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "source", ["./gone", "/no/such/folder", "~/no/such", "a/b/c", "gone.bin", Path("gone"), "..", "", "a b"]
)
def test_a_path_to_nothing_is_refused(source: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty" / "inner"
    empty.mkdir(parents=True)
    monkeypatch.chdir(empty)
    with pytest.raises(LoadError, match=r"there is no folder|has no config.json"):
        hub.open_source(source)


# --- code that comes with a checkpoint ---

OWN_CODE = """
from pathlib import Path
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
Path({marker!r}).write_text("ran")

class OwnConfig(PretrainedConfig):
    model_type = "mine"
    def __init__(self, width=8, vocab_size=19, **rest):
        super().__init__(**rest)
        self.width, self.vocab_size = width, vocab_size

class OwnModel(PreTrainedModel):
    config_class = OwnConfig
    def __init__(self, config):
        super().__init__(config)
        self.table = nn.Embedding(config.vocab_size, config.width)
        self.head = nn.Linear(config.width, config.vocab_size)
        self.post_init()
    def get_input_embeddings(self):
        return self.table
    def get_output_embeddings(self):
        return self.head
    def forward(self, input_ids):
        return {{"logits": self.head(torch.tanh(self.table(input_ids)))}}
"""


def test_code_of_a_checkpoint_runs_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder, marker = tmp_path / "own", tmp_path / "marker"
    folder.mkdir()
    config = {
        "model_type": "mine", "width": 8, "vocab_size": 19, "architectures": ["OwnModel"],
        "auto_map": {"AutoConfig": "code.OwnConfig", "AutoModelForCausalLM": "code.OwnModel"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(OWN_CODE.format(marker=str(marker)))
    torch.manual_seed(0)
    table, head = nn.Embedding(19, 8), nn.Linear(8, 19)
    weights = {"table.weight": table.weight, "head.weight": head.weight, "head.bias": head.bias}
    save_file(
        {name: weight.detach() for name, weight in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    for options in ({}, {"trust_remote_code": False}):
        with pytest.raises(
            LoadError, match=r"names code that comes with the checkpoint.*sj.load\(..., trust_remote_code=True\)"
        ):
            sj.load(folder, cache=None, **options)
    assert not marker.exists()
    model = sj.load(folder, cache=None, trust_remote_code=True)
    assert marker.read_text() == "ran"
    ids = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    torch.testing.assert_close(sj.run(model, ids).logits, head(torch.tanh(table(ids))).detach())


def test_code_beside_a_known_model_is_left_alone(folder: Path, tmp_path: Path) -> None:
    """A model that transformers has: its own class is used, and the code that came along is not read."""
    marker = tmp_path / "marker"
    (folder / "code.py").write_text(OWN_CODE.format(marker=str(marker)))
    with_config(auto_map={"AutoConfig": "code.OwnConfig", "AutoModelForCausalLM": "code.OwnModel"})(folder)
    assert type(hub.open_source(folder).module) is GPT2LMHeadModel
    assert not marker.exists()


def test_what_others_say_is_quoted_whole_and_without_its_last_dot(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub  # noqa: PLC0415

    def refuse(*_: object, **__: object) -> None:
        raise OSError(
            "Nothing was found, and " + "the network is off, " * 9 + "so set 'HF_HUB_OFFLINE=0' as variable.\nMore."
        )

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(LoadError, match=r"so set 'HF_HUB_OFFLINE=0' as variable\)"):
        hub.open_source("nobody/nothing")


@pytest.mark.parametrize("case", ["sizes that do not fit", "unknown type", "own code", "cut in the length"])
def test_no_punctuation_is_doubled(case: str, folder: Path) -> None:
    REFUSED[case][0](folder)
    with pytest.raises(LoadError) as caught:
        hub.open_source(folder)
    assert not re.search(r"[.;:!,][.;:)]|\.\s*\. ", str(caught.value).replace("load(...", "")), caught.value
