"""Stand-ins: what a network shows where each path has a module of its own; through them all paths are reached."""

import copy
import functools
import types
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rsconvert.errors import ResolutionError, UnsupportedModelError
from rsconvert.surgery.network.copying import CONTAINERS, HOOKS
from rsconvert.surgery.network.recognition import is_batchnorm
from rsconvert.surgery.network.registries import REMOVED, Children, Handles, Hooks

__all__ = ["Part", "PrivateTensorError", "StandIn", "clear_caches", "in_path", "make_part"]

_NAMED = ("_modules", "_parameters", "_buffers")
_REGISTRIES = ("_parameters", "_buffers", "_non_persistent_buffers_set")
# What binds one module to its code: the twins have their own.
_BOUND = frozenset({"__class__", "__dict__", "_call_impl", "_compiled_call_impl", "forward"})


class PrivateTensorError(AttributeError, UnsupportedModelError):
    """A tensor of one resolution is asked of all: what hasattr expects, and an error of ours."""


def _on_every_twin(name: str) -> Any:
    """Return the method of this name that registers a hook on every twin; one handle removes them all."""

    @functools.wraps(getattr(nn.Module, name))
    def register(self: "StandIn", hook: Any, *args: Any, **options: Any) -> Handles:
        return Handles(getattr(twin, name)(hook, *args, **options) for twin in self._rs_twins)

    return register


class StandIn(nn.Module):
    """A module of a network that stands for one in each path: its twins, the native one first.

    It has no state of its own: a read shows what the twins have in common, and a mode, a setting, a hook or another
    child is set on all of them. It never runs; the paths do.
    """

    _rs_twins: Sequence[nn.Module]

    register_forward_hook = _on_every_twin("register_forward_hook")
    register_forward_pre_hook = _on_every_twin("register_forward_pre_hook")
    register_backward_hook = _on_every_twin("register_backward_hook")
    register_full_backward_hook = _on_every_twin("register_full_backward_hook")
    register_full_backward_pre_hook = _on_every_twin("register_full_backward_pre_hook")

    def __getattr__(self, name: str) -> Any:
        if "_modules" not in self.__dict__ or name.startswith("__"):
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        if name in HOOKS:
            return Hooks(self._rs_common_hooks(name), [getattr(twin, name) for twin in self._rs_twins])
        for registry in _NAMED:
            if name in self.__dict__[registry]:
                self._check_shared(name)
                return self.__dict__[registry][name]
        return self._shown(name)

    def _check_shared(self, name: str) -> None:
        """Refuse a registered name of which each twin has its own."""
        raise NotImplementedError

    def _shown(self, name: str) -> Any:
        """Return what the twins have under a name that is not registered, if it is one thing."""
        raise NotImplementedError

    def _rs_common_hooks(self, registry: str) -> OrderedDict[int, Any]:
        """Return the hooks of a kind that all twins have, which are those set here."""
        native, *others = (getattr(twin, registry) for twin in self._rs_twins)
        return OrderedDict((k, hook) for k, hook in native.items() if all(hook in own.values() for own in others))

    def _rs_placed(self, parent: "Part", name: str) -> None:
        """Take note of where it stands."""


class Part(StandIn):
    """The stand-in for modules that hold private tensors somewhere inside.

    Its class is a subclass of theirs, its tensors are theirs. Children without private tensors are the very modules of
    every path.
    """

    _rs_place: str
    _rs_private: frozenset[str]
    _rs_loading: bool

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Bypass a source's own ``__init_subclass__``: this is no class of its user's."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: nothing shows the resolution here.

        Raises:
            ResolutionError: always.
        """
        place = vars(self).get("_rs_place", "")
        raise ResolutionError(
            f"{place} of a switchable network is run, which has one module per resolution; a path runs one of them. "
            f"Call net.at(resolution).{place}(…)."
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "__class__":
            raise UnsupportedModelError(
                f"the class of {self._rs_label()} is changed, as FSDP or a parametrization does; the paths keep "
                "theirs. Use DistributedDataParallel, parametrize layers without BatchNorm, or net.extract(resolution)."
            )
        if name in _BOUND:
            raise UnsupportedModelError(
                f"{name} is set on {self._rs_label()} of a switchable network, whose paths run their own; a plain "
                "model takes it. Change the model before make_switchable, or net.extract(resolution)."
            )
        if name == "_modules":
            self._rearrange(value)
        elif self._registers(name, value):
            self._check_shared(name)
            if name not in self._modules and not isinstance(value, nn.Module):
                self._check_registration(name)
            for twin in self._rs_twins:
                twin.__dict__.pop(name, None)
            super().__setattr__(name, value)
        else:
            for place, twin in enumerate(self._rs_twins):
                # An empty container may become a cache, which each path needs for itself.
                apart = place and type(value) in CONTAINERS and not value
                setattr(twin, name, copy.copy(value) if apart else value)

    def __delattr__(self, name: str) -> None:
        if any(name in self.__dict__[registry] for registry in (*_REGISTRIES, "_modules")):
            self._check_shared(name)
            super().__delattr__(name)
        else:
            for twin in self._rs_twins:
                delattr(twin, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Part":
        twins, children = copy.deepcopy(list(self._rs_twins), memo), copy.deepcopy(dict(self._modules), memo)
        memo[id(self)] = new = make_part(twins, children, self._rs_place, self._rs_private)
        return new

    def __reduce_ex__(self, protocol: Any) -> Any:
        return make_part, (list(self._rs_twins), dict(self._modules), self._rs_place, self._rs_private)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Register a parameter of every twin; refuse it where they have tensors of their own."""
        self._check_registration(name)
        super().register_parameter(name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Register a buffer of every twin; refuse it where they have tensors of their own."""
        self._check_registration(name)
        super().register_buffer(name, tensor, persistent)

    def _check_registration(self, name: str) -> None:
        if self._rs_private and not self._rs_loading:
            raise UnsupportedModelError(
                f"{name} is set on {self._rs_label()} of a switchable network, which has tensors of each resolution; a "
                "module without any takes it. Change the model before make_switchable."
            )

    def get_submodule(self, target: str) -> nn.Module:
        """Return a module by its name in ``named_modules``; for a BatchNorm the layer of all its sets."""
        module: nn.Module = self
        for name in target.split(".") if target else ():
            found = module._modules.get(name)
            if found is None and isinstance(module, StandIn):  # a native set's modules have the layer's name
                found = module._rs_twins[0]._modules.get(name)
            if found is None:
                raise AttributeError(f"{type(self).__name__} has no module {target}: {name} is none of its modules")
            module = found
        return module

    def get_parameter(self, target: str) -> nn.Parameter:
        """Return a parameter by the name that the file has for it."""
        return cast(nn.Parameter, self._registered("_parameters", target))

    def get_buffer(self, target: str) -> Tensor:
        """Return a buffer by the name that the file has for it."""
        return self._registered("_buffers", target)

    def _registered(self, registry: str, target: str) -> Tensor:
        owner, _, name = target.rpartition(".")
        found = getattr(self.get_submodule(owner), registry).get(name)
        if found is None:
            raise AttributeError(f"{type(self).__name__} has no tensor {target} among its {registry[1:]}")
        return cast(Tensor, found)

    def extra_repr(self) -> str:
        return self._rs_twins[0].extra_repr()

    def _rs_adopt(self) -> None:
        """Let the stand-ins among the children know where they stand."""
        for name, child in self._modules.items():
            if isinstance(child, StandIn):
                child._rs_placed(self, name)

    def _rs_put(self, place: int, name: str, child: nn.Module) -> None:
        """Give one twin another child."""
        self._rs_twins[place]._modules[name] = child
        self._changed()

    def _registers(self, name: str, value: Any) -> bool:
        kinds = (nn.Parameter, nn.Module, nn.Buffer)
        return isinstance(value, kinds) or any(name in self.__dict__[registry] for registry in _NAMED)

    def _check_shared(self, name: str) -> None:
        if name in self._rs_private and not self._rs_loading:
            raise PrivateTensorError(
                f"{name} of {self._rs_label()} has one value per resolution; that of one path is at hand. "
                f"Use net.at(resolution).{self._rs_place}.{name}."
            )

    def _shown(self, name: str) -> Any:
        values = [getattr(twin, name) for twin in self._rs_twins]
        if name.startswith("_") or name == "training":
            return values[0]
        native, *others = map(tree_leaves, values)
        modules = any(isinstance(leaf, nn.Module) for leaf in native)
        if modules or not all(_same(native, leaves) for leaves in others):
            raise AttributeError(
                f"{name} of {self._rs_label()} is another thing in each path; a switchable network shows what all have "
                f"in common. Read it from net.at(resolution), or walk the modules."
            )
        return values[0]

    def _rs_label(self) -> str:
        """Return the name in the network, for a message."""
        return self._rs_place or "the root"

    def _rearrange(self, children: Mapping[str, nn.Module | None]) -> None:
        """Take the same children under other names or in another order, as a Sequential does that loses one."""
        old = {id(child): name for name, child in self._modules.items()}
        if {id(child) for child in children.values()} != set(old):
            for name, child in children.items():
                self._modules[name] = child
            return
        for twin in self._rs_twins:
            given = {name: twin._modules[old[id(child)]] for name, child in children.items()}
            twin._modules.clear()
            twin._modules.update(given)
        dict.clear(self._modules)
        dict.update(self._modules, children)
        self._changed()

    def _changed(self) -> None:
        """Let the network note that the twins have other children."""
        for root in self.__dict__.get("_rs_roots", ()):
            root._rs_note()

    def _change_child(self, name: str, child: nn.Module | None) -> None:
        """Make a change of a child in the twins; refuse one of private tensors, except to another place of a child."""
        old = self._modules.get(name)
        if child is old and name in self._modules:
            return
        elsewhere = {id(other) for key, other in self._modules.items() if key != name}
        if id(child) not in elsewhere or not (old is None or id(old) in elsewhere):
            self._check_change(name, old, child)
        for place, twin in enumerate(self._rs_twins):
            if child is REMOVED:
                del twin._modules[name]
            else:
                twin.__dict__.pop(name, None)
                twin._modules[name] = in_path(child, place)
        self._changed()

    def _check_change(self, name: str, old: nn.Module | None, child: nn.Module | None) -> None:
        where = f"{self._rs_place}.{name}".lstrip(".")
        if isinstance(old, StandIn) or name in ("at", "rsconvert"):
            raise UnsupportedModelError(
                f"{where} is set on a switchable network, and holds tensors of each resolution; a module without any "
                "is accepted. Change the model before make_switchable, or net.extract(resolution)."
            )
        inside = () if child is None else nn.Module.modules(child)
        private = vars(self).get("private", True)  # a network with one set for all takes any BatchNorm
        if any(isinstance(m, StandIn) or (private and is_batchnorm(m)) for m in inside):
            raise UnsupportedModelError(
                f"{where} is set on a switchable network to {type(child).__name__}, which holds a BatchNorm; a module "
                "without one is accepted. Change the model before make_switchable."
            )

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it so
        self._rs_relink()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.__dict__["_rs_loading"] = True
        try:
            super()._load_from_state_dict(*args, **kwargs)
        finally:
            self.__dict__["_rs_loading"] = False

    def _rs_relink(self) -> None:
        """Give the twins the tensors that replaced others, and clear what they computed from the old ones."""
        at = self._modules.get("at")
        for place, twin in enumerate(self._rs_twins):
            if self._rs_private:
                at.link(self, twin, place)  # type: ignore[union-attr,operator]  # PrivateSets
            clear_caches(twin)


def make_part(
    twins: Sequence[nn.Module],
    children: Mapping[str, nn.Module | None],
    place: str = "",
    private: frozenset[str] = frozenset(),
) -> Part:
    """Return a module of the twins' class that stands for them.

    Args:
        twins: one per resolution, the native one first; more may follow.
        children: what it shows as its children.
        place: its name in the network, for messages.
        private: the names of its own tensors that have one value per resolution.
    """
    native = twins[0]
    shadowed = frozenset(name for name in vars(native) if hasattr(type(native), name) and not hasattr(nn.Module, name))
    part = object.__new__(_kind(type(native), shadowed))  # type: ignore[arg-type]  # mypy takes modules for unhashable
    part.__dict__.update({registry: getattr(native, registry) for registry in _REGISTRIES})
    part.__dict__.update(_rs_twins=list(twins), _rs_place=place, _rs_private=private, _rs_loading=False)
    part.__dict__["_modules"] = Children(children, part._change_child)
    part._rs_adopt()
    return part


def clear_caches(module: nn.Module) -> None:
    """Empty a module's caches of computed tensors."""
    for name, value in vars(module).items():
        if name.endswith("_cache") and isinstance(value, dict):
            value.clear()


def in_path(child: nn.Module | None, place: int) -> nn.Module | None:
    """Return what stands for a child in the path at a place among the resolutions."""
    return child._rs_twins[place] if isinstance(child, StandIn) else child


@functools.cache
def _kind(kind: type[nn.Module], shadowed: frozenset[str]) -> type[Part]:
    """Return the subclass that shows modules of a class.

    Args:
        shadowed: names that the class has too, by which the twins' own value is read.
    """
    shown = {name: property(functools.partial(Part._shown, name=name)) for name in shadowed - _BOUND}
    # What makes another one of its class, such as a slice of a Sequential, makes an ordinary one.
    shown["__class__"] = property(lambda part: kind)
    made = types.new_class(kind.__name__, (Part, kind), exec_body=lambda body: body.update(shown))
    made.__module__, made.__qualname__ = kind.__module__, kind.__qualname__
    return made


def _same(leaves: list[Any], others: list[Any]) -> bool:
    """Return whether two values are one thing: the same objects, equal plain ones, or methods of their module."""
    plain = (bool, int, float, str, bytes)
    return len(leaves) == len(others) and all(
        one is other or callable(one) or (type(one) in plain and type(one) is type(other) and one == other)
        for one, other in zip(leaves, others, strict=True)
    )
