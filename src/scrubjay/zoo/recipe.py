"""A recipe: all that is needed to train one model of the zoo, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from scrubjay.errors import InputError
from scrubjay.zoo.train import Settings
from scrubjay.zoo.transformer import Config


@dataclass(frozen=True)
class Recipe:
    """What to train, on how much of which task, and how.

    Attributes:
        name: of the recipe and of the model it makes.
        description: what the model does.
        task: the name of the task that gives the data; the caller draws it.
        rows: of training data.
        held_out_rows: drawn for the measurement, before those met in training are left out.
        config: of the model.
        settings: of the training.

    Raises:
        InputError: if a number of rows is below 1.
    """

    name: str
    description: str
    task: str
    rows: int
    held_out_rows: int
    config: Config
    settings: Settings

    def __post_init__(self) -> None:
        if min(self.rows, self.held_out_rows) < 1:
            raise InputError(
                f"recipe {self.name!r} was given {self.rows} rows to train on and {self.held_out_rows} to measure on; "
                "give at least 1 of each"
            )
