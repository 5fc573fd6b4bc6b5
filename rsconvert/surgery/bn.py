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

from rsconvert.errors import ResolutionError, TrainingError, UnsupportedModelError
from rsconvert.surgery.children import Children, PrivateTensorError, hooked_on
from rsconvert.surgery.copying import copy_modules, hook_registries
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

    The native set's tensors bear the source's names (``bn.weight``), every other set hangs below ``at``
    (``bn.at.160.weight``). Each set is a deep copy of the source, so that its class, its activation, eps
    and momentum survive. A walk over the modules meets all sets, the native one as ``bn.native``. What is set on the
    layer itself (a mode, a hook, ``momentum``) is set on every set; a tensor of one set is reached through that set.
    A path holds one set, found by ``bn_sets``; the layer itself runs only in the
    graph of ``to_graph``, where the weights of the sets are data.

    Args:
        bn: the source, left unchanged.
        resolutions: from the largest to the smallest; the first is native.
    """

    native: nn.Module
    resolutions: tuple[int, ...]

    def __init__(self, bn: nn.Module, resolutions: Sequence[int]) -> None:
        super().__init__()
        self._hold(tuple(resolutions), [copy_modules(bn, {}) for _ in resolutions])

    def _hold(self, resolutions: tuple[int, ...], sets: Sequence[nn.Module]) -> None:
        native, *others = sets
        at = nn.ModuleDict()
        at.__dict__["_modules"] = Children(dict(zip(map(str, resolutions[1:]), others, strict=True)), self._swap)
        del self.__dict__["training"]  # its sets have it
        self.__dict__.update(resolutions=resolutions, _parents=[], _loading=False)
        self._take(native)
        self.__dict__["_modules"] = Children({**native._modules, "at": at}, self._refuse_child)

    def _take(self, native: nn.Module) -> None:
        """Register the tensors of a native set, under the source's names: its dictionaries are the layer's own."""
        self.__dict__["native"] = native
        for name in ("_parameters", "_buffers", "_non_persistent_buffers_set"):
            self.__dict__[name] = getattr(native, name)

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_modules", ()):
            return self.__dict__["_modules"][name]
        native = self.__dict__.get("native")
        if native is None or name.startswith("__"):
            raise AttributeError(f"'SwitchableBN' object has no attribute '{name}'")
        value = getattr(native, name)
        if callable(value) or isinstance(value, Tensor):
            raise PrivateTensorError(
                f"{name} is asked of a SwitchableBN, which has one per resolution; that of one set is at hand. "
                f"Use bn.bn_set(resolution).{name}, or go through bn.sets."
            )
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, (Tensor, nn.Module)) or name in self._parameters or name in self._buffers:
            if self._loading:
                return super().__setattr__(name, value)
            sharded = type(getattr(value, "data", None)).__name__ == "DTensor"
            raise UnsupportedModelError(
                f"{name} is set on a SwitchableBN, which has one per resolution; a set takes it. "
                + ("FSDP can't shard it: use DistributedDataParallel." if sharded else "Set it on each of bn.sets.")
            )
        for bn in self.sets:
            setattr(bn, name, value)
        return None

    def __deepcopy__(self, memo: dict[int, Any]) -> "SwitchableBN":
        return _layer(self.resolutions, [copy.deepcopy(bn, memo) for bn in self.sets])

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _layer, (self.resolutions, list(self.sets))

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the children, and every set among them."""
        yield "native", self.native
        yield from super().named_children()

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Yield every module inside by name; the native set once, for its tensors bear the layer's name already."""
        memo = set() if memo is None else memo
        yield from super().named_modules(memo, prefix, remove_duplicate)
        if remove_duplicate:
            yield from self.native.named_modules(memo, f"{prefix}.native" if prefix else "native")

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Put a module in the place of the native set; see ``at`` for the others."""
        if name == "native":
            self._swap(str(self.resolutions[0]), module)
        else:
            super().add_module(name, module)

    def train(self, mode: bool = True) -> "SwitchableBN":
        """Set the mode of every set."""
        self.native.train(mode)
        self._modules["at"].train(mode)  # type: ignore[union-attr]  # a ModuleDict
        return self

    def register_forward_hook(self, hook: Any, **options: Any) -> Any:
        """Register a hook on every set."""
        return hooked_on(self.sets, "register_forward_hook", hook, options)

    def register_forward_pre_hook(self, hook: Any, **options: Any) -> Any:
        """Register a hook on every set."""
        return hooked_on(self.sets, "register_forward_pre_hook", hook, options)

    def register_backward_hook(self, hook: Any) -> Any:
        """Register a hook on every set."""
        return hooked_on(self.sets, "register_backward_hook", hook, {})

    def register_full_backward_hook(self, hook: Any, prepend: bool = False) -> Any:
        """Register a hook on every set."""
        return hooked_on(self.sets, "register_full_backward_hook", hook, {"prepend": prepend})

    def register_full_backward_pre_hook(self, hook: Any, prepend: bool = False) -> Any:
        """Register a hook on every set."""
        return hooked_on(self.sets, "register_full_backward_pre_hook", hook, {"prepend": prepend})

    @property
    def sets(self) -> tuple[nn.Module, ...]:
        """The S sets in the order of ``resolutions``."""
        others = cast(nn.ModuleDict, self._modules["at"])
        return (self.native, *others.values())

    def bn_set(self, resolution: int) -> nn.Module:
        """Return the live set of a trained resolution, or a frozen snapshot interpolated for another one."""
        return bn_sets([self], resolution)[0]

    def forward(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Normalize with the weighted sum of the sets, in eval mode.

        Args:
            x: what the source took, (N, C, …).
            weights: (S,), one weight per set, summing to 1.
        Raises:
            ResolutionError: without weights, since nothing chooses a set.
            TrainingError: in train mode, where a mixture of sets has no statistics to update.
        """
        if weights is None:
            raise ResolutionError(
                "a SwitchableBN is run, which has one set per resolution; a path runs one of them. "
                "Call net.at(resolution), or a module of it."
            )
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

    def _apply(self, fn: Any, recurse: bool = True) -> "SwitchableBN":
        for bn in self.sets if recurse else (self.native,):
            bn._apply(fn)  # type: ignore[no-untyped-call]  # torch leaves it so
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.__dict__["_loading"] = True
        try:
            super()._load_from_state_dict(*args, **kwargs)
        finally:
            self.__dict__["_loading"] = False

    def _swap(self, resolution: str, new: nn.Module | None) -> None:
        """Put another BatchNorm in the place of a set, here and in its path."""
        place = self.resolutions.index(int(resolution)) if resolution.isdigit() else len(self.resolutions)
        old = self.sets[place] if place < len(self.sets) else None
        if new is old and new is not None:
            return
        if old is None or new is None or not is_batchnorm(new) or _shapes(new) != _shapes(old):
            raise UnsupportedModelError(
                f"the BN set of {resolution} would become {type(new).__name__}; a BatchNorm of as many channels, for a "
                f"resolution among {self.resolutions}, is accepted. Change the model before make_switchable."
            )
        if place == 0:
            self._take(new)
            dict.update(self._modules, new._modules)
        for parent, name in self._parents:
            parent.put(place, name, new)

    def _refuse_child(self, name: str, new: nn.Module | None) -> None:
        if new is not self._modules.get(name):
            raise UnsupportedModelError(
                f"{name} is set on a SwitchableBN, which has one per resolution; a set takes it. "
                "Set it on each of bn.sets."
            )


def _layer(resolutions: tuple[int, ...], sets: Sequence[nn.Module]) -> SwitchableBN:
    """Return the layer over sets that are there."""
    layer = object.__new__(SwitchableBN)
    nn.Module.__init__(layer)
    layer._hold(resolutions, sets)
    return layer


def _shapes(bn: nn.Module) -> set[torch.Size]:
    tensors = (*bn._parameters.values(), *bn._buffers.values())
    return {tensor.shape for tensor in tensors if tensor is not None and tensor.ndim}


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
    # A hook on a set belongs to what stands for it between two resolutions too.
    memo: dict[int, Any] = {
        id(hooks): hooks for bn in first for m in nn.Module.modules(bn) for hooks in hook_registries(m)
    }
    for start in starts:
        new = next(mixed) if start.is_floating_point() else start.clone()
        memo[id(start)] = nn.Parameter(new, requires_grad=False) if isinstance(start, nn.Parameter) else new
    copies = cast(nn.ModuleList, copy_modules(nn.ModuleList(first), memo))
    # Not where it changes nothing: to set a module's mode takes its time.
    return [bn.eval() if any(module.training for module in nn.Module.modules(bn)) else bn for bn in copies]


def _tensors(sets: Sequence[nn.Module]) -> Iterator[Tensor]:
    for module in itertools.chain.from_iterable(nn.Module.modules(bn) for bn in sets):
        yield from (t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None)
