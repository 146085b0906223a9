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
from scrubjay.interventions.inputs import lengths, padding

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
    real = padding(made.inputs)
    if real is None:
        raise InputError("these inputs have no positions to take a mean over")
    return real


def position_means(made: Run, address: Address, by: str) -> Array:
    """Return the mean of a value over a run's rows, by position counted from each row's first real token (axis `position`).

    A value without positions gives its plain mean; `by="all"` gives one mean over all positions. Padding never counts.
    """
    found = made.values[str(address)]
    rest = tuple(name for name in found.names if name not in {"batch", "query"})
    if "key" in rest:
        raise InputError(
            f"{address}: a mean over rows of values between two positions is not defined where rows differ in length; average z instead"
        )
    if "query" not in found.names:
        return Array(torch.as_tensor(found.laid(("batch", *rest))).mean(0), rest)
    real = _real(made).to(found.as_tensor().device)
    laid = _of_rows(found, rest, len(real))
    if by == "all":
        return Array(laid[real].mean(0), rest)
    table, counts = _by_real_position(laid, real)
    return Array(table.sum(0) / counts.sum(0).reshape(-1, *[1] * len(rest)), ("position", *rest))


def _of_rows(found: Array, rest: Sequence[str], rows: int) -> torch.Tensor:
    """Return a value as (batch, query, rest), one that is the same for every row repeated."""
    laid = torch.as_tensor(found.laid(("batch", "query", *rest)))
    return laid.expand(rows, *laid.shape[1:])


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
    if "key" in rest:
        raise InputError(
            f"{address}: values between two positions cannot be taken from a row of another length; resample z, or q and k, instead"
        )
    if "query" not in found.names:
        laid = torch.as_tensor(found.laid(("batch", *rest)))
        rows = torch.randint(len(laid), (batch,), generator=generator)
        return Array(laid[rows.to(laid.device)], ("batch", *rest))
    need = lengths(inputs)
    real = _real(made)
    longest = 0 if need is None else int(need.max())
    able = (real.sum(1) >= longest).nonzero().flatten()
    if not len(able):
        raise InputError(
            f"{address}: the run has a row of {longest} real tokens and every row to resample from is shorter: give longer ones"
        )
    rows = able[torch.randint(len(able), (batch,), generator=generator)]
    laid = _of_rows(found, rest, len(real))
    moved, _ = _by_real_position(laid, real.to(laid.device))
    return Array(moved[rows.to(laid.device)], ("batch", "position", *rest))


def patched(made: Run, address: Address, inputs: Mapping[str, torch.Tensor] | None) -> tuple[Array, int | None]:
    """Return the value at an address in a run on other inputs, for the rows of `inputs` (`None`: for those of any run).

    Where the places of the rows do not correspond as they stand, or are not known yet, its positions are real ones: the axis
    `position`, all of a row's, or those from the position on that is returned beside it (negative: counted from the end).
    """
    bare = str(_bare(address))
    text = bare if _is_range(address) else str(address)
    if text not in made.values:
        raise AddressError(
            f"{text} was not kept by the run to patch from: sj.run(..., keep=[{text!r}]); kept: {', '.join(made.values)} (asked as {bare})"
        )
    found, start = made.values[text], None
    if "batch" in found.names:
        _check_rows(text, found.as_tensor().shape[found.names.index("batch")], inputs)
    if text == bare and {"query", "key"} & set(found.names):
        at = address.position.at if address.position is not None else None
        if isinstance(at, Range) and (at.first < 0) == (at.last < 0):
            found, start = _at_range(made, found, address, at), at.first
        else:
            found = _at_all(made, found, address, inputs)
    if "batch" in found.names and found.as_tensor().shape[place := found.names.index("batch")] == 1:
        rest = tuple(name for name in found.names if name != "batch")
        found = Array(found.as_tensor().select(place, 0), rest)
    return found, start


def _check_rows(text: str, rows: int, inputs: Mapping[str, torch.Tensor] | None) -> None:
    """Refuse to patch from several rows but into as many."""
    if rows == 1:
        return
    if inputs is None:
        raise InputError(
            f"{text}: a patch from {rows} rows fits one run only; patch from a single row, or use it in sj.run"
        )
    if rows != (here := len(next(iter(inputs.values())))):
        raise InputError(f"{text}: the patch has {rows} rows and the run has {here}: give as many rows, or one")


def _at_range(made: Run, found: Array, address: Address, at: Range) -> Array:
    """Return a value at a range of each row's real positions, both ends counted from one end of the row."""
    real = _real(made)
    have = real.sum(1)
    if bool((have <= max(at.last, -at.first - 1)).any()):
        row = int(have.argmin())
        raise InputError(
            f"{address}: row {row} to patch from has {int(have[row])} real tokens, so it lacks some of these positions"
        )
    if "query" not in found.names:
        raise InputError(f"{address}: this value has no positions to choose from")
    if "key" in found.names:
        raise InputError(
            f"{address}: values between two positions cannot be patched at a range; patch all of them, or z, or q and k, instead"
        )
    begin = real.int().argmax(1) + (have if at.first < 0 else 0) + at.first
    rest = tuple(name for name in found.names if name not in {"batch", "query"})
    laid = _of_rows(found, rest, len(real))
    places = (begin[:, None] + torch.arange(at.last - at.first + 1)).to(laid.device)
    return Array(laid[torch.arange(len(laid), device=laid.device)[:, None], places], ("batch", "position", *rest))


def _at_all(made: Run, found: Array, address: Address, inputs: Mapping[str, torch.Tensor] | None) -> Array:
    """Return a value with its positions where the rows it goes to have them; refuse rows of other lengths."""
    if lengths(made.inputs) is None:  # inputs whose positions are not known
        return found
    there = _real(made)
    if inputs is not None:
        need, have = lengths(inputs), there.sum(1)
        if need is None:
            return found
        need = need.cpu()
        if not bool((have == need).all()):
            row, bare = int((have != need).nonzero()[0]), _bare(address)
            raise InputError(
                f"{address}: the patch has {int(have.expand(len(need))[row])} positions and the run has {int(need[row])}; name a position "
                f"({bare}@-1), or give rows of one length (row {row}; padding does not count)"
            )
        here = inputs["attention_mask"].ne(0) if "attention_mask" in inputs else torch.ones_like(inputs["input_ids"])
        if there.shape[1] == here.shape[1] and bool((there.int().argmax(1) == here.int().argmax(1).cpu()).all()):
            return found
    if "key" in found.names or "query" not in found.names:
        raise InputError(
            f"{address}: values between two positions are patched only in sj.run, and between rows that are padded alike; "
            "pad both on the right, or patch z, or q and k, instead"
        )
    if "batch" not in found.names:
        return found
    rest = tuple(name for name in found.names if name not in {"batch", "query"})
    laid = _of_rows(found, rest, len(there))
    moved, _ = _by_real_position(laid, there.to(laid.device))
    return Array(moved, ("batch", "position", *rest))
