"""The check of a captured model against its module: made at the first load, kept with the cached circuit, relied on later.

Two small batches (ragged where the module reads a padding mask) go through the module and through the circuit. The second is
the first with its rows in another order and one late token changed, so that the same four runs also tell whether earlier
positions read later ones, and whether rows read each other. The verdict is about the code, not about one set of weights: it is
kept under the circuit's own key. A value that is not finite in the module is passed over; padding is compared like the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from scrubjay.capture.export import Signature, model_dtype, plain_path
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.ops import Gather, Input
from scrubjay.circuit.recognisers import Anatomy
from scrubjay.engine.context import Store
from scrubjay.engine.evaluate import evaluate
from scrubjay.errors import CheckError, ScrubjayError

ROWS, LENGTH = 3, 10
"""The size of a batch of the check; the example that a model is captured with is of another."""

TOLERANCE = {"float64": 1e-5, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
"""The largest difference that counts as rounding, in spreads (standard deviations) of the result; many models cast to 32 bits inside."""

LARGEST = 3_000_000_000
"""A module with more parameters is not run at load."""

RUN_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    NotImplementedError,
)
"""What a module's own code raises where it does not run on an input."""

MASKS = ("attention_mask", "decoder_attention_mask")
"""The inputs that say which positions are padding."""

PADDED = "padding_mask"
"""How the names of inputs end that are true where a position is padding, as torch's own layers have it."""

DECODER_COUNTS = {"layers": ("num_decoder_layers", "decoder_layers"), "heads": ("decoder_attention_heads",)}
"""What configurations call the counts of the decoder, where there is an encoder too."""

LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HEAD_COUNTS = ("num_attention_heads", "n_head", "n_heads", "num_heads")


@dataclass(frozen=True)
class Verdict:
    """What the check found. `None` stands for what was not checked, or does not apply.

    Attributes:
        exact: whether circuit and module give the same numbers, up to rounding, in the same shape.
        difference: the largest difference, in spreads of the module's result. tolerance: the largest that is rounding.
        dtype: the floating type the module was run in.
        causal: whether a position leaves every earlier one's result as it is.
        rows_independent: whether rows of a batch leave each other's results as they are, in any order.
        length: the longest row that was compared.
        counted: what was recognised beside what the configuration says: (name, recognised, configured).
        reason: why something was not checked, or how it failed.
        waived: whether the user has asked to go on in spite of it.
    """

    exact: bool | None = None
    difference: float | None = None
    tolerance: float | None = None
    dtype: str = ""
    causal: bool | None = None
    rows_independent: bool | None = None
    length: int = 0
    counted: tuple[tuple[str, int, int], ...] = ()
    reason: str = ""
    waived: bool = False

    @property
    def problems(self) -> tuple[str, ...]:
        """What failed, a line each."""
        found: list[str] = []
        if self.exact is False:
            found.append(f"not exact: {self.reason or _apart(self)}")
        if self.rows_independent is False:
            found.append("rows are not independent: one row of a batch changes the result of another")
        found += [
            f"{has} {what} recognised, the configuration says {says}"
            for what, has, says in self.counted
            if 0 < has != says
        ]
        return tuple(found)

    def to_dict(self) -> dict[str, object]:
        """Return the verdict as plain values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the verdict in one line."""
        if self.problems:
            return "; ".join(self.problems)
        if self.exact is None:
            return f"not checked against the module: {self.reason}"
        parts = [f"equals the module ({_apart(self)})"]
        if self.causal is not None:
            parts.append("causal" if self.causal else "not causal")
        if self.rows_independent:
            parts.append("rows independent")
        return ", ".join([*parts, f"lengths up to {self.length}"] if self.length else parts)


def _apart(verdict: Verdict) -> str:
    return f"apart by {verdict.difference or 0:.1g} of the result's spread in {verdict.dtype}, at most {verdict.tolerance or 0:.1g} is rounding"


def verdict_of(found: object) -> Verdict | None:
    """Return the verdict that `to_dict` gave, read back from JSON; None for anything else."""
    if not isinstance(found, dict) or set(found) != {one.name for one in fields(Verdict)}:
        return None
    given: dict[str, Any] = dict(found)
    try:
        return Verdict(
            **{**given, "counted": tuple((str(what), int(has), int(says)) for what, has, says in given["counted"])}
        )
    except (TypeError, ValueError):
        return None


@dataclass(frozen=True, eq=False)
class Original:
    """The module a circuit was captured from, how it is called, and the circuit as captured.

    `longest` keeps how long the rows were that have been compared, beyond the verdict's own.
    """

    module: nn.Module
    signature: Signature
    circuit: Circuit
    stores: Mapping[str, Store]
    limit: int | None = None
    longest: dict[str, int] = field(default_factory=dict[str, int])

    def theirs(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return what the module gives."""
        first = next(iter([*self.module.parameters(), *self.module.buffers()]), None)
        device = torch.device("cpu") if first is None else first.device
        with torch.no_grad(), plain_path():
            result = self.module(**{name: tensor.to(device) for name, tensor in inputs.items()}, **self.signature.fixed)
        return self.signature.pick(result).detach()

    def ours(self, inputs: Mapping[str, torch.Tensor], dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return what the circuit gives, its dimensions as the module's; computed in `dtype` if it is given."""
        ((result, root),) = self.circuit.roots.items()
        with torch.no_grad():
            return evaluate([root], dict(inputs), self.stores, dtype=dtype)[root].in_dims(self.circuit.layout(result))


@dataclass(frozen=True)
class Compared:
    """How far circuit and module are apart on one batch: in spreads of the module's result (infinite for another shape)."""

    difference: float
    theirs: tuple[int, ...]
    ours: tuple[int, ...]


def compare(theirs: torch.Tensor, ours: torch.Tensor) -> Compared:
    """Return how far two results are apart, where the first is finite.

    >>> compare(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 3.0])).difference
    0.0
    """
    shapes = tuple(theirs.shape), tuple(ours.shape)
    if shapes[0] != shapes[1]:
        return Compared(float("inf"), *shapes)
    one, two = theirs.to(torch.float64), ours.to(theirs.device, torch.float64)
    here = torch.isfinite(one)
    if not bool(here.any()):
        return Compared(float("nan"), *shapes)
    apart = (one - two)[here].abs()
    apart = torch.where(torch.isfinite(two[here]), apart, float("inf")).max()
    return Compared(float(apart) / max(_spread(one), 1e-300) if float(apart) else 0.0, *shapes)


def _spread(value: torch.Tensor) -> float:
    real = value[torch.isfinite(value)]
    return float(real.std(correction=0)) if real.numel() > 1 else float(real.abs().max()) if real.numel() else 0.0


def unrunnable(module: nn.Module, largest: float = LARGEST) -> str:
    """Return why a module is not run at load; empty if it can be. `largest` is the most parameters it may have."""
    tensors = [*module.parameters(), *module.buffers()]
    if any(tensor.is_meta for tensor in tensors):
        return "its weights are not loaded"
    count = sum(tensor.numel() for tensor in module.parameters())
    if count > largest:
        return f"it has {count / 1e9:.1f} billion parameters; `scrubjay doctor` checks it on request"
    return ""


def checked(
    original: Original, anatomy: Anatomy, config: Mapping[str, object] | None = None, largest: float = LARGEST
) -> Verdict:
    """Return the verdict on a captured model, by two batches through module and circuit.

    Args:
        original: the module and its circuit. A module that does not run on such a batch, or has a weight that is not a
            number, is reported as not checked.
        anatomy: what was recognised.
        config: the module's configuration, to compare counts with.
        largest: the most parameters that a module may have to be run.
    """
    dtype = str(model_dtype(original.module)).removeprefix("torch.")
    base = Verdict(dtype=dtype, tolerance=TOLERANCE.get(dtype, 1e-4), counted=counts(anatomy, config or {}))
    if reason := unrunnable(original.module, largest):
        return replace(base, reason=reason)
    inputs = examples(original, ROWS, LENGTH)
    changed = disturbed(original, inputs)
    try:
        theirs = [original.theirs(batch) for batch in (inputs, changed)]
    except RUN_ERRORS as error:
        words = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        return replace(
            base, reason=f"the module does not run on {ROWS} rows of {_length(original, inputs)}: {words[:200]}"
        )
    try:
        ours = [original.ours(batch) for batch in (inputs, changed)]
    except ScrubjayError as error:
        return replace(base, reason=str(error))
    found = [compare(one, two) for one, two in zip(theirs, ours, strict=True)]
    causal, independent = _perturbed(original, inputs, ours, base.tolerance or 0)
    causal = causal and not _reads_later(original, inputs)
    return _judged(base, found, (causal, independent), _length(original, inputs))


def _judged(base: Verdict, found: Sequence[Compared], seen: tuple[bool | None, bool | None], length: int) -> Verdict:
    causal, independent = seen
    for one in found:
        if one.theirs != one.ours:
            reason = f"the circuit's result has the shape {one.ours}, the module's {one.theirs}"
            return replace(base, exact=False, reason=reason, length=length)
    differences = [one.difference for one in found if one.difference == one.difference]
    if not differences:
        return replace(base, reason="the module's own result holds no finite number on a batch of random tokens")
    apart = max(differences)
    exact = apart <= (base.tolerance or 0)
    shown = apart if apart != float("inf") else None
    reason = "" if shown is not None else "the circuit gives numbers that are not finite where the module's are"
    return replace(
        base, exact=exact, difference=shown, reason=reason, causal=causal, rows_independent=independent, length=length
    )


def counts(anatomy: Anatomy, config: Mapping[str, object]) -> tuple[tuple[str, int, int], ...]:
    """Return what was recognised beside what a configuration says, where it says so.

    >>> counts(Anatomy((), __import__("scrubjay.circuit.address", fromlist=["ModelShape"]).ModelShape(), "logits", True), {"n_layer": 2})
    (('layers', 0, 2),)
    """
    inner = config.get("text_config")
    config = {**config, **(inner if isinstance(inner, Mapping) else {})}
    both = DECODER_COUNTS if config.get("is_encoder_decoder") else dict.fromkeys(DECODER_COUNTS, ())
    says = {
        what: next((config[name] for name in (*both[what], *names) if isinstance(config.get(name), int)), None)
        for what, names in (("layers", LAYER_COUNTS), ("heads", HEAD_COUNTS))
    }
    has = {"layers": len(anatomy.layers), "heads": max((layer.heads for layer in anatomy.layers), default=0)}
    return tuple(
        (what, has[what], number)
        for what, number in says.items()
        if isinstance(number, int) and (what == "layers" or anatomy.layers)
    )


def _length(original: Original, inputs: Mapping[str, Any]) -> int:
    """Return how many positions a batch has; 0 for a module without positions."""
    for name, tensor in inputs.items():
        if "query" in original.signature.dynamic[name]:
            return tensor.shape[original.signature.dynamic[name].index("query")]
    return 0


def examples(
    original: Original, rows: int, length: int, padding: str = "ragged", seed: int = 0
) -> dict[str, torch.Tensor]:
    """Return random inputs of a module: token ids of its vocabulary, a padding mask, positions, numbers of unit scale.

    `padding` is `none`, `left`, `right` or `ragged` (the first row whole, the second padded left, the third right); it needs a
    module that reads `attention_mask`. Dimensions that are not dynamic keep the size of the captured example.
    """
    draw = torch.Generator().manual_seed(seed)
    length = min(length, original.limit or length)
    sizes = {"batch": rows, "query": length}
    made: dict[str, torch.Tensor] = {}
    for name, example in original.signature.inputs.items():
        dynamic = original.signature.dynamic[name]
        shape = [
            size if axis in original.signature.static else sizes.get(axis or "", size)
            for axis, size in zip(dynamic, example.shape, strict=True)
        ]
        if name in MASKS and dynamic in {("batch", "query"), ("batch", "source")}:
            made[name] = _mask(shape[0], shape[1], padding).to(example.dtype)
        elif example.is_floating_point():
            made[name] = torch.randn(shape, generator=draw).to(model_dtype(original.module))
        elif name.endswith(PADDED) and dynamic in {("batch", "query"), ("batch", "source")}:
            made[name] = _mask(shape[0], shape[1], padding) == 0
        elif example.dtype == torch.bool:
            made[name] = _more_of(example, shape)
        else:
            top = _vocabulary(original.circuit, name) or int(example.max()) + 1
            made[name] = torch.randint(max(top, 1), shape, generator=draw).to(example.dtype)
    if "position_ids" in made and made["position_ids"].dim() == 2:
        mask = made.get("attention_mask", torch.ones_like(made["position_ids"]))
        made["position_ids"] = (mask.to(torch.int64).cumsum(1) - 1).clamp(min=0)
    return made


def _more_of(example: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Return the example's own values, over and over, in another shape: a mask is no mask with any value at any place."""
    for place, size in enumerate(shape):
        example = example.index_select(place, torch.arange(size) % example.shape[place])
    return example


def _mask(rows: int, length: int, padding: str) -> torch.Tensor:
    mask = torch.ones(rows, length, dtype=torch.long)
    for row in range(rows):
        many = min(row % 3 + 2, length - 1)
        side = {"none": "", "ragged": ("", "left", "right")[row % 3]}.get(padding, padding)
        if side == "left":
            mask[row, :many] = 0
        elif side == "right":
            mask[row, length - many :] = 0
    return mask


def _vocabulary(circuit: Circuit, name: str) -> int | None:
    """Return the number of rows of the table that an input looks up."""
    for node in circuit.nodes:
        if isinstance(node, Gather) and isinstance(node.index, Input) and node.index.name == name:
            size = node.source.size(node.axis)
            return size if isinstance(size, int) else None
    return None


def disturbed(original: Original, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a batch with its rows moved up by one (the first comes last), and what was the first row changed at one late place."""
    dynamic = original.signature.dynamic
    made = {
        name: tensor.roll(-1, dynamic[name].index("batch")) if "batch" in dynamic[name] else tensor.clone()
        for name, tensor in inputs.items()
    }
    name = _read_name(original, inputs)
    if name is not None:
        length = inputs[name].shape[dynamic[name].index("query")] if "query" in dynamic[name] else 0
        _changed(original, name, made[name], -1, _late(length))
    return made


def _read_name(original: Original, inputs: Mapping[str, torch.Tensor]) -> str | None:
    """Return the input that is changed to see who reads it: token ids, or numbers."""
    for name, tensor in inputs.items():
        axes = original.signature.dynamic[name]
        # an encoder's positions are all read by every position of the decoder: the place is one of the decoder's
        mine = "batch" in axes and ("query" in axes or "source" not in axes)
        if mine and name not in {*MASKS, "position_ids"} and tensor.dtype != torch.bool:
            return name
    return None


def _changed(original: Original, name: str, tensor: torch.Tensor, row: int, place: int) -> None:
    """Change an input in place at one place of one row; the whole row of one without positions."""
    axes = original.signature.dynamic[name]
    here = tensor.select(axes.index("batch"), row)
    rest = [axis for axis in axes if axis != "batch"]
    spot = here.select(rest.index("query"), place) if "query" in rest else here
    top = _vocabulary(original.circuit, name) or int(tensor.max()) + 1
    spot.copy_(spot + 1 if tensor.is_floating_point() else (spot + 1 + top // 2) % max(top, 1))


def _late(length: int) -> int:
    """Return the place that is changed in a row."""
    return length * 2 // 3


def _perturbed(
    original: Original, inputs: Mapping[str, torch.Tensor], ours: Sequence[torch.Tensor], tolerance: float
) -> tuple[bool | None, bool | None]:
    """Return whether the result is causal and whether its rows are independent, from a batch's result and the disturbed one's."""
    (result,) = original.circuit.roots
    order = original.circuit.layout(result)
    everywhere = all("batch" in original.signature.dynamic[name] for name in inputs)
    if "batch" not in order or not everywhere:
        return None, None
    before = ours[0].to(torch.float64).transpose(0, order.index("batch")).roll(-1, 0)
    after = ours[1].to(torch.float64).transpose(0, order.index("batch"))
    if before.shape != after.shape or len(before) < 2:
        return None, None
    allowed = tolerance * _spread(before)
    moved = torch.where(torch.isfinite(before) & torch.isfinite(after), (after - before).abs(), 0)
    if not bool(moved[-1].max() > allowed):
        return None, None if not bool(moved[:-1].max() > allowed) else False
    independent = not bool(moved[:-1].max() > allowed)
    if "query" not in order or order.index("batch") != 0:
        return None, independent
    place, length = order.index("query"), before.shape[order.index("query")]
    late = _late(_length(original, inputs))
    if not 0 < late < length or length != _length(original, inputs) or not independent:
        return None, independent
    early = moved[-1].narrow(place - 1, 0, late)
    return not bool(early.max() > allowed), independent


def _reads_later(original: Original, inputs: Mapping[str, torch.Tensor]) -> bool:
    """Tell whether any position of the first row reads a later one: every place is changed in a copy of the row.

    Under a prefix mask the places of the prefix alone read each other. 32 bits at least are computed with: rounding hides what is read.
    """
    name, axes, length = _read_name(original, inputs), original.signature.dynamic, _length(original, inputs)
    if name is None or length < 2:
        return False
    first = {
        key: one.index_select(axes[key].index("batch"), torch.zeros(length, dtype=torch.int64))
        for key, one in inputs.items()
    }
    for place in range(1, length):
        _changed(original, name, first[name], place, place)
    wide = torch.promote_types(model_dtype(original.module), torch.float32)
    (result,) = original.circuit.roots
    order = original.circuit.layout(result)
    found = original.ours(first, wide).to(torch.float64).movedim(order.index("query"), 1)
    apart = (found - found[:1]).abs().nan_to_num(0.0)
    moved = apart.reshape(*found.shape[:2], -1).amax(2)  # (row, position): row n is changed at place n
    return bool(moved.tril(-1).max() > TOLERANCE["float32"] * _spread(found[0]))


def refusal(name: str, verdict: Verdict, wanted: Sequence[str]) -> None:
    """Raise `CheckError` where a verdict says that one of the facts `wanted` does not hold, unless it is waived."""
    failed = [fact for fact in wanted if getattr(verdict, fact) is False]
    if failed and not verdict.waived:
        raise CheckError(
            f"{name} failed its check against the module: {'; '.join(verdict.problems)}. Results would be wrong. `scrubjay doctor` says more; "
            "`model.unchecked()` goes on in spite of it"
        )


def beyond(name: str, verdict: Verdict, original: Original, inputs: Mapping[str, Any]) -> None:
    """Compare circuit and module on two rows of `inputs` where these are longer than all rows that were compared so far.

    A module that cannot be run any more (its weights are gone, it is back in training mode) is not asked; the next run does.
    Raises `CheckError` where the two differ: some models choose what they compute by the length of their input.
    """
    given = {key: value for key, value in inputs.items() if key in original.signature.inputs}
    if verdict.exact is not True or verdict.waived or set(given) != set(original.signature.inputs):
        return
    length = _length(original, given)
    if length <= max(verdict.length, original.longest.get("query", 0)):
        return
    if any(part.training for part in original.module.modules()) or unrunnable(original.module):
        return
    rows = _two_rows(
        original,
        {
            key: value.detach() if isinstance(value, torch.Tensor) else torch.tensor(np.asarray(value))
            for key, value in given.items()
        },
    )
    found = compare(original.theirs(rows), original.ours(rows))
    if found.difference > (verdict.tolerance or 0):
        raise CheckError(
            f"{name}: on rows of {length} positions the circuit and the module are apart by {found.difference:.2g} of the result's spread "
            f"(checked so far: up to {max(verdict.length, original.longest.get('query', 0))}). Either the module computes something else at such "
            "lengths, as rotary embeddings for long contexts do: give shorter rows; or it was changed after it was captured (an adapter, a "
            "hook): load it again"
        )
    original.longest["query"] = length


def _two_rows(original: Original, given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the first row and the one with the fewest padded places, alone."""
    mask = given.get("attention_mask")
    best = 0 if mask is None or mask.dim() != 2 else int(mask.ne(0).sum(1).argmax())
    chosen = sorted({0, best})
    return {
        key: tensor.index_select(
            original.signature.dynamic[key].index("batch"), torch.tensor(chosen, device=tensor.device)
        )
        if "batch" in original.signature.dynamic[key]
        else tensor
        for key, tensor in given.items()
    }
