"""Checkpoints of the paper's public release, https://github.com/yikaiw/RS-Nets, as switchable networks.

There a layer with shared weights is ``conv1.module``, the BatchNorm of the i-th size of the training command is
``bn1.bn_i`` (224, 192, 160, 128, 96 in all its commands: the largest first), the scores are ``alpha``, and DataParallel
puts ``module.`` ahead of every name. Images are numbers in [0, 1], not normalised.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rsconvert.checkpoint.tensors import fill
from rsconvert.data import Preprocessing
from rsconvert.errors import CheckpointError, ResolutionError, UnsupportedModelError, first_line
from rsconvert.surgery import SwitchableModel

__all__ = ["fill_from_rsnets"]

_NAMES = {
    "parallel_resnet18": "torchvision/resnet18",
    "parallel_resnet34": "torchvision/resnet34",
    "parallel_resnet50": "torchvision/resnet50",
    "parallel_resnet101": "torchvision/resnet101",
    "parallel_resnet152": "torchvision/resnet152",
    "parallel_resnext50_32x4d": "torchvision/resnext50_32x4d",
    "parallel_resnext101_32x8d": "torchvision/resnext101_32x8d",
    "parallel_mobilenetv2": "torchvision/mobilenet_v2",
}
# The layers of a block of MobileNetV2: there one flat list with activations, here nested; the first block is shorter.
_FIRST_BLOCK = {"0": "0.0", "1": "0.1", "3": "1", "4": "2"}
_BLOCK = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"}
_PREPROCESSING = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def fill_from_rsnets(net: SwitchableModel, path: str | Path) -> None:
    """Fill a network with the values of a checkpoint of the release: shared weights, every BN set, alpha.

    It takes the release's preprocessing too: no normalisation, bilinear, crop_pct 0.875.

    Args:
        net: converted from torchvision's ``resnet18``, ``resnet50`` or ``mobilenet_v2``, or a relative of them that the
            release trains, with as many resolutions as the file has sets; the first is that of the largest.
        path: a file that the release's training wrote, read without running code in it.
    Raises:
        UnsupportedModelError: the network is another one than the file's.
        ResolutionError: the file holds another number of sets.
        CheckpointError: the file can't be read, or holds other tensors than the network.
    """
    name = net.source.architecture
    if name not in _NAMES.values():
        raise UnsupportedModelError(
            f"{path} is to be read into {name or 'a network without a name'}; the release trains "
            f"{', '.join(_NAMES.values())}. Convert one of them."
        )
    held = _read(Path(path))
    arch = held.get("arch")
    if isinstance(arch, str) and _NAMES.get(arch) != name:
        raise UnsupportedModelError(
            f"{path} holds {arch}, not {name}; the same network is needed. Convert {_NAMES.get(arch, 'that one')}."
        )
    state = _state(held, path)
    _check_sets(net, state, path)
    tensors = {_renamed(key, net): tensor for key, tensor in state.items()}
    counters = {k: v for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")}
    fill(net, counters | tensors, str(path))
    net.source = replace(net.source, weights=str(path), preprocessing=_PREPROCESSING, new_classifier=())


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file; a checkpoint of the RS-Nets release is needed. Check the path.")
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle and zip errors share no base
        raise CheckpointError(
            f"{path} can't be read ({first_line(error)}); a torch file of tensors and plain values alone is opened. "
            "Give another file."
        ) from error
    if not isinstance(held, dict):
        raise CheckpointError(f"{path} holds a {type(held).__name__}; a checkpoint is a dict. Give another file.")
    return held


def _state(held: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """Return the tensors by the release's names, without DataParallel's prefix."""
    state = held.get("state_dict", held)
    tensors = isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())
    if not tensors or not state:
        raise CheckpointError(
            f"{path} holds no tensors by name; the state_dict of a network is needed. Check the file."
        )
    wrapped = all(key.startswith("module.") for key in state)
    return {key.removeprefix("module.") if wrapped else key: value for key, value in state.items()}


def _check_sets(net: SwitchableModel, state: Mapping[str, Tensor], path: str | Path) -> None:
    sets = {int(found[1]) for key in state if (found := re.search(r"\.bn_(\d+)\.", key))}
    if not sets:
        raise CheckpointError(
            f"{path} has no tensor such as bn1.bn_0.weight, so it is no network of the RS-Nets release. "
            "A plain network is read by --weights."
        )
    if sets != set(range(len(net.resolutions))):
        raise ResolutionError(
            f"{path} holds {len(sets)} BN sets and resolutions are {net.resolutions}; one for each set is needed, "
            "from the largest. Name those that the file was trained at."
        )


def _renamed(key: str, net: SwitchableModel) -> str:
    """Return the name of a tensor in the switchable network."""
    if key == "alpha":
        return "rsconvert.alpha"
    owner, _, tensor = key.rpartition(".")
    own, _, last = owner.rpartition(".")
    if not own or (last != "module" and not re.fullmatch(r"bn_\d+", last)):
        return key
    if net.source.architecture == _NAMES["parallel_mobilenetv2"]:
        own = _renamed_mobilenet(own)
    place = 0 if last == "module" else int(last.removeprefix("bn_"))
    return f"{own}.{tensor}" if place == 0 else f"{own}.at.{net.resolutions[place]}.{tensor}"


def _renamed_mobilenet(owner: str) -> str:
    """Return torchvision's name of a layer: its blocks are nested, its last convolution counts among the features."""
    if owner == "classifier":
        return "classifier.1"
    if last := re.fullmatch(r"conv\.(\d+)", owner):
        return f"features.18.{last[1]}"
    block = re.fullmatch(r"features\.(\d+)\.conv\.(\d+)", owner)
    if block is None:
        return owner
    places = _FIRST_BLOCK if block[1] == "1" else _BLOCK
    return f"features.{block[1]}.conv.{places.get(block[2], block[2])}"
