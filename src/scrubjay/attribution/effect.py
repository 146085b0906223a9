"""Direct logit attribution: what each source adds to a logit, or to the difference of two, by writing to the last stream.

Elhage et al., A Mathematical Framework for Transformer Circuits (2021). The final norm is held at the scale of the run, so the
logit is a sum over sources; its bias and the unembedding's are sources of their own. What a source does through later parts
is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scrubjay.attribution.answers import logits_node, spelled, token_ids, vocabulary_of
from scrubjay.attribution.cuts import check_by, cuts_of
from scrubjay.attribution.decomposition import check_position, check_sum, collected, fitting, opened, position_index
from scrubjay.attribution.linear import At, Terms, terms
from scrubjay.attribution.slope import settled
from scrubjay.capture.model import Model
from scrubjay.circuit.address import Address, Position
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Constant, Input, Map, Multiply
from scrubjay.engine.progress import progress_after
from scrubjay.errors import InputError
from scrubjay.interventions.inputs import prepare

ANSWERS = "_answers"


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each source adds to one number of each row: a logit, or a difference of logits.

    Attributes:
        name: what the number is, in words.
        sources: names, in the order of computation; biases under names of their own (`L0.attn.b_O`, `ln_f.b`, `b_U`).
        values: shape (row, source). total: the model's own number, shape (row,).
        answers: token ids, shape (row, 1), or (row, 2) with the wrong ones.
        position: where the logits are read. by: what a source is.
        heads: how many heads each layer has.
        notes: what was held at its value, and what could not be split as asked.
    """

    name: str
    sources: tuple[str, ...]
    values: np.ndarray
    total: np.ndarray
    answers: np.ndarray
    position: int
    by: str
    heads: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def mean(self) -> np.ndarray:
        """The mean over rows, shape (source,)."""
        return self.values.mean(0)

    @property
    def standard_error(self) -> np.ndarray:
        """The standard error of the mean, shape (source,); NaN for a single row."""
        rows = len(self.values)
        return self.values.std(0, ddof=1) / rows**0.5 if rows > 1 else np.full(len(self.sources), np.nan)

    @property
    def error(self) -> float:
        """The largest distance, over rows, between the sum over sources and the model's own number."""
        return float(np.abs(self.values.sum(1) - self.total).max())

    def __getitem__(self, source: str) -> np.ndarray:
        """Return what the source of that name adds in each row, shape (row,); a pattern (`L1.H*.out`) is the sum over all that fit."""
        return self.values[:, fitting(source, self.sources, self.name)].sum(1)

    def top(self, k: int = 10) -> tuple[tuple[str, float, float], ...]:
        """Return the k sources with the largest mean in size: name, mean, standard error."""
        order = np.argsort(-np.abs(self.mean), kind="stable")[:k]
        return tuple((self.sources[one], float(self.mean[one]), float(self.standard_error[one])) for one in order)

    def by_head(self) -> np.ndarray:
        """Return the mean of each head, shape (layer, head); NaN where a layer has fewer heads.

        Raises `InputError` where heads are not apart.
        """
        named = [one for one in self.sources if ".H" in one]
        if not named:
            raise InputError(f"sources are by {self.by}, so heads are not apart: ask for by='heads'")
        table = np.full((len(self.heads), max(self.heads)), np.nan)
        for one in named:
            layer, head, _ = one.split(".")
            table[int(layer[1:]), int(head[1:])] = self.mean[self.sources.index(one)]
        return table

    def accumulated(self) -> tuple[tuple[str, ...], np.ndarray]:
        """Return the sum over the sources that are in the stream at each place: addresses, and values (row, place).

        It is what the stream of that place gives at the final norm's scale of this run, biases behind it included from the start.
        """
        stages = [_stage(one) for one in self.sources]
        layers = range(len(self.heads))
        names = ("L0.resid_pre", *(f"L{layer}.resid_{at}" for layer in layers for at in ("mid", "post")))
        held = np.stack([(np.array(stages) <= at) for at in range(-1, 2 * len(self.heads))], 1)
        return names, self.values @ held.astype(float)

    def to_dict(self) -> dict[str, object]:
        """Return plain numbers and text, for JSON."""
        errors = [None if np.isnan(one) else float(one) for one in self.standard_error]
        return {
            "name": self.name, "position": self.position, "by": self.by, "sources": list(self.sources), "mean": self.mean.tolist(),
            "standard_error": errors, "values": self.values.tolist(), "total": self.total.tolist(), "answers": self.answers.tolist(),
            "error": self.error, "notes": list(self.notes),
        }  # fmt: skip

    def __str__(self) -> str:
        """Return the ten largest sources as a table, their sum and the rest."""
        largest = self.top(10)
        width = max(len(one[0]) for one in (*largest, ("everything else",)))
        lines = [f"{name:<{width}} {mean:+9.4f}" + _plus_minus(error) for name, mean, error in largest]
        rest = float(self.total.mean()) - sum(one[1] for one in largest)
        ends = [f"{'everything else':<{width}} {rest:+9.4f}"] if len(self.sources) > len(largest) else []
        return "\n".join([self.name, *lines, *ends, f"{'total':<{width}} {float(self.total.mean()):+9.4f}"])

    def __repr__(self) -> str:
        """Say what was taken apart, into how many sources, and how well they add up."""
        first = ", ".join(f"{name} {mean:+.2f}" for name, mean, _ in self.top(3))
        return (
            f"<Attribution of {self.name}: {float(self.total.mean()):+.3f} over {len(self.total)} rows, {len(self.sources)} sources by {self.by}, "
            f"adds up to {self.error:.1e}; largest {first}>"
        )


def _plus_minus(error: float) -> str:
    return "" if np.isnan(error) else f" ± {error:.4f}"


def _stage(source: str) -> int:
    """Return where in the stream a source enters: -1 before the first layer (or behind the last), then attention and MLP in turn."""
    layer, _, site = source.partition(".")
    if not (layer.startswith("L") and layer[1:].isdigit()):
        return -1
    first = site.startswith(("H", "attn.", "ln1", "cross.", "mixer."))
    return 2 * int(layer[1:]) + (0 if first else 1)


@torch.no_grad()
def direct_logit_attribution(
    model: Model, inputs: Any, answers: Any, wrong: Any = None, position: int = -1, by: str = "heads"
) -> Attribution:
    """Return what each source adds to the logit of each row's answer, minus that of a wrong one where given.

    Args:
        model: a model whose result is logits.
        inputs: anything `sj.run` reads.
        answers: a token id or text for all rows, or one for each row; a text must be one token.
        wrong: the same for what the answer is compared with.
        position: where the logits are read, over real tokens: -1 is the last. Not used where logits have no positions.
        by: what a source is: `components` (attention and MLP whole), `heads`, `neurons` (heads apart too), `experts`, `layers`.

    The number is in logits, and positive where a source speaks for the answer. The final norm is held at each row's own scale, and
    so are norms on what a layer writes (gemma2, olmo2, bert). A soft cap on the logits is left out: the number is the one
    before it, and `notes` says so.

    Raises `InputError` for answers that do not fit, a position some row does not have, a model without logits, and one whose logits are
    no linear function of a normed stream.
    """
    check_by(by)
    if isinstance(position, bool) or not isinstance(position, int | np.integer):
        raise InputError(
            f"position is {position!r}: give one number, counted over real tokens (-1 is the last); for several, ask once for each"
        )
    tensors = prepare(model, inputs)
    model.require("exact", inputs=tensors)
    logits = logits_node(model, "direct logit attribution")
    rows = len(next(iter(tensors.values())))
    vocab, size = vocabulary_of(logits)
    ids = [token_ids(model, answers, rows, size)]
    ids += [token_ids(model, wrong, rows, size, "wrong answers")] if wrong is not None else []
    target, notes = before_cap(logits)
    chosen = Input(ANSWERS, (Axis("batch", logits.size("batch")), Axis("answer", len(ids))), "int64")
    at: list[At] = [(vocab, chosen)]
    if "query" in target.axis_names:
        check_position(Address(None, None, "logits", Position(position)), tensors)
        at.insert(0, ("query", position_index(model, target, Position(position))))
    cuts, more = cuts_of(model, target, "components" if by == "layers" else by)
    found = opened(model, target, "logits", cuts)
    given = {**tensors, ANSWERS: torch.stack(ids, 1)}
    names, values, total, dtype = _contrasts(model, terms(found, cuts, at, standing=True), given)
    check_sum(model, float((values.sum(0) - total).abs().max()), total, "logits", dtype)
    held = tuple(f"{one} held at its value" for one in found.held)
    made = Attribution(
        _name(model, ids, position if "query" in target.axis_names else None), names, values.T.numpy(), total.numpy(),
        given[ANSWERS].numpy(), position, by, model.heads, (*notes, *more, *held),
    )  # fmt: skip
    return _by_layer(made) if by == "layers" else made


def _contrasts(
    model: Model, sum_of: Terms, given: Mapping[str, torch.Tensor]
) -> tuple[tuple[str, ...], torch.Tensor, torch.Tensor, torch.dtype]:
    """Return names, the value of each source (source, row) and the whole (row,), of the answer less the wrong one, and its type."""
    with progress_after(2.0, f"attributing logits of {model.name}") as bar:
        names, values, whole = collected(*settled(model, sum_of, given, bar))
    order = ("batch", "answer")
    stacked = values.dense(("source", *order)).to(torch.float64).cpu()
    total = whole.dense(order).to(torch.float64).cpu()
    dtype = whole.as_tensor().dtype
    if total.shape[-1] == 1:
        return names, stacked[..., 0], total[..., 0], dtype
    return names, stacked[..., 0] - stacked[..., 1], total[..., 0] - total[..., 1], dtype


def before_cap(logits: Node) -> tuple[Node, tuple[str, ...]]:
    """Return the logits before a soft cap (c tanh(x / c)) where there is one, and a note that says so."""
    node = logits
    while not (isinstance(node, Map) and node.op == "tanh"):
        below = _scaled(node)
        if below is None:
            return logits, ()
        node = below
    inside = node.inputs[0]
    found = _scaled(inside)
    return found or inside, ("logits are those before the soft cap",)


def _scaled(node: Node) -> Node | None:
    """Return what is below a cast, or a multiplication or division by a bare number."""
    if isinstance(node, Map) and node.op == "cast":
        return node.inputs[0]
    if isinstance(node, Map) and node.op == "divide" and isinstance(node.inputs[1], Constant):
        return node.inputs[0]
    if isinstance(node, Multiply):
        rest = [one for one in node.factors if not isinstance(one, Constant)]
        return rest[0] if len(rest) == 1 else None
    return None


def _name(model: Model, ids: list[torch.Tensor], position: int | None) -> str:
    said: list[str] = []
    for one in ids:
        different = one.unique().tolist()
        alone = f"class {different[0]}" if position is None else spelled(model, different[0])
        said.append(alone if len(different) == 1 else "the answer" if not said else "the wrong one")
    where = "" if position is None else f" @{position}"
    return f"logit of {' - '.join(said)}{where}"


def _by_layer(found: Attribution) -> Attribution:
    """Return the attribution with what a layer writes made one source."""
    names = [one.partition(".")[0] if one.startswith("L") and one.endswith(".out") else one for one in found.sources]
    kept = tuple(dict.fromkeys(names))
    values = np.stack([found.values[:, [name == one for name in names]].sum(1) for one in kept], 1)
    return Attribution(
        found.name, kept, values, found.total, found.answers, found.position, found.by, found.heads, found.notes
    )
