"""Reports: one self-contained page from results, and the tour that goes through a model from capture to scrub.

Measuring (`check`, `attention`, `contribution`, `patching`, `part`) is apart from drawing (`sections`): the one gives
frozen values with arrays, the other turns them into pictures and sentences.
"""

from __future__ import annotations

from scrubjay.reporting.document import report
from scrubjay.reporting.tour import Tour, tour

__all__ = ["Tour", "report", "tour"]
