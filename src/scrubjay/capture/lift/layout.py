"""Axis variables: the layout of captured tensors, found by unification.

A captured program knows dimensions by position. While lifting, each dimension is a product of *axis variables*, outermost
first (a size-1 dimension is the empty product). Where two dimensions are walked together their variables are unified; where
a view cuts a dimension its variable is split. View, transpose, expand and contiguous change only this layout. Two variables
that occur in one value must stay apart, and `batch`, `query`, `key` are fixed names; what cannot be unified is renamed by a
`Relabel` node instead, so a poor choice of name can never change a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod

from scrubjay.errors import CaptureError


class CannotLift(CaptureError):
    """An operation that the tables do not understand in this form: it is kept whole, as `Opaque`."""


Size = int | str


@dataclass(eq=False)
class Var:
    """One axis variable: its size, its fixed name if it has one, and where it first occurred (which names it later).

    A `place` is an axis of patches of an image; those that a view makes one dimension become one axis, the model's positions.
    """

    size: Size
    origin: str
    fixed: str | None = None
    solid: bool = False
    place: bool = False
    same_as: Var | None = None
    parts: tuple[Var, ...] | None = None
    apart: set[Var] = field(default_factory=set)
    joined: tuple[tuple[int, Var], ...] = ()
    """Of an axis that parts were joined to: where each part begins, and its own axis there."""


Dim = tuple[Var, ...]


def root(var: Var) -> Var:
    """Return the variable that stands for `var` after unifications."""
    while var.same_as is not None:
        var = var.same_as
    return var


def atoms(dims: Iterable[Var]) -> Dim:
    """Return the unsplit variables behind a product, outermost first."""
    found: list[Var] = []
    stack = list(reversed(list(dims)))
    while stack:
        var = root(stack.pop())
        if var.parts is None:
            found.append(var)
        else:
            stack.extend(reversed(var.parts))
    return tuple(found)


def keep_apart(dims: Iterable[Var]) -> None:
    """Note that these variables occur in one value and may never become one."""
    here = atoms(dims)
    for var in here:
        var.apart.update(other for other in here if other is not var)


def split(var: Var, sizes: Sequence[Size]) -> tuple[Var, ...]:
    """Cut an unsplit variable into parts of the given sizes, outermost first."""
    if var.fixed is not None or var.solid:
        raise CannotLift(f"axis {var.origin} is used as a whole and cannot be split into {list(sizes)}")
    parts = tuple(Var(size, f"{var.origin}.{place}", apart=set(var.apart)) for place, size in enumerate(sizes))
    for part in parts:
        part.apart.update(other for other in parts if other is not part)
    for other in var.apart:
        root(other).apart.update(parts)
    var.parts = parts
    return parts


def can_unify(one: Var, two: Var) -> bool:
    """Tell whether two unsplit variables may become one."""
    if one is two:
        return True
    if one.size != two.size or (one.fixed and two.fixed and one.fixed != two.fixed):
        return False
    # what is apart is so both ways, and the set of `query` grows with every layer: look through the smaller one
    few, other = (one, two) if len(one.apart) < len(two.apart) else (two, one)
    return not any(other in atoms([var]) for var in few.apart)


def unify(one: Var, two: Var) -> None:
    """Make two unsplit variables one; the fixed, or the first, gives its name."""
    if one is two:
        return
    keep, drop = (two, one) if two.fixed and not one.fixed else (one, two)
    drop.same_as = keep
    keep.solid = keep.solid or drop.solid
    keep.apart |= drop.apart


def size_of(dims: Iterable[Var]) -> Size:
    """Return the size of a product of variables (a text where symbols take part)."""
    sizes = [var.size for var in atoms(dims)]
    numbers = [size for size in sizes if isinstance(size, int)]
    symbols = sorted(size for size in sizes if isinstance(size, str))
    if not symbols:
        return prod(numbers)
    if len(sizes) > 1:
        symbols = sorted(as_factor(symbol) for symbol in symbols)
    return "*".join([*([str(prod(numbers))] if prod(numbers) != 1 else []), *symbols])


def as_factor(size: str) -> str:
    """Return the text of a size as it stands in a product: a sum in parentheses."""
    return f"({size})" if " " in size and not size.startswith("(") else size


def align(one: Dim, two: Dim) -> list[tuple[Var, Var]] | None:
    """Return the two products cut into pairs of equal size, splitting where needed, or `None` where they do not divide."""
    left, right = list(reversed(atoms(one))), list(reversed(atoms(two)))
    pairs: list[tuple[Var, Var]] = []
    while left and right:
        first, second = left.pop(), right.pop()
        if first.size == second.size:
            pairs.append((first, second))
            continue
        if not isinstance(first.size, int) or not isinstance(second.size, int):
            return None
        outer = min(first.size, second.size)
        big = second if first.size == outer else first
        if big.size % outer or big.fixed or big.solid:  # type: ignore[operator]
            return None
        parts = list(reversed(split(big, (outer, big.size // outer))))  # type: ignore[operator]
        if big is first:
            left.extend(parts)
            right.append(second)
        else:
            right.extend(parts)
            left.append(first)
    return pairs if not left and not right else None


def divides(one: Dim, two: Dim) -> bool:
    """Tell whether `align` would find pairs, without splitting anything."""
    left, right = ([(var.size, bool(var.fixed or var.solid)) for var in reversed(atoms(dim))] for dim in (one, two))
    while left and right:
        (first, rigid), (second, stiff) = left.pop(), right.pop()
        if first == second:
            continue
        if not isinstance(first, int) or not isinstance(second, int):
            return False
        small, big = min(first, second), max(first, second)
        if big % small or (rigid if big == first else stiff):
            return False
        (left if big == first else right).append((big // small, False))
    return not left and not right


def _factors(size: Size) -> tuple[int, list[str]]:
    """Return a size as its number and its symbols; a sum of symbols counts as one."""
    if isinstance(size, int):
        return size, []
    if " " in size:
        return 1, [size]
    words = size.split("*")
    return prod(int(word) for word in words if word.isdigit()), [word for word in words if not word.isdigit()]


def _take(left: list[Var], target: Size) -> Dim | None:
    """Take variables from the end of `left` (a stack) until their product is `target`; `None` where they do not divide."""
    taken: list[Var] = []
    need, symbols = _factors(target)
    while need != 1 or symbols:
        if not left:
            return None
        var = left.pop()
        number, own = _factors(var.size)
        if any(own.count(symbol) > symbols.count(symbol) for symbol in own):
            return None
        for symbol in own:
            symbols.remove(symbol)
        if need % number == 0:
            taken.append(var)
            need //= number
        elif own or need == 1 or number % need or var.fixed or var.solid:
            return None
        else:
            outer, inner = split(var, (need, number // need))
            taken.append(outer)
            left.append(inner)
            need = 1
    return tuple(taken)


def reshape(dims: Sequence[Dim], sizes: Sequence[Size]) -> list[Dim] | None:
    """Return the variables of `dims` regrouped into dimensions of the given sizes, or `None` where they do not divide."""
    left = list(reversed(atoms(var for dim in dims for var in dim)))
    made: list[Dim] = []
    for size in sizes:
        taken = () if size == 1 else _take(left, size)
        if taken is None:
            return None
        made.append(taken)
    if any(var.size != 1 for var in left):
        return None
    return made


def equal_ends(old: Sequence[Size], new: Sequence[Size]) -> tuple[int, int]:
    """Return how many sizes two shapes of one value share at their beginnings and at their ends, apart from each other.

    >>> equal_ends(("batch", "query", 32), ("batch", "query", 4, 8)), equal_ends((6, 5), (2, 3, 5))
    ((2, 0), (0, 1))
    """
    most, first, last = min(len(old), len(new)) - 1, 0, 0
    while first < most and old[first] == new[first]:
        first += 1
    while first + last < most and old[-1 - last] == new[-1 - last]:
        last += 1
    return first, last


def beginnings(parts: Sequence[Var]) -> tuple[tuple[int, Var], ...]:
    """Return where each part begins in their join, as far as that is a number, and its axis."""
    found, begin = list[tuple[int, Var]](), 0
    for part in parts:
        found.append((begin, part))
        if not isinstance(part.size, int):
            break
        begin += part.size
    return tuple(found)


def joined_part(dims: Sequence[Dim], var: Var, start: int, size: Size) -> Var | None:
    """Return the axis of positions that was joined to `var` at just this stretch, if one was and `dims` do not have it.

    Scores to which a sink was joined keep their keys so.
    """
    here = {one for dim in dims for one in atoms(dim)}
    for begin, part in var.joined:
        if begin == start and root(part).fixed and root(part).size == size and root(part) not in here:
            return root(part)
    return None
