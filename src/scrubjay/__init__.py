"""Scrubjay: take a trained transformer apart, say how it works, and put the claim to a test that can fail."""

from __future__ import annotations

__version__ = "0.1.0"
