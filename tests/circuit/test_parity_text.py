"""Text of rust_circuit and what says the same here: what is written reads back to the very same nodes.

rust_circuit                      Scrubjay                                          test
--------------------------------  ------------------------------------------------  ------------------------
Circuit.print, repr               print(circuit)                                    test_print
Parser                            printing.notation.write, printing.parsing.parse   test_parse
Circuit.repr + tensors by hash    to_json, from_json                                test_serialise
"""

from __future__ import annotations

import json

from parity import STORED, A, B, C
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.ops import Add, Concat, Constant, Einsum, Gather, Index, Input, Map, Multiply, Narrow, Relabel
from scrubjay.circuit.printing.difference import diff
from scrubjay.circuit.printing.notation import write
from scrubjay.circuit.printing.parsing import parse
from scrubjay.circuit.serial import from_json, to_json

SHARED = Map("tanh", (Add((A, C)),))
KINDS = Add((
    Einsum((SHARED, Add((B, STORED))), ("j",)),
    Multiply((Einsum((SHARED,), ("j",)), Constant(-0.0), Index(B, "j", -1))),
    Einsum((Concat((Narrow(A, "j", 0, Axis("part", 1)), Narrow(A, "j", 1, Axis("rest", 3))), ("part", "rest"), Axis("j", 4)), B), ("j",)),
    Gather(Relabel(B, (("j", "row"),)), "row", Input("which", (Axis("i", 3),), "int64")),
))  # fmt: skip
CIRCUIT = Circuit({"output": KINDS}, {"shared": SHARED})


def test_print():
    text = str(CIRCUIT)
    assert "shared" in text
    assert text.count("tanh") == 1  # a node that several read is written once


def test_parse():
    text = write(CIRCUIT)
    read = parse(text, {"store": "store"})
    assert read.roots["output"] is KINDS
    assert read.table["shared"] is SHARED
    assert write(read) == text


def test_diff():
    assert not diff(CIRCUIT, CIRCUIT)
    changed = diff(CIRCUIT, CIRCUIT.rewrite({SHARED: Map("exp", SHARED.operands)}, "another function"))
    assert changed
    text = str(changed)
    assert "another function" in text
    assert "shared" in text
    assert any("tanh" in line and line.strip().startswith("-") for line in text.splitlines())
    assert any("exp" in line and line.strip().startswith("+") for line in text.splitlines())


def test_serialise():
    data = json.loads(json.dumps(to_json(CIRCUIT)))
    read = from_json(data, {"store": "store"})
    assert read.roots["output"] is KINDS
    assert read.table["shared"] is SHARED
    elsewhere = from_json(data, {"store": "another"})
    assert elsewhere.weights["stored"].source == "another"
