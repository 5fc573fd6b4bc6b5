"""quantize: ranges of the activations at each resolution, against those that torch sees; what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import rsconvert
from rsconvert.data import normalize, open_images
from rsconvert.errors import ConfigError, DataError, UnsupportedModelError
from rsconvert.evaluation import validation_loader
from rsconvert.export.onnx.correction import apply_shifts
from rsconvert.export.onnx.ranges import quantize, ranges_at
from rsconvert.export.onnx.rounding import with_rounded_weights
from rsconvert.surgery import Measured, SwitchableModel


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (7, 8, 9, 3), dtype=np.uint8)):
        Image.fromarray(pixels.repeat(8, 0).repeat(8, 1)).save(folder / f"{i}.png")
    return folder


def net_of(scrambled_net, resolutions: tuple[int, ...] = (32, 16)) -> SwitchableModel:
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
    return scrambled_net(nn.Sequential(*body), resolutions)


def test_ranges_are_those_that_torch_sees(scrambled_net, photos: Path, tmp_path: Path) -> None:
    net = net_of(scrambled_net)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    report = quantize(net, photos, images=7, batch_size=3, workers=0)
    assert (report.images, report.resolutions, report.weights) == (7, (32, 16), 4 * 27 + 20)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    rounded = with_rounded_weights(net)
    apply_shifts(rounded, net.measured.int8["shifts"])
    views = next(iter(validation_loader(net, open_images(str(photos)), batch_size=7, workers=0)))[0]
    for side, view in zip((32, 16), views, strict=True):
        x = normalize(view, net.source.preprocessing)
        with torch.no_grad():
            after = rounded.at(side)[:3](x)
            logits = rounded.at(side)(x)
            expected = net.at(side)[:2](x).mean((0, 2, 3))
        torch.testing.assert_close(rounded.at(side)[:2](x).mean((0, 2, 3)), expected, atol=1e-4, rtol=1e-3)
        found = ranges_at(net, side)
        assert report.activations == len(found)
        for name, values in (("images", x), ("logits", logits)):
            assert found[name] == pytest.approx((float(values.min()), float(values.max())), rel=1e-4, abs=1e-4)
        assert max(high for name, (_, high) in found.items() if "relu" in name) == pytest.approx(
            float(after.max()), rel=1e-4
        )
    rsconvert.save(net, tmp_path / "net.safetensors")
    again = rsconvert.load(tmp_path / "net.safetensors", model=net_of(scrambled_net).extract(32))
    assert again.measured.int8 == net.measured.int8


def test_between_two_resolutions_ranges_are_interpolated(scrambled_net) -> None:
    net = net_of(scrambled_net)
    with pytest.raises(ConfigError, match=r"int8 needs the ranges .* rsconvert quantize CHECKPOINT --data DIR"):
        ranges_at(net, 32)
    net.measured = Measured(int8={"ranges": {"32": {"x": [-1.0, 4.0]}, "16": {"x": [-2.0, 8.0]}}})
    assert ranges_at(net, 32) == {"x": (-1.0, 4.0)}
    assert ranges_at(net, 20) == {"x": (-1.75, 7.0)}
    assert ranges_at(net, 8) == {"x": (-2.0, 8.0)}
    net.at(32)[0].weight.data *= 2
    with pytest.raises(ConfigError, match="the network holds none"):
        ranges_at(net, 32)


def test_bad_input_is_refused_in_one_line(scrambled_net, photos: Path, tmp_path: Path) -> None:
    net = net_of(scrambled_net)
    with pytest.raises(ConfigError, match=r"^images is 0, batch_size 16; both must be above 0\.$"):
        quantize(net, photos, images=0)
    with pytest.raises(DataError, match="the data holds no images"):
        quantize(net, tmp_path)
    with pytest.raises(DataError, match="nowhere"):
        quantize(net, tmp_path / "nowhere")
    for dtype in (torch.float64, torch.bfloat16):
        with pytest.raises(UnsupportedModelError, match=r"0\.weight is (float64|bfloat16), .* Call net\.float\(\)"):
            quantize(net_of(scrambled_net).to(dtype), photos, workers=0)
    bare = scrambled_net(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (32, 16))
    with pytest.raises(UnsupportedModelError, match="no convolution or linear layer to quantize"):
        quantize(bare, photos, workers=0)
    assert bare.measured.int8 is None
