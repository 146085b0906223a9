"""`scrubjay replay`: check a record, from its own numbers, by its index table, or by drawing anew."""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch

from scrubjay.claims.stored import load_data
from scrubjay.cli.progress import steps_shown
from scrubjay.evidence.record import ResultRecord
from scrubjay.scrubbing.recording import MARGIN, TIERS, drawn, replay
from scrubjay.zoo.load import load


@click.command("replay")
@click.argument("record", type=click.Path(path_type=Path))
@click.option("--tier", "tiers", type=click.Choice(TIERS), multiple=True, help="What to check [T0 and T1].")
@click.option("--model", help="What loads the model, where the record's name does not [the record's].")
@click.option("--data", type=click.Path(path_type=Path), help="A folder of data, where no task draws them.")
@click.option(
    "--margin", type=click.FloatRange(min=0), default=MARGIN, show_default=True, help="How far T2 may differ."
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Processor threads.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON and nothing else.")
@click.pass_context
def command(
    context: click.Context, record: Path, tiers: tuple[str, ...], model: str | None, data: Path | None, margin: float,
    threads: int, as_json: bool,
) -> None:  # fmt: skip
    """Check the record in a folder, as `scrubjay scrub --record` keeps it.

    T0 recomputes every figure from the stored losses, T1 runs the model on the rows of the stored index table, T2 draws anew with
    other seeds. The exit code is 1 where anything does not agree.
    """
    torch.set_num_threads(threads)
    found, asked = ResultRecord.load(record), tiers or ("T0", "T1")
    with steps_shown(quiet=as_json) as steps:
        loaded = rows = None
        if set(asked) - {"T0"}:
            steps(f"loading {model or found.spec.model.name}", 0, 0)
            loaded = load(model or found.spec.model.name)
            rows = load_data(data) if data is not None else drawn(found.spec)
        made = []
        for tier in asked:
            steps(f"replaying {tier}", 0, 0)
            made.append(replay(found, tier, loaded, rows, margin))
    if as_json:
        written = {"record": found.digest, "replays": [one.to_dict() for one in made]}
        click.echo(json.dumps(written, indent=2, allow_nan=False, ensure_ascii=False))
    else:
        click.echo(f"{found!r}\n")
        for one in made:
            click.echo(str(one))
    if any(one.verdict != "agrees" for one in made):
        context.exit(1)
