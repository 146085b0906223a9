"""A new axis may not have the name of one that stays: two axes would silently become one."""

from __future__ import annotations

import pytest

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.ops import Concat, Input, Merge, Narrow, Split
from scrubjay.errors import CircuitError

A, B, C = Axis("head", 4), Axis("model", 4), Axis("d_head", 2)
X = Input("x", (A, B, C))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Split(X, "head", (Axis("kv", 1), Axis("model", 4))),
        lambda: Split(X, "head", (Axis("kv", 2), Axis("kv", 2))),
        lambda: Merge(X, ("head", "d_head"), Axis("model", 8)),
        lambda: Merge(Input("y", (A, B, Axis("hidden", 16))), ("head", "model"), Axis("hidden", 16)),
        lambda: Narrow(X, "head", 0, Axis("model", 4)),
        lambda: Concat((Input("one", (A, B)), Input("two", (Axis("head", 2), B))), ("head", "head"), Axis("model", 6)),
        lambda: Concat((Input("one", (A,)), Input("two", (A, B))), ("head", "head"), Axis("model", 8)),
    ],
)
def test_a_new_axis_of_a_name_that_stays_is_refused(make) -> None:
    with pytest.raises(CircuitError, match=r"the new axis (model|kv|hidden)=\d+ has the name of one that .* keeps"):
        make()


def test_a_new_axis_may_have_the_name_of_one_that_goes() -> None:
    assert Split(X, "head", (Axis("head", 2), Axis("group", 2))).size("head") == 2
    assert Merge(X, ("head", "d_head"), Axis("head", 8)).size("head") == 8
    assert Narrow(X, "head", 1, Axis("head", 2)).size("head") == 2
    assert Concat((X, X), ("head", "head"), Axis("head", 8)).size("head") == 8
