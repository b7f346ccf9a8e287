"""The errors of the library: all of one kind, so that one ``except`` catches them."""


class LRPError(ValueError):
    """What was given is not valid; the message says what was given, what is valid, and where."""


class ShapeError(LRPError):
    """Shapes do not fit together."""


class UnsupportedError(LRPError):
    """A layer, an option or a format that this library does not know, refused by name."""


class FileError(LRPError):
    """A file that is missing, damaged, or not of the expected format."""


class NonFiniteError(LRPError):
    """NaN or infinity in weights, inputs, activations or relevance."""


class MissingExtraError(LRPError, ImportError):
    """An optional package is not installed; the message says which extra has it."""
