"""Names to plain models: timm, torchvision, a user's own file."""

import difflib
import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import timm
import torchvision
from timm.models import load_model_config_from_hf, parse_model_name
from torch import nn

from rsconvert.data import Preprocessing
from rsconvert.errors import CheckpointError, ConfigError, UnsupportedModelError
from rsconvert.surgery.source import Source, set_source
from rsconvert.surgery.weights import classifier_keys, load_state, load_weights, zero_parameters

__all__ = ["create_model", "is_file_name"]

_TORCHVISION = "torchvision/"
_REMOTE = ("hf-hub", "local-dir")
# Each of these would load weights, or code, past the checks of this module.
_RESERVED = frozenset({"checkpoint_path", "num_classes", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "weights"})


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
    fresh: list[str] = []
    if weights is not None:
        fresh = load_weights(model, Path(weights))
    elif pretrained and num_classes not in (None, _own_classes(name, kwargs)):
        fresh = classifier_keys(model)
    zero_parameters(model, fresh)
    set_source(model, replace(source, new_classifier=tuple(fresh), weights=str(weights) if weights else source.weights))
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


def _from_timm(name: str, pretrained: bool, num_classes: int | None, kwargs: dict[str, Any]) -> tuple[nn.Module, Source]:
    architecture, own = _resolve_timm(name)
    classes = {} if num_classes is None else {"num_classes": num_classes}
    if pretrained:
        model = _download(name, lambda: timm.create_model(name, pretrained=True, **classes, **kwargs))
    else:
        model = _build(name, lambda: timm.create_model(name, pretrained=False, **classes, **kwargs))
    cfg = model.pretrained_cfg
    preprocessing = _of_cfg(timm.data.resolve_data_config(pretrained_cfg=cfg)) if pretrained else _neutral(cfg)
    source = Source(
        architecture=architecture,
        model_kwargs={**own, **kwargs},
        num_classes=model.num_classes,
        preprocessing=preprocessing,
        weights=f"pretrained {name}" if pretrained else None,
    )
    return model, source


def _resolve_timm(name: str) -> tuple[str, dict[str, Any]]:
    """Return the architecture (with its tag) and the arguments that a hub or local folder adds to it."""
    try:
        scheme, rest = parse_model_name(name)
        if scheme in _REMOTE:
            return _read_folder(name, scheme, rest)
    except (ValueError, AssertionError) as error:
        raise UnsupportedModelError(_unknown(name)) from error
    if not timm.is_model(rest):
        raise UnsupportedModelError(_unknown(name))
    return rest, {}


def _read_folder(name: str, scheme: str, place: str) -> tuple[str, dict[str, Any]]:
    if scheme == "hf-hub":
        _, architecture, arguments = _download(name, lambda: load_model_config_from_hf(place))
        return architecture, dict(arguments or {})
    try:
        _, architecture, arguments = timm.models.load_model_config_from_path(place)
    except (OSError, ValueError, KeyError) as error:
        raise UnsupportedModelError(
            f"{name} can't be opened ({_first_line(error)}); a folder with config.json and model.safetensors is needed. Check the path."
        ) from error
    return architecture, dict(arguments or {})


def _from_torchvision(name: str, pretrained: bool, num_classes: int | None, kwargs: dict[str, Any]) -> tuple[nn.Module, Source]:
    short = name.removeprefix(_TORCHVISION)
    if short not in torchvision.models.list_models():
        raise UnsupportedModelError(_unknown(name))
    classes = {} if num_classes is None else {"num_classes": num_classes}
    own = torchvision.models.get_model_weights(short).DEFAULT if pretrained else None
    if own is not None and (num_classes is None or num_classes == len(own.meta["categories"])):
        model = _download(name, lambda: torchvision.models.get_model(short, weights=own, **kwargs))
    else:
        model = _build(name, lambda: torchvision.models.get_model(short, weights=None, **classes, **kwargs))
        if own is not None:
            state = _download(name, lambda: own.get_state_dict(progress=False, check_hash=True))
            load_state(model, state, name)
    source = Source(
        architecture=name,
        model_kwargs=kwargs,
        num_classes=_outputs(model),
        preprocessing=_of_transforms(own.transforms()) if own is not None else Preprocessing(),
        weights=f"pretrained {own}" if own is not None else None,
    )
    return model, source


def _from_file(name: str, pretrained: bool, num_classes: int | None, kwargs: dict[str, Any]) -> tuple[nn.Module, Source]:
    path, _, function = name.rpartition(":")
    if pretrained:
        raise ConfigError(f"{name} has no pretrained weights to download; only timm and torchvision names have. Use weights.")
    classes = {} if num_classes is None else {"num_classes": num_classes}
    model = _build(name, lambda: getattr(_import_file(Path(path)), function)(**classes, **kwargs))
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError(f"{name} returned {type(model).__name__}; an nn.Module is needed. Return the model.")
    return model, Source(architecture=name, model_kwargs=kwargs, num_classes=_outputs(model))


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise UnsupportedModelError(f"{path} is not a file; a Python file with the model's function is needed. Check the path.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _build(name: str, build: Any) -> nn.Module:
    try:
        return cast(nn.Module, build())
    except UnsupportedModelError:
        raise
    except Exception as error:  # a builder raises whatever it likes
        raise UnsupportedModelError(
            f"{name} can't be built: {type(error).__name__}: {_first_line(error)}; arguments that its builder takes are needed. "
            "Check the name and model_kwargs."
        ) from error


def _download(name: str, fetch: Any) -> Any:
    try:
        return fetch()
    except Exception as error:  # hub, urllib and hash errors share no base
        raise CheckpointError(
            f"the pretrained weights of {name} can't be had: {type(error).__name__}: {_first_line(error)}; a network connection, "
            "or weights in the cache, are needed. Try again, give a file by --weights, or use --no-pretrained."
        ) from error


def _own_classes(name: str, kwargs: Mapping[str, Any]) -> int | None:
    """Return how many classes the downloaded weights of a name know."""
    if name.startswith(_TORCHVISION):
        return len(torchvision.models.get_model_weights(name.removeprefix(_TORCHVISION)).DEFAULT.meta["categories"])
    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return None if cfg is None else cfg.num_classes


def _outputs(model: nn.Module) -> int | None:
    parameters = dict(model.named_parameters())
    shapes = [parameters[key].shape for key in classifier_keys(model)]
    return int(shapes[0][0]) if shapes else None


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
    return Preprocessing(
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
        crop_pct=round(transforms.crop_size[0] / transforms.resize_size[0], 4),
    )


def _unknown(name: str) -> str:
    known = [*timm.list_models(), *(_TORCHVISION + n for n in torchvision.models.list_models())]
    near = difflib.get_close_matches(name.split(".")[0], known, n=3)
    return (
        f"model {name} is unknown; a timm name, torchvision/NAME or file.py:function is accepted. "
        + (f"Did you mean {', '.join(near)}?" if near else "See timm.list_models().")
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
