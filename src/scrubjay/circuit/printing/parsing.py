"""Reading the notation: one statement after another, each value made by its node's own constructor, which checks.

A name must be defined before it is used, so no text makes a cycle. Nothing is run but the constructors of `KINDS`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from functools import cache
from itertools import islice
from typing import Any, cast

from scrubjay.circuit.axes import in_order
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Along, Constant, Custom, Einsum, Map, Multiply, Weight
from scrubjay.circuit.ops.pointwise import KEEPING, MAPS, REDUCING
from scrubjay.circuit.printing.fields import Part, as_axes, parts, read_axes, read_scalar
from scrubjay.circuit.printing.notation import FORMAT, UNNAMED_FIELDS, VERSION, in_sight, words
from scrubjay.circuit.printing.tokens import Token, Tokens, said, text_of
from scrubjay.circuit.printing.words import axis_order
from scrubjay.errors import CircuitError, near

DEEPEST = 100
"""How deep expressions may stand in each other; a part of a deeper one is given a name."""

_HEADER = re.compile(rf"\s*{FORMAT} ([^\n]*)(?:\n|\Z)")
_FRAME = ("results", "places", "removed", "history")
_SEVERAL: dict[type[Node], str] = {Map: "inputs", Add: "terms", Multiply: "factors"}
_LISTED = 20_000  # names that a misspelt one is compared with


def parse(text: str, sources: Mapping[str, str] | None = None) -> Circuit:
    """Return the circuit that `write` wrote: its nodes are the live ones where equal nodes live already.

    Args:
        text: the notation.
        sources: for every store that a weight or function of the text is in, the name it gets here. A store's name means
            something only in the process that wrote it, so one that is not listed is refused.

    Raises `CircuitError`, with the line and column, for what is not a well-formed circuit of this version.

    >>> text = '''scrubjay notation 1
    ... x = input(x, dims=[model=4])
    ... w = weight(here, w, dims=[hidden=2, model=4])
    ... results (y = relu(einsum("model, hidden model -> hidden", x, w)))'''
    >>> parse(text, {"here": "model"}).roots["y"].axes
    (Axis(name='hidden', size=2),)
    """
    header = _HEADER.match(text)
    if header is None:
        raise CircuitError(f"line 1, column 1: expected '{FORMAT} {VERSION}', found {text.strip()[:40]!r}")
    if header[1].strip() != str(VERSION):
        raise CircuitError(
            f"line 1: this is version {header[1].strip()[:40]!r} of the notation; this Scrubjay reads version {VERSION}: "
            "write it again with this version, or read it with the one that wrote it"
        )
    reader = _Reader(Tokens(text, header.end()), dict(sources or {}))
    tokens = reader.tokens
    while tokens.here.text or tokens.here.kind != "end":
        if tokens.here.kind != "end":
            reader.statement()
        if tokens.here.kind != "end":
            raise tokens.error(f"expected the end of the statement, found {said(tokens.here)}")
        tokens.take()
    if "results" not in reader.frame:
        raise tokens.error("expected a statement 'results (...)', found the end of the text")
    given: dict[str, Any] = {"places": {}, "removed": {}, "history": (), **reader.frame}
    circuit = Circuit(given["results"], given["places"], given["removed"], given["history"])
    _ = circuit.inputs  # refuses two of one name
    return circuit


@cache
def _functions() -> dict[str, type[Node]]:
    return {**dict.fromkeys((*KEEPING, *REDUCING), Along), **dict.fromkeys(MAPS, Map), **words()}


@dataclass(eq=False)
class _Reader:
    """What has been read: the values by name, and the statements that are no values."""

    tokens: Tokens
    sources: Mapping[str, str]
    values: dict[str | int, Node] = field(default_factory=dict[str | int, Node])
    making: str | int | None = None
    frame: dict[str, Any] = field(default_factory=dict[str, Any])
    depth: int = 0

    def statement(self) -> None:
        """Read a definition, or a list of results, places and so on."""
        tokens = self.tokens
        token = tokens.take()
        if token.kind != "name":
            raise tokens.error(
                f"expected the name of a value or one of {', '.join(_FRAME)}, found {said(token)}", token
            )
        if tokens.here.text in ("=", "["):
            self._define(token)
        elif token.text in _FRAME:
            self._framed(token)
        else:
            raise tokens.error(
                f"expected '=' after the name {said(token)}, or one of {', '.join(_FRAME)}, found {said(tokens.here)}"
                f"{near(token.text, _FRAME)}"
            )

    def _define(self, token: Token) -> None:
        tokens = self.tokens
        name = _key(tokens, token)
        if name in self.values:
            raise tokens.error(
                f"{said(token)} is defined a second time: give one of the two values another name", token
            )
        start = tokens.here
        axes = read_axes(tokens) if start.text == "[" else None
        tokens.need("=", f"after {said(token)}")
        self.making = name
        node = self.expression()
        self.making = None
        if axes is not None:
            try:
                declared = in_order(axes)
            except CircuitError as error:
                raise tokens.error(str(error), start) from error
            if declared != node.axes or len(declared) != len(axes):
                raise tokens.error(
                    f"{said(token)} is said to have {as_axes(axes)}, and what it is has {as_axes(node.axes)}", start
                )
        self.values[name] = node

    def _framed(self, word: Token) -> None:
        """Read `word (item, ...)`."""
        tokens = self.tokens
        if word.text in self.frame:
            raise tokens.error(f"{word.text} is given a second time", word)
        tokens.need("(", f"after {word.text}")
        found: dict[str, Any] = {}
        history: list[str] = []
        while not tokens.skip(")"):
            if found or history:
                tokens.need(",", f"or ')' in {word.text}")
            token = tokens.take()
            if word.text == "history":
                history.append(self._text(token))
                continue
            if token.kind != "name" or token.text[0] == "#":
                raise tokens.error(f"expected a name in {word.text}, found {said(token)}", token)
            key = text_of(tokens, token)
            if key in found:
                raise tokens.error(f"{said(token)} is listed a second time in {word.text}", token)
            if word.text == "removed":
                tokens.need("=", f"after {said(token)}")
                found[key] = self._text(tokens.take())
            else:
                found[key] = self.expression() if tokens.skip("=") else self._value(token)
        self.frame[word.text] = tuple(history) if word.text == "history" else found

    def _text(self, token: Token) -> str:
        if token.kind != "text":
            raise self.tokens.error(f"expected a text in quotes, found {said(token)}", token)
        return text_of(self.tokens, token)

    # --- expressions

    def expression(self) -> Node:
        """Read a value, or several with one sign between them."""
        tokens = self.tokens
        start = tokens.here
        found = [self._operand()]
        sign = tokens.here.text
        if sign not in ("+", "*", "/"):
            return found[0]
        while tokens.skip(sign):
            found.append(self._operand())
        if tokens.here.text in ("+", "*", "/"):
            raise tokens.error(f"{tokens.here.text!r} after {sign!r}: put one of them in parentheses")
        if sign == "/":
            return self._make(start, Map, op="divide", inputs=tuple(found))
        return (
            self._make(start, Add, terms=tuple(found))
            if sign == "+"
            else self._make(start, Multiply, factors=tuple(found))
        )

    def _operand(self) -> Node:
        tokens = self.tokens
        token = tokens.here
        if token.kind == "number" or token.text in ("true", "false"):
            return Constant(cast("float", read_scalar(tokens)))
        tokens.take()
        if token.text != "(" and tokens.here.text != "(":
            return self._value(token)
        self.depth += 1
        if self.depth > DEEPEST:
            raise tokens.error(
                f"expressions stand more than {DEEPEST} deep in each other: give a part of them a name", token
            )
        if token.text == "(":
            found = self.expression()
            tokens.need(")", "at the end of the expression in parentheses")
        else:
            tokens.take()
            found = self._call(token)
        self.depth -= 1
        return found

    def _value(self, token: Token) -> Node:
        tokens = self.tokens
        if token.kind != "name":
            raise tokens.error(f"expected a value, found {said(token)}", token)
        name = _key(tokens, token)
        found = self.values.get(name)
        if found is not None:
            return found
        if name == self.making or self._comes_later(token):
            raise tokens.error(
                f"{said(token)} is used before its definition is complete: a value is defined before what reads it, "
                "so that nothing can depend on itself",
                token,
            )
        known = [known for known in islice(reversed(self.values), _LISTED) if isinstance(known, str)]
        raise tokens.error(f"no value {said(token)} is defined{near(str(name)[:200], known)}", token)

    def _comes_later(self, token: Token) -> bool:
        """Tell whether a later statement defines this name."""
        rest = self.tokens.tokens[self.tokens.at :]
        return any(
            before.kind == "end" and one.text == token.text and after.text in ("=", "[")
            for before, one, after in zip(rest, rest[1:], rest[2:], strict=False)
        )

    def _call(self, word: Token) -> Node:
        """Read what stands between the parentheses after `word`."""
        tokens = self.tokens
        kind = _functions().get(word.text) if word.kind == "name" else None
        if kind is None:
            raise tokens.error(
                f"{said(word)} is no kind of value{near(word.text[:200], _functions())}; the kinds are "
                f"{', '.join(words())}, and the functions of one value or several",
                word,
            )
        values: dict[str, Any] = {}
        if kind is Map or kind is Along:
            values["op"] = word.text
        if kind is Einsum:
            return self._einsum(word)
        several = _SEVERAL.get(kind)
        if several is not None:
            values[several] = self._operands()
        else:
            self._fields(word, kind, values)
        if kind is Map or kind is Along:
            values["parameters"] = self._parameters()
        tokens.need(")", f"at the end of {word.text}(...)")
        return self._make(word, kind, **values)

    def _operands(self) -> tuple[Node, ...]:
        if self.tokens.here.text in (")", ";"):
            return ()
        found = [self.expression()]
        while self.tokens.skip(","):
            found.append(self.expression())
        return tuple(found)

    def _parameters(self) -> tuple[object, ...]:
        """Read what follows the semicolon in `softplus(x; 1, 20.0)`."""
        tokens = self.tokens
        if not tokens.skip(";"):
            return ()
        found: list[object] = []
        while not found or tokens.skip(","):
            token = tokens.here
            found.append(read_scalar(tokens))
            if found[-1] is None:
                raise tokens.error("expected a number or a text as parameter, found none", token)
        return tuple(found)

    def _fields(self, word: Token, kind: type[Node], values: dict[str, Any]) -> None:
        """Read fields: the first ones without their names, then `name=value`, in any order."""
        tokens = self.tokens
        declared = [part for part in parts(kind) if part.name not in ("op", "parameters") or kind not in (Map, Along)]
        names = {part.name: part for part in declared}
        unnamed = UNNAMED_FIELDS.get(kind, 1)
        place = 0
        while tokens.here.text not in (")", ";"):
            if place:
                tokens.need(",", f"or ')' in {word.text}(...)")
            token = tokens.here
            part: Part
            if token.kind == "name" and tokens.after().text == "=":
                if token.text not in names:
                    raise tokens.error(
                        f"{word.text} has no field {said(token)}; its fields are {', '.join(names)}", token
                    )
                part = names[token.text]
                tokens.at += 2
            elif place < unnamed:
                part = declared[place]
            else:
                raise tokens.error(
                    f"expected a field of {word.text} as name=value ({', '.join(names)}), found {said(token)}", token
                )
            if part.name in values:
                raise tokens.error(f"the field {part.name} of {word.text} is given a second time", token)
            values[part.name] = part.form.read(tokens, self.expression)
            place += 1
        if lacking := [part.name for part in declared if part.name not in values and part.default is MISSING]:
            raise tokens.error(f"{word.text} lacks {', '.join(lacking)}; its fields are {', '.join(names)}")

    def _einsum(self, word: Token) -> Node:
        """Read `einsum("batch model, hidden model -> batch hidden", x, w)`, or operands and `summed=[...]`."""
        tokens = self.tokens
        spec = tokens.take() if tokens.here.kind == "text" else None
        if spec is not None and tokens.here.text != ")":
            tokens.need(",", "after the axes of an einsum")
        operands: list[Node] = []
        summed: tuple[str, ...] | None = None
        while not tokens.skip(")"):
            if operands:
                tokens.need(",", "or ')' in einsum(...)")
            if tokens.here.text == "summed" and tokens.after().text == "=":
                tokens.at += 2
                summed = next(part for part in parts(Einsum) if part.name == "summed").form.read(
                    tokens, self.expression
                )
                tokens.need(")", "after the summed axes of an einsum")
                break
            operands.append(self.expression())
        if spec is not None:
            orders, result = self._spec(spec, operands)
            derived = in_sight(orders, result)
            if summed is not None and set(summed) != set(derived):
                raise tokens.error(
                    f"the einsum sums over {' '.join(derived)} by its axes, and over {' '.join(summed)} by summed=",
                    spec,
                )
            summed = derived if summed is None else summed
        elif summed is None:
            raise tokens.error(
                'expected the axes of the einsum, as in "batch model, hidden model -> batch hidden", or summed=[...]',
                word,
            )
        return self._make(word, Einsum, factors=tuple(operands), summed=summed)

    def _spec(self, token: Token, operands: Sequence[Node]) -> tuple[list[list[str]], list[str]]:
        """Return the axes of each operand and of the result as an einsum's text has them; they must be the operands'."""
        tokens = self.tokens
        text = text_of(tokens, token)
        left, arrow, right = text.partition("->")
        orders = [[name for name in part.split() if name != "1"] for part in left.split(",")]
        result = [name for name in right.split() if name != "1"]
        if not arrow:
            raise tokens.error(f"expected '->' in the axes of an einsum, found {said(token)}", token)
        if len(orders) != len(operands):
            raise tokens.error(
                f"the axes are those of {len(orders)} operands, and the einsum has {len(operands)}", token
            )
        for place, (order, operand) in enumerate(zip(orders, operands, strict=True), 1):
            if sorted(order) != sorted(operand.axis_names):
                raise tokens.error(
                    f"operand {place} of the einsum is said to have the axes {' '.join(order) or '1'}, and it has "
                    f"{' '.join(axis_order(operand)) or '1'}",
                    token,
                )
        seen = {name for order in orders for name in order}
        if (unknown := [name for name in result if name not in seen]) or len(set(result)) != len(result):
            wrong = f"{' '.join(unknown)}, which no operand has" if unknown else "an axis twice"
            raise tokens.error(f"the result of the einsum has {wrong}", token)
        return orders, result

    def _make(self, where: Token, kind: type[Node], **values: Any) -> Node:
        if kind is Weight or kind is Custom:
            values["source"] = self._source(where, values["source"], values["name"])
        try:
            return kind(**values)
        except CircuitError as error:
            raise self.tokens.error(f"this {kind.__name__} is ill-formed: {error}", where) from error

    def _source(self, where: Token, source: str, name: str) -> str:
        if source in self.sources:
            return self.sources[source]
        raise self.tokens.error(
            f"{name!r} is in the store {source!r}, and this reading was told of {', '.join(map(repr, self.sources)) or 'none'}: "
            f"a local token is refused elsewhere, so say in `sources` what {source!r} is to be called here",
            where,
        )


def _key(tokens: Tokens, token: Token) -> str | int:
    """Return the name of a value, or its number, which is nobody's address."""
    return int(token.text[1:]) if token.text[0] == "#" else text_of(tokens, token)
