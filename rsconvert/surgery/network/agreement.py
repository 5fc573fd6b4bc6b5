"""What was changed in one path alone, where the network could not see it, is refused before it runs or is saved."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rsconvert.errors import UnsupportedModelError
from rsconvert.surgery.network.parts import Part, in_path
from rsconvert.surgery.network.private import PrivateSets

if TYPE_CHECKING:
    from rsconvert.surgery.network.switchable import SwitchableModel

__all__ = ["Agreement", "check_batchnorms"]


class Agreement:
    """The children that the modules of every path had, and their modes; it compares with them, as fast as it can.

    Args:
        parts: all that have a twin in each path, the root first.
        resolutions: of the twins.
    """

    def __init__(self, parts: Sequence[Part], resolutions: Sequence[int]) -> None:
        self._parts, self._resolutions = parts, resolutions
        twins = [[part._rs_twins[place] for part in parts] for place in range(len(resolutions))]
        held = [[twin._modules for twin in of_path] for of_path in twins]
        self._held = [(registries, _children(registries)) for registries in held]
        self._modes = [[vars(twin) for twin in of_path] for of_path in twins]

    def check(self, place: int) -> None:
        """Refuse to run the path at a place among the resolutions.

        Raises:
            UnsupportedModelError: it has other modules than the network shows, or another mode than the others.
        """
        self.check_children(place)
        self._check_modes(place)

    def check_children(self, place: int) -> None:
        """Refuse a path with other modules than the network shows.

        Raises:
            UnsupportedModelError: there is one.
        """
        registries, noted = self._held[place]
        if _children(registries) == noted:
            return
        part = next((part for part in self._parts if _differs(part, place)), self._parts[0])
        raise UnsupportedModelError(
            f"{part._rs_label()} of net.at({self._resolutions[place]}) has other modules than the network shows; the "
            "same are needed. Change the network itself, or net.extract(resolution)."
        )

    def _check_modes(self, place: int) -> None:
        """Refuse to run where one path is in train mode and another is not: they share modules that have one."""
        own, other = ([values["training"] for values in self._modes[i]] for i in (place, place - 1))
        if own == other:
            return
        part = next(part for part, one, two in zip(self._parts, own, other, strict=True) if one != two)
        raise UnsupportedModelError(
            f"{part._rs_label()} is in train mode in some paths and in eval mode in others; one mode is needed for the "
            "network to run. Call net.train() or net.eval(), or run net.at(resolution)."
        )


def check_batchnorms(net: "SwitchableModel") -> None:
    """Refuse a BatchNorm that came into a shared module later: all resolutions would train it.

    Raises:
        UnsupportedModelError: there is one.
    """
    sets = {id(m) for _, bn in net.switchable_bns() for one in bn.sets for m in nn.Module.modules(one)}
    for name, module in net.named_modules() if net.private else ():
        if isinstance(module, _BatchNorm) and id(module) not in sets:
            raise UnsupportedModelError(
                f"{name} is a BatchNorm that all resolutions share, put in after the conversion; each resolution "
                "needs its own. Put it into the model before make_switchable."
            )


def _children(registries: Sequence[Mapping[str, nn.Module | None]]) -> list[nn.Module | None]:
    return [child for registry in registries for child in registry.values()]


def _differs(part: Part, place: int) -> bool:
    """Return whether a twin has other children than those that are shown."""
    alone = (PrivateSets, nn.ParameterDict)
    wanted = {name: in_path(m, place) for name, m in part._modules.items() if not isinstance(m, alone)}
    return wanted != part._rs_twins[place]._modules
