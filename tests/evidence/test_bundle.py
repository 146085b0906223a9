"""Bundles: equal contents are equal bytes, what was changed is refused, and nothing is written outside the folder."""

import json
import zipfile
from pathlib import Path

import pytest

from scrubjay.errors import EvidenceError
from scrubjay.evidence.bundle import MANIFEST, unpack_bundle, write_bundle
from scrubjay.evidence.digest import digest_bytes, digest_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "first"
    made.mkdir()
    (made / "record.json").write_text("{}")
    (made / "arrays.safetensors").write_bytes(b"numbers" * 10_000)
    return made


def forged(path: Path, entries: dict[str, bytes], **said: object) -> Path:
    """Write a zip whose manifest fits its entries, but for what is `said` otherwise."""
    files = {place: {"bytes": len(one), "digest": digest_bytes(one)} for place, one in entries.items()}
    body: dict[str, object] = {"format": "scrubjay.bundle", "version": 1, "files": files, **said}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, json.dumps({**body, "digest": digest_json(body)}))
        for place, content in entries.items():
            archive.writestr(place, content)
    return path


def test_a_bundle_unpacks_to_what_was_put_in_and_is_the_same_bytes_again(tmp_path: Path, folder: Path) -> None:
    made = write_bundle(tmp_path / "one.zip", {"records/first": folder})
    (folder / "record.json").touch()
    write_bundle(tmp_path / "two.zip", {"records/first": folder})
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    found = unpack_bundle(tmp_path / "one.zip", tmp_path / "out")
    assert found.digest == made.digest
    assert found.folders("records") == ["first"]
    for name in ("record.json", "arrays.safetensors"):
        assert (tmp_path / "out/records/first" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize(
    "place",
    [
        "records/first/../../../escaped.json",
        "/records/first/a.json",
        "records/first/a.pkl",
        "records/first/a.py",
        "other/first/a.json",
        "records/.first/a.json",
        "records\\first\\a.json",
        "records/first/é.json",
        "records/a.json",
    ],
)
def test_a_file_outside_its_place_is_refused_and_nothing_is_written(tmp_path: Path, place: str) -> None:
    bundle = forged(tmp_path / "bad.zip", {place: b"{}"})
    with pytest.raises(EvidenceError, match="no place in a bundle"):
        unpack_bundle(bundle, tmp_path / "deep/out")
    assert not list(tmp_path.rglob("escaped.json"))
    assert not (tmp_path / "deep/out").exists()


def test_a_bundle_that_holds_more_than_it_says_is_refused(tmp_path: Path) -> None:
    content = b"0" * 3_000_000  # deflates to a few kilobytes
    said = {"records/first/a.json": {"bytes": 100, "digest": digest_bytes(content)}}
    bundle = forged(tmp_path / "bomb.zip", {"records/first/a.json": content}, files=said)
    with pytest.raises(EvidenceError, match="more than the 100 bytes"):
        unpack_bundle(bundle, tmp_path / "out")
    honest = forged(tmp_path / "large.zip", {"records/first/a.json": content})
    with pytest.raises(EvidenceError, match="at most 1000 are unpacked"):
        unpack_bundle(honest, tmp_path / "out", most=1000)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["bomb.zip", "large.zip"]


def test_a_changed_file_a_changed_manifest_and_a_stray_file_are_refused(tmp_path: Path, folder: Path) -> None:
    wrong = {"records/first/a.json": {"bytes": 2, "digest": digest_bytes(b"[]")}}
    with pytest.raises(EvidenceError, match="not what was bundled"):
        unpack_bundle(forged(tmp_path / "a.zip", {"records/first/a.json": b"{}"}, files=wrong), tmp_path / "out")
    write_bundle(tmp_path / "b.zip", {"records/first": folder})
    with zipfile.ZipFile(tmp_path / "b.zip", "a") as archive:
        archive.writestr("records/first/stray.json", "{}")
    with pytest.raises(EvidenceError, match=r"stray\.json"):
        unpack_bundle(tmp_path / "b.zip", tmp_path / "out")
    text = json.dumps({"format": "scrubjay.bundle", "version": 1, "files": {}, "digest": "sha256:0"})
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr(MANIFEST, text)
    with pytest.raises(EvidenceError, match="changed after"):
        unpack_bundle(tmp_path / "c.zip", tmp_path / "out")
    (tmp_path / "d.zip").write_bytes(b"no zip")
    with pytest.raises(EvidenceError, match="no bundle that can be read"):
        unpack_bundle(tmp_path / "d.zip", tmp_path / "out")


def test_links_and_other_files_are_not_bundled(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(EvidenceError, match="no file that a bundle takes"):
        write_bundle(tmp_path / "one.zip", {"records/first": folder})
    (folder / "link.json").unlink()
    (folder / "code.py").write_text("")
    with pytest.raises(EvidenceError, match="no file that a bundle takes"):
        write_bundle(tmp_path / "one.zip", {"records/first": folder})
    assert not (tmp_path / "one.zip").exists()
