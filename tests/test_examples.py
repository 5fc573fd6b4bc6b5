"""docs/examples: each builds, converts, trains and runs by the commands in it."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_dataset
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import rsconvert
from rsconvert.models import create_model
from rsconvert.training import ViewCollator

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
MOBILENETV1 = EXAMPLES / "mobilenetv1.py"
REFINENET = EXAMPLES / "refinenet.py"


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


def test_refinenet_has_the_papers_parameters() -> None:
    with torch.device("meta"):
        model = create_model(f"{REFINENET}:build", num_classes=40)
        assert model(torch.empty(1, 3, 352, 352)).shape == (1, 40, 88, 88)
    channels = [m.num_features for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    learnable = sum(p.numel() for p in model.parameters())
    assert (learnable, len(channels), sum(channels)) == (118_096_232, 104, 52_672)
    # The paper prints 118.20 M with one set's statistics, and 118.31 M for three affine sets.
    assert (learnable + 2 * sum(channels), learnable + 2 * 2 * sum(channels)) == (118_201_576, 118_306_920)


def test_a_thin_refinenet_converts_and_takes_the_weights_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    names = runpy.run_path(str(REFINENET))
    thin = {"backbone": "resnet10t", "width": 4}
    model = create_model(f"{REFINENET}:build", num_classes=3, model_kwargs=thin)
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda one, **_: one.conv1[0].weight.data.fill_(0.5))
    names["load_backbone"](model, "resnet10t")
    assert torch.equal(model.backbone.conv1[0].weight, torch.full_like(model.backbone.conv1[0].weight, 0.5))
    net = rsconvert.make_switchable(model, (64, 32), task="segmentation").eval()
    x = torch.rand(2, 3, 32, 32)
    assert net.source.num_classes == 3
    assert torch.equal(net(x), model.eval()(x))
    assert net(x).shape == (2, 3, 8, 8)


def test_a_detector_is_finetuned_by_a_loop_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = runpy.run_path(str(EXAMPLES / "detection.py"))
    assert len((EXAMPLES / "detection.py").read_text().splitlines()) < 80
    torch.manual_seed(0)
    net = rsconvert.make_switchable(create_model("torchvision/ssdlite320_mobilenet_v3_large", num_classes=2), (96, 64))
    images, targets = names["draw"](8, 96)
    names["finetune"](net, images, targets, epochs=4)
    losses = [float(line.rpartition(" ")[2]) for line in capsys.readouterr().out.splitlines()]
    assert losses[3] < 0.8 * losses[0]
    state = net.state_dict()
    for tensor in ("weight", "running_mean"):
        assert not torch.equal(
            state[f"backbone.features.0.0.1.{tensor}"], state[f"backbone.features.0.0.1.at.64.{tensor}"]
        )
    rsconvert.save(net, tmp_path / "net.safetensors")
    again = rsconvert.load(tmp_path / "net.safetensors")
    for resolution in net.resolutions:
        path = names["at"](net, resolution)
        assert path.transform([images[0]])[0].tensors.shape[-2:] == (resolution, resolution)
        assert torch.equal(path(images[:1])[0]["boxes"], names["at"](again, resolution)(images[:1])[0]["boxes"])


def test_the_parts_of_the_detection_example() -> None:
    names = runpy.run_path(str(EXAMPLES / "detection.py"))
    path = SimpleNamespace(transform=GeneralizedRCNNTransform(800, 1333, [0.0] * 3, [1.0] * 3))
    for width, sides in ((90, (64, 96)), (300, (21, 106))):  # by the short side, then by the long one
        names["at"](SimpleNamespace(at=lambda resolution: path), 64)
        assert tuple(path.transform([torch.rand(3, 60, width)])[0].image_sizes[0]) == sides
    images, targets = names["draw"](4, 96)
    for image, target in zip(images, targets, strict=True):
        left, top, right, bottom = target["boxes"][0].int().tolist()
        assert image[:, top:bottom, left:right].min() >= 0.6
        assert (image >= 0.6).sum() == 3 * (right - left) * (bottom - top)
    found = [{"boxes": target["boxes"] + shift} for target, shift in zip(targets, (0, 0, 2, 60), strict=True)]
    assert names["recall"](lambda _: found, images, targets) == 0.75
    assert names["recall"](lambda _: [{"boxes": torch.empty(0, 4)}] * 4, images, targets) == 0
