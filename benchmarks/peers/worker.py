"""Runs one peer over folders of saved models, in the peer's own environment: `python -P worker.py PEER WORK FAMILY...`.

The peer's `models.py` says how the peer loads a folder; this file tries those ways in turn, writes what came out beside
the model (`PEER.safetensors`, `PEER.json`) and judges nothing. Each family runs in a process of its own, with a time
limit: a crash stops no other.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
SECONDS = 120
FIRST_LINE = 160
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "WANDB_MODE": "disabled",
    # TransformerLens runs `pip install torchvision` (or uv's) when the processor of a multimodal model does not load.
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_NO_INDEX": "1",
    "UV_OFFLINE": "1",
}
"""What keeps a peer from the network, and from changing its own environment."""


@dataclass(frozen=True)
class Saved:
    """A model on disk: its folder, its class, whether it is a masked language model, and where its own values are."""

    folder: Path
    kind: str
    masked: bool
    paths: Mapping[str, list[Any]]
    """Where the module's own forward shows a value: site -> [module path, "input" or "output", index or None]."""

    def module(self) -> Any:
        """Return the model as transformers loads it."""
        import transformers  # noqa: PLC0415

        return getattr(transformers, self.kind).from_pretrained(self.folder, attn_implementation="eager").eval()

    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer  # noqa: PLC0415

        return AutoTokenizer.from_pretrained(self.folder)


@dataclass(frozen=True)
class Access:
    """A loaded model: a function from a batch to logits, and one per site from a batch to the values there."""

    logits: Callable[[dict[str, Any]], Any]
    sites: Mapping[str, Callable[[dict[str, Any]], Any]]
    named: bool
    """Whether the sites are read under the peer's own names, the same for every family; else by module paths."""


Way = tuple[str, Callable[[Saved], Access]]


def first_line(error: BaseException, folder: Path) -> str:
    """Return the type and the first line of an error, without the temporary folder's name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0] if lines else ''}".replace(str(folder), "FOLDER")
    return text if len(text) <= FIRST_LINE else text[: FIRST_LINE - 1] + "…"


def run(access: Access, saved: Saved) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what a loaded model gives, and the errors of what is optional; a model that does not run raises."""
    import torch  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    batches = {name: load_file(saved.folder / f"{name}.safetensors") for name in ("plain", "padded")}
    made: dict[str, Any] = {}
    errors: dict[str, str] = {}
    with torch.no_grad():
        made["plain"] = access.logits(batches["plain"])
        wanted = {"padded": access.logits, **access.sites}
        for name, read in wanted.items():
            try:
                made[name] = read(batches["padded" if name == "padded" else "plain"])
            except Exception as error:  # noqa: BLE001 - whatever a peer raises is the finding
                errors[name] = first_line(error, saved.folder)
    return {name: value.detach().float().contiguous().clone() for name, value in made.items()}, errors


def attempt(ways: list[Way], saved: Saved) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of the first way that loads and runs, and a report that names the ways that did not."""
    failed: dict[str, str] = {}
    for name, way in ways:
        try:
            access = way(saved)
            values, errors = run(access, saved)
        except Exception as error:  # noqa: BLE001 - whatever a peer raises is the finding
            traceback.print_exc()
            failed[name] = first_line(error, saved.folder)
        else:
            return values, {"way": name, "named": access.named, "failed": failed, "errors": errors}
    return {}, {"way": None, "failed": failed, "errors": {}}


def family(peer: ModuleType, folder: Path) -> None:
    """Try every variant of a peer on one folder and write what came out."""
    import torch  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    torch.set_num_threads(1)
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    saved = Saved(folder, about["kind"], about["masked"], about["paths"])
    for variant, ways in peer.VARIANTS.items():
        values, report = attempt(ways, saved)
        if values:
            save_file(values, folder / f"{variant}.safetensors")
        (folder / f"{variant}.json").write_text(json.dumps(report), encoding="utf-8")


def limited(peer: ModuleType, folder: Path) -> None:
    """Run one family in a process of its own; where it dies or takes too long, say so in place of its report."""
    process = multiprocessing.get_context("fork").Process(target=family, args=(peer, folder))
    process.start()
    process.join(SECONDS)
    end = f"Crash: the process ended with exit code {process.exitcode}"
    if process.is_alive():
        process.kill()
        process.join()
        end = f"Timeout: not done after {SECONDS} s"
    for variant in peer.VARIANTS:
        path = folder / f"{variant}.json"
        if not path.exists():
            path.write_text(json.dumps({"way": None, "failed": {"": end}, "errors": {}}), encoding="utf-8")


def loaded(name: str) -> ModuleType:
    """Return a peer's `models.py` as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_models", HERE / name / "models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def versions(peer: ModuleType) -> dict[str, str]:
    names = [peer.DISTRIBUTION, "torch", "transformers"]
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def installed() -> frozenset[str]:
    """Return every distribution of this environment with its version."""
    importlib.invalidate_caches()
    return frozenset(f"{each.name}=={each.version}" for each in importlib.metadata.distributions())


def main() -> None:
    name, work, *families = sys.argv[1:]
    for variable in [each for each in os.environ if each.startswith(("PIP_", "UV_"))]:
        del os.environ[variable]
    os.environ |= OFFLINE
    sys.modules["worker"] = sys.modules[__name__]
    before = installed()
    peer = loaded(name)
    for each in families:
        limited(peer, Path(work) / each)
        if installed() != before:
            changed = sorted(installed() ^ before)
            raise RuntimeError(f"{name} changed its own environment while it ran {each}: {changed[:6]}; make it anew")
    (Path(work) / f"{name}.versions.json").write_text(json.dumps(versions(peer)), encoding="utf-8")


if __name__ == "__main__":
    main()
