"""Operators that compute: arithmetic, activations, reductions, contractions, norms, attention."""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch
from torch.fx import Node as FxNode

from scrubjay.capture.lift.call import Call, dtype_name
from scrubjay.capture.lift.layout import CannotLift, Dim, Var, atoms, size_of
from scrubjay.capture.lift.proto import Names, Proto, Value, contract, iota, mapped, materialised, pointwise
from scrubjay.capture.lift.table_layout import Handler, scalar
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Along, Multiply
from scrubjay.errors import CaptureError


def operand(call: Call, name: str) -> Value:
    """Take an argument that may be a tensor or a number."""
    item = call.raw(name)
    if isinstance(item, FxNode) and isinstance(call.values.get(item), Value):
        return call.lifted(item)
    return scalar(call.number(name))


def add(call: Call) -> Value:
    """Lift a sum."""
    return _sum(call, operand(call, "self"), operand(call, "other"), 1)


def subtract(call: Call) -> Value:
    """Lift a difference."""
    return _sum(call, operand(call, "self"), operand(call, "other"), -1)


def reverse_subtract(call: Call) -> Value:
    """Lift a difference the other way round."""
    return _sum(call, operand(call, "other"), operand(call, "self"), -1)


def _sum(call: Call, left: Value, right: Value, sign: int) -> Value:
    factor = call.number("alpha")
    factor = sign * (1 if factor is None else factor)
    if not call.fx.meta["val"].dtype.is_floating_point and _is_zero(call.given.get("other")):
        return left
    if factor != 1:
        right = pointwise(Multiply, [right, scalar(factor)])
    return pointwise(Add, [left, right])


def _is_zero(item: Any) -> bool:
    return isinstance(item, int) and item == 0


def multiply(call: Call) -> Value:
    """Lift a product."""
    return pointwise(Multiply, [operand(call, "self"), operand(call, "other")])


def negative(call: Call) -> Value:
    """Lift a change of sign."""
    return pointwise(Multiply, [call.tensor("self"), scalar(-1)])


def divide(call: Call) -> Value:
    """Lift a quotient, rounded down where asked."""
    mode = call.number("rounding_mode")
    if mode == "trunc":
        raise CannotLift("division rounded towards zero is kept whole")
    return mapped("floor_divide" if mode == "floor" else "divide", [operand(call, "self"), operand(call, "other")])


def power(call: Call) -> Value:
    """Lift a power."""
    return mapped("power", [operand(call, "self"), operand(call, "exponent")])


def unary(op: str) -> Handler:
    """Return a handler for a function of one tensor without parameters."""

    def handler(call: Call) -> Value:
        return mapped(op, [call.tensor("self")])

    return handler


def binary(op: str) -> Handler:
    """Return a handler for a function of two tensors or numbers."""

    def handler(call: Call) -> Value:
        return mapped(op, [operand(call, "self"), operand(call, "other")])

    return handler


def gelu(call: Call) -> Value:
    """Lift GELU, by its error function or its tanh approximation."""
    op = {"none": "gelu", "tanh": "gelu_tanh"}[call.number("approximate")]
    return mapped(op, [call.tensor("self")])


def softplus(call: Call) -> Value:
    """Lift softplus with its slope and threshold."""
    return mapped("softplus", [call.tensor("self")], (float(call.number("beta")), float(call.number("threshold"))))


def leaky_relu(call: Call) -> Value:
    """Lift leaky ReLU with its slope."""
    return mapped("leaky_relu", [call.tensor("self")], (float(call.number("negative_slope")),))


def clamp(call: Call) -> Value:
    """Lift a limit below, above or both."""
    what = call.tensor("self")
    for name, op in (("min", "maximum"), ("max", "minimum")):
        if call.raw(name) is not None:
            what = mapped(op, [what, operand(call, name)])
    return what


def where(call: Call) -> Value:
    """Lift a choice by a condition."""
    return mapped("where", [call.tensor("condition"), operand(call, "self"), operand(call, "other")])


def masked_fill(call: Call) -> Value:
    """Lift a fill where a mask is true."""
    return mapped("where", [call.tensor("mask"), operand(call, "value"), call.tensor("self")])


def cast(call: Call) -> Value:
    """Lift a change of type; the model's own type stays a name."""
    what = call.tensor("self")
    call.taken.update(("dtype", "other"))  # the result's type is read from the program
    return cast_to(what, call.dtype_of("self"), call.fx.meta["val"].dtype)


def cast_to(what: Value, old: torch.dtype, new: torch.dtype) -> Value:
    """Return the value in another type (itself where the type is the same)."""
    return what if old == new else mapped("cast", [what], (dtype_name(new),))


def triangle(call: Call) -> Value:
    """Lift the lower or upper triangle of the last two dimensions."""
    what = call.tensor("self")
    lower = call.fx.target.__name__.startswith("tril")  # type: ignore[union-attr]
    rows, columns = what.sizes[-2:]
    row, column = iota(rows, f"{call.fx.name}.row"), iota(columns, f"{call.fx.name}.column")
    row = Value(row.proto, (row.dims[0], ()))
    limit = pointwise(Add, [row, scalar(call.number("diagonal"))])
    keep = mapped("less_equal" if lower else "greater_equal", [column, limit])
    return mapped("where", [keep, what, cast_to(scalar(0), torch.int64, call.dtype_of("self"))])


def along(op: str, *, keeps: bool = False) -> Handler:
    """Return a handler for a function along dimensions; `keeps` for those that keep them."""

    def handler(call: Call) -> Value:
        what = call.tensor("self")
        dims = call.dims("dim", len(what.dims))
        old = call.dtype_of("self")
        wanted: torch.dtype | None = call.number("dtype") if "dtype" in call.defaults else None
        if wanted is not None:
            what = cast_to(what, old, wanted)
        call.taken.add("half_to_float")
        keepdim = bool(call.number("keepdim")) if "keepdim" in call.defaults or "keepdim" in call.given else False
        made = run_along(op, what, dims, keeps=keeps, keepdim=keepdim)
        # sums of whole numbers come out in 64 bits unless the program says otherwise
        narrow = wanted if wanted is not None and not wanted.is_floating_point and wanted != torch.int64 else None
        return made if narrow is None else cast_to(made, torch.int64, narrow)

    return handler


def run_along(
    op: str, what: Value, dims: list[int], *, keeps: bool, keepdim: bool = False, parameters: tuple[Any, ...] = ()
) -> Value:
    """Return a function of the value along dimensions."""
    over: Dim = tuple(var for d in dims for var in atoms(what.dims[d]))
    what = materialised(what, over)

    def make(names: Names, nodes: tuple[Node, ...]) -> Node:
        return Along(op, nodes[0], tuple(sorted(axis.name for axis in names(over))), parameters)

    if keeps:
        return Value(Proto((what.proto,), what.proto.axes, make), what.dims)
    rest = tuple(var for var in what.proto.axes if var not in over)
    left = tuple(() if place in dims else dim for place, dim in enumerate(what.dims) if keepdim or place not in dims)
    return Value(Proto((what.proto,), rest, make), left)


def variance(call: Call) -> Value:
    """Lift a population variance; a corrected one is kept whole."""
    what = call.tensor("self")
    dims = call.dims("dim", len(what.dims))
    correction = call.number("correction") if "correction" in call.defaults else int(bool(call.number("unbiased")))
    if (1 if correction is None else correction) != 0:
        raise CannotLift("a variance with a correction is kept whole")
    return run_along("var", what, dims, keeps=False, keepdim=bool(call.number("keepdim")))


def extreme(op: str) -> Handler:
    """Return a handler for max or min: along one dimension, values and places; or of two tensors."""

    def handler(call: Call) -> Value | list[Value]:
        if "other" in call.given:
            return mapped({"max": "maximum", "min": "minimum"}[op], [call.tensor("self"), call.tensor("other")])
        if "dim" not in call.given:
            raise CannotLift(f"{op} over all dimensions at once is kept whole")
        what = call.tensor("self")
        (dim,) = call.dims("dim", len(what.dims))
        keepdim = bool(call.number("keepdim"))
        return [run_along(name, what, [dim], keeps=False, keepdim=keepdim) for name in (op, f"arg{op}")]

    return handler


def argument(op: str) -> Handler:
    """Return a handler for the place of the extreme along one dimension."""

    def handler(call: Call) -> Value:
        what = call.tensor("self")
        if call.raw("dim") is None:
            raise CannotLift(f"{op} over all dimensions at once is kept whole")
        (dim,) = call.dims("dim", len(what.dims))
        return run_along(op, what, [dim], keeps=False, keepdim=bool(call.number("keepdim")))

    return handler


def product(one: Value, two: Value) -> Value:
    """Return the matrix product of batches, broadcast as torch does."""
    if len(one.dims) == 1 or len(two.dims) == 1:
        wide = Value(one.proto, ((), one.dims[0])) if len(one.dims) == 1 else one
        tall = Value(two.proto, (two.dims[0], ())) if len(two.dims) == 1 else two
        made = product(wide, tall)
        dims = list(made.dims)
        if len(two.dims) == 1:
            dims.pop()
        if len(one.dims) == 1:
            dims.pop(-1 if len(two.dims) == 1 else -2)
        return Value(made.proto, tuple(dims))
    lead = min(len(one.dims), len(two.dims)) - 2
    together = [(len(one.dims) - 3 - i, len(two.dims) - 3 - i) for i in range(lead)]
    one, two, proto = contract(one, two, together, [(len(one.dims) - 1, len(two.dims) - 2)])
    long = one if len(one.dims) >= len(two.dims) else two
    batch: list[Dim] = list(long.dims[:-2])
    for a, b in together:
        place = len(batch) - 1 - (len(one.dims) - 3 - a)
        batch[place] = one.dims[a] or two.dims[b]
    return Value(proto, (*batch, one.dims[-2], two.dims[-1]))


def matmul(call: Call) -> Value:
    """Lift a matrix product."""
    return product(call.tensor("self"), call.tensor("other" if "other" in call.given else "mat2"))


def linear_map(what: Value, weight: Value, bias: Value | None) -> Value:
    """Return x W^T + b."""
    what, weight, proto = contract(what, weight, [], [(len(what.dims) - 1, 1)])
    made = Value(proto, (*what.dims[:-1], weight.dims[0]))
    return made if bias is None else pointwise(Add, [made, bias])


def linear(call: Call) -> Value:
    """Lift a linear layer."""
    return linear_map(call.tensor("input"), call.tensor("weight"), call.maybe("bias"))


def addmm(call: Call) -> Value:
    """Lift beta * self + alpha * mat1 mat2."""
    names = ("mat1", "mat2") if "mat1" in call.given else ("batch1", "batch2")
    made = product(call.tensor(names[0]), call.tensor(names[1]))
    bias, alpha, beta = call.tensor("self"), call.number("alpha"), call.number("beta")
    if alpha != 1:
        made = pointwise(Multiply, [made, scalar(alpha)])
    if beta != 1:
        bias = pointwise(Multiply, [bias, scalar(beta)])
    return pointwise(Add, [made, bias])


def layer_norm(call: Call) -> Value:
    """Lift layer norm: center(x) / rms(center(x), eps) * weight + bias."""
    what = call.tensor("input")
    rank = len(call.number("normalized_shape"))
    call.taken.add("cudnn_enable")
    dims = list(range(len(what.dims) - rank, len(what.dims)))
    centered = run_along("center", what, dims, keeps=True)
    scale = run_along("rms", centered, dims, keeps=False, keepdim=True, parameters=(float(call.number("eps")),))
    made = mapped("divide", [centered, scale])
    return _affine(call, made)


def _affine(call: Call, made: Value) -> Value:
    for name, kind in (("weight", Multiply), ("bias", Add)):
        if name in call.defaults or name in call.given:
            part = call.maybe(name)
            if part is not None:
                made = pointwise(kind, [made, part])
    return made


def rms_norm(call: Call) -> Value:
    """Lift RMS norm: x / rms(x, eps) * weight."""
    what = call.tensor("input")
    rank = len(call.number("normalized_shape"))
    eps = call.number("eps")
    if eps is None:
        raise CannotLift("RMS norm without an epsilon takes that of its type, and is kept whole")
    dims = list(range(len(what.dims) - rank, len(what.dims)))
    scale = run_along("rms", what, dims, keeps=False, keepdim=True, parameters=(float(eps),))
    return _affine(call, mapped("divide", [what, scale]))


def attention(call: Call) -> Value:
    """Lift scaled dot-product attention into scores, softmax and the weighted sum of values."""
    query, key, val = call.tensor("query"), call.tensor("key"), call.tensor("value")
    if call.number("dropout_p"):
        raise CaptureError("attention dropout is active; capture the module in evaluation mode (module.eval())")
    if call.number("enable_gqa"):
        key, val = _repeated(query, key), _repeated(query, val)
    mask, causal, scale = call.maybe("attn_mask"), call.number("is_causal"), call.number("scale")
    if scale is None:
        scale = 1 / sqrt(int(size_of(query.dims[-1])))
    turned = Value(key.proto, (*key.dims[:-2], key.dims[-1], key.dims[-2]))
    scores = pointwise(Multiply, [product(query, turned), scalar(float(scale))])
    if causal:
        row, column = iota(scores.sizes[-2], f"{call.fx.name}.row"), iota(scores.sizes[-1], f"{call.fx.name}.column")
        keep = mapped("less_equal", [column, Value(row.proto, (row.dims[0], ()))])
        scores = mapped("where", [keep, scores, scalar(float("-inf"))])
    if mask is not None:
        boolean = call.dtype_of("attn_mask") == torch.bool
        scores = mapped("where", [mask, scores, scalar(float("-inf"))]) if boolean else pointwise(Add, [scores, mask])
    pattern = run_along("safe_softmax", scores, [len(scores.dims) - 1], keeps=True)
    return product(pattern, val)


def _repeated(query: Value, what: Value) -> Value:
    """Return keys or values with each head read by its group of query heads (an axis in the layout only)."""
    heads, own = size_of(query.dims[-3]), size_of(what.dims[-3])
    if heads == own:
        return what
    group = Var(int(heads) // int(own), "group")
    return Value(what.proto, (*what.dims[:-3], (*what.dims[-3], group), *what.dims[-2:]))


_UNARY = (
    *(
        "abs",
        "ceil",
        "cos",
        "erf",
        "exp",
        "expm1",
        "floor",
        "isfinite",
        "isinf",
        "isnan",
        "log",
        "log1p",
        "reciprocal",
        "relu",
    ),
    *("round", "rsqrt", "sigmoid", "sign", "silu", "sin", "sqrt", "tan", "tanh"),
)
_BINARY = {
    "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "maximum": "maximum",
    "minimum": "minimum", "floor_divide": "floor_divide", "remainder": "remainder", "logical_and": "and", "logical_or": "or", "logical_xor": "xor",
    "__and__": "bitwise_and", "bitwise_and": "bitwise_and", "__or__": "bitwise_or", "bitwise_or": "bitwise_or",
}  # fmt: skip

ARITHMETIC: dict[str, Handler] = {
    **{name: unary(name) for name in _UNARY},
    "logical_not": unary("not"), "bitwise_not": unary("bitwise_not"),
    **{name: binary(op) for name, op in _BINARY.items()},
    "add": add, "sub": subtract, "rsub": reverse_subtract, "mul": multiply, "neg": negative, "div": divide, "pow": power,
    "gelu": gelu, "softplus": softplus, "leaky_relu": leaky_relu, "clamp": clamp, "clamp_min": clamp, "clamp_max": clamp,
    "where": where, "masked_fill": masked_fill, "_to_copy": cast, "to": cast, "type_as": cast, "tril": triangle, "triu": triangle,
    "softmax": along("softmax", keeps=True), "_softmax": along("softmax", keeps=True), "_safe_softmax": along("safe_softmax", keeps=True),
    "log_softmax": along("log_softmax", keeps=True), "_log_softmax": along("log_softmax", keeps=True), "cumsum": along("cumsum", keeps=True),
    "mean": along("mean"), "sum": along("sum"), "amax": along("max"), "amin": along("min"), "any": along("any"), "all": along("all"),
    "logsumexp": along("logsumexp"), "var": variance, "max": extreme("max"), "min": extreme("min"), "argmax": argument("argmax"),
    "argmin": argument("argmin"), "matmul": matmul, "mm": matmul, "bmm": matmul, "linear": linear, "addmm": addmm, "baddbmm": addmm,
    "layer_norm": layer_norm, "rms_norm": rms_norm, "scaled_dot_product_attention": attention,
}  # fmt: skip
