"""SwitchableModel: one network, S paths over the same tensors."""

import copy
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from rsconvert.errors import ResolutionError, UnsupportedModelError
from rsconvert.surgery.bn import SwitchableBN
from rsconvert.surgery.example import example_arguments
from rsconvert.surgery.paths import copy_structure, fresh, make_path, relink, snapshot
from rsconvert.surgery.private import private_names, private_owners
from rsconvert.surgery.report import ConversionReport
from rsconvert.surgery.services import service
from rsconvert.surgery.sizes import build_like
from rsconvert.surgery.source import Source
from rsconvert.surgery.trial import run_trial

__all__ = ["SwitchableModel", "check_resolutions", "side_of"]


def check_resolutions(resolutions: Sequence[int]) -> tuple[int, ...]:
    """Return the resolutions in pixels from the largest to the smallest.

    Raises:
        ResolutionError: it is no list, is empty, or holds a repeat or something that is not a positive whole number.
    """
    if not isinstance(resolutions, Iterable):
        raise ResolutionError(
            f"resolutions is {resolutions!r}; a list of numbers of pixels is needed. Write [{resolutions}]."
        )
    given = list(resolutions)
    text = ",".join(map(str, given))
    if not given:
        raise ResolutionError(
            "resolutions is empty; at least one number of pixels is needed. Name some, such as 224,160,96."
        )
    for r in given:
        if not _is_positive(r):
            raise ResolutionError(
                f"resolutions has {r!r}: {text}; positive whole numbers of pixels are needed. Mend the list."
            )
        if given.count(r) > 1:
            raise ResolutionError(
                f"resolutions has {r} twice: {text}; each resolution needs one BN set. Remove the repeat."
            )
    return tuple(sorted(map(operator.index, given), reverse=True))


def _is_positive(number: Any) -> bool:
    """Tell whether it is a whole number above 0, be it Python's or NumPy's."""
    try:
        return not isinstance(number, bool) and operator.index(number) > 0
    except TypeError:
        return False


class SwitchableModel(nn.Module):
    """A network that runs at several resolutions, with one private BN set for each.

    ``net(x)`` takes the source's own arguments and picks the path by the size of the first image tensor: an H×W input
    counts as round(√(H·W)). ``net.at(r)`` is that path as a plain model. The tensors bear the source's names
    in ``state_dict``; ``rsconvert.alpha``, (S,), holds the scores of the ensemble, initialised to ones.
    A module can't be replaced: do that before the conversion. Only paths run: a hook, or a switch such as
    ``set_grad_checkpointing``, belongs on ``net.at(r)`` of each resolution.
    ``report`` tells what ``make_switchable`` did; None for a network out of a file.

    Args:
        skeleton: a model of the source's class, a SwitchableBN in each BatchNorm's place. The network takes it over.
        resolutions: from the largest to the smallest.
        source: what the model was made from.
        build: a function of the resolution that makes the source again for it; None if one model takes all sizes.
        built: resolution → what ``build`` gives; needed with it.
    """

    report: ConversionReport | None = None
    _skeleton: nn.Module
    _paths: dict[int, nn.Module]
    build: Callable[[int], nn.Module] | None

    def __init__(
        self,
        skeleton: nn.Module,
        resolutions: Sequence[int],
        source: Source | None = None,
        build: Callable[[int], nn.Module] | None = None,
        built: Mapping[int, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.resolutions = check_resolutions(resolutions)
        self.source = source or Source()
        # The root stands in for the skeleton's root, over the same dictionaries: keys stay those of the source.
        self._parameters = skeleton._parameters
        self._buffers = skeleton._buffers
        self._non_persistent_buffers_set = skeleton._non_persistent_buffers_set
        scores = nn.ParameterDict({"alpha": nn.Parameter(torch.ones(len(self.resolutions), device=_device(skeleton)))})
        self._modules = {**skeleton._modules, "rsconvert": scores}
        # Outside the registry, for their tensors are registered already.
        self.__dict__["_skeleton"] = skeleton
        self.__dict__["build"] = build
        trees = built or dict.fromkeys(self.resolutions, skeleton)
        self.__dict__["_paths"] = {r: make_path(skeleton, trees[r], r, self.resolutions) for r in self.resolutions}
        # Not by train(): a source may hold some of its modules in eval mode, frozen BatchNorms for one.
        self.training = skeleton.training

    def __deepcopy__(self, memo: dict[int, Any]) -> "SwitchableModel":
        new = memo[id(self)] = self.__class__.__new__(self.__class__)
        for path in self._paths.values():
            memo |= fresh(path)
        new.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return new

    def __getattr__(self, name: str) -> Any:
        """Return what the source offers under a name, where that makes sense for a network; see services.py."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            paths = self.__dict__.get("_paths", {})
            return service(name, paths, lambda args, kwargs: self._path_for(side_of(args, kwargs)))

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Module) and name in self.__dict__.get("_modules", {}):
            raise UnsupportedModelError(
                f"{name} is set on a switchable network, whose paths would go on with the old one; a plain model takes "
                "new modules. Change the model before make_switchable, or net.extract(resolution)."
            )
        super().__setattr__(name, value)

    @property
    def alpha(self) -> nn.Parameter:
        """The learnt scores, (S,); softmax(alpha) weighs the paths in the ensemble."""
        return cast(nn.Parameter, cast(nn.ParameterDict, self._modules["rsconvert"])["alpha"])

    @property
    def native(self) -> int:
        """The largest trained resolution in pixels."""
        return self.resolutions[0]

    def train(self, mode: bool = True) -> "SwitchableModel":
        """Set the mode of every path, each by the source's own ``train``."""
        super().train(mode)
        for path in self._paths.values():
            path.train(mode)
        return self

    def at(self, resolution: int) -> nn.Module:
        """Return the path of a resolution: a model of the source's class, with the source's keys.

        At a trained resolution it is live: every tensor is the network's own. At another one the BN tensors are a
        snapshot, interpolated at the call, over the shared weights; it runs in eval mode only.

        Raises:
            ResolutionError: ``resolution`` is not a positive whole number.
        """
        path = self._paths.get(resolution)
        if path is not None:
            return path
        check_resolutions([resolution])
        return snapshot(self._skeleton, self._built(resolution), resolution, self.resolutions)

    def extract(self, resolution: int) -> nn.Module:
        """Return an independent plain model for a resolution, trained or not: it shares no tensor with the network.

        Raises:
            ResolutionError: ``resolution`` is not a positive whole number.
        """
        check_resolutions([resolution])
        live = self._paths.get(resolution)
        if live is None:
            live = make_path(self._skeleton, self._built(resolution), resolution, self.resolutions).eval()
        plain = copy.deepcopy(live, fresh(live))
        # A snapshot is frozen; what is taken out can be trained as the source could.
        for parameter, native in zip(plain.parameters(), self._paths[self.native].parameters(), strict=True):
            parameter.requires_grad_(parameter.requires_grad or native.requires_grad)
        return plain

    def skeleton(self) -> nn.Module:
        """Return a model of the source's class over the network's tensors, a SwitchableBN in each BatchNorm's place."""
        return copy_structure(self._skeleton)

    def switchable_bns(self, *, every_name: bool = False) -> Iterator[tuple[str, SwitchableBN]]:
        """Yield each SwitchableBN with its name; once, or under every name that it has."""
        modules = self._skeleton.named_modules(remove_duplicate=not every_name)
        yield from ((name, m) for name, m in modules if isinstance(m, SwitchableBN))

    def private_beside(self) -> list[str]:
        """Return the names of the private tensors that no BatchNorm owns: position tables, F.batch_norm's own."""
        found = private_owners(self._skeleton).items()
        return [f"{name}.{key}".lstrip(".") for name, owner in found for key in private_names(owner)]

    def forward(self, *args: Any, views: Sequence[Tensor] | None = None, **kwargs: Any) -> Any:
        """Run the path that fits the input; or, given ``views``, path i on view i, for training.

        Args:
            views: S tensors (N, C, H, W), from the largest to the smallest resolution; view i meets set i by position.
        Returns:
            What the source returns; for ``views`` a list of S of it.
        Raises:
            ResolutionError: the number of views is not S; no argument is an image; the size is untrained in train mode.
        """
        if views is None:
            return self._path_for(side_of(args, kwargs))(*args, **kwargs)
        if args or kwargs or len(views) != len(self.resolutions):
            raise ResolutionError(
                f"views has {len(views)} tensors; {len(self.resolutions)} and no other argument are needed, "
                f"one view for each of {self.resolutions}. Pass one view per resolution."
            )
        return [path(view) for path, view in zip(self._paths.values(), views, strict=True)]

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "SwitchableModel":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it so
        self._relink()
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load as any module does; with ``assign``, every path sees the new tensors."""
        result = super().load_state_dict(state_dict, strict, assign)
        self._relink()
        return result

    def _relink(self) -> None:
        for resolution, path in self._paths.items():
            relink(self._skeleton, path, resolution, self.resolutions)

    def _built(self, resolution: int) -> nn.Module:
        """Return the source as built for a resolution: the skeleton itself if one model takes all sizes."""
        if self.build is None:
            return self._skeleton
        built = build_like(self.build, self._paths[self.native], resolution)
        failure = run_trial(built.eval(), example_arguments(built, resolution)).failure
        if failure is not None:
            raise ResolutionError(
                f"resolution {resolution} does not work: {failure}; a size that every layer can take is needed. "
                f"Choose another one; trained are {self.resolutions}."
            )
        return built

    def _path_for(self, resolution: int) -> nn.Module:
        if resolution not in self._paths and self.training:
            raise ResolutionError(
                f"the input's size is {resolution}, which has no BN set to train; trained are {self.resolutions}. "
                "Resize the input, or call eval() to interpolate."
            )
        return self.at(resolution)


def side_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Return round(√(H·W)) of the first tensor that can be an image.

    Raises:
        ResolutionError: there is none.
    """
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.ndim >= 3:
            height, width = value.shape[-2:]
            return int(height) if height == width else round(math.sqrt(height * width))
    raise ResolutionError(
        "the input holds no tensor (…, H, W) that tells the resolution; an image tensor is needed. "
        "Choose the path yourself: net.at(resolution)(…)."
    )


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
