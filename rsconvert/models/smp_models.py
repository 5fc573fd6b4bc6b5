"""Names of segmentation_models_pytorch to plain models: a decoder on an encoder, ``smp/unet:resnet18``."""

import difflib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import timm
from torch import nn

from rsconvert.data import Preprocessing
from rsconvert.errors import ConfigError, UnsupportedModelError, install_hint
from rsconvert.models.builders import SMP, built
from rsconvert.models.source import Source

__all__ = ["from_smp", "smp_candidates"]

_PACKAGE = "segmentation_models_pytorch"
_TIMM = "tu-"  # before the name of an encoder that timm has
_HEADS = ("segmentation_head.", "classification_head.")
_RESERVED = {"arch", "classes", "encoder_name", "encoder_weights"}


def from_smp(name: str, pretrained: bool, num_classes: int | None, kwargs: dict[str, Any]) -> tuple[nn.Module, Source]:
    """Return the model of a name ``smp/DECODER:ENCODER``, and what is known of it; raises as ``create_model``.

    Args:
        pretrained: download the encoder's weights. The package has none for a decoder, and the head starts at zero.
    """
    smp = _package(name)
    decoder, encoder = _parts(smp, name)
    _check_arguments(name, num_classes, kwargs)
    published = _published(smp, name, encoder) if pretrained else None
    classes = {} if num_classes is None else {"classes": num_classes}
    arguments = {"encoder_weights": published, **classes, **kwargs}
    model = built(name, lambda: smp.create_model(decoder, encoder, **arguments), fetches=pretrained)
    heads = [key for key, _ in model.named_parameters() if key.startswith(_HEADS)]
    source = Source(
        architecture=name,
        model_kwargs=kwargs,
        num_classes=arguments.get("classes", _defaults(type(model))["classes"]),
        preprocessing=built(name, lambda: _preprocessing(smp, encoder, published), fetches=pretrained),
        weights=None if published is None else f"pretrained encoder {encoder}{_tagged(published)}",
        new_classifier=() if published is None else tuple(heads),
    )
    return model, source


def smp_candidates(model: nn.Module) -> Iterator[tuple[Source, Callable[[], nn.Module]]]:
    """Yield what may have made a model of the package, without weights, and how to build it, from its own record."""
    record, smp = getattr(model, "_hub_mixin_config", None), _package(type(model).__name__)
    decoder = type(model).__name__.lower()
    if not isinstance(record, Mapping) or decoder not in smp.MODEL_ARCHITECTURES_MAPPING:
        return
    usual = _defaults(type(model))
    kwargs = {key: value for key, value in record.items() if key not in _RESERVED and usual.get(key) != value}
    encoder, classes = record["encoder_name"], record["classes"]
    build = partial(smp.create_model, decoder, encoder, encoder_weights=None, classes=classes, **kwargs)
    yield Source(architecture=f"{SMP}{decoder}:{encoder}", model_kwargs=kwargs, num_classes=classes), build


def _package(name: str) -> ModuleType:
    if find_spec(_PACKAGE) is None:
        raise UnsupportedModelError(
            f"{name} needs the package {_PACKAGE}, which is not installed. {install_hint('segmentation')}"
        )
    return import_module(_PACKAGE)


def _parts(smp: ModuleType, name: str) -> tuple[str, str]:
    decoder, _, encoder = name.removeprefix(SMP).partition(":")
    decoders = smp.MODEL_ARCHITECTURES_MAPPING
    if decoder not in decoders or not encoder:
        raise UnsupportedModelError(
            f"model {name} is unknown; smp/DECODER:ENCODER is accepted, such as smp/unet:resnet18, with the decoders "
            f"{', '.join(decoders)}."
        )
    if encoder.startswith(_TIMM):
        _check_encoder(name, encoder, timm.list_models() if "." not in encoder else timm.list_pretrained(), _TIMM)
    else:
        _check_encoder(name, encoder, smp.encoders.get_encoder_names())
    return decoder, encoder


def _check_encoder(name: str, encoder: str, known: Collection[str], prefix: str = "") -> None:
    short = encoder.removeprefix(prefix)
    if short in known:
        return
    near = [prefix + other for other in difflib.get_close_matches(short, known, n=3)]
    if not prefix and timm.is_model(short):
        near = [_TIMM + short, *near]
    raise UnsupportedModelError(
        f"encoder {encoder} of {name} is unknown; one of {_PACKAGE}, or {_TIMM}NAME with a name of timm, is accepted. "
        + (f"Did you mean {', '.join(near[:3])}?" if near else f"See {_PACKAGE}.encoders.get_encoder_names().")
    )


def _check_arguments(name: str, num_classes: int | None, kwargs: Mapping[str, Any]) -> None:
    if reserved := sorted(_RESERVED & kwargs.keys()):
        raise ConfigError(
            f"model_kwargs has {', '.join(reserved)}; further arguments of the decoder are accepted. The name says "
            "decoder and encoder; use the options pretrained and num_classes."
        )
    if num_classes == 0:
        raise ConfigError(f"num_classes is 0 and {name} gives logits; a number of at least 1 is accepted.")


def _published(smp: ModuleType, name: str, encoder: str) -> str | bool:
    """Return what ``encoder_weights`` takes for the encoder's own weights: of ImageNet where there are several."""
    if encoder.startswith(_TIMM):
        if not timm.models.is_model_pretrained(encoder.removeprefix(_TIMM)):
            raise ConfigError(f"{name} has no pretrained weights, for its encoder has none. Use --no-pretrained.")
        return True
    tags = list(smp.encoders.encoders[encoder]["pretrained_settings"])
    return "imagenet" if "imagenet" in tags else str(tags[0])


def _preprocessing(smp: ModuleType, encoder: str, published: str | bool | None) -> Preprocessing:
    """Return what the encoder's weights expect; without weights the mean and std of a timm family."""
    if encoder.startswith(_TIMM):
        cfg = timm.get_pretrained_cfg(encoder.removeprefix(_TIMM))
        usable = cfg is not None and len(cfg.mean) == len(cfg.std) == 3
        return Preprocessing(mean=tuple(cfg.mean), std=tuple(cfg.std)) if usable else Preprocessing()
    if published is None:
        return Preprocessing()
    params = smp.encoders.get_preprocessing_params(encoder, pretrained=published)
    if params["input_space"] != "RGB":
        raise UnsupportedModelError(
            f"encoder {encoder} takes colours as {params['input_space']}; RGB is accepted. Use --no-pretrained."
        )
    scale = params["input_range"][1]
    return Preprocessing(
        mean=tuple(value / scale for value in params["mean"]), std=tuple(value / scale for value in params["std"])
    )


def _tagged(published: str | bool) -> str:
    return f" ({published})" if isinstance(published, str) else ""


def _defaults(kind: type[nn.Module]) -> dict[str, Any]:
    return {name: p.default for name, p in inspect.signature(kind.__init__).parameters.items()}
