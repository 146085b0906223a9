"""Hooks on the Hugging Face module: what a user without any tool writes by hand. One forward of the module for each patch.

Path patches take one forward too: the receiver's query, key or value is computed from the held stream, and put in by a hook on the projection.
Where query heads share keys, no hook reaches the key that one of them sees; the module is then rebuilt with its keys and values
repeated, one for each head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from serve import Kept, Request, Setting

Hook = tuple[Any, str, Callable[[torch.Tensor], torch.Tensor | None]]
"""A module, which end of it, and what becomes of the value there."""


@contextmanager
def hooked(hooks: list[Hook]) -> Iterator[None]:
    def before(change: Callable[[torch.Tensor], Any]) -> Callable[..., Any]:
        def call(_module: Any, args: Any) -> Any:
            made = change(args[0])
            return None if made is None else (made, *args[1:])

        return call

    def after(change: Callable[[torch.Tensor], Any]) -> Callable[..., Any]:
        return lambda _module, _args, made: change(made)

    handles = [
        module.register_forward_pre_hook(before(change)) if end == "input" else module.register_forward_hook(after(change))
        for module, end, change in hooks
    ]  # fmt: skip
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Family:
    """Where a family's module has what is patched."""

    def __init__(self, setting: Setting, name: str, *, repeated: bool = False) -> None:
        self.module = setting.module(name)
        self.setting, self.name = setting, name
        self.config = self.module.config
        self.heads = self.config.num_attention_heads
        self.width = self.config.hidden_size // self.heads
        if repeated:
            self.module = repeated_keys(self.module).to(setting.device)
        body = self.module.transformer if name == "gpt2" else self.module.model
        self.blocks = body.h if name == "gpt2" else body.layers

    def norm(self, layer: int) -> Any:
        return self.blocks[layer].ln_1 if self.name == "gpt2" else self.blocks[layer].input_layernorm

    def output(self, layer: int) -> Any:
        return self.blocks[layer].attn.c_proj if self.name == "gpt2" else self.blocks[layer].self_attn.o_proj

    def projection(self, layer: int, part: str) -> tuple[Any, int]:
        """Return the module that makes queries, keys or values, and where they begin in what it makes."""
        if self.name == "gpt2":
            return self.blocks[layer].attn.c_attn, "qkv".index(part) * self.heads * self.width
        return getattr(self.blocks[layer].self_attn, f"{part}_proj"), 0

    def written(self, layer: int, head: int, z: torch.Tensor) -> torch.Tensor:
        """Return what a head adds to the stream, without the bias."""
        at = slice(head * self.width, (head + 1) * self.width)
        weight = self.output(layer).weight
        return z[..., at] @ (weight[at] if self.name == "gpt2" else weight[:, at].T)

    @cache  # noqa: B019 - lives as long as the process
    def values(self, kind: str, length: int) -> dict[str, torch.Tensor]:
        """Return the streams before layers and the z of layers, all heads side by side."""
        found: dict[str, torch.Tensor] = {}

        def keeper(name: str) -> Callable[[torch.Tensor], None]:
            return lambda value: found.__setitem__(name, value.detach().clone())

        hooks: list[Hook] = [(block, "input", keeper(f"resid{n}")) for n, block in enumerate(self.blocks)]
        hooks += [(self.output(n), "input", keeper(f"z{n}")) for n in range(len(self.blocks))]
        with hooked(hooks):
            self.module(self.setting.ids(kind, length))
        return found

    def metric(self, kind: str, length: int, hooks: list[Hook]) -> torch.Tensor:
        with hooked(hooks):
            return self.setting.metric(self.module(self.setting.ids(kind, length)).logits)


def repeated_keys(module: Any) -> Any:
    """Return the same llama with keys and values of their own for each query head."""
    groups = module.config.num_attention_heads // module.config.num_key_value_heads
    config = type(module.config).from_dict(
        {**module.config.to_dict(), "num_key_value_heads": module.config.num_attention_heads}
    )
    config._attn_implementation = "eager"
    made, weights = type(module)(config).eval(), module.state_dict()
    for name in [name for name in weights if name.endswith(("k_proj.weight", "v_proj.weight"))]:
        heads = weights[name].unflatten(0, (module.config.num_key_value_heads, -1))
        weights[name] = heads.repeat_interleave(groups, 0).flatten(0, 1)
    made.load_state_dict(weights)
    return made


def replaced(at: Any, put: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(value: torch.Tensor) -> torch.Tensor:
        made = value.clone()
        made[at] = put
        return made

    return change


class Patcher:
    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    @cache  # noqa: B019
    def family(self, name: str, repeated: bool = False) -> Family:
        return Family(self.setting, name, repeated=repeated)

    def plain(self, request: Request) -> torch.Tensor:
        return self.family(request["family"]).metric("clean", request["length"], [])

    def keep(self, request: Request) -> Kept:
        of, found = self.family("gpt2"), dict[str, Any]()

        def keeper(name: str) -> Callable[[Any], None]:
            return lambda value: found.__setitem__(name, value)

        hooks: list[Hook] = []
        for n, block in enumerate(of.blocks):
            places = {
                "resid_pre": (block, "input"), "resid_mid": (block.ln_2, "input"), "resid_post": (block, "output"), "qkv": (block.attn.c_attn, "output"),
                "pattern": (block.attn, "output"), "z": (block.attn.c_proj, "input"), "mlp.pre": (block.mlp.c_fc, "output"),
                "mlp.post": (block.mlp.c_proj, "input"), "mlp.out": (block.mlp, "output"),
            }  # fmt: skip
            hooks += [(module, end, keeper(f"{name} {n}")) for name, (module, end) in places.items()]
        with hooked(hooks):
            of.module(self.setting.ids("clean", request["length"]))

        def read(site: str, layer: int) -> torch.Tensor:
            if site in "qkv":
                part = found[f"qkv {layer}"].chunk(3, -1)["qkv".index(site)]
                return part.unflatten(-1, (of.heads, of.width))
            value = found[f"{site} {layer}"]
            return value[1] if site == "pattern" else value.unflatten(-1, (of.heads, -1)) if site == "z" else value

        return [each for one in found.values() for each in (one if isinstance(one, tuple) else (one,))], read

    def resid(self, request: Request) -> torch.Tensor:
        of, layer, at = self.family("gpt2"), request["layer"], (slice(None), request["position"])
        put = of.values("clean", request["length"])[f"resid{layer}"][at]
        return of.metric("corrupted", request["length"], [(of.blocks[layer], "input", replaced(at, put))])

    def z(self, request: Request) -> torch.Tensor:
        of, layer = self.family("gpt2"), request["layer"]
        at = (..., slice(request["head"] * of.width, (request["head"] + 1) * of.width))
        put = of.values("clean", request["length"])[f"z{layer}"][at]
        return of.metric("corrupted", request["length"], [(of.output(layer), "input", replaced(at, put))])

    def final(self, request: Request) -> torch.Tensor:
        """A head's clean value reaches the last stream through MLPs; all other heads keep the corrupted run's values."""
        of, length = self.family("gpt2"), request["length"]
        at = (..., slice(request["head"] * of.width, (request["head"] + 1) * of.width))
        hooks: list[Hook] = []
        for n in range(len(of.blocks)):
            own = of.values("corrupted", length)[f"z{n}"]
            put = replaced(at, of.values("clean", length)[f"z{n}"][at])(own) if n == request["layer"] else own
            hooks.append((of.output(n), "input", lambda _value, put=put: put))
        return of.metric("corrupted", length, hooks)

    def path(self, request: Request) -> torch.Tensor:
        """Heads of a layer see one sender's clean value in their queries, keys or values, by turns: (receiver, row)."""
        part, length = request["part"], request["length"]
        of = self.family(request["family"], repeated=request["family"] == "llama" and part != "q")
        (layer, head), (later, receivers) = request["sender"], request["receivers"]
        clean, corrupted = of.values("clean", length), of.values("corrupted", length)
        moved = of.written(layer, head, clean[f"z{layer}"]) - of.written(layer, head, corrupted[f"z{layer}"])
        module, first = of.projection(later, part)
        made = module(of.norm(later)(corrupted[f"resid{later}"] + moved))
        found: list[torch.Tensor] = []
        for receiver in receivers:
            at = (..., slice(first + receiver * of.width, first + (receiver + 1) * of.width))
            found.append(of.metric("corrupted", length, [(module, "output", replaced(at, made[at]))]))
        return torch.stack(found)
