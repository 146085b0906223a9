"""Causal scrubbing: resample everything a hypothesis says does not matter, and see whether the behaviour survives.

After Chan et al., "Causal scrubbing: a method for rigorously testing interpretability hypotheses" (2022). The test rejects
or does not reject; it never confirms.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from scrubjay.capture.model import Model
from scrubjay.circuit.address import expand
from scrubjay.circuit.places import read
from scrubjay.claims.data import Dataset
from scrubjay.claims.hypothesis import Hypothesis
from scrubjay.engine.progress import progress_after
from scrubjay.errors import HypothesisError, InputError
from scrubjay.interventions.inputs import lengths
from scrubjay.scrubbing.compute import compute
from scrubjay.scrubbing.result import Losses, ScrubResult, summarise
from scrubjay.scrubbing.sample import check_table, class_sizes, draw
from scrubjay.scrubbing.tree import treeify

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of each sample in nats: logits (sample, class), labels (sample,).

    With two classes this is the binary cross-entropy of the logit difference.
    """
    return F.cross_entropy(logits.to(torch.float64), labels.to(torch.int64), reduction="none")


def scrub(
    model: Model,
    hypothesis: Hypothesis,
    data: Dataset,
    samples: int = 2000,
    seeds: int | Sequence[int] = 3,
    loss: Loss | None = None,
    *,
    table: Mapping[str, np.ndarray] | None = None,
) -> ScrubResult:
    """Return the loss of a model when everything a hypothesis says does not matter is resampled, beside its loss otherwise.

    Args:
        model: the model; it is not changed.
        hypothesis: what each part is said to know.
        data: rows with labels and features; the reference data and all others are drawn from it, with replacement.
        samples: reference data for each seed.
        seeds: how many seeds (0, 1, ...), or which.
        loss: from results (sample, ...) and labels (sample, ...) to one loss for each sample; default: cross-entropy in nats.
        table: an index table of an earlier result (`result.table`), to replay it; then `samples` and `seeds` are not used.

    The floor resamples the whole input independently of the label. A claim about all positions puts each place of one row at
    the same place of another, as counted from the first real token: padding on the right may differ between rows (where the
    other row has ended, its padding is read), padding on the left may not. Raises `HypothesisError` for a hypothesis that does
    not fit the model or the data, `InputError` for data the model cannot read, and `CheckError` for a model that failed its check.
    """
    if not isinstance(data, Dataset):
        raise InputError(
            f"a scrub needs a data set with labels and features (sj.task, sj.Dataset), not {type(data).__name__}"
        )
    which = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if table is None and (samples < 2 or not which):
        raise InputError(f"samples={samples}, seeds={seeds!r}: a scrub needs at least two samples and one seed")
    model.require("exact", "rows_independent", inputs=data.inputs)
    begun = time.perf_counter()
    hypothesis = hypothesis.sealed()
    tree = treeify(model, hypothesis, _lengths(data))
    _check_positions(hypothesis, data)
    _check_aligned(model, hypothesis, data)
    sizes = class_sizes(tree.sources, hypothesis, data)
    drawn_by = which if table is None else None
    if table is None:
        drawn = [draw(tree.sources, hypothesis, data, samples, seed) for seed in which]
        table = {source.name: np.concatenate([one[source.name] for one in drawn]) for source in tree.sources}
    check_table(table, tree.sources, len(data))
    with torch.no_grad(), progress_after(2.0, f"scrubbing {hypothesis.name}") as progress:
        done = compute(model, [tree.scrubbed, tree.reference, tree.floor], data, table, progress)
    labels = torch.from_numpy(np.array(data.labels[table["reference"]]))
    measure = loss or cross_entropy
    scrubbed, original, floor = (_losses(measure, value, labels) for value in done.values)
    constant = _constant_loss(labels, done.values[1], measure) if loss is None else float("nan")
    return summarise(
        Losses(scrubbed, original, floor, constant), table, model=model, hypothesis=hypothesis, data=data, seeds=drawn_by, classes=sizes, outputs=done.values,
        evaluated_rows=done.rows, seconds=time.perf_counter() - begun,
    )  # fmt: skip


def _lengths(data: Dataset) -> list[int]:
    """Return the numbers of real tokens that rows have."""
    found = lengths({name: torch.from_numpy(np.array(array)) for name, array in data.inputs.items()})
    return [] if found is None else found.unique().tolist()


def _check_aligned(model: Model, hypothesis: Hypothesis, data: Dataset) -> None:
    """Refuse claims about all positions at once where rows begin at different places."""
    mask = data.inputs.get("attention_mask")
    if mask is None or mask.ndim != 2 or "attention_mask" not in model.circuit.inputs:
        return
    first = (mask != 0).argmax(1)
    if (first == first[0]).all():
        return
    row = int((first != first[0]).argmax())
    _, *below = hypothesis.claims()
    for claim in below:
        if claim.site.position is not None:
            continue
        (address,) = expand(claim.site, model.anatomy.shape)
        if {"query", "key"} & read(model.circuit, model.anatomy, address).axis_names:
            raise HypothesisError(
                f"claim {claim.name!r}: {claim.site} is about all positions, and rows of {data.name!r} begin at different places "
                f"(row 0 at {first[0]}, row {row} at {first[row]}), so one row's positions would stand for others of another row: "
                "pad on the right, claim positions one by one (@0, @-1), or select rows of one length"
            )


def _check_positions(hypothesis: Hypothesis, data: Dataset) -> None:
    """Refuse a claim at a position that some row of the data does not have."""
    named = {name: torch.from_numpy(np.array(array)) for name, array in data.inputs.items()}
    rows = lengths(named)
    if rows is None:
        return
    shortest, row = int(rows.min()), int(rows.argmin())
    for claim in hypothesis.claims():
        at = claim.site.position.at if claim.site.position is not None else 0
        if isinstance(at, int) and not -shortest <= at < shortest:
            raise HypothesisError(
                f"claim {claim.name!r}: row {row} of {data.name!r} has {shortest} real tokens, so it has no position @{at}; "
                "leave shorter rows out (data.select), or claim another position"
            )


def _losses(measure: Loss, value: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    if value.dim() != 2 and measure is cross_entropy:
        raise HypothesisError(
            f"the result has shape {tuple(value.shape)} and cross-entropy needs (sample, class): begin the hypothesis at one position "
            "(site='logits@END'), or give a loss"
        )
    if measure is cross_entropy and (
        labels.dim() != 1 or labels.is_floating_point() or int(labels.max()) >= value.shape[1] or int(labels.min()) < 0
    ):
        raise InputError(
            f"labels of shape {tuple(labels.shape)} and type {labels.dtype} are not classes 0..{value.shape[1] - 1}: give a loss= that reads them"
        )
    found = measure(value, labels)
    if found.shape != labels.shape[:1]:
        raise InputError(
            f"the loss gave shape {tuple(found.shape)} for {labels.shape[0]} samples: return one number for each sample"
        )
    losses = found.detach().to(torch.float64).numpy()
    if not np.isfinite(losses).all():
        raise InputError(f"the loss of sample {int(np.argmin(np.isfinite(losses)))} is not a finite number")
    return losses


def _constant_loss(labels: torch.Tensor, _: torch.Tensor, __: Loss) -> float:
    """Return the least cross-entropy of a predictor that ignores its input: the entropy of the labels."""
    share = torch.bincount(labels.to(torch.int64)).to(torch.float64) / len(labels)
    share = share[share > 0]
    return float(-(share * share.log()).sum())
