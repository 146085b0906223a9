"""Lift `torch.einsum`: pairs of operands contracted from left to right by their letters."""

from __future__ import annotations

from scrubjay.capture.lift.call import Call
from scrubjay.capture.lift.layout import CannotLift, Dim
from scrubjay.capture.lift.proto import Value, contract
from scrubjay.capture.lift.table_arithmetic import run_along


def einsum(call: Call) -> Value:
    """Lift a contraction written in letters; repeated letters within one operand and ellipses are kept whole."""
    equation = str(call.number("equation")).replace(" ", "")
    operands = call.tensors("tensors")
    call.taken.add("path")
    left, arrow, output = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        letters = "".join(terms)
        output = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    if "." in equation or any(len(set(term)) != len(term) for term in terms):
        raise CannotLift("an einsum with an ellipsis or a diagonal is kept whole")
    have, made = terms[0], operands[0]
    for place in range(1, len(operands)):
        needed = set(output) | set("".join(terms[place + 1 :]))
        have, made = _pair(have, made, terms[place], operands[place], needed)
    have, made = _summed(have, made, set(output))
    return Value(made.proto, tuple(made.dims[have.index(letter)] for letter in output))


def _pair(one: str, left: Value, two: str, right: Value, needed: set[str]) -> tuple[str, Value]:
    one, left = _summed(one, left, needed | set(two))
    two, right = _summed(two, right, needed | set(one))
    shared = [letter for letter in one if letter in two]
    together = [(one.index(letter), two.index(letter)) for letter in shared if letter in needed]
    summed = [(one.index(letter), two.index(letter)) for letter in shared if letter not in needed]
    left, right, proto = contract(left, right, together, summed)
    letters, dims = "", list[Dim]()
    for letter in dict.fromkeys(one + two):
        if letter in shared and letter not in needed:
            continue
        own = left.dims[one.index(letter)] if letter in one else ()
        letters += letter
        dims.append(own or (right.dims[two.index(letter)] if letter in two else ()))
    return letters, Value(proto, tuple(dims))


def _summed(letters: str, value: Value, needed: set[str]) -> tuple[str, Value]:
    """Sum away letters that nothing else needs."""
    gone = [place for place, letter in enumerate(letters) if letter not in needed]
    if not gone:
        return letters, value
    return "".join(letter for letter in letters if letter in needed), run_along("sum", value, gone, keeps=False)
