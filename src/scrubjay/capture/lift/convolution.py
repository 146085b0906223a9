"""Convolutions that are linear maps of patches, and batch norm with fixed statistics, as sums of products.

A convolution whose stride is the size of its kernel cuts its input into patches that do not overlap, and maps each: the patch
embedding of a vision transformer. Any other convolution is kept whole.
"""

from __future__ import annotations

from typing import Any

from scrubjay.capture.lift.call import Call
from scrubjay.capture.lift.layout import CannotLift, Size, atoms
from scrubjay.capture.lift.proto import Value, constant, contract, mapped, pointwise
from scrubjay.capture.lift.table_layout import Handler, narrowed, viewed
from scrubjay.circuit.ops import Add, Multiply


def convolution(call: Call) -> Value:
    """Lift a convolution of patches: einsum(patches, weight) over channels and places in the patch."""
    what, weight, bias = call.tensor("input"), call.tensor("weight"), call.maybe("bias")
    kernel = [int(size) for size in weight.sizes[2:]]
    stride, padding, dilation = (_each(call.number(name), len(kernel)) for name in ("stride", "padding", "dilation"))
    plain = set(padding) <= {0, "valid"} and set(dilation) == {1} and call.number("groups") == 1
    if stride != kernel or not plain or call.given.get("transposed"):
        raise CannotLift(
            f"{call.fx.name}: a convolution whose patches overlap, or of some channels each, is kept whole"
        )
    call.taken.update(("transposed", "output_padding"))
    first = len(what.dims) - len(kernel)
    sizes: list[Size] = list(what.sizes[:first])
    for place, size in enumerate(kernel, start=first):
        there = what.sizes[place]
        if not isinstance(there, int):
            raise CannotLift(f"{call.fx.name}: patches of an axis of any size are kept whole")
        if there % size:
            what = narrowed(what, place, 0, there - there % size)
        sizes += [there // size, size]
    patches = viewed(what, tuple(sizes), call.fx.name)
    summed = [(first - 1, 1), *((first + 2 * place + 1, 2 + place) for place in range(len(kernel)))]
    one, two, proto = contract(patches, weight, [], summed)
    places = tuple(one.dims[first + 2 * place] for place in range(len(kernel)))
    for var in atoms(var for dim in places for var in dim):
        var.place = True
    made = Value(proto, (*one.dims[: first - 1], two.dims[0], *places))
    return made if bias is None else pointwise(Add, [made, _beside(bias, len(kernel))])


def _each(given: Any, many: int) -> list[Any]:
    found = given if isinstance(given, list) else [given]
    return found * many if len(found) == 1 else found


def _beside(what: Value, places: int) -> Value:
    """Return a value over channels as one that broadcasts over `places` more dimensions."""
    return Value(what.proto, (*what.dims, *((),) * places))


def batch_norm(call: Call) -> Value:
    """Lift batch norm in evaluation mode: (x - mean) * rsqrt(variance + eps) * weight + bias."""
    what, eps = call.tensor("input"), call.number("eps")
    mean, variance = call.maybe("running_mean"), call.maybe("running_var")
    if mean is None or variance is None or call.number("training"):
        raise CannotLift(f"{call.fx.name}: batch norm by the batch's own statistics is kept whole")
    call.taken.update(("momentum", "cudnn_enabled"))
    places = len(what.dims) - 2
    less = pointwise(Multiply, [_beside(mean, places), constant(-1, None)])
    scale = mapped("rsqrt", [pointwise(Add, [_beside(variance, places), constant(float(eps), None)])])
    made = pointwise(Multiply, [pointwise(Add, [what, less]), scale])
    for name, kind in (("weight", Multiply), ("bias", Add)):
        if (part := call.maybe(name)) is not None:
            made = pointwise(kind, [made, _beside(part, places)])
    return made


CONVOLUTION: dict[str, Handler] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), convolution),
    "batch_norm": batch_norm,
    "_native_batch_norm_legit_no_training": lambda call: [batch_norm(call)],
}
