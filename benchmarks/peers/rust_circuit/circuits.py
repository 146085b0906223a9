"""What rust_circuit takes for the operations of `benchmarks/circuits.py`: run in its own environment, on a folder with `gpt2.pt`.

It writes `rust_circuit.json` (seconds of the processor for every turn, and what was found) and `rust_circuit.pt` (logits) into that folder.
"""

from __future__ import annotations

import gc
import json
import platform
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import rust_circuit as rc
import torch
from gpt2 import gpt2
from rust_circuit.algebric_rewrite import explicit_reduce

NODES = 20_000


def split_heads(circuit: rc.Circuit, heads: int) -> rc.Circuit:
    def split(node: rc.Circuit) -> rc.Circuit:
        names = [f"H{head}" for head in range(heads)]
        return explicit_reduce(node, 0, 1, list(range(heads)), partitioning_idx_names=names, use_axis_name=False)

    return circuit.update(lambda node: node.name.endswith(".heads"), split)


def heads_apart(circuit: rc.Circuit) -> rc.Circuit:
    """Return the circuit with each head reading its own weights: the choice of a head pushed down to the leaves."""
    return circuit.update(rc.Index, lambda node: rc.push_down_index(node).rename(node.name))


def expand(node: rc.Circuit) -> rc.Circuit:
    """Return a linear map of the normed stream as a sum over what was written to the stream, the scale kept whole."""
    product, *rest = rc.distribute_once(node, 0).children
    flat = rc.einsum_flatten(product)
    stream = flat.children[0]
    if not isinstance(stream, rc.Add):
        return node
    whole = rc.Einsum(*[(rc.add_flatten(stream), flat.args[0][1]), *flat.args[1:]], out_axes=flat.out_axes)
    return rc.Add(rc.distribute_once(whole, 0), *rest)


def expand_residual(circuit: rc.Circuit) -> rc.Circuit:
    def reads_stream(node: rc.Circuit) -> bool:
        return node.name == "logits" or node.name.endswith(("q_map", "k_map", "v_map", "pre_map"))

    return circuit.update(reads_stream, expand)


def mlps(layers: int) -> set[str]:
    return {f"L{layer}.mlp" for layer in range(layers)}


def is_softmax(node: rc.Circuit) -> bool:
    return isinstance(node, rc.GeneralFunction) and getattr(node.spec, "name", "") == "softmax"


def on_path(layers: int) -> rc.IterativeMatcher:
    """From `embed` through head 1 of layer 5 to the logits, avoiding MLPs."""
    avoided = mlps(layers)
    head = rc.restrict("L5.heads_keep_H1", term_early_at=avoided)
    return head.chain(rc.restrict("embed", term_early_at=avoided))


def number_of_paths(root: rc.Circuit, layers: int) -> int:
    """Count the same paths: rust_circuit lists them and does not count, so this is the check and no operation of its own."""
    head, avoided = root.get_unique("L5.heads_keep_H1"), mlps(layers)

    def count(top: rc.Circuit, end: rc.Circuit) -> int:
        found: dict[rc.Circuit, int] = {}
        for node in rc.toposort_circuit(top):
            below = sum(found[child] for child in node.children)
            found[node] = 1 if node == end else 0 if node.name in avoided else below
        return found[top]

    return count(root, head) * count(head, root.get_unique("embed"))


def timed(work: Callable[[], Any], turns: int) -> list[float]:
    found: list[float] = []
    for _ in range(turns):
        gc.collect()
        begun = time.process_time()
        made = work()
        found.append(time.process_time() - begun)
        del made
    return found


def construction(x: rc.Circuit) -> dict[str, Callable[[], Any]]:
    weights = [rc.Array(torch.randn(768, 1), name=f"w{place}") for place in range(NODES // 10)]
    numbers = [rc.Scalar(float(place)) for place in range(NODES)]
    axes = ((0, 1, 2), (2, 3))
    return {
        "new sums": lambda: [rc.Add(x, number) for number in numbers],
        "new contractions": lambda: [rc.Einsum((x, axes[0]), (w, axes[1]), out_axes=(0, 1, 3)) for w in weights * 10],
    }


def main() -> None:
    folder, turns = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    weights = torch.load(folder / "gpt2.pt", weights_only=True)
    ids, layers, heads = weights.pop("ids"), int(weights.pop("layers")), int(weights.pop("heads"))
    whole = gpt2(weights, ids, layers, heads)
    split = split_heads(whole, heads)
    apart = heads_apart(split)
    expanded = expand_residual(split)
    last = rc.Index(split, [slice(None), -1], name="last")
    text = apart.repr()
    parser = rc.Parser(tensors_as_random=True, allow_hash_with_random=True)
    changed = apart.update("L5.heads_keep_H1", lambda node: rc.Einsum.scalar_mul(node, 0.0))
    works: dict[str, Callable[[], Any]] = {
        "construct": lambda: gpt2(weights, ids, layers, heads),
        "match by name": lambda: apart.get(mlps(layers)),
        "match by predicate": lambda: apart.get(is_softmax),
        "match by path": lambda: apart.get(on_path(layers)),
        "update along a path": lambda: apart.update(on_path(layers), lambda node: rc.Einsum.scalar_mul(node, 0.0)),
        "split all heads": lambda: split_heads(whole, heads),
        "choose heads down": lambda: heads_apart(split),
        "expand the residual": lambda: expand_residual(split),
        "last position down": lambda: rc.push_down_index(last),
        "simplify": lambda: rc.simp(apart),
        "print": lambda: apart.repr(rc.PrintOptions(bijection=False)),
        "write text": apart.repr,
        "read text": lambda: parser(text),
        "diff": lambda: rc.diff_circuits(changed, apart),
    }
    seconds, failed = {}, {}
    for name, work in {**works, **construction(whole.get_unique("stream"))}.items():
        try:
            seconds[name] = timed(work, turns)
        except Exception as error:  # noqa: BLE001 - what a peer cannot do is a result
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    found = {
        "nodes": {"whole": rc.count_nodes(whole), "split": rc.count_nodes(split), "apart": rc.count_nodes(apart), "expanded": rc.count_nodes(expanded)},
        "matches": {
            "by name": len(apart.get(mlps(layers))),
            "by predicate": len(apart.get(is_softmax)),
            "by path": len(apart.get(on_path(layers))),
            "paths": str(number_of_paths(apart, layers)),
        },
        "versions": {name: metadata.version(name) for name in ("rust_circuit", "torch")} | {"python": platform.python_version()},
    }  # fmt: skip
    logits = {"whole": whole, "apart": apart, "expanded": expanded, "last": rc.push_down_index(last)}
    torch.save({name: node.evaluate() for name, node in logits.items()}, folder / "rust_circuit.pt")
    text = json.dumps({"seconds": seconds, "failed": failed, "nodes_made": NODES, **found})
    (folder / "rust_circuit.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
