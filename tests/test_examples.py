"""docs/examples: each builds, converts, trains and runs by the commands in it."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_dataset

import rsconvert
from rsconvert.models import create_model
from rsconvert.training import ViewCollator

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
MOBILENETV1 = EXAMPLES / "mobilenetv1.py"


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


# timm leaves the files that it reads to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_of_timm_trains_a_network_that_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for place, name in enumerate(("green", "red")):
        (tmp_path / "train" / name).mkdir(parents=True)
        for index in range(16):
            pixels = rng.integers(0, 150, (40, 50, 3), dtype=np.uint8)
            pixels[..., 1 - place] += 100
            Image.fromarray(pixels).save(tmp_path / "train" / name / f"{index}.png")
    torch.manual_seed(0)
    net = rsconvert.make_switchable(rsconvert.create_model("test_resnet", num_classes=2), (48, 32))
    data = create_dataset("", root=str(tmp_path), split="train")
    train = runpy.run_path(str(EXAMPLES / "timm_training.py"))["train"]
    average = train(net, data, epochs=4, batch_size=8, lr=0.05, workers=0)
    assert len(capsys.readouterr().out.splitlines()) == 4
    views, target = ViewCollator(net)([data[index] for index in range(32)])
    for resolution, view in zip(net.resolutions, views, strict=True):
        hits = average.at(resolution)(view).argmax(1) == target
        assert hits.float().mean() > 0.9
    assert net.alpha.detach().unique().numel() == 2
    rsconvert.save(average, tmp_path / "net.safetensors")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(rsconvert.load(tmp_path / "net.safetensors")(x), average(x))
