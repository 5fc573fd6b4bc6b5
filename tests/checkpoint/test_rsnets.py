"""A checkpoint of the release computes, as a switchable network, what its own equations say.

The state dicts here are built by the release's key names and shapes, the forwards written out in functions of torch.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import rsconvert
from rsconvert.checkpoint import fill_from_rsnets
from rsconvert.errors import CheckpointError, ResolutionError, RSConvertError, UnsupportedModelError
from rsconvert.surgery import SwitchableModel

SIDES = (96, 80, 64, 48, 32)
CLASSES = 7
State = dict[str, Tensor]
# Expansion, channels, blocks, stride.
MOBILENET = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class Release:
    """The layers of the release by name, with random values; each forward is that of one of its S paths."""

    def __init__(self, sets: int) -> None:
        self.state: State = {}
        self.sets = sets
        self.generator = torch.Generator().manual_seed(3)
        self.path = 0

    def conv(self, name: str, x: Tensor, out: int, kernel: int, stride: int = 1, groups: int = 1) -> Tensor:
        key, shape = f"{name}.module.weight", (out, x.shape[1] // groups, kernel, kernel)
        if key not in self.state:
            spread = (2 / (kernel * kernel * shape[1])) ** 0.5
            self.state[key] = spread * torch.randn(shape, generator=self.generator)
        return F.conv2d(x, self.state[key], None, stride, kernel // 2, 1, groups)

    def norm(self, name: str, x: Tensor) -> Tensor:
        for i in range(self.sets):
            if f"{name}.bn_{i}.weight" not in self.state:
                self.state |= {f"{name}.bn_{i}.{key}": value for key, value in self._norm_values(x.shape[1])}
        mean, variance, weight, bias = (
            self.state[f"{name}.bn_{self.path}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, 1e-5)

    def linear(self, name: str, x: Tensor) -> Tensor:
        if f"{name}.module.weight" not in self.state:
            self.state[f"{name}.module.weight"] = 0.1 * torch.randn(CLASSES, x.shape[1], generator=self.generator)
            self.state[f"{name}.module.bias"] = torch.randn(CLASSES, generator=self.generator)
        return F.linear(x, self.state[f"{name}.module.weight"], self.state[f"{name}.module.bias"])

    def _norm_values(self, channels: int) -> Iterator[tuple[str, Tensor]]:
        yield "weight", 0.6 + 0.5 * torch.rand(channels, generator=self.generator)
        yield "bias", 0.2 * torch.randn(channels, generator=self.generator)
        yield "running_mean", 0.2 * torch.randn(channels, generator=self.generator)
        yield "running_var", 0.5 + torch.rand(channels, generator=self.generator)
        yield "num_batches_tracked", torch.tensor(9)


def resnet(net: Release, x: Tensor, blocks: tuple[int, ...], bottleneck: bool) -> Tensor:
    x = F.relu(net.norm("bn1", net.conv("conv1", x, 64, 7, 2)))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate(blocks):
        for i in range(count):
            name, width, stride = f"layer{stage + 1}.{i}", 64 * 2**stage, 2 if stage and i == 0 else 1
            out = 4 * width if bottleneck else width
            layers = (
                [(width, 1, 1), (width, 3, stride), (out, 1, 1)] if bottleneck else [(width, 3, stride), (out, 3, 1)]
            )
            y = x
            for j, (channels, kernel, step) in enumerate(layers, 1):
                y = F.relu(y) if j > 1 else y
                y = net.norm(f"{name}.bn{j}", net.conv(f"{name}.conv{j}", y, channels, kernel, step))
            if stride != 1 or x.shape[1] != out:
                x = net.norm(f"{name}.downsample.1", net.conv(f"{name}.downsample.0", x, out, 1, stride))
            x = F.relu(x + y)
    return net.linear("fc", x.mean((2, 3)))


def mobilenet(net: Release, x: Tensor) -> Tensor:
    x = F.relu6(net.norm("features.0.1", net.conv("features.0.0", x, 32, 3, 2)))
    place = 0
    for expansion, channels, count, first in MOBILENET:
        for i in range(count):
            place += 1
            stride, hidden = first if i == 0 else 1, x.shape[1] * expansion
            layers = [(hidden, 3, stride, hidden), (channels, 1, 1, 1)]
            layers = layers if expansion == 1 else [(hidden, 1, 1, 1), *layers]
            y = x
            for j, (out, kernel, step, groups) in enumerate(layers):
                y = F.relu6(y) if j else y
                own = f"features.{place}.conv.{3 * j}", f"features.{place}.conv.{3 * j + 1}"
                y = net.norm(own[1], net.conv(own[0], y, out, kernel, step, groups))
            x = x + y if stride == 1 and x.shape == y.shape else y
    x = F.relu6(net.norm("conv.1", net.conv("conv.0", x, 1280, 1)))
    return net.linear("classifier", x.mean((2, 3)))


FORWARDS: dict[str, Callable[[Release, Tensor], Tensor]] = {
    "resnet18": lambda net, x: resnet(net, x, (2, 2, 2, 2), bottleneck=False),
    "resnet50": lambda net, x: resnet(net, x, (3, 4, 6, 3), bottleneck=True),
    "mobilenet_v2": mobilenet,
}
ARCHS = {"resnet18": "parallel_resnet18", "resnet50": "parallel_resnet50", "mobilenet_v2": "parallel_mobilenetv2"}


def released(name: str, sets: int = 5) -> tuple[Release, State]:
    """Return the layers, and their tensors as DataParallel names them."""
    net = Release(sets)
    FORWARDS[name](net, torch.rand(1, 3, 32, 32))
    alpha = torch.tensor([1.5, 1.2, 0.9, 0.4, -0.7])[:sets]
    return net, {"module.alpha": alpha} | {f"module.{key}": value for key, value in net.state.items()}


def switchable(name: str, sides: tuple[int, ...] = SIDES) -> SwitchableModel:
    return rsconvert.make_switchable(rsconvert.create_model(f"torchvision/{name}", num_classes=CLASSES), sides).eval()


@torch.no_grad()
@pytest.mark.parametrize("name", FORWARDS)
def test_every_path_computes_the_releases_equations(name: str, tmp_path: Path) -> None:
    reference, state = released(name)
    checkpoint = {"epoch": 120, "arch": ARCHS[name], "state_dict": state, "best_acc0": 73.1, "optimizer": {"state": {}}}
    torch.save(checkpoint, tmp_path / "best.pth.tar")
    net = switchable(name)
    fill_from_rsnets(net, tmp_path / "best.pth.tar")
    rsconvert.save(net, tmp_path / "net.safetensors")
    again = rsconvert.load(tmp_path / "net.safetensors").eval()
    for path, side in enumerate(SIDES):
        reference.path = path
        x = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(side))
        expected = FORWARDS[name](reference, x)
        for model in (net, net.at(side), again):
            assert torch.allclose(model(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        reference.path = (path + 1) % len(SIDES)
        assert (FORWARDS[name](reference, x) - expected).abs().max() > 0.05 * expected.abs().max()
    assert net.alpha.tolist() == state["module.alpha"].tolist()
    assert again.source.preprocessing.mean == (0.0, 0.0, 0.0)
    assert again.source.preprocessing.std == (1.0, 1.0, 1.0)
    assert (again.source.preprocessing.interpolation, again.source.preprocessing.crop_pct) == ("bilinear", 0.875)


@pytest.fixture(scope="module")
def small() -> tuple[Release, State]:
    return released("resnet18", sets=2)


@pytest.fixture
def net() -> SwitchableModel:
    return switchable("resnet18", (64, 32))


def write(state: Any, folder: Path) -> Path:
    torch.save(state, folder / "file.pth.tar")
    return folder / "file.pth.tar"


def test_neither_prefix_nor_counters_nor_a_frame_is_needed(
    small: tuple[Release, State], net: SwitchableModel, tmp_path: Path
) -> None:
    bare = {key.removeprefix("module."): value for key, value in small[1].items() if "num_batches" not in key}
    fill_from_rsnets(net, write(bare, tmp_path))
    assert torch.equal(net.at(64).bn1.weight, bare["bn1.bn_0.weight"])
    assert torch.equal(net.at(32).bn1.weight, bare["bn1.bn_1.weight"])
    assert torch.equal(net.at(32).layer4[1].conv2.weight, bare["layer4.1.conv2.module.weight"])
    assert net.at(32).bn1.num_batches_tracked == 0


def refused(net: SwitchableModel, path: Path, error: type[RSConvertError], match: str) -> None:
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    with pytest.raises(error, match=match) as caught:
        fill_from_rsnets(net, path)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


def test_other_tensors_are_refused(small: tuple[Release, State], net: SwitchableModel, tmp_path: Path) -> None:
    state = small[1]
    lacking = {key: value for key, value in state.items() if key != "module.layer1.0.bn1.bn_1.bias"}
    refused(net, write(lacking, tmp_path), CheckpointError, r"does not fit .* such as layer1\.0\.bn1\.at\.32\.bias")
    without = {key: value for key, value in state.items() if key != "module.alpha"}
    refused(net, write(without, tmp_path), CheckpointError, r"such as rsconvert\.alpha")
    more = state | {"module.extra.module.weight": torch.ones(1)}
    refused(net, write(more, tmp_path), CheckpointError, r"such as extra\.weight")
    other = state | {"module.fc.module.weight": torch.ones(9, 512)}
    refused(net, write(other, tmp_path), CheckpointError, r"such as fc\.weight")


def test_another_network_is_refused(small: tuple[Release, State], net: SwitchableModel, tmp_path: Path) -> None:
    other = {"arch": "parallel_resnet50", "state_dict": small[1]}
    refused(
        net, write(other, tmp_path), UnsupportedModelError, r"parallel_resnet50, not torchvision/resnet18; .*resnet50"
    )
    timm = rsconvert.make_switchable(rsconvert.create_model("test_resnet"), (64, 32))
    refused(
        timm, write(small[1], tmp_path), UnsupportedModelError, r"into test_resnet; the release trains torchvision/"
    )


def test_another_number_of_sets_is_refused(small: tuple[Release, State], tmp_path: Path) -> None:
    three = switchable("resnet18", (64, 48, 32))
    refused(three, write(small[1], tmp_path), ResolutionError, r"2 BN sets and resolutions are \(64, 48, 32\)")


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code ran",))


def test_files_that_are_none_are_refused(
    net: SwitchableModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refused(net, tmp_path / "none.pth.tar", CheckpointError, "can't be read .*No such file")
    refused(
        net, write({"state_dict": Trap()}, tmp_path), CheckpointError, r"can't be read \(.*tensors and plain values"
    )
    assert "code ran" not in capfd.readouterr().out
    (tmp_path / "text").write_text("hello")
    refused(net, tmp_path / "text", CheckpointError, "can't be read")
    refused(net, write([1, 2], tmp_path), CheckpointError, "holds a list")
    refused(net, write({"state_dict": {"epoch": 3}}, tmp_path), CheckpointError, "a dict without tensors by name")
    plain = {"conv1.weight": torch.ones(1)}
    refused(net, write(plain, tmp_path), CheckpointError, r"no tensor such as bn1\.bn_0\.weight")
