"""Recognisers: the transformer's anatomy, found in the graph by its shape and never by module names."""

from scrubjay.circuit.recognisers.anatomy import Anatomy, LayerAnatomy, recognise

__all__ = ["Anatomy", "LayerAnatomy", "recognise"]
