"""A checkpoint made by a user's function opens by that function, under the arguments that it was given."""

from pathlib import Path

import pytest
import torch

import rsconvert
from rsconvert.checkpoint import load_among
from rsconvert.cli.loading import load_baselines, load_network

ODD = """
from torch import nn

class Odd(nn.Module):
    def __init__(self, num_classes=3, width=8):
        super().__init__()
        self.fc, self.bn, self.conv = nn.Linear(width, num_classes), nn.BatchNorm2d(width), nn.Conv2d(3, width, 3)

    def forward(self, x):
        return self.fc(self.bn(self.conv(x)).mean((2, 3)))

def boxes(num_classes=2):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, num_classes + 1))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "my.py").write_text(ODD)
    return tmp_path / "my.py"


@pytest.mark.parametrize(
    ("name", "classes", "kwargs", "outputs"),
    [
        ("Odd", None, {}, 3),
        ("Odd", 3, {}, 3),
        ("Odd", 5, {"width": 4}, 5),
        ("boxes", None, {}, 3),  # its argument counts one class less than its outputs
    ],
)
def test_what_wrap_built_opens_again(name: str, classes: int | None, kwargs, outputs: int, file: Path) -> None:
    model = rsconvert.create_model(f"{file}:{name}", num_classes=classes, model_kwargs=kwargs)
    net = rsconvert.make_switchable(model, (64, 32))
    rsconvert.save(net, file.with_suffix(".safetensors"))
    back = load_network(str(file.with_suffix(".safetensors")), f"{file}:{name}")
    assert back.source == net.source
    assert back.source.num_classes == outputs
    assert all((back.state_dict()[key] == value).all() for key, value in net.state_dict().items())


def test_a_library_s_name_opens_by_itself_or_by_a_function_of_the_same_network(file: Path) -> None:
    net = rsconvert.make_switchable(rsconvert.create_model("test_efficientnet", num_classes=4), (64, 32))
    rsconvert.save(net, file.with_suffix(".safetensors"))
    call = "timm.create_model('test_efficientnet', num_classes=num_classes)"
    file.write_text(f"import timm\n\ndef build(num_classes): return {call}")
    for model in (None, f"{file}:build"):
        assert load_network(str(file.with_suffix(".safetensors")), model).source == net.source


def test_a_function_that_takes_img_size_builds_for_each_resolution(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom torch import nn\n\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, img_size=64):\n"
        "        super().__init__()\n"
        "        self.bn, self.pos_embed = nn.BatchNorm2d(3), nn.Parameter(torch.randn(1, 3, img_size, img_size))\n\n"
        "    def forward(self, x):\n"
        "        return self.bn(x) + self.pos_embed\n"
    )
    name = f"{tmp_path}/mine.py:Net"
    make = type(rsconvert.create_model(name))
    net = rsconvert.make_switchable(make(64), (64, 32), build=make).eval()
    rsconvert.save(net, tmp_path / "net.safetensors")
    again = load_network(str(tmp_path / "net.safetensors"), name).eval()
    for side in (64, 48, 32):
        x = torch.rand(1, 3, side, side)
        assert torch.equal(again(x), net(x))


def test_baselines_open_by_the_same_function_or_by_their_own_name(file: Path) -> None:
    name, folder = f"{file}:Odd", file.parent
    for width in (4, 8):
        model = rsconvert.create_model(name, model_kwargs={"width": width})
        rsconvert.save(rsconvert.make_switchable(model, (64, 32)), folder / f"w{width}.safetensors")
    library = rsconvert.make_switchable(rsconvert.create_model("test_efficientnet", num_classes=3), (64, 32))
    rsconvert.save(library, folder / "library.safetensors")
    net = load_network(str(folder / "w8.safetensors"), name)
    texts = [str(folder / "w4.safetensors"), str(folder / "library.safetensors")]
    found = load_baselines(texts, net, name)
    assert [type(baseline.at(64)).__name__ for baseline in found.values()] == ["Odd", "EfficientNet"]
    assert found["w4"].at(64).conv.out_channels == 4
    assert [type(load_among(text, name).at(64)).__name__ for text in texts] == ["Odd", "EfficientNet"]
