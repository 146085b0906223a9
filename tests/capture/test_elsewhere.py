"""Modules that are no language model, from torch and from transformers: each becomes a circuit that equals it and can be changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import scrubjay as sj
from scrubjay.capture.check import examples
from scrubjay.capture.export import plain_path
from scrubjay.capture.model import Model
from scrubjay.circuit.ops import Opaque
from scrubjay.circuit.rules import expand_residual, split_heads
from scrubjay.claims.data import Dataset
from scrubjay.engine import evaluate
from scrubjay.errors import CaptureError, FixedSizeError, InputError

WIDTH, HEADS, HIDDEN = 16, 4, 24
STREAM = ("batch", "query", None)
IMAGE = ("batch", None, None, None)


def layer(*, norm_first: bool) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, batch_first=True, norm_first=norm_first)


class Alone(nn.Module):
    """An attention module that reads one value three times."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Vision(nn.Module):
    """A vision transformer in plain torch: patches by a convolution, a class token, learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.first, self.places = nn.Parameter(torch.randn(1, 1, WIDTH)), nn.Parameter(torch.randn(1, 7, WIDTH))
        self.encoder = nn.TransformerEncoder(layer(norm_first=True), 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, image: Tensor) -> Tensor:
        patches = self.patches(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(image.shape[0], -1, -1), patches], 1) + self.places
        return self.head(self.norm(self.encoder(tokens))[:, 0])


class Convolved(nn.Module):
    """A small convolutional network: overlapping windows, batch norm with its own statistics, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 2, 2)
        self.out = nn.Linear(32, 3)
        self.norm.running_mean, self.norm.running_var = torch.randn(4), torch.rand(4) + 0.5

    def forward(self, image: Tensor) -> Tensor:
        kept = torch.max_pool2d(torch.relu(self.norm(self.one(image))), 2)
        return self.out(torch.relu(self.two(kept)).flatten(1))


class Several(nn.Module):
    """Two inputs, a mapping of two results, a buffer, and one weight used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.register_buffer("scale", torch.randn(4))

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        hidden = torch.tanh(self.one(left) * self.scale)
        return {"hidden": hidden, "result": self.two(hidden) + right}


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def encoder(*, norm_first: bool) -> nn.Module:
    return nn.TransformerEncoder(layer(norm_first=norm_first), 2, enable_nested_tensor=False)


def padded(length: int, *, left: bool = True) -> dict[str, Tensor]:
    mask = torch.zeros(3, length, dtype=torch.bool)
    mask[1, -2:] = mask[2, :1] = True
    if not left:  # torch then packs the rows into a nested tensor on its fused path
        mask[2] = False
    return {"src": torch.randn(3, length, WIDTH), "src_key_padding_mask": mask}


MASKED = {"src": STREAM, "src_key_padding_mask": ("batch", "query")}
THREE = {name: torch.randn(2, 5, WIDTH) for name in ("query", "key", "value")}

Case = tuple[Callable[[], nn.Module], Callable[[int, int], dict[str, Tensor]], dict[str, Any], Any, int]

CASES: dict[str, Case] = {  # module, inputs of some rows and length, dynamic, output, operations kept whole
    "mlp": (mlp, lambda rows, _: {"input": torch.randn(rows, 6)}, {"input": ("batch", None)}, None, 0),
    "post-norm layer": (lambda: layer(norm_first=False), lambda rows, n: {"src": torch.randn(rows, n, WIDTH)}, {"src": STREAM}, None, 0),
    "pre-norm layer": (lambda: layer(norm_first=True), lambda rows, n: {"src": torch.randn(rows, n, WIDTH)}, {"src": STREAM}, None, 0),
    "post-norm, padded": (lambda: encoder(norm_first=False), lambda _, n: padded(n), MASKED, None, 0),
    "nested": (
        lambda: nn.TransformerEncoder(layer(norm_first=False), 2), lambda _, n: padded(n, left=False), MASKED, None, 0,
    ),
    "pre-norm, padded": (lambda: encoder(norm_first=True), lambda _, n: padded(n), MASKED, None, 0),
    "attention": (Alone, lambda rows, n: {"x": torch.randn(rows, n, WIDTH)}, {"x": STREAM}, None, 0),
    "three inputs": (
        lambda: nn.MultiheadAttention(WIDTH, HEADS, batch_first=True),
        lambda rows, n: {name: torch.randn(rows, n, WIDTH) for name in THREE},
        dict.fromkeys(THREE, STREAM), 0, 0,
    ),
    "vision": (Vision, lambda rows, _: {"image": torch.randn(rows, 3, 8, 12)}, {"image": IMAGE}, None, 0),
    "convolutions": (Convolved, lambda rows, _: {"image": torch.randn(rows, 1, 8, 8)}, {"image": IMAGE}, None, 2),
    "lstm": (
        lambda: nn.LSTM(6, 8, batch_first=True), lambda rows, _: {"input": torch.randn(rows, 4, 6)}, {"input": ("batch", None, None)}, 0, 1,
    ),
    "several": (
        Several, lambda rows, _: {name: torch.randn(rows, 4) for name in ("left", "right")},
        dict.fromkeys(("left", "right"), ("batch", None)), "result", 0,
    ),
}  # fmt: skip


def made(case: str) -> tuple[nn.Module, Model, dict[str, Tensor], Any]:
    """A module in 64 bits, its model, inputs of another size than it was captured with, and what it gives for them."""
    build, inputs, dynamic, output, _ = CASES[case]
    torch.manual_seed(0)
    module = build().eval().double()
    model = sj.load(module, inputs=wide(inputs(2, 5)), dynamic=dynamic, output=output, cache=None)
    other = wide(inputs(3, 7))
    return module, model, other, result(module, other, output)


def wide(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}


def result(module: nn.Module, inputs: dict[str, Tensor], output: Any = None) -> Tensor:
    with torch.no_grad(), plain_path():
        found = module(**inputs)
    return found if output is None else found[output]


def ours(model: Model, inputs: dict[str, Tensor], *changes: Any) -> Tensor:
    return sj.run(model, inputs, interventions=changes).output


def close(one: Tensor, two: Tensor) -> None:
    torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_circuit_equals_the_module(case: str) -> None:
    _, model, inputs, want = made(case)
    assert model.verdict is not None
    assert model.verdict.exact is True
    assert sum(isinstance(node, Opaque) for node in model.circuit.nodes) == CASES[case][4]
    close(ours(model, inputs), want)


@pytest.mark.parametrize("case", CASES)
def test_module_of_the_circuit_has_the_same_gradients(case: str) -> None:
    module, model, inputs, want = made(case)
    again = model.to_module()
    found = again(**inputs)
    close(found.detach(), want)
    mixture = torch.randn_like(want)
    with plain_path():
        theirs = module(**inputs)
    ((theirs if CASES[case][3] is None else theirs[CASES[case][3]]) * mixture).sum().backward()
    (found * mixture).sum().backward()
    slopes = {name: weight.grad for name, weight in again.named_parameters()}
    assert slopes.keys() == {name for name, _ in module.named_parameters()}
    for name, weight in module.named_parameters():
        slope = slopes[name]
        assert weight.grad is not None
        assert slope is not None
        close(slope, weight.grad)


def without_head(module: nn.MultiheadAttention, head: int) -> None:
    """Take what a head writes out of the module itself: its columns of the output projection."""
    size = WIDTH // HEADS
    with torch.no_grad():
        module.out_proj.weight[:, head * size : (head + 1) * size] = 0


PARTS: dict[str, Callable[[Any], nn.MultiheadAttention]] = {
    "attention": lambda module: module.attention,
    "three inputs": lambda module: module,
    "post-norm layer": lambda module: module.self_attn,
    "pre-norm, padded": lambda module: module.layers[0].self_attn,
    "vision": lambda module: module.encoder.layers[0].self_attn,
}


@pytest.mark.parametrize("case", PARTS)
def test_a_head_is_taken_out(case: str) -> None:
    module, model, inputs, want = made(case)
    assert model.heads[0] == HEADS
    changed = copy.deepcopy(module)
    without_head(PARTS[case](changed), 2)
    found = ours(model, inputs, sj.zero("L0.H2.out"))
    close(found, result(changed, inputs, CASES[case][3]))
    assert float((found - want).abs().max()) > 1e-3
    close(ours(model, inputs, sj.zero("L0.H2.z")), found)


@pytest.mark.parametrize("case", ["attention", "three inputs"])
def test_pattern_is_the_modules_own(case: str) -> None:
    module, model, inputs, _ = made(case)
    given = list(inputs.values())
    x = given if len(given) == 3 else given * 3
    with torch.no_grad():
        _, want = PARTS[case](module)(*x, need_weights=True, average_attn_weights=False)
    found = sj.run(model, inputs, keep=["L0.attn.pattern"])["L0.attn.pattern"]
    close(found.dense(("batch", "head", "query", "key")), want)


@pytest.mark.parametrize("case", ["post-norm, padded", "pre-norm, padded", "vision"])
def test_rewrites_keep_the_value(case: str) -> None:
    _, model, inputs, want = made(case)
    assert len(model.anatomy.layers) == 2
    split = split_heads(model.circuit)
    assert len(split.nodes) > len(model.circuit.nodes)
    for circuit in (split, expand_residual(model.circuit)):
        ((name, root),) = circuit.roots.items()
        found = evaluate([root], inputs, model.stores)[root].in_dims(model.circuit.layout(name))
        close(found, want)


def test_units_of_an_mlp_are_taken_out() -> None:
    module, model, inputs, _ = made("pre-norm, padded")
    changed: Any = copy.deepcopy(module)
    with torch.no_grad():
        changed.layers[1].linear2.weight[:, [3, 5]] = 0
    close(ours(model, inputs, sj.zero("L1.N3"), sj.zero("L1.N5")), result(changed, inputs))


class Groups(nn.Module):
    """An MLP whose hidden units come in two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Sequential(nn.Linear(4, 3), nn.ReLU()) for _ in range(2))
        self.out = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.cat([self.a(x), self.b(x)], -1))


def test_scrub_of_a_group_of_hidden_units() -> None:
    torch.manual_seed(0)
    module = Groups().eval().double()
    rows = torch.randn(40, 4, dtype=torch.float64)
    model = sj.load(module, inputs={"x": rows[:2]}, dynamic={"x": ("batch", None)}, cache=None)
    hypothesis = sj.Hypothesis("one group")
    hypothesis.node("all", "output").reads("a", ".a", "exact", via="all")
    found = sj.scrub(model, hypothesis, Dataset("rows", {"x": rows.numpy()}, np.arange(40) % 2), samples=64, seeds=1)
    reference, other = found.table["reference"], found.table["all/other"]
    with torch.no_grad():
        mixed = module.out(torch.cat([module.a(rows[reference]), module.b(rows[other])], -1))
    want = nn.functional.cross_entropy(mixed, torch.from_numpy(reference) % 2)
    assert found.scrubbed == pytest.approx(float(want), abs=1e-10)
    assert abs(found.scrubbed - found.original) > 1e-3


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("head", [False, True])
def test_vision_transformer_of_transformers(attention: str, head: bool) -> None:
    from transformers import ViTConfig, ViTForImageClassification, ViTModel  # noqa: PLC0415

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "intermediate_size": HIDDEN,
    }
    make: Any = ViTConfig
    config = make(image_size=8, patch_size=4, num_labels=3, attn_implementation=attention, **sizes)
    kind: Any = ViTForImageClassification if head else ViTModel
    module = kind(config).eval().double()
    model = sj.load(module, cache=None)
    assert model.heads == (HEADS, HEADS)
    assert not model.anatomy.notes
    assert not any(isinstance(node, Opaque) for node in model.circuit.nodes)
    images = {"pixel_values": torch.randn(3, 3, 8, 8, dtype=torch.float64)}

    def theirs() -> Tensor:
        with torch.no_grad():
            return module(**images)["logits" if head else "last_hidden_state"]

    close(ours(model, images), theirs())
    weight = next(
        weight for name, weight in module.named_parameters() if name.endswith("layers.1.attention.o_proj.weight")
    )
    with torch.no_grad():
        weight[:, :4] = 0
    want = theirs()
    with torch.no_grad():
        weight[:, :4] = 1
    close(ours(model, images, sj.zero("L1.H0.out")), want)


def test_patches_alone_are_positions() -> None:
    from transformers import SiglipVisionConfig, SiglipVisionModel  # noqa: PLC0415

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS}
    config: Any = SiglipVisionConfig(image_size=8, patch_size=2, intermediate_size=HIDDEN, **sizes)
    module = SiglipVisionModel(config).eval().double()
    model = sj.load(module, cache=None)
    images = {"pixel_values": torch.randn(3, 3, 8, 8, dtype=torch.float64)}
    run = sj.run(model, images, keep=["L0.H1.pattern"])
    with torch.no_grad():
        close(run.output, module(**images).last_hidden_state)
    assert run["L0.H1.pattern"].as_tensor().shape == (3, 16, 16)
    assert model.heads == (HEADS, HEADS)


def test_the_check_at_load_pads_some_rows() -> None:
    inputs = {"src": torch.randn(2, 5, WIDTH), "src_key_padding_mask": torch.zeros(2, 5, dtype=torch.bool)}
    model = sj.load(encoder(norm_first=True).eval(), inputs=inputs, dynamic=MASKED, cache=None)
    assert model.origin is not None
    mask = examples(model.origin, 3, 10)["src_key_padding_mask"]
    assert mask.any(1).tolist() == [False, True, True]
    assert not bool(mask.all(1).any())


def test_one_length_has_named_positions() -> None:
    torch.manual_seed(0)
    module = encoder(norm_first=True).eval()
    x = torch.randn(2, 6, WIDTH)
    model = sj.load(module, inputs={"src": x}, dynamic={"src": ("batch", None, None)}, cache=None)
    assert model.heads == (HEADS, HEADS)
    found = sj.run(model, {"src": x}, keep=["L1.H3.pattern@2"])["L1.H3.pattern@2"]
    assert found.names == ("batch", "key")
    assert found.as_tensor().shape == (2, 6)


def test_a_mapping_needs_a_choice() -> None:
    module, inputs = Several().eval(), {name: torch.randn(2, 4) for name in ("left", "right")}
    with pytest.raises(
        CaptureError,
        match=r"a circuit gives one tensor, and a dict was read off what the module returns: say with `pick` \(`output=` of load\)",
    ):
        sj.load(module, inputs=inputs, cache=None)
    model = made("several")[1]
    assert "two.weight" not in model.circuit.weights
    assert "one.weight" in model.circuit.weights


def test_recurrence_of_any_length_is_refused() -> None:
    with pytest.raises(FixedSizeError, match="leave it None there"):
        sj.load(
            nn.GRU(6, 8, batch_first=True).eval(), inputs={"input": torch.randn(2, 4, 6)},
            dynamic={"input": ("batch", "query", None)}, output=0, cache=None,
        )  # fmt: skip


def test_a_text_model_still_knows_its_own_inputs() -> None:
    from small_models import build  # noqa: PLC0415

    with pytest.raises(InputError, match="leave out dynamic= and output="):
        sj.load(build("gpt2"), inputs={"input_ids": torch.zeros(2, 5, dtype=torch.long)}, output="logits")
