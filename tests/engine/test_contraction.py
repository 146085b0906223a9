"""Contraction against torch.einsum: also where one value takes part more than once."""

from __future__ import annotations

import itertools

import pytest
import torch

from scrubjay.engine.array import Array
from scrubjay.engine.contraction import contract

A = Array(torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), ("b", "i", "j"))
B = Array(torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), ("j", "k"))
C = Array(torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)), ("i",))
CASES = {
    "a": (A,),
    "aa": (A, A),
    "ab": (A, B),
    "bab": (B, A, B),
    "cac": (C, A, C),
    "abc": (A, B, C),
    "cc": (C, C),
    "aaa": (A, A, A),
}


@pytest.mark.parametrize("case", CASES)
def test_a_contraction_is_that_of_torch(case: str) -> None:
    operands = CASES[case]
    names = sorted({name for item in operands for name in item.names})
    for count in range(len(names) + 1):
        for summed in itertools.combinations(names, count):
            made = contract(operands, summed)
            terms = ",".join("".join(item.names) for item in operands)
            expected = torch.einsum(f"{terms}->{''.join(made.names)}", *(item.as_tensor() for item in operands))
            assert set(made.names) == set(names) - set(summed)
            torch.testing.assert_close(made.as_tensor(), expected, rtol=0, atol=1e-12)
