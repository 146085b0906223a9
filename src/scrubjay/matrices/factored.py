"""A matrix kept as the product of two thin factors, such as OV = W_V W_O: its spectrum and norm without ever forming it.

A head's OV has model x model entries and a rank of at most d_head. All that is asked of it is found from matrices of that
rank: eigenvalues of A B are those of B A (and zeros), singular values those of the triangles of two QR decompositions.

Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", appendix "Tips and tricks for working with low
rank matrices". Vectors are rows, as in TransformerLens: what reads stands left, what is written stands right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from scrubjay.engine.array import Array
from scrubjay.errors import InputError

Index = int | slice


class Svd(NamedTuple):
    """A singular value decomposition: A B = U diag(S) Vh; U is (..., row, rank), S (..., rank), Vh (..., rank, column)."""

    U: Array
    S: Array
    Vh: Array


@dataclass(frozen=True, eq=False)
class Factored:
    """The matrix `A @ B` of a head, or a stack of them: A is (..., row, rank), B is (..., rank, column).

    Attributes:
        A: the left factor. B: the right factor.
        names: the axes of the product: those of the stack, then the row's and the column's.
        said: what it is.
        notes: what its definition leaves out, such as biases.

    >>> a = torch.tensor([[1.0], [2.0]])
    >>> one = Factored(a, a.mT, ("model_in", "model_out"), "outer product")
    >>> one
    <Factored outer product (model_in=2, model_out=2) of rank 1>
    >>> float(one.trace.as_tensor()), float(one.norm.as_tensor()), one.eigenvalues.as_tensor().real.tolist()
    (5.0, 5.0, [5.0])
    """

    A: torch.Tensor
    B: torch.Tensor
    names: tuple[str, ...]
    said: str = "product"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse factors that do not fit each other, or the names."""
        if (
            self.A.dim() < 2
            or self.A.dim() != self.B.dim()
            or self.A.shape[:-2] != self.B.shape[:-2]
            or self.A.shape[-1] != self.B.shape[-2]
        ):
            raise InputError(f"factors of shape {tuple(self.A.shape)} and {tuple(self.B.shape)} do not multiply")
        if len(self.names) != self.A.dim() or len(set(self.names)) != len(self.names):
            raise InputError(
                f"a product of {self.A.dim()} axes was given the names {self.names}: one different name for each"
            )

    def __repr__(self) -> str:
        """Say what it is, its axes and its rank, in one line."""
        axes = ", ".join(f"{name}={size}" for name, size in zip(self.names, self.shape, strict=True))
        return f"<Factored {self.said} ({axes}) of rank {self.rank}>"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the product."""
        return (*self.A.shape[:-1], self.B.shape[-1])

    @property
    def rank(self) -> int:
        """The size of the axis that the factors share: the product has no greater rank."""
        return int(self.A.shape[-1])

    @property
    def T(self) -> Factored:
        """The transpose."""
        names = (*self.names[:-2], self.names[-1], self.names[-2])
        return replace(self, A=self.B.mT, B=self.A.mT, names=names, said=f"{self.said} transposed")

    @property
    def AB(self) -> Array:
        """The product itself: row x column numbers for every matrix of the stack."""
        return self.dense()

    def dense(self) -> Array:
        """Return the product itself: row x column numbers for every matrix of the stack."""
        return Array(self.A @ self.B, self.names)

    def as_tensor(self) -> torch.Tensor:
        """Return the product itself as a tensor, as an `Array` does."""
        return self.A @ self.B

    def __getitem__(self, index: Index | tuple[Index, ...]) -> Factored:
        """Return a part of the stack, by its places on the first axes: `ov[3, 7]` of (layer, head, ...) is one head's.

        Raises `InputError` where there are more indices than axes of the stack, or a place that it lacks.
        """
        chosen = index if isinstance(index, tuple) else (index,)
        stack = self.names[:-2]
        for at in chosen:
            if isinstance(at, bool) or not isinstance(at, int | slice):
                raise InputError(
                    f"{at!r} is no place of {self!r}: its stack ({', '.join(stack)}) is indexed by whole numbers and slices, as in [1, 3]; "
                    "one head by name is another question, matrices.product(model, 'L1.H3.OV')"
                )
        if len(chosen) > len(stack):
            raise InputError(
                f"{self!r} is a stack over ({', '.join(stack)}): {len(chosen)} indices are too many; rows and columns are those of dense()"
            )
        for name, size, at in zip(stack, self.shape, chosen, strict=False):
            if isinstance(at, int) and not -size <= at < size:
                raise InputError(f"{self!r} has {size} places along {name}, and no place {at}")
        gone = {name for name, at in zip(stack, chosen, strict=False) if isinstance(at, int)}
        names = tuple(name for name in self.names if name not in gone)
        return replace(self, A=self.A[chosen], B=self.B[chosen], names=names)

    def __matmul__(self, other: Factored | Array | torch.Tensor) -> Factored:
        """Return the product with a matrix on the right, factored still, with the smaller of the two ranks.

        The inner axes must have one size; an `Array` is taken as (..., row, column) in its own order. Stacks must be alike, or one
        of both sides a single matrix.
        """
        if isinstance(other, Factored):
            middle = _times(self.B, other.A, self, other)
            said = f"{self.said} @ {other.said}"
            names = _names(self.names, other.names)
            if self.rank <= other.rank:
                return _made(self.A, middle @ other.B, names, said, (*self.notes, *other.notes))
            return _made(self.A @ middle, other.B, names, said, (*self.notes, *other.notes))
        right, right_names = _plain(other)
        return _made(
            self.A,
            _times(self.B, right, self, other),
            _names(self.names, right_names),
            f"{self.said} @ matrix",
            self.notes,
        )

    def __rmatmul__(self, other: Array | torch.Tensor) -> Factored:
        """Return the product with a matrix on the left, factored still."""
        left, left_names = _plain(other)
        return _made(
            _times(left, self.A, other, self),
            self.B,
            _names(left_names, self.names),
            f"matrix @ {self.said}",
            self.notes,
        )

    @property
    def eigenvalues(self) -> Array:
        """The eigenvalues that are not zero by its rank, greatest size first: complex, (..., rank). Raises `InputError` if not square."""
        self._square("eigenvalues")
        found = torch.linalg.eigvals(_wide(self.B) @ _wide(self.A))
        order = found.abs().argsort(dim=-1, descending=True, stable=True)
        return Array(found.gather(-1, order), (*self.names[:-2], "rank"))

    @property
    def trace(self) -> Array:
        """The sum of the diagonal, which is the sum of the eigenvalues: one number for each of the stack."""
        self._square("a trace")
        return Array((_wide(self.A) * _wide(self.B).mT).sum((-2, -1)), self.names[:-2])

    @property
    def norm(self) -> Array:
        """The Frobenius norm, the root of the sum of squares: one number for each of the stack."""
        return Array(torch.linalg.matrix_norm(self._core()), self.names[:-2])

    @property
    def copying(self) -> Array:
        """The copying score, sum of eigenvalues / sum of their sizes: 1 where all are positive, -1 where all are negative.

        Source: Elhage et al. 2021, "Copying / primitive in-context learning". A product of nothing but zeros scores 0.
        """
        found = self.eigenvalues.as_tensor()
        sizes = found.abs().sum(-1)
        score = torch.where(sizes > 0, found.real.sum(-1) / sizes.clamp_min(torch.finfo(sizes.dtype).tiny), 0.0)
        return Array(score, self.names[:-2])

    def svd(self) -> Svd:
        """Return the singular value decomposition, greatest first, up to the rank (or the smaller side if that is less)."""
        left, left_triangle = torch.linalg.qr(_wide(self.A))
        right, right_triangle = torch.linalg.qr(_wide(self.B).mT)
        u, s, vh = torch.linalg.svd(left_triangle @ right_triangle.mT, full_matrices=False)
        stack = self.names[:-2]
        return Svd(
            Array(left @ u, (*stack, self.names[-2], "rank")),
            Array(s, (*stack, "rank")),
            Array(vh @ right.mT, (*stack, "rank", self.names[-1])),
        )

    def _core(self) -> torch.Tensor:
        """Return a small matrix with the same singular values."""
        return triangle(self.A) @ triangle(self.B.mT).mT

    def _square(self, what: str) -> None:
        if self.shape[-1] != self.shape[-2]:
            raise InputError(f"{what}: {self!r} is not square")


def triangle(tall: torch.Tensor) -> torch.Tensor:
    """Return R of A = Q R: a matrix (..., rank, rank) that has A's lengths and angles between columns."""
    return torch.linalg.qr(_wide(tall), mode="r").R


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in a type that decompositions know: half precision is widened to 32 bits."""
    return tensor.float() if tensor.dtype in {torch.float16, torch.bfloat16} else tensor


def _plain(matrix: object) -> tuple[torch.Tensor, tuple[str, ...]]:
    if isinstance(matrix, Array) and isinstance(matrix.tensor, torch.Tensor) and matrix.tensor.dim() >= 2:
        return matrix.tensor, matrix.names
    if isinstance(matrix, torch.Tensor) and matrix.dim() >= 2:
        return matrix, (*(f"stack{n}" for n in range(matrix.dim() - 2)), "row", "column")
    raise InputError(
        f"a Factored is multiplied with a matrix (a tensor or Array of two or more dimensions), not with {matrix!r}"
    )


def _times(one: torch.Tensor, two: torch.Tensor, left: object, right: object) -> torch.Tensor:
    if one.shape[-1] != two.shape[-2]:
        raise InputError(
            f"{left!r} has {one.shape[-1]} columns and {right!r} has {two.shape[-2]} rows: they do not multiply"
        )
    try:
        torch.broadcast_shapes(one.shape[:-2], two.shape[:-2])
    except RuntimeError as error:
        raise InputError(
            f"{left!r} and {right!r} are stacks of different shapes; choose one of each, or two that are alike"
        ) from error
    return one @ two


def _names(left: tuple[str, ...], right: tuple[str, ...]) -> tuple[str, ...]:
    stack = left[:-2] if len(left) >= len(right) else right[:-2]
    row, column = left[-2], right[-1]
    return (*stack, row, column if column not in {*stack, row} else f"{column}_out")


def _made(a: torch.Tensor, b: torch.Tensor, names: tuple[str, ...], said: str, notes: tuple[str, ...]) -> Factored:
    stack = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return Factored(
        a.expand(*stack, *a.shape[-2:]), b.expand(*stack, *b.shape[-2:]), names, said, tuple(dict.fromkeys(notes))
    )
