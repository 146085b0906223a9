"""Models inside wrappers: which of them pass a call on unchanged, and which are refused."""

from __future__ import annotations

from typing import Any

from torch import nn

from scrubjay.errors import CaptureError


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside wrappers that pass a call on unchanged: data parallel ones, and PEFT with adapters in layers.

    The adapters stay as they are: active, merged or switched off. A module that is no wrapper comes back itself. Raises
    `CaptureError` for wrappers that compute something themselves (prompt tuning), and for compiled modules.

    >>> layer = nn.Linear(2, 2)
    >>> unwrapped(nn.DataParallel(layer)) is layer
    True
    """
    kind = type(module)
    if kind.__name__ == "OptimizedModule" and kind.__module__.startswith("torch._dynamo"):
        raise CaptureError(
            "the module is compiled (torch.compile), and compiled code has no circuit: give the module inside it, `module._orig_mod`"
        )
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return unwrapped(module.module)
    if kind.__module__.partition(".")[0] == "peft":
        held = _without_adapter_calls(module)
        return module if held is None else unwrapped(held)
    return module


def inside(module: Any) -> Any:
    """Return the innermost module of any wrapper, exact or not: to tell what was given."""
    kind = type(module)
    if kind.__name__ == "OptimizedModule" and kind.__module__.startswith("torch._dynamo"):
        return inside(module._orig_mod)
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return inside(module.module)
    if kind.__module__.partition(".")[0] == "peft" and (held := _held(module)) is not None:
        return inside(held)
    return module


def _without_adapter_calls(module: nn.Module) -> nn.Module | None:
    """Return the model that PEFT put its adapter layers into, where a call of the wrapper is a call of it; None for no wrapper."""
    from peft import PeftMixedModel, PeftModel  # noqa: PLC0415
    from peft.tuners.adalora import AdaLoraModel  # noqa: PLC0415
    from peft.tuners.tuners_utils import BaseTuner  # noqa: PLC0415

    kind = type(module).__name__
    tuner = module.base_model if isinstance(module, PeftModel | PeftMixedModel) else module
    if not isinstance(tuner, BaseTuner):
        if isinstance(module, PeftModel):
            raise CaptureError(
                f"{kind} has a prompt or prefix adapter ({', '.join(_kinds(module))}), which puts learned positions before the input: "
                "there is no circuit of that yet; give the model inside it, `peft_model.base_model`, for the model without the adapter"
            )
        return None  # a layer of PEFT's own: a module like any other
    # AdaLora's own forward adds a term to a training loss, and nothing else
    if type(tuner).forward is not BaseTuner.forward and not isinstance(tuner, AdaLoraModel):
        raise CaptureError(
            f"{kind} has an adapter that computes on its own before the model ({', '.join(_kinds(tuner))}), which has no circuit yet: "
            "merge it (`peft_model.merge_and_unload()`), or give `peft_model.base_model.model`, the model with its layers as they are"
        )
    if any(getattr(config, "alora_invocation_tokens", None) for config in _configs(tuner).values()):
        raise CaptureError(
            f"{kind} has an activated LoRA, which looks for its invocation tokens in each input and has no circuit yet: "
            "give `peft_model.base_model.model`, which never activates it"
        )
    return tuner.model


def _held(module: Any) -> Any:
    """Return what a PEFT wrapper holds."""
    base = module.base_model if type(module).__module__ in {"peft.peft_model", "peft.mixed_model"} else module
    found = getattr(base, "model", None)
    return found if isinstance(found, nn.Module) else None if base is module else base


def _configs(tuner: Any) -> dict[str, Any]:
    return dict(tuner.peft_config)


def _kinds(module: Any) -> list[str]:
    return sorted({str(getattr(config.peft_type, "value", config.peft_type)) for config in _configs(module).values()})
