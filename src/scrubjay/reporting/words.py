"""Numbers in running text: lists, shares, sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from scrubjay.viz import Section


@dataclass(frozen=True, eq=False)
class Chapter:
    """A section of a report with what it found in one plain text, and the numbers behind it, ready for JSON."""

    section: Section
    finding: str
    numbers: dict[str, object] = field(default_factory=dict[str, object])


def listed(items: Sequence[str], last: str = "and") -> str:
    """Return items as running text.

    >>> listed(["a", "b", "c"]), listed(["a"]), listed([])
    ('a, b and c', 'a', 'none')
    """
    if not items:
        return "none"
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"


def share(value: float) -> str:
    """Return a fraction in percent, with a decimal where it rounds to 0 or 100 without being so.

    >>> share(0.734), share(0.996), share(1.0), share(-0.2)
    ('73%', '99.6%', '100%', '-20%')
    """
    rounded = round(100 * value)
    exact = abs(value - 1) < 5e-4 or abs(value) < 5e-4
    text = f"{value:.0%}" if exact or 0 < rounded < 100 or rounded > 100 or rounded < 0 else f"{value:.1%}"
    return "0%" if text in {"-0%", "-0.0%", "0.0%"} else text


def size(value: float) -> str:
    """Return a small positive number as a power of ten, an ordinary one with three figures.

    >>> size(4.27e-7), size(0.5), size(0)
    ('4.3e-07', '0.5', '0')
    """
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"
