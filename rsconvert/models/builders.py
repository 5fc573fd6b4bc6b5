"""Builders that others wrote: a failure becomes one line of ours, and parameters may stay unfilled."""

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import timm
import torch
import torchvision
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.errors import HfHubHTTPError
from torch import nn
from torch.overrides import TorchFunctionMode

from rsconvert.errors import CheckpointError, ConfigError, UnsupportedModelError, first_line

__all__ = [
    "SMP",
    "TORCHVISION",
    "bounded",
    "built",
    "check_num_classes",
    "check_reachable",
    "classes_argument",
    "unfilled",
    "unknown_model",
]

TORCHVISION = "torchvision/"
_SECONDS = 5  # to wait for the hub to answer
SMP = "smp/"
_MAKERS = {"arange", "empty", "eye", "full", "linspace", "ones", "rand", "randn", "tensor", "zeros"}
_FILLS = {"add_", "clamp_", "copy_", "erfinv_", "fill_", "mul_", "normal_", "ones_", "uniform_", "zero_", "zeros_"}


def built(name: str, build: Callable[[], Any], *, fetches: bool = False) -> Any:
    """Return what a builder returns.

    Args:
        fetches: it downloads weights, so only an argument that it does not take is its own failure.
    Raises:
        UnsupportedModelError: it fails.
        CheckpointError: the weights are unavailable.
    """
    try:
        return build()
    except UnsupportedModelError:
        raise
    except (Exception, SystemExit) as error:  # builders, hub, urllib and hash errors share no base
        failed = f"{type(error).__name__}: {first_line(error)}"
        if fetches and not isinstance(error, (TypeError, SystemExit)):
            raise CheckpointError(
                f"the pretrained weights of {name} are unavailable: {failed}; a network connection, or weights in the "
                "cache, are needed. Try again, give a file by --weights, or use --no-pretrained."
            ) from error
        raise UnsupportedModelError(
            f"{name} can't be built: {failed}; arguments that its builder takes are needed. Check the name and "
            "model_kwargs."
        ) from error


def check_reachable(place: str, *files: str) -> None:
    """Raise what the network raises, within seconds, if the hub can't be reached and the cache holds none of the files.

    The hub's client itself retries for minutes.

    Args:
        place: a repository USER/NAME, which may end in ``@REVISION``.
    """
    repository, _, revision = place.partition("@")
    held = (try_to_load_from_cache(repository, file, revision=revision or None) for file in files)
    if HF_HUB_OFFLINE or any(isinstance(path, str) for path in held):
        return
    with suppress(HfHubHTTPError):  # it answers; what is wrong the client says
        get_hf_file_metadata(hf_hub_url(repository, files[0]), timeout=_SECONDS)


def unknown_model(name: str) -> UnsupportedModelError:
    """Return the error for a name that nobody knows, with similar names."""
    tagged = timm.list_pretrained() if "." in name else timm.list_models()
    known = [*tagged, *(TORCHVISION + n for n in torchvision.models.list_models())]
    near = difflib.get_close_matches(name, known, n=3)
    return UnsupportedModelError(
        f"model {name} is unknown; a timm name, torchvision/NAME, smp/DECODER:ENCODER or file.py:function is "
        "accepted. " + (f"Did you mean {', '.join(near)}?" if near else "See timm.list_models().")
    )


def classes_argument(num_classes: int | None) -> dict[str, int]:
    """Return the builder's argument; left out, the builder's own default holds."""
    return {} if num_classes is None else {"num_classes": num_classes}


def check_num_classes(num_classes: object) -> None:
    """Accept None, and 0 for timm's network without a classifier.

    Raises:
        ConfigError: the number is negative or not an integer.
    """
    if num_classes is not None and (type(num_classes) is not int or num_classes < 0):
        raise ConfigError(f"num_classes is {num_classes!r}; a whole number of at least 0 is accepted.")


@contextmanager
def unfilled() -> Iterator[None]:
    """Leave the parameters of models that are built inside uninitialized, and torch's CPU generator as it was.

    Their values come from elsewhere, and drawing them takes most of the time. Buffers are computed: index maps of
    attention are made by the constructor alone.
    """
    with torch.random.fork_rng(devices=[]), _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    """Skips what fills a parameter: the functions of torch.nn.init, and the in-place methods that others use."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        target = args[0] if args else (kwargs or {}).get("tensor")
        fills = getattr(func, "__module__", None) == "torch.nn.init" or getattr(func, "__name__", None) in _FILLS
        if fills and isinstance(target, nn.Parameter):
            return target
        return func(*args, **(kwargs or {}))


@contextmanager
def bounded(values: int, tensors: int) -> Iterator[None]:
    """Let models that are built inside make so many values in so many tensors, and no more.

    Raises:
        UnsupportedModelError: a builder makes more; where it is caught, by `built`, it is handed on.
    """
    with _Bounded(values, tensors):
        yield


class _Bounded(TorchFunctionMode):
    """Counts what torch is asked to make, before it is made."""

    def __init__(self, values: int, tensors: int) -> None:
        super().__init__()
        self._most, self._values, self._tensors = (values, tensors), values, tensors

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", None) in _MAKERS:
            self._tensors -= 1
            self._values -= func(*args, **{**kwargs, "device": "meta"}).numel() if self._tensors >= 0 else 0
            if min(self._tensors, self._values) < 0:
                raise UnsupportedModelError(
                    f"the model is larger than its file: at most {self._most[0]} values in {self._most[1]} tensors are "
                    "made for it. Check the architecture and its arguments."
                )
        return func(*args, **kwargs)
