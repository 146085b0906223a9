"""Routes: by which paths a claim's reader reads it, as text and as a value.

direct                                      residual additions and the reader's own norm
all                                         every path
avoiding L0.H1.out, L1.mlp.out              every path through none of these
through L1.mlp.out                          paths through these only, and at least one of them
through L1.H*.out avoiding L1.H3.out        the same, without some of those the first names
direct or through L1.mlp.out                these and the direct paths
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from scrubjay.circuit.address import Address, ModelShape, expand, parse
from scrubjay.errors import AddressError, HypothesisError

_FORM = re.compile(
    r"(?P<direct>direct\s+or\s+)?(?:through\s+(?P<through>.+?))?(?:(?:^|\s+)avoiding\s+(?P<avoiding>.+))?"
)


@dataclass(frozen=True)
class Route:
    """A set of paths, by the components they pass.

    Attributes:
        through: the components that may be passed; `None`: all of them.
        avoiding: those that may not.
        direct: whether the paths that pass none belong to it.
    """

    through: tuple[Address, ...] | None = None
    avoiding: tuple[Address, ...] = ()
    direct: bool = True

    @property
    def straight(self) -> bool:
        """Whether only named components may be passed, so that it must be known what is a component."""
        return self.through is not None


def parse_route(text: str) -> Route:
    """Return the route of a `via` text; raise `HypothesisError` for one that does not parse.

    >>> parse_route("direct"), parse_route("all")
    (Route(through=(), avoiding=(), direct=True), Route(through=None, avoiding=(), direct=True))
    >>> [str(one) for one in parse_route("through L1.H*.out avoiding 1.3").through]
    ['L1.H*.out']
    """
    stripped = text.strip()
    if stripped == "direct":
        return Route(through=())
    if stripped == "all":
        return Route()
    found = _FORM.fullmatch(stripped)
    if not stripped or found is None or (found["direct"] and not found["through"]):
        raise HypothesisError(
            f"via={text!r} is not a set of paths; use 'direct', 'all', 'avoiding L0.H1.out, L1.mlp.out', 'through L1.mlp.out', "
            "'through L1.H*.out avoiding L1.H3.out' or 'direct or through L1.mlp.out'"
        )
    through = _sites(text, found["through"]) if found["through"] else None
    avoiding = _sites(text, found["avoiding"]) if found["avoiding"] else ()
    return Route(through, avoiding, through is None or bool(found["direct"]))


def _sites(via: str, text: str) -> tuple[Address, ...]:
    try:
        made = tuple(parse(one) for one in text.split(","))
    except AddressError as error:
        raise HypothesisError(f"via={via!r}: {error}") from error
    for one in made:
        if one.position is not None or one.site.rpartition(".")[2] != "out":
            raise HypothesisError(
                f"via={via!r}: {one} is no component that paths pass: name a head's out, attn.out or mlp.out, at all positions"
            )
    return made


def expanded(route: Route, via: str, shape: ModelShape) -> Route:
    """Return a route with the components that a model has for its wildcards and ranges; raise `HypothesisError` for unknown ones."""
    try:
        through = None if route.through is None else tuple(one for site in route.through for one in expand(site, shape))
        avoiding = tuple(one for site in route.avoiding for one in expand(site, shape))
    except AddressError as error:
        raise HypothesisError(f"via={via!r}: {error}") from error
    return replace(route, through=through, avoiding=avoiding)
