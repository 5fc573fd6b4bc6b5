"""predict against the network's own logits, by path, budget, cascade and ONNX file; what it prints; what is refused."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import rsconvert
from rsconvert.errors import ConfigError, DataError, ResolutionError, TrainingError
from rsconvert.runtime import PredictionList
from rsconvert.surgery import Measured, SwitchableModel

CLASSES = ("ant", "bee", "cat")


def photo(seed: int) -> Any:
    """Smooth colours, 40 × 56."""
    small = np.random.default_rng(seed).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((56, 40), Image.Resampling.BICUBIC))


PHOTOS = [photo(seed) for seed in range(5)]


@pytest.fixture
def net(make_net: Callable[..., SwitchableModel]) -> SwitchableModel:
    """A network of 32, 24 and 16 whose sets differ, with names of its classes."""
    net = make_net().eval()
    generator = torch.Generator().manual_seed(1)
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point() and "var" not in name:
            tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.5)
    net.source = replace(
        net.source, class_names=CLASSES, preprocessing=replace(net.source.preprocessing, crop_pct=(0.9, 0.8, 0.7))
    )
    return net


@torch.no_grad()
def expected(net: SwitchableModel, resolution: int) -> np.ndarray[Any, Any]:
    """Probabilities (N, classes), image by image."""
    return np.concatenate([net(net.preprocess(one, resolution)).softmax(1).numpy() for one in PHOTOS])


def probabilities(found: PredictionList) -> np.ndarray[Any, Any]:
    rows = np.zeros((len(found), len(CLASSES)))
    for row, prediction in zip(rows, found, strict=True):
        for item in prediction.classes:
            row[item.index] = item.probability
    return rows


@pytest.mark.parametrize("resolution", [None, 16, 20])
def test_it_gives_the_classes_of_the_path(net: SwitchableModel, resolution: int | None) -> None:
    net.train()
    found = rsconvert.predict(net, PHOTOS, resolution=resolution, batch_size=2, workers=0, device="cpu")
    assert net.training
    net.eval()
    shares = expected(net, resolution or 32)
    np.testing.assert_allclose(probabilities(found), shares, atol=1e-5)
    for prediction, row in zip(found, shares, strict=True):
        assert prediction.resolution == (resolution or 32)
        assert [item.index for item in prediction.classes] == np.argsort(-row).tolist()
        assert prediction.name == CLASSES[row.argmax()]
        assert prediction.probability == pytest.approx(row.max(), abs=1e-5)
    assert [prediction.image for prediction in found] == ["0", "1", "2", "3", "4"]


def test_a_preprocessed_image_is_what_predict_runs(net: SwitchableModel) -> None:
    x = net.double().preprocess(PHOTOS[0], 24)
    assert (x.shape, x.dtype) == ((1, 3, 24, 24), torch.float64)
    with torch.no_grad():
        row = net(x)[0].softmax(0)
    (found,) = rsconvert.predict(net, PHOTOS[0], resolution=24, device="cpu")
    assert found.classes[0].index == int(row.argmax())
    assert found.probability == pytest.approx(float(row.max()), abs=1e-6)
    with pytest.raises(ResolutionError):
        net.preprocess(PHOTOS[0], 0)


def test_a_budget_chooses_the_path(net: SwitchableModel, table: Callable[..., Any]) -> None:
    rsconvert.evaluation.store_costs(net, table((32, 3.0, 80.0), (24, 2.0, 90.0), (16, 1.0, 70.0)))
    found = rsconvert.predict(net, PHOTOS[:2], latency_ms=2.5, device="cpu")
    assert [prediction.resolution for prediction in found] == [24, 24]


def test_a_cascade_chooses_for_each_image(net: SwitchableModel) -> None:
    low, high = expected(net, 16), expected(net, 32)
    limit = float(np.sort(low.max(1))[2:4].mean())  # two of five are sure
    net.measured = Measured(cascade={"stages": [16, 32], "thresholds": [limit]})
    found = rsconvert.predict(net, PHOTOS, cascade=True, device="cpu", batch_size=3, workers=0)
    sure = low.max(1) >= limit
    assert [p.resolution for p in found] == [16 if yes else 32 for yes in sure]
    np.testing.assert_allclose(probabilities(found), np.where(sure[:, None], low, high), atol=1e-5)
    with pytest.raises(ConfigError, match="cascade is set, which chooses"):
        rsconvert.predict(net, PHOTOS, cascade=True, resolution=16)


def test_an_onnx_file_predicts_what_the_network_does(net: SwitchableModel, tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    rsconvert.export_onnx(net, file, 20)
    found = rsconvert.predict(file, PHOTOS)
    np.testing.assert_allclose(probabilities(found), expected(net, 20), atol=1e-4)
    assert {p.name for p in found} <= set(CLASSES)
    assert {p.resolution for p in found} == {20}
    for name, value in (("latency_ms", 2.0), ("cascade", True), ("device", "cpu"), ("amp", "off")):
        with pytest.raises(ConfigError, match=f"{name} is {value} for an ONNX file"):
            rsconvert.predict(file, PHOTOS, **{name: value})  # type: ignore[arg-type]


def test_a_class_map_names_the_outputs_among_which_it_predicts(net: SwitchableModel, tmp_path: Path) -> None:
    (tmp_path / "map.txt").write_text("n02102040 2\nmy dog 0\n")
    found = rsconvert.predict(net, PHOTOS, class_map=tmp_path / "map.txt", device="cpu")
    shares = expected(net, 32)[:, [2, 0]]
    shares /= shares.sum(1, keepdims=True)
    for prediction, row in zip(found, shares, strict=True):
        names = ["English springer", "my dog"] if row[0] >= row[1] else ["my dog", "English springer"]
        assert [item.name for item in prediction.classes] == names
        assert prediction.probability == pytest.approx(row.max(), abs=1e-5)
    for text, words in (("a 3", "the class map has|a target is 3"), ("", "is empty")):
        (tmp_path / "map.txt").write_text(text)
        with pytest.raises(DataError, match=words):
            rsconvert.predict(net, PHOTOS[0], class_map=tmp_path / "map.txt", device="cpu")


def test_the_result_as_text_csv_and_data(net: SwitchableModel) -> None:
    found = rsconvert.predict(net, PHOTOS[:2], top_k=2, device="cpu")
    title, *lines = str(found).splitlines()
    assert title.split() == ["image", "resolution", "class", "probability", "(%)"]
    best = found[0].classes[0]
    assert lines[0].split() == ["0", "32", best.name, f"{100 * best.probability:.1f}"]
    assert lines[1].split()[0] in CLASSES
    assert (len(lines), repr(found)) == (4, "<predictions for 2 images>")
    assert found._repr_html_().count("<tr>") == 5
    rows = list(csv.DictReader(found.as_csv().splitlines()))
    assert [(row["image"], row["rank"]) for row in rows] == [("0", "1"), ("0", "2"), ("1", "1"), ("1", "2")]
    assert float(rows[0]["probability"]) == pytest.approx(best.probability)
    facts = json.loads(json.dumps(found.to_dict()))
    assert facts["images"][1]["classes"][0]["name"] == found[1].name


def test_outputs_without_names_are_numbers(net: SwitchableModel) -> None:
    net.source = replace(net.source, class_names=None)
    (found,) = rsconvert.predict(net, PHOTOS[0], top_k=9, device="cpu")
    assert found.name is None
    assert sorted(item.label for item in found.classes) == ["0", "1", "2"]


def test_mistakes_are_named(net: SwitchableModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="top_k is 0"):
        rsconvert.predict(net, PHOTOS[0], top_k=0)
    with pytest.raises(ConfigError, match="the network has no cascade"):
        rsconvert.predict(net, PHOTOS[0], cascade=True, device="cpu")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no photo")
    with pytest.raises(DataError, match=r"broken.jpg can't be decoded"):
        rsconvert.predict(net, [PHOTOS[0], tmp_path / "broken.jpg"], device="cpu")
    with torch.no_grad():
        net.at(32).fc.bias[1] = float("nan")
    with pytest.raises(TrainingError, match="logits for 0 are not all finite"):
        rsconvert.predict(net, PHOTOS, device="cpu")
