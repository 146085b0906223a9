"""What a claim is about: labelled data with named features."""

from __future__ import annotations

from scrubjay.claims.data import Dataset, Feature

__all__ = ["Dataset", "Feature"]
