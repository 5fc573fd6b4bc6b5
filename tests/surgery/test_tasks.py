"""Models of other tasks than classification: dictionaries out, lists in, clips, pairs of images."""

import copy

import pytest
import torch
from torch import Tensor, nn

import rsconvert
from rsconvert.errors import ResolutionError, UnsupportedModelError
from rsconvert.evaluation import multiply_adds
from rsconvert.models import Task, create_model
from rsconvert.surgery import make_switchable


def test_segmentation_returns_its_dictionary_at_the_size_of_the_image(write, write_all, image) -> None:
    model = create_model("torchvision/lraspp_mobilenet_v3_large", num_classes=4)
    net = write_all(make_switchable(model, (64, 32))).eval()
    for resolution in (64, 32):
        x = image(resolution)
        own = write(copy.deepcopy(model), resolution).eval()
        assert net(x)["out"].shape == (2, 4, resolution, resolution)
        assert torch.equal(net(x)["out"], own(x)["out"])
    assert multiply_adds(net.at(32), 32) < multiply_adds(net.at(64), 64)


def test_the_task_is_recognised_or_said(tiny, image, tmp_path) -> None:
    model = create_model("torchvision/lraspp_mobilenet_v3_large", num_classes=4)
    net = make_switchable(model, (64, 32), task={"ignore_index": 7})
    rsconvert.save(net, tmp_path / "net.safetensors")
    source = rsconvert.load(tmp_path / "net.safetensors").source
    assert (source.task, source.num_classes) == (Task(name="segmentation", output="out", ignore_index=7), 4)
    dense = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 1))
    assert make_switchable(dense, (16, 8)).source.task == Task()
    source = make_switchable(dense, (16, 8), task="segmentation").source
    assert (source.task, source.num_classes) == (Task(name="segmentation", ignore_index=255), 6)
    with pytest.raises(UnsupportedModelError, match=r"shape \(1, 5\); logits \(N, classes, H, W\) are needed"):
        make_switchable(tiny(), (32, 24), task="segmentation")


def test_heads_that_train_alone_are_private_too(image) -> None:
    model = create_model("torchvision/fcn_resnet50", num_classes=3, model_kwargs={"aux_loss": True})
    net = make_switchable(model, (64, 32))
    assert net.report is not None
    assert {record.found for record in net.report.batchnorms} == {"graph"}
    assert "aux_classifier.1.at.32.weight" in net.state_dict()
    out = net.train()(image(32))
    assert set(out) == {"out", "aux"}
    (out["out"].mean() + out["aux"].mean()).backward()
    assert net.get_parameter("aux_classifier.1.at.32.weight").grad is not None
    assert net.get_parameter("aux_classifier.1.weight").grad is None


@pytest.fixture(scope="module")
def detector() -> nn.Module:
    return create_model("torchvision/ssdlite320_mobilenet_v3_large")


def test_a_detector_resizes_inside_and_its_path_is_chosen_by_the_caller(detector, write, write_all, tmp_path) -> None:
    net = write_all(make_switchable(detector, (128, 64))).eval()
    images = [torch.rand(3, 90, 70), torch.rand(3, 60, 80)]
    with pytest.raises(ResolutionError, match=r"Choose the path yourself: net\.at\(resolution\)"):
        net(images)
    assert net.at(64).transform.min_size == (320,)
    rsconvert.save(net, tmp_path / "net.safetensors")
    again = rsconvert.load(tmp_path / "net.safetensors").eval()
    features = {}
    for resolution in (128, 64):
        own = write(copy.deepcopy(detector), resolution).eval()
        found, wanted, loaded = net.at(resolution)(images), own(images), again.at(resolution)(images)
        for mine, theirs, read in zip(found, wanted, loaded, strict=True):
            assert all(torch.equal(mine[key], theirs[key]) and torch.equal(mine[key], read[key]) for key in theirs)
        features[resolution] = net.at(resolution).backbone(torch.stack([images[0][:, :64, :64]]))["0"]
    assert not torch.equal(features[128], features[64])


def test_a_detector_is_told_to_save_nothing_by_itself(detector) -> None:
    net = make_switchable(detector, (128, 64))
    assert net.report is not None
    assert any("resizes inside" in warning for warning in net.report.warnings)
    assert multiply_adds(net.at(64), 64) == multiply_adds(net.at(128), 128)
    net.at(64).transform.fixed_size = (64, 64)
    assert multiply_adds(net.at(64), 64) < multiply_adds(net.at(128), 128) / 8
    assert net.source.preprocessing.mean == (0.0, 0.0, 0.0)  # it normalizes inside, too


def test_a_clip_chooses_by_its_last_two_sides() -> None:
    net = make_switchable(create_model("torchvision/mc3_18", num_classes=3), (48, 32)).eval()
    clip = torch.rand(1, 3, 4, 32, 32)
    assert torch.equal(net(clip), net.at(32)(clip))


class Pair(nn.Module):
    """Two images in, as for optical flow, and a tensor that is no image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
        return self.bn(self.conv(first - second)) * weight.view(1, -1, 1, 1)


def test_other_arguments_are_given_by_example(image) -> None:
    def example(resolution: int) -> tuple[Tensor, Tensor, Tensor]:
        return image(resolution), image(resolution).flip(0), torch.ones(4)

    with pytest.raises(ResolutionError, match="Give it images that it takes by example="):
        make_switchable(Pair(), (64, 32))
    net = make_switchable(Pair(), (64, 32), example=example).eval()
    assert net.report is not None
    assert net.report.exact == {64: True, 32: True}
    assert torch.equal(net(*example(32)), net.at(32)(*example(32)))
