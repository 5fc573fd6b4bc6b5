"""SwitchableLayer: a BatchNorm or a classifier as S private copies, one per resolution.

A resolution between two trained ones gets the linear interpolation of their tensors, of γ, β, μ, σ² (RS-Nets, Sec. 3.3)
or of weight and bias; beyond the ends the nearest set serves.
"""

import copy
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn, Self, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rsconvert.errors import ResolutionError, TrainingError, UnsupportedModelError
from rsconvert.surgery.network.copying import HOOKS, copy_all, copy_modules, hook_registries
from rsconvert.surgery.network.parts import Part, PrivateTensorError, StandIn
from rsconvert.surgery.network.recognition import is_batchnorm
from rsconvert.surgery.network.registries import Children

__all__ = ["SwitchableBN", "SwitchableHead", "SwitchableLayer", "interpolated", "interpolation_weights"]


_Layer = TypeVar("_Layer", bound="SwitchableLayer")


class SwitchableLayer(StandIn):
    """The layer that stands where a layer of the source stood, and owns its S sets.

    The native set's tensors have the source's names (``bn.weight``), every other set hangs below ``at``
    (``bn.at.160.weight``). Each set is a deep copy of the source, so that its class, its activation, eps
    and momentum survive. All sets are modules inside the layer; a tensor of one set is reached through that set.
    A path holds one set; the layer itself runs only in the graph of ``to_graph``, where the weights of the sets are
    data.

    Args:
        source: the layer, left unchanged.
        resolutions: from the largest to the smallest; the first is native.
    """

    native: nn.Module
    resolutions: tuple[int, ...]
    _parents: list[tuple[Part, str]]
    _prefix: str
    _word: str
    _wanted: str

    def __init__(self, source: nn.Module, resolutions: Sequence[int]) -> None:
        super().__init__()
        self._hold(tuple(resolutions), [copy_modules(source, _cloned(source)) for _ in resolutions])

    def _hold(self, resolutions: tuple[int, ...], sets: Sequence[nn.Module]) -> None:
        native, *others = sets
        at = nn.ModuleDict()
        at.__dict__["_modules"] = Children(dict(zip(map(str, resolutions[1:]), others, strict=True)), self._swap)
        for name in ("training", *HOOKS):  # its sets have them
            del self.__dict__[name]
        self.__dict__.update(resolutions=resolutions, _parents=[], _prefix="")
        self.__dict__["_modules"] = Children({"native": native, "at": at}, self._change_child)
        self.__dict__["_load_state_dict_post_hooks"][0] = _name_missing
        self._take(native)

    def _take(self, native: nn.Module) -> None:
        """Let the native set's tensors be found under the layer's name, as in the file."""
        for name in ("_parameters", "_buffers", "_non_persistent_buffers_set"):
            self.__dict__[name] = getattr(native, name)

    def _check_shared(self, name: str) -> None:
        if name not in self._modules:
            self._shown(name)

    def _shown(self, name: str) -> Any:
        value = getattr(self.native, name)
        if name in self.native._modules:
            return value  # which has this name in ``named_modules``
        if callable(value) or isinstance(value, Tensor):
            raise PrivateTensorError(
                f"{name} is asked of a {type(self).__name__}, which has one per resolution; that of one set is at "
                f"hand. Use net.at(resolution), or go through the sets of the layer, layer.sets."
            )
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._modules:
            self._modules[name] = value
        elif isinstance(value, (Tensor, nn.Module)) or name in self.native._parameters or name in self.native._buffers:
            self._refuse(name, value)
        else:
            for own in self.sets:
                setattr(own, name, value)

    def __delattr__(self, name: str) -> None:
        if name in self._modules or isinstance(getattr(self.native, name, None), (Tensor, nn.Module)):
            self._refuse(name)
        for own in self.sets:
            delattr(own, name)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Refuse: each set takes its own."""
        self._refuse(name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Refuse: each set takes its own."""
        self._refuse(name, tensor)

    def _refuse(self, name: str, value: Any = None) -> NoReturn:
        sharded = type(getattr(value, "data", None)).__name__ == "DTensor"
        raise UnsupportedModelError(
            f"{name} is set on a {type(self).__name__}, which has one per resolution; a set takes it. "
            + ("FSDP can't shard it: use DistributedDataParallel." if sharded else "Set it on each of layer.sets.")
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return _layer(type(self), self.resolutions, [copy.deepcopy(own, memo) for own in self.sets])

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _layer, (type(self), self.resolutions, list(self.sets))

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Yield every module inside; those of the native set once, under the layer's name."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, child in self.native._modules.items():
            if child is not None:
                yield from child.named_modules(memo, f"{prefix}.{name}".lstrip("."), remove_duplicate)
        if remove_duplicate:
            yield from self.native.named_modules(memo, f"{prefix}.native".lstrip("."))
        at = cast(nn.Module, self._modules["at"])
        yield from at.named_modules(memo, f"{prefix}.at".lstrip("."), remove_duplicate)

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """Return the tensors of all sets under the names of the file; the native ones have the layer's."""
        places = {prefix: self.native, f"{prefix}at.": cast(nn.Module, self._modules["at"])}
        for place, module in places.items():
            destination = module.state_dict(destination=destination, prefix=place, keep_vars=keep_vars)
        return destination

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        self.__dict__["_prefix"] = prefix
        for key in [key for key in state_dict if key.startswith(prefix) and not key.startswith(f"{prefix}at.")]:
            state_dict[f"{prefix}native.{key.removeprefix(prefix)}"] = state_dict.pop(key)

    def named_parameters(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Any:
        """Yield the parameters of all sets; none as the layer's alone, for those of one set are that set's."""
        own = recurse or not remove_duplicate  # a walk that keeps duplicates leaves the native set out
        return super().named_parameters(prefix, recurse, remove_duplicate) if own else iter(())

    def named_buffers(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Any:
        """Yield the buffers of all sets; none as the layer's alone."""
        own = recurse or not remove_duplicate
        return super().named_buffers(prefix, recurse, remove_duplicate) if own else iter(())

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        for module in (self.native, self._modules["at"]):
            cast(Any, module)._apply(fn)
        return self

    def train(self, mode: bool = True) -> Self:
        """Set the mode of every set."""
        self.native.train(mode)
        self._modules["at"].train(mode)  # type: ignore[union-attr]  # a ModuleDict
        return self

    @property
    def sets(self) -> tuple[nn.Module, ...]:
        """The S sets in the order of ``resolutions``."""
        others = cast(nn.ModuleDict, self._modules["at"])
        return (self.native, *others.values())

    _rs_twins = sets

    def forward(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Run with the weighted sum of the sets, in eval mode.

        Args:
            x: what the source took, (N, C, …).
            weights: (S,), one weight per set, summing to 1.
        Raises:
            ResolutionError: without weights, since nothing chooses a set.
            TrainingError: in train mode, where a mixture of sets has no statistics to update.
        """
        if weights is None:
            raise ResolutionError(
                f"a {type(self).__name__} is run, which has one set per resolution; a path runs one of them. "
                "Call net.at(resolution), or a module of it."
            )
        if self.training:
            raise TrainingError(
                f"{type(self).__name__} is in train mode; with weights it runs in eval mode only. "
                "Train the paths net.at(resolution), or call eval() first."
            )
        states = [self.floating(i) for i in range(len(self.sets))]
        mixed = {}
        for name, native in states[0].items():
            shares = weights.to(native.dtype).view(-1, *[1] * native.ndim)
            # Elementwise: a matrix product would round γ, β, μ, σ² under autocast and TF32.
            mixed[name] = (torch.stack([state[name] for state in states]) * shares).sum(0)
        return cast(Tensor, functional_call(self.native, mixed, (x,)))

    def floating(self, place: int) -> dict[str, Tensor]:
        """Return what is interpolated of the set at a place in ``resolutions``: all of its tensors but the count."""
        own = self.sets[place]
        tensors = {**dict(own.named_parameters()), **dict(own.named_buffers())}
        return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}

    def extra_repr(self) -> str:
        return f"resolutions={self.resolutions}, native={type(self.native).__name__}"

    def _rs_placed(self, parent: Part, name: str) -> None:
        self._parents.append((parent, name))

    def _swap(self, resolution: str, new: nn.Module | None) -> None:
        """Put another layer in the place of a set's, in its path."""
        place = self.resolutions.index(int(resolution)) if resolution.isdigit() else len(self.resolutions)
        old = self.sets[place] if place < len(self.sets) else None
        if new is old and new is not None:
            return
        if old is None or new is None or not self._fits(new, old) or _shapes(new) != _shapes(old):
            raise UnsupportedModelError(
                f"the {self._word} set of {resolution} would become {type(new).__name__}; {self._wanted}, for a "
                f"resolution among {self.resolutions}, is accepted. Change the model before make_switchable."
            )
        if place == 0:
            self._take(new)
        for parent, name in self._parents:
            parent._rs_put(place, name, new)

    def _fits(self, new: nn.Module, old: nn.Module) -> bool:
        """Return whether a layer of the same shapes may take the place of a set's."""
        raise NotImplementedError

    def _change_child(self, name: str, new: nn.Module | None) -> None:
        if name == "native":
            self._swap(str(self.resolutions[0]), new)
        elif new is not self._modules.get(name):
            self._refuse(name)


class SwitchableBN(SwitchableLayer):
    """A BatchNorm of S sets: what `SwitchableLayer` says, with γ, β, μ, σ² and the batch count in each."""

    _word, _wanted = "BN", "a BatchNorm of as many channels"

    def bn_set(self, resolution: int) -> nn.Module:
        """Return the live set of a trained resolution, or a frozen snapshot interpolated for another one."""
        return interpolated([self], resolution)[0]

    def _fits(self, new: nn.Module, old: nn.Module) -> bool:
        return is_batchnorm(new)


class SwitchableHead(SwitchableLayer):
    """A classifier of S sets, with a weight and a bias in each."""

    _word, _wanted = "classifier", "a layer of the same class and shapes"

    def _fits(self, new: nn.Module, old: nn.Module) -> bool:
        return type(new) is type(old)


def _name_missing(layer: SwitchableLayer, keys: Any) -> None:
    """Give missing tensors of the native set the names that they have in the file."""
    inner, prefix = f"{layer._prefix}native.", layer._prefix
    keys.missing_keys[:] = [prefix + k.removeprefix(inner) if k.startswith(inner) else k for k in keys.missing_keys]


def _cloned(layer: nn.Module) -> dict[int, Any]:
    """Return a deepcopy memo of a layer's buffers: clones take a fraction of a copied storage's time."""
    return {id(buffer): buffer.detach().clone() for buffer in layer.buffers() if type(buffer) is Tensor}


def _layer(kind: type[_Layer], resolutions: tuple[int, ...], sets: Sequence[nn.Module]) -> _Layer:
    """Return the layer over sets that are there."""
    layer = object.__new__(kind)
    nn.Module.__init__(layer)
    layer._hold(resolutions, sets)
    return layer


def _shapes(layer: nn.Module) -> set[torch.Size]:
    return {tensor.shape for tensor in _tensors([layer]) if tensor.ndim}


def interpolated(layers: Sequence[SwitchableLayer], resolution: int) -> list[nn.Module]:
    """Return each layer's set of a resolution: live at a trained one, else frozen copies, made in one go for speed."""
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
        raise ResolutionError(f"resolution is {resolution}; a positive number of pixels is needed.")
    clipped = min(max(resolution, resolutions[-1]), resolutions[0])
    weights = [0.0] * len(resolutions)
    for i, (upper, lower) in enumerate(itertools.pairwise(resolutions)):
        if lower <= clipped <= upper:
            weights[i] = (clipped - lower) / (upper - lower)
            weights[i + 1] = 1.0 - weights[i]
            return tuple(weights)
    return (1.0,)


@torch.no_grad()
def _lerp(first: Sequence[nn.Module], second: Sequence[nn.Module], weight: float) -> list[nn.Module]:
    """Return frozen copies of ``first`` moved towards ``second``; equal sets give equal bits."""
    modules = [module for own in first for module in nn.Module.modules(own)]
    others = _tensors(module for own in second for module in nn.Module.modules(own))
    starts = list(_tensors(modules))
    pairs = [(one, other) for one, other in zip(starts, others, strict=True) if one.is_floating_point()]
    targets = [other if other.dtype is one.dtype else other.to(one.dtype) for one, other in pairs]
    # One call for all: a call for each of some hundred small tensors takes longer than its sums.
    mixed = iter(torch._foreach_lerp([one for one, _ in pairs], targets, weight) if pairs else ())
    # A hook on a set also runs between two resolutions.
    memo: dict[int, Any] = {id(hooks): hooks for module in modules for hooks in hook_registries(module) if hooks}
    for start in starts:
        new = next(mixed) if start.is_floating_point() else start.clone()
        learnt = type(start) is not Tensor and isinstance(start, nn.Parameter)  # the first is quick
        memo[id(start)] = nn.Parameter(new, requires_grad=False) if learnt else new
    copies = copy_all(first, memo, detach=True)
    # Not where it changes nothing: setting a module's mode takes its time.
    return [own.eval() for own in copies] if any(module.training for module in modules) else copies


def _tensors(modules: Iterable[nn.Module]) -> Iterator[Tensor]:
    for module in modules:
        yield from (t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None)
