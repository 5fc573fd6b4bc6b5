"""Names to plain models: timm, torchvision, segmentation_models_pytorch, a user's own file."""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import timm
from timm.models import load_model_config_from_hf, parse_model_name
from timm.models._hub import load_model_config_from_path  # timm.models exports its counterpart for the hub alone
from torch import nn

from rsconvert.data import Preprocessing
from rsconvert.errors import ConfigError, UnsupportedModelError, first_line
from rsconvert.models.builders import (
    SMP,
    TORCHVISION,
    built,
    check_num_classes,
    check_reachable,
    classes_argument,
    unknown_model,
)
from rsconvert.models.classifier import classifier_keys, count_outputs, zero_parameters
from rsconvert.models.example import example_stem
from rsconvert.models.smp_models import from_smp
from rsconvert.models.source import Source, set_source
from rsconvert.models.task import recognised_task
from rsconvert.models.torchvision_models import from_torchvision
from rsconvert.models.weights import load_weights

__all__ = ["create_model", "is_file_name", "is_model_name", "preprocessing_of"]

_REMOTE = ("hf-hub", "local-dir")
_HUB_FILES = ("config.json", "model.safetensors", "pytorch_model.bin")
_SIDE = 224  # in pixels, of an image that is followed to the first layer
# Each of these would load weights, or code, past the checks of this module.
_ELSEWHERE = {
    *("cache_dir", "checkpoint_path", "pretrained_backbone", "pretrained_cfg", "pretrained_cfg_overlay"),
    *("weights", "weights_backbone"),
}
_RESERVED = {"num_classes", "pretrained", *_ELSEWHERE}


def create_model(
    name: str,
    *,
    pretrained: bool = False,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return a plain model that remembers its name, its arguments and the preprocessing of its weights.

    A model of another number of channels than its weights' mean and std has their averages for each, as of timm.

    Args:
        name: a timm name (``resnet50``, ``resnet50.a1_in1k``, ``hf-hub:…``, ``local-dir:…``), ``torchvision/NAME``,
            ``smp/DECODER:ENCODER`` of segmentation_models_pytorch, or ``file.py:function``, a function that returns an
            nn.Module.
        pretrained: download weights by the loader of the library; of segmentation_models_pytorch the encoder's.
        weights: a safetensors or torch file to load strictly instead. A classifier that it lacks, or holds in
            another size, starts at zero. What wrappers put around the names is stripped, as ``module.`` and Lightning's
            ``model.``; the model's source says what was.
        num_classes: outputs of the classifier; None keeps the architecture's own, 0 is timm's network without one.
        model_kwargs: further arguments of the builder.
    Raises:
        UnsupportedModelError: the name is unknown, or its builder fails.
        CheckpointError: the weights can't be downloaded, read, or do not fit.
        ConfigError: ``model_kwargs`` holds a reserved name; ``weights`` and ``pretrained`` are both given;
            ``num_classes`` is negative, not an integer, or given to a model of timm without a classifier.
    """
    kwargs = dict(model_kwargs or {})
    _check_arguments(kwargs, pretrained, weights)
    check_num_classes(num_classes)
    model, source = _builder_of(name)(name, pretrained, num_classes, kwargs)
    if weights is not None:
        fresh, origin = load_weights(model, Path(weights))
        source = replace(source, weights=origin, new_classifier=tuple(fresh))
    zero_parameters(model, list(source.new_classifier))
    if source.model_kwargs or is_file_name(name):  # a library's model takes three channels unless its arguments say so
        source = source.with_channels(example_stem(model, _SIDE).channels)
    set_source(model, replace(source, task=recognised_task(model)))
    return model


def _builder_of(name: str) -> Callable[[str, bool, int | None, dict[str, Any]], tuple[nn.Module, Source]]:
    if is_file_name(name):
        return _from_file
    if name.startswith(SMP):
        return from_smp
    return from_torchvision if name.startswith(TORCHVISION) else _from_timm


def is_model_name(name: str) -> bool:
    """Return whether a name is that of a model of timm, torchvision or segmentation_models_pytorch."""
    return name.startswith((TORCHVISION, SMP)) or timm.is_model(name)


def is_file_name(name: str) -> bool:
    """Return whether a name means a function in a user's file."""
    return ".py:" in name


def _check_arguments(kwargs: Mapping[str, Any], pretrained: bool, weights: object) -> None:
    if reserved := sorted(_RESERVED & kwargs.keys()):
        raise ConfigError(
            f"model_kwargs has {', '.join(reserved)}; arguments of the architecture alone are accepted. "
            "Use the options pretrained, weights and num_classes."
        )
    if pretrained and weights is not None:
        raise ConfigError(f"weights is {weights} and pretrained is set; one of them is accepted. Drop one.")


def _from_timm(
    name: str, pretrained: bool, num_classes: int | None, kwargs: dict[str, Any]
) -> tuple[nn.Module, Source]:
    architecture, own = _resolve_timm(name)
    arguments = classes_argument(num_classes) | kwargs
    if pretrained:
        built(name, lambda: _check_hub(name), fetches=True)
    model = built(name, lambda: timm.create_model(name, pretrained=pretrained, **arguments), fetches=pretrained)
    cfg, outputs = model.pretrained_cfg, count_outputs(model)
    if num_classes and outputs is None:
        raise ConfigError(
            f"num_classes is {num_classes} and {name} with model_kwargs {kwargs} has no classifier; a number is "
            "accepted for a model that gives logits. Leave it out."
        )
    source = Source(architecture=architecture, model_kwargs={**own, **kwargs}, num_classes=outputs)
    if not pretrained:  # the paper's bilinear and 0.875 with the family's mean and std
        return model, replace(source, preprocessing=Preprocessing(mean=tuple(cfg["mean"]), std=tuple(cfg["std"])))
    licence = cfg.get("license")
    return model, replace(
        source,
        preprocessing=preprocessing_of(cfg),
        weights=f"pretrained {name}",
        # timm writes unknown where it knows none.
        licence=licence if isinstance(licence, str) and licence != "unknown" else None,
        new_classifier=tuple(classifier_keys(model)) if outputs != cfg.get("num_classes") else (),
    )


def _check_hub(name: str) -> None:
    """Raise within seconds where the weights of a name are on a hub that can't be reached, and not in the cache."""
    scheme, place = parse_model_name(name)
    if scheme == "hf-hub":
        check_reachable(place, *_HUB_FILES)
    elif (cfg := timm.get_pretrained_cfg(place)) is not None and scheme not in _REMOTE and cfg.hf_hub_id:
        check_reachable(cfg.hf_hub_id, *_HUB_FILES)


def _resolve_timm(name: str) -> tuple[str, dict[str, Any]]:
    """Return the architecture (with its tag) and the arguments that a hub or local folder adds to it."""
    try:
        scheme, place = parse_model_name(name)
        if scheme not in _REMOTE:
            timm.get_pretrained_cfg(place)
    except (ValueError, AssertionError, RuntimeError) as error:  # the last for a tag that is unknown
        raise unknown_model(name) from error
    if scheme in _REMOTE:
        return _read_folder(name, scheme, place)
    if not timm.is_model(place):
        raise unknown_model(name)
    return place, {}


def _read_folder(name: str, scheme: str, place: str) -> tuple[str, dict[str, Any]]:
    """Return the architecture of a folder, and the arguments under which its bare name builds the same network."""
    if scheme == "hf-hub":
        built(name, lambda: _check_hub(name), fetches=True)
        cfg, architecture, arguments = built(name, lambda: load_model_config_from_hf(place), fetches=True)
    else:
        try:
            cfg, architecture, arguments = load_model_config_from_path(place)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UnsupportedModelError(
                f"{name} can't be opened ({first_line(error)}); a folder with config.json and model.safetensors is "
                "needed."
            ) from error
    if not (type(cfg) is dict and type(architecture) is str and type(arguments) in (dict, type(None))):
        raise UnsupportedModelError(
            f"{name} has a config.json of other types than timm writes; a text and objects are needed. Write it again."
        )
    if not timm.is_model(architecture):
        raise unknown_model(architecture)
    if unsafe := sorted(_ELSEWHERE & set(arguments or {})):
        raise UnsupportedModelError(
            f"{name} has the argument {unsafe[0]} in its config.json, which would load weights from elsewhere; "
            "arguments of the architecture alone are accepted. Remove it."
        )
    own = {key: value for key, value in (arguments or {}).items() if key not in _RESERVED}
    # timm reads the pooling from a folder's cfg, where the bare name would take its registered one.
    registered, pooling = timm.get_pretrained_cfg(architecture), cfg.get("global_pool")
    usual = pooling is None or (registered is not None and registered.to_dict().get("global_pool") == pooling)
    return architecture, own if usual else {"global_pool": pooling, **own}


def _from_file(
    name: str, pretrained: bool, num_classes: int | None, kwargs: dict[str, Any]
) -> tuple[nn.Module, Source]:
    if pretrained:
        raise ConfigError(
            f"{name} has no pretrained weights to download; only names of timm, torchvision and smp have. "
            "Give a file by --weights, or use --no-pretrained."
        )
    with _importable(Path(name.rpartition(":")[0]).parent):
        function = _function_of(name)
        takes_classes = "num_classes" in built(name, lambda: inspect.signature(function)).parameters
        arguments = kwargs | classes_argument(num_classes if takes_classes else None)
        model = built(name, lambda: function(**arguments))
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError(f"{name} returned {type(model).__name__}; an nn.Module is needed.")
    outputs = count_outputs(model)
    if outputs is None and takes_classes:
        outputs = num_classes
    if num_classes not in (None, outputs):
        raise UnsupportedModelError(
            f"{name} has {outputs} outputs and num_classes is {num_classes}; the same number is needed. "
            "Let the function take num_classes."
        )
    return model, Source(architecture=name, model_kwargs=arguments, num_classes=outputs)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a user's file import its neighbours, as Python does for a script."""
    place = str(folder.resolve())
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)


def _function_of(name: str) -> Callable[..., Any]:
    path, _, function = name.rpartition(":")
    if not Path(path).is_file():
        raise UnsupportedModelError(f"{path} is not a file; a Python file with the model's function is needed.")
    found = getattr(built(name, lambda: _import_file(path)), function, None)
    if not callable(found):
        raise UnsupportedModelError(f"{path} has no function {function}; one that returns the model is needed.")
    return cast(Callable[..., Any], found)


def _import_file(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"rsconvert_file_{Path(path).stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look their module up by name
    spec.loader.exec_module(module)
    return module


def preprocessing_of(cfg: Mapping[str, Any]) -> Preprocessing:
    """Return what a ``pretrained_cfg`` of timm says of images.

    Raises:
        ConfigError: it names an interpolation of no single kind, or values out of range.
    """
    config = timm.data.resolve_data_config(pretrained_cfg=dict(cfg))
    return Preprocessing(
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        crop_pct=config["crop_pct"],
    )
