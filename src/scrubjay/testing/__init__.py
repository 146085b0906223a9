"""For tests, ours and yours: random circuits with inputs that fit them (`scrubjay.testing.circuits`, which needs hypothesis)."""

from __future__ import annotations
