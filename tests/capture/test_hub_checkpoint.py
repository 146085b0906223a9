"""Real checkpoints: shards, ties, types as stored, chat templates, revisions, checkpoints over training, memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import constants

import scrubjay as sj
from scrubjay.capture import hub
from scrubjay.capture.hub.remote import named
from scrubjay.circuit.ops import Weight
from scrubjay.errors import InputError, LoadError
from small_models import FOLDER, batch, build, logits_of


def test_shards_and_ties_are_read_as_one_model(tmp_path: Path) -> None:
    module = build("gpt2")
    module.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    assert not (tmp_path / "model.safetensors").exists()
    model = sj.load(tmp_path, cache=FOLDER.name)
    torch.testing.assert_close(sj.run(model, batch()).logits, logits_of(module, batch()), atol=1e-5, rtol=1e-5)
    # the unembedding is the embedding: one leaf over one tensor
    names = {node.name for node in model.circuit.nodes if isinstance(node, Weight)}
    assert {"transformer.wte.weight", "lm_head.weight"} & names == {"transformer.wte.weight"}
    (shard, *_) = sorted(tmp_path.glob("model-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(LoadError, match=rf"{shard.name} \(\d+ bytes\) is damaged or cut short"):
        hub.open_source(tmp_path)
    shard.unlink()
    with pytest.raises(
        LoadError, match=rf"lacks 1 of the \d+ files that model.safetensors.index.json lists: {shard.name}"
    ):
        hub.open_source(tmp_path)


def test_narrow_weights_stay_as_stored(tmp_path: Path) -> None:
    module = build("llama").to(torch.bfloat16)
    module.save_pretrained(tmp_path)
    model = sj.load(tmp_path, cache=FOLDER.name)
    names = {node.name for node in model.circuit.nodes if isinstance(node, Weight)} & dict(
        module.named_parameters()
    ).keys()
    assert {model.stores["model"].tensor(name).dtype for name in names} == {torch.bfloat16}
    assert sj.run(model, batch()).logits.dtype == torch.bfloat16
    # run in a wider type, weights are widened as they are read and stay narrow where they are
    wide = sj.load(module, dtype="float32", cache=FOLDER.name)
    assert sj.run(wide, batch()).logits.dtype == torch.float32
    assert {weight.dtype for weight in module.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", ["int8", "float31", "", torch.int8, torch.complex64, torch.float8_e4m3fn, 32])
def test_a_type_that_is_not_floating_is_refused(dtype: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a floating type: use float32, float64, bfloat16 or float16"):
        sj.load(tmp_path, dtype=dtype)


def test_a_chat_template_comes_along(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    words = {word: number for number, word in enumerate(["?", "<user>", "<model>", "<end>", "hello", "there"])}
    made = Tokenizer(models.WordLevel(words, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="?", pad_token="<end>", padding_side="left")
    tokenizer.chat_template = "{% for turn in messages %}<{{ turn.role }}> {{ turn.content }} <end> {% endfor %}{% if add_generation_prompt %}<model>{% endif %}"
    module = build("llama")
    module.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = sj.load(tmp_path, cache=FOLDER.name)
    text = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello there"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<user> hello there <end> <model>"
    made_of_it = sj.run(model, [text, "hello"])
    assert made_of_it.inputs["input_ids"].tolist() == [[1, 4, 5, 3, 2], [3, 3, 3, 3, 4]]
    ids = torch.tensor([[1, 4, 5, 3, 2]])
    with torch.no_grad():
        torch.testing.assert_close(made_of_it.logits[0], module(ids).logits[0], atol=1e-5, rtol=1e-5)


# --- by name: the local cache of the hub, made up ---


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with one model, its main branch and two checkpoints over training; each step's weights differ."""
    place = tmp_path / "hub" / "models--org--steps"
    for number, name in enumerate(["main", "step2", "step10"]):
        commit = f"{number:040d}"
        ref = place / "refs" / name
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit)
        build("gpt2", seed=number).save_pretrained(place / "snapshots" / commit)
    (place / "refs" / "pr").mkdir()
    (place / "refs" / "pr" / "3").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return place


def test_a_revision_is_loaded_by_name(cached: Path) -> None:
    found = {
        where: sj.run(sj.load("org/steps", revision=where, cache=FOLDER.name), batch()).logits
        for where in (None, "main", "step2", "step10")
    }
    for number, where in enumerate(["main", "step2", "step10"]):
        torch.testing.assert_close(found[where], logits_of(build("gpt2", seed=number), batch()), atol=1e-5, rtol=1e-5)
    assert torch.equal(found[None], found["main"])
    opened = hub.open_source("org/steps@step10")
    assert opened.name == "org/steps@step10"
    assert torch.equal(opened.module.get_parameter("lm_head.weight"), build("gpt2", seed=2).lm_head.weight)


def test_revisions_are_listed_in_their_order(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub.revisions("org/steps") == ("main", "step2", "step10")
    with pytest.raises(LoadError, match=r"revisions of 'org/other' are not known: .*the local cache has none"):
        hub.revisions("org/other")
    with pytest.raises(LoadError, match=r"is no hub name.*see `checkpoints`"):
        hub.revisions("./here")
    names = ["step10", "step1000-tokens2B", "main", "step9", "step1000-tokens1B"]
    refs = SimpleNamespace(branches=[SimpleNamespace(name=name) for name in names], tags=[SimpleNamespace(name="v1")])
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_refs", lambda _self, _name: refs)
    assert hub.revisions("org/steps") == ("main", "step9", "step10", "step1000-tokens1B", "step1000-tokens2B", "v1")


def test_a_revision_that_is_not_there_names_those_that_are(cached: Path) -> None:
    with pytest.raises(
        LoadError,
        match=r"'org/steps' at revision 'step3' .*the local cache has its revisions main, step2, step10\. Check the name",
    ):
        hub.open_source("org/steps", revision="step3")
    assert named("a/b@step1", "step1") == ("a/b", "step1")
    for text, revision in (("a/b@step1", "step2"), ("a/b@", None)):
        with pytest.raises(LoadError, match="name one revision"):
            hub.open_source(text, revision=revision)


def test_a_folder_and_a_module_have_no_revision(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"is a folder, which has no revision 'step2'"):
        hub.open_source(tmp_path, revision="step2")
    with pytest.raises(InputError, match="revision: for a folder or a hub name"):
        sj.load(torch.nn.Linear(2, 2), revision="step2")


def test_the_checkpoints_of_a_training_run_are_listed_and_loaded(tmp_path: Path) -> None:
    for number in (100, 20, 3):
        build("gpt2", seed=number).save_pretrained(tmp_path / f"checkpoint-{number}")
    (tmp_path / "checkpoint-5").mkdir()  # nothing was saved there
    (tmp_path / "runs").mkdir()
    found = hub.checkpoints(tmp_path)
    assert [path.name for path in found] == ["checkpoint-3", "checkpoint-20", "checkpoint-100"]
    model = sj.load(found[1], cache=FOLDER.name)
    assert model.name == "checkpoint-20"
    torch.testing.assert_close(
        sj.run(model, batch()).logits, logits_of(build("gpt2", seed=20), batch()), atol=1e-5, rtol=1e-5
    )
    shutil.rmtree(tmp_path)
    with pytest.raises(LoadError, match="there is no folder"):
        hub.checkpoints(tmp_path)
    tmp_path.mkdir()
    with pytest.raises(LoadError, match=r"has no folders of checkpoints, such as checkpoint-100 \(it is empty\)"):
        hub.checkpoints(tmp_path)


# --- memory ---

PEAK = """
import json, sys
from pathlib import Path
import torch
from transformers import LlamaForCausalLM
from scrubjay.capture import hub
def kilobytes(what):
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what)).split()[1])
Path("/proc/self/clear_refs").write_text("5")  # what importing took is over
before = kilobytes("VmRSS")
opened = hub.open_source(sys.argv[1])
for weight in opened.module.parameters():
    weight.sum()
print(json.dumps([before * 1024, kilobytes("VmHWM") * 1024, sum(weight.nbytes for weight in opened.module.parameters())]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak as Linux counts it")
def test_loading_peaks_at_the_size_of_the_weights(tmp_path: Path) -> None:
    """Not at twice that: weights are mapped from the file. About 200 MB of them, in two shards."""
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    config = LlamaConfig(
        vocab_size=4000,
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=5,
        num_attention_heads=8,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        module: Any = LlamaForCausalLM(config)
    module = module.to_empty(device="cpu").to(torch.bfloat16)
    with torch.no_grad():
        for weight in module.parameters():
            weight.fill_(0.01)
    module.save_pretrained(tmp_path, max_shard_size="100MB")
    del module
    done = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path)], check=True, capture_output=True, text=True)
    before, peak, size = json.loads(done.stdout.splitlines()[-1])
    assert size > 170e6
    assert 0.9 < (peak - before) / size < 1.3, (before, peak, size)
