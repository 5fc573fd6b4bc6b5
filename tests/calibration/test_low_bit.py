"""Weights of few bits without training: statistics that fit them, and what is refused."""

import copy

import pytest
import torch

from rsconvert.calibration import calibrate, quantize_calibrated
from rsconvert.data import Samples
from rsconvert.errors import ConfigError
from rsconvert.quantization import layout_of, quantize_
from rsconvert.surgery import SwitchableModel
from tests.calibration.test_calibrate import Photos


@pytest.fixture
def samples() -> Samples:
    return Samples(Photos(), "photos", None)


def test_it_is_quantized_and_then_calibrated_at_every_resolution(net: SwitchableModel, samples: Samples) -> None:
    other = copy.deepcopy(net)
    quantized, calibrated = quantize_calibrated(net, samples, "4/32", images=4, workers=0, device="cpu")
    assert quantized.layers == layout_of(net)
    assert set(layout_of(net).values()) == {(4, 32)}
    assert set(calibrated.resolutions) == set(net.resolutions)
    quantize_(other, "4/32")
    calibrate(other, samples, other.resolutions, images=4, workers=0, device="cpu")
    one, two = net.state_dict(), other.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("bits", "match"), [("4/4", "which quantizes activations, whose bases"), ("x", "bits is 'x'")])
def test_bits_that_do_without_training_alone(net: SwitchableModel, samples: Samples, bits: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        quantize_calibrated(net, samples, bits, images=4, workers=0)
    assert layout_of(net) == {}
