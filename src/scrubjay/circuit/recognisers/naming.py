"""From layers to names: the table of addresses, and the glossary's names for axes."""

from __future__ import annotations

from collections.abc import Sequence

from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Index, Narrow
from scrubjay.circuit.recognisers.attention import Attention
from scrubjay.circuit.recognisers.ends import Ends
from scrubjay.circuit.recognisers.experts import Mixture
from scrubjay.circuit.recognisers.facts import Facts, Norm, norm_below
from scrubjay.circuit.recognisers.layer import ATTENTION, CROSS, MIXER, MLP, Block, Layer
from scrubjay.circuit.recognisers.mlp import Mlp


def addresses(layers: Sequence[Layer], ends: Ends, result: str, root: Node, known: Facts) -> dict[str, Node]:
    """Return the node of every address that the layers and ends have; those that begin with `_` are the recognisers' own."""
    table: dict[str, Node] = {}
    if ends.embed is not None:
        table["embed"] = ends.embed
    if ends.pos_embed is not None:
        table["pos_embed"] = ends.pos_embed
    for number, layer in enumerate(layers):
        last = number + 1 == len(layers)
        table.update({f"L{number}.{site}": node for site, node in _sites(layer, known, last=last).items()})
    _norm_sites(table, "ln_f", ends.ln_f)
    table[result] = root
    return table


def _sites(layer: Layer, known: Facts, *, last: bool) -> dict[str, Node]:
    table = {} if layer.lone else {"resid_pre": layer.resid_pre}
    seen: set[str] = set()
    for number, block in enumerate(layer.blocks):
        if block.kind and block.kind not in seen:
            seen.add(block.kind)
            _block_sites(table, block)
        else:
            table[f"_block{number}._cut"] = block.cut
    mid = middle(layer)
    if mid is not None:
        table["resid_mid"] = mid
    for name, norm in norms(layer, known, last=last).items():
        _norm_sites(table, name, norm)
    if not layer.lone:
        table["resid_post"] = layer.resid_post
    return table


def _block_sites(table: dict[str, Node], block: Block) -> None:
    table[f"{block.kind}.out"] = block.out
    table[f"{block.kind}._cut"] = block.cut
    if block.kind == MLP:
        table["mlp.in"] = block.before
    inside = block.inside
    if isinstance(inside, Attention) and block.kind == ATTENTION:
        for site in ("q", "k", "v", "q_rot", "k_rot", "scores", "pattern", "z", "o"):
            node = getattr(inside, site)
            if node is not None:
                table[f"attn.{site}"] = node
        table["attn._product"] = inside.o_product
    elif isinstance(inside, Mlp):
        table |= {"mlp.pre": inside.pre, "mlp.post": inside.post}
        if inside.up is not None:
            table |= {"mlp.gate": inside.pre, "mlp.up": inside.up}
    elif isinstance(inside, Mixture):
        found = {"logits": inside.logits, "weights": inside.weights, "chosen": inside.chosen}
        table |= {f"mlp.router.{site}": node for site, node in found.items() if node is not None}
        if inside.each is not None:
            table["mlp._each"] = inside.each


def middle(layer: Layer) -> Node | None:
    """Return the stream between a layer's first part and its MLP, if these are two additions."""
    if len(layer.steps) < 2:
        return None
    place = next((n for n, step in enumerate(layer.steps) if any(block.kind == MLP for block in step)), 1)
    return layer.afters[max(place, 1) - 1]


def norms(layer: Layer, known: Facts, *, last: bool) -> dict[str, Norm]:
    """Return the norms of a layer: `ln1` of what reads other positions, `ln2` of the MLP, before them or after their sums."""
    found: dict[str, Norm] = {}
    nexts = [*(step[0].before for step in layer.steps[1:]), layer.closing]
    for step, after, following in zip(layer.steps, layer.afters, nexts, strict=True):
        closing = _closing(after, following, known, search=last and is_post_norm(layer))
        for block in step:
            name = {ATTENTION: "ln1", MIXER: "ln1", MLP: "ln2"}.get(block.kind)
            norm = block.norm or (closing if len(step) == 1 else None)
            if (
                name is not None
                and norm is not None
                and norm.normalized not in [one.normalized for one in found.values()]
            ):
                found.setdefault(name, norm)
    return found


def _closing(after: Node, following: Node | None, known: Facts, *, search: bool) -> Norm | None:
    """Return the norm that stands between a sum and what follows; of the last layer, any norm of its sum."""
    candidates = [following] if following is not None else list(known.nodes) if search else []
    for node in candidates:
        norm = norm_below(node, known)
        if norm is not None and norm.source is after:
            return norm
    return None


def is_post_norm(layer: Layer) -> bool:
    """Tell whether the stream passes a norm between two additions of a layer."""
    pairs = zip(layer.afters, (step[0].before for step in layer.steps[1:]), strict=False)
    return any(before is not after for after, before in pairs)


def _norm_sites(table: dict[str, Node], name: str, norm: Norm | None) -> None:
    if norm is not None:
        table[f"{name}.scale"] = norm.scale
        table[f"{name}.normalized"] = norm.normalized


def axis_names(layers: Sequence[Layer], ends: Ends, root: Node) -> dict[str, str]:
    """Return the glossary's names for the axes that the anatomy identifies."""
    given: dict[str, str] = dict(ends.tables)

    def name(old: Sequence[str], new: str) -> None:
        if len(old) == 1:
            given.setdefault(old[0], new)

    for layer in layers:
        name(_rest(layer.resid_pre), "model")
    for block in (block for layer in layers for block in layer.blocks):
        one = block.inside
        if isinstance(one, Attention) and block.kind == ATTENTION:
            for old, new in _head_names(one):
                name(old, new)
        elif isinstance(one, Mlp):
            name(_rest(one.post), "hidden")
        elif isinstance(one, Mixture):
            name([one.axis], "expert")
            name(_rest(one.logits) if one.logits is not None else [], "expert")
            name([one.slot] if one.slot is not None else [], "chosen")
    name(_rest(root, *(old for old, new in given.items() if new == "model")), "vocab")
    return _with_stretches(given, root)


def _rest(node: Node, *known: str) -> list[str]:
    return [axis.name for axis in node.axes if axis.name not in {"batch", "query", "key", *known}]


def _head_names(one: Attention) -> list[tuple[Sequence[str], str]]:
    """Return the axes of heads and of one head's space, with their names."""
    names = ["head"] if len(one.heads) == 1 else ["kv", "group"] if len(one.heads) == 2 else []
    found: list[tuple[Sequence[str], str]] = [([old], new) for old, new in zip(one.heads, names, strict=False)]
    found.append((sorted({node.axis for node in (one.q, one.k, one.v) if isinstance(node, Index)}), "qkv"))
    spaces = (one.q, one.k, one.v, one.q_rot, one.k_rot, one.z)
    return [*found, *((_rest(node, *one.heads), "d_head") for node in spaces if node is not None)]


def _with_stretches(given: dict[str, str], root: Node) -> dict[str, str]:
    """Name stretches of a named axis after it: `x[0:32]` becomes `d_head[0:32]`."""
    for node in topological([root]):
        if isinstance(node, Narrow) and node.axis in given and "[" in node.to.name:
            given.setdefault(node.to.name, given[node.axis] + node.to.name[node.to.name.rindex("[") :])
    return given


def notes(layers: Sequence[Layer], gaps: Sequence[int]) -> list[str]:
    """Return what was not understood, in words, layers with one trouble told together."""
    found: dict[str, list[int]] = {}
    for number, layer in enumerate(layers):
        seen: set[str] = set()
        for block in layer.blocks:
            what = _trouble(block, again=block.kind in seen or not block.kind)
            seen.add(block.kind)
            if what:
                found.setdefault(what, []).append(number)
    said = [f"{_listed(numbers)}: {what}" for what, numbers in found.items()]
    said += [
        f"between L{gap - 1}.resid_post and L{gap}.resid_pre stands something that is no residual addition: it is addressed by module path, and direct paths across it are refused"
        for gap in gaps
    ]
    return said


_CALLED = {ATTENTION: "attention", CROSS: "cross-attention", MLP: "MLP", MIXER: "mixer", "": "block"}


def _trouble(block: Block, *, again: bool) -> str:
    if block.kind == MIXER and not again:
        return "a mixer that is no attention (state space, convolution, linear attention): mixer.out is what it adds, its inside is addressed by module path"
    if block.kind == CROSS and not again:
        return "cross-attention: cross.out is what it adds, its inside is addressed by module path"
    why = f" ({block.why})" if block.why else ""
    if again:
        return f"a further {_CALLED[block.kind]} is added to the stream{why}: it is addressed by module path"
    if isinstance(block.inside, Attention) and (lacking := [s for s in "qkv" if getattr(block.inside, s) is None]):
        return f"attn.{', attn.'.join(lacking)}: no one linear map that makes them was found"
    if block.why:
        return f"the {_CALLED[block.kind]} was not understood{why}: {block.kind}.out is what it adds, its inside is addressed by module path"
    return ""


def _listed(numbers: Sequence[int]) -> str:
    """Return layers by number, runs of them as ranges: L0, L2..5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join(f"L{run[0]}" if len(run) == 1 else f"L{run[0]}..{run[-1]}" for run in runs)
