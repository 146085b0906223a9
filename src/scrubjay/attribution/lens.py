"""The logit lens: what the final norm and the unembedding make of the stream before it is done.

nostalgebraist, interpreting GPT: the logit lens (2020). Each place of the stream is read as if it were the last one: normed by
its own statistics, unembedded with the bias, capped where the model caps. The last place gives the model's own logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from scrubjay.attribution.answers import logits_node, spelled, token_ids, vocabulary_of
from scrubjay.capture.model import Model
from scrubjay.circuit.graph import substitute, topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Input
from scrubjay.engine.array import Array
from scrubjay.engine.compute import compute
from scrubjay.engine.evaluate import input_sizes
from scrubjay.engine.progress import progress_after
from scrubjay.errors import InputError
from scrubjay.interventions.inputs import padding, prepare

MOST_LOGITS = 2**24
"""How many logits are held at once: 64 MiB in 32 bits."""

SITES = ("resid_pre", "resid_mid", "resid_post", "attn.out", "mlp.out")


@dataclass(frozen=True, eq=False)
class Lens:
    """What the stream says at each place and position.

    Attributes:
        model: the model. places: addresses of the stream, in order.
        tokens: the k likeliest tokens, shape (place, row, position, k), likeliest first; probabilities: theirs.
        real: which positions are real tokens, shape (row, position); the others hold what padding gives.
        read: token ids of the input, shape (row, position), if it reads any.
        answers: the answers asked for, shape (row, answer), or none.
        logprob: of the answers, shape (place, row, position, answer), in nats.
        rank: of the answers among all tokens, 0 for the likeliest, same shape.
        most: how many logits were held at once.
        classes: whether what is predicted are classes of a row, and no tokens.
    """

    model: Model
    places: tuple[str, ...]
    tokens: np.ndarray
    probabilities: np.ndarray
    real: np.ndarray
    read: np.ndarray | None
    answers: np.ndarray | None
    logprob: np.ndarray | None
    rank: np.ndarray | None
    most: int
    classes: bool = False

    def spelled(self, answer: int) -> str:
        """Return what is predicted as text: a token in quotes, or a number."""
        return str(answer) if self.classes else spelled(self.model, answer)

    def words(self, row: int = 0) -> list[list[str]]:
        """Return the likeliest token of a row's real positions as text, one list for each place."""
        self._check(row)
        here = self.tokens[:, row, self.real[row], 0]
        return [[self.spelled(int(token)) for token in line] for line in here]

    def first_rank(self, row: int = 0, position: int = -1, answer: int = 0) -> str | None:
        """Return the first place from which on the answer stays the likeliest token, or `None` where it is not at the end."""
        self._check(row)
        if self.rank is None:
            raise InputError("no answers were asked for: logit_lens(..., answers=...)")
        columns = np.flatnonzero(self.real[row])
        if not -len(columns) <= position < len(columns):
            raise InputError(f"row {row} has {len(columns)} real tokens, so it has no position {position}")
        ranks = self.rank[:, row, columns[position], answer]
        wrong = np.flatnonzero(ranks != 0)
        first = int(wrong[-1]) + 1 if len(wrong) else 0
        return self.places[first] if first < len(self.places) else None

    def _check(self, row: int) -> None:
        if not 0 <= row < len(self.real):
            raise InputError(f"row {row} was asked for; there are rows 0..{len(self.real) - 1}")

    def to_dict(self) -> dict[str, object]:
        """Return plain numbers and text, for JSON; positions of padding hold what padding gives, `real` says which."""
        made: dict[str, object] = {
            "places": list(self.places),
            "tokens": self.tokens.tolist(),
            "probabilities": self.probabilities.tolist(),
            "real": self.real.tolist(),
        }
        if self.answers is not None and self.logprob is not None and self.rank is not None:
            made |= {"answers": self.answers.tolist(), "logprob": self.logprob.tolist(), "rank": self.rank.tolist()}
        return made

    def __str__(self) -> str:
        """Return the likeliest token at the last real position of the first row, place by place."""
        column = int(np.flatnonzero(self.real[0])[-1])
        width = max(map(len, self.places))
        lines = [f"row 0, position {int(self.real[0].sum()) - 1}"]
        for number, place in enumerate(self.places):
            found = zip(self.tokens[number, 0, column][:5], self.probabilities[number, 0, column], strict=False)
            lines.append(f"{place:<{width}} " + "  ".join(f"{self.spelled(int(t))} {p:.3f}" for t, p in found))
        return "\n".join(lines)

    def __repr__(self) -> str:
        """Say what was read in one line."""
        rows, columns = self.real.shape
        more = "" if self.answers is None else f", {self.answers.shape[1]} answers a row"
        return f"<Lens of {self.model.name}: {len(self.places)} places, {rows} x {columns} positions, {self.tokens.shape[-1]} tokens each{more}>"


@torch.no_grad()
def logit_lens(
    model: Model,
    inputs: Any,
    layers: Sequence[int] | int | None = None,
    top_k: int = 5,
    answers: Any = None,
    *,
    sites: Sequence[str] | str = "resid_post",
) -> Lens:
    """Return the likeliest tokens of the stream after each layer, and how likely the answers are there.

    Args:
        model: a model whose result is logits.
        inputs: anything `sj.run` reads.
        layers: which layer or layers, negative from the last; all when not given.
        top_k: how many tokens at each place and position.
        answers: a token id or text for all rows, or one for each row; or a tensor (row, answer) of ids.
        sites: of each layer: `resid_pre`, `resid_mid`, `resid_post`, or `attn.out`, `mlp.out` for what was written alone.

    Logits are made for a part of the positions at a time, at most about 16 million of them, whatever the size of the input.

    Raises `InputError` for a model without logits or layers, a layer or site it lacks, and answers that do not fit.
    """
    tensors = prepare(model, inputs)
    model.require("exact", inputs=tensors)
    logits = logits_node(model, "a logit lens")
    rows, (vocab, size) = len(next(iter(tensors.values()))), vocabulary_of(logits)
    if not 1 <= top_k <= size:
        raise InputError(f"top_k is {top_k}; {model.name} has {size} tokens, so give 1..{size}")
    wanted = _answers(model, answers, rows, size)
    places = _places(
        model, [layers] if isinstance(layers, int) else layers, [sites] if isinstance(sites, str) else sites
    )
    last, stream = _last(model)
    nodes = {place: model.circuit.table[place] for place in places}
    sizes = input_sizes(list(model.circuit.inputs.values()), tensors)
    done = compute(
        list(dict.fromkeys(nodes.values())), tensors, model.stores, dtype=model.dtype, device=model.device, sizes=sizes, across=False,
    )  # fmt: skip
    head = _Head(model, last, stream, logits, vocab)
    columns = next(iter(done.values.values())).dense(("batch", "query", "model")).shape[1]
    reader = _Reader(rows, columns if "query" in logits.axis_names else 1, top_k, wanted, len(places))
    most = 0
    with progress_after(2.0, f"logit lens of {model.name}") as bar:
        for number, node in enumerate(nodes.values()):
            bar(number, len(nodes))
            for part, found in head.chunks(done[node], tensors, size):
                most = max(most, found.numel())
                reader.take(number, part, found)
    real = padding(tensors)
    read = next((tensors[name] for name in ("decoder_input_ids", "input_ids") if name in tensors), None)
    shown = real.cpu().numpy() if real is not None and "query" in logits.axis_names else np.ones((rows, 1), dtype=bool)
    return Lens(
        model, places, reader.tokens, reader.probabilities, shown, None if read is None else read.cpu().numpy(),
        None if wanted is None else wanted.numpy(), reader.logprob, reader.rank, most, "query" not in logits.axis_names,
    )  # fmt: skip


@torch.no_grad()
def lens_logits(model: Model, inputs: Any, site: str) -> Array:
    """Return the logits that a place of the stream gives as if it were the last, axes (batch, query, vocab).

    All at once: for a few positions. Raises as `logit_lens` does.

    >>> import scrubjay as sj
    >>> lens_logits(sj.load("zoo/brackets"), ["(())"], "L2.resid_post").names
    ('batch', 'vocab')
    """
    tensors = prepare(model, inputs)
    model.require("exact", inputs=tensors)
    logits = logits_node(model, "a logit lens")
    (address,) = model.addresses(site)
    _, stream = _last(model)
    node = model.node(address)
    if node.axes != stream.axes:
        raise InputError(f"{site} has the axes {', '.join(map(str, node.axes))}: a lens reads a value of the stream")
    read = substitute([logits], {stream: node})[logits]
    sizes = input_sizes(list(model.circuit.inputs.values()), tensors)
    done = compute([read], tensors, model.stores, dtype=model.dtype, device=model.device, sizes=sizes, across=False)
    order = [name for name in ("batch", "query") if name in logits.axis_names]
    order.append(vocabulary_of(logits)[0])
    return Array(done[read].dense(order), tuple(order))


def _last(model: Model) -> tuple[str, Node]:
    """Return the last place of the stream; raise `InputError` where there is none that the result reads."""
    name = f"L{model.layers - 1}.resid_post"
    node = model.circuit.table.get(name)
    if node is None or node not in model.circuit.nodes:
        raise InputError(f"a logit lens reads the stream, and no layers were recognised in {model.name}")
    return name, node


def _places(model: Model, layers: Sequence[int] | None, sites: Sequence[str]) -> tuple[str, ...]:
    """Return the addresses that are read, layer by layer."""
    for one in layers or ():
        if isinstance(one, bool) or not isinstance(one, int | np.integer):
            raise InputError(f"layer {one!r} was asked for; give numbers, as in layers=[0, -1]")
        if not -model.layers <= one < model.layers:
            raise InputError(f"layer {one} was asked for; {model.name} has layers 0..{model.layers - 1}")
    if wrong := [site for site in sites if site not in SITES]:
        raise InputError(f"{wrong[0]!r} is no place that a lens reads; there are {', '.join(SITES)}")
    numbers = range(model.layers) if layers is None else [one % model.layers for one in layers]
    found = [f"L{layer}.{site}" for layer in numbers for site in SITES if site in sites]
    found = [one for one in found if one in model.circuit.table]
    if not found:
        raise InputError(f"{model.name} has no {' or '.join(sites)} in the layers asked for")
    return tuple(found)


def _answers(model: Model, given: Any, rows: int, size: int) -> torch.Tensor | None:
    """Return token ids, shape (row, answer)."""
    if given is None:
        return None
    if isinstance(given, torch.Tensor | np.ndarray) and given.ndim == 2:
        if len(given) != rows:
            raise InputError(f"answers has {len(given)} rows, and the input {rows}: give one row of answers for each")
        return torch.stack([token_ids(model, given[:, one], rows, size) for one in range(given.shape[1])], 1)
    return token_ids(model, given, rows, size)[:, None]


Part = tuple[slice, slice]
"""Rows and positions."""


@dataclass(frozen=True, eq=False)
class _Head:
    """What comes after the last place of the stream."""

    model: Model
    last: str
    stream: Node
    logits: Node
    vocab: str

    def chunks(
        self, value: Array, inputs: Mapping[str, torch.Tensor], size: int
    ) -> Iterator[tuple[Part, torch.Tensor]]:
        """Give the logits of parts of a value of the stream, (row, position, token), few enough at a time."""
        stream = value.dense(("batch", "query", "model"))
        rows, columns = stream.shape[:2]
        apart = self._apart()
        wide = max(1, min(columns, MOST_LOGITS // size)) if apart else columns
        many = max(1, min(rows, MOST_LOGITS // (size * wide)))
        for row in range(0, rows, many):
            for column in range(0, columns, wide):
                part = (slice(row, row + many), slice(column, column + wide))
                known = {self.stream: Array(stream[part], ("batch", "query", "model"))}
                given = {name: tensor[part[0]] for name, tensor in inputs.items()}
                sizes = input_sizes(list(self.model.circuit.inputs.values()), given)
                done = compute(
                    [self.logits],
                    given,
                    self.model.stores,
                    dtype=self.model.dtype,
                    device=self.model.device,
                    known=known,
                    sizes=sizes,
                    across=False,
                )
                order = ("batch", "query", self.vocab) if "query" in self.logits.axis_names else ("batch", self.vocab)
                found = done[self.logits].dense(order)
                yield part, found if found.dim() == 3 else found[:, None]

    def _apart(self) -> bool:
        """Tell whether each position is unembedded by itself."""
        order = topological([self.logits], stop=frozenset({self.stream}))
        return "query" in self.logits.axis_names and not any(
            isinstance(node, Input) or ("query" in node.acts_along and node is not self.stream) for node in order
        )


@dataclass(eq=False)
class _Reader:
    """What is kept of the logits."""

    rows: int
    columns: int
    top_k: int
    answers: torch.Tensor | None
    places: int
    tokens: np.ndarray = field(init=False)
    probabilities: np.ndarray = field(init=False)
    logprob: np.ndarray | None = field(init=False, default=None)
    rank: np.ndarray | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Make room."""
        shape = (self.places, self.rows, self.columns)
        self.tokens = np.zeros((*shape, self.top_k), dtype=np.int64)
        self.probabilities = np.zeros((*shape, self.top_k))
        if self.answers is not None:
            self.logprob = np.zeros((*shape, self.answers.shape[1]))
            self.rank = np.zeros((*shape, self.answers.shape[1]), dtype=np.int64)

    def take(self, place: int, part: Part, logits: torch.Tensor) -> None:
        """Keep what is asked for of the logits (row, position, token) of a part."""
        where = (place, part[0], part[1] if logits.shape[1] > 1 or self.columns > 1 else slice(0, 1))
        found = logits.float() if logits.dtype in {torch.float16, torch.bfloat16} else logits
        whole = torch.logsumexp(found, -1, keepdim=True)
        top = torch.topk(found, self.top_k, -1)
        self.tokens[where] = top.indices.cpu().numpy()
        self.probabilities[where] = (top.values - whole).exp().cpu().numpy()
        if self.answers is None or self.logprob is None or self.rank is None:
            return
        mine = self.answers[part[0]].to(found.device)
        for number in range(mine.shape[1]):
            index = mine[:, number, None, None].expand(*found.shape[:2], 1)
            own = found.gather(-1, index)
            self.logprob[(*where, number)] = (own - whole)[..., 0].cpu().numpy()
            self.rank[(*where, number)] = (found > own).sum(-1).cpu().numpy()
