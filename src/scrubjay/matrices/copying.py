"""Copying scores of heads: does a head that attends to a token raise that token's own logit?

The full OV circuit W_E W_V W_O W_U is vocab x vocab, and of rank d_head: its eigenvalues are those of W_O (W_U W_E) W_V, found for
all heads from one model x model matrix.
"""

from __future__ import annotations

import torch

from scrubjay.capture.model import Model
from scrubjay.engine.array import Array
from scrubjay.errors import AddressError, CircuitError
from scrubjay.matrices.factored import Factored
from scrubjay.matrices.weights import product, weights


def copying(model: Model, heads: str = "L*.H*", *, fold: bool = False) -> Array:
    """Return the copying score of heads, from -1 to 1: sum of the eigenvalues of W_E OV W_U over the sum of their sizes.

    1 is a head all of whose eigenvalues are positive: what it writes of a token speaks for that token, as in Elhage et al. 2021
    ("Detecting copying behavior"). Axes are those that `heads` leaves open (`layer`, `head`). `fold` takes the norms' own weights
    in (see `weights`). Biases, the scale of norms and whatever stands between (MLPs, other heads) are left out.

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
    return Factored(torch.matmul(through, ov.A), ov.B, ov.names, "OV between tokens").copying
