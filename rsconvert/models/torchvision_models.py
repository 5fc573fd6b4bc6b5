"""torchvision's names to plain models."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torchvision
from torch import nn

from rsconvert.data import Preprocessing
from rsconvert.models.builders import TORCHVISION, built, classes_argument, unknown_model
from rsconvert.models.classifier import count_outputs
from rsconvert.models.example import resizes_inside
from rsconvert.models.source import Source
from rsconvert.models.weights import load_state

__all__ = ["candidates_for", "from_torchvision"]


def from_torchvision(
    name: str, pretrained: bool, num_classes: int | None, kwargs: dict[str, Any]
) -> tuple[nn.Module, Source]:
    """Return the model of a name ``torchvision/NAME``, and what is known of it; raises as ``create_model``."""
    short = name.removeprefix(TORCHVISION)
    if short not in torchvision.models.list_models():
        raise unknown_model(name)
    own = torchvision.models.get_model_weights(short).DEFAULT if pretrained else None
    model, fresh = _filled(name, own, num_classes, kwargs)
    outputs = count_outputs(model)
    source = Source(
        architecture=name,
        model_kwargs=kwargs if own is None else _weights_arguments(short) | kwargs,
        # Detection gives no logits, but its builder takes the classes all the same.
        num_classes=num_classes if outputs is None else outputs,
        preprocessing=_preprocessing(model, own),
        weights=f"pretrained {own}" if own is not None else None,
        new_classifier=tuple(fresh),
    )
    return model, source


def candidates_for(model: nn.Module) -> Iterator[tuple[Source, Callable[[], nn.Module]]]:
    """Yield what may have made a model of torchvision, without weights, and how to build it; nearest in size first.

    These are the builders of the file that defines the model's class, if they make tensors of the same names and
    shapes.
    """
    module, size = type(model).__module__, sum(p.numel() for p in model.parameters())
    names = torchvision.models.list_models()
    near = [name for name in names if torchvision.models.get_model_builder(name).__module__ == module]
    outputs = count_outputs(model) if near else None
    for short in sorted(near, key=lambda name: abs(_published_size(name) - size)):
        for kwargs in [{}, *([known] if (known := _weights_arguments(short)) else [])]:
            build = partial(_build, short, classes_argument(outputs) | kwargs)
            if _may_be(build, model):
                yield Source(architecture=TORCHVISION + short, model_kwargs=kwargs, num_classes=outputs), build


def _published_size(short: str) -> int:
    return next((int(own.meta["num_params"]) for own in torchvision.models.get_model_weights(short)), 0)


def _may_be(build: Callable[[], nn.Module], model: nn.Module) -> bool:
    """Compare the names and shapes of the tensors that a builder makes, without data."""
    try:
        with torch.device("meta"):
            bare = build()
    except (RuntimeError, NotImplementedError):  # some builders compute with values
        return True
    made, own = bare.state_dict(), model.state_dict()
    return made.keys() == own.keys() and all(made[key].shape == own[key].shape for key in own)


def _filled(name: str, own: Any, num_classes: int | None, kwargs: dict[str, Any]) -> tuple[nn.Module, list[str]]:
    """Return the model and the keys of a classifier that stays new."""
    short, arguments = name.removeprefix(TORCHVISION), classes_argument(num_classes) | kwargs
    if own is None:
        return built(name, lambda: _build(short, arguments)), []
    # Its own builder first: it alone knows the old names in some of the files.
    whole = built(name, lambda: torchvision.models.get_model(short, weights=own, **kwargs), fetches=True)
    if num_classes in (None, count_outputs(whole)):
        return whole, []
    model = built(name, lambda: _build(short, _weights_arguments(short) | arguments))
    return model, load_state(model, whole.state_dict(), name)


def _build(short: str, arguments: dict[str, Any]) -> nn.Module:
    """Build a model without weights, and without a download of its default backbone."""
    offline = {"weights_backbone": None} if _takes(short, "weights_backbone") else {}
    model: nn.Module = torchvision.models.get_model(short, weights=None, **offline, **arguments)
    return model


def _weights_arguments(short: str) -> dict[str, Any]:
    """Return what torchvision's builder sets when it gets weights; without them it must be given."""
    if short in ("googlenet", "inception_v3"):
        return {"transform_input": True, "init_weights": False, "aux_logits": short == "inception_v3"}
    return {"aux_loss": True} if _takes(short, "aux_loss") else {}


def _takes(short: str, argument: str) -> bool:
    return argument in inspect.signature(torchvision.models.get_model_builder(short)).parameters


def _preprocessing(model: nn.Module, own: Any) -> Preprocessing:
    """Return what torchvision applies before a classifier; other tasks, and models without weights, get the paper's."""
    if resizes_inside(model):  # and normalizes there
        return Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    transforms: Any = None if own is None else own.transforms()
    if not hasattr(transforms, "crop_size"):
        return Preprocessing()
    return Preprocessing(
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
        crop_pct=round(transforms.crop_size[0] / transforms.resize_size[0], 4),
    )
