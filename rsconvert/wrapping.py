"""A name becomes a switchable network; what the conversion did, as text and as plain data."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rsconvert.checkpoint import fill_from_rsnets
from rsconvert.data import Preprocessing, crop_shares
from rsconvert.errors import ConfigError, ResolutionError
from rsconvert.evaluation import multiply_adds
from rsconvert.models import Source, Task, create_model, is_file_name, source_of, unfilled
from rsconvert.surgery import (
    ConversionReport,
    SwitchableModel,
    check_resolutions,
    check_switchable,
    examine,
    make_switchable,
)
from rsconvert.text import plain

__all__ = ["Conversion", "conversion_of", "refusal", "wrap"]


def wrap(
    name: str,
    resolutions: Sequence[int],
    *,
    pretrained: bool | None = None,
    weights: str | Path | None = None,
    rsnets: str | Path | None = None,
    num_classes: int | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    task: Mapping[str, Any] | None = None,
    private: Collection[str] = ("bn",),
    large_head: bool = False,
    on_refusal: Callable[[ConversionReport], None] | None = None,
) -> SwitchableModel:
    """Return the network of a model's name; nothing is downloaded for a model that can't be converted.

    Args:
        pretrained: download the library's weights; None does so where nothing else gives the values.
        rsnets: a checkpoint of the paper's public release.
        preprocessing: values that override those of the weights; None among them overrides nothing. ``crop_pct`` may
            be a table by resolution, from which those that it leaves out are interpolated.
        task: values that override those of the recognised task; None among them overrides nothing.
        private, large_head: as for `make_switchable`.
        on_refusal: takes the report on a model that does not work at all resolutions, before the error.
    Raises:
        ConfigError: several things give the values, or one of the arguments is unusable.
        UnsupportedModelError, ResolutionError, CheckpointError: as the functions that it calls.
    """
    download = _downloads(name, rsnets, pretrained, weights)
    own = _own_values(preprocessing or {}, resolutions)
    with unfilled() if download else nullcontext():
        model = create_model(name, weights=weights, num_classes=num_classes, model_kwargs=model_kwargs)
    _check_channels(own, source_of(model).preprocessing.channels)
    try:
        if download:
            check_switchable(model, resolutions, private, large_head)
            model = create_model(
                name, pretrained=True, weights=weights, num_classes=num_classes, model_kwargs=model_kwargs
            )
        net = make_switchable(model, resolutions, task=_given(task), private=private, large_head=large_head)
    except ResolutionError:
        if on_refusal is not None:
            on_refusal(examine(model, resolutions))
        raise
    if rsnets is not None:
        fill_from_rsnets(net, rsnets)
    net.source = replace(net.source, preprocessing=replace(net.source.preprocessing, **own))
    return net


def _downloads(name: str, rsnets: str | Path | None, pretrained: bool | None, weights: str | Path | None) -> bool:
    """Return whether the library's weights give the values; a ConfigError says that several things do."""
    if rsnets is not None and (pretrained or weights is not None):
        raise ConfigError(f"rsnets is {rsnets}, together with pretrained or weights; one of them is accepted.")
    given = weights is not None or rsnets is not None or is_file_name(name)
    return not given if pretrained is None else pretrained


def _own_values(preprocessing: Mapping[str, Any], resolutions: Sequence[int]) -> dict[str, Any]:
    """Return the values that are given, crop_pct as one number or one per resolution."""
    own = _given(preprocessing)
    table, trained = own.get("crop_pct"), check_resolutions(resolutions)
    if isinstance(table, Mapping):
        if not table or not table.keys() <= {*trained}:
            raise ConfigError(
                f"crop_pct is {plain(table) or 'empty'}; numbers for trained resolutions are accepted, here "
                f"{plain(trained)}. Those left out are interpolated."
            )
        known = sorted(table, reverse=True)
        shares = Preprocessing(crop_pct=tuple(table[r] for r in known))
        own["crop_pct"] = crop_shares(shares, known, trained)
    return own


def _check_channels(own: Mapping[str, Any], channels: int) -> None:
    for name in ("mean", "std"):
        if len(own.get(name, range(channels))) != channels:
            raise ConfigError(
                f"{name} is {plain(own[name])}; a number for each channel of the model's images is needed, and these "
                f"have {channels}."
            )


def _given(values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (values or {}).items() if value is not None}


@dataclass(frozen=True)
class Conversion:
    """What a conversion did, and what a forward of one image costs at each resolution."""

    report: ConversionReport
    source: Source
    converted: int
    multiply_adds: dict[int, int]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, without the report on each BatchNorm."""
        report, costs = self.report, self.multiply_adds
        return {
            "batchnorms": len(report.batchnorms) + len(report.unconverted),
            "converted": self.converted,
            "resolutions": {str(r): {"exact": report.exact[r], "multiply_adds": cost} for r, cost in costs.items()},
            "parameters": report.parameters,
            "parameters_before": report.parameters_before,
            "heads": list(report.heads),
            "head_parameters": report.head_parameters,
            "refused": [r for r, same in report.exact.items() if not same],
            "weights": self.source.weights,
            "new_classifier": list(self.source.new_classifier),
            "task": self.source.task.name,
            **vars(self.source.preprocessing),
        }

    def __str__(self) -> str:
        source, costs = self.source, self.multiply_adds
        lines = [str(self.report), "multiply-adds: " + ", ".join(f"{r} {c / 1e6:.1f} M" for r, c in costs.items())]
        lines += [f"{key}: {plain(value)}" for key, value in vars(source.preprocessing).items()]
        if (channels := source.preprocessing.channels) != 3:
            photos = "photos are read in grey" if channels == 1 else "photos can't be read"
            lines.append(f"channels: {channels}; {photos}; what is not given of mean and std is the average of 3")
        if source.task != Task():
            lines.append(f"task: {source.task}")
        if source.weights is not None:
            lines.append(f"weights: {source.weights}")
        if source.new_classifier:
            lines.append(f"new classifier, starting at zero: {', '.join(source.new_classifier)}")
        return "\n".join(lines)


def conversion_of(net: SwitchableModel) -> Conversion:
    """Return what made a network that `wrap` or `make_switchable` returned."""
    assert net.report is not None
    costs = {r: multiply_adds(net.at(r), r) for r in net.resolutions}
    return Conversion(net.report, net.source, sum(1 for _ in net.switchable_bns()), costs)


def refusal(report: ConversionReport) -> dict[str, Any]:
    """Return as plain data what a model holds whose resolutions don't all work."""
    return {
        "batchnorms": len(report.batchnorms) + len(report.unconverted),
        "converted": 0,
        "resolutions": {str(r): {"works": r in report.works} for r in sorted([*report.works, *report.refused])[::-1]},
        "refused": list(report.refused),
        "report": report.to_dict(),
    }
