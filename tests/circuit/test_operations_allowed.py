"""What a circuit can call: functions of tensors, and nothing that reads, writes, draws at random or changes its arguments."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import families
import scrubjay as sj
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import topological
from scrubjay.circuit.ops import Add, Input, Opaque
from scrubjay.circuit.ops.aten import PERMITTED, SEEDED
from scrubjay.circuit.printing import parse, write
from scrubjay.circuit.serial import from_text, to_text
from scrubjay.engine import evaluate
from scrubjay.engine.kernels import _aten  # pyright: ignore[reportPrivateUsage]
from scrubjay.errors import CircuitError, EvaluationError, LoadError, ScrubjayError

X = Input("x", (Axis("model", 4),))
DIMS = ((Axis("model", 4),),)
ONE = '[[{"operand": 0}], {}]'


def kept(op: str = "aten.tanh.default", arguments: str = ONE, result: int = 0) -> Opaque:
    return Opaque(op, (X,), (DIMS,), arguments, result, DIMS)


@pytest.mark.parametrize(
    "op",
    [
        "aten.from_file.default", "aten.rand_like.default", "aten.bernoulli.default", "aten.multinomial.default", "aten.tanh_.default",
        "aten.empty_like.default", "aten.as_strided.default", "aten.set.source_Storage", "aten.resize.default", "aten.save.default",
        "aten.dropout.default", "aten._foobar.default", "os.system", "aten.system.default", "prims.add.default", "aten.__class__.default",
        "aten.tanh.__globals__", "aten.lstm.input.__globals__", "aten.tanh", "aten.tanh.default ", "",
    ],
)  # fmt: skip
def test_no_other_operation_can_stand_in_a_circuit(op: str):
    with pytest.raises(CircuitError, match="may not stand in a circuit"):
        kept(op)


@pytest.mark.parametrize(
    "arguments",
    [
        "nothing", "[]", "[[], {}]", '[["/etc/passwd", {"operand": 0}], {}]', '[[{"operand": 1}], {}]', '[[{"operand": -1}], {}]',
        '[[{"operand": 0}], {"file": "x"}]', '[[{"operand": 0}, {"call": "x"}], {}]', '[[{"operand": 0}, {"size": "a", "b": 1}], {}]',
        f"[[{'[' * 9}{{\"operand\": 0}}{']' * 9}], {{}}]", "[" * 5000, '[[{"operand": true}], {}]', '{"a": 1}',
    ],
)  # fmt: skip
def test_arguments_are_operands_numbers_sizes_types_and_choices(arguments: str):
    with pytest.raises(CircuitError, match=r"argument|is called with"):
        kept(arguments=arguments)


def test_a_result_is_one_that_the_operation_gives():
    with pytest.raises(CircuitError, match="result -1"):
        kept(result=-1)
    with pytest.raises(EvaluationError, match="gives 2 results"):
        evaluate([far := kept("aten.sort.default", result=2)], {"x": torch.randn(4)}, {})[far]


def test_reading_refuses_what_no_node_can_hold(tmp_path):
    circuit = Circuit({"output": kept()})
    stored = to_text(circuit).replace("aten.tanh.default", "aten.from_file.default")
    with pytest.raises(CircuitError, match="may not stand"):
        from_text(stored, {})
    with pytest.raises(CircuitError, match=r"line 3, .*may not stand"):
        parse(write(circuit).replace("aten.tanh.default", "aten.from_file.default"))


def test_a_saved_model_that_would_read_a_file_is_not_loaded(tmp_path):
    model = sj.load(families.build("gpt2", 0), cache=None)
    logits = model.circuit.roots["logits"]
    dims = tuple((axis,) for axis in logits.axes)
    call = Opaque("aten.tanh.default", (logits,), (dims,), ONE, 0, dims)
    folder = sj.save(
        replace(model, circuit=model.circuit.rewrite({logits: Add((logits, call))}, "added")), tmp_path / "m"
    )
    victim = tmp_path / "victim"
    evil = json.dumps([[str(victim), True, 4], {}])
    text = (
        (folder / "circuit.json")
        .read_text()
        .replace(json.dumps(ONE), json.dumps(evil), 1)
        .replace("aten.tanh.default", "aten.from_file.default")
    )
    (folder / "circuit.json").write_text(text)
    from scrubjay.capture import saved  # noqa: PLC0415
    from scrubjay.evidence.digest import digest_json  # noqa: PLC0415

    manifest = json.loads((folder / "scrubjay.json").read_text())
    manifest["files"]["circuit.json"] = saved._digest(folder / "circuit.json")  # pyright: ignore[reportPrivateUsage]
    body = {key: value for key, value in manifest.items() if key != "digest"}
    (folder / "scrubjay.json").write_text(json.dumps({**body, "digest": digest_json(body)}))
    with pytest.raises(LoadError, match=r"from_file.*may not stand"):
        sj.load(folder)
    assert not victim.exists()


@pytest.mark.parametrize(
    "op", ["aten.from_file.default", "aten.tanh_.default", "aten.bernoulli.default", "aten.tanh.nonesuch"]
)
def test_evaluation_looks_again(op: str):
    with pytest.raises(EvaluationError, match="may be evaluated"):
        _aten(op)


def test_the_schemas_of_torch_agree_with_the_list():
    unlike: list[str] = []
    for name in sorted(PERMITTED):
        packet = getattr(torch.ops.aten, name)
        fits = 0
        for overload in packet.overloads():
            try:
                _aten(f"aten.{name}.{overload}")
            except EvaluationError:
                continue
            fits += 1
        if not fits:
            unlike.append(name)
    assert unlike == []
    assert SEEDED <= PERMITTED
    assert not {
        name
        for name in PERMITTED
        for word in ("rand", "file", "storage", "resize", "strided", "set_", "empty")
        if word in name
    }


class Recurrent(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.LSTM(4, 5, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)[0]


def test_a_recurrent_module_is_still_captured_and_may_not_drop():
    module, x = Recurrent().eval(), torch.randn(2, 3, 4)
    model = sj.load(module, inputs={"x": x}, cache=None)
    torch.testing.assert_close(sj.run(model, {"x": x}).output, module(x))
    (node,) = {node for node in model.circuit.nodes if isinstance(node, Opaque) and "lstm" in node.op}
    args, kwargs = json.loads(node.arguments)
    dropping = Opaque(
        node.op,
        node.inputs,
        node.layouts,
        json.dumps([[*args[:5], 0.5, True, *args[7:]], kwargs]),
        node.result,
        node.dims,
    )
    changed = replace(model, circuit=model.circuit.rewrite({node: dropping}, "dropping"))
    with pytest.raises(EvaluationError, match="drop values at random"):
        sj.run(changed, {"x": x})


class Sampling(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


def test_a_module_that_draws_at_random_is_not_captured():
    with pytest.raises(ScrubjayError, match="may not stand in a circuit"):
        sj.load(Sampling().eval(), inputs={"x": torch.randn(2, 3)}, cache=None)


def test_every_operation_that_families_keep_is_listed():
    for family in ("llama4_text", "mpt", "gpt2"):
        model = sj.load(families.build(family, 0), cache=None)
        for node in topological([*model.circuit.roots.values(), *model.circuit.table.values()]):
            if isinstance(node, Opaque):
                assert callable(_aten(node.op))
