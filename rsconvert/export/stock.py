"""Plain files of one path, for stock timm or torchvision to open strictly.

path → the stock model of the network's name, proved equal to it → file
"""

import json
from pathlib import Path
from typing import Any, cast

import torch
from timm.models._hub import save_config_for_hf  # timm.models has save_for_hf alone, which fails on tied tensors
from torch import nn

from rsconvert.checkpoint import fill, replacing, sync, write_tensors
from rsconvert.errors import CheckpointError, ResolutionError, UnsupportedModelError
from rsconvert.evaluation import crop_shares
from rsconvert.export.folder import check_folder, replacing_folder
from rsconvert.export.target import check_target
from rsconvert.models import create_model, example_arguments, example_input
from rsconvert.surgery import SwitchableModel, equal_outputs, fold_batchnorm, kwargs_at, run_trial

__all__ = ["export_timm", "export_torchvision", "stock_library", "write_timm"]

_TORCHVISION = "torchvision/"
_FILES = {"config.json", "model.safetensors"}
_SUFFIXES = (".safetensors", ".pth", ".pt")
# They tell of the weights that the architecture is published with.
_OUTDATED = ("tag", "test_input_size", "test_crop_pct", "pool_size", "test_pool_size")
_LABELS = ("label_names", "label_descriptions", "label_offset")


def export_timm(
    net: SwitchableModel, resolution: int, folder: str | Path, *, fold: bool = False, force: bool = False
) -> Path:
    """Write a path as a folder that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` opens strictly.

    It holds ``model.safetensors`` and ``config.json``: the builder's arguments, the number and names of the classes,
    the resolution and the preprocessing. The model computes what ``net.at(resolution)`` does.

    Args:
        resolution: trained or not; for an untrained one the BN tensors are interpolated, and the crop_pct is that of
            the nearest trained one.
        fold: fold each BatchNorm into the convolution beside it; timm then refuses the tensors, whose file tells how
            they are loaded, see docs/exports.md.
        force: replace an earlier export; a folder that holds anything else is never replaced.
    Raises:
        UnsupportedModelError: timm does not build this network from its name and arguments.
        CheckpointError: the folder exists, holds other files, or can't be written.
        ResolutionError: the network does not work at the resolution.
    """
    folder = Path(folder)
    check_folder(folder, _FILES, force)
    with replacing_folder(folder) as part:
        write_timm(net, resolution, part, fold=fold)
    return folder


def export_torchvision(
    net: SwitchableModel, resolution: int, path: str | Path, *, fold: bool = False, force: bool = False
) -> Path:
    """Write a path as a state_dict that the stock torchvision model loads with ``load_state_dict(strict=True)``.

    Args:
        resolution: trained or not; for an untrained one the BN tensors are interpolated.
        path: a file, ``.safetensors``, or ``.pth`` or ``.pt`` for ``torch.load``.
        fold: fold each BatchNorm into the convolution beside it; the stock model then refuses the tensors, whose file,
            ``.safetensors``, tells how they are loaded, see docs/exports.md.
        force: replace a file that exists.
    Raises:
        UnsupportedModelError: torchvision does not build this network from its name and arguments.
        CheckpointError: the suffix is another, or the file exists or can't be written.
        ResolutionError: the network does not work at the resolution.
    """
    path = Path(path)
    name = _stock_name(net, "torchvision")
    check_target(path, force, _SUFFIXES[:1] if fold else _SUFFIXES)
    stock, metadata = _stock_tensors(net, resolution, name, fold)
    if path.suffix == ".safetensors":
        write_tensors(stock.state_dict(), path, metadata)
    else:
        with replacing(path) as part:
            torch.save(dict(stock.state_dict()), part)
    return path


def write_timm(net: SwitchableModel, resolution: int, part: Path, *, fold: bool = False) -> None:
    """Write the two files of `export_timm` into a folder.

    Raises:
        UnsupportedModelError, CheckpointError, ResolutionError: as there.
        OSError, TypeError, ValueError: ``config.json`` can't be written.
    """
    stock: Any
    stock, metadata = _stock_tensors(net, resolution, _stock_name(net, "timm"), fold)
    if net.source.num_classes is None:
        raise UnsupportedModelError(
            f"{_call(net)} gives features, which no folder of timm describes; a network that is whole is needed. "
            "Save net.extract(resolution).state_dict(), or wrap without features_only."
        )
    # There the writer of any timm finds it; later ones alone take it as an argument.
    stock.pretrained_cfg = _pretrained_cfg(net, resolution, stock)
    names = net.source.class_names
    write_tensors(stock.state_dict(), part / "model.safetensors", metadata)
    labels = {} if names is None else {"label_names": list(names)}
    save_config_for_hf(stock, part / "config.json", labels, kwargs_at(net.source, resolution))
    sync(part / "config.json")


def stock_library(net: SwitchableModel) -> str:
    """Return the library that knows the network by name, ``timm`` or ``torchvision``.

    Raises:
        UnsupportedModelError: neither does.
    """
    name = net.source.architecture
    if name is None or ":" in name:
        raise UnsupportedModelError(
            f"the network was made by {name or 'code without a name'}, which neither timm nor torchvision knows; a "
            "network with a name of theirs is needed. Save net.extract(resolution).state_dict() for your own class."
        )
    return "torchvision" if name.startswith(_TORCHVISION) else "timm"


def _stock_name(net: SwitchableModel, library: str) -> str:
    own, name = stock_library(net), str(net.source.architecture)
    if own != library:
        raise UnsupportedModelError(
            f"the network is {own}'s {name}; {library} needs one of its own. Export it for {own}."
        )
    return name


def _stock_tensors(net: SwitchableModel, resolution: int, name: str, fold: bool) -> tuple[nn.Module, dict[str, str]]:
    """Return the model whose tensors are written, and the metadata that go with them."""
    stock = _stock_model(net, resolution, name)
    if not fold:
        return stock, {"format": "pt"}
    folded, report = fold_batchnorm(stock, resolution)
    return folded, {"format": "pt", "folded": json.dumps(dict(report.folded))}


def _stock_model(net: SwitchableModel, resolution: int, name: str) -> nn.Module:
    """Return the model that the library itself builds, with the path's tensors: another network may have the same keys.

    Raises:
        UnsupportedModelError: it has other tensors than the path, or computes something else.
    """
    path = net.extract(resolution).cpu().to(memory_format=torch.contiguous_format).eval()
    kwargs = kwargs_at(net.source, resolution)
    stock = create_model(name, num_classes=net.source.num_classes, model_kwargs=kwargs).eval()
    try:
        fill(stock, path.state_dict(), name)
    except CheckpointError as error:
        raise UnsupportedModelError(f"{_call(net)} builds another network: {error}") from error
    with torch.no_grad():
        wanted, got = (run_trial(model, example_arguments(model, resolution)) for model in (path, stock))
    if wanted.failure is not None:
        raise ResolutionError(
            f"resolution {resolution} does not work in {_call(net)}: {wanted.failure}; one that does is needed. "
            "Choose another one, as a rule a larger one or a multiple of 32."
        )
    if not equal_outputs(wanted.output, got.output):
        raise UnsupportedModelError(
            f"{_call(net)} computes something else than the network; the name and arguments that it was built with are "
            "needed. Give them to make_switchable as name and model_kwargs."
        )
    return stock


def _call(net: SwitchableModel) -> str:
    return f"{net.source.architecture} with model_kwargs {dict(net.source.model_kwargs)}"


def _pretrained_cfg(net: SwitchableModel, resolution: int, stock: nn.Module) -> dict[str, Any]:
    """Return timm's description of the weights and their images."""
    source, cfg = net.source, cast(dict[str, Any], stock.pretrained_cfg)
    renamed = source.class_names is not None or cfg.get("num_classes") != stock.num_classes
    kept = {key: cfg[key] for key in cfg if key not in _OUTDATED + (_LABELS if renamed else ())}
    preprocessing = source.preprocessing
    return {
        **kept,
        "num_classes": stock.num_classes,
        "input_size": (example_input(stock, resolution).shape[1], resolution, resolution),
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "interpolation": preprocessing.interpolation,
        "crop_pct": crop_shares(net.source.preprocessing, net.resolutions, [resolution])[0],
        "crop_mode": "center",
    }
