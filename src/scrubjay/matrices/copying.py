"""Copying scores of heads: does a head that attends to a token raise that token's own logit?

The full OV circuit W_E W_V W_O W_U is vocab x vocab, and of rank d_head: its eigenvalues are those of W_O (W_U W_E) W_V, found for
all heads from one model x model matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from scrubjay.capture.model import Model
from scrubjay.engine.array import Array
from scrubjay.errors import AddressError, CircuitError, near
from scrubjay.matrices.factored import Factored
from scrubjay.matrices.name import wanted
from scrubjay.matrices.weights import product, weights


@dataclass(frozen=True, eq=False)
class Copying:
    """Copying scores of heads.

    Attributes:
        values: one number for each head, over the axes that the name left open (`layer`, `head`).
        heads: their names, in order. fold: whether norms' own weights are in.
        notes: what is left out.
    """

    values: Array
    heads: tuple[str, ...]
    fold: bool
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The axes of the scores."""
        return self.values.names

    def as_tensor(self) -> torch.Tensor:
        """Return the scores as a tensor, over `names`."""
        return self.values.as_tensor()

    def __getitem__(self, head: str) -> float:
        """Return the score of one head, `found["L1.H3"]`; raise `AddressError` for one that was not asked for."""
        if head not in self.heads:
            raise AddressError(
                f"{head!r} is no head of these scores{near(str(head), self.heads)}; heads are written L1.H3"
            )
        return float(self.as_tensor().flatten()[self.heads.index(head)])

    def __repr__(self) -> str:
        """Say how many heads, and the greatest score."""
        flat = self.as_tensor().flatten()
        best = int(flat.argmax())
        folded = ", norms folded" if self.fold else ""
        return f"<Copying of {len(self.heads)} heads{folded}: greatest {float(flat[best]):+.3f} of {self.heads[best]}>"

    def __str__(self) -> str:
        """Print the ten heads of the greatest scores, and the notes."""
        flat = self.as_tensor().flatten()
        order = flat.argsort(descending=True)[:10].tolist()
        lines = [f"{self.heads[one]:8} {float(flat[one]):+.4f}" for one in order]
        return "\n".join([repr(self), *lines, *(f"note: {one}" for one in self.notes)])


def copying(model: Model, heads: str = "L*.H*", *, fold: bool = False) -> Copying:
    """Return the copying score of heads, from -1 to 1: sum of the eigenvalues of W_E OV W_U over the sum of their sizes.

    1 is a head all of whose eigenvalues are positive: what it writes of a token speaks for that token, as in Elhage et al. 2021
    ("Detecting copying behavior"). Axes are those that `heads` leaves open (`layer`, `head`). `fold` takes the norms' own weights
    in, those of a norm after attention too (see `weights`). Biases, the scale of norms and whatever stands between (MLPs, other
    heads) are left out; `notes` says what else.

    Raises as `weights` does; `CircuitError` where tokens are not embedded in, or read from, the stream by one matrix.
    """
    ov = product(model, f"{heads}.OV", fold=fold)
    embed, out = weights(model, "W_E"), weights(model, "W_U", fold=fold)
    if not isinstance(embed, Array) or not isinstance(out, Array):
        raise AddressError("W_E and W_U are single weights")
    if embed.names != ("vocab", "model") or out.names != ("model", "vocab"):
        raise CircuitError(
            f"{model.name} embeds tokens by {embed!r} and reads them by {out!r}: no map from token to token is made of weights alone"
        )
    if embed.as_tensor().shape[0] != out.as_tensor().shape[1]:
        raise CircuitError(
            f"{model.name} reads {embed.as_tensor().shape[0]} tokens and writes {out.as_tensor().shape[1]}: it cannot copy"
        )
    through = out.as_tensor() @ embed.as_tensor()
    asked = wanted(f"{heads}.OV", model.anatomy)
    named = tuple(f"L{layer}.H{head}" for layer in asked.layers or () for head in asked.items or ())
    found = Factored(torch.matmul(through, ov.A), ov.B, ov.names, "OV between tokens").copying
    return Copying(found, named, fold, ov.notes)
