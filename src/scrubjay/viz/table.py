"""A plain table: text to the left, numbers to the right with aligned digits."""

from __future__ import annotations

from collections.abc import Sequence

from scrubjay.errors import InputError
from scrubjay.viz.escape import Markup, tag
from scrubjay.viz.frame import scrolling
from scrubjay.viz.number import MISSING, written

_CLASSES = {"l": None, "r": "sj-number", "c": "sj-centre"}

Cell = str | float | None
"""What a cell may hold: text, `Markup`, a number, or `None` for "no value"."""


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    align: str | None = None,
    *,
    caption: str = "",
    places: int = 2,
) -> Markup:
    """Return a table. The first cell of a row is its heading.

    `align` has one letter for each column: `l`, `r` or `c`; without it, columns of numbers go right and others left.
    Whole numbers (`int`) are written as they are, floats with `places` decimals, `None` as a dash.

    Raises `InputError` where a row has another number of cells than there are headers.

    >>> "0.50" in table(["head", "score"], [["L0.H1", 0.5]])
    True
    """
    names, body = list(headers), [list(row) for row in rows]
    if not names:
        raise InputError("table was given no headers; name at least one column.")
    for index, row in enumerate(body):
        if len(row) != len(names):
            raise InputError(
                f"Row {index} has {len(row)} cells, but there are {len(names)} headers; give exactly one for each."
            )
    letters = _alignment(body, len(names)) if align is None else align
    if len(letters) != len(names) or set(letters) - set(_CLASSES):
        raise InputError(f"align must have one of l, r, c for each of {len(names)} columns; {letters!r} was given.")
    classes = [_CLASSES[letter] for letter in letters]
    head = tag("tr", *(tag("th", name, scope="col", class_=kind) for name, kind in zip(names, classes, strict=True)))
    lines = [
        tag(
            "tr",
            *(
                _cell(cell, kind, column == 0, places)
                for column, (cell, kind) in enumerate(zip(row, classes, strict=True))
            ),
        )
        for row in body
    ]
    title = tag("caption", caption) if caption else Markup()
    whole = tag("table", title, tag("thead", head), tag("tbody", *lines), class_="sj-table")
    return scrolling(whole, caption or "table")


def _alignment(body: list[list[Cell]], count: int) -> str:
    """Return `r` for each column that holds numbers alone, and `l` for the others."""
    return "".join(
        "r" if body and all(row[column] is None or isinstance(row[column], int | float) for row in body) else "l"
        for column in range(count)
    )


def _cell(cell: Cell, kind: str | None, is_heading: bool, places: int) -> Markup:
    if cell is None:
        shown = MISSING
    elif isinstance(cell, str):
        shown = cell
    elif isinstance(cell, int):
        shown = written(cell, 0)
    else:
        shown = written(float(cell), places)
    return tag("th", shown, scope="row", class_=kind) if is_heading else tag("td", shown, class_=kind)
