"""Fits: the networks of a comparison that need no epochs, but seconds of work, or none."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import nn

from rsconvert.calibration import calibrate
from rsconvert.checkpoint import load, subset
from rsconvert.evaluation import mapped_outputs
from rsconvert.models import example_input
from rsconvert.study.comparison.plan import Plan, PlannedRun
from rsconvert.surgery import SwitchableModel, batchnorms, eval_mode, make_switchable
from rsconvert.training import extract_features, fit_classifier

__all__ = ["FITS", "last_batchnorm"]


def _source(plan: Plan, run: PlannedRun) -> SwitchableModel:
    """Return the network as it is."""
    return subset(plan.net, run.resolutions)


def _calibrated(plan: Plan, run: PlannedRun) -> SwitchableModel:
    """Give all resolutions but the native one statistics of their own."""
    net, config = subset(plan.net, run.resolutions), run.config
    calibrate(net, plan.samples[0], workers=config.workers, device=config.device, seed=run.seed)
    return net


def _heads(plan: Plan, run: PlannedRun) -> SwitchableModel:
    """Fit the classifier to features of the run's resolution."""
    return _with_fitted_classifier(subset(plan.net, run.resolutions), plan, run)


def _fixres(plan: Plan, run: PlannedRun) -> SwitchableModel:
    """Adapt the finished I-Net of the native resolution to the run's, on crops as of the test (Touvron et al. 2019).

    The statistics of the last BatchNorm become those of its inputs, with fixed γ and β; then the classifier learns. The
    layers before the last BatchNorm rest, so that both orders of the two steps have the same end.
    """
    native, train = plan.net.native, plan.samples[0]
    place = plan.folder / f"{run.method.baseline}-{native}" / f"seed-{run.seed}" / "last.safetensors"
    trained = load(place, plan.net.extract(native), build=plan.net.build)
    net = make_switchable(trained.extract(native), run.resolutions, build=plan.net.build)
    own = subset(plan.net, run.resolutions).source
    net.source = replace(trained.source, preprocessing=own.preprocessing)
    last = last_batchnorm(net.at(net.native), net.native)
    workers, device = run.config.workers, run.config.device
    calibrate(
        net, train, run.resolutions, images=len(train), layers=[last], workers=workers, device=device, seed=run.seed
    )
    return _with_fitted_classifier(net, plan, run)


FITS: Mapping[str, Callable[[Plan, PlannedRun], SwitchableModel]] = {
    "source": _source,
    "calibrated": _calibrated,
    "heads": _heads,
    "fixres": _fixres,
}
"""What makes the network of a run, by the fit of its method."""


def _with_fitted_classifier(net: SwitchableModel, plan: Plan, run: PlannedRun) -> SwitchableModel:
    config, train = run.config, plan.samples[0]
    features = extract_features(
        net,
        train,
        outputs=mapped_outputs(train, config.class_map),
        batch_size=max(64, config.batch_size),
        workers=config.workers,
        device=config.device,
        amp=config.amp,
    )
    fit_classifier(net, features, seed=run.seed)
    return net


@torch.no_grad()
def last_batchnorm(path: nn.Module, resolution: int) -> str:
    """Return the name of the BatchNorm that runs last."""
    ran: list[str] = []
    handles = [
        bn.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, bn in batchnorms(path).items()
    ]
    try:
        with eval_mode([path]):
            path(example_input(path, resolution))
    finally:
        for handle in handles:
            handle.remove()
    return ran[-1]
