"""A model examined on request: the check of the load made anew and at more sizes, what was recognised, and what it costs."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from scrubjay.capture.check import RUN_ERRORS, Original, Verdict, checked, compare, examples, unrunnable
from scrubjay.capture.export import capture
from scrubjay.capture.model import Model
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Opaque
from scrubjay.circuit.origin import Origins
from scrubjay.circuit.traits import Trait, end_traits, layer_traits
from scrubjay.errors import InputError, ScrubjayError

LONGEST = 512
"""The longest row that is run, where the model takes longer ones."""

CASES = (
    ("one position", 3, (1, 1), "none"),
    ("one row", 1, (10, 7), "none"),
    ("another batch and length", 5, (17, 23), "none"),
    ("padded left", 4, (11, 13), "left"),
    ("padded right", 4, (11, 13), "right"),
    ("the longest row", 1, (LONGEST, LONGEST), "none"),
)
"""What is compared: a name, rows, length (and the encoder's, beside a decoder), padding."""


@dataclass(frozen=True)
class Case:
    """Circuit and module on one batch: how far apart, in spreads of the module's result, and how long each took.

    `length` is the decoder's where there is an encoder, and `source` the encoder's (0 without one). `holds` is None where it does not apply, and `reason` says why, or what went wrong.
    """

    name: str
    rows: int
    length: int
    holds: bool | None
    difference: float | None = None
    reason: str = ""
    module_seconds: float = 0.0
    circuit_seconds: float = 0.0
    source: int = 0


@dataclass(frozen=True)
class Kept:
    """Operations that were kept as they are: which, how many, and the module whose output they lead to."""

    operator: str
    count: int
    module: str


@dataclass(frozen=True)
class Examination:
    """What an examination found.

    Attributes:
        verdict: that of the check at load, made anew. cases: batches of other sizes.
        traits: what is the case of which layers: (layers, topic, words); `ends` for what stands around them.
        opaque: operations that were not understood.
        capture_seconds, capture_bytes: what a capture takes, beside the weights (of memory: by how much the peak rose).
        weight_bytes: the size of the weights. source: the encoder's length in the check made anew, 0 without an encoder.
    """

    verdict: Verdict
    cases: tuple[Case, ...]
    traits: tuple[tuple[str, str, str], ...]
    opaque: tuple[Kept, ...]
    capture_seconds: float
    capture_bytes: int
    weight_bytes: int
    source: int = 0

    @property
    def failed(self) -> bool:
        """Whether anything did not hold."""
        return bool(self.verdict.problems) or any(case.holds is False for case in self.cases)

    def to_dict(self) -> dict[str, object]:
        """Return it as plain values, ready for JSON."""
        return {**asdict(self), "failed": self.failed}


def examine(model: Model, step: Callable[[str], None] = lambda _: None) -> Examination:
    """Return what is found when a loaded model is compared with its module at several sizes; `step` is told what is done.

    Raises `InputError` for a model that was not captured from a module.
    """
    original = model.origin
    if original is None:
        raise InputError(f"{model.name} was not captured from a module in this process: load it first")
    step("comparing circuit and module")
    verdict = checked(original, model.anatomy, _config(model), largest=float("inf"))
    cases = tuple(_case(original, verdict, *case) for case in CASES)
    step("capturing once more, to time it")
    before, begun = _peak_bytes(), time.perf_counter()
    capture(original.module, original.signature)
    seconds, grown = time.perf_counter() - begun, _peak_bytes() - before
    step("reading the anatomy")
    origins = Origins(model.circuit, model.anatomy)
    weights = sum(weight.numel() * weight.element_size() for weight in original.module.parameters())
    source = _long(original, original.signature.inputs, "source")
    return Examination(
        verdict, cases, tuple(_traits(origins, model)), tuple(_opaque(origins)), seconds, grown, weights, source
    )


def _config(model: Model) -> dict[str, object]:
    """Return what the check at load compared its counts with."""
    said = {} if model.verdict is None else {what: says for what, _, says in model.verdict.counted}
    names = {"layers": "num_hidden_layers", "heads": "num_attention_heads"}
    return {names[what]: says for what, says in said.items()}


def _long(original: Original, inputs: Mapping[str, torch.Tensor], axis: str) -> int:
    """Return the size of an axis in a batch; 0 where no input has it."""
    dynamic = original.signature.dynamic
    return next(
        (tensor.shape[dynamic[name].index(axis)] for name, tensor in inputs.items() if axis in dynamic[name]), 0
    )


def _encoding(original: Original, source: int) -> Original:
    """Return the original with an example whose encoder's input is `source` long, where that may vary."""
    signature = original.signature
    if "source" in signature.static:
        return original
    source = min(source, original.limit or source)
    made = dict(signature.inputs)
    for name, example in made.items():
        if "source" in signature.dynamic[name]:
            dim = signature.dynamic[name].index("source")
            chosen = torch.arange(source, device=example.device) % example.shape[dim]
            made[name] = example.index_select(dim, chosen)
    return replace(original, signature=replace(signature, inputs=made))


def _case(original: Original, verdict: Verdict, name: str, rows: int, lengths: tuple[int, int], padding: str) -> Case:
    """Return how one batch compares; its lengths are those that were run."""
    dynamic = {
        axis for names in original.signature.dynamic.values() for axis in names if axis
    } - original.signature.static
    length, source = lengths
    base = Case(name, rows, length, None, source=source if _long(original, original.signature.inputs, "source") else 0)
    if reason := unrunnable(original.module, float("inf")) or _inapplicable(original, dynamic, length, padding):
        return replace(base, reason=reason)
    inputs = examples(_encoding(original, source), rows, length, padding, seed=1)
    first = next((tensor.shape[1] for tensor in inputs.values() if tensor.dim() > 1), length)
    base = replace(base, length=_long(original, inputs, "query") or first, source=_long(original, inputs, "source"))
    begun = time.perf_counter()
    try:
        theirs = original.theirs(inputs)
    except RUN_ERRORS as error:
        return replace(base, reason=f"the module itself does not run: {type(error).__name__}: {_first(error)}")
    between = time.perf_counter()
    try:
        ours = original.ours(inputs)
    except (ScrubjayError, *RUN_ERRORS) as error:
        reason = f"the circuit does not run: {type(error).__name__}: {_first(error)}"
        return replace(base, holds=False, reason=reason)
    base = replace(base, module_seconds=between - begun, circuit_seconds=time.perf_counter() - between)
    found = compare(theirs, ours)
    if found.theirs != found.ours:
        reason = f"the module gives the shape {found.theirs}, the circuit {found.ours}"
        return replace(base, holds=False, reason=reason)
    if found.difference != found.difference:
        return replace(base, reason="the module's own result holds no finite number")
    finite = found.difference != float("inf")
    reason = "" if finite else "the circuit gives numbers that are not finite where the module's are"
    holds = finite and found.difference <= (verdict.tolerance or 0)
    return replace(base, holds=holds, difference=found.difference if finite else None, reason=reason)


def _inapplicable(original: Original, dynamic: set[str], length: int, padding: str) -> str:
    if padding != "none" and "attention_mask" not in original.signature.inputs:
        return "it reads no padding mask"
    if length != 10 and "query" not in dynamic:
        return "its length is fixed"
    if "batch" not in dynamic:
        return "its batch is fixed"
    return ""


def _first(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0][:160] if lines else "no message"


def _peak_bytes() -> int:
    """Return the most memory this process has had so far."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


def _traits(origins: Origins, model: Model) -> list[tuple[str, str, str]]:
    """Return every trait once, with the layers it holds for."""
    layers: dict[tuple[str, str], list[int]] = {}
    for number in range(model.layers):
        for trait in layer_traits(origins, model.anatomy, number):
            layers.setdefault((trait.topic, trait.words), []).append(number)
    found = [(_ranges(numbers, model.layers), topic, words) for (topic, words), numbers in layers.items()]
    ends: list[Trait] = end_traits(origins, model.anatomy) if model.layers else []
    return [*found, *(("ends", trait.topic, trait.words) for trait in ends)]


def _ranges(numbers: Sequence[int], count: int) -> str:
    """Return layers as one writes them in an address: `L*`, `L0..3`, `L1, L3`."""
    if len(numbers) == count:
        return "L*"
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [f"L{run[0]}" if len(run) == 1 else f"L{run[0]}..{run[-1]}" for run in runs]
    return ", ".join(texts) if len(texts) <= 4 else f"{', '.join(texts[:3])} and {len(texts) - 3} more"


def _opaque(origins: Origins) -> list[Kept]:
    """Return the operations kept as they are, by operator and module, the most frequent first."""
    found = Counter((node.op, _leads_to(node, origins)) for node in origins.circuit.nodes if isinstance(node, Opaque))
    return [Kept(operator, count, module) for (operator, module), count in found.most_common()]


def _leads_to(node: Node, origins: Origins) -> str:
    """Return the nearest module whose output a value goes into, layer numbers as `*`."""
    level, seen = [node], set[Node]()
    while level:
        here = level.pop(0)
        if here in seen:
            continue
        seen.add(here)
        if paths := origins.outputs.get(here):
            return ".".join("*" if name.isdigit() else name for name in min(paths, key=len).split("."))
        level.extend(origins.known.readers.get(here, []))
    return "the result"
