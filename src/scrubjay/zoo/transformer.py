"""A plain transformer, short enough to read in one sitting.

Token and position vectors are added into a stream; each block adds what attention reads from it, then what the MLP reads
from it; the stream is projected to logits. Weights lie in `nn.Linear` layers of their own for query, key, value and
output, and attention is written out as products and a softmax, so that every intermediate value has a place.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from scrubjay.errors import InputError, LoadError, near

Direction = Literal["causal", "bidirectional"]
Norm = Literal["layer", "none"]
Activation = Literal["relu", "gelu"]
Readout = Literal["all", "first"]
Layer = TypeVar("Layer", bound=nn.Module)
CHOICES = {"direction": Direction, "norm": Norm, "activation": Activation, "readout": Readout}


@dataclass(frozen=True)
class Config:
    """The sizes and choices of a `Transformer`.

    Attributes:
        layers: number of blocks.
        heads: attention heads in each.
        d_model: width of the stream.
        d_head: width of each head's query, key and value.
        d_mlp: neurons of each MLP; 0 leaves the MLPs out.
        vocabulary: number of token ids.
        positions: the longest input.
        outputs: logits at each readout.
        direction: "causal" (a position reads itself and those before it) or "bidirectional".
        norm: "layer" (before attention, before the MLP and before the unembedding) or "none".
        activation: of the MLPs, "relu" or "gelu" (the exact one).
        readout: logits at "all" positions, or at the "first" one only.
        bias: whether the linear layers have biases.

    Raises:
        LoadError: for a size below 1 (`d_mlp`: below 0) or not an integer, and for an unknown choice.

    >>> Config(layers=1, heads=2, d_model=8, d_head=4, d_mlp=16, vocabulary=5, positions=12, outputs=5).norm
    'layer'
    """

    layers: int
    heads: int
    d_model: int
    d_head: int
    d_mlp: int
    vocabulary: int
    positions: int
    outputs: int
    direction: Direction = "causal"
    norm: Norm = "layer"
    activation: Activation = "relu"
    readout: Readout = "all"
    bias: bool = True

    def __post_init__(self) -> None:
        for name in ("layers", "heads", "d_model", "d_head", "d_mlp", "vocabulary", "positions", "outputs"):
            size, least = getattr(self, name), 0 if name == "d_mlp" else 1
            if type(size) is not int or size < least:
                raise LoadError(
                    f"a transformer was asked for with {name} = {size!r}; give an integer of {least} or more"
                )
        for name, choice in CHOICES.items():
            if getattr(self, name) not in get_args(choice):
                raise LoadError(
                    f"a transformer was asked for with {name} = {getattr(self, name)!r}; "
                    f"give one of {', '.join(get_args(choice))}"
                )
        if type(self.bias) is not bool:
            raise LoadError(f"a transformer was asked for with bias = {self.bias!r}; give True or False")

    def to_dict(self) -> dict[str, int | str | bool]:
        """Return the fields, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> Config:
        """Return the configuration that `to_dict` wrote.

        Raises:
            LoadError: for unknown and missing keys, and as the class does.
        """
        known = {field.name for field in fields(cls)}
        for name in sorted(set(values) - known):
            raise LoadError(f"a transformer's configuration has the unknown key {name!r}{near(name, known)}")
        missing = sorted({name for name in known if not hasattr(cls, name)} - set(values))
        if missing:
            raise LoadError(f"a transformer's configuration has no {', '.join(missing)}; add it")
        return cls(**values)  # pyright: ignore[reportArgumentType]: the constructor checks every field


class Transformer(nn.Module):
    """The model of a `Config`, its weights drawn from `seed` alone.

    Weights are normal with standard deviation 1 / sqrt(size of the last axis), which is the fan in of a linear layer and
    d_model for embeddings; what writes into the stream is divided by sqrt(2 layers); biases are zero.

    >>> tiny = Transformer(Config(layers=1, heads=2, d_model=8, d_head=4, d_mlp=16, vocabulary=5, positions=12, outputs=3))
    >>> tiny(torch.tensor([[0, 3, 4, 2]]), torch.ones(1, 4, dtype=torch.long)).shape
    torch.Size([1, 4, 3])
    """

    def __init__(self, config: Config, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.tokens = _empty(nn.Embedding, config.vocabulary, config.d_model)
        self.positions = _empty(nn.Embedding, config.positions, config.d_model)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.ln_f = _norm(config)
        self.unembed = _empty(nn.Linear, config.d_model, config.outputs, bias=config.bias)
        _initialise(self, torch.Generator().manual_seed(seed))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the logits, (batch, query, output), or (batch, output) where the readout is "first".

        Args:
            input_ids: token ids, integers of shape (batch, query).
            attention_mask: 1 for tokens, 0 for padding that no position may read; shape (batch, query).

        Raises:
            InputError: for other shapes, and inputs longer than the model has positions.
        """
        if not torch.compiler.is_exporting():  # a captured program must not carry a guard on the length
            self._check(input_ids, attention_mask)
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        stream = self.tokens(input_ids) + self.positions(places)  # (batch, query, model)
        bias = self._mask(attention_mask, places, stream.dtype)
        for block in self.blocks:
            stream = block(stream, bias)
        logits = self.unembed(self.ln_f(stream))  # (batch, query, output)
        return logits[:, 0] if self.config.readout == "first" else logits

    def _check(self, input_ids: Tensor, attention_mask: Tensor) -> None:
        if input_ids.ndim != 2 or input_ids.shape != attention_mask.shape:
            raise InputError(
                f"the model was given input_ids of shape {tuple(input_ids.shape)} and an attention_mask of shape "
                f"{tuple(attention_mask.shape)}; both are (batch, query)"
            )
        if input_ids.shape[1] > self.config.positions:
            raise InputError(
                f"the model was given {input_ids.shape[1]} positions, but has {self.config.positions}; shorten the input"
            )

    def _mask(self, attention_mask: Tensor, places: Tensor, dtype: torch.dtype) -> Tensor:
        """Return what is added to attention scores, shape (batch, 1, 1 or query, key).

        The most negative finite number, not -inf: a row whose keys are all masked then attends uniformly instead of
        giving NaN.
        """
        allowed = (attention_mask != 0)[:, None, None, :]  # (batch, 1, 1, key)
        if self.config.direction == "causal":
            allowed = allowed & (places[None, :] <= places[:, None])
        return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)


class Block(nn.Module):
    """One layer: attention, then the MLP where there is one, each reading the normalised stream and adding to it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.ln_1 = _norm(config)
        self.attn = Attention(config)
        self.ln_2 = _norm(config) if config.d_mlp else None
        self.mlp = MLP(config) if config.d_mlp else None

    def forward(self, stream: Tensor, bias: Tensor) -> Tensor:
        """Return the stream after this layer, shape (batch, query, model)."""
        stream = stream + self.attn(self.ln_1(stream), bias)
        if self.mlp is not None and self.ln_2 is not None:
            stream = stream + self.mlp(self.ln_2(stream))
        return stream


class Attention(nn.Module):
    """Multi-head attention: softmax(q k^T / sqrt(d_head) + bias) v, each head's z projected by its share of o."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.heads * config.d_head
        self.heads, self.d_head = config.heads, config.d_head
        self.q = _empty(nn.Linear, config.d_model, width, bias=config.bias)
        self.k = _empty(nn.Linear, config.d_model, width, bias=config.bias)
        self.v = _empty(nn.Linear, config.d_model, width, bias=config.bias)
        self.o = _empty(nn.Linear, width, config.d_model, bias=config.bias)

    def forward(self, stream: Tensor, bias: Tensor) -> Tensor:
        """Return what attention adds to the stream, shape (batch, query, model)."""
        batch, query, _ = stream.shape
        split = (batch, query, self.heads, self.d_head)
        q = self.q(stream).view(split).transpose(1, 2)  # (batch, head, query, d_head)
        k = self.k(stream).view(split).transpose(1, 2)
        v = self.v(stream).view(split).transpose(1, 2)
        scores = q @ k.transpose(2, 3) / self.d_head**0.5 + bias  # (batch, head, query, key)
        z = scores.softmax(dim=-1) @ v  # (batch, head, query, d_head)
        return self.o(z.transpose(1, 2).reshape(batch, query, self.heads * self.d_head))


class MLP(nn.Module):
    """Two linear maps with a pointwise nonlinearity between them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.up = _empty(nn.Linear, config.d_model, config.d_mlp, bias=config.bias)
        self.act = nn.ReLU() if config.activation == "relu" else nn.GELU()
        self.down = _empty(nn.Linear, config.d_mlp, config.d_model, bias=config.bias)

    def forward(self, stream: Tensor) -> Tensor:
        """Return what the MLP adds to the stream, shape (batch, query, model)."""
        return self.down(self.act(self.up(stream)))


def _norm(config: Config) -> nn.Module:
    return nn.LayerNorm(config.d_model) if config.norm == "layer" else nn.Identity()


def _empty(kind: type[Layer], *sizes: int, **options: bool) -> Layer:
    """Return a layer whose weights are not set yet: the usual constructor would draw them from the global generator."""
    return nn.utils.skip_init(kind, *sizes, **options)  # pyright: ignore[reportReturnType]: torch says Module


def _initialise(model: Transformer, generator: torch.Generator) -> None:
    """Set every weight, in the order of `named_parameters`, from the generator."""
    writes = (2 * model.config.layers) ** -0.5
    with torch.no_grad():
        for name, weight in model.named_parameters():
            owner = name.rsplit(".", 2)[-2]
            if owner.startswith("ln_"):
                continue  # a LayerNorm begins at scale 1 and bias 0 without drawing anything
            if name.endswith("bias"):
                weight.zero_()
            else:
                depth = writes if owner in {"o", "down"} else 1.0
                weight.normal_(std=depth * weight.shape[1] ** -0.5, generator=generator)
