"""A hypothesis as an indented tree: what is claimed of each part, and what that part reads.

Each branch shows a label (usually an address in the model) and the claim in words. The tree is a nested list, so
screen readers know its depth; the lines that join branches are drawn by the style sheet.
"""

from __future__ import annotations

from dataclasses import dataclass

from scrubjay.errors import InputError
from scrubjay.viz.escape import Markup, shorten, tag
from scrubjay.viz.frame import chart

DEEPEST = 40
"""The most levels a drawn tree may have."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One node: its `label`, the claim about it in `words`, and what it reads, in order."""

    label: str
    words: str = ""
    children: tuple[Branch, ...] = ()


def tree(root: Branch, title: str = "") -> Markup:
    """Return the tree below `root`, each child indented under its parent.

    Raises `InputError` where the tree has more than 40 levels.

    >>> "logits" in tree(Branch("logits", "the answer", (Branch("L9.H9.out"),)))
    True
    """
    if not isinstance(root, Branch):
        raise InputError(f"tree draws a Branch; a {type(root).__name__} was given.")
    return chart(title, tag("ul", _item(root, 1), class_="sj-tree"), kind="tree")


def _item(branch: Branch, depth: int) -> Markup:
    if depth > DEEPEST:
        raise InputError(f"The tree has more than {DEEPEST} levels; draw one of its branches instead.")
    words = tag("span", branch.words, class_="sj-words") if branch.words else Markup()
    node = tag("div", tag("span", shorten(branch.label, 200), class_="sj-label"), words, class_="sj-node")
    if not branch.children:
        return tag("li", node)
    return tag("li", node, tag("ul", *(_item(child, depth + 1) for child in branch.children)))
