"""The circuit language, measured beside rust_circuit: `python benchmarks/circuits.py`.

GPT-2 small's shape with random weights is captured, and built from the same weights in rust_circuit's own nodes (`benchmarks/peers/
rust_circuit/gpt2.py`), in an environment of its own under `.peers/`. First the answers are compared: logits to 1e-4, as many matches,
as many paths. Then one table: medians of the processor's time, and Scrubjay's over the other's. `--json FILE` keeps all of it.

`construct` is reading a circuit back for Scrubjay, and calling the constructors (weights are hashed) for the other. What
Scrubjay made in one turn is forgotten before the next, so that its nodes are new each time; rust_circuit remembers some rewrites.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import scrubjay as sj
from scrubjay.capture.model import Model
from scrubjay.circuit import match
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Along, Constant, Einsum, Gather, Index, Input, Multiply, Weight
from scrubjay.circuit.printing.difference import diff
from scrubjay.circuit.printing.notation import write
from scrubjay.circuit.printing.parsing import parse
from scrubjay.circuit.rules import expand_residual, rewrite, simplify, split_heads
from scrubjay.circuit.rules.taking import PUSH_TAKE
from scrubjay.circuit.serial import from_json, to_json
from scrubjay.engine import evaluate

HERE = Path(__file__).parent
LAYERS, HEADS, BATCH, LENGTH, NODES = 12, 12, 1, 8, 20_000
TOLERANCE = 1e-4
TARGETS = {"split all heads and expand the residual": 1.0, "a new node": 5e-6}


def by_hand(circuit: Circuit) -> Circuit:
    """Return the circuit with each head reading its own weights."""
    return rewrite(circuit, PUSH_TAKE, where=lambda node: isinstance(node, Index) and node.axis == "head")


def head_out(circuit: Circuit, layer: int, head: int) -> Node:
    """Return what one head adds to the stream, in a circuit whose heads are split."""
    z = circuit.table[f"L{layer}.attn.out"]
    wrote = next(node for node in z.operands if isinstance(node, Add) and len(node.terms) == HEADS)
    return wrote.terms[head]


def on_path(circuit: Circuit) -> match.Chain:
    """From the token embedding through head 1 of layer 5 to the logits, avoiding MLPs."""
    embed = next(
        node for node in circuit.nodes
        if isinstance(node, Gather) and isinstance(node.source, Weight) and "wte" in node.source.name
    )  # fmt: skip
    return match.path(embed, head_out(circuit, 5, 1), circuit.roots["logits"]).avoiding(match.named("L*.mlp.out"))


def softmax(node: Node) -> bool:
    return isinstance(node, Along) and node.op in ("softmax", "safe_softmax")


def timed(work: Callable[[], Any], turns: int) -> list[float]:
    """Return the seconds of the processor for each turn; what a turn made is gone before the next."""
    found: list[float] = []
    for _ in range(turns):
        gc.collect()
        begun = time.process_time()
        made = work()
        found.append(time.process_time() - begun)
        del made
    return found


def operations(model: Model, apart: Circuit, split: Circuit) -> dict[str, Callable[[], Any]]:
    """Return what is measured, by the name that the other tool's measurement has too."""
    whole = model.circuit
    last = Circuit({"last": Index(split.roots["logits"], "query", -1)})
    text, names = json.dumps(to_json(apart)), {source: source for source in model.stores}
    way, written = on_path(apart), write(apart)

    def drop(node: Node) -> Node:
        return Multiply((Constant(0.0), node))

    changed = match.update(apart, head_out(apart, 5, 1), drop)
    return {
        "construct": lambda: from_json(to_json(whole), names),
        "match by name": lambda: match.find(apart, match.named("L*.mlp.out")),
        "match by predicate": lambda: match.find(apart, match.where(softmax)),
        "match by path": lambda: match.find(apart, way),
        "count paths": lambda: match.number_of_paths(apart, way),
        "update along a path": lambda: match.update(apart, way, drop),
        "split all heads": lambda: split_heads(whole),
        "choose heads down": lambda: by_hand(split),
        "expand the residual": lambda: expand_residual(split),
        "last position down": lambda: rewrite(last, PUSH_TAKE),
        "simplify": lambda: simplify(apart),
        "print": lambda: str(apart),
        "write text": lambda: write(apart),
        "read text": lambda: parse(written, names),
        "diff": lambda: str(diff(apart, changed)),
        "write JSON": lambda: json.dumps(to_json(apart)),
        "read JSON": lambda: from_json(json.loads(text), names),
    } | nodes()


def nodes() -> dict[str, Callable[[], Any]]:
    """Return the making of many nodes: new ones, which are checked, and ones that live already."""
    stream = Input("stream", (Axis("batch", "batch"), Axis("query", "query"), Axis("model", 768)))
    numbers = [Constant(float(place)) for place in range(NODES)]
    weights = [Weight("model", f"w{place}", ((Axis("model", 768),), (Axis("hidden", 3072),))) for place in range(NODES)]
    kept = [Add((stream, number)) for number in numbers]
    held = [Einsum((stream, weight), ("hidden",)) for weight in weights]
    return {
        "new sums": lambda: [Add((number, stream)) for number in numbers],
        "new contractions": lambda: [Einsum((stream, weight), ("model",)) for weight in weights],
        "sums again": lambda: [Add((stream, kept[place].terms[1])) for place in range(NODES)],
        "contractions again": lambda: [Einsum((stream, held[place].factors[1]), ("hidden",)) for place in range(NODES)],
    }


def values(model: Model, roots: Mapping[str, Node], ids: torch.Tensor) -> dict[str, torch.Tensor]:
    given = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": torch.arange(LENGTH)[None].expand_as(ids),
    }
    inputs = {name: given[name] for name in model.circuit.inputs}
    with torch.no_grad():
        made = evaluate(list(roots.values()), inputs, model.stores)
    order = ("batch", "query", "vocab")
    return {
        name: torch.as_tensor(made[node].laid([axis for axis in order if axis in node.axis_names])).detach()
        for name, node in roots.items()
    }


def disagreements(ours: dict[str, Any], theirs: dict[str, Any], reference: torch.Tensor) -> list[str]:
    """Return where the two do not give the same answers; every logit and count is looked at."""
    found: list[str] = []
    for whose, part in (("Scrubjay", ours), ("rust_circuit", theirs)):
        for name, value in part["logits"].items():
            far = float((value - (reference[:, -1] if name == "last" else reference)).abs().max())
            if not far < TOLERANCE:
                found.append(f"logits of {whose}, {name}: {far:.1e} from the module's")
    for name, count in ours["matches"].items():
        if str(count) != str(theirs["matches"][name]):
            found.append(f"{name}: {count} in Scrubjay and {theirs['matches'][name]} in rust_circuit")
    return found


def own(model: Model, ids: torch.Tensor, turns: int) -> dict[str, Any]:
    whole = model.circuit
    split = split_heads(whole)
    apart, expanded = by_hand(split), expand_residual(split)
    last = rewrite(Circuit({"last": Index(split.roots["logits"], "query", -1)}), PUSH_TAKE)
    roots = {"whole": whole, "apart": apart, "expanded": expanded}
    logits = {name: circuit.roots["logits"] for name, circuit in roots.items()} | {"last": last.roots["last"]}
    way = on_path(apart)
    matches = {
        "by name": len(match.find(apart, match.named("L*.mlp.out"))),
        "by predicate": len(match.find(apart, match.where(softmax))),
        "by path": len(match.find(apart, way)),
        "paths": str(match.number_of_paths(apart, way)),
    }
    counted = {name: len(circuit.nodes) for name, circuit in {**roots, "split": split}.items()}
    found = {"matches": matches, "nodes": counted, "logits": values(model, logits, ids), "nodes_made": NODES}
    del expanded, last, roots, logits
    return found | {"seconds": {name: timed(work, turns) for name, work in operations(model, apart, split).items()}}


def peer(environment: Path, module: GPT2LMHeadModel, ids: torch.Tensor, turns: int) -> dict[str, Any]:
    """Run the other tool in its own environment on the same weights and tokens."""
    python = environment / "bin" / "python"
    if not python.exists():
        raise SystemExit(
            f"{environment} has no Python: `make .peers/rust_circuit/.installed`, or name one with --environment"
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        given = {"ids": ids, "layers": torch.tensor(LAYERS), "heads": torch.tensor(HEADS)}
        torch.save({**module.state_dict(), **given}, folder / "gpt2.pt")
        script = HERE / "peers" / "rust_circuit" / "circuits.py"
        subprocess.run([python, script, folder, str(turns)], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        found = json.loads((folder / "rust_circuit.json").read_text(encoding="utf-8"))
        return found | {"logits": torch.load(folder / "rust_circuit.pt", weights_only=True)}


def table(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    lines = [f"{'':24}{'Scrubjay':>12}{'rust_circuit':>14}{'ratio':>9}"]
    for name, turns in ours["seconds"].items():
        each = NODES if "sums" in name or "contractions" in name else 1
        unit, scale = ("us each", 1e6) if each > 1 else ("ms", 1e3)
        mine = statistics.median(turns) / each
        other = statistics.median(theirs["seconds"][name]) / each if name in theirs["seconds"] else None
        told = (
            f"{other * scale:14.2f}{mine / other:9.1f}" if other else f"{theirs['failed'].get(name, 'none')[:40]:>14}"
        )
        lines.append(f"{name:24}{mine * scale:12.2f}{told}  {unit}")
    return "\n".join(lines)


def short(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Return the targets, met or not, and where Scrubjay is the slower one."""
    mine = {name: statistics.median(turns) for name, turns in ours["seconds"].items()}
    both = mine["split all heads"] + mine["expand the residual"]
    new = max(mine["new sums"], mine["new contractions"]) / NODES
    taken = dict(zip(TARGETS, (both, new), strict=True))
    lines = [
        f"{'met  ' if taken[name] < most else 'MISSED'} {name}: {taken[name]:.3g} s, target {most:.3g} s"
        for name, most in TARGETS.items()
    ]
    slower = [
        f"{name} ({mine[name] / statistics.median(turns):.0f}x)"
        for name, turns in theirs["seconds"].items()
        if name in mine and mine[name] > 2 * statistics.median(turns)
    ]
    return [*lines, f"slower than rust_circuit by more than 2x: {', '.join(slower) or 'nothing'}"]


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path, default=HERE.parent / ".peers" / "rust_circuit")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--json", type=Path, help="a file to write all timings, counts and versions into")
    chosen = parser.parse_args(given)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = GPT2LMHeadModel(GPT2Config()).eval()
    ids = torch.randint(0, 50257, (BATCH, LENGTH))
    with torch.no_grad():
        reference = module(input_ids=ids, use_cache=False).logits
    begun = time.perf_counter()
    model = sj.load(module, cache=None)
    captured = time.perf_counter() - begun
    load = os.getloadavg()[0]
    theirs = peer(chosen.environment, module, ids, chosen.turns)
    ours = own(model, ids, chosen.turns)
    wrong = disagreements(ours, theirs, reference)
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, one thread, load {load:.1f} before; medians of {chosen.turns}"
    )
    print(f"capture from torch (export, lift, recognise, check): {captured:.1f} s, {len(model.circuit.nodes)} nodes")
    print(f"nodes: Scrubjay {ours['nodes']}, rust_circuit {theirs['nodes']}")
    print(
        "\n".join(f"NOT THE SAME: {one}" for one in wrong)
        or f"the same logits (to {TOLERANCE}), matches and paths: {ours['matches']}"
    )
    print(table(ours, theirs), *short(ours, theirs), sep="\n")
    if chosen.json:
        kept = {whose: {name: value for name, value in part.items() if name != "logits"} for whose, part in (("scrubjay", ours), ("rust_circuit", theirs))}  # fmt: skip
        facts = {
            "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
            "load": load,
            "capture_seconds": captured,
            "disagreements": wrong,
        }
        chosen.json.write_text(json.dumps(facts | kept, indent=1) + "\n", encoding="utf-8")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
