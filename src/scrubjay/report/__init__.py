"""Reports: one self-contained page from results, and the tour that goes through a model from capture to scrub.

Measuring (`check`, `attention`, `contribution`, `patching`, `part`) is apart from drawing (`sections`): the one gives
frozen values with arrays, the other turns them into pictures and sentences.
"""

from __future__ import annotations

import sys
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

from scrubjay.report.document import Shown, report
from scrubjay.report.tour import Tour, tour

__all__ = ["Tour", "report", "tour"]


class _Callable(ModuleType):
    """This package under the name `sj.report`, which is also a verb: once imported, calling it writes a page."""

    def __call__(self, path: str | PathLike[str], *values: Shown, **options: Any) -> Path:
        """Write a page; see `report`."""
        return report(path, *values, **options)


sys.modules[__name__].__class__ = _Callable
