"""`scrubjay load`: load a model and list its sites."""

from __future__ import annotations

import json
import shutil
from typing import Any

import click

from scrubjay.capture.model import Model
from scrubjay.cli.progress import steps_shown
from scrubjay.cli.reading import given, reading
from scrubjay.zoo.load import load


@click.command("load")
@click.argument("source")
@reading
@click.option("--json", "as_json", is_flag=True, help="Print as JSON and nothing else.")
def command(source: str, as_json: bool, **options: Any) -> None:
    """Load a model and list its named sites.

    SOURCE is zoo/NAME, a local folder, or a hub name. What was not recognised is told, never guessed.
    """
    with steps_shown(quiet=as_json) as steps:
        steps(f"loading {source}", 0, 0)
        model = load(source, **given(options))
    found = described(model)
    if as_json:
        click.echo(json.dumps(found, indent=2, allow_nan=False, ensure_ascii=False))
        return
    click.echo(
        f"{model!r}\n  reads {', '.join(model.circuit.inputs)}; gives {model.anatomy.result}; weights {model.digest}"
    )
    click.echo(f"\n{model.sites.text(shutil.get_terminal_size((120, 40)).columns)}\n")
    click.echo(f"check: {model.verdict}")
    for note in model.anatomy.notes:
        click.echo(f"note: {note}")


def described(model: Model) -> dict[str, object]:
    """Return what is known about a model as plain values, ready for JSON."""
    return {
        "name": model.name,
        "layers": model.layers,
        "heads": list(model.heads),
        "nodes": len(model.circuit.nodes),
        "inputs": list(model.circuit.inputs),
        "result": model.anatomy.result,
        "context": model.context,
        "weights": model.digest,
        "sites": model.sites.to_rows(),
        "notes": list(model.anatomy.notes),
        "check": None if model.verdict is None else model.verdict.to_dict(),
    }
