"""The facts of the images, for a trained resolution and between two."""

import json
from dataclasses import replace

import pytest

import rsconvert
from rsconvert.data import Preprocessing
from rsconvert.export.facts import image_facts


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
