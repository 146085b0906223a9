"""The options of every command that reads a model: the same names, handed on to `sj.load` as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

_OPTIONS = (
    click.option("--revision", help="Branch, tag or commit of a hub name."),
    click.option("--length", type=int, help="The one length to capture for [any, where the model's code allows it]."),
    click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model."),
    click.option("--dtype", help="Floating type to run in, such as float32 [as stored]."),
)


def reading(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command's function with the options that say how a model is read."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given, as `sj.load` takes them.

    >>> given({"revision": None, "length": 8, "trust_remote_code": False})
    {'length': 8}
    """
    return {name: value for name, value in options.items() if value is not None and value is not False}
