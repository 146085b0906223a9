"""Whatever a string holds, it shows as text: no figure gains an element, an attribute or an invisible character."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import scrubjay.viz
from tests.viz.gallery import GALLERY
