"""Values that interventions take from other inputs: means by position, rows drawn at random, patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from scrubjay.capture.model import Model
from scrubjay.circuit.address import Address, Range
from scrubjay.engine.array import Array
from scrubjay.errors import AddressError, InputError
from scrubjay.interventions.inputs import lengths

if TYPE_CHECKING:
    from scrubjay.interventions.run import Run


def referred(model: Model, given: Any, addresses: Sequence[Address], *, whole: bool) -> Run:
    """Return the run of a model on other inputs that keeps what an intervention at `addresses` needs.

    `whole` keeps all positions; else a position that an address names is kept alone, and a run that is given is used as it is.
    """
    from scrubjay.interventions.run import Run, run  # noqa: PLC0415 - a run applies interventions, which may need a run

    if isinstance(given, Run) and not whole:
        return given
    return run(model, given, keep=[str(_bare(one) if whole or _is_range(one) else one) for one in addresses])


def _bare(address: Address) -> Address:
    return replace(address, position=None)


def _is_range(address: Address) -> bool:
    return address.position is not None and isinstance(address.position.at, Range)


def _real(made: Run) -> torch.Tensor:
    """Return the mask (batch, query) of real tokens."""
    mask = made.inputs.get("attention_mask")
    if mask is not None:
        return mask.ne(0)
    rows = lengths(made.inputs)
    if rows is None:
        raise InputError("these inputs have no positions to take a mean over")
    return torch.ones(len(rows), int(rows.max()), dtype=torch.bool)


def position_means(made: Run, address: Address, by: str) -> Array:
    """Return the mean of a value over a run's rows, by position counted from each row's first real token (axis `position`).

    A value without positions gives its plain mean; `by="all"` gives one mean over all positions. Padding never counts.
    """
    found = made.values[str(address)]
    tensor = found.as_tensor()
    if "query" not in found.names:
        return Array(tensor.mean(found.names.index("batch")), tuple(n for n in found.names if n != "batch"))
    rest = tuple(name for name in found.names if name not in {"batch", "query"})
    if "key" in rest:
        raise InputError(
            f"{address}: a mean over rows of values between two positions is not defined where rows differ in length; average z instead"
        )
    laid = torch.as_tensor(found.laid(("batch", "query", *rest)))
    real = _real(made).to(laid.device)
    if by == "all":
        return Array(laid[real].mean(0), rest)
    table, counts = _by_real_position(laid, real)
    return Array(table.sum(0) / counts.sum(0).reshape(-1, *[1] * len(rest)), ("position", *rest))


def _by_real_position(laid: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return values moved so that each row begins at its first real token (zero beyond), and which places are real."""
    longest = int(real.sum(1).max())
    first = real.int().argmax(1)
    places = first[:, None] + torch.arange(longest, device=laid.device)
    there = torch.arange(longest, device=laid.device) < real.sum(1, keepdim=True)
    places = places.clamp(max=laid.shape[1] - 1)
    moved = laid[torch.arange(len(laid), device=laid.device)[:, None], places]
    return torch.where(there.reshape(*there.shape, *[1] * (laid.dim() - 2)), moved, 0), there


def resampled(made: Run, address: Address, seed: int, inputs: Mapping[str, torch.Tensor]) -> Array:
    """Return, for each row of `inputs`, the value of a row of the run drawn by `seed`, by position from the first real token."""
    found = made.values[str(address)]
    rest = tuple(name for name in found.names if name not in {"batch", "query"})
    batch = len(next(iter(inputs.values())))
    generator = torch.Generator().manual_seed(seed)
    if "query" not in found.names:
        rows = torch.randint(found.as_tensor().shape[found.names.index("batch")], (batch,), generator=generator)
        return Array(torch.as_tensor(found.laid(("batch", *rest)))[rows], ("batch", *rest))
    if "key" in rest:
        raise InputError(
            f"{address}: values between two positions cannot be taken from a row of another length; resample z, or q and k, instead"
        )
    need = lengths(inputs)
    real = _real(made)
    longest = 0 if need is None else int(need.max())
    able = (real.sum(1) >= longest).nonzero().flatten()
    if not len(able):
        raise InputError(
            f"{address}: the run has a row of {longest} real tokens and every row to resample from is shorter: give longer ones"
        )
    rows = able[torch.randint(len(able), (batch,), generator=generator)]
    moved, _ = _by_real_position(torch.as_tensor(found.laid(("batch", "query", *rest))), real)
    return Array(moved[rows], ("batch", "position", *rest))


def patched(made: Run, address: Address, inputs: Mapping[str, torch.Tensor] | None) -> Array:
    """Return the value at an address in a run on other inputs."""
    text = str(address)
    if text not in made.values:
        bare = str(_bare(address))
        raise AddressError(
            f"{text} was not kept by the run to patch from: sj.run(..., keep=[{text!r}]); kept: {', '.join(made.values)} (asked as {bare})"
        )
    found = made.values[text]
    if "batch" not in found.names:
        return found
    place = found.names.index("batch")
    rows = found.as_tensor().shape[place]
    if rows == 1:
        tensor = found.as_tensor().select(place, 0)
        found = Array(tensor, tuple(name for name in found.names if name != "batch"))
    elif inputs is None:
        raise InputError(
            f"{text}: a patch from {rows} rows fits one run only; patch from a single row, or use it in sj.run"
        )
    elif rows != (here := len(next(iter(inputs.values())))):
        raise InputError(f"{text}: the patch has {rows} rows and the run has {here}: give as many rows, or one")
    if "query" in found.names and inputs is not None and address.position is None:
        have, need = found.as_tensor().shape[found.names.index("query")], _width(inputs)
        if have != need:
            raise InputError(
                f"{text}: the patch has {have} positions and the run has {need}; name a position ({text}@-1), or give rows of one length"
            )
    return found


def _width(inputs: Mapping[str, torch.Tensor]) -> int | None:
    ids = inputs.get("input_ids")
    return None if ids is None else int(ids.shape[1])
