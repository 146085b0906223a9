"""The one place where text becomes markup.

Token strings, model names and captions come from strangers, so every piece of text is hostile until it has been
through `text`. `Markup` marks what is safe; `tag` builds elements and escapes each child that is not `Markup`, so
a plain string cannot slip in unescaped by mistake. Nothing outside this module constructs `Markup`.
Characters that hide or reorder what the reader sees (controls, direction overrides, zero widths, lone surrogates)
are shown, never passed on: a page cannot show one thing and hold another.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable

from scrubjay.errors import InputError

_REPLACED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}
_PICTURED = {"\n": "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}", "\t": "\N{RIGHTWARDS ARROW TO BAR}"}
_HIDING_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
_EMPTY = frozenset({"meta", "br", "path", "rect", "line"})
_MOST_IN_A_LABEL = 24


class Markup(str):
    """HTML or SVG text that is safe to insert as it is. Made by `tag`, `text` and `join` alone.

    Joining it with `+`, an f-string or `%` gives a plain `str`, which is escaped again: mistakes fail visibly, as
    doubly escaped text, and never as a script.
    """

    __slots__ = ()


def visible(value: str) -> str:
    r"""Return `value` with every character that hides or reorders text replaced by a visible sign.

    Newline and tab become arrows, other ASCII controls their Unicode pictures, everything else its code point.

    >>> visible("a\nb\u202ec")
    'a↵b⟨U+202E⟩c'
    """
    if value.isascii() and value.isprintable():
        return value
    return "".join(_shown(character) for character in value)


def text(value: str) -> Markup:
    """Return `value` as markup that displays exactly its characters; `Markup` is returned as it is.

    >>> text("<b> & 'quotes'")
    '&lt;b&gt; &amp; &#39;quotes&#39;'
    """
    if isinstance(value, Markup):
        return value
    return Markup("".join(_REPLACED.get(character, character) for character in visible(value)))


def token(value: str, most: int = _MOST_IN_A_LABEL) -> str:
    """Return a plain string that shows a token, with its spaces as dots and at most `most` characters.

    The result is still a plain string: `tag` escapes it when it is inserted.

    >>> token(" the"), token(""), token("incomprehensibilities", most=8)
    ('·the', '∅', 'incompr…')
    """
    if not value:
        return "\N{EMPTY SET}"
    shown = visible(value[: most + 1]).replace(" ", "\N{MIDDLE DOT}").replace("\u00a0", "⟨U+00A0⟩")
    return shorten(shown if len(value) <= most else shown + "\N{HORIZONTAL ELLIPSIS}", most)


def shorten(value: str, most: int) -> str:
    """Return `value`, cut to `most` characters with an ellipsis where it is longer.

    >>> shorten("attention", 6)
    'atten…'
    """
    return value if len(value) <= most else value[: most - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def join(parts: Iterable[str], between: str = "") -> Markup:
    """Return the parts one after another, each one escaped unless it is `Markup`.

    >>> join([tag("b", "x"), "<y>"])
    '<b>x</b>&lt;y&gt;'
    """
    return Markup(text(between).join(text(part) for part in parts))


def tag(name: str, /, *children: str, **attributes: str | float | None) -> Markup:
    """Return one element; children and attribute values are escaped unless they are `Markup`.

    Attribute names are written as Python names: `class_` is `class`, `aria_label` is `aria-label`. An attribute
    that is `None` is left out. Numbers are written briefly, without exponents.

    >>> tag("text", "2 < 3", x=1.50, class_="sj-label", id=None)
    '<text x="1.5" class="sj-label">2 &lt; 3</text>'
    """
    opening = name + "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if not children:
        return Markup(f"<{opening}/>" if name in _EMPTY else f"<{opening}></{name}>")
    return Markup(f"<{opening}>{join(children)}</{name}>")


def style_sheet(css: str) -> Markup:
    """Return a style element. `css` is our own, never a stranger's; it may not close its element.

    >>> style_sheet("p > b { color: red }")
    '<style>p > b { color: red }</style>'
    """
    if "<" in css or "&" in css:
        raise InputError("A style sheet may hold neither '<' nor '&'.")
    return Markup(f"<style>{css}</style>")


def document(language: str, head: Markup, body: Markup) -> Markup:
    """Return a whole HTML document from its two halves, which are elements already."""
    return Markup(f"<!DOCTYPE html>\n{tag('html', text(head), text(body), lang=language)}\n")


def brief(value: float) -> str:
    """Return a coordinate with at most two decimals and no exponent.

    >>> brief(12.0), brief(0.126), brief(-0.001)
    ('12', '0.13', '0')
    """
    if not math.isfinite(value):
        raise InputError(f"A coordinate must be finite; this one is {value}.")
    written = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if written == "-0" else written


def _attribute(value: str | float) -> str:
    if isinstance(value, str):
        return text(value)
    return brief(value)


def _shown(character: str) -> str:
    if character in _PICTURED:
        return _PICTURED[character]
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\N{SYMBOL FOR DELETE}"
    hidden = unicodedata.category(character) in _HIDING_CATEGORIES or character in _BLANK_LETTERS
    return f"⟨U+{code:04X}⟩" if hidden or code & 0xFFFE == 0xFFFE else character
