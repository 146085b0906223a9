"""`scrubjay tour`: look through a model and write a report."""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch

from scrubjay.cli.progress import steps_shown
from scrubjay.reporting import tour


@click.command("tour")
@click.option("--model", default="zoo/brackets", show_default=True, help="zoo/NAME, a local folder, or a hub name.")
@click.option(
    "--out", type=click.Path(path_type=Path), default="report.html", show_default=True, help="The page to write."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all data that are drawn."
)
@click.option(
    "--samples", type=click.IntRange(min=2), default=1500, show_default=True, help="Samples for each seed of a scrub."
)
@click.option(
    "--rows", type=click.IntRange(min=50), default=2000, show_default=True, help="Rows that a scrub draws from."
)
@click.option(
    "--text", "texts", multiple=True, help="A text to look at (may be repeated); token ids without a tokenizer."
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Processor threads.")
@click.option("--json", "as_json", is_flag=True, help="Print findings and numbers as JSON and nothing else.")
def command(
    model: str, out: Path, seed: int, samples: int, rows: int, texts: tuple[str, ...], threads: int, as_json: bool
) -> None:
    """Look through a model and write a report to open.

    Checks the capture, shows attention, takes the answer apart, patches every site, and scrubs hypotheses where there are some
    for the model, right ones and wrong ones.
    """
    torch.set_num_threads(threads)
    with steps_shown(quiet=as_json) as steps:
        found = tour(model, out, seed=seed, samples=samples, rows=rows, texts=texts, steps=steps)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2, allow_nan=False, ensure_ascii=False))
        return
    for number, finding in enumerate(found.main, 1):
        click.echo(click.wrap_text(f"{number}. {finding}", width=100, subsequent_indent="   ") + "\n")
    click.echo(f"The report is at {found.path.resolve()} ({found.seconds:.0f} s): open it in a browser.")
