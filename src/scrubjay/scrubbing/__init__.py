"""Causal scrubbing: treeify a hypothesis, draw its data, compute, and report what was recovered."""

from scrubjay.scrubbing.alignment import align
from scrubjay.scrubbing.causal import CausalModel
from scrubjay.scrubbing.challenge import Challenge, challenge
from scrubjay.scrubbing.costs import Costs, costs
from scrubjay.scrubbing.explored import row_digests
from scrubjay.scrubbing.interchange import Interchange, interchange
from scrubjay.scrubbing.measure import Measure
from scrubjay.scrubbing.predict import Checked, Prediction, predict
from scrubjay.scrubbing.result import ScrubResult
from scrubjay.scrubbing.scrub import cross_entropy, scrub

__all__ = [
    "CausalModel",
    "Challenge",
    "Checked",
    "Costs",
    "Interchange",
    "Measure",
    "Prediction",
    "ScrubResult",
    "align",
    "challenge",
    "costs",
    "cross_entropy",
    "interchange",
    "predict",
    "row_digests",
    "scrub",
]
