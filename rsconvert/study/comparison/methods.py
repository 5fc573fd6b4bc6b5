"""Methods: what may be compared, each a way to make networks from the same one."""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rsconvert.errors import ConfigError
from rsconvert.recipes import build_config

__all__ = ["AGAINST", "BASELINE", "KNOWN", "Method", "another_network", "choose_methods"]

BASELINE, AGAINST = "inets", "against-"


@dataclass(frozen=True)
class Method:
    """A way to make networks from the same one: what differs from the common settings, or which fit takes their place.

    Attributes:
        name: of its folders.
        title: in tables and figures, followed by the variant.
        about: what it is, in a sentence without an end.
        distill: as of ``FinetuneConfig``.
        crop: a crop per view; None takes the common setting.
        crop_area: as of ``FinetuneConfig``; None takes the common setting.
        one_size: whether all views have the largest resolution.
        apart: whether each resolution has a network of its own.
        private: whether each resolution has a BN set of its own.
        subset: the resolutions that it trains; None trains all.
        fit: what makes its networks without epochs of training, see ``fits.py``; None trains.
        other: whether it trains another network than the one that is compared.
        baseline: the name of the method against which it gains.
        variant: in which it differs from the method of the same title.
    """

    name: str
    title: str
    about: str
    distill: Literal["full", "vanilla", "top-down", "largest", "none"] = "none"
    crop: Literal["per-view"] | None = None
    crop_area: tuple[float, float] | None = None
    one_size: bool = False
    apart: bool = False
    private: bool = True
    subset: tuple[int, ...] | None = None
    fit: Literal["source", "calibrated", "heads", "fixres"] | None = None
    other: bool = False
    baseline: str = BASELINE
    variant: str = ""

    @property
    def label(self) -> str:
        """The title with the variant."""
        return f"{self.title}, {self.variant}" if self.variant else self.title

    @property
    def learns_alpha(self) -> bool:
        """Whether its networks train several resolutions together."""
        return not (self.apart or self.fit or self.other)

    @property
    def own_size(self) -> bool:
        """Whether each of its networks is tested at its own resolution alone."""
        return self.other or (self.apart and self.fit is not None)

    def trained(self, resolutions: tuple[int, ...]) -> tuple[int, ...]:
        """Return the sizes that it trains of a network's resolutions; the source knows its native one."""
        return resolutions[:1] if self.one_size or self.fit == "source" else self.subset or resolutions


# Of one size and of one crop all views would be the same image.
_ONE_SIZE = "as RS-Net, but S crops of the largest resolution, a crop per view"
_FIXRES = (
    "from the finished I-Net of the largest resolution one network for each: statistics of the last BatchNorm, then "
    "classifier, on central crops (Touvron et al. 2019)"
)
_HEADS = "the network as it is, with a classifier for each resolution that is fitted to features of central crops"
KNOWN = {
    method.name: method
    for method in (
        Method(BASELINE, "I-Nets", "one network for each resolution, trained at it alone", apart=True),
        Method("parallel", "parallel", "all resolutions together, a BN set for each, no distillation"),
        Method("rsnet", "RS-Net", "parallel training with distillation, the full version", "full"),
        Method("shared-bn", "shared BN", "parallel training with one BN set for all", private=False),
        Method("vanilla", "vanilla", "as RS-Net, but only the ensemble teaches", "vanilla"),
        Method("top-down", "top-down", "as RS-Net, but without the ensemble as a teacher", "top-down"),
        Method("largest", "largest", "as RS-Net, but only the largest resolution teaches", "largest"),
        Method("per-view", "crop per view", "as RS-Net, but each view has a crop of its own", "full", "per-view"),
        Method("one-size", "one size", _ONE_SIZE, "full", "per-view", one_size=True),
        Method("source", "source", "the network as it is", fit="source"),
        Method("calibrated", "calibrated", "the network as it is, with BN statistics of each size", fit="calibrated"),
        Method("heads", "heads", _HEADS, fit="heads", apart=True),
        Method("fixres", "FixRes", _FIXRES, fit="fixres", apart=True),
    )
}


def choose_methods(
    names: Sequence[str],
    resolutions: Sequence[int],
    *,
    subsets: Sequence[Sequence[int]] = (),
    crop_area: Sequence[float] | str | None = None,
) -> list[Method]:
    """Return the methods of these names, parallel training of each subset, and all again with another crop area."""
    methods = [_known(name) for name in names] + [_subset(kept, resolutions) for kept in subsets]
    if not methods:
        raise ConfigError(f"methods is empty; at least one of {', '.join(KNOWN)} is needed.")
    if repeated := [method.name for i, method in enumerate(methods) if method in methods[:i]]:
        raise ConfigError(f"{repeated[0]} comes twice among the methods; each is trained once. Remove the repeat.")
    if crop_area is not None:
        methods += list(_cropped(methods, crop_area))
    present = {method.name for method in methods}
    if missing := [method for method in methods if method.fit == "fixres" and method.baseline not in present]:
        raise ConfigError(f"{missing[0].name} starts from a finished I-Net; add {missing[0].baseline} to the methods.")
    return sorted(methods, key=lambda method: method.fit == "fixres")


def another_network(name: str, resolution: int) -> Method:
    """Return the training of another network for one resolution, as an I-Net's."""
    about = f"another network, trained at {resolution} pixels alone as an I-Net"
    folder = AGAINST + re.sub(r"[^\w.+-]+", "-", name)
    return Method(folder, name, about, subset=(resolution,), other=True, baseline="")


def _known(name: str) -> Method:
    if name not in KNOWN:
        near = difflib.get_close_matches(name, KNOWN, n=3)
        accepted = f"near ones are {', '.join(near)}" if near else f"known are {', '.join(KNOWN)}"
        raise ConfigError(f"method {name!r} is unknown; {accepted}.")
    return KNOWN[name]


def _subset(kept: Sequence[int], resolutions: Sequence[int]) -> Method:
    name = "+".join(map(str, kept))
    if unknown := [r for r in kept if r not in resolutions]:
        raise ConfigError(
            f"subset {name} has {unknown[0]}, which the network does not switch to; {', '.join(map(str, resolutions))} "
            "are accepted."
        )
    if len(set(kept)) != len(kept) or not 1 < len(kept) < len(resolutions):
        raise ConfigError(
            f"subset {name} has {len(kept)} resolutions; from 2 to {len(resolutions) - 1} different ones are needed. "
            "For all of them name the method parallel."
        )
    chosen = tuple(sorted(kept, reverse=True))
    name = "+".join(map(str, chosen))
    return Method(f"parallel-{name}", name, f"parallel training of {name}", subset=chosen)


def _cropped(methods: Sequence[Method], crop_area: Sequence[float] | str) -> Iterator[Method]:
    low, high = build_config(settings={"crop_area": crop_area}).crop_area or ()
    ending = f"-crop-{low:g}-{high:g}"
    cropping = [method for method in methods if method.fit in (None, "fixres")]
    if not cropping:
        raise ConfigError("crop_area has no effect, because none of the methods trains on crops. Leave it out.")
    for method in cropping:
        yield replace(
            method,
            name=method.name + ending,
            about=f"{method.about}; crops from {low:g} to {high:g} of the area",
            crop_area=(low, high),
            baseline=method.baseline + ending,
            variant=f"crops {low:g}-{high:g}",
        )
