"""Where weights are found: the tensors of a live module, shared and never copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from scrubjay.errors import LoadError, near
from scrubjay.evidence.digest import digest_bytes, digest_json


@dataclass(frozen=True, eq=False)
class ModuleStore:
    """The parameters and buffers of a module by name. A name that is tied to another gives the same tensor.

    Values are looked up at every evaluation, so a change of the module's weights is seen; each tensor is checked to be
    finite once for every version of it. `constants` are the tensors that the module makes of plain numbers when it runs.
    """

    module: nn.Module
    aliases: Mapping[str, str]
    dtype: torch.dtype
    checked: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    digests: dict[str, tuple[tuple[int, int], str]] = field(default_factory=dict[str, tuple[tuple[int, int], str]])
    constants: Mapping[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])

    def tensor(self, name: str) -> torch.Tensor:
        """Return the stored tensor; raise `LoadError` for an unknown name, a value that is not a finite number, or a meta tensor."""
        if name in self.constants:
            return self.constants[name].to(self._device())
        owner_name, _, leaf = name.rpartition(".")
        try:
            owner = self.module.get_submodule(owner_name)
            found = getattr(owner, leaf)
        except AttributeError as error:
            raise LoadError(f"the module has no tensor {name!r}{near(name, self.aliases)}") from error
        if found.device.type == "meta":
            raise LoadError(
                f"weight {name!r} is on the meta device and has no values: load the weights before running the model"
            )
        self._check(name, found)
        return found

    def _device(self) -> torch.device:
        """Return where the module's first weight is, which is where a constant is needed."""
        first = next(iter([*self.module.parameters(), *self.module.buffers()]), None)
        return torch.device("cpu") if first is None else first.device

    def digest(self, name: str) -> str:
        """Return the fingerprint of a tensor's type, shape and bytes, remembered for the version of it that was seen."""
        found = self.tensor(name).detach()
        seen = (found.data_ptr(), found._version)
        if self.digests.get(name, (None, ""))[0] != seen:
            flat = found.cpu().contiguous().reshape(-1)
            content = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
            written = digest_json([str(found.dtype), list(found.shape), digest_bytes(content)])
            self.digests[name] = (seen, written)
        return self.digests[name][1]

    def _check(self, name: str, found: torch.Tensor) -> None:
        seen = (found.data_ptr(), found._version)
        if self.checked.get(name) == seen or not found.is_floating_point():
            return
        bad = ~torch.isfinite(found.detach())
        # a mask kept as a buffer may hold -inf on purpose; a parameter may not
        if isinstance(found, nn.Parameter) and bool(bad.any()):
            raise LoadError(
                f"weight {name!r} holds {int(bad.sum())} values that are not finite numbers (NaN or infinity) out of {found.numel()}: "
                "the checkpoint is damaged or training diverged; load another one"
            )
        self.checked[name] = seen
