"""Train a small model, the same way every time.

Everything random follows from the seed: the initial weights, and the rows of each batch, which are drawn from (seed,
step) alone. A run that is killed and continued therefore ends with the same bits as one that was not (on the same machine
with the same number of threads: sums are ordered by thread).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from scrubjay.claims.data import Dataset
from scrubjay.errors import CacheError, InputError, LoadError
from scrubjay.zoo.checkpoint import Checkpoint, append_metrics, cut_metrics, read_checkpoint, write_checkpoint
from scrubjay.zoo.transformer import Config, Transformer

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps for each weight."""

Progress = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Settings:
    """How to train: AdamW, a linear warm-up, then half a cosine down to zero.

    Attributes:
        seed: of the initial weights and of every batch.
        steps: batches in all.
        batch: rows in each, drawn with replacement.
        learning_rate: the largest, after `warmup` steps.
        weight_decay: on every weight.
        warmup: steps.
        clip: the largest norm of a gradient; a larger one is scaled down to it.
        report_every: steps between two reports of the loss.
        checkpoint_every: steps between two checkpoints.

    Raises:
        InputError: for a value that cannot be.
    """

    seed: int = 0
    steps: int = 1000
    batch: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 100
    clip: float = 1.0
    report_every: int = 50
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        least = {"seed": 0, "steps": 1, "batch": 1, "warmup": 0, "report_every": 1, "checkpoint_every": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if type(value) is not int or value < bound:
                raise InputError(f"training was asked for with {name} = {value!r}; give an integer of {bound} or more")
        for name, bound in {"learning_rate": 0.0, "clip": 0.0, "weight_decay": -1e-300}.items():
            value = getattr(self, name)
            if not bound < value < math.inf:
                raise InputError(f"training was asked for with {name} = {value!r}; give a positive finite number")

    def to_dict(self) -> dict[str, int | float]:
        """Return the fields, ready for JSON."""
        return asdict(self)


def learning_rate(settings: Settings, step: int) -> float:
    """Return the learning rate of step `step`, which counts from 1.

    >>> [learning_rate(Settings(steps=4, warmup=2, learning_rate=1.0), step) for step in (1, 2, 4)]
    [0.5, 1.0, 0.0]
    """
    if step <= settings.warmup:
        return settings.learning_rate * step / settings.warmup
    done = (step - settings.warmup) / (settings.steps - settings.warmup)
    return settings.learning_rate * (1 + math.cos(math.pi * done)) / 2


def batch_rows(settings: Settings, step: int, rows: int) -> np.ndarray:
    """Return the rows of step `step` among `rows`, shape (batch,): a function of seed and step, of no history."""
    return np.random.default_rng((settings.seed, step)).integers(rows, size=settings.batch)


def train(
    config: Config,
    data: Dataset,
    settings: Settings,
    folder: Path,
    resume: bool = False,
    progress: Progress | None = None,
) -> Transformer:
    """Return a transformer trained to give `data.labels` at its readout, in eval mode.

    The loss is the cross-entropy in nats, averaged over rows. Checkpoints and metrics go to `folder`.

    Args:
        config: of the model.
        data: inputs `input_ids` and `attention_mask`; labels are classes, (row,) or (row, query) as the readout is.
        settings: how to train.
        folder: made where it does not exist.
        resume: continue the run in `folder`, from its latest checkpoint (from the start where there is none).
        progress: called with the step and its metrics at each report.

    Raises:
        LoadError: if `folder` holds a run and `resume` is false, or holds a run of another kind.
        CacheError: if `folder` cannot be written to.
    """
    model = Transformer(config, settings.seed).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay
    )
    about = {"config": config.to_dict(), "settings": settings.to_dict(), "data": data.digest}
    done = _resume(folder, model, optimizer, about, resume)
    inputs, labels = _tensors(data)
    for step in range(done + 1, settings.steps + 1):
        rows = torch.from_numpy(batch_rows(settings, step, len(data)))
        rate = learning_rate(settings, step)
        loss = _step(model, optimizer, [each[rows] for each in inputs], labels[rows], (rate, settings.clip))
        last = step == settings.steps
        # The report first: what a killed run reported after its last checkpoint is cut when it is resumed.
        if last or step % settings.report_every == 0:
            metrics = {"step": step, "loss": loss, "learning_rate": rate}
            append_metrics(folder, metrics)
            if progress is not None:
                progress(step, metrics)
        if last or step % settings.checkpoint_every == 0:
            write_checkpoint(folder, Checkpoint(step, _weights(model), _moments(model, optimizer), about))
    return model.eval()


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy in nats, averaged over every label; logits have one axis more than labels."""
    return functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


def measure(model: nn.Module, data: Dataset, seed: int, batch: int = 512) -> dict[str, float | int]:
    """Return what a model gets right, at every label: one for each row, or one for each row and position.

    Keys: `rows`; `accuracy`; `wrong` (labels); `cross_entropy`, in nats; `label_permuted_loss`, the cross-entropy with
    the labels permuted (by `seed`), the baseline of causal scrubbing; and `constant_predictor_loss`, that of always
    giving the labels' frequencies, which a scrubbed model must beat to know anything.
    """
    inputs, labels = _tensors(data)
    labels = labels.flatten()
    with torch.no_grad():
        parts = [model(*(each[at : at + batch] for each in inputs)) for at in range(0, len(data), batch)]
    log_probabilities = torch.cat(parts).double().flatten(0, -2).log_softmax(-1)  # (label, class)
    permuted = labels[torch.from_numpy(np.random.default_rng(seed).permutation(len(labels)))]
    wrong = int((log_probabilities.argmax(-1) != labels).sum())
    frequencies = np.unique(data.labels, return_counts=True)[1] / len(labels)
    return {
        "rows": len(data),
        "accuracy": 1 - wrong / len(labels),
        "wrong": wrong,
        "cross_entropy": float(functional.nll_loss(log_probabilities, labels)),
        "label_permuted_loss": float(functional.nll_loss(log_probabilities, permuted)),
        "constant_predictor_loss": float(-(frequencies * np.log(frequencies)).sum()),
    }


def _step(
    model: Transformer, optimizer: torch.optim.AdamW, inputs: list[Tensor], labels: Tensor, how: tuple[float, float]
) -> float:
    """Take one step at (learning rate, largest gradient norm) and return the loss before it."""
    rate, clip = how
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss = loss_of(model(*inputs), labels)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.item()


def _tensors(data: Dataset) -> tuple[list[Tensor], Tensor]:
    """Return the model's two inputs and the labels; copies, since the data set's arrays are read-only."""
    inputs = [torch.tensor(data.inputs[name]) for name in ("input_ids", "attention_mask")]
    return inputs, torch.tensor(data.labels, dtype=torch.long)


def _resume(
    folder: Path, model: Transformer, optimizer: torch.optim.AdamW, about: Mapping[str, object], resume: bool
) -> int:
    """Set model and optimiser to the latest checkpoint in `folder`; return the steps done, 0 without one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(f"training into {folder} was asked for, but: {error}; choose another folder") from error
    found = read_checkpoint(folder)
    if found is not None and not resume:
        raise LoadError(
            f"training into {folder} was asked for, but it holds a run at step {found.step}; resume it, or give another "
            "folder"
        )
    if found is None:
        cut_metrics(folder, 0)
        return 0
    for key, value in about.items():
        if found.about.get(key) != value:
            raise LoadError(
                f"the run in {folder} was to be resumed, but its {key} differs: it has {found.about.get(key)}, and "
                f"{value} was asked for; ask for the same, or give another folder"
            )
    model.load_state_dict(dict(found.weights))
    for name, weight in model.named_parameters():
        optimizer.state[weight] = {key: found.optimizer[f"{name}:{key}"] for key in MOMENTS}
    cut_metrics(folder, found.step)
    return found.step


def _weights(model: Transformer) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in model.named_parameters()}


def _moments(model: Transformer, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    return {
        f"{name}:{key}": optimizer.state[weight][key] for name, weight in model.named_parameters() for key in MOMENTS
    }
