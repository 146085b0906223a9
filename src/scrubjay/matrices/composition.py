"""How much heads compose: Q-, K- and V-composition scores of every earlier head with every later one, beside chance.

Composition is the Frobenius norm of what one head writes and another reads, over the product of the two norms: ||A B|| / (||A||
||B||), with A the earlier head's OV and B the later head's QK (queries), QK transposed (keys) or OV (values).

Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Two-layer attention-only transformers"; vectors
are rows here, so the earlier head stands left. Scores of random heads are not zero: they are near 1 / sqrt(d_model).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from scrubjay.capture.model import Model
from scrubjay.engine.array import Array
from scrubjay.engine.progress import Progress, progress_after
from scrubjay.errors import AddressError, CircuitError, InputError, near
from scrubjay.matrices.factored import Factored, triangle
from scrubjay.matrices.output import changed
from scrubjay.matrices.weights import norms_behind, of_heads

KINDS = ("Q", "K", "V")
"""What of the later head reads: queries, keys, values."""


class Pair(NamedTuple):
    """One row of the table: the earlier head, the later one, what of it reads, the score, and chance."""

    writer: str
    reader: str
    kind: str
    score: float
    expected: float
    deviation: float

    @property
    def z(self) -> float:
        """How many standard deviations of chance the score is above its expected value."""
        return (self.score - self.expected) / self.deviation

    @property
    def ratio(self) -> float:
        """The score over its expected value."""
        return self.score / self.expected


@dataclass(frozen=True, eq=False)
class Composition:
    """Scores of all pairs of heads, as a table and as arrays (kind, writer, reader); NaN where the reader is in no later layer.

    `expected` and `deviation` are the mean and standard deviation for Gaussian heads of the same shapes.
    """

    heads: tuple[str, ...]
    scores: Array
    expected: Array
    deviation: Array
    seed: int
    notes: tuple[str, ...] = ()

    def __getitem__(self, pair: tuple[str, str, str]) -> Pair:
        """Return one pair: `found["L0.H4", "L1.H3", "K"]`.

        Raises `AddressError` for a head or kind that is not in the table, and where the second head is in no later layer.
        """
        writer, reader, kind = pair
        for head in (writer, reader):
            if head not in self.heads:
                raise AddressError(
                    f"{head!r} is no head of this table{near(head, self.heads)}; heads are written L0.H4"
                )
        if kind not in KINDS:
            raise AddressError(f"{kind!r} is no kind of composition: Q, K or V, for what of {reader} reads")
        at = (KINDS.index(kind), self.heads.index(writer), self.heads.index(reader))
        found = self._pair(*at)
        if found.score != found.score:
            raise AddressError(f"{writer} does not compose with {reader}: it is in no earlier layer")
        return found

    def __iter__(self) -> Iterator[Pair]:
        """Go through all pairs, by kind and then by heads."""
        kinds, writers, readers = self.scores.as_tensor().isfinite().nonzero(as_tuple=True)
        for at in zip(kinds.tolist(), writers.tolist(), readers.tolist(), strict=True):
            yield self._pair(*at)

    def __len__(self) -> int:
        """Count the pairs, of all kinds."""
        return int(self.scores.as_tensor().isfinite().sum())

    def top(self, many: int = 10, kind: str | None = None) -> tuple[Pair, ...]:
        """Return the pairs furthest above chance (by `z`), the first furthest; of one kind if it is given."""
        found = [pair for pair in self if kind is None or pair.kind == kind]
        return tuple(sorted(found, key=lambda pair: -pair.z)[:many])

    def __repr__(self) -> str:
        """Say what it is in one line."""
        return f"<Composition of {len(self.heads)} heads: {len(self)} scores, chance drawn with seed {self.seed}>"

    def __str__(self) -> str:
        """Print the ten pairs furthest above chance."""
        lines = [f"{'writer':8} {'reader':8} kind   score  chance       z"]
        lines += [
            f"{p.writer:8} {p.reader:8} {p.kind:4} {p.score:7.4f} {p.expected:7.4f} {p.z:7.1f}" for p in self.top()
        ]
        return "\n".join([repr(self), *lines, *(f"note: {one}" for one in self.notes)])

    def _pair(self, kind: int, writer: int, reader: int) -> Pair:
        at = (kind, writer, reader)
        numbers = (float(one.as_tensor()[at]) for one in (self.scores, self.expected, self.deviation))
        return Pair(self.heads[writer], self.heads[reader], KINDS[kind], *numbers)


def composition(model: Model, *, fold: bool = False, offset: int = 0, samples: int = 24, seed: int = 0) -> Composition:
    """Return the Q-, K- and V-composition score of every head with every head of a later layer, beside chance.

    No model x model matrix is formed: a score is the norm of a d_head x d_head one. Heads of one layer do not compose.

    Args:
        model: the model.
        fold: take the norms' own weights into what reads, and those of a norm after attention into what is written (see `weights`);
            without it their weights are left out.
        offset: how far the key stands before the query, for QK with rotary embeddings.
        samples: how many random heads of each side chance is told by, all pairs of them; their factors are Gaussian, of the same
            shapes.
        seed: what these are drawn with.

    What scores leave out: biases, MLPs between the heads, the scale of norms (which differs by position and scales all scores of a
    reader alike), and q/k norms' scale. A high score says that a head could read what another writes, not that it does.

    Norms between a head and the stream, or between sums of it (bert), are told in `notes`; so are heads whose output an
    intervention replaced, which are left out.

    Raises `CircuitError` where fewer than two layers have heads whose OV and QK are products of weights; layers that have none are
    left out and told in `notes`.
    """
    if samples < 2:
        raise InputError(f"samples={samples}: a standard deviation needs two or more")
    layers, notes = _layers(model, fold, offset)
    if len(layers) < 2:
        raise CircuitError(
            f"{model.name} has {len(layers)} layers with heads that can compose, and pairs need two: {'; '.join(notes)}"
        )
    heads = tuple(head for names, _, _ in layers for head in names)
    with progress_after(2.0, f"composition of {model.name}") as report:
        scores, expected, deviation = _table(layers, len(heads), samples, seed, report)
    names = ("kind", "writer", "reader")
    return Composition(heads, Array(scores, names), Array(expected, names), Array(deviation, names), seed, tuple(notes))


def _table(
    layers: Sequence[tuple[tuple[str, ...], Factored, Factored]], heads: int, samples: int, seed: int, report: Progress
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return scores, and the mean and deviation of chance, (kind, writer, reader)."""
    scores = torch.full((len(KINDS), heads, heads), torch.nan, dtype=torch.float64)
    expected, deviation = scores.clone(), scores.clone()
    known: dict[tuple[int, ...], tuple[float, float]] = {}
    writers: list[tuple[torch.Tensor, torch.Tensor, int]] = []
    for number, (_, ov, qk) in enumerate(layers):
        report(number, len(layers))
        start = sum(one.shape[0] for one, _, _ in writers)
        columns = slice(start, start + ov.shape[0])
        for kind, reader in enumerate((qk, qk.T, ov)):
            right, right_norm = _reading(reader)
            for before, (left, left_norm, rank) in enumerate(writers):
                first = sum(one.shape[0] for one, _, _ in writers[:before])
                rows = slice(first, first + left.shape[0])
                shape = (left.shape[-1], rank, reader.rank)
                if shape not in known:
                    known[shape] = chance(*shape, samples=samples, seed=seed)
                scores[kind, rows, columns] = _scores(left, left_norm, right, right_norm).double().cpu()
                expected[kind, rows, columns], deviation[kind, rows, columns] = known[shape]
        if number + 1 < len(layers):
            writers.append((*_writing(ov), ov.rank))
    return scores, expected, deviation


def _layers(
    model: Model, fold: bool, offset: int
) -> tuple[list[tuple[tuple[str, ...], Factored, Factored]], list[str]]:
    """Return the heads of each layer that has them with their OV and QK, and notes on what is left out."""
    found: list[tuple[tuple[str, ...], Factored, Factored]] = []
    notes: list[str] = []
    for number, layer in enumerate(model.anatomy.layers):
        if not layer.heads:
            notes.append(f"L{number} has no recognised heads")
            continue
        gone = changed(model, number)
        heads = [head for head in range(layer.heads) if head not in gone]
        notes += [f"L{number}.H{head} is left out: an intervention replaced what it writes" for head in gone]
        if not heads:
            continue
        try:
            ov = of_heads(model, number, "OV", heads, fold=fold)
            qk = of_heads(model, number, "QK", heads, fold=fold, offset=offset)
        except (AddressError, CircuitError) as error:
            notes.append(f"L{number} is left out: {error}")
            continue
        found.append((tuple(f"L{number}.H{head}" for head in heads), ov, qk))
        notes += norms_behind(model, [number], fold=fold)
    return found, list(dict.fromkeys(notes))


def _writing(head: Factored) -> tuple[torch.Tensor, torch.Tensor]:
    """Return R(A1) A2 of A = A1 A2, (head, rank, model), and the norm of A: the product with any B has the norm that A B has."""
    left = triangle(head.A)
    return left @ head.B.to(left.dtype), head.norm.as_tensor()


def _reading(head: Factored) -> tuple[torch.Tensor, torch.Tensor]:
    """Return B1 R(B2^T)^T of B = B1 B2, (head, model, rank), and the norm of B."""
    right = triangle(head.B.mT).mT
    return head.A.to(right.dtype) @ right, head.norm.as_tensor()


def _scores(left: torch.Tensor, left_norm: torch.Tensor, right: torch.Tensor, right_norm: torch.Tensor) -> torch.Tensor:
    """Return the score of each writer with each reader, (writer, reader); 0 where one of them is all zeros."""
    flat = left.flatten(0, 1) @ right.permute(1, 0, 2).flatten(1)
    both = flat.unflatten(1, (right.shape[0], -1)).unflatten(0, (left.shape[0], -1))
    under = left_norm[:, None] * right_norm[None]
    return torch.where(under > 0, torch.linalg.vector_norm(both, dim=(1, 3)) / under, 0.0)


def chance(model: int, rank: int, reader_rank: int, *, samples: int = 24, seed: int = 0) -> tuple[float, float]:
    """Return the mean and standard deviation of the score of Gaussian heads, over all pairs of `samples` writers and readers.

    The mean is near 1 / sqrt(d_model), whatever the ranks: ||A1 (A2 B1) B2||^2 is d_model ||A1||^2 ||B2||^2 in expectation.

    >>> mean, deviation = chance(64, 8, 8)
    >>> abs(mean - 64**-0.5) < 0.005, deviation < 0.02
    (True, True)
    """
    draw = torch.Generator().manual_seed(seed)

    def heads(inner: int) -> Factored:
        left = torch.randn(samples, model, inner, generator=draw)
        return Factored(left, torch.randn(samples, inner, model, generator=draw), ("head", "model_in", "model_out"))

    found = _scores(*_writing(heads(rank)), *_reading(heads(reader_rank)))
    return float(found.mean()), float(found.std())
