"""`scrubjay train RECIPE`: train a model of the zoo from scratch, on data drawn from its task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import scrubjay
from scrubjay import zoo
from scrubjay.claims.data import Dataset
from scrubjay.tasks import task
from scrubjay.zoo.train import measure, train


@click.command("train")
@click.argument("recipe", type=click.Choice(list(zoo.RECIPES)))
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the model and its checkpoints [out/RECIPE].")
@click.option("--seed", type=int, help="Seed of weights, data and batches [the recipe's].")
@click.option("--steps", type=int, help="Batches to train on [the recipe's].")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Processor threads.")
@click.option("--resume", is_flag=True, help="Continue the run in the folder from its latest checkpoint.")
@click.option("--json", "as_json", is_flag=True, help="Print the model's card as JSON and nothing else.")
def command(
    recipe: str, out: Path | None, seed: int | None, steps: int | None, threads: int, resume: bool, as_json: bool
) -> None:
    """Train the model of RECIPE and write its weights and card to a folder.

    A run that was interrupted goes on with --resume, and ends with the same weights as one that was not.
    """
    chosen = zoo.RECIPES[recipe]
    changes = {name: value for name, value in (("seed", seed), ("steps", steps)) if value is not None}
    chosen = replace(chosen, settings=replace(chosen.settings, **changes))
    folder = out or Path("out") / recipe
    torch.set_num_threads(threads)
    data = task(chosen.task, chosen.rows, chosen.settings.seed)
    model = _trained(chosen, data, folder, resume, quiet=as_json)
    held_out = _unseen(task(chosen.task, chosen.held_out_rows, chosen.settings.seed + 1), data)
    figures = measure(model, held_out, chosen.settings.seed)
    card = zoo.write(model, _card(chosen, data, figures), folder)
    if as_json:
        click.echo(json.dumps(card, indent=2, allow_nan=False))
        return
    click.echo(f"{folder / chosen.name}.safetensors: {figures['accuracy']:.4%} of {figures['rows']} unseen rows right")
    for name in ("cross_entropy", "label_permuted_loss", "constant_predictor_loss"):
        click.echo(f"  {name.replace('_', ' ')}: {figures[name]:.5f} nats")


def _trained(recipe: zoo.Recipe, data: Dataset, folder: Path, resume: bool, quiet: bool) -> zoo.Transformer:
    """Train with a progress bar on the error stream."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.5f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar:
        row = bar.add_task(recipe.name, total=recipe.settings.steps, loss=float("nan"))

        def show(step: int, metrics: Mapping[str, float]) -> None:
            bar.update(row, completed=step, loss=metrics["loss"])

        return train(recipe.config, data, recipe.settings, folder, resume, show)


def _unseen(held_out: Dataset, seen: Dataset) -> Dataset:
    """Return the rows of `held_out` whose text is not in `seen`."""
    texts = set(seen.texts)
    return held_out.select([row for row, text in enumerate(held_out.texts) if text not in texts])


def _card(recipe: zoo.Recipe, data: Dataset, figures: Mapping[str, float | int]) -> dict[str, object]:
    """Return what is known about a trained model; `zoo.write` adds configuration and digest."""
    seed = recipe.settings.seed
    return {
        "name": recipe.name,
        "description": recipe.description,
        "licence": "Apache-2.0",
        "made_with": {"scrubjay": scrubjay.__version__, "torch": torch.__version__},
        "recipe": {"name": recipe.name, "settings": recipe.settings.to_dict()},
        "data": {"task": recipe.task, "rows": len(data), "seed": seed, "digest": data.digest},
        "held_out": {
            "task": recipe.task,
            "rows_drawn": recipe.held_out_rows,
            "seed": seed + 1,
            "left_out": "rows whose text is in the training data",
        },
        "figures": dict(figures),
    }
