"""What is not understood is told and stays apart: the stream is right around it, and no direct path runs through it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import families
import scrubjay as sj
from scrubjay.capture.model import Model
from scrubjay.circuit.address import parse
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.graph import above
from scrubjay.circuit.ops import Along, Input, Map
from scrubjay.claims.route import parse_route
from scrubjay.errors import HypothesisError
from scrubjay.scrubbing.route import Context, Routes, check_gaps

WIDTH, HEADS, HIDDEN = 16, 2, 24


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        allowed = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        scores = (q @ k.transpose(-1, -2) * 0.3).masked_fill(~allowed, -1e9)
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(-2))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x)))


class Odd(nn.Module):
    """Position by position, and no MLP that is known: a(x) + tanh(b(x))."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + torch.tanh(self.b(x))


class Summing(nn.Module):
    """Another way to read earlier positions than attention."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.into(x)).cumsum(1) * 0.1)


PARTS = {"attention": Attention, "mlp": Mlp, "odd": Odd, "summing": Summing, "jump": lambda: nn.Linear(WIDTH, WIDTH)}
ORDERS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "(a + m) + x": lambda x, a, m: (a + m) + x,
    "(m + a) + x": lambda x, a, m: (m + a) + x,
    "(x + a) + m": lambda x, a, m: (x + a) + m,
    "a + (m + x)": lambda x, a, m: a + (m + x),
    "x + (m + a)": lambda x, a, m: x + (m + a),
}


class Block(nn.Module):
    def __init__(self, kinds: tuple[str, ...], order: str = "") -> None:
        super().__init__()
        self.kinds, self.order = kinds, order
        self.parts = nn.ModuleDict({f"{kind}{place}": PARTS[kind]() for place, kind in enumerate(kinds)})
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in kinds)

    def forward(self, x: Tensor) -> Tensor:
        if self.order:
            a, m = (part(self.norms[0](x)) for part in self.parts.values())
            return ORDERS[self.order](x, a, m)
        for norm, (name, part) in zip(self.norms, self.parts.items(), strict=True):
            x = torch.sin(part(x)) if name.startswith("jump") else x + part(norm(x))
        return x


class Toy(nn.Module):
    """A stack of blocks, listed as a numbered list of modules or each under a name of its own."""

    def __init__(
        self, blocks: tuple[tuple[str, ...], ...], order: str = "", listed: bool = True, masked: bool = False
    ) -> None:
        super().__init__()
        self.masked = masked
        self.embed, self.norm, self.unembed = nn.Embedding(11, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 11)
        made = [Block(kinds, order) for kinds in blocks]
        self.names = [f"blocks.{i}" if listed else f"block_{chr(97 + i)}" for i in range(len(made))]
        if listed:
            self.blocks = nn.ModuleList(made)
        else:
            for name, block in zip(self.names, made, strict=True):
                self.add_module(name, block)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        for name in self.names:
            x = self.get_submodule(name)(x)
            x = x * (input_ids != 3).unsqueeze(-1) if self.masked else x
        return self.unembed(self.norm(x))


IDS = torch.arange(24).reshape(4, 6) % 11


@functools.cache
def toy(
    blocks: tuple[tuple[str, ...], ...], order: str = "", listed: bool = True, masked: bool = False
) -> tuple[Any, Model]:
    torch.manual_seed(0)
    module = Toy(blocks, order, listed, masked).eval()
    return module, sj.load(module, inputs={"input_ids": IDS[:2]}, cache=None)


def kept(model: Model, *sites: str) -> list[Tensor]:
    run = sj.run(model, {"input_ids": IDS}, list(sites))
    return [run.values[site].as_tensor() for site in sites]


def frozen_for(model: Model, sender: str, reader: str) -> tuple[Circuit, Routes]:
    """Return the circuit in which a reader sees what a sender writes by direct paths only, and the routes that make it."""
    check_gaps(model.anatomy, parse(reader), parse(sender))
    made: list[Circuit] = []

    def put(circuit: Circuit, _context: Context) -> Circuit:
        made.append(circuit)
        return circuit

    routes = Routes(model.circuit, model.anatomy, parse(reader), [parse_route("direct")], put)
    routes.node(lambda circuit: circuit.roots[model.anatomy.result])
    return made[-1], routes


def below_and_above(model: Model, sender: str, reader: str) -> list[object]:
    """Return the nodes on the paths from a value to another that are left when all but direct paths are frozen."""
    frozen, _ = frozen_for(model, sender, reader)
    reached = above([frozen.roots[model.anatomy.result]], [frozen.node("L0.attn._product")])
    return [node for node in frozen.nodes if node in reached]


def test_an_mlp_that_is_not_known_is_told_and_is_a_term_of_its_own():
    _, model = toy((("attention", "odd"), ("attention", "odd")))
    assert [layer.kinds for layer in model.anatomy.layers] == [("attn", "mlp")] * 2
    (note,) = model.anatomy.notes
    assert note.startswith("L0..1: the MLP was not understood")
    assert "mlp.post" not in model.anatomy.shape.layers[0].sites
    before, mid, attention, odd, after, following = kept(
        model, "L0.resid_pre", "L0.resid_mid", "L0.attn.out", "L0.mlp.out", "L0.resid_post", "L1.resid_pre"
    )
    torch.testing.assert_close(before + attention, mid)
    torch.testing.assert_close(mid + odd, after)
    assert torch.equal(after, following)


@pytest.mark.parametrize("second", [("odd",), ("mlp", "mlp"), ("summing",), ("mlp", "odd")], ids=" ".join)
def test_no_direct_path_runs_through_what_is_not_known(second: tuple[str, ...]):
    _, model = toy((("attention", *second), ("attention", *second)))
    left = below_and_above(model, "L0.H0.out", "logits")
    assert left
    assert not [node for node in left if isinstance(node, Map) and node.op in {"tanh", "relu"}]
    assert not [node for node in left if isinstance(node, Along) and node.op in {"softmax", "cumsum"}]
    frozen, routes = frozen_for(model, "L0.H0.out", "logits")
    leaves = [node for node in frozen.nodes if isinstance(node, Input) and node.name.startswith("frozen.")]
    assert leaves
    assert frozen.history == ("some paths only",)
    assert routes.node(lambda circuit: circuit.roots["logits"]) is model.circuit.roots["logits"], "nothing was put in"


def test_what_is_no_addition_is_a_gap_that_no_direct_path_crosses():
    _, model = toy((("attention", "mlp", "jump"), ("attention", "mlp")), listed=False)
    assert model.anatomy.gaps == {1}
    assert not model.anatomy.additive
    (note,) = model.anatomy.notes
    assert note.startswith("between L0.resid_post and L1.resid_pre stands something that is no residual addition")
    after, following = kept(model, "L0.resid_post", "L1.resid_pre")
    assert not torch.allclose(after, following)
    for sender in ("embed", "L0.H1.out", "L0.mlp.out"):
        with pytest.raises(HypothesisError, match=r"between L0.resid_post and L1.resid_pre .* use via='all'"):
            frozen_for(model, sender, "logits")
    frozen_for(model, "L1.H0.out", "logits")
    frozen_for(model, "embed", "L0.mlp.in")


def test_a_stream_that_padding_is_struck_from_is_one_stream_and_no_plain_sum():
    _, model = toy((("attention", "mlp"),) * 2, masked=True)
    assert [layer.kinds for layer in model.anatomy.layers] == [("attn", "mlp")] * 2
    assert not model.anatomy.gaps
    assert not model.anatomy.notes
    assert not model.anatomy.additive
    after, following = kept(model, "L0.resid_post", "L1.resid_pre")
    assert torch.equal(after * (IDS != 3).unsqueeze(-1), following)


def test_a_second_mlp_of_a_block_is_told_and_the_layer_ends_where_the_block_does():
    module, model = toy((("attention", "mlp", "mlp"), ("attention", "mlp", "mlp")))
    assert [layer.kinds for layer in model.anatomy.layers] == [("attn", "mlp", "mlp")] * 2
    assert [layer.module for layer in model.anatomy.layers] == ["blocks.0", "blocks.1"]
    (note,) = model.anatomy.notes
    assert note == "L0..1: a further MLP is added to the stream: it is addressed by module path"
    got, path = kept(model, "L0.resid_post", "blocks.0")
    assert torch.equal(got, path)
    with torch.no_grad():
        torch.testing.assert_close(got, module.blocks[0](module.embed(IDS)))


def test_without_a_list_of_modules_a_second_mlp_is_a_layer():
    _, model = toy((("attention", "mlp", "mlp"), ("attention", "mlp")), listed=False)
    assert [layer.kinds for layer in model.anatomy.layers] == [("attn", "mlp"), ("mlp",), ("attn", "mlp")]
    assert not model.anatomy.notes
    assert [layer.heads for layer in model.anatomy.layers] == [2, 0, 2]
    assert "L1.mlp.post" in model.sites
    assert "L1.H*.z" not in model.sites


def test_layers_are_the_blocks_of_the_model_also_where_few_have_attention():
    module, model = toy((("summing",), ("mlp",), ("summing", "mlp"), ("attention",), ("mlp",)))
    assert [layer.kinds for layer in model.anatomy.layers] == [
        ("mixer",), ("mlp",), ("mixer", "mlp"), ("attn",), ("mlp",),
    ]  # fmt: skip
    (note,) = model.anatomy.notes
    assert note.startswith("L0, L2: a mixer that is no attention")
    assert model.anatomy.additive
    stream = module.embed(IDS)
    for number, block in enumerate(module.blocks):
        before, after = kept(model, f"L{number}.resid_pre", f"L{number}.resid_post")
        torch.testing.assert_close(before, stream.detach())
        stream = block(stream)
        torch.testing.assert_close(after, stream.detach())
    (written,) = kept(model, "L2.mixer.out")
    block = module.blocks[2]
    torch.testing.assert_close(
        written, block.parts["summing0"](block.norms[0](kept(model, "L2.resid_pre")[0])).detach()
    )
    before = sj.run(model, {"input_ids": IDS}, ["L2.resid_mid"], [sj.zero("L2.mixer.out")])
    torch.testing.assert_close(before.values["L2.resid_mid"].as_tensor(), kept(model, "L2.resid_pre")[0])


@pytest.mark.parametrize("order", ORDERS)
def test_parallel_blocks_are_found_in_every_order_of_their_sum(order: str):
    module, model = toy((("attention", "mlp"),) * 2, order)
    assert not model.anatomy.notes
    assert model.anatomy.additive
    assert all(layer.parallel and layer.kinds == ("attn", "mlp") for layer in model.anatomy.layers)
    before, attention, mlp, after, reads = kept(
        model, "L1.resid_pre", "L1.attn.out", "L1.mlp.out", "L1.resid_post", "L1.mlp.in"
    )
    assert "L1.resid_mid" not in model.circuit.table
    assert torch.equal(before, reads)
    block = module.blocks[1]
    with torch.no_grad():
        torch.testing.assert_close(attention, block.parts["attention0"](block.norms[0](before)))
        torch.testing.assert_close(mlp, block.parts["mlp1"](block.norms[0](before)))
        torch.testing.assert_close(after, block(before))


def test_a_decoder_has_its_own_attention_and_one_to_the_encoder():
    module = families.build("t5")
    model = sj.load(module, cache=None)
    assert [layer.kinds for layer in model.anatomy.layers] == [("attn", "cross", "mlp")] * 2
    assert model.anatomy.positions == "relative"
    assert [note.partition(":")[0] for note in model.anatomy.notes] == [
        "2 attentions within another sequence (an encoder)", "L0..1",
    ]  # fmt: skip
    assert model.circuit.node("L1.attn.pattern").axis_names == {"batch", "head", "query", "key"}
    inputs = {name: value for name, value in families.batch(module, 3, 9).items() if name in model.circuit.inputs}
    sites = [f"L1.{site}" for site in ("resid_pre", "attn.out", "cross.out", "mlp.out", "resid_post")]
    run = sj.run(model, inputs, sites)
    *parts, after = (run.values[site].as_tensor() for site in sites)
    torch.testing.assert_close(torch.stack(parts).sum(0), after)
    frozen, _ = frozen_for(model, "L0.H0.out", model.anatomy.result)
    reached = above(list(frozen.roots.values()), [frozen.node("L0.attn._product")])
    assert not [node for node in frozen.nodes if node in reached and isinstance(node, Along) and node.op == "softmax"]
