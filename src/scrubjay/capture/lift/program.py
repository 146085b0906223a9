"""Lift a whole exported program: every operator through the tables, what is left as `Opaque`, then names for the axes."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node as FxNode

from scrubjay.capture.lift.call import Call, dtype_name
from scrubjay.capture.lift.convolution import CONVOLUTION
from scrubjay.capture.lift.einsum import einsum
from scrubjay.capture.lift.layout import CannotLift, Dim, Size, Var, as_factor, atoms
from scrubjay.capture.lift.proto import Names, Proto, Value, materialised, whole
from scrubjay.capture.lift.table_arithmetic import ARITHMETIC
from scrubjay.capture.lift.table_layout import LAYOUT
from scrubjay.capture.lift.table_lookup import LOOKUP
from scrubjay.capture.lift.table_order import ORDER
from scrubjay.circuit.address import Address, Module
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit, layout_note
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Index, Input, Opaque, Split, Weight
from scrubjay.circuit.ops.aten import name_of
from scrubjay.circuit.rules import experts_chosen
from scrubjay.errors import AddressError, CaptureError, CircuitError

TABLE = {**LAYOUT, **ARITHMETIC, **LOOKUP, **ORDER, **CONVOLUTION, "einsum": einsum}
SILENT = (
    "_assert_tensor_metadata",
    "_assert_scalar",
    "_assert_async",
    "sym_constrain_range",
    "sym_constrain_range_for_size",
)
"""Operators that compute nothing: they check what export already recorded."""

ALIASES = {
    "multiply": "mul", "subtract": "sub", "true_divide": "div", "divide": "div", "absolute": "abs", "negative": "neg",
    "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le", "not_equal": "ne", "swapaxes": "transpose",
    "swapdims": "transpose", "special_expm1": "expm1", "special_softmax": "softmax", "square_": "square",
}  # fmt: skip
"""Operators of torch that are another one under a second name."""

FIXED = ("batch", "query")


def lift(
    program: ExportedProgram,
    source: str,
    axes: Mapping[str, tuple[str | None, ...]],
    aliases: Mapping[str, str],
    output: str,
) -> Circuit:
    """Return the circuit of an exported, functionalised program.

    `axes` names each input's dynamic dimensions (`None` for a fixed one); `aliases` maps a tied parameter's name to the one
    that stands for it; `source` names the store the weights are in; `output` names the result.
    Raises `CaptureError` for a program that changes its inputs or weights, or whose shape depends on its data.
    """
    circuit = _Lifter(program, source, axes, aliases).circuit(output)
    made = experts_chosen([*circuit.roots.values(), *circuit.table.values()])
    return circuit.mapped(made)


class _Lifter:
    """The state of one lifting: sizes by symbol, fixed variables, and what each captured node became."""

    def __init__(
        self,
        program: ExportedProgram,
        source: str,
        axes: Mapping[str, tuple[str | None, ...]],
        aliases: Mapping[str, str],
    ) -> None:
        self.program = program
        self.source = source
        self.axes = axes
        self.aliases = aliases
        self.symbols: dict[str, str] = {}
        self.same: dict[Any, Any] = {}
        self.fixed: dict[str, Var] = {}
        self.values: dict[FxNode, Any] = {}
        self.weights: dict[str, Value] = {}
        self.modules: dict[str, Value] = {}
        signature = program.graph_signature  # each of its tables is made anew when asked for
        self.inputs = dict(zip(signature.user_inputs, axes, strict=True))
        self.stored = {
            **signature.inputs_to_lifted_tensor_constants,
            **signature.inputs_to_buffers,
            **signature.inputs_to_parameters,
        }

    def circuit(self, output: str) -> Circuit:
        """Lift everything and return the circuit."""
        changed = self.program.graph_signature
        weights = changed.parameters_to_mutate
        if weights:
            raise CaptureError(
                f"the module changes its own weights when it is first run ({', '.join(map(str, weights.values()))}): "
                "run it once on any input (rwkv then has its weights rescaled), and load it after that"
            )
        if changed.buffers_to_mutate or changed.user_inputs_to_mutate:
            what = [*changed.buffers_to_mutate.values(), *changed.user_inputs_to_mutate.values()]
            raise CaptureError(
                f"the module changes its own state when run ({', '.join(map(str, what))}); switch that off (use_cache=False, eval mode). "
                "A rotary embedding that chooses its frequencies by length (longrope, dynamic) is not supported yet"
            )
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self._note_symbols(node)
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "call_function":
                self.values[node] = self._called(node)
                self._note_modules(node)
            elif node.op == "output":
                return self._finish(node.args[0][0], output)
            else:
                raise CaptureError(f"{node.name}: an operation of kind {node.op!r} remains in the captured program")
        raise CaptureError("the captured program returns nothing")

    def _note_symbols(self, node: FxNode) -> None:
        names = self.axes.get(self._input_name(node))
        if names is None:
            return
        for name, size in zip(names, node.meta["val"].shape, strict=True):
            if name is not None and isinstance(size, torch.SymInt):
                # inputs that share an axis have a symbol each: the first stands for all, so that a size in two of them is simplified
                first = next((one for one in self.same.values() if self.symbols[str(one)] == name), size.node.expr)
                self.same[size.node.expr] = first
                self.symbols[str(size)] = name

    def _input_name(self, node: FxNode) -> str:
        return self.inputs.get(node.name, node.name)

    def size(self, size: Any) -> Size:
        """Return a size as a number, or as text in the axes' own names."""
        if isinstance(size, int):
            return size
        expression = size.node.expr.xreplace(self.same)
        if expression.is_Integer:
            return int(expression)
        factors = [str(part) for part in expression.as_ordered_factors()] if expression.is_Mul else [str(expression)]
        numbers = [part for part in factors if part.lstrip("-").isdigit()]
        rest = [self._renamed(part) for part in factors if part not in numbers]
        return "*".join([*numbers, *sorted(as_factor(part) if len(factors) > 1 else part for part in rest)])

    def _renamed(self, text: str) -> str:
        for symbol, name in sorted(self.symbols.items(), key=lambda pair: -len(pair[0])):
            text = text.replace(symbol, name)
        return text

    def _variable(self, name: str | None, size: Size, origin: str) -> Var:
        if name is None:
            return Var(size, origin)
        if name not in self.fixed:
            self.fixed[name] = Var(size, name, fixed=name)
        return self.fixed[name]

    def _placeholder(self, node: FxNode) -> Value | None:
        found = node.meta["val"]
        if node.name in self.inputs:
            if not isinstance(found, torch.Tensor):
                return None
            name = self._input_name(node)
            names = self.axes[name]
            dims = tuple(
                () if size == 1 else (self._variable(axis, self.size(size), f"{name}.{place}"),)
                for place, (axis, size) in enumerate(zip(names, found.shape, strict=True))
            )
            dtype = dtype_name(found.dtype)
            return _leaf(dims, lambda axes: _input(name, axes, dtype))
        name = self.stored.get(node.name)
        if name is None:
            raise CaptureError(f"the captured program has an input of an unknown kind: {node.name}")
        return self._weight(self.aliases.get(name, name.removeprefix("module.")), found)

    def _weight(self, name: str, found: torch.Tensor) -> Value:
        if name not in self.weights:
            dims = tuple(
                () if size == 1 else (Var(int(size), f"{name}.{place}"),) for place, size in enumerate(found.shape)
            )
            dtype = dtype_name(found.dtype)
            source = self.source
            self.weights[name] = _leaf(dims, lambda axes: Weight(source, name, axes, dtype))
        return self.weights[name]

    def _called(self, node: FxNode) -> Any:
        if node.target is operator.getitem:
            whole, place = node.args
            return self.values[whole][place]  # type: ignore[index]
        if not isinstance(node.target, torch._ops.OpOverload):
            if isinstance(node.meta.get("val"), torch.SymInt | int | float | bool | torch.SymBool | torch.SymFloat):
                return None
            raise CaptureError(
                f"{node.name}: {node.target} (control flow or a higher-order operation) remains in the captured program"
            )
        name = node.target._schema.name.split("::")[1]
        if name in SILENT or not _tensors(node.meta.get("val")):
            return None
        call = Call(node, self.values, self.size)
        plain = name if name in TABLE else name.rstrip("_")
        handler = TABLE.get(ALIASES.get(plain, plain))
        if handler is None or not node.target._schema.name.startswith("aten::"):
            return self._opaque(node)
        try:
            made = handler(call)
        except CannotLift:
            return self._opaque(node)
        left = call.untaken()
        if left:
            return self._opaque(node)
        return made

    def _note_modules(self, node: FxNode) -> None:
        """Remember the last value made inside each module: its output."""
        if isinstance(self.values[node], Value):
            for path, _ in (node.meta.get("nn_module_stack") or {}).values():
                name = str(path).removeprefix("module.")
                if name and name != "module":
                    self.modules[name] = self.values[node]

    def _opaque(self, node: FxNode) -> Any:
        """Keep an operation as it is, with the layouts of its operands and results."""
        operands: list[Value] = []

        def plain(item: Any) -> Any:
            if isinstance(item, FxNode) and isinstance(self.values.get(item), Value):
                operands.append(self.values[item])
                return {"operand": len(operands) - 1}
            if isinstance(item, FxNode):
                return {"size": self.size(item.meta["val"])}
            if isinstance(item, list | tuple):
                return [plain(one) for one in item]
            if isinstance(item, torch.dtype):
                return {"dtype": dtype_name(item)}
            if isinstance(item, torch.device | torch.layout | torch.memory_format):
                return {"ignored": str(item)}
            if isinstance(item, float) and item in (float("inf"), float("-inf")):
                return {"float": str(item)}
            return item

        schema = node.target._schema  # type: ignore[union-attr]
        if schema.is_mutable:
            raise CaptureError(f"{node.name}: {schema.name} changes a tensor in place and could not be functionalised")
        try:
            name_of(str(node.target))
        except CircuitError as error:
            raise CaptureError(f"{node.name}: {error}") from error
        arguments = json.dumps(
            [plain(list(node.args)), {key: plain(item) for key, item in sorted(node.kwargs.items())}]
        )
        operands = [materialised(item, [v for dim in item.dims for v in dim]) for item in operands]
        results = node.meta["val"]
        many = isinstance(results, list | tuple)
        made = [
            self._opaque_result(node, operands, arguments, place, item)
            for place, item in enumerate(results if many else [results])
        ]
        return made if many else made[0]

    def _opaque_result(self, node: FxNode, operands: list[Value], arguments: str, place: int, found: Any) -> Value:
        sizes = [self.size(size) for size in found.shape]
        dims: list[Dim] = []
        for at, size in enumerate(sizes):
            like = next(
                (
                    d
                    for o in operands
                    if len(o.dims) == len(sizes)
                    for i, d in enumerate(o.dims)
                    if i == at and o.sizes[i] == size
                ),
                None,
            )
            dims.append(() if size == 1 else like if like is not None else (Var(size, f"{node.name}.{place}.{at}"),))
        op = str(node.target)
        flat = tuple(dict.fromkeys(atoms(v for d in dims for v in d)))

        def make(names: Names, nodes: tuple[Node, ...]) -> Node:
            layouts = tuple(tuple(names(dim) for dim in item.dims) for item in operands)
            return Opaque(op, nodes, layouts, arguments, place, tuple(names(dim) for dim in dims))

        return Value(Proto(tuple(item.proto for item in operands), flat, make), tuple(dims))

    def _finish(self, result: FxNode, output: str) -> Circuit:
        value = self.values[result]
        value = materialised(value, [var for dim in value.dims for var in dim])
        for place, dim in enumerate(value.dims):
            if len(atoms(dim)) > 1:
                value = whole(value, place)
        names = axis_namer(value.proto)
        made = build(value.proto, names)
        table = {
            _module_address(path): made[id(found.proto)]
            for path, found in self.modules.items()
            if id(found.proto) in made
        }
        root = made[id(value.proto)]
        dims = tuple(names(dim) for dim in value.dims)
        table[layout_note(output)] = Opaque("aten.clone.default", (root,), (dims,), '[[{"operand": 0}], {}]', 0, dims)
        return Circuit({output: root}, table)


def _tensors(found: Any) -> bool:
    if isinstance(found, list | tuple):
        return any(isinstance(item, torch.Tensor) for item in found)
    return isinstance(found, torch.Tensor)


def _input(name: str, dims: tuple[tuple[Axis, ...], ...], dtype: str) -> Node:
    """Return an input as it is given, one axis for each dimension; one that the program cuts is split, one of size 1 goes."""
    whole = tuple(
        dim[0] if len(dim) == 1 else Axis(f"{name}.{place}", prod(int(axis.size) for axis in dim))
        for place, dim in enumerate(dims)
    )
    made: Node = Input(name, whole, dtype)
    for dim, axis in zip(dims, whole, strict=True):
        if not dim:
            made = Index(made, axis.name, 0)
        elif len(dim) > 1:
            made = Split(made, axis.name, dim)
    return made


def _leaf(dims: tuple[Dim, ...], make: Callable[[tuple[tuple[Axis, ...], ...]], Node]) -> Value:
    flat = tuple(var for dim in dims for var in dim)
    return Value(Proto((), flat, lambda names, _nodes: make(tuple(names(dim) for dim in dims))), dims)


def protos_below(top: Proto) -> list[Proto]:
    """Return every proto below `top` once, operands first."""
    order: list[Proto] = []
    seen: set[int] = set()
    stack: list[tuple[Proto, bool]] = [(top, False)]
    while stack:
        proto, ready = stack.pop()
        if ready:
            order.append(proto)
        elif id(proto) not in seen:
            seen.add(id(proto))
            stack.append((proto, True))
            stack.extend((item, False) for item in reversed(proto.operands))
    return order


def axis_namer(top: Proto) -> Names:
    """Return the function from variables to axes: fixed names, else the place where the variable first occurs."""
    table: dict[Var, Axis] = {}
    used: set[str] = set()

    def own_name(var: Var) -> str:
        name = var.fixed or var.origin
        while name in used:
            name += "'"
        used.add(name)
        return name

    def names(dims: Any) -> tuple[Axis, ...]:
        made: list[Axis] = []
        for var in atoms(dims):
            if var not in table:
                table[var] = Axis(own_name(var), var.size)
            made.append(table[var])
        return tuple(made)

    return names


def _module_address(path: str) -> str:
    try:
        return str(Address(None, Module(path), ""))
    except AddressError:  # a path that no address can name, such as one with a space
        return f".{path}"


def build(top: Proto, names: Names) -> dict[int, Node]:
    """Make the real nodes, operands first; returned by the identity of their protos."""
    made: dict[int, Node] = {}
    for proto in protos_below(top):
        made[id(proto)] = proto.make(names, tuple(made[id(item)] for item in proto.operands))
    return made
