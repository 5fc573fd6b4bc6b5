"""Checkpoints of the paper's public release, https://github.com/yikaiw/RS-Nets, as switchable networks.

There a layer with shared weights is ``conv1.module``, the BatchNorm of the i-th size of the training command is
``bn1.bn_i`` (224, 192, 160, 128, 96 in all its commands: the largest first), the scores are ``alpha``, and DataParallel
puts ``module.`` before every name. Images are numbers in [0, 1], not normalised.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from rsconvert.checkpoint.tensors import fill
from rsconvert.data import Preprocessing
from rsconvert.errors import CheckpointError, ResolutionError, UnsupportedModelError, first_line
from rsconvert.surgery import SwitchableModel

__all__ = ["fill_from_rsnets"]

_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d")
_MOBILENET = "torchvision/mobilenet_v2"
_NAMES = {f"parallel_{name}": f"torchvision/{name}" for name in _RESNETS} | {"parallel_mobilenetv2": _MOBILENET}
# The layers of a block of MobileNetV2: there one flat list with activations, here nested; the first block is shorter.
_FIRST_BLOCK = {"0": "0.0", "1": "0.1", "3": "1", "4": "2"}
_BLOCK = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"}
_PREPROCESSING = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def fill_from_rsnets(net: SwitchableModel, path: str | Path) -> None:
    """Fill a network with the values of a checkpoint of the release: shared weights, every BN set, alpha.

    It takes the release's preprocessing too: no normalisation, bilinear, crop_pct 0.875.

    Args:
        net: converted from one of torchvision's networks that the release trains, with as many resolutions as the file
            has sets; the first is that of the largest.
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
    arch, state = _read(path)
    if arch is not None and _NAMES.get(arch) != name:
        raise UnsupportedModelError(
            f"{path} holds {arch}, not {name}; the same network is needed. Convert {_NAMES.get(arch, 'that one')}."
        )
    _check_sets(net, state, path)
    tensors = {_renamed(key, net): tensor for key, tensor in state.items()}
    counters = {k: v for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")}
    for name, head in net.switchable_heads():  # the release has one classifier for all
        own = {key: tensors.get(f"{name}.{key}") for key, _ in head.native.named_parameters()}
        tensors |= {f"{name}.at.{r}.{key}": t for r in net.resolutions[1:] for key, t in own.items() if t is not None}
    fill(net, counters | tensors, str(path))
    net.source = replace(net.source, weights=str(path), preprocessing=_PREPROCESSING, new_classifier=())


def _read(path: str | Path) -> tuple[str | None, dict[str, Tensor]]:
    """Return the release's name of the network, and its tensors without DataParallel's prefix."""
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle and zip errors share no base
        raise CheckpointError(
            f"{path} can't be read ({first_line(error)}); a checkpoint of the RS-Nets release, a torch file of tensors "
            "and plain values alone, is needed. Give another file."
        ) from error
    state = held.get("state_dict", held) if isinstance(held, dict) else held
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            f"{path} holds a {type(held).__name__} without tensors by name; the state_dict of a network is needed. "
            "Check the file."
        )
    wrapped = all(key.startswith("module.") for key in state)
    arch = held.get("arch")
    tensors = {key.removeprefix("module.") if wrapped else key: value for key, value in state.items()}
    return arch if isinstance(arch, str) else None, tensors


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
    found = re.fullmatch(r"(.+)\.(?:module|bn_(\d+))\.([^.]+)", key)
    if found is None:
        return "rsconvert.alpha" if key == "alpha" else key
    own, place, tensor = found[1], int(found[2] or 0), found[3]
    if net.source.architecture == _MOBILENET:
        own = _renamed_mobilenet(own)
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
