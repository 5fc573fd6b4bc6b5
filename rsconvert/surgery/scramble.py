"""Values for a proof: drawn anew for every set, so that no mistake hides behind equal or zero tensors.

A fresh network hides mistakes: timm zero-initialises the last γ of a block, statistics start at (0, 1), all sets are
equal.
"""

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rsconvert.surgery.network import batchnorms

__all__ = ["fill_zeros", "scrambled", "tensors", "write"]


def scrambled(model: nn.Module, resolution: int, functional: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """Return new values for every BatchNorm tensor by name, different for each resolution.

    Values vary around the given ones, so that a pretrained network stays finite through all its layers.

    Args:
        functional: further tensors that serve as those of a BatchNorm → their part in it, such as ``running_var``.
    """
    parts = dict(functional or {})
    for name, bn in batchnorms(model).items():
        own = (*bn.named_parameters(), *bn.named_buffers())
        parts |= {f"{name}.{key}".lstrip("."): key for key, _ in own}
    given = tensors(model)
    return {
        name: _scramble(name, part, given[name], resolution)
        for name, part in parts.items()
        if given[name].is_floating_point()
    }


def fill_zeros(model: nn.Module) -> dict[str, Tensor]:
    """Return values for the parameters that are zero throughout (a new classifier, say): they hide every error."""
    return {
        name: (0.05 * torch.randn(parameter.shape, generator=_generator(name))).to(parameter)
        for name, parameter in model.named_parameters()
        if not parameter.any()
    }


@torch.no_grad()
def write(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy values into the tensors of those names."""
    own = tensors(model)
    for name, value in values.items():
        own[name].copy_(value)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer under all of its names."""
    return dict((*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)))


def _scramble(name: str, part: str, tensor: Tensor, resolution: int) -> Tensor:
    factor = (0.7 + 0.6 * torch.rand(tensor.shape, generator=_generator(f"{name}@{resolution}"))).to(tensor)
    shift = (0.1 * torch.randn(tensor.shape, generator=_generator(f"{name}#{resolution}"))).to(tensor)
    return tensor * factor if part == "running_var" else torch.where(tensor == 0, shift, tensor * factor)


def _generator(key: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(key.encode()))
