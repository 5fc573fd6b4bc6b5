"""The proof: on scrambled tensors, every path computes what the source computes with the same tensors.

A fresh network hides mistakes: timm zero-initialises the last γ of a block, statistics start at (0, 1), all sets are
equal. So γ, β, μ, σ² are drawn anew for every set, and parameters that are zero throughout are filled.
"""

import copy
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.space_to_depth import SpaceToDepth
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from rsconvert.errors import ResolutionError, UnsupportedModelError
from rsconvert.surgery.bn import batchnorms
from rsconvert.surgery.network import SwitchableModel

__all__ = ["example_input", "input_channels", "prove", "run_counted", "scrambled"]


@torch.no_grad()
def prove(model: nn.Module, net: SwitchableModel) -> tuple[dict[int, bool], Counter[str]]:
    """Compare each path with the source, bit for bit in eval mode, on copies with scrambled tensors.

    Args:
        model: the source.
        net: its conversion. Neither is changed.
    Returns:
        For each resolution whether the outputs are equal; and how often each BatchNorm of the source ran at most.
    Raises:
        ResolutionError: the source itself does not run at a resolution.
        UnsupportedModelError: a path runs other BatchNorms than the source, or an output proves nothing.
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
        wanted, ran = run_counted(reference, reference, resolution)
        got, ran_in_path = run_counted(candidate, candidate.at(resolution), resolution)
        _check_layers(ran, ran_in_path, resolution)
        _check_finite(wanted, resolution)
        exact[resolution] = _equal(wanted, got)
        executed |= ran
    return exact, executed


def example_input(model: nn.Module, resolution: int) -> Tensor:
    """Return a fixed random image batch (1, C, resolution, resolution) with the channels that the model takes.

    A network of 3d convolutions gets a clip of 16 frames, (1, C, 16, resolution, resolution).
    """
    channels, frames = _stem(model)
    shape = (1, channels, *frames, resolution, resolution)
    image = torch.randn(shape, generator=torch.Generator().manual_seed(resolution))
    like = next((p for p in model.parameters() if p.is_floating_point()), image)
    return image.to(like.device, like.dtype)


def input_channels(model: nn.Module) -> int:
    """Return the channels of the images that a model takes: 3 for colours, 1 for grey."""
    return _stem(model)[0]


def _stem(model: nn.Module) -> tuple[int, tuple[int, ...]]:
    """Return the channels of an image, and its frames if it is a clip, by the first convolution.

    The first for colours or grey counts: the order of registration need not be that of computation.
    """
    folded, stems = 1, []
    for module in model.modules():
        if isinstance(module, SpaceToDepth):
            folded *= module.bs**2
        elif isinstance(module, nn.PixelUnshuffle):
            folded *= module.downscale_factor**2
        elif isinstance(module, (nn.Conv2d, nn.Conv3d)):
            stems.append((module.in_channels // folded, (16,) if isinstance(module, nn.Conv3d) else ()))
    likely = [stem for stem in stems if stem[0] in (1, 3)]
    return next(iter(likely or stems), (3, ()))


def run_counted(model: nn.Module, path: nn.Module, resolution: int) -> tuple[Any, Counter[str]]:
    """Run a model on an example; return its output, and how often each BatchNorm of ``path`` ran meanwhile.

    Raises:
        ResolutionError: the model fails; the message names the innermost module.
        UnsupportedModelError: running statistics are used outside of the BatchNorms of ``path``.
    """
    watch = _Watch(path)
    try:
        with watch:
            output = model(example_input(model, resolution))
    except Exception as error:  # whatever the model's own code raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ResolutionError(
            f"resolution {resolution} does not work in {type(path).__name__}: {watch.place} fails ({reason}); a size "
            "that every layer can take is needed. Choose another one, as a rule a larger one or a multiple of 32."
        ) from error
    finally:
        watch.remove_hooks()
    if watch.stray:
        raise UnsupportedModelError(
            f"{watch.stray[0]} calls F.batch_norm on running statistics of its own; a registered BatchNorm module is "
            "needed, for only its tensors can be made private. Make it an nn.BatchNorm2d of the model."
        )
    return output, watch.calls


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


class _Watch(TorchFunctionMode):
    """Watches one forward: where it stands, which BatchNorms it runs, and who normalizes outside of them."""

    def __init__(self, path: nn.Module) -> None:
        super().__init__()
        self.root = type(path).__name__
        self.calls: Counter[str] = Counter()
        self.inside: list[str] = []
        self.stray: list[str] = []
        self.norms = batchnorms(path)
        self.statistics = {id(buffer) for bn in self.norms.values() for buffer in bn.buffers()}
        self.hooks = [bn.register_forward_hook(self._counter(name)) for name, bn in self.norms.items()]
        for name, module in path.named_modules():
            self.hooks.append(module.register_forward_pre_hook(self._opener(name)))
            self.hooks.append(module.register_forward_hook(self._close))

    @property
    def place(self) -> str:
        """The innermost module that was entered and not left."""
        return next((name for name in reversed(self.inside) if name), self.root)

    def remove_hooks(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Weight standardization calls F.batch_norm too, without running statistics.
        mean = args[1] if func is F.batch_norm and len(args) > 1 else None
        if mean is not None and id(mean) not in self.statistics and self.norms.keys().isdisjoint(self.inside):
            self.stray.append(self.place)
        return func(*args, **(kwargs or {}))

    def _counter(self, name: str) -> Callable[..., None]:
        return lambda *_: self.calls.update([name])

    def _opener(self, name: str) -> Callable[..., None]:
        return lambda *_: self.inside.append(name)

    def _close(self, *_: Any) -> None:
        self.inside.pop()


def _check_layers(ran: Counter[str], ran_in_path: Counter[str], resolution: int) -> None:
    if ran != ran_in_path:
        differing = sorted((ran - ran_in_path) + (ran_in_path - ran))
        raise UnsupportedModelError(
            f"at {resolution} the path runs other BatchNorms than the source: {', '.join(differing)}; the same are "
            "needed. The model chooses its layers by something that a copy does not share: please report it."
        )


def _check_finite(output: Any, resolution: int) -> None:
    tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    if not any(tensor.isfinite().any() for tensor in tensors):
        raise UnsupportedModelError(
            f"at {resolution} the output of the source holds no finite number; at least one is needed for a proof. "
            "Check the weights, or convert in float32."
        )


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
    leaves, others = tree_leaves(one), tree_leaves(other)
    return len(leaves) == len(others) and all(map(_equal_leaves, leaves, others))


def _equal_leaves(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor):
        return bool(one == other)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())
