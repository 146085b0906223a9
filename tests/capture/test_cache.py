"""Captured circuits on disk: read back exactly, never stale, replaced when damaged, and the constants beside them."""

from __future__ import annotations

import copy
import functools
import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from scrubjay.capture import cache
from scrubjay.capture.cache import cached, key
from scrubjay.capture.export import Captured, Signature, capture, store_of
from scrubjay.circuit.circuit import is_note
from scrubjay.engine.evaluate import evaluate
from scrubjay.errors import CacheError, CaptureError


class Block(nn.Module):
    """A module with everything that a circuit can depend on."""

    gain = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.second = nn.Linear(3, 4)
        self.scale = 0.5
        self.pair = [torch.tensor([1.0, 7.0, 2.0, 4.0])]
        self.plain = torch.tensor([5.0, 6.0, 7.0, 8.0])
        self.register_buffer("shift", torch.tensor([0.1, 0.2, 0.3, 0.4]), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x).relu() * self.scale * self.gain
        made = self.second(hidden) * torch.tensor([1.0, 2.0, 3.0, 0.1]).to(x)
        return made + self.pair[0] + self.plain + self.shift


def signature(**changes: Any) -> Signature:
    given: dict[str, Any] = {
        "inputs": {"x": torch.ones(2, 4)},
        "dynamic": {"x": ("batch", None)},
        "pick": lambda result: result,
        **changes,
    }
    return Signature(**given)


def block() -> Block:
    torch.manual_seed(0)
    return Block().eval()


def value(captured: Captured, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    (root,) = captured.circuit.roots.values()
    found = evaluate([root], {"x": x}, {"model": store_of(module, captured.constants)})[root]
    return found.dense(["batch", *(name for name in found.names if name != "batch")])


@pytest.fixture
def uncaptured(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Give a function after which nothing can be captured any more."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("captured again")

    return lambda: monkeypatch.setattr(torch.export, "export", never)


def test_the_second_load_captures_nothing(tmp_path: Path, uncaptured: Callable[[], None]) -> None:
    module = block()
    first = cached(module, signature(), tmp_path / "new" / "folder")
    uncaptured()
    second = cached(block(), signature(), tmp_path / "new" / "folder")
    assert second.circuit.roots == first.circuit.roots
    assert second.circuit.table == first.circuit.table
    assert second.limits == first.limits
    assert second.constants.keys() == first.constants.keys()
    x = torch.randn(5, 4)
    assert torch.equal(value(second, module, x), value(first, module, x))
    torch.testing.assert_close(value(second, module, x), module(x))


def test_another_process_finds_it(tmp_path: Path) -> None:
    script = f"""
import sys, torch
from pathlib import Path
from torch import nn
from scrubjay.capture.cache import cached
from scrubjay.capture.export import Signature
if sys.argv[1] == "again":
    torch.export.export = None
module = nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2)).eval()
cached(module, Signature({{"input": torch.ones(2, 4)}}, {{"input": ("batch", None)}}, lambda result: result), Path({str(tmp_path)!r}))
"""
    for turn, seed in (("first", "1"), ("again", "2")):
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script, turn], check=True, env={"PYTHONHASHSEED": seed, "PATH": ""}
        )
    assert len([*tmp_path.iterdir()]) == 1


def test_weights_are_free_to_change(tmp_path: Path, uncaptured: Callable[[], None]) -> None:
    cached(block(), signature(), tmp_path)
    uncaptured()
    torch.manual_seed(1)
    other = Block().eval()
    other.shift = torch.tensor([4.0, 3.0, 2.0, 1.0])
    other.to(torch.bfloat16).float()
    x = torch.randn(3, 4)
    torch.testing.assert_close(value(cached(other, signature(), tmp_path), other, x), other(x))


def test_no_folder_means_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = block()
    x = torch.randn(3, 4)
    torch.testing.assert_close(value(cached(module, signature(), None), module, x), module(x))
    assert [*tmp_path.iterdir()] == []


def test_the_name_of_the_store_is_the_callers(tmp_path: Path, uncaptured: Callable[[], None]) -> None:
    first = cached(block(), signature(), tmp_path, source="here")
    uncaptured()
    second = cached(block(), signature(), tmp_path, source="there")
    assert {leaf.source for leaf in first.circuit.weights.values()} == {"here"}
    assert {leaf.source for leaf in second.circuit.weights.values()} == {"there"}


class Edited(Block):
    """A subclass that computes the same so far."""


class Renamed(Block):
    """A subclass that computes another thing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 1


def act(x: torch.Tensor) -> torch.Tensor:
    return x.relu()


class Reaching(nn.Module):
    """A module whose code is elsewhere."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def hooked(module: Block) -> None:
    module.first.register_forward_hook(lambda *given: given[-1] * 2)


CHANGES: dict[str, Callable[[Block], object]] = {
    "a number": lambda module: setattr(module, "scale", 0.25),
    "a number's type": lambda module: setattr(module, "scale", 1),
    "a tensor in a list": lambda module: module.pair.__setitem__(0, torch.zeros(4)),
    "a hook": hooked,
    "a layer": lambda module: setattr(module, "second", nn.Linear(3, 4, bias=False)),
    "a layer's kind": lambda module: setattr(module, "first", nn.Sequential(nn.Linear(4, 3))),
    "a tie": lambda module: setattr(module.second, "bias", module.second.weight),
    "a shape": lambda module: setattr(module, "plain", torch.zeros(1)),
    "a weight's type": lambda module: module.second.double(),
    "a method of the instance": lambda module: setattr(module, "forward", types.MethodType(Renamed.forward, module)),
    "a class": lambda module: setattr(module, "__class__", Edited),
    "a class's code": lambda module: setattr(module, "__class__", Renamed),
    "training": lambda module: module.train(),
    "training of a part": lambda module: module.first.train(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_the_circuit_changes_the_key(change: str) -> None:
    module = block()
    before = key(module, signature())
    assert before == key(block(), signature())
    CHANGES[change](module)
    assert key(module, signature()) != before


def test_the_signature_is_part_of_the_key() -> None:
    module = block()
    base = key(module, signature())
    changed = [
        signature(inputs={"x": torch.ones(3, 4)}),
        signature(inputs={"x": torch.ones(2, 4, dtype=torch.float64)}),
        signature(dynamic={"x": ("row", None)}),
        signature(pick=lambda result: result[0]),
        signature(fixed={"flag": True}),
        signature(fixed={"flag": 1}),
        signature(result="logits"),
    ]
    keys = [key(module, each) for each in changed] + [key(module, signature(), {"attention": "eager"})]
    assert len({base, *keys}) == len(keys) + 1


def test_values_that_functions_close_over_are_part_of_the_key() -> None:
    def times(number: float) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: act(x) * number

    keys = [
        key(Reaching(each), signature())
        for each in (
            times(2.0),
            times(3.0),
            times(2),
            functools.partial(torch.mul, other=2.0),
            functools.partial(torch.mul, other=3.0),
        )
    ]
    assert None not in keys
    assert len({*keys}) == len(keys)
    assert keys[0] == key(Reaching(times(2.0)), signature())


def test_an_edited_function_of_the_user_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Reaching(lambda x: act(x))  # noqa: PLW0108 - the name is to be looked up when it runs
    before = key(module, signature())
    monkeypatch.setitem(globals(), "act", lambda x: x.tanh())
    assert key(module, signature()) != before


def test_an_edited_class_is_captured_again(tmp_path: Path) -> None:
    x = torch.randn(3, 4)
    for text in ("x + 1", "x + 2"):
        space: dict[str, Any] = {"nn": nn}
        exec(f"class Mine(nn.Module):\n    def forward(self, x):\n        return {text}\n", space)
        module = space["Mine"]().eval()
        torch.testing.assert_close(value(cached(module, signature(), tmp_path), module, x), module(x))
    assert len([*tmp_path.iterdir()]) == 2


def test_a_class_value_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(block(), signature())
    monkeypatch.setattr(Block, "gain", 3.0)
    assert key(block(), signature()) != before


def test_what_cannot_be_described_is_not_kept(tmp_path: Path) -> None:
    module: Any = Reaching(act).eval()
    module.place = object()
    assert key(module, signature()) is None
    x = torch.randn(3, 4)
    torch.testing.assert_close(value(cached(Reaching(act).eval(), signature(), tmp_path), module, x), act(x))
    torch.testing.assert_close(value(cached(module, signature(), tmp_path), module, x), act(x))
    assert len([*tmp_path.iterdir()]) == 1


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def edit(content: bytes) -> bytes:
        data = json.loads(content)
        change(data)
        return json.dumps(data).encode()

    return edit


def resigned(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def edit(data: dict[str, Any]) -> None:
        change(data["body"])
        data["digest"] = cache._digest(data["body"])

    return edited(edit)


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "cut": (".json", cut),
    "empty": (".json", lambda _: b""),
    "not text": (".json", lambda _: b"\xff\xfe\x00"),
    "a list": (".json", lambda _: b"[]"),
    "nested": (".json", lambda _: b"[" * 100_000),
    "another value": (".json", edited(lambda data: data["body"]["limits"].update(batch=7))),
    "another version": (".json", edited(lambda data: data.update(version=0))),
    "another format": (".json", edited(lambda data: data.update(format="other"))),
    "a hostile circuit": (".json", resigned(lambda body: body["circuit"]["nodes"].append(["Add", [99]]))),
    "cut constants": (".safetensors", cut),
    "other constants": (".safetensors", lambda content: content[:-1] + b"\0"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_replaced(damage: str, tmp_path: Path) -> None:
    module, x = block(), torch.randn(3, 4)
    cached(module, signature(), tmp_path)
    good = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    suffix, change = DAMAGE[damage]
    (place,) = tmp_path.glob(f"*{suffix}")
    place.write_bytes(change(place.read_bytes()))
    torch.testing.assert_close(value(cached(module, signature(), tmp_path), module, x), module(x))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == good


def test_missing_constants_are_made_again(tmp_path: Path) -> None:
    module, x = block(), torch.randn(3, 4)
    cached(module, signature(), tmp_path)
    (place,) = tmp_path.glob("*.safetensors")
    place.unlink()
    torch.testing.assert_close(value(cached(module, signature(), tmp_path), module, x), module(x))
    assert place.exists()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=rf"kept in {tmp_path}/file/inner.*cache=\.\.\., or cache=None"):
        cached(block(), signature(), tmp_path / "file" / "inner")


def test_training_mode_is_refused_with_a_cache_too(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="training mode"):
        cached(block().train(), signature(), tmp_path)


def test_the_default_folder_is_the_users() -> None:
    assert cache.default_folder().parts[-2:] == ("scrubjay", "circuits")


# Constants: tensors that the module makes of plain numbers.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_constants_are_found_at_evaluation(dtype: torch.dtype) -> None:
    module = block()
    captured = capture(module, signature())
    # plain attributes stay the module's own; what it has no name for is kept
    assert "plain" in captured.circuit.weights
    assert len(captured.constants) == 2
    module.to(dtype)
    x = torch.randn(3, 4).to(dtype)
    torch.testing.assert_close(value(captured, module, x), module(x))


class OwnType(nn.Module):
    """Constants made in the model's own type."""

    def __init__(self, tensor: Callable[[torch.dtype], torch.Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.tensor = tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.layer(x)
        return torch.where(made > 0, made, self.tensor(made.dtype)).softmax(-1) + made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "tensor",
    [
        lambda dtype: torch.tensor([0.1, 0.2, 0.3, 1e-3], dtype=dtype),
        lambda dtype: torch.tensor(torch.finfo(dtype).min, dtype=dtype),
        lambda dtype: torch.tensor([float("-inf"), 0.1, 0.0, 2.0], dtype=dtype),
    ],
    ids=["numbers", "least", "infinite"],
)
def test_constants_of_the_models_own_type_are_not_rounded(
    tensor: Callable[[torch.dtype], torch.Tensor], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    module = OwnType(tensor).eval()
    captured = capture(module, signature())
    below = set(captured.circuit.nodes)
    assert all(node in below for address, node in captured.circuit.table.items() if not is_note(address))
    module.to(dtype)
    x = torch.randn(3, 4).to(dtype)
    atol, rtol = (2e-3, 2e-2) if dtype.itemsize == 2 else (1e-6, 1e-5)
    torch.testing.assert_close(value(captured, module, x), module(x), atol=atol, rtol=rtol)


def test_a_constant_that_differs_by_type_is_refused() -> None:
    module = OwnType(lambda dtype: torch.tensor([0.0, 1.0, 2.0, torch.finfo(dtype).min], dtype=dtype)).eval()
    with pytest.raises(CaptureError, match="greatest number of its floating type"):
        capture(module, signature())


def test_buffers_in_no_checkpoint_are_the_modules_own() -> None:
    module = block()
    captured = capture(module, signature())
    module.shift = torch.tensor([9.0, 9.0, 9.0, 9.0])
    x = torch.randn(3, 4)
    torch.testing.assert_close(value(captured, module, x), module(x))


def test_a_model_of_transformers_is_found_again(tmp_path: Path, uncaptured: Callable[[], None]) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel  # noqa: PLC0415

    from scrubjay.capture.hub import describe  # noqa: PLC0415

    config = GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=19, n_positions=32, bos_token_id=0, eos_token_id=0)
    opened = describe(GPT2LMHeadModel(copy.deepcopy(config)).eval())
    first = cached(opened.module, opened.signature, tmp_path, opened.facts)
    for change in (
        {"layer_norm_epsilon": 0.1},
        {"activation_function": "relu"},
        {"scale_attn_by_inverse_layer_idx": True},
    ):
        other = describe(GPT2LMHeadModel(GPT2Config(**{**config.to_dict(), **change})).eval())
        assert key(other.module, other.signature, other.facts) != key(opened.module, opened.signature, opened.facts)
    uncaptured()
    with torch.no_grad():
        opened.module(**opened.signature.inputs)
    again = describe(GPT2LMHeadModel(copy.deepcopy(config)).eval())
    assert cached(again.module, again.signature, tmp_path, again.facts).circuit.roots == first.circuit.roots
