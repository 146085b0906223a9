"""Where weights are found: the tensors of a live module, shared and never copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import nn

from scrubjay.errors import LoadError, near
from scrubjay.evidence.digest import digest_bytes, digest_json


@dataclass(frozen=True, eq=False)
class ModuleStore:
    """The parameters and buffers of a module by name. A name that is tied to another gives the same tensor.

    Values are looked up at every evaluation, so a change of the module's weights is seen; each tensor is checked to be
    finite once for every version of it. `constants` are the tensors that the module makes of plain numbers when it runs.
    `states` are what the parts of the module were when it was captured (`states_of`): where one that holds a weight has
    become another since, as an adapter switched off, the circuit is no longer the module's, and `tensor` says so.
    """

    module: nn.Module
    aliases: Mapping[str, str]
    dtype: torch.dtype
    checked: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    digests: dict[str, tuple[tuple[int, int], str]] = field(default_factory=dict[str, tuple[tuple[int, int], str]])
    constants: Mapping[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])
    states: Mapping[str, object] = field(default_factory=dict[str, object])

    def tensor(self, name: str) -> torch.Tensor:
        """Return the stored tensor.

        Raises `LoadError` for an unknown name, a value that is not a finite number, a meta tensor, and for a part of the module
        that has become another since the capture.
        """
        if name in self.constants:
            return self.constants[name].to(self._device())
        owner_name, _, leaf = name.rpartition(".")
        try:
            owner = self._owner(owner_name)
            found = getattr(owner, leaf)
        except AttributeError as error:
            raise LoadError(self._missing(name)) from error
        if not isinstance(found, torch.Tensor):
            raise LoadError(self._missing(name))
        if found.device.type == "meta":
            raise LoadError(_without_values(name, leaf, owner))
        self._check(name, found)
        return found

    def _missing(self, name: str) -> str:
        if name not in self.aliases:
            return f"the module has no tensor {name!r}{near(name, self.aliases)}"
        return (
            f"the module has no tensor {name!r} any more: it was changed after the model was captured. "
            "Change it back, or load the module again"
        )

    def _owner(self, path: str) -> nn.Module:
        """Return the part of the module at a path, each part on the way being what it was when captured."""
        owner, here = self.module, ""
        for step in ["", *path.split(".")] if path else [""]:
            if step:
                owner, here = getattr(owner, step), f"{here}.{step}" if here else step
            state = state_of(owner)
            if self.states.get(here, state) != state:
                raise LoadError(_changed(here, self.states[here], state))
        return owner

    def verify(self) -> None:
        """Raise `LoadError` where any part of the module is of another class, or has other adapters, than when it was captured.

        Numbers that the module's code reads from its attributes, and hooks, are not looked at.
        """
        now = states_of(self.module)
        for path in dict.fromkeys([*self.states, *now] if self.states else []):
            if self.states.get(path) != now.get(path):
                raise LoadError(_changed(path, self.states.get(path), now.get(path)))

    def _device(self) -> torch.device:
        """Return where the module's first weight is, which is where a constant is needed."""
        first = next(iter([*self.module.parameters(), *self.module.buffers()]), None)
        return torch.device("cpu") if first is None else first.device

    def digest(self, name: str) -> str:
        """Return the fingerprint of a tensor's type, shape and bytes, remembered for the version of it that was seen."""
        found = self.tensor(name).detach()
        seen = (found.data_ptr(), found._version)
        if self.digests.get(name, (None, ""))[0] != seen:
            self.digests[name] = (seen, digest_of(found))
        return self.digests[name][1]

    def _check(self, name: str, found: torch.Tensor) -> None:
        seen = (found.data_ptr(), found._version)
        if self.checked.get(name) == seen or not found.is_floating_point():
            return
        bad = ~torch.isfinite(found.detach())
        # a mask kept as a buffer may hold -inf on purpose; a parameter may not
        if isinstance(found, nn.Parameter) and bool(bad.any()):
            raise LoadError(_not_finite(name, bad))
        self.checked[name] = seen


@dataclass(frozen=True, eq=False)
class TensorStore:
    """Tensors by name, without a module: those of a saved model, or of a trained circuit. Parameters are `nn.Parameter`s."""

    tensors: Mapping[str, torch.Tensor]
    dtype: torch.dtype

    def tensor(self, name: str) -> torch.Tensor:
        """Return the stored tensor; raise `LoadError` for a name it lacks, or a parameter that is not finite numbers."""
        if name not in self.tensors:
            raise LoadError(f"no tensor {name!r} is stored{near(name, self.tensors)}")
        found = self.tensors[name]
        if isinstance(found, nn.Parameter) and bool((bad := ~torch.isfinite(found.detach())).any()):
            raise LoadError(_not_finite(name, bad))
        return found

    def digest(self, name: str) -> str:
        """Return the fingerprint of a tensor's type, shape and bytes."""
        return digest_of(self.tensor(name).detach())


def digest_of(found: torch.Tensor) -> str:
    """Return the fingerprint of a tensor's type, shape and bytes."""
    flat = found.cpu().contiguous().reshape(-1)
    content = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return digest_json([str(found.dtype), list(found.shape), digest_bytes(content)])


def _not_finite(name: str, bad: torch.Tensor) -> str:
    return (
        f"weight {name!r} holds {int(bad.sum())} values that are not finite numbers (NaN or infinity) out of {bad.numel()}: "
        "the checkpoint is damaged or training diverged; load another one"
    )


def _without_values(name: str, leaf: str, owner: nn.Module) -> str:
    if leaf in owner._non_persistent_buffers_set:
        return (
            f"buffer {name!r} is on the meta device and has no values, and it is in no checkpoint: the module computes it when it is built, so "
            "build the module on a real device (or load it with from_pretrained), or assign the buffer before running the model"
        )
    return f"weight {name!r} is on the meta device and has no values: load the weights before running the model"


ADAPTER_STATE = ("_active_adapter", "_disable_adapters", "merged_adapters", "scaling")
"""What a PEFT layer keeps of its adapters, beside their weights: plain values that its code reads when it runs."""


def states_of(module: nn.Module) -> dict[str, object]:
    """Return the state of each part of a module by its path.

    >>> states_of(nn.Sequential(nn.ReLU()))["0"]
    <class 'torch.nn.modules.activation.ReLU'>
    """
    return {path: state_of(part) for path, part in module.named_modules(remove_duplicate=False)}


def state_of(part: nn.Module) -> object:
    """Return what says which computation a part does, apart from weights: its class, and for a PEFT layer its adapters."""
    own = part.__dict__
    if "_active_adapter" not in own:
        return type(part)
    return (type(part), *((key, _copied(own.get(key))) for key in ADAPTER_STATE))


def _copied(value: object) -> object:
    if isinstance(value, Mapping):
        return tuple(cast("Mapping[object, object]", value).items())
    return tuple(cast("list[object]", value)) if isinstance(value, list) else value


def _changed(path: str, then: object, now: object) -> str:
    return (
        f"{path or 'the module'} has changed since the model was captured: {_said(then)} then, {_said(now)} now. The circuit "
        "is of the module as it was: change it back (for an adapter: enable_adapters, set_adapter, unmerge), or load it again"
    )


def _said(state: object) -> str:
    """Return a state in words."""
    if state is None:
        return "not there"
    if isinstance(state, type):
        return f"a {state.__name__}"
    kind, *rest = cast("tuple[type, *tuple[tuple[str, object], ...]]", state)
    known = dict(rest)
    active = known["_active_adapter"]
    names = ", ".join(map(str, cast("tuple[object, ...]", active) if isinstance(active, tuple) else (active,)))
    text = f"a {kind.__module__}.{kind.__name__} with adapter {names or 'none'}"
    if known["_disable_adapters"]:
        text += " switched off"
    if merged := known["merged_adapters"]:
        text += f", {', '.join(map(str, cast('tuple[object, ...]', merged)))} merged"
    return f"{text}, scaled by {known['scaling']}" if known["scaling"] else text
