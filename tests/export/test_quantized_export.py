"""Exports of quantized networks: the same outputs, by stock layers where these can, or a refusal in one line."""

from pathlib import Path

import pytest
import timm
import torch

import rsconvert
from rsconvert.errors import UnsupportedModelError
from rsconvert.surgery import SwitchableModel


@pytest.fixture(scope="module")
def made() -> SwitchableModel:
    torch.manual_seed(0)
    return rsconvert.make_switchable(rsconvert.create_model("test_resnet", num_classes=3), (48, 32)).eval()


def test_stock_timm_runs_weights_of_few_bits(made: SwitchableModel, tmp_path: Path) -> None:
    rsconvert.quantize_(made, "2/32")
    rsconvert.export_timm(made, 32, tmp_path / "timm")
    stock = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(stock(x), made(x))


def test_stock_timm_has_no_activations_of_few_bits(made: SwitchableModel, tmp_path: Path) -> None:
    rsconvert.quantize_(made, "2/2")
    with pytest.raises(UnsupportedModelError, match=r"quantizes activations \(2/2 bits\), which no ordinary conv") as e:
        rsconvert.export_timm(made, 32, tmp_path / "timm")
    assert "\n" not in str(e.value)
    assert not (tmp_path / "timm").exists()


@pytest.mark.parametrize("options", [{}, {"compact": True}, {"resolution": 32}])
def test_float16_of_few_bit_activations_is_refused(made: SwitchableModel, tmp_path: Path, options) -> None:
    rsconvert.quantize_(made, "2/2")
    with pytest.raises(UnsupportedModelError, match=r"quantizes activations \(2/2 bits\); in float16 some"):
        rsconvert.export_onnx(made, tmp_path / "net.onnx", precision="float16", **options)
    assert not [*tmp_path.iterdir()]
