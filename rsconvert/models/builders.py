"""Builders that others wrote, called so that a failure is one line of ours."""

import difflib
from collections.abc import Callable
from typing import Any

import timm
import torchvision

from rsconvert.errors import CheckpointError, ConfigError, UnsupportedModelError, first_line

__all__ = [
    "TORCHVISION",
    "built",
    "check_num_classes",
    "classes_argument",
    "downloaded",
    "unknown_model",
]

TORCHVISION = "torchvision/"


def built(name: str, build: Callable[[], Any]) -> Any:
    """Return what a builder returns.

    Raises:
        UnsupportedModelError: it fails.
    """
    try:
        return build()
    except UnsupportedModelError:
        raise
    except (Exception, SystemExit) as error:  # a builder raises whatever it likes
        raise UnsupportedModelError(_unbuilt(name, error)) from error


def downloaded(name: str, fetch: Callable[[], Any]) -> Any:
    """Return what a builder returns that fetches weights.

    Raises:
        UnsupportedModelError: it does not take its arguments.
        CheckpointError: the weights can't be had.
    """
    try:
        return fetch()
    except TypeError as error:  # the builder's own, as for an argument that it lacks
        raise UnsupportedModelError(_unbuilt(name, error)) from error
    except Exception as error:  # hub, urllib and hash errors share no base
        raise CheckpointError(
            f"the pretrained weights of {name} can't be had: {type(error).__name__}: {first_line(error)}; a network "
            "connection, or weights in the cache, are needed. Try again, give a file by --weights, or use "
            "--no-pretrained."
        ) from error


def unknown_model(name: str) -> str:
    """Return the message for a name that nobody knows, with its neighbours."""
    tagged = timm.list_pretrained() if "." in name else timm.list_models()
    known = [*tagged, *(TORCHVISION + n for n in torchvision.models.list_models())]
    near = difflib.get_close_matches(name, known, n=3)
    return f"model {name} is unknown; a timm name, torchvision/NAME or file.py:function is accepted. " + (
        f"Did you mean {', '.join(near)}?" if near else "See timm.list_models()."
    )


def classes_argument(num_classes: int | None) -> dict[str, int]:
    """Return the builder's argument; left out, the builder's own default holds."""
    return {} if num_classes is None else {"num_classes": num_classes}


def check_num_classes(num_classes: object) -> None:
    """Accept None, and 0 for timm's network without a classifier.

    Raises:
        ConfigError: the number is negative, or no whole one.
    """
    if num_classes is not None and (type(num_classes) is not int or num_classes < 0):
        raise ConfigError(
            f"num_classes is {num_classes!r}; a whole number of at least 0 is accepted. Give the number of classes."
        )


def _unbuilt(name: str, error: BaseException) -> str:
    return (
        f"{name} can't be built: {type(error).__name__}: {first_line(error)}; arguments that its builder takes "
        "are needed. Check the name and model_kwargs."
    )
