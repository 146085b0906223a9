"""Models saved as JSON and safetensors: read back to the same circuit, weights and sites; what is damaged is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import scrubjay as sj
from scrubjay.capture import saved
from scrubjay.capture.model import Model
from scrubjay.capture.plain import built, plain
from scrubjay.capture.saved import CIRCUIT, MANIFEST, WEIGHTS, load_saved, save
from scrubjay.circuit.recognisers import Anatomy
from scrubjay.circuit.serial import to_json
from scrubjay.errors import CacheError, InputError, LoadError
from scrubjay.evidence.digest import digest_json
from small_models import KINDS, WIDTH, batch, build, captured, load

every_kind = pytest.mark.parametrize("kind", KINDS)
INPUTS = batch(3, 9, padding="right")


def edited(kind: str) -> Model:
    model = captured(kind)[1].annotate("L0.H1.z", "looks back").rename({"L1.H3.z": "named.z"})
    return sj.edit(model, sj.zero("L0.H1.z"), sj.replace("L1.mlp.out", torch.arange(float(WIDTH))))


@every_kind
@pytest.mark.parametrize("change", [False, True], ids=["whole", "edited"])
def test_reads_back_to_the_same_model(kind: str, change: bool, tmp_path: Path) -> None:
    model = edited(kind) if change else captured(kind)[1]
    folder = save(model, tmp_path / "model")
    assert sorted(path.name for path in folder.iterdir()) == [CIRCUIT, MANIFEST, WEIGHTS]
    again = sj.load(folder)
    assert (again.name, again.context, again.arguments) == (model.name, model.context, model.arguments)
    assert again.anatomy == model.anatomy
    assert again.verdict == model.verdict
    assert str(again.sites) == str(model.sites)
    assert again.digest == model.digest
    if not change:
        assert to_json(again.circuit) == to_json(model.circuit)
    keep = ["L*.H*.z", "L1.mlp.out", "named.z"] if change else ["L*.H*.z"]
    one, two = (sj.run(each, INPUTS, keep=keep, interventions=[sj.zero("L1.H0.out")]) for each in (model, again))
    for name in keep:
        assert torch.equal(one[name].as_tensor(), two[name].as_tensor())
    assert torch.equal(one.logits, two.logits)
    own, other = model.to_module(), again.to_module()
    assert {name for name, _ in own.named_parameters()} == {name for name, _ in other.named_parameters()}
    assert torch.equal(own(**INPUTS), other(**INPUTS))


def test_the_same_weights_give_the_same_files(tmp_path: Path) -> None:
    model = edited("gpt2")
    one, two = save(model, tmp_path / "one"), save(sj.load(save(model, tmp_path / "first")), tmp_path / "two")
    for name in (MANIFEST, CIRCUIT, WEIGHTS):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    folder = save(captured("gpt2")[1], tmp_path / "model")
    names = set(load_file(folder / WEIGHTS))
    assert "transformer.wte.weight" in names
    assert "lm_head.weight" not in names


def test_tensors_that_share_memory_are_stored_apart(tmp_path: Path) -> None:
    same = torch.randn(WIDTH)
    model = sj.edit(captured("gpt2")[1], sj.replace("L0.mlp.out", same), sj.replace("L1.mlp.out", same))
    again = sj.load(save(model, tmp_path / "model"))
    assert torch.equal(sj.run(again, INPUTS).logits, sj.run(model, INPUTS).logits)


def test_a_trained_module_is_saved_with_its_sites(tmp_path: Path) -> None:
    model = load(build("llama"))
    made = model.to_module()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(1.5)
    again = sj.load(save(model.with_weights(made), tmp_path / "trained"))
    assert again.heads == model.heads
    torch.testing.assert_close(sj.run(again, INPUTS).logits, made(**INPUTS).detach())
    bare = sj.load(save(made, tmp_path / "bare"))
    assert bare.layers == 0
    assert torch.equal(bare.to_module()(**INPUTS), made(**INPUTS))


def test_type_and_device_and_name_are_as_asked(tmp_path: Path) -> None:
    folder = save(load(build("gpt2"), dtype="float64"), tmp_path / "model")
    assert sj.load(folder).dtype == torch.float64
    other = sj.load(folder, dtype="float32", device="cpu", name="mine", tokenizer=len)
    assert (other.dtype, other.device, other.name, other.tokenizer) == (torch.float32, "cpu", "mine", len)


def test_the_tokenizer_of_transformers_comes_along(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    model = load(build("gpt2"), tokenizer=PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?"))
    again = sj.load(save(model, tmp_path / "model"))
    assert again.tokenizer("a b ?")["input_ids"] == [0, 1, 2]
    assert torch.equal(sj.run(again, "a b b").logits, sj.run(model, "a b b").logits)


def test_what_is_there_is_kept_unless_asked(tmp_path: Path) -> None:
    model = captured("gpt2")[1]
    folder = save(model, tmp_path / "model")
    with pytest.raises(InputError, match="give overwrite=True"):
        save(model, folder)
    save(edited("gpt2"), folder, overwrite=True)
    assert len(sj.load(folder).circuit.history) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    with pytest.raises(InputError, match="holds no saved model; give another folder"):
        save(model, tmp_path / "mine", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "model"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(CacheError, match="give another folder"):
        save(model, tmp_path / "file" / "model")


def test_a_write_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(captured("gpt2")[1], tmp_path / "model")

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(saved, "save_file", full)
    with pytest.raises(CacheError, match="no space left"):
        save(edited("gpt2"), folder, overwrite=True)
    assert not sj.load(folder).circuit.history
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_python_function_is_in_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds 1 Python functions"):
        save(sj.edit(captured("gpt2")[1], sj.apply("L0.mlp.out", torch.tanh)), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest, its digests made right again, as one who means harm would."""
    found = json.loads((folder / MANIFEST).read_text())
    change(found)
    found["files"] = {
        name: saved._digest(folder / name) if (folder / name).is_file() else digest
        for name, digest in found["files"].items()
    }
    found.pop("digest", None)
    (folder / MANIFEST).write_text(json.dumps({**found, "digest": digest_json(found)}))


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    found = load_file(folder / WEIGHTS)
    change(found)
    save_file(found, folder / WEIGHTS)
    manifest(folder, lambda _: None)


def circuit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    found = json.loads((folder / CIRCUIT).read_text())
    change(found)
    (folder / CIRCUIT).write_text(json.dumps(found))
    manifest(folder, lambda _: None)


def truncated(name: str, *, known: bool = False) -> Callable[[Path], None]:
    def cut(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        if known:
            manifest(folder, lambda _: None)

    return cut


WTE = "transformer.wte.weight"


def wider(tensors: dict[str, torch.Tensor]) -> None:
    tensors[WTE] = torch.zeros(102, WIDTH)


def told(row: dict[str, Any]) -> Callable[[Path], None]:
    return lambda folder: manifest(folder, lambda found: found["weights"][WTE].update(row))


def deep(folder: Path) -> None:
    (folder / CIRCUIT).write_text("[" * 100_000 + "]" * 100_000)
    manifest(folder, lambda _: None)


def wide_and_told(folder: Path) -> None:
    weights(folder, wider)
    told({"shape": [102, WIDTH]})(folder)


def lost_and_told(folder: Path) -> None:
    weights(folder, lambda found: found.pop(WTE))
    manifest(folder, lambda found: found["weights"].pop(WTE))


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "lacks weights.safetensors"),
    "cut manifest": (truncated(MANIFEST), "cannot be read"),
    "cut circuit": (truncated(CIRCUIT), "its digest differs"),
    "cut weights": (truncated(WEIGHTS), "its digest differs"),
    "cut circuit, digest made right": (truncated(CIRCUIT, known=True), "cannot be read"),
    "cut weights, digest made right": (truncated(WEIGHTS, known=True), "weights.safetensors cannot be read"),
    "manifest changed": (lambda f: (f / MANIFEST).write_text((f / MANIFEST).read_text().replace('"name": "gpt2"', '"name": "other"')), "was changed"),
    "other form": (lambda f: manifest(f, lambda found: found.update(format="x")), "does not describe a saved model"),
    "later version": (lambda f: manifest(f, lambda found: found.update(version=2)), "saved in version 2 .* reads version 1"),
    "circuit of a later version": (lambda f: circuit(f, lambda found: found.update(version=99)), "version"),
    "a list": (lambda f: (f / MANIFEST).write_text("[]"), "does not describe a saved model"),
    "a key more": (lambda f: manifest(f, lambda found: found.update(more=1)), "was changed"),
    "another file": (lambda f: manifest(f, lambda found: found["files"].update({"../../etc/passwd": "sha256:0"})), "lists other files"),
    "missing tensor": (lambda f: weights(f, lambda found: found.pop(WTE)), "do not name the same tensors"),
    "missing tensor, manifest made right": (lost_and_told, "reads the weight 'transformer.wte.weight', which"),
    "a tensor more": (lambda f: weights(f, lambda found: found.update(x=torch.ones(1))), "do not name the same tensors"),
    "other shape": (lambda f: weights(f, wider), "manifest|scrubjay.json says"),
    "other shape, manifest made right": (wide_and_told, "and the circuit reads it as"),
    "other type": (lambda f: weights(f, lambda found: found.update({WTE: found[WTE].half()})), "scrubjay.json says float32"),
    "a name that climbs": (told({"name": "../../x"}), "manifest|scrubjay.json says"),
    "another source": (told({"source": "elsewhere"}), "manifest|scrubjay.json says"),
    "a shape of words": (told({"shape": ["many"]}), "should be"),
    "anatomy of another kind": (lambda f: manifest(f, lambda found: found["anatomy"].update(layers=3)), "anatomy.layers is 3"),
    "deep": (deep, "cannot be read"),
    "an infinite weight": (lambda f: weights(f, lambda found: found[WTE].fill_(float("inf"))), "not finite"),
}  # fmt: skip


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_or_hostile_folder_is_refused(harm: str, tmp_path: Path) -> None:
    folder = save(captured("gpt2")[1], tmp_path / "model")
    damage, message = HARM[harm]
    damage(folder)
    with pytest.raises(LoadError, match=message):
        sj.run(load_saved(folder), INPUTS)


def test_options_of_other_sources_are_refused(tmp_path: Path) -> None:
    folder = save(captured("gpt2")[1], tmp_path / "model")
    with pytest.raises(InputError, match=r"inputs, revision: .* is a saved model"):
        sj.load(folder, inputs=INPUTS, revision="main")


@every_kind
def test_anatomies_are_plain_values(kind: str) -> None:
    anatomy = edited(kind).anatomy
    assert built(Anatomy, json.loads(json.dumps(plain(anatomy))), "anatomy") == anatomy
