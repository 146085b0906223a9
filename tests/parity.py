"""What the parity tests share: small named values, and a circuit's values on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Input, Weight
from scrubjay.engine import evaluate
from scrubjay.engine.context import Payload

AI, AJ, AK = Axis("i", 3), Axis("j", 4), Axis("k", 5)
A, B, C = Input("a", (AI, AJ)), Input("b", (AJ, AK)), Input("c", (AJ,))
SQUARE = Input("square", (AJ, Axis("j2", 4)))
STORED = Weight("store", "stored", ((AJ,), (AK,)))

torch.manual_seed(0)
VALUES = {
    "a": torch.randn(3, 4, dtype=torch.float64),
    "b": torch.randn(4, 5, dtype=torch.float64),
    "c": torch.randn(4, dtype=torch.float64),
    "square": torch.randn(4, 4, dtype=torch.float64),
    "stored": torch.randn(4, 5, dtype=torch.float64),
}


class Store(dict[str, torch.Tensor]):
    """Weights by name, in 64 bits."""

    dtype = torch.float64

    def tensor(self, name: str) -> torch.Tensor:
        """Return one."""
        return self[name]


def value(
    node: Node,
    order: str = "",
    *,
    given: Mapping[str, torch.Tensor] | None = None,
    stores: Mapping[str, Any] | None = None,
    functions: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] | None = None,
) -> torch.Tensor:
    """Return the value of a node in 64 bits; `order` names its dimensions, the node's own order when empty."""
    known = stores or {"store": Store(VALUES), "functions": Payload({}, functions or {})}
    found = evaluate([node], VALUES | dict(given or {}), known, dtype=torch.float64)[node]
    return torch.as_tensor(found.laid(order.split() or [axis.name for axis in node.axes]))


def same(one: torch.Tensor, two: torch.Tensor) -> None:
    """Check that two values are the same to rounding in 64 bits."""
    torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10, check_dtype=False)
