"""Finding nodes and paths in a circuit, and changing a node on some paths only.

`matcher` says which nodes, `names` which by name, `path` which ways through the graph; `search` finds them, `along` changes
them, `explain` says why nothing was found. `machine` and `reach` are how paths are followed.
"""

from scrubjay.circuit.match.along import update
from scrubjay.circuit.match.explain import Explanation
from scrubjay.circuit.match.matcher import Matcher, acts_along, anything, has_axes, kind, these, where
from scrubjay.circuit.match.names import (
    at,
    depends_on,
    feeds,
    input_named,
    named,
    read_by,
    reads,
    reads_input,
    weight,
)
from scrubjay.circuit.match.path import Chain, Paths, below, join, path, slot
from scrubjay.circuit.match.search import (
    Edge,
    Route,
    edges,
    explain,
    find,
    first,
    is_found,
    number_of_paths,
    one,
    paths,
    shortest,
    validate,
)
from scrubjay.errors import MatchError

__all__ = [
    "Chain", "Edge", "Explanation", "MatchError", "Matcher", "Paths", "Route", "acts_along", "anything", "at", "below", "depends_on", "edges",
    "explain", "feeds", "find", "first", "has_axes", "input_named", "is_found", "join", "kind", "named", "number_of_paths", "one", "path", "paths",
    "read_by", "reads", "reads_input", "shortest", "slot", "these", "update", "validate", "weight", "where",
]  # fmt: skip
