"""Weights of few bits without training: quantized, then new statistics for every BN set."""

from collections.abc import Sequence
from pathlib import Path

import torch

from rsconvert.calibration.calibrate import CalibrationReport, Form, calibrate
from rsconvert.data import Samples
from rsconvert.errors import ConfigError
from rsconvert.quantization import FLOAT_BITS, QuantizationReport, parse_bits, quantize_
from rsconvert.surgery import SwitchableModel

__all__ = ["quantize_calibrated"]


def quantize_calibrated(
    net: SwitchableModel,
    data: str | Path | Samples,
    bits: str,
    resolutions: Sequence[int] | None = None,
    *,
    images: int = 1000,
    form: Form = "population",
    batch_size: int = 64,
    workers: int = 2,
    device: str | torch.device | None = None,
    seed: int = 0,
    data_root: str | None = None,
    skip_broken: int = 0,
    progress: bool = False,
) -> tuple[QuantizationReport, CalibrationReport]:
    """Quantize a network's weights as ``quantize_`` does, and give its BN sets the statistics that come of it.

    All further arguments are those of ``calibrate``.

    Args:
        bits: ``W/32``: without training nothing is known of activations.
        resolutions: whose sets get statistics; None takes them all, the native one too, for its weights are others.
    Raises:
        ConfigError: the bits are malformed, or quantize activations.
        RSConvertError: as ``quantize_`` and ``calibrate``; after an error of the latter the weights are quantized.
    """
    if parse_bits(bits)[1] != FLOAT_BITS:
        raise ConfigError(
            f"bits is {bits}, which quantizes activations, whose bases training alone finds; W/32 is accepted. "
            "Train it: rsconvert finetune --bits."
        )
    quantized = quantize_(net, bits)
    calibrated = calibrate(
        net,
        data,
        net.resolutions if resolutions is None else resolutions,
        images=images,
        form=form,
        batch_size=batch_size,
        workers=workers,
        device=device,
        seed=seed,
        data_root=data_root,
        skip_broken=skip_broken,
        progress=progress,
    )
    return quantized, calibrated
