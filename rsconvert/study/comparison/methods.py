"""What is compared: ways to train the same network, each written as what differs from the common settings."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rsconvert.errors import ConfigError
from rsconvert.settings import build_config

__all__ = ["BASELINE", "KNOWN", "Method", "choose_methods"]

BASELINE = "inets"


@dataclass(frozen=True)
class Method:
    """A way to train.

    Attributes:
        name: of its folders.
        title: in tables and figures, beside the variant.
        about: what it is, in a sentence without an end.
        settings: the fields of ``FinetuneConfig`` in which it differs.
        apart: whether each resolution has a network of its own.
        private: whether each resolution has a BN set of its own.
        subset: the resolutions that it trains; None trains all.
        baseline: the name of the method against which it gains.
        variant: in which it differs from the method of the same title.
    """

    name: str
    title: str
    about: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    apart: bool = False
    private: bool = True
    subset: tuple[int, ...] | None = None
    baseline: str = BASELINE
    variant: str = ""

    @property
    def label(self) -> str:
        """The title with the variant."""
        return f"{self.title}, {self.variant}" if self.variant else self.title

    def trained(self, resolutions: tuple[int, ...]) -> tuple[int, ...]:
        """Return the sizes that it trains of a network's resolutions."""
        return tuple(dict.fromkeys(self.settings.get("view_sizes", ()))) or self.subset or resolutions


_PARALLEL = {"distill": "none"}
# Of one size and of one crop all views would be the same image.
_ONE_SIZE = "as RS-Net, but S crops of the largest resolution, a crop per view"
KNOWN = {
    method.name: method
    for method in (
        Method(BASELINE, "I-Nets", "one network for each resolution, trained at it alone", _PARALLEL, apart=True),
        Method("parallel", "parallel", "all resolutions together, a BN set for each, no distillation", _PARALLEL),
        Method("rsnet", "RS-Net", "parallel training with distillation, the full version", {"distill": "full"}),
        Method("shared-bn", "shared BN", "parallel training with one BN set for all", _PARALLEL, private=False),
        Method("vanilla", "vanilla", "as RS-Net, but only the ensemble teaches", {"distill": "vanilla"}),
        Method("top-down", "top-down", "as RS-Net, but without the ensemble as a teacher", {"distill": "top-down"}),
        Method("largest", "largest", "as RS-Net, but only the largest resolution teaches", {"distill": "largest"}),
        Method("per-view", "crop per view", "as RS-Net, but each view has a crop of its own", {"crop": "per-view"}),
        Method("one-size", "one size", _ONE_SIZE, {"crop": "per-view", "view_sizes": ()}),
    )
}


def choose_methods(
    names: Sequence[str],
    resolutions: Sequence[int],
    *,
    subsets: Sequence[Sequence[int]] = (),
    crop_area: Sequence[float] | str | None = None,
) -> list[Method]:
    """Return the methods of these names, parallel training of each subset, and all again with another crop area.

    Args:
        resolutions: those of the network.
    Raises:
        ConfigError: a method is unknown, or there is none; one comes twice; a subset is not one of the resolutions.
    """
    methods = [_known(name, resolutions) for name in names] + [_subset(kept, resolutions) for kept in subsets]
    if not methods:
        raise ConfigError(f"methods is empty; at least one of {', '.join(KNOWN)} is needed. Name some.")
    repeated = [method.name for i, method in enumerate(methods) if method in methods[:i]]
    if repeated:
        raise ConfigError(f"{repeated[0]} comes twice among the methods; each is trained once. Remove the repeat.")
    return methods + ([] if crop_area is None else list(_cropped(methods, crop_area)))


def _known(name: str, resolutions: Sequence[int]) -> Method:
    if name not in KNOWN:
        near = difflib.get_close_matches(name, KNOWN, n=3)
        accepted = f"near ones are {', '.join(near)}" if near else f"known are {', '.join(KNOWN)}"
        raise ConfigError(f"method {name!r} is unknown; {accepted}. Correct the name.")
    method = KNOWN[name]
    if "view_sizes" in method.settings:
        sizes = (resolutions[0],) * len(resolutions)
        return replace(method, settings={**method.settings, "view_sizes": sizes})
    return method


def _subset(kept: Sequence[int], resolutions: Sequence[int]) -> Method:
    name = "+".join(map(str, kept))
    if unknown := [r for r in kept if r not in resolutions]:
        raise ConfigError(
            f"subset {name} has {unknown[0]}, which the network does not switch to; {', '.join(map(str, resolutions))} "
            "are accepted. Choose among them."
        )
    if len(set(kept)) != len(kept) or not 1 < len(kept) < len(resolutions):
        raise ConfigError(
            f"subset {name} has {len(kept)} resolutions; from 2 to {len(resolutions) - 1} different ones are needed. "
            "Mend it, or name the method parallel for all."
        )
    chosen = tuple(sorted(kept, reverse=True))
    name = "+".join(map(str, chosen))
    return Method(f"parallel-{name}", name, f"parallel training of {name}", _PARALLEL, subset=chosen)


def _cropped(methods: Sequence[Method], crop_area: Sequence[float] | str) -> Iterator[Method]:
    low, high = build_config(settings={"crop_area": crop_area}).crop_area
    ending = f"-crop-{low:g}-{high:g}"
    for method in methods:
        yield replace(
            method,
            name=method.name + ending,
            about=f"{method.about}; crops from {low:g} to {high:g} of the area",
            settings={**method.settings, "crop_area": (low, high)},
            baseline=method.baseline + ending,
            variant=f"crops {low:g}-{high:g}",
        )
