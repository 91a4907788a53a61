"""The errors of models that cannot be used. Imports nothing."""

CONVERT = "ct2-transformers-converter makes one from an original model"


class ModelError(Exception):
    """A model cannot be used. The message names the file and what to do; it never names what was sent by clients."""


class PassingFault(ModelError):
    """A model could not be loaded now, and its files are not at fault: for want of memory, by the settings or the GPU."""
