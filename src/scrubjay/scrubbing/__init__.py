"""Causal scrubbing: treeify a hypothesis, draw its data, compute, and report what was recovered."""

from scrubjay.scrubbing.result import ScrubResult
from scrubjay.scrubbing.scrub import cross_entropy, scrub

__all__ = ["ScrubResult", "cross_entropy", "scrub"]
