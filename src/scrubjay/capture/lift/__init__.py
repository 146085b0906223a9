"""The lifter: from an exported ATen program to a circuit.

`layout` holds axis variables, `proto` nodes in the making, `table_layout`, `table_arithmetic` and `einsum` one handler for
each operator, `call` reads an operator's arguments so that none is dropped, and `program` drives them.
"""
