"""The circuit language: nodes, axes, addresses, recognisers, rewriting, printing. It imports no array library."""
