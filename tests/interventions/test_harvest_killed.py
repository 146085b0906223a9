"""A harvest whose process is killed goes on where it was, and ends as if nothing had happened."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import scrubjay as sj
import small_models
from scrubjay.errors import LoadError

SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
import time
import scrubjay as sj, small_models
model = small_models.load(small_models.build("llama"), name="llama")
given = small_models.batch(24, 13, "left", seed=4)


def batches():
    for start in range(0, 24, 2):
        yield {{name: one[start : start + 2] for name, one in given.items()}}
        print(start, flush=True)
        time.sleep(0.1 if start > 8 else 0)


sj.harvest(model, batches(), ["L*.resid_post", "L1.H2.z"], {folder!r}, batch=2, shard=9000)
"""


def test_a_process_killed_in_the_middle_loses_no_finished_shard(tmp_path: Path) -> None:
    script = SCRIPT.format(tests=str(Path(small_models.__file__).parent), folder=str(tmp_path / "out"))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 12:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(LoadError, match="was cut off after"):
        sj.harvested(tmp_path / "out")
    part = sj.harvested(tmp_path / "out", unfinished=True)
    before = {shard.file.name: shard.file.stat().st_mtime_ns for shard in part}
    assert len(before) >= 3

    (tmp_path / "out" / ".shard-00009.safetensors.1.partial").write_text(
        "half"
    )  # as if killed while a file was written
    model = small_models.load(small_models.build("llama"), name="llama")
    given = small_models.batch(24, 13, "left", seed=4)
    keep = ["L*.resid_post", "L1.H2.z"]
    made = sj.harvest(model, given, keep, tmp_path / "out", batch=2, shard=9000)
    whole = sj.harvest(model, given, keep, tmp_path / "whole", batch=2, shard=9000)
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before} == before
    assert [one["digest"] for one in made.manifest["shards"]] == [one["digest"] for one in whole.manifest["shards"]]
    right = sj.run(model, given, keep="L1.H2.z")["L1.H2.z"].as_tensor()[given["attention_mask"].bool()]
    torch.testing.assert_close(made["L1.H2.z"].as_tensor(), right, rtol=0, atol=1e-5 * float(right.abs().max()))
    assert not [file for file in (tmp_path / "out").iterdir() if file.suffix not in {".json", ".safetensors"}]
