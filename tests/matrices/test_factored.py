"""A factored product is the dense one in everything that is asked of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scrubjay.engine.array import Array
from scrubjay.errors import InputError
from scrubjay.matrices import Factored


def made(*shape: int, inner: int = 3, rows: int = 8, columns: int = 8, seed: int = 0) -> Factored:
    draw = torch.Generator().manual_seed(seed)
    a = torch.randn(*shape, rows, inner, generator=draw, dtype=torch.float64)
    b = torch.randn(*shape, inner, columns, generator=draw, dtype=torch.float64)
    return Factored(a, b, (*("layer", "head")[: len(shape)], "model_in", "model_out"), "OV")


def same(found: Array | Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found.as_tensor() if isinstance(found, Array) else found, wanted, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("inner", [1, 3, 8, 11])
def test_spectrum_and_norm_are_those_of_the_dense_product(inner: int) -> None:
    one = made(2, 4, inner=inner)
    dense = one.dense().as_tensor()
    same(one.AB, one.A @ one.B)
    same(one.as_tensor(), dense)
    same(one.norm, torch.linalg.matrix_norm(dense))
    same(one.trace, dense.diagonal(dim1=-2, dim2=-1).sum(-1))
    rank = min(inner, 8)
    values = torch.linalg.eigvals(dense).abs().sort(-1, descending=True).values
    same(one.eigenvalues.as_tensor().abs()[..., :rank], values[..., :rank])
    same(one.eigenvalues.as_tensor().sum(-1).real, one.trace.as_tensor())
    u, s, vh = one.svd()
    same(s, torch.linalg.svdvals(dense)[..., :rank])
    same(u.as_tensor() @ (s.as_tensor()[..., None] * vh.as_tensor()), dense)
    same(u.as_tensor().mT @ u.as_tensor(), torch.eye(rank, dtype=torch.float64).expand(2, 4, rank, rank))
    assert u.names == ("layer", "head", "model_in", "rank")
    assert vh.names == ("layer", "head", "rank", "model_out")


def test_parts_transposes_and_products() -> None:
    one, two = made(2, 4), made(2, 4, inner=2, seed=1)
    dense = one.dense().as_tensor()
    same(one[1, 2].dense(), dense[1, 2])
    same(one[1].T.dense(), dense[1].mT)
    assert one[1].names == ("head", "model_in", "model_out")
    assert one[1, 2].T.names == ("model_out", "model_in")
    both = one @ two
    same(both.dense(), dense @ two.dense().as_tensor())
    assert both.rank == 2
    assert (two @ one).rank == 2
    same((two @ one).dense(), two.dense().as_tensor() @ dense)
    table = torch.randn(11, 8, dtype=torch.float64)
    full = Array(table, ("vocab", "model")) @ one @ table.T
    same(full.dense(), table @ dense @ table.T)
    assert full.names == ("layer", "head", "vocab", "column")
    same(full.eigenvalues.as_tensor().abs(), torch.linalg.eigvals(full.dense().as_tensor()).abs().sort(-1, descending=True).values[..., :3])  # fmt: skip
    same((one @ two[0, 1]).dense(), dense @ two[0, 1].dense().as_tensor())


def test_a_copying_head_scores_one() -> None:
    a = torch.linalg.qr(torch.randn(20, 4, dtype=torch.float64)).Q
    names = ("vocab_in", "vocab_out")
    assert float(Factored(a, a.mT, names).copying.as_tensor()) == pytest.approx(1)
    assert float(Factored(a, -a.mT, names).copying.as_tensor()) == pytest.approx(-1)
    assert float(Factored(a, 0 * a.mT, names).copying.as_tensor()) == 0
    turn = torch.zeros(4, 4, dtype=torch.float64)
    turn[0, 1], turn[1, 0], turn[2, 3], turn[3, 2] = 1, -1, 1, -1
    assert float(Factored(a @ turn, a.mT, names).copying.as_tensor()) == pytest.approx(0, abs=1e-12)


def test_half_precision_is_widened() -> None:
    one = made(2)
    half = Factored(one.A.bfloat16(), one.B.bfloat16(), one.names)
    assert half.norm.as_tensor().dtype == torch.float32
    torch.testing.assert_close(half.svd().S.as_tensor().double(), one.svd().S.as_tensor(), atol=0.1, rtol=0.02)
    assert half.eigenvalues.as_tensor().dtype == torch.complex64


def test_what_does_not_fit_is_refused() -> None:
    one = made(2, 4)
    with pytest.raises(InputError, match=r"do not multiply"):
        Factored(one.A, one.A, one.names)
    with pytest.raises(InputError, match=r"one different name for each"):
        Factored(one.A, one.B, ("head", "model", "model"))
    with pytest.raises(InputError, match=r"has 2 places along layer, and no place 5"):
        one[5]
    with pytest.raises(InputError, match=r"3 indices are too many"):
        one[0, 0, 0]
    with pytest.raises(InputError, match=r"is not square"):
        _ = made(2, columns=5).eigenvalues
    with pytest.raises(InputError, match=r"has 8 columns and .* has 5 rows"):
        _ = one @ made(2, 4, rows=5)
    with pytest.raises(InputError, match=r"stacks of different shapes"):
        _ = one @ made(3, 4)
    with pytest.raises(InputError, match=r"multiplied with a matrix"):
        _ = one @ torch.ones(8)
