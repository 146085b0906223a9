"""What a result can be checked against: digests, declared experiments, records of runs, bundles to hand on. No torch."""

from __future__ import annotations

from scrubjay.evidence.digest import canonical_json, digest_array, digest_bytes, digest_json
from scrubjay.evidence.record import ResultRecord
from scrubjay.evidence.spec import ExperimentSpec

__all__ = ["ExperimentSpec", "ResultRecord", "canonical_json", "digest_array", "digest_bytes", "digest_json"]
