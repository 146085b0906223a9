"""The words of the notation: what a text is cut into, how a name or a text is spelled, and errors that say where.

A statement begins at the start of a line and goes on over the lines that begin with a space.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from scrubjay.errors import CircuitError

RESERVED = frozenset({"true", "false", "none", "nan", "inf"})
"""Words that are values; a name or a text spelled so is put in quotes."""

_BARE = re.compile(r"[^\W\d]\w*(?:\.\w+)*")
_NAME = re.compile(r"[^\W\d]\w*(?:\.\w+)*|\#[0-9]{1,18}|`(?:[^`\\\n]|\\.)*`")
_TOKEN = re.compile(
    r"""(?P<space>[^\S\n]+|\n(?=\s))
    |(?P<end>\n)
    |(?P<number>-?(?:0x[0-9a-f]+|[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?|(?:inf|nan)(?![\w.])))
    |(?P<name>"""
    + _NAME.pattern
    + r""")
    |(?P<text>"(?:[^"\\\n]|\\.)*")
    |(?P<sign>[()\[\],;:=+*/])
    |(?P<bad>.)""",
    re.VERBOSE | re.DOTALL,
)
_MOST_DIGITS = 4000


class Token(NamedTuple):
    """A piece of the text: its kind, the characters, and where they begin."""

    kind: str
    text: str
    start: int


class Tokens:
    """A text cut into tokens, and how far it has been read."""

    def __init__(self, text: str, start: int = 0) -> None:
        """Cut the text from `start` on; raise `CircuitError` for a character that begins nothing."""
        self.text = text
        self.at = 0
        self.tokens: list[Token] = []
        for found in _TOKEN.finditer(text, start):
            kind = found.lastgroup or "bad"
            if kind == "bad":
                quote = found[0] in '"`'
                raise self.error(
                    f"the quote {found[0]} is not closed on this line"
                    if quote
                    else f"{found[0]!r} begins nothing here",
                    Token(kind, found[0], found.start()),
                )
            if kind != "space":
                self.tokens.append(Token(kind, found[0], found.start()))
        self.tokens.append(Token("end", "", len(text)))
        self.tokens.append(Token("end", "", len(text)))  # so that a look ahead is always possible

    @property
    def here(self) -> Token:
        """The next token."""
        return self.tokens[self.at]

    def after(self) -> Token:
        """Return the token after the next."""
        return self.tokens[self.at + 1]

    def take(self) -> Token:
        """Return the next token and go past it (the end of the text is not passed)."""
        token = self.tokens[self.at]
        self.at = min(self.at + 1, len(self.tokens) - 2)
        return token

    def skip(self, sign: str) -> bool:
        """Go past the next token if it is this sign, and tell whether it was."""
        token = self.tokens[self.at]
        if token.text == sign and token.kind == "sign":
            self.at += 1
            return True
        return False

    def need(self, sign: str, what: str) -> None:
        """Go past a sign that must come next."""
        if not self.skip(sign):
            raise self.error(f"expected {sign!r} {what}, found {said(self.here)}")

    def error(self, problem: str, token: Token | None = None) -> CircuitError:
        """Return the error that says where: at a token, or at the next."""
        start = (token or self.here).start
        line = self.text.count("\n", 0, start) + 1
        column = start - (self.text.rfind("\n", 0, start) + 1) + 1
        return CircuitError(f"line {line}, column {column}: {problem}")


def said(token: Token) -> str:
    """Return what an error calls a token."""
    if token.kind == "end":
        return "the end of the statement" if token.text else "the end of the text"
    return token.text if len(token.text) <= 60 else f"{token.text[:57]}..."


def is_bare(text: str) -> bool:
    """Tell whether a name needs no quotes.

    >>> is_bare("L0.H3.z"), is_bare("node 3"), is_bare("true")
    (True, False, False)
    """
    return _BARE.fullmatch(text) is not None and text not in RESERVED


def is_name(text: str) -> bool:
    """Tell whether this is the name of a value as the notation spells it, and no expression."""
    return _NAME.fullmatch(text) is not None


def as_text(value: str) -> str:
    """Return a text in double quotes, on one line, with what cannot be printed escaped."""
    return json.dumps(value, ensure_ascii=not value.isprintable())


def as_word(value: str) -> str:
    """Return a text bare where that can be read back, else in double quotes."""
    return value if is_bare(value) else as_text(value)


def as_name(value: str) -> str:
    """Return the name of a definition: bare, or in backquotes."""
    if is_bare(value):
        return value
    inside = as_text(value)[1:-1].replace("`", "\\u0060")
    return f"`{inside}`"


def as_number(value: float) -> str:
    """Return a number so that its type and all of its bits are read back."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 3 * _MOST_DIGITS:
        return hex(value)
    return repr(value)


def text_of(tokens: Tokens, token: Token) -> str:
    """Return what a text in quotes, or a name, stands for."""
    if token.kind == "name" and token.text[0] != "`":
        return token.text
    try:
        return str(json.loads(f'"{token.text[1:-1]}"'))
    except ValueError as error:
        raise tokens.error(f"{said(token)} is no well-formed text: {error}", token) from error


def number_of(tokens: Tokens, token: Token) -> int | float:
    """Return the number that a token stands for."""
    digits = token.text.lstrip("-")
    if digits.startswith("0x"):
        return int(token.text, 16)
    if digits.isdigit():
        if len(digits) > _MOST_DIGITS:
            raise tokens.error(f"a number of {len(digits)} digits; write one beyond {_MOST_DIGITS} as 0x...", token)
        return int(token.text)
    return float(token.text)
