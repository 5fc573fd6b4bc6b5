"""SwitchableModel: one network, S paths over the same tensors."""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from rsconvert.errors import ResolutionError, UnsupportedModelError
from rsconvert.surgery.bn import SwitchableBN, batchnorms
from rsconvert.surgery.copying import copy_modules, fresh
from rsconvert.surgery.measured import MeasuredAttribute
from rsconvert.surgery.paths import copy_model, copy_structure, make_path, relink, snapshot
from rsconvert.surgery.private import add_private_sets, by_owner, private_names, private_owners, size_dependent
from rsconvert.surgery.report import ConversionReport
from rsconvert.surgery.resolutions import check_resolutions, side_of
from rsconvert.surgery.services import service
from rsconvert.surgery.sizes import Build, build_like, build_with_classifier
from rsconvert.zoo.building import check_num_classes, first_line
from rsconvert.zoo.classifier import replace_classifier
from rsconvert.zoo.source import Source, source_of

__all__ = ["SwitchableModel", "assemble", "regroup"]


class SwitchableModel(nn.Module):
    """A network that runs at several resolutions, with one private BN set for each.

    ``net(x)`` takes the source's own arguments and picks the path by the size of the first image tensor: an H×W input
    counts as round(√(H·W)). ``net.at(r)`` is that path as a plain model. The tensors bear the source's names
    in ``state_dict``; ``rsconvert.alpha``, (S,), holds the scores of the ensemble, initialised to ones.
    A module can't be replaced, but for the classifier: do that before the conversion. Only paths run: a hook belongs
    on ``net.at(r)`` of each resolution. What else the source offers, such as ``forward_features``, the network offers
    where it can choose the path, or where all paths agree.
    ``report`` tells what ``make_switchable`` did; None for a network out of a file.

    Args:
        skeleton: a model of the source's class, a SwitchableBN in each BatchNorm's place. The network takes it over.
        resolutions: from the largest to the smallest.
        source: what the model was made from.
        build: a function of the resolution that makes the source again for it; None if one model takes all sizes.
        built: resolution → what ``build`` gives; needed with it.
        private: whether each resolution has a BN set of its own.
    """

    measured = MeasuredAttribute()
    report: ConversionReport | None = None
    _skeleton: nn.Module
    _paths: dict[int, nn.Module]
    build: Build | None

    def __init__(
        self,
        skeleton: nn.Module,
        resolutions: Sequence[int],
        source: Source | None = None,
        build: Build | None = None,
        built: Mapping[int, nn.Module] | None = None,
        private: bool = True,
    ) -> None:
        super().__init__()
        self.private = private
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
        own = name in self.__dict__ or hasattr(type(self), name)
        if not own and hasattr(self.__dict__.get("_skeleton"), name):
            raise UnsupportedModelError(
                f"{name} is set on a switchable network, whose paths would go on with their own; each path takes it. "
                "Set it on net.at(resolution) of each resolution."
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
            ResolutionError: ``resolution`` is not a positive whole number, or the source can't be built for it.
        """
        path = self._paths.get(resolution)
        if path is not None:
            return path
        check_resolutions([resolution])
        return snapshot(self._skeleton, self._built(resolution), resolution, self.resolutions)

    def extract(self, resolution: int) -> nn.Module:
        """Return an independent plain model for a resolution, trained or not: it shares no tensor with the network.

        Raises:
            ResolutionError: ``resolution`` is not a positive whole number, or the source can't be built for it.
        """
        check_resolutions([resolution])
        live = self._paths.get(resolution)
        if live is None:
            live = make_path(self._skeleton, self._built(resolution), resolution, self.resolutions)
        plain = copy_modules(live, {})
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

    def reset_classifier(self, num_classes: int) -> None:
        """Give all paths one new classifier by the source's own method; it starts at zero.

        Every tensor of the network is another one afterwards: take paths and make optimizers after it. If the network
        was made with ``build=``, its file needs a ``build=`` for the new number of classes.

        Args:
            num_classes: 0 leaves the network without a classifier.
        Raises:
            AttributeError: the source has no such method.
            ConfigError: ``num_classes`` is negative or no whole number.
        """
        check_num_classes(num_classes)
        paths = {resolution: self.extract(resolution) for resolution in self.resolutions}
        for plain in paths.values():
            keys = replace_classifier(plain, num_classes)
        new = regroup(self, paths)
        new.alpha.data.copy_(self.alpha)
        kwargs = {k: num_classes if k == "num_classes" else value for k, value in self.source.model_kwargs.items()}
        facts: dict[str, Any] = {"num_classes": num_classes, "model_kwargs": kwargs, "new_classifier": tuple(keys)}
        new.source = replace(self.source, **facts, class_names=None)
        if self.build is not None:
            new.build = partial(build_with_classifier, self.build, num_classes)
        self.__dict__.update({**new.__dict__, "report": None})

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
            return self._run(side_of(args, kwargs), args, kwargs)
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
        return build_like(self.build, self._paths[self.native], resolution)

    def _run(self, resolution: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        path = self._path_for(resolution)
        if self.build is None or resolution in self._paths:
            return path(*args, **kwargs)
        try:
            return path(*args, **kwargs)
        except Exception as error:  # whatever the model's own code raises
            raise ResolutionError(
                f"resolution {resolution} does not work ({type(error).__name__}: {first_line(error)}); a size that "
                f"every layer can take is needed. Choose another one; trained are {self.resolutions}."
            ) from error

    def _path_for(self, resolution: int) -> nn.Module:
        if resolution not in self._paths and self.training:
            raise ResolutionError(
                f"the input's size is {resolution}, which has no BN set to train; trained are {self.resolutions}. "
                "Resize the input, or call eval() to interpolate."
            )
        return self.at(resolution)


def assemble(
    model: nn.Module,
    resolutions: Sequence[int],
    *,
    private: bool = True,
    build: Build | None = None,
    built: Mapping[int, nn.Module] | None = None,
    beside: Collection[str] = (),
) -> SwitchableModel:
    """Swap and share without a proof; ``rsconvert.load`` fills such a network.

    Args:
        build: makes the source again for a resolution; None if one model takes all sizes.
        built: resolution → what ``build`` gives, around the tensors of ``model``.
        beside: names of further private tensors, such as those that modules hand to F.batch_norm themselves.
    Raises:
        UnsupportedModelError: the model can't be copied.
    """
    trees = built or dict.fromkeys(resolutions, model)
    base = trees[resolutions[0]]
    swaps = {id(bn): SwitchableBN(bn, resolutions) for bn in batchnorms(base).values()} if private else {}
    # A deepcopy finds every reference to a BatchNorm: two names, plain lists, bound methods.
    skeleton = copy_model(base, swaps)
    owners = size_dependent(built) if built else {}
    for owner, names in by_owner(model, beside).items():
        owners[owner] = sorted({*owners.get(owner, []), *names})
    add_private_sets(skeleton, owners, trees, resolutions[0])
    return SwitchableModel(skeleton, resolutions, source_of(model), build, built, private)


def regroup(net: SwitchableModel, paths: Mapping[int, nn.Module]) -> SwitchableModel:
    """Return an independent network of other plain models, from the largest to the smallest, made as ``net`` was."""
    built = paths if net.build else None
    one, beside = next(iter(paths.values())), net.private_beside()
    new = assemble(one, tuple(paths), private=net.private, build=net.build, built=built, beside=beside)
    for resolution, plain in paths.items():
        new.at(resolution).load_state_dict(plain.state_dict())
    return new


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
