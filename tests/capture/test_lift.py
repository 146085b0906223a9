"""Small modules, one operation or two each, captured and run at other sizes: always the module's own values.

An operation that is not understood, or is called with an argument that is not, stays whole (`Opaque`): right, if slower. The
cases say which those are, so that one that ceases to be understood is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import scrubjay as sj
from scrubjay.circuit.ops import Along, Gather, Opaque
from scrubjay.errors import CaptureError
from small_models import CONTEXT

WIDTH = 6
SIZES = ((3, 7), (1, 5), (4, 1), (1, 1))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Called(nn.Module):
    """A function of x (batch, query, 6), of weights `w` (5, 6), `u` (6, 4) and `v` (6), and of ids (batch, query)."""

    def __init__(self, function: Callable[..., Any], *, ids: bool = False) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.w, self.u, self.v = (nn.Parameter(torch.randn(shape, generator=draw)) for shape in ((5, 6), (6, 4), (6,)))
        self.table = nn.Parameter(torch.randn(9, 6, generator=draw))
        self.function = function
        self.ids = ids

    def forward(self, x: Tensor, ids: Tensor | None = None) -> Tensor:
        return self.function(self, x, ids) if self.ids else self.function(self, x)


def given(rows: int, length: int, *, ids: bool, seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed + rows * 100 + length)
    inputs = {"x": torch.randn(rows, length, WIDTH, generator=draw)}
    return {**inputs, "ids": torch.randint(0, 9, (rows, length), generator=draw)} if ids else inputs


def compare(
    module: nn.Module, *, ids: bool = False, sizes: tuple[tuple[int, int], ...] = SIZES, tolerance: float = 2e-6
) -> list[str]:
    """Assert that the captured module gives the module's values and types at other sizes; return what stayed opaque."""
    module = module.eval()
    dynamic = {"x": ("batch", "query", None), **({"ids": ("batch", "query")} if ids else {})}
    model = sj.load(module, inputs=given(2, 12, ids=ids), dynamic=dynamic, cache=None)
    for rows, length in sizes:
        inputs = given(rows, length, ids=ids)
        with torch.no_grad():
            expected = module(**inputs)
        got = sj.run(model, inputs).output
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        assert same(got, expected, tolerance), (rows, length)
    return sorted({node.op.split(".")[1] for node in model.circuit.nodes if isinstance(node, Opaque)})


def same(got: Tensor, expected: Tensor, tolerance: float) -> bool:
    scale = float(expected.abs().max()) if expected.is_floating_point() and expected.numel() else 1
    scale = max(scale, 1) if scale < float("inf") else 1
    return torch.allclose(got.double(), expected.double(), rtol=0, atol=tolerance * scale, equal_nan=True)


# name -> function of (module, x): lifted to nodes that say what they compute.
UNDERSTOOD: dict[str, Callable[..., Any]] = {
    # layout
    "view with -1": lambda m, x: x.view(x.shape[0], -1, 2, 3).transpose(1, 2),
    "view merges batch and query": lambda m, x: (x.view(-1, 6) @ m.u).view(x.shape[0], -1, 4),
    "flatten and unflatten": lambda m, x: x.flatten(0, 1).unflatten(-1, (3, 2)).sum(-1),
    "view across heads": lambda m, x: (x.view(*x.shape[:2], 2, 3).transpose(1, 2).transpose(1, 2).reshape(*x.shape[:2], 6)) @ m.u,
    "reshape that does not divide": lambda m, x: x.reshape(x.shape[0], x.shape[1], 2, 3).permute(0, 1, 3, 2).reshape(x.shape[0], x.shape[1], 6),
    "products that do not divide alike meet": lambda m, x: (
        x.unflatten(-1, (3, 2)).mT.flatten(2) @ m.u + F.linear(x.unflatten(-1, (2, 3)).mT.flatten(2) + x, m.u.mT)
    ),
    "merge then cut elsewhere": lambda m, x: x.reshape(*x.shape[:2], 2, 3).reshape(*x.shape[:2], 3, 2).tanh(),
    "permute, squeeze, unsqueeze": lambda m, x: x.permute(2, 0, 1).unsqueeze(1).squeeze(1).unsqueeze(-1),
    "expand": lambda m, x: m.v.expand(x.shape[0], x.shape[1], 6) + x,
    "sum of an expanded dimension": lambda m, x: x.unsqueeze(2).expand(-1, -1, 4, -1).sum(2),
    "mean of an expanded dimension": lambda m, x: m.v[None, None].expand(x.shape[0], 1, 6).mean(0, keepdim=True) + x,
    "contiguous and clone": lambda m, x: x.transpose(0, 1).contiguous().clone().transpose(0, 1),
    "movedim and swapaxes": lambda m, x: x.movedim(-1, 0).swapaxes(1, 2),
    "select and negative select": lambda m, x: x[:, :1] + x[:, -1:] * x[..., 2:3] + x[:, -1, None],
    "slices": lambda m, x: x[..., 1:5:2] + x[..., -2:],
    "slices of positions": lambda m, x: x[:, :1] * 2 + x,
    "split equal": lambda m, x: torch.stack(x.split(3, -1), -1),
    "split unequal": lambda m, x: torch.cat([part * (place + 1) for place, part in enumerate(x.split([1, 2, 3], -1))], -1),
    "chunk unequal": lambda m, x: torch.cat([part.cumsum(-1) for part in x.chunk(4, -1)], -1),
    "chunk of a product": lambda m, x: torch.mul(*(x @ m.u).chunk(2, -1)),
    "unbind and stack": lambda m, x: torch.stack([part * part for part in x.unbind(-1)], 0),
    "cat": lambda m, x: torch.cat([x, x * 2, m.v.expand_as(x)], -1),
    "repeat as expand": lambda m, x: x[:, :, None, :].expand(-1, -1, 3, -1).reshape(x.shape[0], x.shape[1], 18),
    "repeat": lambda m, x: x.repeat(1, 1, 2) + x.sum(-1).repeat(2, 1, 1).sum(0)[..., None] + x.mean(-1).repeat(2, 1, 1, 1).sum((0, 1))[..., None],
    "repeat_interleave": lambda m, x: x.repeat_interleave(2, -1) * x[:, :, None].repeat_interleave(3, 2).sum(2).repeat(1, 1, 2),
    "positions repeated and folded back": lambda m, x: (
        x.view(-1, 6)[torch.arange(x.shape[0] * x.shape[1]).repeat_interleave(3)].view(-1, 3, 6).cumsum(1).sum(1).view(x.shape)
    ),
    # order and choice
    "topk": lambda m, x: x.topk(3, -1).values + x.topk(3, -1, largest=False).indices,
    "topk along positions, unsorted": lambda m, x: x.topk(1, 1, sorted=False).values + x,
    "sort": lambda m, x: x.sort(-1, descending=True).values + x.argsort(-1) + x.sort(dim=-1, stable=True).indices,
    "scatter": lambda m, x: x.scatter(2, x.argsort(-1)[..., :2], 5.0) + torch.zeros_like(x).scatter(2, x.argsort(-1), x.cumsum(-1)),
    "scatter of booleans": lambda m, x: (x > 0).scatter(-1, x.topk(2).indices, x.topk(2).values > 1),
    "scatter_add": lambda m, x: x.scatter_add(2, (x > 0).long(), x * 2),
    "one-hot": lambda m, x: F.one_hot(x.argmax(-1), 6) @ m.u.long(),
    "halves written into an empty tensor": lambda m, x: _halves(x),
    # numbers made on the spot
    "arange": lambda m, x: x + torch.arange(6) * 2,
    "arange over positions": lambda m, x: x * torch.arange(x.shape[1])[None, :, None],
    "arange with step and type": lambda m, x: x + torch.arange(1, 13, 2, dtype=torch.float32),
    "zeros, ones, full": lambda m, x: x + torch.zeros(6) + torch.ones_like(x) * torch.full((6,), 2.5),
    "tril mask": lambda m, x: (x @ x.transpose(1, 2)).masked_fill(torch.ones(x.shape[1], x.shape[1]).tril() == 0, -1e9).softmax(-1) @ x,
    "triu with a diagonal": lambda m, x: torch.triu(x @ x.transpose(1, 2), diagonal=1),
    "tril of a weight": lambda m, x: x @ torch.tril(m.w.T @ m.w, diagonal=-1),
    "comparison of places": lambda m, x: torch.where(torch.arange(x.shape[1])[:, None] >= torch.arange(x.shape[1]), x @ x.transpose(1, 2), 0.0),
    # arithmetic
    "types meet": lambda m, x: torch.arange(6) * x + (x > 0) * 2 + True,
    "integers": lambda m, x: (x * 10).long() // 3 + (x > 0).long() % 2,
    "division": lambda m, x: x / 3 + torch.div(x, 0.7, rounding_mode="floor"),
    "powers": lambda m, x: x**2 + x.abs() ** 0.5 + 2.0**x,
    "add with alpha": lambda m, x: torch.add(x, m.v, alpha=2) - torch.sub(x, m.v, alpha=0.5) + torch.rsub(x, 1),
    "scalars on the left": lambda m, x: 1 - x + 2 / (3 + x.abs()),
    "remainder": lambda m, x: x % 0.7 + x.remainder(-0.5),
    "the larger of two": lambda m, x: torch.max(x, m.v) + torch.min(m.v, x) + x.square(),
    "minimum, maximum, clamp": lambda m, x: torch.maximum(x, m.v).clamp(-0.5, 0.9) + torch.minimum(x, x.clamp(min=0)) + x.clamp_max(0.1),
    "clamp by tensors": lambda m, x: x.clamp(min=m.v, max=m.v + 1),
    "logic": lambda m, x: ((x > 0) & ~(x > 1) | (x < -1)).logical_xor(x != 0),
    "where with numbers": lambda m, x: torch.where(x > 0, 1.0, x) + torch.where(x > 0, x, -2.0),
    "masked_fill": lambda m, x: x.masked_fill(x > 0.5, float("-inf")).exp(),
    "masked_fill by a tensor": lambda m, x: x.masked_fill(x > 0.5, m.v[0]),
    "casts": lambda m, x: x.to(torch.float64).to(torch.int64).to(torch.float32) + x.double(),
    "type_as": lambda m, x: (x > 0).type_as(x) * x,
    # along axes
    "softmax of two dimensions": lambda m, x: x.softmax(1) + x.softmax(-1) + F.softmax(x, 0),
    "softmax in another type": lambda m, x: F.softmax(x, -1, dtype=torch.float64),
    "log_softmax": lambda m, x: F.log_softmax(x, -1, dtype=torch.float64) + x.logsumexp(-1, keepdim=True),
    "sums": lambda m, x: x.sum(-1, keepdim=True) + x.sum((1, 2), keepdim=True) + x.mean(),
    "sum in another type": lambda m, x: x.sum(-1, dtype=torch.float64),
    "sum of booleans": lambda m, x: (x > 0).sum(-1) + (x > 0).sum(),
    "mean in another type": lambda m, x: (x > 0).mean(-1, dtype=torch.float32),
    "cumsum": lambda m, x: x.cumsum(1) + x.cumsum(-1, dtype=torch.float64),
    "cumsum of booleans": lambda m, x: (x > 0).cumsum(1),
    "extremes": lambda m, x: x.amax((0, 2), keepdim=True) + x.max(-1, keepdim=True).values - x.min(1, keepdim=True)[0] + x.amin(-1, keepdim=True),
    "places of extremes": lambda m, x: x.argmax(-1) + x.min(-1).indices * 2 + x.argmin(-1),
    "any and all": lambda m, x: (x > 0).any(-1) & (x > -2).all(-1),
    "population variance": lambda m, x: x.var(-1, unbiased=False, keepdim=True) + x.var((1, 2), correction=0, keepdim=True),
    "layer norm": lambda m, x: F.layer_norm(x, (6,), m.v, m.v * 2, eps=0.1),
    "layer norm of two dimensions": lambda m, x: F.layer_norm((x @ m.u)[..., None] * torch.ones(3), (4, 3), eps=1e-3),
    "layer norm without an affine map": lambda m, x: F.layer_norm(x, (6,)),
    "rms norm": lambda m, x: F.rms_norm(x, (6,), m.v, eps=0.1),
    # activations
    "gelu both ways": lambda m, x: F.gelu(x) * 3 + F.gelu(x, approximate="tanh"),
    "leaky relu": lambda m, x: F.leaky_relu(x, 0.3) + F.leaky_relu(x),
    "softplus": lambda m, x: F.softplus(x, beta=2, threshold=1) + F.softplus(x),
    "silu, relu, sigmoid, tanh": lambda m, x: F.silu(x) + x.relu() + x.sigmoid() * x.tanh(),
    # contractions
    "linear": lambda m, x: F.linear(x, m.w, m.v[:5]),
    "matmul with a vector": lambda m, x: x @ m.v,
    "vector times matrix": lambda m, x: x + m.v @ m.w.T @ m.w,
    "matmul of four dimensions": lambda m, x: x[:, None] @ (x[:, None] * m.v[:2].view(1, 2, 1, 1)).transpose(-1, -2),
    "matmul with broadcast batch": lambda m, x: x @ m.u[None],
    "bmm": lambda m, x: torch.bmm(x, x.transpose(1, 2)),
    "addmm with factors": lambda m, x: torch.addmm(m.v[:5], x.reshape(-1, 6), m.w.T, beta=0.5, alpha=2.0).view(*x.shape[:2], 5),
    "baddbmm with factors": lambda m, x: torch.baddbmm(x, x @ x.transpose(1, 2), x, beta=0.3, alpha=0.7),
    "einsum": lambda m, x: torch.einsum("bqm,hm->bqh", x, m.w),
    "einsum of three": lambda m, x: torch.einsum("bqm,mh,m->bqh", x, m.u, m.v),
    "einsum that transposes and sums": lambda m, x: torch.einsum("bqm->mb", x),
    "einsum without an arrow": lambda m, x: torch.einsum("bqm,mh", x, m.u),
    "outer product": lambda m, x: x[..., None] * m.v[:, None].T,
    # attention
    "attention": lambda m, x: F.scaled_dot_product_attention(x[:, None], x[:, None] * 2, x[:, None]),
    "causal attention": lambda m, x: F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], is_causal=True, scale=0.3),
    "attention with a boolean mask": lambda m, x: F.scaled_dot_product_attention(
        x[:, None], x[:, None], x[:, None], attn_mask=torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
    ),
    "attention with an added mask": lambda m, x: F.scaled_dot_product_attention(
        x[:, None], x[:, None], x[:, None], attn_mask=torch.arange(x.shape[1])[None, :] * 0.3
    ),
    "attention with shared keys": lambda m, x: F.scaled_dot_product_attention(
        x.view(*x.shape[:2], 2, 3).transpose(1, 2), x[:, None, :, :3], x[:, None, :, 3:], enable_gqa=True
    ),
}  # fmt: skip

UNDERSTOOD_IDS: dict[str, Callable[..., Any]] = {
    "embedding": lambda m, x, ids: F.embedding(ids, m.table, padding_idx=0) + x,
    "advanced indexing": lambda m, x, ids: m.table[ids] + m.table[ids, 2][..., None] * x,
    "indexing by two tensors": lambda m, x, ids: m.table[ids, ids.clamp(max=5)][..., None] * x,
    "a slice between two indices": lambda m, x, ids: (
        m.table.view(3, 3, 6)[ids // 3, :, ids.clamp(max=5)][..., None] * x[:, :, None]
    ),
    "indexing rows and places": lambda m, x, ids: x[torch.arange(x.shape[0])[:, None], ids.clamp(max=0)] + x,
    "gather": lambda m, x, ids: x.gather(2, (ids % 6)[..., None]),
    "gather along positions": lambda m, x, ids: x.gather(
        1, (torch.arange(x.shape[1]) * (ids > 3))[..., None].expand(-1, -1, 6)
    ),
    "index_select": lambda m, x, ids: (
        x.index_select(2, torch.tensor([3, 0, 3])) + m.table.index_select(0, ids[0])[:, :3].sum()
    ),
    "last real place": lambda m, x, ids: x[torch.arange(x.shape[0]), (ids != 0).sum(1) - 1],
    "positions from a mask": lambda m, x, ids: m.table[(((ids != 0).cumsum(-1) - 1).clamp(min=0)) % 9] * x,
    "padding bias": lambda m, x, ids: (
        (x @ x.transpose(1, 2) + (1 - (ids[:, None] != 0).to(x.dtype)) * -1e9).softmax(-1) @ x
    ),
    "equality of tokens": lambda m, x, ids: (ids[:, :, None] == ids[:, None, :]).to(x.dtype) @ x,
}

# name -> (function, what stays opaque)
WHOLE: dict[str, tuple[Callable[..., Any], set[str]]] = {
    "sample variance": (lambda m, x: x.var(-1) + x.var(-1, correction=2), {"var"}),
    "standard deviation": (lambda m, x: x.std(-1), {"std"}),
    "argmax over everything": (lambda m, x: x.argmax() + x, {"argmax"}),
    "argmax that keeps its dimension": (lambda m, x: x.argmax(1, keepdim=True) + x, set()),
    "largest of all": (lambda m, x: x.max() + x, {"max"}),
    "exclusive or": (lambda m, x: (x > 0) ^ (x > 1), {"__xor__", "bitwise_xor"}),
    "attention with keys shared by stacking": (lambda m, x: _stacked_attention(x), {"scaled_dot_product_attention"}),
    "a remainder by a size": (lambda m, x: x + (torch.arange(x.shape[1]) * 3 % x.shape[1])[:, None], {"remainder"}),
    "division rounded to zero": (lambda m, x: torch.div(x, 0.3, rounding_mode="trunc"), {"div"}),
    "rounding to decimals": (lambda m, x: x.round(decimals=2), {"round"}),
    "a power of tensors": (lambda m, x: x.abs() ** m.v, set()),
    "elu": (lambda m, x: F.elu(x, 0.7) + F.elu(x), {"elu"}),
    "hardtanh": (lambda m, x: F.hardtanh(x, -0.2, 0.4) + F.hardtanh(x), {"hardtanh"}),
    "celu, selu": (lambda m, x: F.celu(x, 0.5) + F.selu(x), {"celu", "elu", "selu"}),
    "hardswish, mish": (lambda m, x: F.hardswish(x) + F.mish(x), {"hardswish", "mish"}),
    "relu6": (lambda m, x: F.relu6(x * 5), {"relu6", "hardtanh"}),
    "threshold": (lambda m, x: F.threshold(x, 0.2, 9.0), {"threshold"}),
    "glu": (lambda m, x: F.glu(x, -1) + F.glu(x.transpose(1, 2), 1).transpose(1, 2), {"glu"}),
    "log-sigmoid": (lambda m, x: F.logsigmoid(x), {"log_sigmoid"}),
    "hardshrink": (lambda m, x: F.hardshrink(x, 0.8) + F.softshrink(x, 0.3), {"hardshrink", "softshrink"}),
    "flip": (lambda m, x: x.flip(1) + x.flip((0, 2)), {"flip"}),
    "roll": (lambda m, x: x.roll(2, -1) + x.roll((1, 1), (0, 1)), {"roll", "index_select"}),
    "constant padding": (lambda m, x: F.pad(x, (1, 2), value=3.0), {"constant_pad_nd", "pad"}),
    "padding of positions": (lambda m, x: F.pad(x, (0, 0, 1, 0))[:, :-1], {"constant_pad_nd", "pad"}),
    "a norm of order three": (lambda m, x: torch.linalg.vector_norm(x, 3, -1) + x.norm(dim=-1), {"linalg_vector_norm"}),
    "cumulative product": (lambda m, x: x.cumprod(-1), {"cumprod"}),
    "cumulative maximum": (lambda m, x: x.cummax(1).values, {"cummax"}),
    "product": (lambda m, x: x.prod(-1), {"prod"}),
    "einsum with an ellipsis": (lambda m, x: torch.einsum("...m,hm->...h", x, m.w), {"einsum"}),
    "einsum of a diagonal": (lambda m, x: torch.einsum("bqq->bq", x @ x.transpose(1, 2)), {"einsum"}),
    "diagonal": (lambda m, x: (x @ x.transpose(1, 2)).diagonal(dim1=1, dim2=2), {"diagonal"}),
    "linspace": (lambda m, x: x + torch.linspace(0, 1, 6), {"linspace"}),
    "eye": (lambda m, x: x @ torch.eye(6), {"eye"}),
    "in-place": (lambda m, x: (x * 1).add_(1).mul_(m.v), set()),
    "assignment to a slice": (lambda m, x: _assigned(x), {"fill", "index_put", "slice_scatter", "select_scatter"}),
    "scatter to places that repeat": (lambda m, x: x.scatter(2, (x > 0).long(), x * 2), {"scatter"}),
    "scatter of an order along another dimension": (lambda m, x: x.scatter(2, x.argsort(1) % 6, x * 2), {"scatter", "argsort"}),
    "scatter into a part": (lambda m, x: x.scatter(2, (x[..., :1] > 0).long()[:, :1], 5.0), {"scatter"}),
    "bucketize": (lambda m, x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0])), {"bucketize"}),
    "nan_to_num": (lambda m, x: (x / (x > 0)).nan_to_num(nan=0.5, posinf=3.0), {"nan_to_num"}),
    "attention with dropout off": (lambda m, x: F.dropout(x, 0.5, training=False), set()),
    "lgamma, erfinv": (lambda m, x: x.lgamma() + (x.tanh() * 0.9).erfinv(), {"lgamma", "erfinv"}),
    "fmod": (lambda m, x: x.fmod(0.7), {"fmod"}),
    "atan2": (lambda m, x: torch.atan2(x, m.v), {"atan2"}),
    "distance": (lambda m, x: torch.cdist(x, x), {"cdist", "_cdist_forward"}),
}  # fmt: skip


def _stacked_attention(x: Tensor) -> Tensor:
    q, k, v = torch.stack([x, x * 2, x * 3, x * 4], 1), torch.stack([x, -x], 1), torch.stack([x, x.cos()], 1)
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def _halves(x: Tensor) -> Tensor:
    made = x.new_empty(x.shape)
    made[..., :3] = x[..., 3:] * 2
    made[..., 3:] = x[..., :3]
    made[..., -1] = x[..., 0] + 1
    return made


def _assigned(x: Tensor) -> Tensor:
    made = x.clone()
    made[:, 0] = 7
    made[..., 2] *= 3
    return made


def together(cases: dict[str, Callable[..., Any]], *, ids: bool = False, most: int = 6) -> dict[str, list[str]]:
    """Return names of cases whose results can be added up, to be captured at once: a capture takes a quarter of a second."""
    groups: dict[object, list[list[str]]] = {}
    for name, function in cases.items():
        with torch.no_grad():
            made = Called(function, ids=ids)(**given(3, 7, ids=ids))
        plain = made.is_floating_point() and bool(torch.isfinite(made).all())
        lists = groups.setdefault((made.shape, made.dtype) if plain else name, [[]])
        if len(lists[-1]) == most:
            lists.append([])
        lists[-1].append(name)
    return {"; ".join(names): names for lists in groups.values() for names in lists}


def added(cases: dict[str, Callable[..., Any]], names: list[str]) -> Callable[..., Any]:
    """Return the sum of some cases, each with a factor of its own."""
    if len(names) == 1:
        return cases[names[0]]
    return lambda *given: sum((1 + 0.1 * place) * cases[name](*given) for place, name in enumerate(names))


TOGETHER = together(UNDERSTOOD)
TOGETHER_IDS = together(UNDERSTOOD_IDS, ids=True)
TOGETHER_WHOLE = together({name: function for name, (function, _) in WHOLE.items()})


@pytest.mark.parametrize("names", TOGETHER.values(), ids=TOGETHER)
def test_what_is_understood_becomes_plain_nodes(names):
    assert compare(Called(added(UNDERSTOOD, names))) == []


@pytest.mark.parametrize("names", TOGETHER_IDS.values(), ids=TOGETHER_IDS)
def test_look_ups_are_understood(names):
    assert compare(Called(added(UNDERSTOOD_IDS, names), ids=True), ids=True) == []


@pytest.mark.parametrize("names", TOGETHER_WHOLE.values(), ids=TOGETHER_WHOLE)
def test_what_is_not_understood_stays_whole(names):
    functions = {name: function for name, (function, _) in WHOLE.items()}
    opaque = set().union(*(WHOLE[name][1] for name in names))
    assert set(compare(Called(added(functions, names)))) <= opaque


# An argument at a value other than its default is either honoured or keeps the operation whole: never dropped.
ARGUMENTS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "gelu.approximate": (lambda m, x: F.gelu(x), lambda m, x: F.gelu(x, approximate="tanh")),
    "softmax.dtype": (lambda m, x: x.softmax(-1), lambda m, x: x.softmax(-1, dtype=torch.float64)),
    "layer_norm.eps": (lambda m, x: F.layer_norm(x, (6,)), lambda m, x: F.layer_norm(x, (6,), eps=0.5)),
    "add.alpha": (lambda m, x: torch.add(x, m.v), lambda m, x: torch.add(x, m.v, alpha=3)),
    "div.rounding_mode": (lambda m, x: torch.div(x, m.v), lambda m, x: torch.div(x, m.v, rounding_mode="floor")),
    "sum.keepdim": (lambda m, x: x.sum(1) * 0 + x.sum(), lambda m, x: x.sum(1, keepdim=True)[:, 0] + x.sum() * 2),
    "var.correction": (lambda m, x: x.var(-1, correction=0), lambda m, x: x.var(-1, correction=3)),
    "leaky_relu.slope": (lambda m, x: F.leaky_relu(x), lambda m, x: F.leaky_relu(x, 0.5)),
    "softplus.beta": (lambda m, x: F.softplus(x), lambda m, x: F.softplus(x, beta=3)),
    "softplus.threshold": (lambda m, x: F.softplus(x), lambda m, x: F.softplus(x, threshold=0.1)),
    "elu.alpha": (lambda m, x: F.elu(x), lambda m, x: F.elu(x, alpha=0.2)),
    "hardtanh.min_val": (lambda m, x: F.hardtanh(x), lambda m, x: F.hardtanh(x, min_val=-0.1)),
    "tril.diagonal": (lambda m, x: torch.tril(m.w) @ x.mean((0, 1)), lambda m, x: torch.tril(m.w, diagonal=2) @ x.mean((0, 1))),
    "sdpa.scale": (
        lambda m, x: F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None]),
        lambda m, x: F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], scale=2.0),
    ),
    "round.decimals": (lambda m, x: x.round(), lambda m, x: x.round(decimals=1)),
    "clamp.max": (lambda m, x: x.clamp(min=0), lambda m, x: x.clamp(min=0, max=0.4)),
    "cumsum.dtype": (lambda m, x: (x * 3).long().cumsum(-1), lambda m, x: (x * 3).long().cumsum(-1, dtype=torch.float32)),
    "argmax.dim": (lambda m, x: x.argmax() + x * 0, lambda m, x: x.argmax(-1, keepdim=True) + x * 0),
    "topk.largest": (lambda m, x: x.topk(2).values, lambda m, x: x.topk(2, largest=False).values),
    "addmm.beta": (lambda m, x: torch.addmm(m.w, m.w, m.w.T @ m.w) @ x.mean((0, 1)), lambda m, x: torch.addmm(m.w, m.w, m.w.T @ m.w, beta=0.2) @ x.mean((0, 1))),
    "pow.exponent": (lambda m, x: x.abs().pow(1), lambda m, x: x.abs().pow(1.5)),
    "logit.eps": (lambda m, x: x.sigmoid().logit(), lambda m, x: x.sigmoid().logit(eps=0.3)),
    "rms_norm.eps": (lambda m, x: F.rms_norm(x, (6,)), lambda m, x: F.rms_norm(x, (6,), eps=0.7)),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_no_argument_is_dropped(name):
    plain, other = ARGUMENTS[name]
    inputs = given(3, 7, ids=False)
    with torch.no_grad():
        one, two = Called(plain)(**inputs), Called(other)(**inputs)
    assert one.dtype != two.dtype or not torch.equal(one, two)
    compare(Called(other), sizes=((3, 7), (1, 5)))


# --- modules of torch.nn ---


class Sequence(nn.Module):
    """An encoder's layers over (batch, query, 8), with and without a padding mask."""

    def __init__(self, part: nn.Module, *, masked: bool = False) -> None:
        super().__init__()
        self.up, self.part, self.masked = nn.Linear(WIDTH, 8), part, masked

    def forward(self, x: Tensor) -> Tensor:
        value = self.up(x)
        return self.part(value, src_key_padding_mask=x[..., 0] > 1) if self.masked else self.part(value)


class SelfAttention(nn.Module):
    def __init__(self, *, weights: bool, causal: bool) -> None:
        super().__init__()
        self.inner, self.weights, self.causal = nn.MultiheadAttention(WIDTH, 2, batch_first=True), weights, causal

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1) if self.causal else None
        value, pattern = self.inner(x, x, x, attn_mask=mask, need_weights=self.weights)
        return value if pattern is None else value + pattern.sum(-1, keepdim=True)


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv1d(WIDTH, 4, 3, padding=1, dilation=1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.transpose(1, 2)).transpose(1, 2)


class Statistics(nn.Module):
    """Batch norm in evaluation mode: fixed statistics, no dependence between rows."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.BatchNorm1d(WIDTH, eps=0.1)
        with torch.no_grad():
            for tensor in (self.inner.running_mean, self.inner.weight, self.inner.bias):
                assert tensor is not None
                tensor.copy_(torch.randn(WIDTH))
            assert self.inner.running_var is not None
            self.inner.running_var.copy_(torch.rand(WIDTH) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.transpose(1, 2)).transpose(1, 2)


def encoder(*, norm_first: bool, layers: int = 2) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        8, 2, 12, batch_first=True, norm_first=norm_first, activation="gelu", layer_norm_eps=0.01
    )
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


MODULES: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "encoder, norms after": (lambda: Sequence(encoder(norm_first=False)), set()),
    "encoder, norms before": (lambda: Sequence(encoder(norm_first=True)), set()),
    "attention with weights": (lambda: SelfAttention(weights=True, causal=False), set()),
    "causal attention without weights": (lambda: SelfAttention(weights=False, causal=True), set()),
    "convolution": (Convolution, {"conv1d", "convolution"}),
    "batch norm": (Statistics, {"batch_norm", "_native_batch_norm_legit_no_training"}),
    "group norm": (lambda: _Turned(nn.GroupNorm(3, WIDTH, eps=0.2)), {"group_norm", "native_group_norm"}),
    "average pooling": (lambda: _Turned(nn.AvgPool1d(3, 1, 1)), {"avg_pool1d", "avg_pool2d"}),
    "sequential": (lambda: nn.Sequential(nn.Linear(6, 5), nn.PReLU(), nn.Dropout(0.5), nn.Linear(5, 2)), {"_prelu_kernel", "prelu"}),
}  # fmt: skip


class _Turned(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.transpose(1, 2)).transpose(1, 2)


@pytest.mark.parametrize("name", MODULES)
def test_modules_of_torch(name):
    torch.manual_seed(1)
    make, opaque = MODULES[name]
    module = make().eval()
    if isinstance(module, nn.Sequential):
        module = _Named(module)
    assert set(compare(module, tolerance=5e-6)) <= opaque


class _Named(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_an_encoder_is_recognised():
    """Its attention is one fused call in torch, and still has heads, a pattern and a stream."""
    torch.manual_seed(1)
    for norm_first in (True, False):
        module = Sequence(encoder(norm_first=norm_first)).eval()
        model = sj.load(module, inputs=given(2, 12, ids=False), dynamic={"x": ("batch", "query", None)}, cache=None)
        assert model.layers == 2
        assert model.heads == (2, 2)
        assert model.anatomy.notes == ()
        assert model.anatomy.additive == norm_first


# --- what capture promises ---


def test_a_capture_has_the_modules_dimensions():
    """An input that is cut, an input of size one, a result that is merged or repeated: all as the module has them."""

    class Shapes(nn.Module):
        def forward(self, x: Tensor, one: Tensor) -> Tensor:
            heads = x.view(*x.shape[:2], 2, 3) + one[..., None]
            return heads.transpose(2, 3).reshape(*x.shape[:2], 6)[:, :, None].expand(-1, -1, 2, -1).flatten(2)

    inputs = {"x": torch.randn(2, 12, 6), "one": torch.randn(2, 12, 1)}
    dynamic = dict.fromkeys(inputs, ("batch", "query", None))
    model = sj.load(Shapes().eval(), inputs=inputs, dynamic=dynamic, cache=None)
    given = {"x": torch.randn(3, 5, 6), "one": torch.randn(3, 5, 1)}
    got = sj.run(model, given).output
    assert got.shape == (3, 5, 12)
    assert torch.allclose(got, Shapes()(**given))
    assert {name: len(node.dims) for name, node in model.circuit.inputs.items()} == {"x": 3, "one": 3}


def test_a_type_that_is_written_out_fixes_the_circuit_to_it():
    module = Called(lambda m, x: (x > 0).float() @ x.transpose(1, 2)).eval()
    model = sj.load(module, inputs=given(2, 12, ids=False), dynamic={"x": ("batch", "query", None)}, cache=None)
    tensors = given(3, 7, ids=False)
    assert torch.equal(sj.run(model, tensors).output, module(**tensors))


def test_a_type_that_is_not_the_modules_own_is_explained():
    module = Called(lambda m, x: (x > 0).half() @ x.transpose(1, 2))
    with pytest.raises(CaptureError, match=r"tensors of a type written out in its code.*write `mask\.to\(x\.dtype\)`"):
        sj.load(module.eval(), inputs=given(2, 12, ids=False), dynamic={"x": ("batch", "query", None)}, cache=None)


def test_a_position_table_limits_the_length():
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(CONTEXT, 4))

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.table[: input_ids.shape[1]] + input_ids[..., None]

    model = sj.load(Positions().eval(), inputs={"input_ids": torch.zeros(2, 12, dtype=torch.long)}, cache=None)
    assert model.context == CONTEXT


def test_an_index_that_counts_rows_makes_no_look_up():
    """Else rows would seem to depend on their place in the batch."""
    module = Called(lambda m, x: x[torch.arange(x.shape[0])[:, None], torch.arange(x.shape[1])[None, :]] * 2 + x)
    model = sj.load(module.eval(), inputs=given(2, 12, ids=False), dynamic={"x": ("batch", "query", None)}, cache=None)
    assert not any(isinstance(node, Gather) or "batch" in node.acts_along for node in model.circuit.nodes)


def test_a_rewritten_softmax_is_one_node():
    module = Called(UNDERSTOOD["causal attention"])
    model = sj.load(module.eval(), inputs=given(2, 12, ids=False), dynamic={"x": ("batch", "query", None)}, cache=None)
    (softmax,) = (node for node in model.circuit.nodes if isinstance(node, Along))
    assert softmax.op == "safe_softmax"
    assert softmax.over == ("key",)


@dataclass
class Output:
    first: Tensor
    second: Tensor


class Two(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        one, two = x * 2, x - 1
        return {"tuple": (one, two), "mapping": {"first": one, "second": two}, "attribute": Output(one, two)}[self.kind]


@pytest.mark.parametrize(
    ("kind", "output"),
    [("tuple", 1), ("mapping", "second"), ("attribute", "second"), ("tuple", lambda made: made[0] * 0 + made[1])],
    ids=["place", "key", "attribute", "function"],
)
def test_the_output_is_chosen(kind, output):
    x = torch.randn(2, 5)
    model = sj.load(Two(kind).eval(), inputs={"x": x}, dynamic={"x": ("batch", None)}, output=output, cache=None)
    got = sj.run(model, {"x": torch.ones(3, 5)}).output
    assert torch.equal(got, torch.zeros(3, 5))


def test_tied_weights_are_one_leaf():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x).relu())

    module = Tied().eval()
    model = sj.load(module, inputs=given(2, 12, ids=False), dynamic={"x": ("batch", "query", None)}, cache=None)
    assert set(model.circuit.weights) == {"one.weight", "one.bias", "two.bias"}
    assert compare(module) == []
