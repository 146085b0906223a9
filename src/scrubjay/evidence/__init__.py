"""What a result can be checked against: digests of data, of weights and of configurations."""

from __future__ import annotations

from scrubjay.evidence.digest import canonical_json, digest_array, digest_bytes, digest_json

__all__ = ["canonical_json", "digest_array", "digest_bytes", "digest_json"]
