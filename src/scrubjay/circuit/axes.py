"""Named axes: the one glossary of axis words, and the size of an axis.

A node has a *set* of axes. The order of dimensions in memory, size-1, broadcast and merged dimensions are layout: known
to the lifter and to the kernels, never to a node. A size is a number, or a text for a size known only when the circuit
is run: a symbol (`"batch"`, `"query"`) or an expression in symbols (`"query + 1"`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from scrubjay.errors import CircuitError

GLOSSARY = {
    "row": "rows of a data set",
    "sample": "draws of a resampling experiment",
    "variant": "variants of one run, each with a change of its own",
    "batch": "sequences run together",
    "kv": "key-value heads (groups, where several query heads share one)",
    "group": "query heads within one key-value head",
    "head": "attention heads",
    "query": "positions, as those that read",
    "key": "positions, as those that are read",
    "qkv": "queries, keys and values, where one weight makes all three",
    "model": "the residual stream",
    "d_head": "one head's own space",
    "hidden": "neurons of an MLP",
    "expert": "experts of a mixture",
    "chosen": "choices of a router, the first choice first",
    "source": "positions of an encoder's input",
    "vocab": "tokens, or classes of an answer",
    "answer": "tokens that are compared at one place",
}


RANDOM = "random."
"""How the name of a random axis begins: the outcomes of a source, whose name follows."""


def is_random(name: str) -> bool:
    """Tell whether an axis counts the outcomes of a random source.

    >>> is_random("random.datum"), is_random("row")
    (True, False)
    """
    return name.startswith(RANDOM)


class _Ranks(dict[str, tuple[int, str]]):
    """The place of each name in the order of axes; a name that the glossary lacks comes after it, by the name, random ones last."""

    def __missing__(self, name: str) -> tuple[int, str]:
        return (len(self) + is_random(name), name)


_RANK = _Ranks({name: (rank, name) for rank, name in enumerate(GLOSSARY)})


class Axis(NamedTuple):
    """An axis: its name, and its size (a number, or a text for one that is known only when run)."""

    name: str
    size: int | str

    def __str__(self) -> str:
        """Give `name=size`, or the bare name where the size is that symbol.

        >>> print(Axis("model", 768), Axis("query", "query"))
        model=768 query
        """
        return self.name if self.size == self.name else f"{self.name}={self.size}"


def in_order(axes: Iterable[Axis]) -> tuple[Axis, ...]:
    """Return the axes once each, in the glossary's order and then by name.

    Raises `CircuitError` when one name comes with two sizes, and for a size that is neither an integer from 0 on nor a text.

    >>> [axis.name for axis in in_order([Axis("model", 4), Axis("batch", "batch"), Axis("model", 4)])]
    ['batch', 'model']
    """
    found: dict[str, Axis] = {}
    for axis in axes:
        known = found.setdefault(axis.name, axis)
        if known is not axis and known.size != axis.size:
            raise CircuitError(
                f"axis {axis.name!r} would have two sizes at once, {known.size} and {axis.size}: "
                "rename one of them with Relabel first"
            )
    for axis in found.values():
        size = axis.size
        if not (size >= 0 if type(size) is int else type(size) is str):
            raise CircuitError(f"axis {axis.name!r} has the size {size!r}; a size is an integer from 0 on, or a text")
    return tuple([found[name] for name in sorted(found, key=_RANK.__getitem__)])


@lru_cache(maxsize=4096)
def joined(parts: tuple[tuple[Axis, ...], ...]) -> tuple[Axis, ...]:
    """Return the axes of several values together, as `in_order`: kept, for circuits have few such unions and many nodes."""
    return in_order([axis for part in parts for axis in part])


@lru_cache(maxsize=4096)
def without(axes: tuple[Axis, ...], gone: tuple[str, ...]) -> tuple[Axis, ...]:
    """Return the axes but for those of some names; kept too."""
    return tuple([axis for axis in axes if axis.name not in gone])


def names(axes: Iterable[Axis]) -> frozenset[str]:
    """Return the names alone, as a set."""
    return frozenset(axis.name for axis in axes)


_FIRST = ("row", "sample", "batch")
_HEADS = ("kv", "group", "head")


def as_shown(names: Iterable[str]) -> tuple[str, ...]:
    """Return axis names in the order that values are shown in, the one TransformerLens users expect.

    (batch, head, query, key) where keys take part, else (batch, query, head, d_head) and (batch, query, model).

    >>> as_shown({"d_head", "head", "query", "batch"}), as_shown({"key", "query", "head", "batch"})
    (('batch', 'query', 'head', 'd_head'), ('batch', 'head', 'query', 'key'))
    """
    found = set(names)
    heads = [name for name in _HEADS if name in found]
    places = [name for name in ("position", "query", "key") if name in found]
    middle = [*heads, *places] if "key" in found else [*places, *heads]
    first = [name for name in _FIRST if name in found]
    rest = [name for name in GLOSSARY if name in found and name not in (*first, *middle)]
    return (*first, *middle, *rest, *sorted(found - {*first, *middle, *rest}))
