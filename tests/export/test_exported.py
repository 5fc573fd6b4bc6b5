"""What an export reports of its files, and the facts of the images, for a trained resolution and between two."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

import rsconvert
from rsconvert.data import Preprocessing
from rsconvert.export import Agreement, Exported, Verification
from rsconvert.export.exported import image_facts
from rsconvert.surgery import FoldReport


def test_an_export_of_one_file_is_a_path_to_it() -> None:
    assert os.fspath(Exported({Path("a.pt2"): 48})) == "a.pt2"
    with pytest.raises(ValueError, match="unpack"):
        os.fspath(Exported({Path("a.pt2"): 48, Path("b.pt2"): 32}))


def test_the_text_names_each_file_between_its_reports() -> None:
    one, other = Path("a-48.onnx"), Path("a-32.onnx")
    verified = Verification(1e-4, {"48": Agreement(0.0, 6, 6, 6)})
    folded = FoldReport(32, {"bn1": "conv1"}, {}, 1e-7)
    text = str(Exported({one: 48, other: 32}, {other: folded}, {one: verified}, Path("a.weights")))
    assert text == f"{verified}\nwrote a-48.onnx\nwrote a-32.onnx\n{folded}\nwrote a.weights, which these files read"


@pytest.mark.parametrize(("resolution", "expected"), [(64, 0.7), (48, 0.8), (32, 0.9), (44, 0.8), (16, 0.9), (99, 0.7)])
def test_the_facts_are_those_of_the_nearest_resolution(resolution: int, expected: float) -> None:
    net = rsconvert.make_switchable(rsconvert.create_model("test_efficientnet", num_classes=2), (64, 48, 32))
    preprocessing = Preprocessing(
        mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), interpolation="bicubic", crop_pct=(0.7, 0.8, 0.9)
    )
    net.source = replace(net.source, preprocessing=preprocessing, class_names=("a", "b"))
    facts = {
        **{"architecture": "test_efficientnet", "num_classes": 2, "resolution": resolution, "interpolation": "bicubic"},
        **{"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "crop_pct": expected, "class_names": ["a", "b"]},
    }
    assert json.loads(json.dumps(image_facts(net, resolution))) == facts
