"""SwitchableBN: one BatchNorm as S private copies, one per resolution.

A resolution between two trained ones gets the linear interpolation of their γ, β, μ, σ² (RS-Nets, Sec. 3.3);
beyond the ends the nearest set serves.
"""

import copy
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from timm.layers import FrozenBatchNormAct2d
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FrozenBatchNorm2d

from rsconvert.errors import ResolutionError, TrainingError
from rsconvert.surgery.copying import copy_modules
from rsconvert.surgery.handwritten import is_handwritten

__all__ = ["SwitchableBN", "batchnorms", "bn_sets", "interpolation_weights", "is_batchnorm"]

_FROZEN = (FrozenBatchNorm2d, FrozenBatchNormAct2d)


def is_batchnorm(module: nn.Module) -> bool:
    """Tell whether a module is a BatchNorm: 1d-3d, fused with an activation, synchronised, frozen, written by hand."""
    if isinstance(module, (_BatchNorm, *_FROZEN)):
        return True
    return not isinstance(module, SwitchableBN) and is_handwritten(module)


def batchnorms(model: nn.Module) -> dict[str, nn.Module]:
    """Return every outermost BatchNorm by its qualified names; one under two names appears under both."""
    found: dict[str, nn.Module] = {}

    def visit(module: nn.Module, name: str) -> None:
        if is_batchnorm(module):
            found[name] = module
            return
        for child_name, child in module._modules.items():
            if child is not None:
                visit(child, f"{name}.{child_name}" if name else child_name)

    visit(model, "")
    return found


class SwitchableBN(nn.Module):
    """The layer that stands where a BatchNorm stood, and owns its S sets.

    The native set's tensors are the layer's own (``bn.weight``), every other set hangs below ``at``
    (``bn.at.160.weight``). Each set is a deep copy of the source, so that its class, its activation, eps
    and momentum survive. A path of the network holds one set, found by ``bn_sets``; the layer itself runs only in the
    graph of ``to_graph``, where the weights of the sets are data.

    Args:
        bn: the source, left unchanged.
        resolutions: from the largest to the smallest; the first is native.
    """

    native: nn.Module

    def __init__(self, bn: nn.Module, resolutions: Sequence[int]) -> None:
        super().__init__()
        self.resolutions = tuple(resolutions)
        native = copy.deepcopy(bn)
        others = {str(r): copy.deepcopy(bn) for r in self.resolutions[1:]}
        # Two modules over the same dictionaries of tensors: the native set keeps the source's class,
        # this layer registers its tensors once, under the source's names.
        self.__dict__["native"] = native
        self._parameters = native._parameters
        self._buffers = native._buffers
        self._non_persistent_buffers_set = native._non_persistent_buffers_set
        self._modules = {**native._modules, "at": nn.ModuleDict(others)}
        self.training = bn.training

    def train(self, mode: bool = True) -> "SwitchableBN":
        """Set the mode of every set."""
        super().train(mode)
        self.native.train(mode)
        return self

    @property
    def sets(self) -> tuple[nn.Module, ...]:
        """The S sets in the order of ``resolutions``."""
        others = cast(nn.ModuleDict, self._modules["at"])
        return (self.native, *others.values())

    def bn_set(self, resolution: int) -> nn.Module:
        """Return the live set of a trained resolution, or a frozen snapshot interpolated for another one."""
        return bn_sets([self], resolution)[0]

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Normalize with the weighted sum of the sets, in eval mode.

        Args:
            x: what the source took, (N, C, …).
            weights: (S,), one weight per set, summing to 1.
        Raises:
            TrainingError: in train mode, where a mixture of sets has no statistics to update.
        """
        if self.training:
            raise TrainingError(
                "SwitchableBN is in train mode; with weights it runs in eval mode only. "
                "Train the paths net.at(resolution), or call eval() first."
            )
        states = [self.floating(i) for i in range(len(self.sets))]
        mixed = {name: _weighted([state[name] for state in states], weights) for name in states[0]}
        return cast(Tensor, functional_call(self.native, mixed, (x,)))

    def floating(self, place: int) -> dict[str, Tensor]:
        """Return what is interpolated of the set at a place in ``resolutions``: all of its tensors but the count."""
        return _floating_state(self.sets[place])

    def extra_repr(self) -> str:
        return f"resolutions={self.resolutions}, native={type(self.native).__name__}"


def bn_sets(layers: Sequence[SwitchableBN], resolution: int) -> list[nn.Module]:
    """Return what ``bn_set`` gives of every layer of a network, interpolated and copied in one go, for speed."""
    trained = layers[0].resolutions if layers else (resolution,)
    if resolution in trained:
        return [layer.sets[trained.index(resolution)] for layer in layers]
    weights = interpolation_weights(resolution, trained)
    near = [place for place, weight in enumerate(weights) if weight > 0]
    first, second = ([layer.sets[place] for layer in layers] for place in (near[0], near[-1]))
    return _lerp(first, second, weights[near[-1]] if len(near) == 2 else 0.0)


def interpolation_weights(resolution: float, resolutions: Sequence[int]) -> tuple[float, ...]:
    """Return the S weights of the sets at a resolution: two neighbours share 1 linearly, the rest get 0.

    >>> interpolation_weights(176, (224, 192, 160))
    (0.0, 0.5, 0.5)
    >>> interpolation_weights(300, (224, 192, 160))
    (1.0, 0.0, 0.0)

    Args:
        resolutions: trained, from the largest to the smallest.
    Raises:
        ResolutionError: ``resolution`` is not positive.
    """
    if not resolution > 0:
        raise ResolutionError(f"resolution is {resolution}; a positive number of pixels is needed. Name another one.")
    clipped = min(max(resolution, resolutions[-1]), resolutions[0])
    weights = [0.0] * len(resolutions)
    for i, (upper, lower) in enumerate(itertools.pairwise(resolutions)):
        if lower <= clipped <= upper:
            weights[i] = (clipped - lower) / (upper - lower)
            weights[i + 1] = 1.0 - weights[i]
            return tuple(weights)
    return (1.0,)


def _floating_state(bn: nn.Module) -> dict[str, Tensor]:
    tensors = {**dict(bn.named_parameters()), **dict(bn.named_buffers())}
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}


def _weighted(tensors: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Sum elementwise: a matrix product would round γ, β, μ, σ² under autocast and TF32."""
    stacked = torch.stack(list(tensors))
    return (stacked * weights.to(stacked.dtype).view(-1, *[1] * tensors[0].ndim)).sum(0)


@torch.no_grad()
def _lerp(first: Sequence[nn.Module], second: Sequence[nn.Module], weight: float) -> list[nn.Module]:
    """Return frozen copies of ``first`` moved towards ``second``; equal sets give equal bits."""
    starts, ends = list(_tensors(first)), list(_tensors(second))
    pairs = [(start, end) for start, end in zip(starts, ends, strict=True) if start.is_floating_point()]
    targets = [end if end.dtype == start.dtype else end.to(start.dtype) for start, end in pairs]
    # One call for all: a call for each of some hundred small tensors takes longer than its sums.
    mixed = iter(torch._foreach_lerp([start for start, _ in pairs], targets, weight) if pairs else ())
    memo: dict[int, Any] = {}
    for start in starts:
        new = next(mixed) if start.is_floating_point() else start.clone()
        memo[id(start)] = nn.Parameter(new, requires_grad=False) if isinstance(start, nn.Parameter) else new
    copies = cast(nn.ModuleList, copy_modules(nn.ModuleList(first), memo))
    # Not where it changes nothing: to set a module's mode takes its time.
    return [bn.eval() if any(module.training for module in bn.modules()) else bn for bn in copies]


def _tensors(sets: Sequence[nn.Module]) -> Iterator[Tensor]:
    for module in itertools.chain.from_iterable(bn.modules() for bn in sets):
        yield from (t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None)
