"""docs/examples: each builds, converts and runs by the commands in it."""

from pathlib import Path

import pytest
import torch

import rsconvert
from rsconvert.models import create_model

MOBILENETV1 = Path(__file__).parents[1] / "docs" / "examples" / "mobilenetv1.py"


def test_a_file_of_ones_own_builds_converts_and_runs() -> None:
    model = create_model(f"{MOBILENETV1}:build").eval()
    assert sum(p.numel() for p in model.parameters()) == 470_072
    assert {m.eps for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-3}
    net = rsconvert.make_switchable(model, (64, 32)).eval()
    assert sum(1 for _ in net.switchable_bns()) == 27
    for resolution in net.resolutions:
        x = torch.rand(1, 3, resolution, resolution)
        assert torch.equal(net(x), model(x))
        assert net(x).shape == (1, 1000)


@pytest.mark.parametrize(("arguments", "parameters"), [({"num_classes": 10}, 215_642), ({}, 470_072)])
def test_its_classes_can_be_chosen(arguments: dict[str, int], parameters: int) -> None:
    assert sum(p.numel() for p in create_model(f"{MOBILENETV1}:build", **arguments).parameters()) == parameters
