"""The proof: on scrambled tensors, every path computes what the source computes with the same tensors.

A fresh network hides mistakes: timm zero-initialises the last γ of a block, statistics start at (0, 1), all sets are equal.
So γ, β, μ, σ² are drawn anew for every set, and parameters that are zero throughout are filled.
"""

import copy
import zlib
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rsconvert.errors import ResolutionError, UnsupportedModelError
from rsconvert.surgery.bn import batchnorms
from rsconvert.surgery.network import SwitchableModel

__all__ = ["example_input", "prove", "run_counted", "scrambled"]


@torch.no_grad()
def prove(model: nn.Module, net: SwitchableModel) -> tuple[dict[int, bool], Counter[str]]:
    """Compare each path with the source, bit for bit in eval mode, on copies with scrambled tensors.

    Args:
        model: the source.
        net: its conversion. Neither is changed.
    Returns:
        For each resolution whether the outputs are equal; and how often each BatchNorm of the source ran.
    Raises:
        ResolutionError: the source itself does not run at a resolution.
        UnsupportedModelError: a path runs other BatchNorms than the source.
    """
    reference, candidate = copy.deepcopy(model).eval(), copy.deepcopy(net).eval()
    _fill_zeros(reference, candidate)
    private = next(net.switchable_bns(), None) is not None
    values = {r: scrambled(model, r if private else net.native) for r in net.resolutions}
    for resolution in net.resolutions:
        at = f"at.{resolution}" if private and resolution != net.native else ""
        _write(candidate, {_join(bn, at, tensor): v for (bn, tensor), v in values[resolution].items()})
    exact, executed = {}, Counter[str]()
    for resolution in net.resolutions:
        _write(reference, {_join(*key): v for key, v in values[resolution].items()})
        wanted, executed = run_counted(reference, reference, resolution)
        got, found = run_counted(candidate, candidate.at(resolution), resolution)
        if executed != found:
            raise UnsupportedModelError(
                f"at {resolution} the path runs other BatchNorms than the source: {sorted((executed - found) + (found - executed))}; "
                "the same are needed. The model chooses its layers by something a copy does not share: please report it."
            )
        exact[resolution] = _equal(wanted, got)
    return exact, executed


def example_input(model: nn.Module, resolution: int) -> Tensor:
    """Return a fixed random image batch (1, C, resolution, resolution) with the channels of the first convolution."""
    first = next((m for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd)), None)
    channels = 3 if first is None else first.in_channels
    image = torch.randn(1, channels, resolution, resolution, generator=torch.Generator().manual_seed(resolution))
    like = next((p for p in model.parameters() if p.is_floating_point()), image)
    return image.to(like.device, like.dtype)


def scrambled(model: nn.Module, resolution: int) -> dict[tuple[str, str], Tensor]:
    """Return new values for every BatchNorm tensor, keyed by (BatchNorm, tensor), different for each resolution.

    Values vary around the given ones, so that a pretrained network stays finite through all its layers.
    """
    values = {}
    for name, bn in batchnorms(model).items():
        for tensor, value in (*bn.named_parameters(), *bn.named_buffers()):
            if value.is_floating_point():
                values[name, tensor] = _scramble(f"{name}.{tensor}", value, resolution)
    return values


def _scramble(name: str, tensor: Tensor, resolution: int) -> Tensor:
    factor = (0.7 + 0.6 * torch.rand(tensor.shape, generator=_generator(f"{name}@{resolution}"))).to(tensor)
    shift = (0.1 * torch.randn(tensor.shape, generator=_generator(f"{name}#{resolution}"))).to(tensor)
    return tensor * factor if name.endswith("running_var") else torch.where(tensor == 0, shift, tensor * factor)


def _fill_zeros(reference: nn.Module, candidate: nn.Module) -> None:
    """Fill parameters that are zero throughout (a new classifier, say): behind them every error is invisible."""
    for name, parameter in reference.named_parameters():
        if not parameter.any():
            value = (0.05 * torch.randn(parameter.shape, generator=_generator(name))).to(parameter)
            _write(reference, {name: value})
            _write(candidate, {name: value})


def run_counted(model: nn.Module, path: nn.Module, resolution: int) -> tuple[Any, Counter[str]]:
    """Run a model on an example; return its output, and how often each BatchNorm of ``path`` ran meanwhile.

    Raises:
        ResolutionError: the model fails; the message names the innermost module.
    """
    calls: Counter[str] = Counter()
    inside: list[str] = []
    hooks = [bn.register_forward_hook(lambda *_, name=name: calls.update([name])) for name, bn in batchnorms(path).items()]
    for name, module in path.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: inside.append(name)))
        hooks.append(module.register_forward_hook(lambda *_: [None, inside.pop()][0]))
    try:
        return model(example_input(model, resolution)), calls
    except Exception as error:  # whatever the model's own code raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ResolutionError(
            f"resolution {resolution} does not work in {type(path).__name__}: {inside[-1] if inside else ''} fails "
            f"({reason}). Choose another resolution, as a rule a larger one or a multiple of 32."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()


def _write(model: nn.Module, values: dict[str, Tensor]) -> None:
    tensors = dict((*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)))
    for name, value in values.items():
        tensors[name].copy_(value)


def _join(*parts: str) -> str:
    return ".".join(filter(None, parts))


def _generator(key: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(key.encode()))


def _equal(one: Any, other: Any) -> bool:
    """Compare nested outputs bit for bit; a NaN equals itself."""
    pairs = zip(tree_leaves(one), tree_leaves(other), strict=True)
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) if isinstance(a, Tensor) else a == b for a, b in pairs)
