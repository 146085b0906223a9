"""The evaluator: values of circuits, one node at a time (the reference every faster way is compared with)."""

from scrubjay.engine.evaluate import Array, Store, evaluate

__all__ = ["Array", "Store", "evaluate"]
