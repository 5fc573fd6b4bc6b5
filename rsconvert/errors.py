"""What can go wrong, as a tree of exceptions named by what the user can do about it.

RSConvertError
├── UnsupportedModelError   the model is unknown, holds no BatchNorm, or can't be converted
├── ResolutionError         a resolution is malformed, repeated, or unusable for the model
├── CheckpointError         a file can't be read, written, or does not fit the network
├── DataError               images or labels are missing, broken, or do not fit the network
├── ConfigError             a setting is unknown, out of range, or has no effect
└── TrainingError           training can't go on

NamelessModelWarning        a warning: the network's file will need the plain model to be loaded

Every message says what, the value, what is accepted, and what to do, in one line.
"""

from pickle import UnpicklingError

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "NamelessModelWarning",
    "RSConvertError",
    "ResolutionError",
    "TrainingError",
    "UnsupportedModelError",
    "first_line",
    "install_hint",
    "one_line",
]


class RSConvertError(Exception):
    """Base of every error that rsconvert raises for a user's mistake."""


class UnsupportedModelError(RSConvertError, ValueError):
    """Choose another model, or name it differently."""


class ResolutionError(RSConvertError, ValueError):
    """Choose other resolutions."""


class CheckpointError(RSConvertError, ValueError):
    """Give another file, or make room for it."""


class DataError(RSConvertError, ValueError):
    """Mend the images or the labels."""


class ConfigError(RSConvertError, ValueError):
    """Change the setting."""


class TrainingError(RSConvertError, RuntimeError):
    """Change the learning rate, the precision, or the data."""


class NamelessModelWarning(UserWarning):
    """Give the model a name, or keep the code that makes it next to its file."""


def install_hint(extra: str) -> str:
    """Return how an extra is installed, from an index and in a checkout.

    >>> install_hint("onnx")
    "Run pip install 'rsconvert[onnx]', in a checkout pip install -e '.[onnx]'."
    """
    return f"Run pip install 'rsconvert[{extra}]', in a checkout pip install -e '.[{extra}]'."


def first_line(error: BaseException) -> str:
    """Return what fits into a message of one line."""
    if isinstance(error, UnpicklingError):  # whose own words advise to trust the file
        return "it holds something else than tensors and plain values"
    return (str(error).splitlines() or [""])[0].rstrip(". ")


def one_line(error: BaseException, *, with_class: bool = False) -> str:
    """Return the whole message of an error in one line, or its class if it has none.

    Args:
        with_class: begin with the class, which says more than the message where the error is another library's.

    >>> one_line(KeyError("a"), with_class=True)
    "KeyError: 'a'"
    """
    kind, message = type(error).__name__, " ".join(str(error).split())
    return f"{kind}: {message}" if with_class and message else message or kind
