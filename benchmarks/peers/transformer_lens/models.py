"""How TransformerLens 4 loads a saved model: its Bridge, as it is and in compatibility mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformer_lens.model_bridge import TransformerBridge
from worker import Access, Saved, Way

DISTRIBUTION = "transformer-lens"
SITES = {
    "resid": "blocks.0.hook_resid_post",
    "pattern": "blocks.0.attn.hook_pattern",
    "z": "blocks.0.attn.hook_z",
}


def from_folder(saved: Saved) -> Any:
    """The documented way, with a local folder in place of a name."""
    return TransformerBridge.boot_transformers(str(saved.folder), device="cpu")


def from_module(saved: Saved) -> Any:
    """A loaded module, its tokenizer from disk, and the class's name in its configuration."""
    module = saved.module()
    module.config.architectures = [saved.kind]
    return TransformerBridge.boot_transformers(
        str(saved.folder), hf_model=module, tokenizer=saved.tokenizer(), device="cpu"
    )


def access(bridge: Any) -> Access:
    def logits(batch: dict[str, Any]) -> Any:
        given = dict(batch)
        return bridge(given.pop("input_ids"), return_type="logits", **given)

    def site(name: str) -> Callable[[dict[str, Any]], Any]:
        def read(batch: dict[str, Any]) -> Any:
            given = dict(batch)
            _, cache = bridge.run_with_cache(given.pop("input_ids"), **given)
            return cache[name]

        return read

    return Access(logits, {name: site(where) for name, where in SITES.items()}, named=True)


def plain(boot: Callable[[Saved], Any]) -> Callable[[Saved], Access]:
    return lambda saved: access(boot(saved).eval())


def compatible(boot: Callable[[Saved], Any]) -> Callable[[Saved], Access]:
    def load(saved: Saved) -> Access:
        bridge = boot(saved).eval()
        bridge.enable_compatibility_mode()
        return access(bridge)

    return load


BOOTS = {
    "boot_transformers(folder)": from_folder,
    "boot_transformers(folder, hf_model=, tokenizer=), config.architectures set": from_module,
}
VARIANTS: dict[str, list[Way]] = {
    "transformer_lens": [(name, plain(boot)) for name, boot in BOOTS.items()],
    "transformer_lens_compatibility": [(name, compatible(boot)) for name, boot in BOOTS.items()],
}
