"""The words of addresses: the names of sites, and foreign spellings, from text to canonical text and back.

Accepted: `9.9`, `L9H9`, `a9.h9` (with a site, as in `L9H9.z`) for heads, and TransformerLens hook names. Both
directions are one table. Where a value of TransformerLens differs from ours (its `ln1.hook_normalized` is after the affine
map in a LayerNorm whose weights were not folded; ours is before it), the name still stands for ours.

Source: hook names and their order in `TransformerBlock.forward` of TransformerLens 2, and `unembed.hook_out` of 3.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from scrubjay.errors import AddressError, near

MODEL_SITES = ("embed", "pos_embed", "ln_f.scale", "ln_f.normalized", "logits", "output")
_ATTENTION = ("q", "k", "v", "q_rot", "k_rot", "scores", "pattern", "z")
LAYER_SITES = (
    *("resid_pre", "resid_mid", "resid_post"),
    *(f"attn.{site}" for site in (*_ATTENTION, "o", "out")),
    *(f"mlp.{site}" for site in ("in", "pre", "gate", "up", "post", "out")),
    *(f"mlp.router.{site}" for site in ("logits", "weights", "chosen")),
    *("mixer.out", "cross.out"),
    *("ln1.scale", "ln1.normalized", "ln2.scale", "ln2.normalized"),
)
HEAD_SITES = (*_ATTENTION, "out", "q_in", "k_in", "v_in")
KEY_VALUE_SITES = ("k", "v", "k_rot")
EXPERT_SITES = ("out",)

# What follows `blocks.{layer}.` there -> what follows `L{layer}.` here.
_IN_LAYER: dict[str, str] = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "ln1.hook_scale": "ln1.scale",
    "ln1.hook_normalized": "ln1.normalized",
    "ln2.hook_scale": "ln2.scale",
    "ln2.hook_normalized": "ln2.normalized",
    "hook_q_input": "H*.q_in",
    "hook_k_input": "H*.k_in",
    "hook_v_input": "H*.v_in",
    "attn.hook_q": "attn.q",
    "attn.hook_k": "attn.k",
    "attn.hook_v": "attn.v",
    "attn.hook_rot_q": "attn.q_rot",
    "attn.hook_rot_k": "attn.k_rot",
    "attn.hook_attn_scores": "attn.scores",
    "attn.hook_pattern": "attn.pattern",
    "attn.hook_z": "attn.z",
    "attn.hook_result": "H*.out",
    "hook_attn_out": "attn.out",
    "hook_mlp_in": "mlp.in",
    "mlp.hook_pre": "mlp.pre",  # the gate, when gated: there `mlp.pre` enters the nonlinearity as well
    "mlp.hook_pre_linear": "mlp.up",
    "mlp.hook_post": "mlp.post",
    "mlp.hook_expert_indices": "mlp.router.chosen",
    "hook_mlp_out": "mlp.out",
}

_WHOLE_MODEL: dict[str, str] = {
    "hook_embed": "embed",
    "hook_pos_embed": "pos_embed",
    "ln_final.hook_scale": "ln_f.scale",
    "ln_final.hook_normalized": "ln_f.normalized",
    "hook_logits": "logits",  # no release has it, everybody expects it
    "unembed.hook_out": "logits",  # of two names for one value, the later is the one written
}

# Ways to say the same value as a hook, besides its canonical reading above. `H*.k` is not one: with grouped queries it is
# a copy for each query head, and `attn.hook_k` is not.
_ALSO: dict[str, str] = {
    "H*.q": "attn.hook_q",
    "H*.q_rot": "attn.hook_rot_q",
    "KV*.k": "attn.hook_k",
    "KV*.k_rot": "attn.hook_rot_k",
    "KV*.v": "attn.hook_v",
    "H*.scores": "attn.hook_attn_scores",
    "H*.pattern": "attn.hook_pattern",
    "H*.z": "attn.hook_z",
    "mlp.gate": "mlp.hook_pre",
    "N*": "mlp.hook_post",
}

_HOOK_OF_LAYER = {ours: theirs for theirs, ours in _IN_LAYER.items()} | _ALSO
_HOOK_OF_MODEL = {ours: theirs for theirs, ours in _WHOLE_MODEL.items()}

_HEAD = re.compile(r"[AaLl]([0-9]+)\.?[Hh]([0-9]+)(\.[^.]+)?")
_BARE_HEAD = re.compile(r"([0-9]+)\.([0-9]+)")
_BLOCK = re.compile(r"blocks\.([^.]*)\.(.*)", re.DOTALL)
_NUMBER = re.compile(r"[0-9]+")
_WHOLE = re.compile(r"-?[0-9]{1,9}")
_MODULE_NAME = re.compile(r"[\w-]+")
_LONGEST = 60

LARGEST = 999_999_999
"""The largest index or position: nine digits."""

LAYER = re.compile(r"L([^A-Za-z_].*)?", re.DOTALL)
"""What the name of a layer looks like, its index (right or wrong) in the group."""


def shorten(text: str, longest: int = _LONGEST) -> str:
    """Return `text` quoted and escaped for a message, cut to about `longest` characters.

    >>> shorten("L3.z")
    "'L3.z'"
    >>> shorten("x" * 1000, longest=5)
    "'xxxxx...' (1000 characters)"
    """
    return repr(text) if len(text) <= longest else f"{text[:longest] + '...'!r} ({len(text)} characters)"


def listed(before: str, names: Iterable[str], most: int = 8) -> str:
    """Return `before`, the first names and how many more there are; of a set, in alphabetical order.

    >>> listed("it has", {"c", "b", "a"}, most=2)
    'it has a, b and 1 more'
    """
    ordered = sorted(names) if isinstance(names, set | frozenset) else list(names)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return f"{before} {', '.join(ordered[:most]) or 'none'}{more}"


def joined(*names: str) -> str:
    """Return the names that are not empty with dots between."""
    return ".".join(name for name in names if name)


def starred(kind: str) -> str:
    """Return the text of a kind of site in a layer, heads, neurons and experts as all of them.

    >>> starred("H.z"), starred("N"), starred("mlp.E.out"), starred("attn.z")
    ('H*.z', 'N*', 'mlp.E*.out', 'attn.z')
    """
    for prefix in ("H.", "KV.", "mlp.E."):
        if kind.startswith(prefix):
            return f"{prefix[:-1]}*.{kind.removeprefix(prefix)}"
    return "N*" if kind == "N" else kind


def check_known(sites: Iterable[str], known: Iterable[str], owner: str) -> None:
    """Raise `AddressError` for a site that is not one of the known ones."""
    for unknown in sorted(set(sites) - set(known)):
        raise AddressError(f"no such site {shorten(unknown)} of {owner}{close(unknown, known)}")


def no_such_site(owner: str, site: str, sites: tuple[str, ...]) -> str:
    """Return why `site` is none of an owner's (a layer, a part; empty: the whole model), with near addresses or else all.

    >>> no_such_site("L3.H7", "patern", ("pattern", "z"))
    "no such site 'patern' of L3.H7; did you mean L3.H7.pattern, L3.H7.z?"
    """
    whole = owner or "the whole model"
    if sites == ("",):
        return f"{owner} has no sites, so not {shorten(site)}; leave it out"
    there = f"its sites are {', '.join(sites)}" if sites else "this model has none of its kind"
    if not site:
        return f"{owner or 'this'} is no value by itself; {there}"
    asked, known = joined(owner, site), [joined(owner, name) for name in sites]
    inside = [name for name in known if name.startswith(f"{asked}.")]
    hint = listed("; did you mean", inside, most=10) if inside else close(asked, known)
    return f"no such site {shorten(site)} of {whole}{hint or f'; {there}'}"


def is_number(value: int) -> bool:
    """Say whether a value is a whole number of at most nine digits."""
    return not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def close(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" for the known names closest to `name`, or an empty text."""
    return near(name[:_LONGEST], known, most=3)  # the time it takes grows with the square of the length


def whole_number(text: str, what: str) -> int:
    """Return the number that `text` spells in decimal digits, perhaps after a minus sign; raise `AddressError` otherwise.

    >>> whole_number("-12", "the position")
    -12
    """
    if not _WHOLE.fullmatch(text) or text == "-0":
        raise AddressError(f"{what} {shorten(text)} is not a whole number of at most nine digits")
    return int(text)


def module_problem(path: str) -> str:
    """Return why `path` is not names (letters, digits, underscores, hyphens) joined by single dots; empty if it is.

    >>> module_problem("model.layers.3"), module_problem("a..b")
    ('', "the module path 'a..b' has an empty name; join names with single dots")
    """
    for name in path.split("."):
        if not name:
            return f"the module path {shorten(path)} has an empty name; join names with single dots"
        if not _MODULE_NAME.fullmatch(name):
            return f"the name {shorten(name)} cannot stand in a module path; names have letters, digits, _ and -"
    return ""


def reads_as_module(name: str) -> bool:
    """Say whether `name` is a module path without a dot in front: dotted, and no beginning of anything else.

    >>> [reads_as_module(name) for name in ("model.layers.3", "lm_head", "L3.H7.z", "9.9", "L3.resid_prf")]
    [True, False, False, False, False]
    """
    first = name.partition(".")[0]
    if "." not in name or first in ("", "ln_f", "logits"):
        return False
    return LAYER.fullmatch(first) is None and not is_foreign(name)


def dotted(name: str, modules: Collection[str]) -> str:
    """Return the name of what a spliced module leaves out with the dot in front of a module's; any other name as it is.

    >>> dotted("L3.resid_post.error", {"L3.resid_post.error"}), dotted("L3.H7.z", {"L3.H7.z"})
    ('.L3.resid_post.error', 'L3.H7.z')
    """
    return f".{name}" if name.endswith(".error") and name in modules else name


def is_foreign(name: str) -> bool:
    """Say whether an address text without position is a foreign spelling (of a known hook or not).

    >>> [is_foreign(name) for name in ("9.9", "a9.h9", "blocks.3.hook_nothing", "L9.H9.z", "blocks.3.attn")]
    [True, True, True, False, False]
    """
    if name.rpartition(".")[2].startswith("hook_"):
        return True
    head = _HEAD.fullmatch(name)
    return _BARE_HEAD.fullmatch(name) is not None or (head is not None and not name.startswith(f"L{head[1]}.H"))


def to_canonical(name: str) -> str:
    """Return the canonical text of a foreign spelling (see `is_foreign`); other text comes back as it is.

    A head without a site stays without one, for the address parser to fill in.

    Raises:
        AddressError: if it is a TransformerLens name with no counterpart here, without its layer, or with a `*` for it.

    >>> to_canonical("a9.h8"), to_canonical("L9H8.z"), to_canonical("blocks.9.attn.hook_z")
    ('L9.H8', 'L9.H8.z', 'L9.attn.z')
    >>> to_canonical("ln_final.hook_scale"), to_canonical("blocks.3.hook_q_input")
    ('ln_f.scale', 'L3.H*.q_in')
    """
    if not is_foreign(name):
        return name
    if head := _HEAD.fullmatch(name):
        return f"L{head[1]}.H{head[2]}{head[3] or ''}"
    if head := _BARE_HEAD.fullmatch(name):
        return f"L{head[1]}.H{head[2]}"
    if name in _WHOLE_MODEL:
        return _WHOLE_MODEL[name]
    block = _BLOCK.fullmatch(name)
    layer, hook = (block[1], block[2]) if block else ("", name)
    if hook == "hook_attn_in":
        number = layer or "3"
        raise AddressError(
            "hook_attn_in is what q, k and v read together, three addresses here; "
            f"write L{number}.H*.q_in, L{number}.H*.k_in and L{number}.H*.v_in"
        )
    if hook not in _IN_LAYER:
        known = [*_HOOK_OF_MODEL.values(), *(f"blocks.{layer}.{known}" for known in _IN_LAYER)]
        hint = close(name, known) or "; write the address instead, such as L3.attn.z"
        raise AddressError(f"no TransformerLens hook of this name has an address{hint}")
    ours = _IN_LAYER[hook]
    if not block:
        raise AddressError(f"a TransformerLens name says its layer; write blocks.3.{hook} or L3.{ours}")
    if not _NUMBER.fullmatch(layer):
        raise AddressError(
            f"a TransformerLens name takes one layer number, not {shorten(layer)}; write L*.{ours} for all"
        )
    return f"L{layer}.{ours}"


def transformer_lens_hook(layer: int | None, place: str) -> str | None:
    """Return the TransformerLens hook for the canonical text `place` inside a layer (or the model), None if it has none.

    >>> transformer_lens_hook(3, "H*.out"), transformer_lens_hook(None, "ln_f.scale"), transformer_lens_hook(3, "H7.z")
    ('blocks.3.attn.hook_result', 'ln_final.hook_scale', None)
    """
    if layer is None:
        return _HOOK_OF_MODEL.get(place)
    hook = _HOOK_OF_LAYER.get(place)
    return None if hook is None else f"blocks.{layer}.{hook}"
