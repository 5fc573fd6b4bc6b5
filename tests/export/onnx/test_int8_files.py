"""int8 files: static and switching ones agree with each other, and with the network within their precision."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from PIL import Image
from torch import Tensor, nn

from rsconvert.data import normalize, open_images
from rsconvert.errors import CheckpointError, ConfigError
from rsconvert.evaluation import validation_loader
from rsconvert.export import export_onnx, quantize, verify_export
from rsconvert.export.onnx.plain_graphs import PlainGraphs
from rsconvert.surgery import SwitchableModel


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (8, 8, 9, 3), dtype=np.uint8)):
        Image.fromarray(pixels.repeat(8, 0).repeat(8, 1)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def net(scrambled_net, photos: Path) -> SwitchableModel:
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16)]
    head = [nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)]
    net: SwitchableModel = scrambled_net(nn.Sequential(*body, *head), (64, 32))
    quantize(net, photos, images=8, workers=0)
    return net


@pytest.fixture(scope="module")
def file(net: SwitchableModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "net.onnx"
    export_onnx(net, path, precision="int8")
    return path


def images(net: SwitchableModel, photos: Path, side: int) -> Tensor:
    views, _ = next(iter(validation_loader(net, open_images(str(photos)), (side,), batch_size=8, workers=0)))
    return normalize(views[0], net.source.preprocessing)


def test_the_switching_file_computes_what_the_plain_ones_do(net, file, photos, tmp_path, run_onnx) -> None:
    export_onnx(net, tmp_path / "plain.onnx", (64, 48, 32), precision="int8")
    for side in (64, 48, 32):
        x = images(net, photos, side)
        plain = run_onnx(tmp_path / f"plain-{side}.onnx", x)
        torch.testing.assert_close(run_onnx(file, x), plain, rtol=1e-5, atol=1e-5)
        expected = net(x).detach()
        difference = (plain - expected).abs().amax() / expected.abs().amax()
        assert 1e-5 < difference < 0.05


def test_it_says_what_it_is(net: SwitchableModel, file: Path) -> None:
    facts = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert (facts["precision"], json.loads(facts["branches"]), facts["opset"]) == ("int8", [64, 48, 32], "18")
    held = onnx.load(file).graph.initializer
    assert not [t.name for t in held if t.data_type == TensorProto.FLOAT and len(t.dims) > 1]
    assert verify_export(file, net).tolerance == 2.0


def test_a_compact_file_has_branches_too(net, file, tmp_path: Path, run_onnx, image) -> None:
    export_onnx(net, tmp_path / "compact.onnx", compact=True, branches=(64, 32), precision="int8")
    for side in (64, 32):
        x = image(side)
        torch.testing.assert_close(run_onnx(tmp_path / "compact.onnx", x), run_onnx(file, x), rtol=1e-5, atol=1e-5)


def test_a_reduced_range_has_weights_of_7_bits(net: SwitchableModel, tmp_path: Path) -> None:
    export_onnx(net, tmp_path / "net.onnx", 32, precision="int8", reduce_range=True)
    held = onnx.load(tmp_path / "net.onnx").graph.initializer
    values = [numpy_helper.to_array(t) for t in held if t.data_type == TensorProto.INT8 and len(t.dims) > 1]
    assert {int(abs(v.astype(int)).max()) for v in values} == {64}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "int4"}, r"precision is 'int4'; float32, float16, int8 are accepted"),
        ({"reduce_range": True}, r"reduce_range is set for precision float32, where it has no effect"),
        ({"precision": "int8", "compact": True, "resolution": 32}, r"compact is set for the resolutions \[32\]"),
        ({"precision": "int8", "compact": True, "branches": (48,)}, r"compact is set for the one branch 48; several"),
        ({"precision": "int8", "shared_weights": True, "resolution": (64, 32)}, r"shared_weights is set for precision"),
    ],
)
def test_options_without_effect_are_refused(net: SwitchableModel, tmp_path: Path, options, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        export_onnx(net, tmp_path / "net.onnx", **options)


def test_a_graph_that_computes_something_else_is_found(net, tmp_path: Path, monkeypatch) -> None:
    fill = PlainGraphs.at

    def spoiled(graphs: PlainGraphs, resolution: int) -> onnx.ModelProto:
        return fill(graphs, 64 if resolution == 32 else resolution)

    monkeypatch.setattr(PlainGraphs, "at", spoiled)
    with pytest.raises(CheckpointError, match=r"the float graph of 32 disagrees with the network at 32"):
        export_onnx(net, tmp_path / "net.onnx", (64, 32), precision="int8")
    assert not [*tmp_path.iterdir()]


def test_a_network_without_ranges_is_refused(scrambled_net, tmp_path: Path) -> None:
    net = scrambled_net(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(2)))
    with pytest.raises(ConfigError, match=r"the network holds none; .* rsconvert quantize CHECKPOINT --data DIR"):
        export_onnx(net, tmp_path / "net.onnx", precision="int8")
    assert not [*tmp_path.iterdir()]
