"""One node of every kind, with values in every field."""

from __future__ import annotations

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import (
    Add,
    Along,
    Concat,
    Constant,
    Cumulant,
    Custom,
    Einsum,
    Expectation,
    Experts,
    Gather,
    Index,
    Input,
    Iota,
    Map,
    Merge,
    Multiply,
    Narrow,
    Opaque,
    Order,
    Relabel,
    Repeat,
    Sample,
    Split,
    Weight,
)

BATCH, QUERY, MODEL = Axis("batch", "batch"), Axis("query", "query + 1"), Axis("model", 4)
X = Input("x", (BATCH, QUERY, MODEL))
AT = Input("at", (BATCH,), "int64")
ROWS = Input("rows", (Axis("row", 5), MODEL))
DRAWN = Sample(ROWS, "row", "datum")
EXAMPLES: dict[type[Node], Node] = {
    Input: X,
    Weight: Weight("model", "w", ((Axis("head", 2), Axis("d_head", 2)), (), (MODEL,)), "float32"),
    Constant: Constant(-0.0, "model"),
    Iota: Iota(QUERY),
    Einsum: Einsum((X, X), ("model", "query")),
    Add: Add((X, AT, X)),
    Multiply: Multiply((X, Constant(2))),
    Index: Index(X, "model", -1),
    Narrow: Narrow(X, "model", 1, Axis("model[1:4:2]", 2), 2),
    Concat: Concat((X, X), ("model", "model"), Axis("both", 8)),
    Gather: Gather(X, "model", AT),
    Relabel: Relabel(X, (("query", "key"), ("batch", "row"))),
    Split: Split(X, "model", (Axis("head", 2), Axis("d_head", 2))),
    Repeat: Repeat(X, (Axis("head", 2),)),
    Merge: Merge(X, ("model", "query"), Axis("flat", "4*query + 4")),
    Map: Map("softplus", (X,), (1, 20.0)),
    Experts: Experts(
        X, Weight("model", "e", ((Axis("expert", 3),), (MODEL,), (Axis("hidden", 2),))), "expert", AT, ("model",)
    ),
    Order: Order(X, "model", Axis("first", 2), "places", False, "sort"),
    Along: Along("rms", X, ("model",), (1e-5,)),
    Sample: DRAWN,
    Expectation: Expectation(DRAWN, ("datum",)),
    Cumulant: Cumulant((DRAWN, Multiply((DRAWN, Sample(ROWS, "row", "other/1")))), ("datum",), True),
    Custom: Custom("model", "probe", X, ("model", "batch", "query")),
    Opaque: Opaque(
        "aten.sort.default",
        (X,),
        (((BATCH,), (), (QUERY, MODEL)),),
        '[[{"operand": 0}], {}]',
        1,
        ((BATCH,), (QUERY, MODEL)),
    ),
}
