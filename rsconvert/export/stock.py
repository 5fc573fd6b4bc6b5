"""Plain files of one path, for stock timm or torchvision to open strictly.

path → the stock model of the network's name, proved equal to it → file
"""

import json
from pathlib import Path
from typing import Any, cast

import torch
from timm.models._hub import save_config_for_hf  # timm.models has save_for_hf alone, which fails on tied tensors
from torch import nn

from rsconvert.checkpoint import fill, names_library, replacing, sync, write_tensors
from rsconvert.data import crop_shares
from rsconvert.errors import CheckpointError, ResolutionError, UnsupportedModelError
from rsconvert.models import SMP, TORCHVISION, create_model, example_arguments, example_input
from rsconvert.quantization import dequantize_
from rsconvert.surgery import FoldReport, SwitchableModel, equal_outputs, fold_batchnorm, kwargs_at, run_trial

__all__ = ["TIMM_FILES", "stock_library", "write_timm", "write_torchvision"]

TIMM_FILES = ("config.json", "model.safetensors")
# About the weights that the architecture is published with.
_OUTDATED = ("tag", "test_input_size", "test_crop_pct", "pool_size", "test_pool_size")
_LABELS = ("label_names", "label_descriptions", "label_offset")


def write_timm(net: SwitchableModel, resolution: int, folder: Path, *, fold: bool = False) -> FoldReport | None:
    """Write the two files of `export_timm` into a folder; return what was folded.

    Raises:
        OSError, TypeError, ValueError: ``config.json`` can't be written; all else is as there.
    """
    stock, metadata, report = _stock(net, resolution, "timm", fold)
    if net.source.num_classes is None:
        raise UnsupportedModelError(
            f"{_call(net)} gives features, which no folder of timm describes; a network that is whole is needed. "
            "Save net.extract(resolution).state_dict(), or wrap without features_only."
        )
    # There the writer of any timm finds it; later ones alone take it as an argument.
    stock.pretrained_cfg = cast(Any, _pretrained_cfg(net, resolution, stock))
    write_tensors(stock.state_dict(), folder / "model.safetensors", metadata)
    labels = {} if net.source.class_names is None else {"label_names": list(net.source.class_names)}
    save_config_for_hf(stock, folder / "config.json", labels, kwargs_at(net.source, resolution))
    sync(folder / "config.json")
    return report


def write_torchvision(net: SwitchableModel, resolution: int, path: Path, *, fold: bool = False) -> FoldReport | None:
    """Write the state_dict of `export_torchvision`; return what was folded."""
    stock, metadata, report = _stock(net, resolution, "torchvision", fold)
    if path.suffix == ".safetensors":
        write_tensors(stock.state_dict(), path, metadata)
    else:
        with replacing(path) as part:
            torch.save(dict(stock.state_dict()), part)
    return report


def stock_library(net: SwitchableModel) -> str:
    """Return the library that knows the network by name, ``timm`` or ``torchvision``; raise if neither does."""
    name = net.source.architecture
    if name is None or not names_library(net.source) or name.startswith(SMP):
        raise UnsupportedModelError(
            f"the network was made by {name or 'code without a name'}, which neither timm nor torchvision knows; a "
            "network with a name of theirs is needed. Save net.extract(resolution).state_dict() for your own class."
        )
    return "torchvision" if name.startswith(TORCHVISION) else "timm"


def _stock(
    net: SwitchableModel, resolution: int, library: str, fold: bool
) -> tuple[nn.Module, dict[str, str], FoldReport | None]:
    """Return the model whose tensors are written, the metadata that go with them, and what was folded."""
    own, name = stock_library(net), str(net.source.architecture)
    if own != library:
        raise UnsupportedModelError(
            f"the network is {own}'s {name}; {library} needs one of its own. Export it for {own}."
        )
    stock = _stock_model(net, resolution, name)
    if not fold:
        return stock, {"format": "pt"}, None
    folded, report = fold_batchnorm(stock, resolution)
    return folded, {"format": "pt", "folded": json.dumps(dict(report.folded))}, report


def _stock_model(net: SwitchableModel, resolution: int, name: str) -> nn.Module:
    """Return the model that the library itself builds, with the path's tensors; keys alone prove nothing."""
    path = dequantize_(net.extract(resolution)).cpu().to(memory_format=torch.contiguous_format).eval()
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
    kept = {key: cfg[key] for key in cfg if key not in (*_OUTDATED, "license", *(_LABELS if renamed else ()))}
    return {
        **kept,
        **({} if source.licence is None else {"license": source.licence}),
        "num_classes": stock.num_classes,
        "input_size": (example_input(stock, resolution).shape[1], resolution, resolution),
        **vars(source.preprocessing),
        "crop_pct": crop_shares(source.preprocessing, net.resolutions, [resolution])[0],
        "crop_mode": "center",
    }
