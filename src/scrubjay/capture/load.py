"""Load a model from wherever it is: a module in hand, a local folder, a hub name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from torch import nn

from scrubjay.capture import cache as disk
from scrubjay.capture import hub
from scrubjay.capture.check import Original
from scrubjay.capture.export import Captured, Signature, store_of
from scrubjay.capture.kept import verdict_for
from scrubjay.capture.model import Model
from scrubjay.capture.saved import is_saved, load_saved
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.ops import Gather, Narrow
from scrubjay.circuit.recognisers import recognise
from scrubjay.errors import FixedSizeError, InputError, LoadError

SOURCE = "model"
"""The name of a model's own store of weights."""

FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

FALLBACK = 32
"""The length that a model with a step for each position is captured for, where none was asked for."""


class Reading(TypedDict, total=False):
    """How a folder or a hub name is read.

    Attributes:
        revision: the branch, tag or commit of a hub name (`hub.revisions` lists them).
        trust_remote_code: run the Python code that comes with a checkpoint, where its configuration asks for it. Never without.
    """

    revision: str | None
    trust_remote_code: bool


def load(
    source: nn.Module | str | PathLike[str],
    *,
    inputs: Mapping[str, torch.Tensor] | None = None,
    dynamic: Mapping[str, tuple[str | None, ...]] | None = None,
    output: Callable[[Any], torch.Tensor] | str | int | None = None,
    length: int | None = None,
    tokenizer: Any = None,
    dtype: torch.dtype | str | None = None,
    device: str | None = None,
    name: str | None = None,
    cache: Path | str | bool | None = True,
    **reading: Unpack[Reading],
) -> Model:
    """Return a model whose computation is a circuit with named sites.

    Args:
        source: a torch module in evaluation mode, a local Hugging Face folder (a PEFT adapter's too), a hub name
            (`org/name`, `org/name@revision`), or a folder that `capture.saved.save` wrote.
        inputs: for a module that is not from transformers: example tensors by the names of `forward`'s arguments. For one that
            is: nothing, or `{"inputs_embeds": example}` of shape (batch, query, model) to read embeddings in place of ids.
        dynamic: which dimensions of each input may vary, by axis name: `{"input_ids": ("batch", "query")}` (the default for
            2-dimensional integer inputs); `None` for a dimension that is fixed.
        output: what to read off the result: an attribute, a key, a place in a tuple, or a function. Default: the result.
        length: the one length that a transformers model will be run with. Needed by none; one whose code loops over positions
            (a state-space model) is captured for a length of 32 without it, and `model.anatomy.notes` says so.
        tokenizer: used instead of the source's own.
        dtype: the floating type to run in; as stored if not given.
        device: where to run; where the weights are if not given. A checkpoint's weights are read to there, in `dtype`; a module in hand stays as
            it is, and its weights are moved and cast in each run: for speed move the module itself.
        name: what to call the model.
        cache: the folder for captured circuits; `True` for the user's cache folder, `None` or `False` for none.
        reading: `revision` and `trust_remote_code`, for a folder or a hub name; see `Reading`.

    The module is not changed, its weights are neither copied nor needed for the capture, and a later change of its weights
    is seen by the model. A later change of its parts, such as an adapter switched off, does not reach the circuit: a run then
    raises `LoadError`. Wrappers of PEFT and data parallelism are taken off, adapters as they are. Raises `InputError`, `LoadError`
    or `CaptureError`, saying what to do.
    """
    wanted, folder = _dtype(dtype), _folder(cache)
    _check_device(device)
    if isinstance(source, str | PathLike) and is_saved(Path(source)):
        _check_saved(source, {"inputs": inputs, "dynamic": dynamic, "output": output, "length": length, **reading})
        return load_saved(source, tokenizer=tokenizer, dtype=wanted, device=device, name=name)
    if isinstance(source, nn.Module):
        _check_in_hand(reading, tokenizer)
        opened = _in_hand(source, inputs, dynamic, output, length)
    elif isinstance(source, str | PathLike):
        _check_own(dynamic, output)
        opened = hub.open_source(
            source, dtype=wanted, device=device, tokenizer=tokenizer, length=length, inputs=inputs, **reading
        )
    else:
        raise LoadError(
            f"cannot load a {type(source).__name__}: give a torch module, a folder, a hub name, or zoo/NAME"
        )
    captured, opened, notes = _captured(opened, folder, length)
    return assemble(captured, opened, tokenizer=tokenizer, dtype=wanted, device=device, name=name, notes=notes)


def _folder(cache: Path | str | bool | None) -> Path | None:
    return None if cache is None or cache is False else disk.default_folder() if cache is True else Path(cache)


def _check_in_hand(reading: Reading, tokenizer: object) -> None:
    if reading:
        raise InputError(f"{', '.join(reading)}: for a folder or a hub name; a module in hand has been read already")
    if isinstance(tokenizer, str | PathLike):
        raise InputError("tokenizer= of a module in hand is a tokenizer: AutoTokenizer.from_pretrained(folder)")


def _check_saved(source: str | PathLike[str], options: Mapping[str, object]) -> None:
    if taken := [key for key, value in options.items() if value is not None]:
        raise InputError(f"{', '.join(taken)}: {source} is a saved model, which has its own: leave them out")


def _in_hand(
    module: nn.Module,
    inputs: Mapping[str, torch.Tensor] | None,
    dynamic: Mapping[str, tuple[str | None, ...]] | None,
    output: Callable[[Any], torch.Tensor] | str | int | None,
    length: int | None,
) -> hub.Opened:
    """Return a module in hand with how it is called."""
    own = hub.is_pretrained(module)
    told = not (inputs is None and dynamic is None and output is None)
    if own and (hub.reads_text(module) or not told):
        _check_own(dynamic, output)
        return hub.describe(module, length=length, inputs=inputs)
    if length is not None:
        raise InputError(
            f"length= is for transformers models: for a {type(module).__name__}, give inputs= of that length, and None for that dimension in dynamic="
        )
    bare = hub.unwrapped(module)
    facts = hub.facts_of(module) if own else {}
    return hub.Opened(bare, signature_of(bare, inputs, dynamic, output), type(bare).__name__, None, None, facts)


def _check_own(dynamic: object, output: object) -> None:
    if dynamic is not None or output is not None:
        raise InputError("a transformers model knows its own inputs and its result: leave out dynamic= and output=")


def _captured(
    opened: hub.Opened, folder: Path | None, length: int | None
) -> tuple[Captured, hub.Opened, tuple[str, ...]]:
    """Return the circuit of an opened model, for one length where its code has a step for each position, and notes on that."""
    try:
        made = disk.cached(opened.module, opened.signature, folder, opened.facts)
    except FixedSizeError:
        if length is not None or "class" not in opened.facts:
            raise
        short = min(FALLBACK, opened.context or FALLBACK)
        fixed = hub.at_length(opened, short)
        note = f"its code has a step for each position: captured for inputs of {short} positions; load it with length=N for another length"
        return disk.cached(fixed.module, fixed.signature, folder, fixed.facts), fixed, (note,)
    return made, opened, () if length is None else (f"captured for inputs of {length} positions, as length= asked",)


def assemble(
    captured: Captured,
    opened: hub.Opened,
    *,
    tokenizer: Any,
    dtype: torch.dtype | None,
    device: str | None,
    name: str | None,
    notes: tuple[str, ...] = (),
) -> Model:
    """Return the model of a captured circuit: sites recognised, weights attached."""
    circuit, anatomy = recognise(captured.circuit)
    found = (opened.context, captured.limits.get("query"), captured.limits.get("source"), _table_positions(circuit))
    limits = [limit for limit in found if limit is not None]
    stores = {SOURCE: store_of(opened.module, captured.constants)}
    original = Original(opened.module, opened.signature, circuit, stores, min(limits, default=None))
    return Model(
        name or opened.name,
        circuit,
        replace(anatomy, notes=(*anatomy.notes, *notes)),
        stores,
        opened.tokenizer if tokenizer is None or isinstance(tokenizer, str | PathLike) else tokenizer,
        min(limits) if limits else None,
        dtype,
        device,
        dict(opened.told),
        verdict=verdict_for(captured.place, original, anatomy, opened.facts.get("config")),
        origin=original,
        arguments=tuple(opened.signature.inputs),
    )


def _table_positions(circuit: Circuit) -> int | None:
    """Return the number of rows of a table of learned positions, if the model has one."""
    node = circuit.table.get("pos_embed")
    while node is not None and node.operands:
        if isinstance(node, Gather | Narrow):
            size = node.source.size(node.axis)
            return size if isinstance(size, int) else None
        node = node.operands[0]
    return None


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if dtype is None:
        return None
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or found not in FLOATING:
        raise InputError(f"dtype={dtype!r} is not a floating type: use float32, float64, bfloat16 or float16")
    return found


def _check_device(device: str | None) -> None:
    """Refuse a device that torch does not know, or that this machine lacks."""
    if device is None:
        return
    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device={device!r} is none: give 'cpu', 'cuda', 'cuda:1' or the like") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"device={device!r}: this torch finds no CUDA device; leave device= out to run on the processor"
        )
    if kind == "cuda" and (torch.device(device).index or 0) >= (count := torch.cuda.device_count()):
        raise InputError(f"device={device!r}: there are {count} CUDA devices, cuda:0 to cuda:{count - 1}")
    if kind == "meta":
        raise InputError(
            "device='meta' has shapes and no numbers, so nothing can be run there: sj.plan tells what a run would cost"
        )
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        raise InputError(f"device={device!r} cannot be used here: {str(error).splitlines()[0][:200]}") from error


def signature_of(
    module: nn.Module,
    inputs: Mapping[str, torch.Tensor] | None,
    dynamic: Mapping[str, tuple[str | None, ...]] | None,
    output: Callable[[Any], torch.Tensor] | str | int | None,
) -> Signature:
    """Return how a module that is not from transformers is called."""
    if inputs is None:
        raise InputError(
            f"{type(module).__name__} is not a transformers model: give example tensors by argument name, "
            "such as inputs={'input_ids': torch.zeros(2, 12, dtype=torch.long)}"
        )
    axes: dict[str, tuple[str | None, ...]] = {}
    for key, tensor in inputs.items():
        given = (dynamic or {}).get(key)
        if given is None:
            given = (
                ("batch", "query")
                if dynamic is None and tensor.dim() == 2 and not tensor.is_floating_point()
                else (None,) * tensor.dim()
            )
        if len(given) != tensor.dim():
            raise InputError(
                f"dynamic[{key!r}] names {len(given)} dimensions; the example has {tensor.dim()}: {tuple(tensor.shape)}"
            )
        axes[key] = given
    if unknown := set(dynamic or {}) - set(inputs):
        raise InputError(f"dynamic names {sorted(unknown)}, which inputs lacks; inputs: {', '.join(inputs)}")
    masks = {torch.bool, torch.float16, torch.bfloat16, torch.float32, torch.float64}
    tokens = any("query" in names and inputs[key].dtype not in masks for key, names in axes.items())
    return Signature(dict(inputs), axes, _picker(output), result="logits" if tokens else "output")


def _picker(output: Callable[[Any], torch.Tensor] | str | int | None) -> Callable[[Any], torch.Tensor]:
    if output is None:
        return lambda result: result
    if callable(output):
        return output

    def pick(result: Any) -> torch.Tensor:
        return (
            getattr(result, output) if isinstance(output, str) and not isinstance(result, Mapping) else result[output]
        )

    return pick
