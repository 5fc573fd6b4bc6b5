"""Registries of a module that stands for several: a change of children or hooks is made in all of them."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any

from torch import nn

__all__ = ["REMOVED", "Children", "Handles", "Hooks"]

# Stands for a child that is removed.
REMOVED = nn.Module()


class Children(dict[str, nn.Module | None]):
    """The ``_modules`` of a stand-in.

    Args:
        children: the ones that are there already.
        change: called with the name and the new child, or a marker of a removed one, before a change; makes it in the
            paths, or raises.
    """

    def __init__(
        self, children: Mapping[str, nn.Module | None], change: Callable[[str, nn.Module | None], None]
    ) -> None:
        super().__init__(children)
        self._change = change

    def __setitem__(self, name: str, child: nn.Module | None) -> None:
        self._change(name, child)
        super().__setitem__(name, child)

    def __delitem__(self, name: str) -> None:
        if name in self:
            self._change(name, REMOVED)
        super().__delitem__(name)

    # dict's own would bypass the two above.
    update = MutableMapping.update
    setdefault = MutableMapping.setdefault
    pop = MutableMapping.pop
    popitem = MutableMapping.popitem
    clear = MutableMapping.clear

    def __ior__(self, other: Any) -> "Children":  # type: ignore[override,misc]
        self.update(other)
        return self


class Hooks(OrderedDict[int, Any]):
    """The hooks that several modules have in common; setting, removing or clearing them does so in all modules."""

    _registries: Sequence[dict[int, Any]] = ()

    def __init__(self, common: Mapping[int, Any], registries: Sequence[dict[int, Any]]) -> None:
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
        """Remove all hooks from all modules."""
        super().clear()
        for registry in self._registries:
            registry.clear()

    pop = MutableMapping.pop  # type: ignore[assignment]
    popitem = MutableMapping.popitem  # type: ignore[assignment]


class Handles:
    """The handle of a hook on several modules."""

    def __init__(self, handles: Iterable[Any]) -> None:
        self.handles = tuple(handles)

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()

    def __enter__(self) -> "Handles":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
