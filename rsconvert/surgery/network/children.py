"""Children: a registry of modules that asks its owner before every change; hooks that go to several modules."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any

from torch import nn

from rsconvert.errors import UnsupportedModelError

__all__ = ["REMOVED", "Children", "Hooks", "PrivateTensorError", "hooked_on"]

Change = Callable[[str, nn.Module | None], None]

REMOVED = nn.Module()
"""Stands for a child that is taken away."""


class PrivateTensorError(AttributeError, UnsupportedModelError):
    """A tensor of one resolution is asked of all: what hasattr expects, and an error of ours."""


class Children(dict[str, nn.Module | None]):
    """The ``_modules`` of a module that stands for others.

    Args:
        children: what is there already.
        change: is told the name and the new child, or REMOVED, before a change; carries it on, or raises.
    """

    def __init__(self, children: Mapping[str, nn.Module | None], change: Change) -> None:
        super().__init__(children)
        self._change = change

    def __setitem__(self, name: str, child: nn.Module | None) -> None:
        self._change(name, child)
        super().__setitem__(name, child)

    def __delitem__(self, name: str) -> None:
        if name in self:
            self._change(name, REMOVED)
        super().__delitem__(name)

    # dict's own would pass the two above by.
    update = MutableMapping.update
    setdefault = MutableMapping.setdefault
    pop = MutableMapping.pop
    popitem = MutableMapping.popitem
    clear = MutableMapping.clear

    def __ior__(self, other: Any) -> "Children":  # type: ignore[override,misc]
        self.update(other)
        return self


class Hooks(OrderedDict[int, Any]):
    """The hooks that several modules have in common; what is set, taken away or cleared is so in all of them."""

    def __init__(self, common: Mapping[int, Any], registries: Sequence[dict[int, Any]]) -> None:
        self._registries: Sequence[dict[int, Any]] = ()
        super().__init__(common)
        self._registries = registries

    def __setitem__(self, key: int, hook: Any) -> None:
        super().__setitem__(key, hook)
        for registry in self._registries:
            registry[key] = hook

    def __delitem__(self, key: int) -> None:
        hook = self[key]
        super().__delitem__(key)
        for registry in self._registries:
            for own in [own for own, other in registry.items() if other is hook]:
                del registry[own]

    def clear(self) -> None:
        """Take all hooks away from all modules."""
        super().clear()
        for registry in self._registries:
            registry.clear()

    pop = MutableMapping.pop  # type: ignore[assignment]
    popitem = MutableMapping.popitem  # type: ignore[assignment]


class _Handles:
    """The handle of a hook on several modules."""

    def __init__(self, handles: Iterable[Any]) -> None:
        self.handles = tuple(handles)

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()

    def __enter__(self) -> "_Handles":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def hooked_on(modules: Iterable[nn.Module], register: str, hook: Any, options: Mapping[str, Any]) -> _Handles:
    """Register a hook on each of several modules by its method ``register``; one handle removes them all."""
    return _Handles(getattr(module, register)(hook, **options) for module in modules)
