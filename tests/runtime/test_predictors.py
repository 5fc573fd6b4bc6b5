"""What runs photos: its sizes, its crops, its logits; what is refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rsconvert.data import normalize
from rsconvert.errors import CheckpointError, ConfigError, DataError, ResolutionError, UnsupportedModelError
from rsconvert.export import Export
from rsconvert.models import Task
from rsconvert.runtime.predictors import cascade_predictor, chosen_resolution, onnx_predictor, path_predictor
from rsconvert.surgery import Measured, SwitchableModel, make_switchable

VIEWS = torch.randint(0, 256, (3, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net(make_net: Callable[..., SwitchableModel]) -> SwitchableModel:
    net = make_net().eval()
    net.source = replace(net.source, preprocessing=replace(net.source.preprocessing, crop_pct=(0.9, 0.8, 0.7)))
    return net


@torch.no_grad()
def test_a_path_takes_views_of_its_size(net: SwitchableModel) -> None:
    predictor = path_predictor(net, 24)
    assert (predictor.sizes, predictor.crop_pct, predictor.names, predictor.outputs) == ((24,), (0.8,), None, None)
    logits, resolutions = predictor.run([VIEWS])
    assert torch.equal(logits, net.at(24)(normalize(VIEWS, net.source.preprocessing)))
    assert resolutions.tolist() == [24] * 3


@torch.no_grad()
def test_a_cascade_takes_a_view_for_each_stage(net: SwitchableModel) -> None:
    net.measured = Measured(cascade={"stages": [20, 24], "thresholds": [1.0], "outputs": [0, 2]})
    predictor = cascade_predictor(net)
    assert (predictor.sizes, predictor.outputs) == ((20, 24), (0, 2))
    assert predictor.crop_pct == pytest.approx((0.75, 0.8))
    logits, resolutions = predictor.run([VIEWS[..., :20, :20], VIEWS])
    assert resolutions.tolist() == [24] * 3
    torch.testing.assert_close(logits, net.at(24)(normalize(VIEWS, net.source.preprocessing)))


def test_a_path_is_chosen_by_one_thing(net: SwitchableModel) -> None:
    assert [chosen_resolution(net, None), chosen_resolution(net, 20)] == [32, 20]
    with pytest.raises(ConfigError, match=r"resolution is 20, latency_ms 2\.5"):
        chosen_resolution(net, 20, 2.5)
    with pytest.raises(ResolutionError):
        chosen_resolution(net, -1)
    with pytest.raises(ConfigError, match="holds no latencies yet"):
        chosen_resolution(net, None, 2.5)


def test_a_network_of_four_channels_is_refused() -> None:
    class Four(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn, self.fc = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.bn(self.conv(x)).mean((2, 3)))

    with pytest.raises(DataError, match="takes images of 4 channels; a photo has 3"):
        path_predictor(make_switchable(Four(), (32, 24)).eval(), 32)


def test_a_network_of_masks_is_refused(net: SwitchableModel) -> None:
    net.source = replace(net.source, task=Task(name="segmentation"))
    with pytest.raises(UnsupportedModelError, match="gives a class for each position"):
        path_predictor(net, 32)


FACTS = {
    "resolutions": "[32, 16]",
    "mean": "[0.5, 0.5, 0.5]",
    "std": "[0.25, 0.25, 0.25]",
    "interpolation": "bicubic",
    "crop_pct": "[1.0, 0.8]",
    "class_names": '["a", "b"]',
}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets a file be opened that says and takes what is given; its logits are the means of red and green."""

    def open_as(facts: dict[str, str], **bound: Any) -> None:
        export = Export(lambda x: x[:, :2].mean((2, 3)), facts=facts, **bound)
        monkeypatch.setattr("rsconvert.runtime.predictors.open_onnx", lambda path: export)

    return open_as


def test_a_file_says_how_images_are_prepared(opened: Callable[..., None]) -> None:
    opened(FACTS)
    predictor = onnx_predictor("net.onnx", 24)
    assert (predictor.sizes, predictor.interpolation, predictor.names) == ((24,), "bicubic", {0: "a", 1: "b"})
    assert predictor.crop_pct == pytest.approx((0.9,))
    logits, resolutions = predictor.run([VIEWS])
    torch.testing.assert_close(logits, (VIEWS[:, :2].float().mean((2, 3)) / 255 - 0.5) / 0.25)
    assert resolutions.tolist() == [24] * 3
    assert onnx_predictor("net.onnx").sizes == (32,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": None}, r"does not say how its images are prepared \(KeyError: 'mean'\)"),
        ({"std": "[0, 1, 1]"}, r"ConfigError: .*std is"),
        ({"resolutions": "[]"}, "does not say how its images are prepared"),
        ({"crop_pct": "{"}, "does not say how its images are prepared"),
        ({"crop_pct": "[1.0, 0.8, 0.6]"}, "does not say how its images are prepared"),
        ({"class_names": "3"}, "does not say how its images are prepared"),
        ({"class_names": "[" * 100_000}, r"\(ValueError: it is nested too deeply\)"),
    ],
)
def test_a_file_that_does_not_say_it_is_refused(
    opened: Callable[..., None], change: dict[str, Any], words: str
) -> None:
    opened({key: value for key, value in (FACTS | change).items() if value is not None})
    with pytest.raises(CheckpointError, match=words):
        onnx_predictor("net.onnx", 24)


def test_a_file_of_masks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    export = Export(lambda x: x[:, :2], facts=FACTS)
    monkeypatch.setattr("rsconvert.runtime.predictors.open_onnx", lambda path: export)
    with pytest.raises(UnsupportedModelError, match=r"net\.onnx gives a class for each position; .* predict NETWORK"):
        onnx_predictor("net.onnx").run([torch.zeros(1, 3, 32, 32, dtype=torch.uint8)])


def test_a_file_bound_to_numbers_takes_these_alone(opened: Callable[..., None]) -> None:
    opened(FACTS, height=20, width=20)
    assert onnx_predictor("net.onnx").sizes == (20,)
    with pytest.raises(ResolutionError, match=r"net\.onnx takes images of 20 pixels alone, not of 32"):
        onnx_predictor("net.onnx", 32)
    opened(FACTS, batch=4)
    with pytest.raises(ConfigError, match="takes batches of 4 images alone"):
        onnx_predictor("net.onnx")
