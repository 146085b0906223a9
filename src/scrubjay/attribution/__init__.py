"""Direct effects: what each source adds to a value, what carries its mean, and what each layer's stream would say at the end."""

from scrubjay.attribution.cumulants import Cumulants, cumulants
from scrubjay.attribution.decomposition import Decomposition, decompose
from scrubjay.attribution.effect import Attribution, direct_logit_attribution
from scrubjay.attribution.lens import Lens, lens_logits, logit_lens

__all__ = [
    "Attribution",
    "Cumulants",
    "Decomposition",
    "Lens",
    "cumulants",
    "decompose",
    "direct_logit_attribution",
    "lens_logits",
    "logit_lens",
]
