"""Hugging Face models: from a model in hand, a local folder or a hub name to a module and how it is called.

The only package that imports transformers, peft and huggingface_hub, and only inside functions. Weights are read from
safetensors alone: a pickle can run code when it is read, so it is refused, as is code that comes with a checkpoint unless it
is asked for.
"""

from scrubjay.capture.hub.described import at_length, describe, facts_of, is_pretrained, reads_text
from scrubjay.capture.hub.folder import open_source, open_tokenizer
from scrubjay.capture.hub.opened import Opened
from scrubjay.capture.hub.remote import checkpoints, revisions
from scrubjay.capture.hub.wrapper import unwrapped

__all__ = [
    "Opened", "at_length", "checkpoints", "describe", "facts_of", "is_pretrained", "open_source", "open_tokenizer", "reads_text", "revisions",
    "unwrapped",
]  # fmt: skip
