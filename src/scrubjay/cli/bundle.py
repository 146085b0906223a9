"""`scrubjay bundle`: put records, their data and, if wanted, their models into one file to hand on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import click

from scrubjay.capture.saved import save
from scrubjay.claims.data import Dataset
from scrubjay.claims.stored import load_data, save_data
from scrubjay.errors import EvidenceError
from scrubjay.evidence.bundle import write_bundle
from scrubjay.evidence.record import ResultRecord
from scrubjay.scrubbing.recording import drawn
from scrubjay.zoo.load import load


@click.command("bundle")
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("records", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--data", type=click.Path(path_type=Path), multiple=True, help="Folders of data that no task draws.")
@click.option("--with-models", is_flag=True, help="Put the models in, too: circuits and weights.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
def command(out: Path, records: tuple[Path, ...], data: tuple[Path, ...], with_models: bool, overwrite: bool) -> None:
    """Put the RECORDS (folders) and the data that they are about into the file OUT, a zip with a digest of each file in it.

    Equal contents give equal bytes. `scrubjay verify` checks it.
    """
    loaded = {str(folder): ResultRecord.load(folder) for folder in records}
    given = {found.digest: found for found in map(load_data, data)}
    with tempfile.TemporaryDirectory() as scratch:
        folders: dict[str, Path] = {}
        for folder, one in loaded.items():
            folders[f"records/{one.digest[7:23]}"] = Path(folder)
        for digest, rows in _data(loaded.values(), given).items():
            save_data(rows, place := Path(scratch) / "data" / digest[7:23])
            folders[f"data/{digest[7:23]}"] = place
        if with_models:
            for name, weights in sorted(
                {(one.spec.model.name, str(one.spec.model.weights)) for one in loaded.values()}
            ):
                model = load(name)
                if model.digest != weights:
                    raise EvidenceError(
                        f"{name} has the weights {model.digest}, and a record is about {weights}: bundle it without --with-models"
                    )
                save(model, place := Path(scratch) / "models" / weights[7:23])
                folders[f"models/{weights[7:23]}"] = place
        made = write_bundle(out, folders, overwrite=overwrite)
    size = sum(size for size, _ in made.files.values())
    click.echo(f"{out}: {len(loaded)} records, {len(made.files)} files, {size:,} bytes unpacked, digest {made.digest}")


def _data(records: Iterable[ResultRecord], given: dict[str, Dataset]) -> dict[str, Dataset]:
    """Return the data of records by digest: those given, else those that their tasks draw."""
    made: dict[str, Dataset] = {}
    for one in records:
        digest = str(one.spec.data.digest)
        rows = given.get(digest) or made.get(digest) or drawn(one.spec)
        if rows.digest != digest:
            raise EvidenceError(
                f"the task of {one.spec.data.name!r} draws {rows.digest}, and the record is about {digest}: give --data FOLDER"
            )
        made[digest] = rows
    return made
