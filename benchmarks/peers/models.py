"""What the peers do with small models of many families, offline: `make peers`, or `python benchmarks/peers/models.py`.

Every family of `tests/families.py` is written to a folder with `save_pretrained`, with a small tokenizer, two batches and
the module's own logits on them. Each peer then loads the folder in its own environment (`worker.py`), and what it gives
is compared here. Results are kept in `results/models.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results" / "models.json"
PEERS = ("transformer_lens", "nnsight", "pyvene")
VARIANTS = {
    "transformer_lens": "TransformerLens Bridge",
    "transformer_lens_compatibility": "Bridge, compatibility mode",
    "nnsight": "nnsight",
    "pyvene": "pyvene",
}
SITES = ("resid", "pattern", "z")
WRONG = 1e-3
"""From this share of the logits' standard deviation on, a difference is no rounding."""
WIDTH = 72
"""Characters of a verdict that a table shows."""

sys.path.insert(0, str(ROOT / "tests"))

import families  # noqa: E402 - beside the tests, which are no package

# ---- writing the models ------------------------------------------------------------------------------------------


def tokenizer() -> Any:
    """Return a tokenizer of as many words as the models know."""
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    special = ["<pad>", "<bos>", "<eos>", "<unk>", "<mask>"]
    words = special + [f"w{index}" for index in range(families.VOCABULARY - len(special))]
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = ("pad_token", "bos_token", "eos_token", "unk_token", "mask_token")
    return PreTrainedTokenizerFast(tokenizer_object=made, **dict(zip(names, special, strict=True)))


def batches(module: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Return the two batches, with those inputs that the module's forward takes."""
    whole = families.batch(module, 4, 48)
    plain = {name: value for name, value in whole.items() if name.endswith("input_ids")}
    try:
        families.logits_of(module, plain)
    except TypeError:  # it counts positions from a padding token, as RoBERTa does, and these models have none
        plain["position_ids"] = whole["position_ids"]
    return {"plain": plain, "padded": families.batch(module, 3, 17, "left")}


def tensors(value: Any) -> list[tuple[int | None, Tensor]]:
    if isinstance(value, Tensor):
        return [(None, value)]
    if isinstance(value, tuple | list):
        return [(index, each) for index, each in enumerate(value) if isinstance(each, Tensor)]
    return []


def shown(module: nn.Module, batch: dict[str, Tensor]) -> dict[str, tuple[list[Any], Tensor]]:
    """Return where the first block's stream, attention pattern and z appear in the module's own forward, and the values.

    The stream is what the block returns; the pattern is a square value that a module within it returns; z is what the
    last linear map of that module reads.
    """
    calls: list[tuple[str, nn.Module, Any, Any]] = []
    handles = [
        each.register_forward_hook(lambda m, given, made, name=name: calls.append((name, m, given, made)))
        for name, each in module.named_modules()
    ]
    with contextlib.ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        families.logits_of(module, batch)
    layers: int = module.config.get_text_config().num_hidden_layers  # type: ignore[union-attr, operator]
    stacks = [name for name, each in module.named_modules() if isinstance(each, nn.ModuleList) and len(each) == layers]
    called = {name: made for name, _, _, made in calls}
    blocks = [f"{name}.0" for name in stacks if tensors(called.get(f"{name}.0"))]
    if not blocks:
        return {}
    block, found = blocks[0], {}
    index, value = tensors(called[block])[0]
    found["resid"] = ([block, "output", index], value)
    rows, length = batch["input_ids"].shape
    for name, _, _, made in reversed(calls):  # outer modules are called last
        for index, value in tensors(made) if name.startswith(f"{block}.") else ():
            if value.dim() == 4 and value.shape[0] == rows and value.shape[2:] == (length, length):
                found.setdefault("pattern", ([name, "output", index], value))
    if "pattern" in found:
        within = f"{found['pattern'][0][0]}."
        linear = [call for call in calls if call[0].startswith(within) and is_linear(call[1])]
        name, _, given, _ = linear[-1]
        found["z"] = ([name, "input", None], given[0])
    return found


def is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def write(kind: str, folder: Path) -> None:
    """Write a family's model, tokenizer, batches, own logits, and where its own values appear."""
    built = families.build(kind)
    for each in (built.config, built.config.get_text_config()):  # one forward needs no cache; some cannot make one
        each.use_cache = False
    built.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    # As a peer will load it: experts, where there are any, run as transformers chooses.
    module = type(built).from_pretrained(folder, attn_implementation="eager").eval()
    for name, batch in batches(module).items():
        save_file(batch, folder / f"{name}.safetensors")
        own = {"logits": families.logits_of(module, batch)}
        before = families.logits_of(built, batch)
        if name == "plain":
            found = shown(module, batch)
            own |= {site: value for site, (_, value) in found.items()}
            if not torch.allclose(before, own["logits"], atol=1e-3, equal_nan=True):
                raise ValueError(f"{kind} came back from its folder changed: save_pretrained does not keep all of it")
            about: dict[str, Any] = {"kind": type(module).__name__, "masked": kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES}
            about |= {"paths": {site: path for site, (path, _) in found.items()}}
            (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")
        save_file({key: value.detach().contiguous().clone() for key, value in own.items()}, folder / f"{name}.own")


def written(kinds: Sequence[str], work: Path) -> Iterator[tuple[str, str | None]]:
    """Write each family; yield its name with None, or with what stopped it."""
    for kind in kinds:
        folder = work / kind
        folder.mkdir()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                write(kind, folder)
        except Exception as error:  # noqa: BLE001 - one family must not stop the rest; it is reported
            yield kind, f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}"
        else:
            yield kind, None


# ---- running the peers -------------------------------------------------------------------------------------------


def call(peer: str, environments: Path, work: Path, kinds: Sequence[str]) -> None:
    """Run one peer over the folders, in its own environment; what it prints goes to a file beside them."""
    command = [str(environments / peer / "bin" / "python"), "-P", str(HERE / "worker.py"), peer, str(work), *kinds]
    given = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    log = work / f"{peer}.log"
    with log.open("w", encoding="utf-8") as out:
        ended = subprocess.run(command, env=given, stdout=out, stderr=subprocess.STDOUT, check=False)
    if ended.returncode:
        last = "\n".join(log.read_text(encoding="utf-8").splitlines()[-15:])
        raise RuntimeError(f"{peer} ended with exit code {ended.returncode}; the end of {log}:\n{last}")


# ---- comparing ---------------------------------------------------------------------------------------------------


def difference(own: Tensor, theirs: Tensor, mask: Tensor | None = None) -> float:
    """Return the largest difference at real tokens; infinite where shapes or not-a-numbers differ."""
    if own.shape != theirs.shape:
        return math.inf
    if mask is not None:
        own, theirs = own[mask.bool()], theirs[mask.bool()]
    gap = (own.float() - theirs.float()).abs()
    gap = torch.where(own.isnan() & theirs.isnan() | (own == theirs), torch.zeros(()), gap)
    return float(f"{gap.nan_to_num(math.inf).max():.3g}")


def short(value: float) -> str:
    """Return a number with one digit, such as 4e-6."""
    if value >= 0.1:
        return f"{value:.2g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def verdict(found: float, deviation: float) -> str:
    """Return "exact", the size of a rounding difference, or "differs: SIZE".

    >>> verdict(0.0, 1.0), verdict(3.6e-6, 1.0), verdict(0.3, 1.0)
    ('exact', '4e-6', 'differs: 0.3')
    """
    if found == 0:
        return "exact"
    return short(found) if found < WRONG * deviation else f"differs: {short(found)}"


def compared(variant: str, folder: Path) -> dict[str, Any]:
    """Return the row of one family and variant: the verdict, the numbers, the sites, the errors word for word."""
    report = json.loads((folder / f"{variant}.json").read_text(encoding="utf-8"))
    row: dict[str, Any] = {"verdict": "", "way": report["way"], "named": None, "failed": report["failed"]}
    if report["way"] is None:
        row["verdict"] = f"fails: {list(report['failed'].values())[-1]}"
        return row
    row["named"] = report["named"]
    theirs, errors = load_file(folder / f"{variant}.safetensors"), report["errors"]
    processed = variant.endswith("compatibility")  # logits are moved by a constant, the stream is centred
    for name in ("plain", "padded"):
        own = load_file(folder / f"{name}.own")["logits"]
        deviation = float(own[own.isfinite()].std())
        if name not in theirs:
            row[name], row[f"{name}_verdict"] = None, f"fails: {errors[name]}"
            continue
        found = theirs[name]
        if processed:
            own, found = own.float().log_softmax(-1), found.float().log_softmax(-1)
        batch = load_file(folder / f"{name}.safetensors")
        mask = batch.get(
            "decoder_attention_mask", None if "decoder_input_ids" in batch else batch.get("attention_mask")
        )
        row[name] = difference(own, found, mask)
        row[f"{name}_verdict"] = verdict(row[name], deviation)
    row["verdict"] = row.pop("plain_verdict")
    own = load_file(folder / "plain.own")
    row["sites"] = {site: site_of(site, own, theirs, processed=processed) for site in SITES}
    row["errors"] = {name: text for name, text in errors.items() if name in SITES}
    return row


def site_of(site: str, own: dict[str, Tensor], theirs: dict[str, Tensor], *, processed: bool) -> str:
    """Return "yes", "no", "absent" where the module shows none either, or how far the peer's values are from its own."""
    if site not in theirs:
        return "no" if site in own else "absent"
    if site not in own or (processed and site != "pattern"):
        return "unchecked"
    expected, found = own[site], theirs[site]
    if found.numel() != expected.numel():
        return f"differs: shape {list(found.shape)}, not {list(expected.shape)}"
    gap = difference(expected, found.reshape(expected.shape))
    return "yes" if gap < WRONG * float(expected.std()) else f"differs: {short(gap)}"


# ---- results -----------------------------------------------------------------------------------------------------


def table(results: dict[str, Any]) -> str:
    """Return the results as a Markdown table: a row per family, a column per peer."""
    lines = ["| family | " + " | ".join(VARIANTS.values()) + " |", "|---" * (len(VARIANTS) + 1) + "|"]
    for kind, row in sorted(results["families"].items()):
        cells = [cell(row[name]) if name in row else "" for name in VARIANTS]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(row: dict[str, Any]) -> str:
    """Return a verdict for a table; a model whose parts are reached by module path only is marked."""
    text = row["verdict"].replace("|", "\\|")
    text = text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
    return text if row["named"] in (True, None) else f"{text} (by path)"


def counts(results: dict[str, Any]) -> str:
    """Return how many families each peer loads, has exact, and gets wrong, one line each."""
    lines = []
    for name, title in VARIANTS.items():
        rows = [row[name] for row in results["families"].values() if name in row]
        said = [row["verdict"].split(":")[0] for row in rows]
        padded = [row.get("padded_verdict", "fails") for row in rows if row["way"]]
        sites = ", ".join(f"{site} {sum(row.get('sites', {}).get(site) == 'yes' for row in rows)}" for site in SITES)
        lines.append(
            f"{title}: {len(said) - said.count('fails')} of {len(said)} run, {said.count('exact')} exact, "
            f"{said.count('differs')} differ by more than rounding; "
            f"left-padded: {sum(each.startswith(('fails', 'differs')) for each in padded)} fail or differ; sites: {sites}"
        )
    return "\n".join(lines)


def dumped(results: dict[str, Any]) -> str:
    """Return the results as JSON with one line per family and peer."""
    head = {name: value for name, value in results.items() if name != "families"}
    lines = [f" {json.dumps(name)}: {json.dumps(value)}," for name, value in head.items()]
    each = []
    for kind, row in sorted(results["families"].items()):
        inner = ",\n".join(f"   {json.dumps(name)}: {json.dumps(value)}" for name, value in row.items())
        each.append(f"  {json.dumps(kind)}: {{\n{inner}}}")
    return "{\n" + "\n".join(lines) + '\n "families": {\n' + ",\n".join(each) + "}}\n"


def merged(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """Return the new results with those rows of the old ones that they do not replace; raises if versions differ."""
    if old is None:
        return new
    for name, made in new["versions"].items():
        if name in old["versions"] and old["versions"][name] != made:
            raise ValueError(
                f"the kept results have {name} at {old['versions'][name]} and these have {made}: rows of both do not mix. "
                f"Make the environment as its requirements.txt says, or remove {RESULTS.name} and run every family"
            )
    kinds = sorted({*old["families"], *new["families"]})
    rows = {kind: old["families"].get(kind, {}) | new["families"].get(kind, {}) for kind in kinds}
    return new | {"versions": old["versions"] | new["versions"], "families": rows}


def parts(kinds: Sequence[str], size: int = 20) -> Iterator[Sequence[str]]:
    """Yield the families in groups, so that a run that is cut off keeps most of what it found."""
    for start in range(0, len(kinds), size):
        yield kinds[start : start + size]


def own_versions() -> dict[str, str]:
    names = ("torch", "transformers")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def measured(kinds: Sequence[str], peers: Sequence[str], environments: Path, work: Path) -> dict[str, Any]:
    """Write the families, run the peers, and return the results."""
    ready: list[str] = []
    for kind, stopped in written(kinds, work):
        print(f"{kind}: {stopped or 'written'}", flush=True)
        ready += [] if stopped else [kind]
    for peer in peers:
        print(f"{peer} over {len(ready)} families", flush=True)
        call(peer, environments, work, ready)
    variants = [name for name in VARIANTS if any(name.startswith(peer) for peer in peers)]
    made = {peer: json.loads((work / f"{peer}.versions.json").read_text(encoding="utf-8")) for peer in peers}
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "versions": {"reference": own_versions()} | made,
        "families": {kind: {name: compared(name, work / kind) for name in variants} for kind in ready},
    }


def main() -> None:
    old = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else None
    known = list(dict.fromkeys([*families.FAMILIES, *(old["families"] if old else ())]))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "families", nargs="*", default=known, help="default: those of tests/families.py and of the kept results"
    )
    parser.add_argument("--peers", nargs="*", default=PEERS, choices=PEERS)
    parser.add_argument("--environments", type=Path, default=ROOT / ".peers")
    parser.add_argument("--show", action="store_true", help="print the table of the last results and end")
    parser.add_argument("--keep", type=Path, help="an empty folder for the models and the peers' output")
    given = parser.parse_args()
    for some in () if given.show else parts(given.families):
        with tempfile.TemporaryDirectory() as temporary:
            new = measured(some, given.peers, given.environments, given.keep or Path(temporary))
        old = merged(old, new)
        RESULTS.write_text(dumped(old), encoding="utf-8")
    if old is None:
        raise SystemExit("no results yet, and no families were named: models.py gpt2 llama ...")
    print(table(old), counts(old), sep="\n\n")


if __name__ == "__main__":
    main()
