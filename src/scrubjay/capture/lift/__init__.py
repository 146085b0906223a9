"""The lifter: from an exported ATen program to a circuit. `layout` holds axis variables, `proto` nodes in the making,
`table_layout` and `table_arithmetic` one handler per operator, `program` drives them.
"""
