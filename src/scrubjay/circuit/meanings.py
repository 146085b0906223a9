"""What each site means, in words: one table for `model.sites`, `model.explain`, the command line and the documentation.

The keys are the kinds of `Address.kind`: `resid_pre` in a layer, `H.q` of a head, `KV.k` of a key-value head, `N`, `embed`.
"""

from __future__ import annotations

from scrubjay.circuit.address import Address, Module

MEANINGS: dict[str, str] = {
    "embed": "token embeddings, as they enter the first sum",
    "pos_embed": "position embeddings, as they enter the first sum",
    "ln_f.scale": "divisor of the final norm",
    "ln_f.normalized": "stream after the final norm's division, before its affine map",
    "logits": "result: a score for each token",
    "output": "result of the model",
    "resid_pre": "residual stream that enters the layer",
    "resid_mid": "residual stream between attention and MLP",
    "resid_post": "residual stream that leaves the layer",
    "attn.q": "queries: the projection",
    "attn.k": "keys: the projection",
    "attn.v": "values: the projection",
    "attn.q_rot": "queries as the scores use them",
    "attn.k_rot": "keys as the scores use them",
    "attn.scores": "what enters the softmax: scaled, capped, masked",
    "attn.pattern": "attention weights: the softmax over keys",
    "attn.z": "the pattern's sum of values, for each head",
    "attn.o": "output projection of all heads together, with its bias",
    "attn.out": "exactly what attention adds to the stream",
    "mlp.in": "residual stream that the MLP reads, before its norm",
    "mlp.pre": "what enters the MLP's nonlinearity",
    "mlp.gate": "what enters the nonlinearity of a gated MLP (the same value as mlp.pre)",
    "mlp.up": "the other factor of a gated MLP, which passes no nonlinearity",
    "mlp.post": "neurons: what the down projection reads",
    "mlp.out": "exactly what the MLP adds to the stream",
    "mlp.router.logits": "the router's score for each expert",
    "mlp.router.weights": "the weights of the chosen experts in the sum, in the order of mlp.router.chosen",
    "mlp.router.chosen": "which experts each token is sent to",
    "mixer.out": "exactly what another mixer of positions than attention adds to the stream",
    "cross.out": "exactly what attention to another sequence adds to the stream",
    "ln1.scale": "divisor of the attention's norm: sqrt(mean square + eps)",
    "ln1.normalized": "value of the attention's norm before its affine map",
    "ln2.scale": "divisor of the MLP's norm: sqrt(mean square + eps)",
    "ln2.normalized": "value of the MLP's norm before its affine map",
    "H.q": "one head's queries: the projection",
    "H.k": "one head's keys (its own copy, where heads share them)",
    "H.v": "one head's values (its own copy, where heads share them)",
    "H.q_rot": "one head's queries as its scores use them",
    "H.k_rot": "one head's keys as its scores use them",
    "H.scores": "one head's scores, as they enter its softmax",
    "H.pattern": "one head's attention weights",
    "H.z": "one head's sum of values by its pattern",
    "H.out": "one head's share of attn.o, without the bias",
    "H.q_in": "residual stream as this head's queries read it, before the norm",
    "H.k_in": "residual stream as this head's keys read it, before the norm",
    "H.v_in": "residual stream as this head's values read it, before the norm",
    "KV.k": "keys of a key-value head, shared by its group of query heads",
    "KV.v": "values of a key-value head, shared by its group of query heads",
    "KV.k_rot": "keys of a key-value head as the scores use them",
    "N": "one neuron: one coordinate of mlp.post",
    "mlp.E.out": "one expert's output, before its weight in the sum; zero at tokens that did not choose it",
}
"""What a site of each kind is."""

_OF_ONE: dict[str, str] = {
    "resid_post": "where no norm stands between layers this is the next layer's resid_pre: one value, two names",
    "attn.scores": "a key that may not be seen has a score near the least finite number, not minus infinity",
    "attn.pattern": "each row sums to one over keys; a row of padding attends to whatever is left and is not to be read",
    "attn.o": "the sum of all heads' `out`, plus the bias",
    "attn.out": "resid_pre + attn.out is the stream that follows; it is attn.o after any norm or multiplier",
    "mlp.out": "the stream before it + mlp.out is the stream that follows",
    "H.out": "the heads' `out` add up to attn.o without its bias, which belongs to no head",
    "mlp.in": "a change here reaches the MLP and not the stream that passes it by",
    "H.q_in": "a change here reaches this head's queries alone; the norm is computed anew for it",
    "H.k_in": "a change here reaches this head's keys alone; the norm is computed anew for it",
    "H.v_in": "a change here reaches this head's values alone; the norm is computed anew for it",
    "ln1.scale": "always the divisor, also where the model multiplies by its reciprocal",
    "H.k": "with grouped queries a change here touches this head alone; change KV.k to touch the group",
    "H.v": "with grouped queries a change here touches this head alone; change KV.v to touch the group",
    "KV.k": "a change here touches every query head of the group",
    "KV.v": "a change here touches every query head of the group",
    "mlp.E.out": "a change at a token that did not choose the expert does nothing",
    "mlp.router.weights": "each weight belongs to the expert at the same place of mlp.router.chosen",
    "N": "zero is no neutral value for most activations: compare with the mean too",
    "logits": "before any softmax: only differences between tokens matter to probabilities",
}
CONVENTIONS: dict[str, str] = {
    **_OF_ONE,
    "ln2.scale": _OF_ONE["ln1.scale"],
    "ln_f.scale": _OF_ONE["ln1.scale"],
    "H.scores": _OF_ONE["attn.scores"],
    "H.pattern": _OF_ONE["attn.pattern"],
    "KV.k_rot": _OF_ONE["KV.k"],
    "H.k_rot": _OF_ONE["H.k"],
}
"""Signs, scales and what a change at a site of a kind touches, where that needs saying."""


def meaning(address: Address) -> str:
    """Return what an address names, in words.

    >>> from scrubjay.circuit.address import parse
    >>> meaning(parse("L3.H7.z"))
    "one head's sum of values by its pattern"
    >>> meaning(parse("model.layers.3.mlp"))
    'output of the module model.layers.3.mlp'
    """
    if isinstance(address.part, Module):
        return f"output of the module {address.part.path}"
    return MEANINGS.get(address.kind, f"a value called {address.kind}")


def convention(address: Address) -> str:
    """Return what is to be known of signs, scales and the reach of a change there, or an empty text."""
    return "" if isinstance(address.part, Module) else CONVENTIONS.get(address.kind, "")
