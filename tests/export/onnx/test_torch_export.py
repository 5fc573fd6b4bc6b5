"""onnx_model: names and free sizes, "same" padding, and what can't be converted named with its module."""

import sys
from pathlib import Path

import onnx
import pytest
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from rsconvert.errors import ConfigError, UnsupportedModelError
from rsconvert.export.onnx.torch_export import onnx_model


class Same(nn.Module):
    """Convolutions that pad as TensorFlow does, one of them depthwise, one dilated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv2dSame(3, 4, 3, stride=2)
        self.deep = nn.Sequential(Conv2dSame(4, 4, 5, stride=2, groups=4), nn.ReLU(), Conv2dSame(4, 4, 3, dilation=2))
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.deep(self.stem(x))).mean((2, 3))


def sizes_of(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_same_padding_follows_the_size(tmp_path: Path, run_onnx) -> None:
    torch.manual_seed(0)
    module = Same().eval()
    sizes = ((33, 40), (32, 31), (47, 47), (64, 64))
    inputs = [torch.randn(1, 3, *size) for size in sizes]
    with torch.no_grad():
        expected = [module(x) for x in inputs]
    model = onnx_model(module, torch.randn(2, 3, 64, 64), any_size=True)
    assert sizes_of(model.graph.input[0]) == ["batch", 3, "height", "width"]
    assert sizes_of(model.graph.output[0]) == ["batch", 2]
    assert not any(node.metadata_props for node in model.graph.node)
    onnx.save(model, tmp_path / "same.onnx")
    for x, y in zip(inputs, expected, strict=True):
        torch.testing.assert_close(run_onnx(tmp_path / "same.onnx", x), y, rtol=1e-4, atol=1e-5)


def test_one_size_keeps_the_batch_free(tmp_path: Path, run_onnx) -> None:
    torch.manual_seed(0)
    module = Same().eval()
    model = onnx_model(module, torch.randn(2, 3, 33, 33), any_size=False)
    assert sizes_of(model.graph.input[0]) == ["batch", 3, 33, 33]
    assert isinstance(module.stem, Conv2dSame)
    onnx.save(model, tmp_path / "one.onnx")
    x = torch.randn(3, 3, 33, 33)
    torch.testing.assert_close(run_onnx(tmp_path / "one.onnx", x), module(x).detach(), rtol=1e-4, atol=1e-5)


class Singular(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x).mean(1)


class Decides(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        (Singular(), r"^odd calls aten\._linalg_svd, which the ONNX exporter can't convert; .* another format\.$"),
        (Decides(), r"^torch\.export fails on the network \(\w+: .*\); .* another format\.$"),
    ],
)
def test_what_can_not_be_converted_is_named_in_one_line(inner: nn.Module, words: str) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.odd = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.odd(x)

    with pytest.raises(UnsupportedModelError, match=words) as caught:
        onnx_model(Outer(), torch.randn(2, 3, 8, 8), any_size=True)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"onnxscript is not installed; .* pip install 'rsconvert\[onnx\]'"):
        onnx_model(Same(), torch.randn(2, 3, 8, 8), any_size=True)
