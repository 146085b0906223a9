"""A change at an address after an equality is what it is in the model itself, or is refused: at every address, by brute force."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit, is_note
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Constant, Einsum, Multiply, Weight
from scrubjay.circuit.places import write
from scrubjay.circuit.rules.algebra import FLATTEN
from scrubjay.circuit.rules.attention import FACTOR_OV, FACTOR_QK, split_qkv
from scrubjay.circuit.rules.joining import in_chunks, split_to_concat
from scrubjay.circuit.rules.norms import EXPAND_NORM, fold_norms
from scrubjay.circuit.rules.places import split_heads, split_places
from scrubjay.circuit.rules.projection import project
from scrubjay.circuit.rules.rewriting import rewrite
from scrubjay.circuit.rules.simplify import simplify
from scrubjay.circuit.rules.sources import expand_residual
from scrubjay.circuit.rules.virtual import virtual_heads
from scrubjay.engine import evaluate
from scrubjay.engine.context import Payload
from scrubjay.errors import AddressError, CircuitError
from small_models import batch, captured

BASIS = Weight("test", "U", ((Axis("model", 32),), (Axis("direction", 2),)))

REWRITES: dict[str, Callable[[Circuit], Circuit]] = {
    "split_heads": split_heads,
    "expand_residual": expand_residual,
    "by_head": lambda circuit: expand_residual(split_heads(circuit)),
    "virtual_heads": lambda circuit: virtual_heads(circuit, "logits"),
    "virtual_heads of keys": lambda circuit: virtual_heads(circuit, "L1.attn.k"),
    "split_qkv": split_qkv,
    "factor_qk": lambda circuit: rewrite(circuit, FACTOR_QK),
    "factor_ov": lambda circuit: rewrite(circuit, FACTOR_OV),
    "factor_ov of one head": lambda circuit: rewrite(split_heads(circuit), FACTOR_OV, where=_one_head(circuit)),
    "fold_norms": fold_norms,
    "expand_norm": lambda circuit: rewrite(circuit, EXPAND_NORM),
    "flatten": lambda circuit: rewrite(circuit, FLATTEN),
    "simplify": simplify,
    "split_places": lambda circuit: rewrite(circuit, split_places("d_head")),
    "split_to_concat": lambda circuit: rewrite(
        circuit, split_to_concat("query", (2, "query - 2")), where=[circuit.node("L1.resid_pre")]
    ),
    "in_chunks": lambda circuit: in_chunks(circuit, "batch", (1, "batch - 1")),
    "project": lambda circuit: rewrite(circuit, project(BASIS), where=[circuit.node("L0.resid_post")]),
}


def _one_head(circuit: Circuit) -> list[Node]:
    """Return what one head of the last layer writes, where heads are split."""
    split = split_heads(circuit)
    named = set(split.table.values())
    found: list[Node] = [
        node for node in split.nodes if isinstance(node, Einsum) and node not in named and node.summed == ("d_head",)
    ]
    return found[-1:]


def addresses(model: Model) -> list[str]:
    """Every address: whole values, heads, one neuron."""
    made = [name for name in model.circuit.table if not is_note(name) and name[:3] == "L0."]
    made += ["embed", "L1.resid_pre", "L1.resid_mid", "L1.attn.o", "L1.mlp.out"]
    made += [f"L0.H1.{site}" for site in ("out", "z", "k", "v", "pattern", "q_in", "v_in")]
    return [*made, "L0.N3"]


def logits(model: Model, circuits: list[Circuit]) -> list[torch.Tensor]:
    """The logits of several circuits of one model."""
    basis = torch.linalg.qr(torch.randn(32, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    stores = {**model.stores, "test": Payload({"U": basis}, {})}
    roots = [circuit.roots[model.anatomy.result] for circuit in circuits]
    inputs = {name: value for name, value in batch(2, 7, padding="left").items() if name in model.circuit.inputs}
    found = evaluate(roots, inputs, stores, dtype=torch.float64)
    return [found[root].dense([axis.name for axis in root.axes]).detach() for root in roots]


def zeroed(model: Model, circuit: Circuit, text: str) -> Circuit | None:
    """The circuit with a value zeroed; `None` where that is refused."""
    (address,) = model.addresses(text)
    try:
        return write(circuit, model.anatomy, address, lambda old: Multiply((old, Constant(0.0))), "zero")
    except (AddressError, CircuitError):
        return None


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_change_after_an_equality_is_the_same_or_refused(kind: str) -> None:
    model = captured(kind)[1].exact()
    texts = [
        text for text in addresses(model) if _is_one(model, text) and zeroed(model, model.circuit, text) is not None
    ]
    wanted = dict(
        zip(texts, logits(model, [c for c in (zeroed(model, model.circuit, t) for t in texts) if c]), strict=True)
    )
    wrong: list[str] = []
    for name, make in REWRITES.items():
        try:
            circuit = make(model.circuit)
        except CircuitError:
            continue  # nothing of that kind in this family
        changed = {text: made for text in texts if (made := zeroed(model, circuit, text)) is not None}
        found = dict(zip(changed, logits(model, list(changed.values())), strict=True))
        wrong += [f"{name}: {text} {float((found[text] - wanted[text]).abs().max()):.2g}" for text in found if not torch.allclose(found[text], wanted[text], rtol=1e-9, atol=1e-9, equal_nan=True)]  # fmt: skip
    assert not wrong


def _is_one(model: Model, text: str) -> bool:
    try:
        return len(model.addresses(text)) == 1
    except AddressError:
        return False
