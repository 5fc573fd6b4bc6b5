"""Names to plain models: timm, torchvision, a user's own file."""

import difflib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import timm
import torchvision
from timm.models import load_model_config_from_hf, parse_model_name
from timm.models._hub import load_model_config_from_path
from torch import nn

from rsconvert.data import Preprocessing
from rsconvert.errors import CheckpointError, ConfigError, UnsupportedModelError
from rsconvert.surgery.source import Source, set_source
from rsconvert.surgery.weights import classifier_keys, count_outputs, load_state, load_weights, zero_parameters

__all__ = ["create_model", "is_file_name"]

_TORCHVISION = "torchvision/"
_REMOTE = ("hf-hub", "local-dir")
# Each of these would load weights, or code, past the checks of this module.
_RESERVED = frozenset(
    {"checkpoint_path", "num_classes", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "weights"}
)


def create_model(
    name: str,
    *,
    pretrained: bool = False,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return a plain model that remembers its name, its arguments and the preprocessing of its weights.

    Args:
        name: a timm name (``resnet50``, ``resnet50.a1_in1k``, ``hf-hub:…``, ``local-dir:…``), ``torchvision/NAME``, or
            ``file.py:function``, a function that returns an nn.Module.
        pretrained: download weights by the loader of timm or torchvision.
        weights: a safetensors or torch file to load strictly instead. A classifier that it lacks, or holds in
            another size, starts at zero.
        num_classes: outputs of the classifier; None keeps the architecture's own.
        model_kwargs: further arguments of the builder.
    Raises:
        UnsupportedModelError: the name is unknown, or its builder fails.
        CheckpointError: the weights can't be downloaded, read, or do not fit.
        ConfigError: ``model_kwargs`` holds a reserved name; ``weights`` and ``pretrained`` are both given.
    """
    kwargs = dict(model_kwargs or {})
    _check_arguments(kwargs, pretrained, weights)
    build = _from_file if is_file_name(name) else _from_torchvision if name.startswith(_TORCHVISION) else _from_timm
    model, source = build(name, pretrained, num_classes, kwargs)
    if weights is not None:
        source = replace(source, weights=str(weights), new_classifier=tuple(load_weights(model, Path(weights))))
    zero_parameters(model, list(source.new_classifier))
    set_source(model, source)
    return model


def is_file_name(name: str) -> bool:
    """Tell whether a name means a function in a user's file."""
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
    construct = _download if pretrained else _build
    model = construct(name, lambda: timm.create_model(name, pretrained=pretrained, **_classes(num_classes), **kwargs))
    cfg = model.pretrained_cfg
    source = Source(
        architecture=architecture,
        model_kwargs={**own, **kwargs},
        num_classes=model.num_classes,
        preprocessing=_of_cfg(timm.data.resolve_data_config(pretrained_cfg=cfg)) if pretrained else _neutral(cfg),
        weights=f"pretrained {name}" if pretrained else None,
        new_classifier=tuple(classifier_keys(model)) if pretrained and model.num_classes != cfg["num_classes"] else (),
    )
    return model, source


def _classes(num_classes: int | None) -> dict[str, int]:
    """Return the builder's argument; left out, the builder's own default holds."""
    return {} if num_classes is None else {"num_classes": num_classes}


def _resolve_timm(name: str) -> tuple[str, dict[str, Any]]:
    """Return the architecture (with its tag) and the arguments that a hub or local folder adds to it."""
    try:
        scheme, place = parse_model_name(name)
        if scheme not in _REMOTE:
            timm.get_pretrained_cfg(place)
    except (ValueError, AssertionError, RuntimeError) as error:  # the last for a tag that is unknown
        raise UnsupportedModelError(_unknown(name)) from error
    if scheme in _REMOTE:
        return _read_folder(name, scheme, place)
    if not timm.is_model(place):
        raise UnsupportedModelError(_unknown(name))
    return place, {}


def _read_folder(name: str, scheme: str, place: str) -> tuple[str, dict[str, Any]]:
    if scheme == "hf-hub":
        cfg, architecture, arguments = _download(name, lambda: load_model_config_from_hf(place))
    else:
        try:
            cfg, architecture, arguments = load_model_config_from_path(place)
        except (OSError, ValueError, KeyError) as error:
            raise UnsupportedModelError(
                f"{name} can't be opened ({_first_line(error)}); a folder with config.json and model.safetensors is "
                "needed. Check the path."
            ) from error
    if not timm.is_model(architecture):
        raise UnsupportedModelError(_unknown(architecture))
    return architecture, _recorded(cfg, architecture, arguments or {})


def _recorded(cfg: Mapping[str, Any], architecture: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments under which the bare architecture builds the folder's network again.

    timm reads the pooling from a folder's cfg, where the bare name would take its registered one.
    """
    registered = timm.get_pretrained_cfg(architecture)
    pooling = cfg.get("global_pool")
    usual = pooling is None or (registered is not None and registered.to_dict().get("global_pool") == pooling)
    own = {} if usual else {"global_pool": pooling}
    return {**own, **{key: value for key, value in arguments.items() if key not in _RESERVED}}


def _from_torchvision(
    name: str, pretrained: bool, num_classes: int | None, kwargs: dict[str, Any]
) -> tuple[nn.Module, Source]:
    short = name.removeprefix(_TORCHVISION)
    if short not in torchvision.models.list_models():
        raise UnsupportedModelError(_unknown(name))
    own = _torchvision_weights(name, short) if pretrained else None
    kwargs = kwargs if own is None else _weights_arguments(short) | kwargs
    model, fresh = _filled_torchvision(name, short, own, num_classes, kwargs)
    source = Source(
        architecture=name,
        model_kwargs=kwargs,
        num_classes=count_outputs(model),
        preprocessing=_of_transforms(own.transforms()) if own is not None else Preprocessing(),
        weights=f"pretrained {own}" if own is not None else None,
        new_classifier=tuple(fresh),
    )
    return model, source


def _filled_torchvision(
    name: str, short: str, own: Any, num_classes: int | None, kwargs: dict[str, Any]
) -> tuple[nn.Module, list[str]]:
    """Return the model and the keys of a classifier that stays new; torchvision's builder alone can read its files."""
    whole = None
    if own is not None:
        whole = _download(name, lambda: torchvision.models.get_model(short, weights=own, **kwargs))
        if num_classes in (None, count_outputs(whole)):
            return whole, []
    arguments = _offline(short) | _classes(num_classes) | kwargs
    model = _build(name, lambda: torchvision.models.get_model(short, weights=None, **arguments))
    return model, [] if whole is None else load_state(model, whole.state_dict(), name)


def _torchvision_weights(name: str, short: str) -> Any:
    weights = list(torchvision.models.get_model_weights(short))
    if not weights:
        raise CheckpointError(f"{name} has no pretrained weights in torchvision; others have. Use --no-pretrained.")
    return torchvision.models.get_model_weights(short).DEFAULT


def _weights_arguments(short: str) -> dict[str, Any]:
    """Return what torchvision's builder sets by itself when it gets weights; the bare name needs to be told."""
    if short in ("googlenet", "inception_v3"):
        return {"transform_input": True, "init_weights": False, "aux_logits": short == "inception_v3"}
    return {"aux_loss": True} if "aux_loss" in _parameters(short) else {}


def _offline(short: str) -> dict[str, None]:
    """Return what keeps a builder from a download of its default backbone."""
    return {"weights_backbone": None} if "weights_backbone" in _parameters(short) else {}


def _parameters(short: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(torchvision.models.get_model_builder(short)).parameters


def _from_file(
    name: str, pretrained: bool, num_classes: int | None, kwargs: dict[str, Any]
) -> tuple[nn.Module, Source]:
    if pretrained:
        raise ConfigError(
            f"{name} has no pretrained weights to download; only timm and torchvision names have. "
            "Give a file by --weights, or use --no-pretrained."
        )
    function = _function_of(name)
    takes_classes = {"num_classes", "kwargs"} & inspect.signature(function).parameters.keys()
    model = _build(name, lambda: function(**_classes(num_classes if takes_classes else None), **kwargs))
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError(
            f"{name} returned {type(model).__name__}; an nn.Module is needed. Return the model."
        )
    outputs = count_outputs(model)
    if num_classes not in (None, outputs):
        raise UnsupportedModelError(
            f"{name} has {outputs} outputs and num_classes is {num_classes}; the same number is needed. "
            "Let the function take num_classes."
        )
    return model, Source(architecture=name, model_kwargs=kwargs, num_classes=outputs)


def _function_of(name: str) -> Callable[..., Any]:
    path, _, function = name.rpartition(":")
    found = getattr(_build(name, lambda: _import_file(Path(path))), function, None)
    if not callable(found):
        raise UnsupportedModelError(
            f"{path} has no function {function}; one that returns the model is needed. Check the name behind the colon."
        )
    return cast(Callable[..., Any], found)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UnsupportedModelError(
            f"{path} is not a file; a Python file with the model's function is needed. Check the path."
        )
    spec = importlib.util.spec_from_file_location(f"rsconvert_file_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look their module up by name
    spec.loader.exec_module(module)
    return module


def _build(name: str, build: Callable[[], Any]) -> Any:
    try:
        return build()
    except UnsupportedModelError:
        raise
    except Exception as error:  # a builder raises whatever it likes
        raise UnsupportedModelError(_unbuilt(name, error)) from error


def _download(name: str, fetch: Callable[[], Any]) -> Any:
    try:
        return fetch()
    except TypeError as error:  # the builder's own, as for an argument that it lacks
        raise UnsupportedModelError(_unbuilt(name, error)) from error
    except Exception as error:  # hub, urllib and hash errors share no base
        raise CheckpointError(
            f"the pretrained weights of {name} can't be had: {type(error).__name__}: {_first_line(error)}; a network "
            "connection, or weights in the cache, are needed. Try again, give a file by --weights, or use "
            "--no-pretrained."
        ) from error


def _of_cfg(config: Mapping[str, Any]) -> Preprocessing:
    return Preprocessing(
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        crop_pct=config["crop_pct"],
    )


def _neutral(cfg: Mapping[str, Any]) -> Preprocessing:
    """Return the paper's bilinear and 0.875 with the family's mean and std."""
    return Preprocessing(mean=tuple(cfg["mean"]), std=tuple(cfg["std"]))


def _of_transforms(transforms: Any) -> Preprocessing:
    """Return what torchvision applies before a classifier; other tasks get the paper's values."""
    if not hasattr(transforms, "crop_size"):
        return Preprocessing()
    return Preprocessing(
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
        crop_pct=round(transforms.crop_size[0] / transforms.resize_size[0], 4),
    )


def _unbuilt(name: str, error: Exception) -> str:
    return (
        f"{name} can't be built: {type(error).__name__}: {_first_line(error)}; arguments that its builder takes "
        "are needed. Check the name and model_kwargs."
    )


def _unknown(name: str) -> str:
    tagged = timm.list_pretrained() if "." in name else timm.list_models()
    known = [*tagged, *(_TORCHVISION + n for n in torchvision.models.list_models())]
    near = difflib.get_close_matches(name, known, n=3)
    return f"model {name} is unknown; a timm name, torchvision/NAME or file.py:function is accepted. " + (
        f"Did you mean {', '.join(near)}?" if near else "See timm.list_models()."
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
