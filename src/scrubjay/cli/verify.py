"""`scrubjay verify`: check a bundle that somebody handed on: every file, every figure, and if wanted every run."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from scrubjay.capture.model import Model
from scrubjay.claims.stored import load_data
from scrubjay.cli.progress import steps_shown
from scrubjay.errors import EvidenceError
from scrubjay.evidence.bundle import unpack_bundle
from scrubjay.evidence.record import ResultRecord
from scrubjay.scrubbing.recording import TIERS, Replayed, replay
from scrubjay.zoo.load import load


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--tier", "tiers", type=click.Choice(TIERS), multiple=True, help="What to check of each record [T0].")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON and nothing else.")
@click.pass_context
def command(context: click.Context, bundle: Path, tiers: tuple[str, ...], as_json: bool) -> None:
    """Check a BUNDLE: the digest of every file, that each record is about the data in it, and every figure of each record.

    With --tier T1 or T2 the models are run too, from the bundle where it holds them, else loaded by name. Nothing in a bundle is
    run as code. The exit code is 1 where anything does not agree.
    """
    with tempfile.TemporaryDirectory() as scratch, steps_shown(quiet=as_json) as steps:
        place = Path(scratch) / "bundle"
        steps(f"unpacking {bundle}", 0, 0)
        made = unpack_bundle(bundle, place)
        found: list[tuple[str, Replayed]] = []
        for name in made.folders("records"):
            steps(f"checking {name}", 0, 0)
            found += [(name, one) for one in _checked(place, name, tiers or ("T0",))]
    if not found:
        raise EvidenceError(f"{bundle} holds no record")
    if as_json:
        rows = [{"record": name, **one.to_dict()} for name, one in found]
        click.echo(json.dumps({"bundle": made.digest, "replays": rows}, indent=2, allow_nan=False, ensure_ascii=False))
    else:
        click.echo(f"{bundle}: {len(made.files)} files are what was bundled, digest {made.digest}\n")
        for name, one in found:
            click.echo(f"record {name}, {one}")
    if any(one.verdict != "agrees" for _, one in found):
        context.exit(1)


def _checked(place: Path, name: str, tiers: tuple[str, ...]) -> list[Replayed]:
    record = ResultRecord.load(place / "records" / name)
    folder = place / "data" / str(record.spec.data.digest)[7:23]
    if not folder.is_dir():
        raise EvidenceError(f"the bundle lacks the data of record {name}, {record.spec.data.digest}")
    data = load_data(folder)
    if data.digest != record.spec.data.digest:
        raise EvidenceError(
            f"record {name} is about the data {record.spec.data.digest}, and the bundle holds {data.digest} in their place"
        )
    model = _model(place, record) if set(tiers) - {"T0"} else None
    return [replay(record, tier, model, data) for tier in tiers]


def _model(place: Path, record: ResultRecord) -> Model:
    folder = place / "models" / str(record.spec.model.weights)[7:23]
    return load(folder if folder.is_dir() else record.spec.model.name)
