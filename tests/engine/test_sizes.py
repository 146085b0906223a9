"""Sizes of axes as torch prints them: symbols, sums, products, remainders and the like, read and never run as code."""

from __future__ import annotations

import pytest

from scrubjay.engine.context import Context
from scrubjay.errors import EvaluationError

CONTEXT = Context({}, None, None, {"batch": 3, "query": 10}, {})


@pytest.mark.parametrize(
    ("size", "number"),
    [
        (7, 7),
        ("query", 10),
        ("2*batch*query", 60),
        ("query + 1 - batch", 8),
        ("Mod(256 - (Mod(query, 256)), 256)", 246),
        ("PythonMod(-query, 4)", 2),
        ("((query + 63)//64)", 1),
        ("(query**2)//query", 10),
        ("Min(2048, query)", 10),
        ("Max(16, query)", 16),
    ],
)
def test_a_size_is_read(size, number):
    assert CONTEXT.size(size) == number


@pytest.mark.parametrize(
    "size", ["key", "abs(query)", "query**query", "query**9", "__import__('os')", "query.real", "query/2"]
)
def test_what_is_no_size_is_refused(size):
    with pytest.raises(EvaluationError, match="is not known in this run"):
        CONTEXT.size(size)
