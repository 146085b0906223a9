"""Redwood's bracket experiments in the claims language: what each says, with no code of its own for brackets or for scrubbing.

The statement is `shared/design/brackets-hypotheses.md`: 1 the count and horizon tests, 2 where heads 1.0 and 2.0 read the proportion
of open brackets, 3 what head 2.1 reads at each position, 4 the two together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import scrubjay as sj
from scrubjay.claims.hypothesis import Node
from scrubjay.claims.parts import Part

PUBLISHED = {
    "0a": (0.0, 0.01), "0b": (4.30, 0.12), "1a": (0.52, 0.04), "1b": (0.30, 0.04), "2a": (0.55, 0.04), "2b": (0.53, 0.04),
    "3a": (1.124, 0.1), "3b": (1.140, 0.1), "4": (1.7, 0.1),
}  # fmt: skip
"""Losses and their standard errors, as published; 2p1, 2p3 and the bonus have none."""


def experiment(name: str, direction: np.ndarray | None = None, horizon: str = "horizon") -> sj.Hypothesis:
    """Return an experiment; `direction` is the open vector, `horizon` the family of horizon features (`"horizon_adjusted"` for 3b and 4)."""
    made = sj.Hypothesis(name)
    if name == "0b":  # the result itself is another datum's
        made.node("output", "logits@0", None)
        return made
    output = made.node("output", "logits@0")
    if name == "0a":
        return made
    counts = "count" if name == "1a" else "count_open"
    heads = [output.reads(f"{layer}.0", f"L{layer}.H0.out@0", counts) for layer in (1, 2)]
    if name == "bonus":
        output.reads("0.0", "L0.H0.out@0", "count_open")
    horizon = horizon if name in {"3a", "3b", "4"} else "horizon"
    last = output.reads("2.1", "L2.H1.out@0", horizon)
    if name.startswith("2") or name == "4":
        for layer, head in zip((1, 2), heads, strict=True):
            _reads_position_one(head, layer, "2b" if name == "4" else name, direction)
    if name in {"3a", "3b", "4"}:
        last.reads("2.1 at each position", "L2.resid_pre", f"{horizon}_at", each=True)
        last.reads("2.1 padding", "attention_mask", "length")
    return made


def _reads_position_one(head: Node, layer: int, name: str, direction: Any) -> None:
    """Say what a head reads at position 1: a proportion, by 2p1 the stream's, by the others what head 0.0 writes there."""
    stream = head.reads(f"{layer}.0 at 1", f"L{layer}.resid_pre@1", "count_open")
    if name == "2p1":
        return
    writes = stream.reads(f"{layer}.0 proportion", "L0.H0.out@1", "p1_open", via="all")
    stream.reads(f"{layer}.0 start", "embed", "start", via="avoiding L0.H0.out")
    if name == "2p3":
        writes.reads(f"{layer}.0 along", "L0.H0.out@1", "p1_open", part=Part.along("open", direction))
    if name == "2b":
        phi = Part.estimate("phi", {"proportion": 2 * np.asarray(direction)}, offset=-np.asarray(direction))
        writes.reads(f"{layer}.0 phi", "L0.H0.out@1", "p1_open", part=phi)
