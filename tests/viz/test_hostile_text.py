"""Whatever a string holds, it shows as text: no figure gains an element, an attribute or an invisible character."""

from __future__ import annotations

import inspect
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import scrubjay.viz
from scrubjay.viz import Figure, Markup, Section, page
from scrubjay.viz.escape import visible

Drawn = Callable[[str], Markup]

ATTACKS = [
    "</script><img src=x onerror=alert(1)>",
    "\"><svg onload='alert(1)'>",
    "' onmouseover='alert(1)",
    "</style></title></textarea><iframe src=javascript:alert(1)>",
    "<!-- --><![CDATA[ ]]>",
    "&lt;b&gt; &#60;i&#62;",
    "\u202eevil\u2066\u200f\u061c",
    "\x00\x08\x1b[31m\x7f\x85\u2028\u2029",
    "\ud800 lone",
    "zero\u200bwidth\ufeff\ufffe",
    "url(https://example.org/x) @import",
    "{};}*{background:red}",
]
SAFE_ATTRIBUTES = re.compile(
    r"aria-.*|class|role|tabindex|style|title|id|href|scope|lang|charset|content|name|http-equiv"
    r"|x|y|x1|x2|y1|y2|d|width|height|viewBox|fill|stroke|stroke-width|transform|overflow|shape-rendering"
    r"|font-size|font-family|text-anchor|preserveAspectRatio|open"
)
text = st.text(st.characters(), max_size=30)


def parsed(markup: str) -> ET.Element:
    return ET.fromstring(markup.replace("<!DOCTYPE html>\n", ""))


def skeleton(markup: str) -> Counter[str]:
    """Count each kind of element, and check that it has no attribute that could do anything."""
    for element in parsed(markup).iter():
        assert all(SAFE_ATTRIBUTES.fullmatch(name) for name in element.attrib)
    return Counter(element.tag for element in parsed(markup).iter())


@given(words=text)
def test_random_text_changes_no_element(drawn: Drawn, words: str) -> None:
    filled = words + "x"  # an empty string may leave out a title, and an empty line may divide a paragraph
    assert skeleton(drawn(filled.replace("\n", ""))) == skeleton(drawn("x"))


@pytest.mark.parametrize("attack", ATTACKS, ids=range(len(ATTACKS)))
def test_an_attack_stays_text(drawn: Drawn, attack: str) -> None:
    markup = drawn(attack)
    assert skeleton(markup) == skeleton(drawn("x"))
    for element in parsed(markup).iter():
        assert element.get("href", "#").startswith("#")
        assert attack not in element.get("style", "")


@given(words=text)
@example(words="\u202e\x00\u2066")
def test_no_character_that_hides_or_reorders_passes_through(drawn: Drawn, words: str) -> None:
    left = {char for char in drawn(words) if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
    assert left <= {"\n"}
    drawn(words).encode("utf-8")


@given(words=text)
def test_the_text_that_shows_is_the_text_that_was_given(words: str) -> None:
    element = parsed(scrubjay.viz.tag("p", words))
    assert (element.text or "") == visible(words).replace("\r", "")


def test_a_plain_string_is_not_taken_for_markup() -> None:
    bold = scrubjay.viz.tag("b", "x")
    assert scrubjay.viz.tag("p", bold) == "<p><b>x</b></p>"
    assert scrubjay.viz.tag("p", f"{bold}") == "<p>&lt;b&gt;x&lt;/b&gt;</p>"
    assert scrubjay.viz.tag("p", bold + "!") == "<p>&lt;b&gt;x&lt;/b&gt;!</p>"


def test_only_one_module_makes_markup_out_of_strings() -> None:
    folder = Path(inspect.getfile(scrubjay.viz)).parent
    makers = {path.name for path in folder.glob("*.py") if re.search(r"\bMarkup\([^)]", path.read_text("utf-8"))}
    assert makers == {"escape.py"}


def test_every_public_function_is_in_the_gallery(gallery: dict[str, Drawn]) -> None:
    functions = {name for name in scrubjay.viz.__all__ if inspect.isfunction(getattr(scrubjay.viz, name))}
    assert functions == {name.split(",")[0] for name in gallery}


def test_nothing_points_outside(drawn: Drawn) -> None:
    markup = drawn("x").replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|//|url\(|@import|<script|<link|src=", markup)


def test_the_page_forbids_what_it_does_not_need() -> None:
    html = page("t", [Section("s", body=(Figure(scrubjay.viz.text("x")),))])
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    assert policy[1].startswith("default-src &#39;none&#39;;")
    assert "script" not in policy[1]
    assert html.index("Content-Security-Policy") < html.index("<style>")
