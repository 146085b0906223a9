"""Functions of values: element by element (`Map`), along axes (`Along`), and operations kept as they are (`Opaque`)."""

from __future__ import annotations

from typing import final

from scrubjay.circuit.axes import Axis, in_order, joined, names
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops.aten import check_call
from scrubjay.errors import CircuitError

MAPS: dict[str, int] = {
    **dict.fromkeys(
        (
            *(
                "abs",
                "cast",
                "ceil",
                "cos",
                "elu",
                "erf",
                "exp",
                "expm1",
                "floor",
                "gelu",
                "gelu_tanh",
                "hardtanh",
                "isfinite",
                "isinf",
                "isnan",
            ),
            *(
                "leaky_relu",
                "log",
                "log1p",
                "not",
                "quick_gelu",
                "reciprocal",
                "relu",
                "round",
                "rsqrt",
                "sigmoid",
                "sign",
                "silu",
                "sin",
            ),
            *("softplus", "sqrt", "tan", "tanh", "bitwise_not"),
        ),
        1,
    ),
    **dict.fromkeys(
        (
            *(
                "and",
                "or",
                "xor",
                "divide",
                "equal",
                "floor_divide",
                "greater",
                "greater_equal",
                "less",
                "less_equal",
                "maximum",
            ),
            *("minimum", "not_equal", "power", "remainder", "bitwise_and", "bitwise_or"),
        ),
        2,
    ),
    "where": 3,
}
"""Each element-by-element function and its number of operands."""

KEEPING = ("softmax", "safe_softmax", "log_softmax", "center", "cumsum", "cumprod")
REDUCING = ("mean", "sum", "max", "min", "any", "all", "argmax", "argmin", "logsumexp", "rms", "prod", "var")


@final
class Map(Node):
    """A named function applied element by element; operands are broadcast over the axes they lack.

    `parameters` belong to the function: the type of a cast, the slope of a leaky ReLU. `where` is (condition, yes, no).
    """

    op: str
    inputs: tuple[Node, ...]
    parameters: tuple[bool | int | float | str, ...] = ()

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the union of the operands' axes."""
        if MAPS.get(self.op) != len(self.inputs):
            raise CircuitError(f"no element-wise function {self.op!r} of {len(self.inputs)} operands")
        return joined(tuple([operand.axes for operand in self.inputs]))


@final
class Along(Node):
    """A named function along the axes `over`: softmax, centring (x - mean), sums and other reductions.

    `rms` is sqrt(mean(x^2) + parameter), the divisor of both norms: layer norm is center(x) / rms(center(x), eps).
    """

    op: str
    source: Node
    over: tuple[str, ...]
    parameters: tuple[bool | int | float | str, ...] = ()

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the source's axes, without those a reduction removes."""
        if self.op not in KEEPING and self.op not in REDUCING:
            raise CircuitError(f"no function {self.op!r} along axes")
        if missing := set(self.over) - names(self.source.axes):
            raise CircuitError(f"{self.op} runs over {sorted(missing)}, which {self.source!r} lacks")
        if self.op in KEEPING:
            return self.source.axes
        return tuple(axis for axis in self.source.axes if axis.name not in self.over)

    @property
    def acts_along(self) -> frozenset[str]:
        """The axes it runs over."""
        return frozenset(self.over)


@final
class Order(Node):
    """The first places of an axis in order of their values, as the axis `to`: sorting, and the k greatest of a router.

    `result` is `values` (in order) or `places` (where they stood). `how` is `topk`, `topk_unsorted` or `sort`, whose choices
    among equal values differ; `greatest` says which end comes first.
    """

    source: Node
    axis: str
    to: Axis
    result: str
    greatest: bool = True
    how: str = "topk"

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the source's axes with `to` in the place of `axis`."""
        size, wanted = self.source.size(self.axis), self.to.size
        if self.result not in ("values", "places") or self.how not in ("topk", "topk_unsorted", "sort"):
            raise CircuitError(f"Order gives values or places by topk or sort, and not {self.result!r} by {self.how!r}")
        if isinstance(size, int) and isinstance(wanted, int) and wanted > size:
            raise CircuitError(f"cannot take the first {wanted} of {self.axis}={size} of {self.source!r}")
        rest = [axis for axis in self.source.axes if axis.name != self.axis]
        if self.to.name in {axis.name for axis in rest}:
            raise CircuitError(f"{self.source!r} has an axis {self.to.name!r} already")
        return in_order([*rest, self.to])

    @property
    def acts_along(self) -> frozenset[str]:
        """The axis that is put in order, by both names."""
        return frozenset({self.axis, self.to.name})


@final
class Opaque(Node):
    """An ATen operation kept as it is: `op` called on the operands laid out as the original program had them.

    `layouts` gives each operand's dimensions as products of axes; `arguments` is the call's argument list as JSON text in
    which `{"operand": i}` stands for operand i; `result` says which of several results this is; `dims` lays it out.
    It acts along all of its axes: nothing is known about it. Only operations that `scrubjay.circuit.ops.aten` lists may be
    called: a circuit can come from a file, and reading and running it must do nothing but arithmetic.
    """

    op: str
    inputs: tuple[Node, ...]
    layouts: tuple[tuple[tuple[Axis, ...], ...], ...]
    arguments: str
    result: int
    dims: tuple[tuple[Axis, ...], ...]

    def find_axes(self) -> tuple[Axis, ...]:
        """Return the axes of the result; refuse an operation that is not listed, and arguments that are not plain."""
        check_call(self.op, self.arguments, len(self.inputs))
        if len(self.layouts) != len(self.inputs) or self.result < 0:
            raise CircuitError(
                f"{self.op} has {len(self.inputs)} operands, {len(self.layouts)} layouts and gives result {self.result}: one layout for each "
                "operand, and a result from 0 on"
            )
        return in_order(axis for dim in self.dims for axis in dim)

    @property
    def acts_along(self) -> frozenset[str]:
        """Every axis of the result and of the operands."""
        return names(self.axes) | {axis.name for operand in self.inputs for axis in operand.axes}
