"""A harvest is what runs keep, on disk: only what is needed is computed, a kill loses one shard, damage is seen."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import scrubjay as sj
import small_models
from scrubjay.circuit.graph import topological
from scrubjay.errors import AddressError, CacheError, InputError, LoadError
from scrubjay.interventions.harvest import harvest
from scrubjay.interventions.harvested import harvested

writing: Any = sys.modules["scrubjay.interventions.harvest"]  # the package's own attribute of that name is the function
KEEP = ["L*.resid_post", "L1.H2.z", "L0.mlp.post", "L1.resid_mid@-1"]
SMALL = 12_000


def data(padding: str = "both", rows: int = 11) -> dict[str, Tensor]:
    return small_models.batch(rows, 13, padding, seed=4)


def by_hand(model: Any, given: dict[str, Tensor], site: str, **options: Any) -> Tensor:
    """The real tokens of a value, row after row."""
    value = sj.run(model, given, keep=site, **options)[site].as_tensor()
    return value[given["attention_mask"].bool()] if "@" not in site else value


def close(one: Tensor, two: Tensor) -> None:
    torch.testing.assert_close(one, two, rtol=0, atol=2e-5 * float(two.abs().max()))


@pytest.mark.parametrize("kind", small_models.KINDS)
@pytest.mark.parametrize("padding", ["left", "both"])
def test_it_is_what_a_run_keeps_at_real_tokens(kind: str, padding: str, tmp_path: Path) -> None:
    _, model = small_models.captured(kind)
    given = data(padding)
    made = harvest(model, given, KEEP, tmp_path / "out", batch=3, shard=SMALL)
    assert len(made) > 2
    read = harvested(tmp_path / "out")
    names = ["L0.resid_post", "L1.resid_post", *KEEP[1:]]
    assert list(read.sites) == names
    for site in names:
        close(read[site].as_tensor(), by_hand(model, given, site))
    assert read["L1.H2.z"].names == ("token", "d_head")
    assert read["L1.resid_mid@-1"].names == ("row", "model")
    mask = given["attention_mask"].bool()
    rows, places = mask.nonzero().T
    assert torch.equal(torch.cat([shard.rows for shard in read]), rows)
    assert torch.equal(torch.cat([shard.positions for shard in read]), places - mask.int().argmax(1)[rows])
    assert torch.equal(torch.cat([shard.tokens for shard in read]), given["input_ids"][mask])
    assert torch.cat([shard.row_numbers for shard in read]).tolist() == list(range(11))
    assert read.tokens == int(mask.sum()) == sum(one["L0.mlp.post"].as_tensor().shape[0] for one in read)
    assert read.complete
    assert not [name for name in (tmp_path / "out").iterdir() if "partial" in name.name]


def test_nothing_after_the_kept_sites_is_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = small_models.captured("gpt2")
    asked: list[Any] = []
    real = writing.compute
    monkeypatch.setattr(
        writing,
        "compute",
        lambda nodes, *rest, **more: asked.append((nodes, made := real(nodes, *rest, **more))) or made,
    )
    harvest(model, data(), "L0.resid_post", tmp_path, batch=6)
    assert len(asked) == 2
    below = topological(asked[0][0])
    assert not {model.circuit.table["L1.attn.q"], model.circuit.roots["logits"]} & set(below)
    assert asked[0][1].evaluated < len(below)  # fused too


def test_inputs_of_every_kind(tmp_path: Path) -> None:
    _, model = small_models.captured("llama")
    ids = data("none")["input_ids"]
    expected = by_hand(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, "L0.resid_post")
    from scrubjay.claims.data import Dataset  # noqa: PLC0415

    def stream() -> Iterator[Tensor]:
        yield from ids.split(4)

    kinds = [
        ids, ids.numpy(), ids.tolist(), {"input_ids": ids}, stream(), list(ids.split(4)), [{"input_ids": one} for one in ids.split(5)],
        Dataset("ids", {"input_ids": ids.numpy()}, np.zeros(11)),
    ]  # fmt: skip
    for number, one in enumerate(kinds):
        made = harvest(model, one, "L0.resid_post", tmp_path / str(number), batch=4)
        close(made["L0.resid_post"].as_tensor(), expected)
    assert harvest(model, ids[0].tolist(), "L0.resid_post", tmp_path / "row").tokens == 13


def test_positions_blocks_types_and_interventions(tmp_path: Path) -> None:
    _, model = small_models.captured("gpt2")
    given, mask = data(), data()["attention_mask"].bool()
    some = harvest(model, given, "L0.resid_post", tmp_path / "some", batch=4, positions=[0, -1])
    value = sj.run(model, given, keep=["L0.resid_post@0", "L0.resid_post@-1"])
    both = torch.stack([value["L0.resid_post@0"].as_tensor(), value["L0.resid_post@-1"].as_tensor()], 1)
    close(some["L0.resid_post"].as_tensor(), both.flatten(0, 1))
    assert set(torch.cat([one.positions for one in some])[::2].tolist()) == {0}

    blocks = harvest(
        model, given, ["L0.attn.pattern", "L1.resid_post"], tmp_path / "blocks", batch=4, positions="padded"
    )
    run = sj.run(model, given, keep=["L0.attn.pattern", "L1.resid_post"])
    found = [block for shard in blocks for block in shard.blocks]
    assert [len(one["_rows"].as_tensor()) for one in found] == [4, 4, 3]
    for number, block in enumerate(found):
        here = slice(4 * number, 4 * number + 4)
        assert block["L0.attn.pattern"].names == ("batch", "head", "query", "key")
        real = block["attention_mask"].as_tensor().bool()
        close(block["L1.resid_post"].as_tensor()[real], run["L1.resid_post"].as_tensor()[here][mask[here]])
        assert torch.equal(block["input_ids"].as_tensor()[real], given["input_ids"][here][mask[here]])
    with pytest.raises(InputError, match=r"go through shard\.blocks"):
        _ = blocks["L1.resid_post"]

    half = harvest(model, given, "L1.resid_post", tmp_path / "half", dtype=torch.bfloat16)["L1.resid_post"].as_tensor()
    assert torch.equal(
        half, harvest(model, given, "L1.resid_post", tmp_path / "full")["L1.resid_post"].as_tensor().bfloat16()
    )

    change = sj.add("L0.resid_post", torch.linspace(-2, 2, small_models.WIDTH))
    changed = harvest(model, given, "L1.resid_post", tmp_path / "changed", interventions=change)
    close(changed["L1.resid_post"].as_tensor(), by_hand(model, given, "L1.resid_post", interventions=change))
    drawn = sj.resample("L0.attn.z", over=small_models.batch(5, 13, "none"), seed=1)
    one = harvest(model, given, "L1.resid_post", tmp_path / "drawn", batch=11, interventions=drawn)
    close(one["L1.resid_post"].as_tensor(), by_hand(model, given, "L1.resid_post", interventions=drawn))
    coder = torch.nn.Linear(small_models.WIDTH, small_models.WIDTH)
    left = harvest(
        model,
        given,
        "L0.resid_post.error",
        tmp_path / "error",
        interventions=sj.splice("L0.resid_post", coder, error="add"),
    )
    plain = by_hand(model, given, "L0.resid_post")
    close(left["L0.resid_post.error"].as_tensor(), (plain - coder(plain)).detach())


def cut_off(model: Any, folder: Path, after: int, **options: Any) -> None:
    """Harvest, and be killed while a batch is given."""

    def stream() -> Iterator[dict[str, Tensor]]:
        for number in range(0, 11, 2):
            if number == after:
                raise KeyboardInterrupt
            yield {name: tensor[number : number + 2] for name, tensor in data().items()}

    with pytest.raises(KeyboardInterrupt):
        harvest(model, stream(), KEEP, folder, shard=SMALL, batch=2, **options)


def test_a_harvest_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = small_models.captured("gpt2")
    whole = harvest(model, data(), KEEP, tmp_path / "whole", batch=2, shard=SMALL)
    cut_off(model, tmp_path / "cut", 8)
    with pytest.raises(LoadError, match=r"was cut off after \d shards: call sj.harvest again"):
        harvested(tmp_path / "cut")
    part = harvested(tmp_path / "cut", unfinished=True)
    assert 0 < len(part) < len(whole)
    assert "unfinished" in repr(part)
    before = {one["file"]: (tmp_path / "cut" / one["file"]).stat().st_mtime_ns for one in part.manifest["shards"]}
    calls: list[int] = []
    real = writing.compute
    monkeypatch.setattr(writing, "compute", lambda *given, **more: calls.append(1) or real(*given, **more))
    made = harvest(model, data(), KEEP, tmp_path / "cut", batch=2, shard=SMALL)
    assert len(calls) == 6 - sum(one["batches"] for one in part.manifest["shards"])
    assert all((tmp_path / "cut" / name).stat().st_mtime_ns == then for name, then in before.items())
    assert [one["digest"] for one in made.manifest["shards"]] == [one["digest"] for one in whole.manifest["shards"]]
    calls.clear()
    harvest(model, data(), KEEP, tmp_path / "cut", batch=2, shard=SMALL)
    assert calls == []


def test_a_damaged_shard_is_seen_and_made_anew_alone(tmp_path: Path) -> None:
    _, model = small_models.captured("gpt2")
    made = harvest(model, data(), KEEP, tmp_path / "out", batch=2, shard=SMALL)
    second = tmp_path / "out" / made.manifest["shards"][1]["file"]
    content = bytearray(second.read_bytes())
    content[-1] ^= 1
    second.write_bytes(bytes(content))
    read = harvested(tmp_path / "out")
    walk = iter(read)
    next(walk)
    with pytest.raises(
        LoadError, match=r"shard-00001.safetensors is not what was written .*this shard alone is made anew"
    ):
        next(walk)
    digests = [one["digest"] for one in made.manifest["shards"]]
    again = harvest(model, data(), KEEP, tmp_path / "out", batch=2, shard=SMALL)
    assert [one["digest"] for one in again.manifest["shards"]] == digests
    assert len(list(harvested(tmp_path / "out"))) == len(made)
    second.unlink()
    with pytest.raises(LoadError, match="cannot be read"):
        _ = harvested(tmp_path / "out")["L0.mlp.post"]
    second.write_bytes(b"short")
    with pytest.raises(LoadError, match=r"has 5 bytes, and manifest.json says"):
        _ = harvested(tmp_path / "out")["L0.mlp.post"]


def test_other_settings_or_inputs_in_one_folder_are_refused(tmp_path: Path) -> None:
    module, model = small_models.captured("gpt2")
    first = sj.add("L0.resid_post", torch.ones(small_models.WIDTH))
    options: dict[str, Any] = {"batch": 2, "shard": SMALL, "interventions": first}
    harvest(model, data(), "L1.resid_post", tmp_path, **options)
    kept = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    other = sj.add("L0.resid_post", torch.ones(small_models.WIDTH) * 2)
    trained = small_models.build("gpt2", seed=5)
    for changes, text in [
        (
            {"keep": "L0.resid_post"},
            r"holds a harvest with keep=\['L1.resid_post'\], and \['L0.resid_post'\] was asked for",
        ),
        ({"batch": 3}, "with batch=2, and 3"),
        ({"dtype": torch.float16}, "with dtype=as computed, and float16"),
        ({"positions": -1}, "with positions=real, and -1"),
        ({"interventions": other}, "with added="),
        ({"interventions": ()}, "with circuit="),
        ({"model": small_models.load(trained, name="gpt2")}, "with weights=sha256"),
        ({"inputs": data("left")}, "shard 0 .* was made from other inputs"),
        ({"inputs": {name: tensor[:4] for name, tensor in data().items()}}, "was made from other inputs"),
    ]:
        given = {"model": model, "inputs": data(), "keep": "L1.resid_post", "to": tmp_path, **options, **changes}
        with pytest.raises(InputError, match=text):
            harvest(**given)
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == kept
    del module
    function = sj.apply("L0.resid_post", lambda value: value * 2)
    harvest(model, data(), "L1.resid_post", tmp_path / "f", interventions=function)
    with pytest.raises(InputError, match="whether these are the same cannot be told"):
        harvest(model, data(), "L1.resid_post", tmp_path / "f", interventions=function)
    coder = torch.nn.Linear(small_models.WIDTH, small_models.WIDTH)
    for _ in range(2):  # a module has a fingerprint
        harvest(model, data(), "L1.resid_post", tmp_path / "m", interventions=sj.splice("L0.resid_post", coder))
    with torch.no_grad():
        coder.weight.mul_(2)
    with pytest.raises(InputError, match="with added="):
        harvest(model, data(), "L1.resid_post", tmp_path / "m", interventions=sj.splice("L0.resid_post", coder))


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = small_models.captured("gpt2")
    real, count = writing.save_file, [0]

    def full(tensors: Any, place: Path) -> None:
        count[0] += 1
        if count[0] == 3:
            Path(place).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(tensors, place)

    monkeypatch.setattr(writing, "save_file", full)
    with pytest.raises(CacheError, match=r"No space left on device.*make room and call sj\.harvest again"):
        harvest(model, data(), KEEP, tmp_path / "out", batch=2, shard=SMALL)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "manifest.json",
        "shard-00000.safetensors",
        "shard-00001.safetensors",
    ]
    made = harvest(model, data(), KEEP, tmp_path / "out", batch=2, shard=SMALL)
    close(made["L0.mlp.post"].as_tensor(), by_hand(model, data(), "L0.mlp.post"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(CacheError, match="give another folder"):
        harvest(model, data(), KEEP, tmp_path / "file" / "out")


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    _, model = small_models.captured("gpt2")
    for changes, error, text in [
        ({"keep": "L9.resid_post"}, AddressError, "layer 9 does not exist"),
        ({"keep": []}, InputError, "nothing is to be kept"),
        ({"keep": "L0.attn.pattern"}, AddressError, "positions='padded'"),
        ({"inputs": []}, InputError, "the input is empty"),
        ({"inputs": 3}, InputError, "and not int"),
        ({"inputs": ["text"]}, InputError, "has no tokenizer"),
        ({"inputs": {**data(), "attention_mask": data()["attention_mask"][:3]}}, InputError, "3 rows"),
        ({"batch": 0}, InputError, "at least one row"),
        ({"shard": 0}, InputError, "number of bytes"),
        ({"positions": "all"}, InputError, "positions='all'"),
        ({"positions": []}, InputError, "keeps nothing"),
        ({"positions": 12}, InputError, "has no position 12"),
        ({"dtype": torch.int8}, InputError, "floating type"),
    ]:
        given: dict[str, Any] = {
            "model": model,
            "inputs": data(),
            "keep": "L0.resid_post",
            "to": tmp_path / "out",
            **changes,
        }
        with pytest.raises(error, match=text):
            harvest(**given)
    large = sj.replace("L1.resid_post", 1e6)
    with pytest.raises(InputError, match=r"values up to 1e\+06, which float16 cannot hold"):
        harvest(model, data(), "L1.resid_post", tmp_path / "half", dtype=torch.float16, interventions=large)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        harvest(model, data(), "L0.resid_post", tmp_path / "other")
    with pytest.raises(LoadError, match="holds no harvest"):
        harvested(tmp_path / "other")
    made = harvest(model, data(), "L0.resid_post", tmp_path / "good")
    with pytest.raises(AddressError, match=r"is not in this harvest; it has L0.resid_post"):
        _ = made["L1.resid_post"]
    manifest = json.loads((tmp_path / "good" / "manifest.json").read_text())
    manifest["settings"]["model"] = "another"
    (tmp_path / "good" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(LoadError, match="was changed after it was written"):
        harvested(tmp_path / "good")
    (tmp_path / "good" / "manifest.json").write_text("{")
    with pytest.raises(LoadError, match="cannot be read"):
        harvested(tmp_path / "good")
