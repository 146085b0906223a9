"""`scrubjay scrub`: put a hypothesis, read from a file, to the test."""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch

from scrubjay.claims.data import Dataset
from scrubjay.claims.hypothesis import Hypothesis
from scrubjay.cli.progress import steps_shown
from scrubjay.errors import HypothesisError
from scrubjay.reporting import report
from scrubjay.reporting.brackets import tour_data
from scrubjay.reporting.file import check_writable
from scrubjay.scrubbing import scrub
from scrubjay.tasks import TASKS, task
from scrubjay.zoo.load import load


@click.command("scrub")
@click.argument("model")
@click.argument("hypothesis", type=click.Path(path_type=Path))
@click.option(
    "--task", "name", type=click.Choice(list(TASKS)), required=True, help="Where data and features come from."
)
@click.option("--rows", type=click.IntRange(min=2), default=2000, show_default=True, help="Rows to draw from.")
@click.option("--samples", type=click.IntRange(min=2), default=2000, show_default=True, help="Samples for each seed.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="How many seeds.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the rows.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write a page with the result.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Processor threads.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
def command(
    model: str,
    hypothesis: Path,
    name: str,
    rows: int,
    samples: int,
    seeds: int,
    seed: int,
    out: Path | None,
    threads: int,
    as_json: bool,
) -> None:
    """Put a hypothesis to the test of causal scrubbing.

    HYPOTHESIS is a JSON file as `json.dumps(hypothesis.to_dict())` gives it; its features are found by name in the task.
    """
    torch.set_num_threads(threads)
    if out is not None:
        check_writable(out)
    stated = read_hypothesis(hypothesis)
    with steps_shown(quiet=as_json) as steps:
        steps(f"loading {model}", 0, 0)
        loaded, data = load(model), data_of(name, rows, seed)
        steps(f"scrubbing {stated.name}", 0, 0)
        found = scrub(loaded, stated, data, samples, seeds)
    if out is not None:
        report(out, found, title=f"A hypothesis about {loaded.name}")
    if as_json:
        click.echo(
            json.dumps(
                {**found.to_dict(), "fingerprint": found.fingerprint}, indent=2, allow_nan=False, ensure_ascii=False
            )
        )
        return
    click.echo(f"{stated}\n\n{found.verdict}\n{found!r}")
    if out is not None:
        click.echo(f"The report is at {out.resolve()}.")


def data_of(name: str, rows: int, seed: int) -> Dataset:
    """Return the rows of a task, with all the features that the tour has."""
    return tour_data(rows, seed) if name == "brackets" else task(name, rows, seed)


def read_hypothesis(path: Path) -> Hypothesis:
    """Return the hypothesis in a JSON file; raise `HypothesisError` if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HypothesisError(f"the hypothesis {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise HypothesisError(
            f"the hypothesis {path} is not JSON: {error}; write it with json.dumps(hypothesis.to_dict())"
        ) from error
    if not isinstance(found, dict):
        raise HypothesisError(
            f"the hypothesis {path} holds a {type(found).__name__}: write it with json.dumps(hypothesis.to_dict())"
        )
    return Hypothesis.from_dict(found)
