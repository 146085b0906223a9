"""A report as one self-contained HTML document, and a figure as a fragment for a notebook.

The document asks nothing of the network and runs no script: its Content-Security-Policy forbids everything but the
style sheet it carries, so even markup that should never have got in could do nothing. Sections and figures are
numbered in reading order; the findings alone, read from top to bottom, tell the story.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from scrubjay.errors import InputError
from scrubjay.viz.escape import Markup, document, join, style_sheet, tag, text
from scrubjay.viz.style import stylesheet

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_MARK = "M3 15.5C5 8.5 10 4.5 18.5 3 18 9.5 14 14.5 7 15.2M3 19.5C5.5 14.5 9 10.5 13 8"


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing or table made by this package, with a caption in plain words."""

    markup: Markup
    caption: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.markup, Markup):
            raise InputError(
                f"A Figure holds Markup made by scrubjay.viz; a {type(self.markup).__name__} was given."
                " Put plain text into the body of the section instead."
            )


@dataclass(frozen=True, slots=True)
class Detail:
    """A part of a section that is folded away until asked for, under a one-line `summary`."""

    summary: str
    body: tuple[Figure | Markup | str, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, what was found in one or two plain sentences, and the figures and paragraphs that show it."""

    title: str
    finding: str = ""
    body: tuple[Figure | Detail | Markup | str, ...] = ()


def page(
    title: str,
    sections: Sequence[Section],
    summary: str = "",
    facts: Mapping[str, str] | None = None,
    *,
    kind: str = "Report",
) -> Markup:
    """Return the HTML document.

    `summary` is the paragraph under the title (an empty line begins a new one); `facts` are shown in the footer as
    the provenance: model, data, seeds, fingerprints. `kind` is the small word over the title.

    Raises `InputError` where there is no section.

    >>> html = page("<Induction>", [Section("Heads", "One head copies.", ("It is <L1.H4>.",))], facts={"seed": "0"})
    >>> html.startswith("<!DOCTYPE html>") and "&lt;Induction&gt;" in html and "<script" not in html
    True
    """
    if not sections:
        raise InputError("page was given no sections; a report needs at least one.")
    figure_numbers = count(1)
    parts = [_section(index, section, figure_numbers) for index, section in enumerate(sections, start=1)]
    contents = _contents(sections) if len(sections) > 1 else Markup()
    body = tag(
        "body",
        _masthead(title, summary, kind),
        tag("div", contents, tag("main", *parts), class_="sj-columns"),
        _footer(facts or {}),
        class_="sj sj-page",
    )
    return document("en", _head(title), body)


def notebook(part: Figure | Markup) -> Markup:
    """Return a figure with its style sheet, ready for a notebook's `_repr_html_` or any other page.

    >>> notebook(tag("p", "x")).startswith('<div class="sj"><style>')
    True
    """
    shown = _figure(part, None) if isinstance(part, Figure) else text(part)
    return tag("div", style_sheet(stylesheet()), shown, class_="sj")


def _head(title: str) -> Markup:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        style_sheet(stylesheet()),
    )


def _masthead(title: str, summary: str, kind: str) -> Markup:
    mark = tag("svg", tag("path", d=_MARK), viewBox="0 0 22 22", class_="sj-mark", aria_hidden="true")
    brand = tag(
        "p", mark, tag("span", "Scrubjay", class_="sj-wordmark"), tag("span", kind, class_="sj-kind"), class_="sj-brand"
    )
    lead = tag("div", *_paragraphs(summary), class_="sj-summary") if summary else Markup()
    return tag("header", brand, tag("h1", title), lead, class_="sj-masthead")


def _contents(sections: Sequence[Section]) -> Markup:
    items = [
        tag(
            "li",
            tag("a", tag("span", str(index), class_="sj-index"), tag("span", section.title), href=f"#section-{index}"),
        )
        for index, section in enumerate(sections, start=1)
    ]
    return tag(
        "nav",
        tag("p", "Contents", class_="sj-contents-title"),
        tag("ol", *items),
        class_="sj-contents",
        aria_label="Contents",
    )


def _section(index: int, section: Section, figure_numbers: count[int]) -> Markup:
    heading = tag("h2", tag("span", str(index), class_="sj-index"), tag("span", section.title))
    finding = tag("p", section.finding, class_="sj-finding") if section.finding else Markup()
    blocks = [_block(block, figure_numbers) for block in section.body]
    return tag("section", heading, finding, *blocks, id=f"section-{index}")


def _block(block: Figure | Detail | Markup | str, figure_numbers: count[int]) -> Markup:
    if isinstance(block, Figure):
        return _figure(block, next(figure_numbers))
    if isinstance(block, Detail):
        inner = [_block(part, figure_numbers) for part in block.body]
        return tag("details", tag("summary", block.summary), tag("div", *inner, class_="sj-folded"), class_="sj-detail")
    if isinstance(block, Markup):
        return block
    if isinstance(block, str):
        return join(_paragraphs(block))
    raise InputError(f"A section holds Figure, Detail, Markup or text; a {type(block).__name__} was given.")


def _figure(figure: Figure, number: int | None) -> Markup:
    if not figure.caption and number is None:
        return tag("figure", figure.markup)
    name = tag("b", f"Figure {number}. ") if number is not None else Markup()
    return tag("figure", figure.markup, tag("figcaption", name, figure.caption))


def _footer(facts: Mapping[str, str]) -> Markup:
    entries = [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items()]
    listing = tag("dl", *entries) if entries else Markup()
    note = tag(
        "p",
        "Made by Scrubjay. This page is complete in itself: it loads nothing and runs nothing.",
        class_="sj-colophon",
    )
    heading = tag("h2", "Provenance") if entries else Markup()
    return tag("footer", heading, listing, note, class_="sj-footer")


def _paragraphs(value: str) -> list[Markup]:
    """Return the paragraphs of plain text: an empty line divides, a single line end is a space."""
    if isinstance(value, Markup):
        return [value]
    blocks = value.replace("\r\n", "\n").split("\n\n")
    return [tag("p", " ".join(block.split("\n")).strip()) for block in blocks if block.strip()]
