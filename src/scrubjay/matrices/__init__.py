"""Weights of a model by name, products of a head's weights kept factored, and how much heads compose through them."""

from scrubjay.matrices.composition import Composition, chance, composition
from scrubjay.matrices.copying import Copying, copying
from scrubjay.matrices.factored import Factored, Svd
from scrubjay.matrices.weights import names, product, weights

__all__ = [
    "Composition",
    "Copying",
    "Factored",
    "Svd",
    "chance",
    "composition",
    "copying",
    "names",
    "product",
    "weights",
]
