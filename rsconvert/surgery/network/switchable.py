"""SwitchableModel: one network, S paths over the same tensors."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from rsconvert.data import Photo, prepare_photo
from rsconvert.errors import ResolutionError, UnsupportedModelError, first_line
from rsconvert.models import Source
from rsconvert.surgery.network.agreement import Agreement, check_batchnorms
from rsconvert.surgery.network.attributes import Measured, fingerprint, service, structure
from rsconvert.surgery.network.copying import HOOKS, copy_modules, copy_structure, fresh, has_bound_hooks
from rsconvert.surgery.network.layer import SwitchableBN, SwitchableHead, SwitchableLayer
from rsconvert.surgery.network.parts import Part, StandIn
from rsconvert.surgery.network.paths import divided, live_path, make_path, shown_children, snapshot
from rsconvert.surgery.network.private import PrivateSets, private_tensors, sets_of
from rsconvert.surgery.network.rebuilding import Build, build_like
from rsconvert.surgery.network.registries import Children, Hooks
from rsconvert.surgery.network.resolutions import check_resolutions, run_views, side_of_call

if TYPE_CHECKING:
    from rsconvert.surgery.report import ConversionReport

__all__ = ["SwitchableModel"]

# What is found again in a copy.
_WATCHED = frozenset({"_agreement", "_bound", "_parts", "_rs_roots", *HOOKS})
# What belongs to a network itself, whatever the source has under these names.
_FACTS = ("build", "private", "report", "resolutions", "source")


class SwitchableModel(Part):
    """A network that runs at several resolutions, with one private BN set for each.

    ``net(x)`` takes the source's own arguments and picks the path by the size of its image: an H×W input
    counts as round(√(H·W)). ``net.at(r)`` is that path as a plain model. The tensors have the source's names
    in ``state_dict``; ``rsconvert.alpha``, (S,), holds the scores of the ensemble, initialised to ones.

    The modules that a walk over the network meets are those that run, on every path: what is set on them holds at every
    resolution, or is refused. A module without BatchNorm may be replaced; one with private tensors before the
    conversion only. What else the source offers, such as ``forward_features``, the network offers where it can choose
    the path, or where all paths agree. ``report`` says what ``make_switchable`` did; None for a network from a file.

    Args:
        native: a plain model that becomes the native path. The network takes it over.
        layers: id of each of its BatchNorms and private classifiers → the layer that owns it as its native set.
        sets: name of another owner of private tensors → its sets.
        resolutions: from the largest to the smallest.
        source: what the model was made from.
        build: a function of the resolution that makes the source again for it; None if one model takes all sizes.
        built: resolution → what ``build`` gives; needed with it.
        private: whether each resolution has a BN set of its own.
    """

    report: "ConversionReport | None" = None
    resolutions: tuple[int, ...]
    source: Source
    private: bool
    build: Build | None
    _paths: dict[int, nn.Module]
    _agreement: Agreement

    def __init__(
        self,
        native: nn.Module,
        layers: Mapping[int, SwitchableLayer],
        sets: Mapping[str, PrivateSets],
        resolutions: Sequence[int],
        source: Source | None = None,
        build: Build | None = None,
        built: Mapping[int, nn.Module] | None = None,
        private: bool = True,
    ) -> None:
        nn.Module.__init__(self)
        order = check_resolutions(resolutions)
        self.__dict__.update(resolutions=order, source=source or Source(), private=private, build=build)
        # It stands in for the root of the native path, over the same dictionaries: keys stay those of the source.
        for name in ("_parameters", "_buffers", "_non_persistent_buffers_set"):
            self.__dict__[name] = getattr(native, name)
        del self.__dict__["training"]  # the paths have it
        own_tensors = private_tensors(native, sets.get(""))
        self.__dict__.update(_paths={order[0]: native}, _rs_place="", _rs_private=own_tensors, _rs_loading=False)
        trees = built or dict.fromkeys(order, native)
        owners = {*layers, *(id(native.get_submodule(name)) for name in sets)}
        owners |= {id(module) for module in native.children() if isinstance(module, GeneralizedRCNNTransform)}
        own = divided(native, owners, [trees[r] for r in order[1:]] if built else ())
        device = next((parameter.device for parameter in native.parameters()), torch.device("cpu"))
        scores = nn.ParameterDict({"alpha": nn.Parameter(torch.ones(len(order), device=device))})
        children = {**shown_children(native, own, layers, sets), "rsconvert": scores}
        self.__dict__["_modules"] = Children(children, self._change_child)
        for resolution in order[1:]:
            self._paths[resolution] = live_path(self, trees[resolution], resolution, order)
        self._watch()

    def _watch(self) -> None:
        """Look after the paths once all are made."""
        self._rs_adopt()
        parts = [module for module in nn.Module.modules(self) if isinstance(module, Part)]
        for part in parts:
            part.__dict__.setdefault("_rs_roots", []).append(self)
        native = nn.Module.modules(self._paths[self.native])
        self.__dict__["_bound"] = frozenset(id(module) for module in native if has_bound_hooks(module))
        for name in HOOKS:  # hooks of the root are those of the paths' roots: it has none, and clears theirs
            self.__dict__[name] = Hooks({}, [getattr(twin, name) for twin in self._rs_twins])
        # Outside the registry, as the paths are: their modules are registered already.
        self.__dict__["_parts"] = tuple(parts[1:])
        self.__dict__.setdefault("_made", structure(self))
        self._rs_note()

    def _rs_note(self) -> None:
        """Remember which children the modules of every path have, to compare with them."""
        self.__dict__["_agreement"] = Agreement((self, *self._parts), self.resolutions)

    @property
    def _rs_twins(self) -> tuple[nn.Module, ...]:  # type: ignore[override]
        return tuple(self.__dict__["_paths"].values())

    def __deepcopy__(self, memo: dict[int, Any]) -> "SwitchableModel":
        new = memo[id(self)] = self.__class__.__new__(self.__class__)
        for path in self._paths.values():
            memo |= fresh(path)
        for path in self._paths.values():
            copy_modules(path, memo, detach=True)
        new.__setstate__({name: copy.deepcopy(value, memo) for name, value in self.__getstate__().items()})
        return new

    def __reduce_ex__(self, protocol: Any) -> Any:
        return object.__reduce_ex__(self, protocol)

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name not in _WATCHED}
        return {**state, "_modules": dict(self._modules)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _modules=Children(state["_modules"], self._change_child))
        self._watch()

    def _shown(self, name: str) -> Any:
        """Return what the source offers under a name, where that makes sense for a network."""
        paths = self.__dict__.get("_paths", {})
        value = service(name, paths, lambda args, kw: self._path_for(side_of_call(args, kw, self.source.images)))
        return (lambda: self._as_shown(value())) if name == "get_classifier" else value

    def _as_shown(self, modules: Any) -> Any:
        """Return what the network shows in the place of modules of the native path."""
        names = {id(module): name for name, module in self._paths[self.native].named_modules()}
        return tree_map_only(nn.Module, lambda module: self.get_submodule(names[id(module)]), modules)

    def __setattr__(self, name: str, value: Any) -> None:
        module = isinstance(value, nn.Module)
        child = name in self._modules and (value is None or module)
        own = not child and (name in self.__dict__ or hasattr(type(self), name))
        if name in _FACTS and not module:
            self.__dict__[name] = value
        elif name in ("__class__", "_modules", "forward") or (
            not own and (self._registers(name, value) or self._is_setting(name, value))
        ):
            super().__setattr__(name, value)
        else:
            object.__setattr__(self, name, value)

    def _is_setting(self, name: str, value: Any) -> bool:
        """Return whether the source reads what is set: it has it, or may ask for it."""
        plain = isinstance(value, bool | int | float | str) and not name.startswith("_")
        return plain or hasattr(self._rs_twins[0], name)

    def _replicate_for_data_parallel(self) -> "SwitchableModel":
        raise UnsupportedModelError(
            "DataParallel copies a network's modules at each forward, whose paths would not follow; one process per "
            "GPU is needed. Use DistributedDataParallel, or DataParallel(net.at(resolution))."
        )

    def __prepare_scriptable__(self) -> None:
        raise UnsupportedModelError(
            "torch.jit.script can't compile the choice of a path; a plain model is needed. "
            "Script net.extract(resolution), or see export_onnx and export_program."
        )

    @property
    def measured(self) -> Measured:
        """What was measured on it; empty once the network is another one than was measured.

        It is compared where the record is read, so that no way to change a value can be missed.
        """
        record, measured = self.__dict__.get("_measured", (Measured(), None))
        if record != Measured() and measured != fingerprint(self):
            record = Measured()
            self.__dict__.pop("_measured", None)
        return cast(Measured, record)

    @measured.setter
    def measured(self, record: Measured) -> None:
        self.__dict__["_measured"] = record, None if record == Measured() else fingerprint(self)

    @property
    def alpha(self) -> nn.Parameter:
        """The learnt scores, (S,); softmax(alpha) weighs the paths in the ensemble."""
        return cast(nn.Parameter, cast(nn.ParameterDict, self._modules["rsconvert"])["alpha"])

    @property
    def restructured(self) -> bool:
        """Whether modules were replaced since it was made, so that its source's builder makes another network."""
        return bool(structure(self) != self.__dict__["_made"])  # which is None where a restructured one was regrouped

    @property
    def native(self) -> int:
        """The largest trained resolution in pixels."""
        return self.resolutions[0]

    def train(self, mode: bool = True, *args: Any, **kwargs: Any) -> "SwitchableModel":
        """Set the mode of every path, each by the source's own ``train``."""
        check_batchnorms(self)
        for path in self._paths.values():
            path.train(mode, *args, **kwargs)
        running = set(self.running_modules())
        for module in nn.Module.modules(self):  # what holds private tensors outside of the paths
            if not isinstance(module, StandIn) and module not in running:
                module.training = mode
        return self

    def at(self, resolution: int) -> nn.Module:
        """Return the path of a resolution: a model of the source's class, with the source's keys.

        At a trained resolution it is live: every tensor is the network's own. At another one the BN tensors are a
        snapshot, interpolated at the call, over the shared weights; it runs in eval mode only.

        Raises:
            ResolutionError: ``resolution`` is not a positive whole number, or the source can't be built for it.
        """
        if resolution in self._paths:
            return self._paths[resolution]
        check_resolutions([resolution])
        with torch.inference_mode(False):
            return snapshot(self, self._built(resolution), resolution, self.resolutions)

    def preprocess(self, image: Photo, resolution: int) -> Tensor:
        """Return an image as the path of a resolution takes it in evaluation: (1, C, r, r), cropped and normalized.

        Args:
            image: a file, an image of Pillow, uint8 pixels (H, W, 3) or (H, W) of NumPy, or (3, H, W) or (1, H, W) of
                torch; a network of one channel gets it in grey.
            resolution: r in pixels, trained or not.
        Raises:
            DataError: the image can't be read, or the network takes neither three channels nor one.
            ResolutionError: ``resolution`` is not a positive whole number.
        """
        check_resolutions([resolution])
        view = prepare_photo(image, self.source.preprocessing, self.resolutions, resolution)
        parameter = next(p for p in self._paths[self.native].parameters() if p.is_floating_point())
        return view.to(parameter.device, parameter.dtype)

    def extract(self, resolution: int) -> nn.Module:
        """Return an independent plain model for a resolution, trained or not: it shares no tensor with the network.

        Raises:
            ResolutionError: ``resolution`` is not a positive whole number, or the source can't be built for it.
        """
        check_resolutions([resolution])
        with torch.inference_mode(False):
            live = self._paths.get(resolution)
            if live is None:
                live = make_path(self, self._built(resolution), resolution, self.resolutions)
            plain = copy_modules(live, {}, detach=True)
        # A snapshot is frozen; what is taken out can be trained as the source could.
        natives = dict(self._paths[self.native].named_parameters())
        for name, parameter in plain.named_parameters():
            native = natives.get(name, parameter)
            parameter.requires_grad_(parameter.requires_grad or native.requires_grad)
        return plain

    def skeleton(self) -> nn.Module:
        """Return a model of the source's class over the network's tensors, with the layers of sets in their places."""
        layers = {id(layer.native): copy_structure(layer) for _, layer in self.switchable_layers()}
        return copy_structure(self._paths[self.native], layers)

    def running_modules(self) -> Iterator[nn.Module]:
        """Yield every module that runs in some path, once."""
        modules = (module for path in self._paths.values() for module in nn.Module.modules(path))
        yield from dict.fromkeys(modules)

    def switchable_layers(self, *, every_name: bool = False) -> Iterator[tuple[str, SwitchableLayer]]:
        """Yield each BatchNorm and private classifier with its name; once, or under every name that it has."""
        modules = self.named_modules(remove_duplicate=not every_name)
        yield from ((name, m) for name, m in modules if isinstance(m, SwitchableLayer))

    def switchable_bns(self) -> Iterator[tuple[str, SwitchableBN]]:
        """Yield each SwitchableBN with its name, once."""
        yield from ((name, layer) for name, layer in self.switchable_layers() if isinstance(layer, SwitchableBN))

    def switchable_heads(self) -> Iterator[tuple[str, SwitchableHead]]:
        """Yield each private classifier with its name, once."""
        yield from ((name, layer) for name, layer in self.switchable_layers() if isinstance(layer, SwitchableHead))

    @torch.inference_mode(False)
    def reset_classifier(self, num_classes: int) -> None:
        """Give all paths a new classifier by the source's own method, private ones if it was; they start at zero.

        Every tensor of the network is another one afterwards: take paths and make optimizers after it. If the network
        was made with ``build=``, its file needs a ``build=`` for the new number of classes.

        Args:
            num_classes: 0 leaves the network without a classifier.
        Raises:
            AttributeError: the source has no such method.
            ConfigError: ``num_classes`` is negative or no whole number.
        """
        from rsconvert.surgery.network.assembly import with_classifier  # which makes networks of this class

        self.__setstate__({**with_classifier(self, num_classes).__getstate__(), "report": None})

    def other_private_tensors(self) -> list[str]:
        """Return the names of the private tensors that no BatchNorm owns: classifiers, tables, F.batch_norm's own."""
        found = []
        for name, owner in self.named_modules():
            if isinstance(owner, SwitchableHead):
                found += [f"{name}.{key}" for key, _ in owner.native.named_parameters()]
            if (sets := sets_of(owner)) is not None:
                kept = [key for key in owner._buffers if key not in owner._non_persistent_buffers_set]
                found += [f"{name}.{key}".lstrip(".") for key in (*sets.parameter_names, *kept)]
        return found

    def forward(self, *args: Any, views: Sequence[Tensor] | None = None, **kwargs: Any) -> Any:
        """Run the path that fits the input; or, given ``views``, path i on view i, for training.

        Args:
            views: S tensors (N, C, H, W), from the largest to the smallest resolution; view i meets set i by position.
        Returns:
            What the source returns; for ``views`` a list of S of it.
        Raises:
            ResolutionError: the number of views is not S; no argument is an image; the size is untrained in train mode.
            UnsupportedModelError: a path was changed alone, paths are in different modes, or torch.jit traces.
        """
        if torch._C._get_tracing_state() is not None:
            raise UnsupportedModelError(
                "torch.jit.trace keeps one path for images of every size; a plain model is needed. "
                "Trace net.at(resolution), or see export_onnx and export_program."
            )
        if views is None:
            return self._run(side_of_call(args, kwargs, self.source.images), args, kwargs)
        for place in range(len(self.resolutions)):
            self._agreement.check(place)
        if args or kwargs or len(views) != len(self.resolutions):
            raise ResolutionError(
                f"views has {len(views)} tensors; {len(self.resolutions)} and no other argument are needed, "
                f"one view for each of {self.resolutions}. Pass one view per resolution."
            )
        return run_views(self._paths.values(), views, self.source.images)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load as any module does; with ``assign``, every path sees the new tensors."""
        result = super().load_state_dict(state_dict, strict, assign)
        for part in (self, *self._parts):
            part._rs_relink()
        return result

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the tensors as any module does, under the names of the file.

        Raises:
            UnsupportedModelError: a path holds another module than the network.
        """
        check_batchnorms(self)
        for place in range(len(self.resolutions)):
            self._agreement.check_children(place)
        return super().state_dict(*args, **kwargs)

    def _built(self, resolution: int) -> nn.Module:
        """Return the source as built for a resolution: the native path if one model takes all sizes."""
        if self.build is None:
            return self._paths[self.native]
        return build_like(self.build, self._paths[self.native], resolution)

    def _run(self, resolution: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        path = self._path_for(resolution)
        place = self.resolutions.index(resolution) if resolution in self._paths else 0
        self._agreement.check(place)
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
